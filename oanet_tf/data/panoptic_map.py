"""One image's panoptic segmentation in memory, and COCO's RGB coding of segment ids."""

from typing import NamedTuple

import numpy as np

from oanet_tf.data.categories import VOID_LABEL, PanopticCategories
from oanet_tf.errors import InputError

VOID_ID = 0
MAX_SEGMENT_ID = 2**24 - 1


class PanopticSegmentation(NamedTuple):
  """A segment id for each pixel, and what each segment is.

  Attributes:
    segment_map: [H, W] int32; 0 is void, every other value is one of `segment_ids`.
    segment_ids: [S] int32 in [1, 2^24 - 1], unique.
    category_ids: [S] int32, ids of the dataset.
    is_crowd: [S] bool.
  """

  segment_map: np.ndarray
  segment_ids: np.ndarray
  category_ids: np.ndarray
  is_crowd: np.ndarray


class IndexedSegments(NamedTuple):
  """For each pixel a segment's place in a list, and what each segment is.

  Attributes:
    index: [H, W] uint16; 0 is void, k the k-th segment, counted from 1.
    segment_ids: [S] int32 in [1, 2^24 - 1], unique.
    category_ids: [S] int32, ids of the dataset.
    is_crowd: [S] bool.
  """

  index: np.ndarray
  segment_ids: np.ndarray
  category_ids: np.ndarray
  is_crowd: np.ndarray


def segmentation_of(segments: IndexedSegments) -> PanopticSegmentation:
  """The same with segment ids in the map."""
  ids = np.concatenate([[VOID_ID], segments.segment_ids]).astype(np.int32)
  return PanopticSegmentation(ids[segments.index], *segments[1:])


def to_segmentation(
  category_mask: np.ndarray, instance_mask: np.ndarray, categories: PanopticCategories
) -> PanopticSegmentation:
  """Segments of one image: each thing instance, and each stuff category, is one.

  Args:
    category_mask: [H, W] int labels.
    instance_mask: [H, W] int; 0 for stuff and void.
    categories: of the labels.
  """
  codes = instance_mask.astype(np.int64) * categories.num_labels + category_mask
  found, inverse = np.unique(codes, return_inverse=True)
  labels = found % categories.num_labels
  is_segment = labels != VOID_LABEL
  ids = np.where(is_segment, np.cumsum(is_segment), 0).astype(np.int32)
  return PanopticSegmentation(
    segment_map=ids[inverse].reshape(codes.shape),
    segment_ids=ids[is_segment],
    category_ids=categories.id_of_label_table()[labels[is_segment]],
    is_crowd=np.zeros(np.count_nonzero(is_segment), bool),
  )


def rgb_to_ids(rgb: np.ndarray) -> np.ndarray:
  """[H, W, 3] uint8 -> [H, W] int32: id = R + 256 G + 256² B (cocodataset.org/#format-data)."""
  wide = rgb.astype(np.int32)
  return wide[..., 0] + 256 * wide[..., 1] + 65536 * wide[..., 2]


def ids_to_rgb(ids: np.ndarray) -> np.ndarray:
  """[H, W] integers in [0, 2^24 - 1] -> [H, W, 3] uint8; the inverse of `rgb_to_ids`."""
  return np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)


def segment_positions(segmentation: PanopticSegmentation, name: str) -> np.ndarray:
  """Replaces each segment id by its place in the list of segments.

  Args:
    segmentation: any segmentation.
    name: what to call it in an error.

  Returns:
    [H, W] int32: 0 for void, k for the k-th of `segment_ids`, counted from 1.

  Raises:
    InputError: if an id is out of range, listed twice, or in the map but not in the list.
  """
  segment_map, ids = segmentation.segment_map, segmentation.segment_ids
  highest = max(ids.max(initial=0), segment_map.max(initial=0))
  lowest = min(ids.min(initial=1), segment_map.min(initial=0) + 1)
  if lowest < 1 or highest > MAX_SEGMENT_ID:
    raise InputError(f'{name}: a segment id is out of [1, {MAX_SEGMENT_ID}]')
  unique, counts = np.unique(ids, return_counts=True)
  if len(unique) != len(ids):
    raise InputError(f'{name}: segment {unique[counts > 1][0]} is listed twice')
  # At most 64 MB, of which the system only provides the few pages that are touched.
  position_of = np.zeros(int(highest) + 1, np.int32)
  position_of[ids] = np.arange(1, len(ids) + 1)
  positions = position_of[segment_map]
  unlisted = (positions == 0) & (segment_map != VOID_ID)
  if unlisted.any():
    raise InputError(
      f'{name}: segment {segment_map[unlisted][0]} is in the map but not in the list of segments'
    )
  return positions


def check_segments_have_pixels(
  segmentation: PanopticSegmentation | IndexedSegments, areas: np.ndarray, name: str
) -> None:
  """Raises `InputError` if one of the [S] areas, in pixels, is 0."""
  if not areas.all():
    segment_id = segmentation.segment_ids[areas == 0][0]
    raise InputError(f'{name}: segment {segment_id} is listed but has no pixel in the map')
