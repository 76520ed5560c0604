"""One image's panoptic segmentation in memory, and COCO's RGB coding of segment ids."""

from typing import NamedTuple

import numpy as np

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


def rgb_to_ids(rgb: np.ndarray) -> np.ndarray:
  """[H, W, 3] uint8 -> [H, W] int32: id = R + 256 G + 256² B (cocodataset.org/#format-data)."""
  wide = rgb.astype(np.int32)
  return wide[..., 0] + 256 * wide[..., 1] + 65536 * wide[..., 2]


def ids_to_rgb(ids: np.ndarray) -> np.ndarray:
  """[H, W] integers in [0, 2^24 - 1] -> [H, W, 3] uint8; the inverse of `rgb_to_ids`."""
  return np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)
