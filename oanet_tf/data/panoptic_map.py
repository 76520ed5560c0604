"""The segments of an image, and COCO's RGB code of their ids.

H, W height and width of an image, S segments, R runs.
"""

import functools
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from oanet_tf.data import pictures
from oanet_tf.data.categories import VOID_LABEL, PanopticCategories
from oanet_tf.errors import InputError
from oanet_tf.files import FilePath, replacing

VOID_ID = 0
NUM_IDS = 2**24
MAX_SEGMENT_ID = NUM_IDS - 1
# The category of `Segments.with_unlisted`.
UNLISTED = -1


class Segments(NamedTuple):
  """The segments of an image. Only files have a segment's id in place of its index.

  Attributes:
    index: [H, W] integers; 0 is void, k the k-th segment, counted from 1.
    ids: [S] int32 in [1, 2^24 - 1], unique.
    category_ids: [S] int32, ids of the dataset.
    is_crowd: [S] bool.
    scores: [S] float32 in [0, 1], of a prediction: a thing's is its detection's, that of stuff the
      mean probability of its pixels. None for annotations.
  """

  index: np.ndarray  # type: ignore[assignment]  # A tuple's method of this name is not used.
  ids: np.ndarray
  category_ids: np.ndarray
  is_crowd: np.ndarray
  scores: np.ndarray | None = None

  def labels(self, categories: PanopticCategories, name: str = 'the segmentation') -> np.ndarray:
    """[1 + S] int32 labels to look `index` up in, void's first.

    Raises:
      InputError: if a category is unknown; it names `name` and the segment.
    """
    labels = [VOID_LABEL]
    for segment_id, category_id in zip(self.ids.tolist(), self.category_ids.tolist(), strict=True):
      if category_id == UNLISTED:
        labels.append(VOID_LABEL)
        continue
      if category_id not in categories:
        raise InputError(
          f'{name}: segment {segment_id} has the category id {category_id}, which the dataset does '
          'not have'
        )
      labels.append(categories.label(category_id))
    return np.array(labels, np.int32)

  def with_unlisted(self) -> 'Segments':
    """With one more segment, of all pixels that `index_of_ids` found unlisted.

    It is neither void nor scored: panopticapi counts such pixels of a prediction as wrong.
    """
    return self._replace(
      ids=np.append(self.ids, -1).astype(np.int32),
      category_ids=np.append(self.category_ids, UNLISTED).astype(np.int32),
      is_crowd=np.append(self.is_crowd, True),
    )

  def without(self, left_out: np.ndarray) -> 'Segments':
    """Without the segments for which [S] bool `left_out` says so; they must have no pixel."""
    kept = ~left_out
    places = np.concatenate([[0], np.cumsum(kept) * kept]).astype(self.index.dtype)
    return Segments(
      places[self.index],
      self.ids[kept],
      self.category_ids[kept],
      self.is_crowd[kept],
      None if self.scores is None else self.scores[kept],
    )

  def is_thing(self, categories: PanopticCategories) -> np.ndarray:
    """[S] bool; raises as `labels`."""
    return self.labels(categories)[1:] <= categories.num_things


class Scores(NamedTuple):
  """The scores of a prediction.

  Attributes:
    instances: [N] float32; an instance's number in the instance mask is 1 + its index.
    stuff: [S] float32, by stuff category in the order of the labels.
  """

  instances: np.ndarray
  stuff: np.ndarray


def segments_of_masks(
  category_mask: np.ndarray,
  instance_mask: np.ndarray,
  categories: PanopticCategories,
  scores: Scores | None = None,
) -> Segments:
  """Segments with the ids 1, 2, …: each thing instance is one, and each stuff category.

  Args:
    category_mask: [H, W] int labels.
    instance_mask: [H, W] int; 0 for stuff and void.
    categories: of the labels.
    scores: of the prediction; without them, the segments have none.
  """
  starts, lengths = runs(category_mask, instance_mask)
  instances, labels = (mask.ravel()[starts] for mask in (instance_mask, category_mask))
  codes = instances.astype(np.int64) * categories.num_labels + labels
  found, code_of_run = np.unique(codes, return_inverse=True)
  instances, labels = np.divmod(found, categories.num_labels)
  is_segment = labels != VOID_LABEL
  index = np.where(is_segment, np.cumsum(is_segment), 0).astype(np.int32)
  count = np.count_nonzero(is_segment)
  return Segments(
    np.repeat(index[code_of_run], lengths).reshape(category_mask.shape),
    np.arange(1, count + 1, dtype=np.int32),
    categories.id_of_label_table()[labels[is_segment]],
    np.zeros(count, bool),
    None if scores is None else _scores_of(instances, labels, categories, scores)[is_segment],
  )


def _scores_of(
  instances: np.ndarray, labels: np.ndarray, categories: PanopticCategories, scores: Scores
) -> np.ndarray:
  """[S] float32; 0 for void."""
  of_instance = np.concatenate([[0.0], scores.instances])[instances]
  of_stuff = np.concatenate([np.zeros(1 + categories.num_things), scores.stuff])[labels]
  return np.where(instances > 0, of_instance, of_stuff).astype(np.float32)


def runs(*maps: np.ndarray, channels: int = 1) -> tuple[np.ndarray, np.ndarray]:
  """Splits maps into runs of pixels, row after row, in which none of them changes.

  There are some fifty times fewer runs than pixels.

  Args:
    maps: each [H, W] or [H W]; with `channels`, [H, W, channels].
    channels: numbers per pixel.

  Returns:
    [R] int places of the runs' first pixels in the flat maps, [R] int lengths in pixels.
  """
  flat = [one.ravel() for one in maps]
  changes = functools.reduce(np.logical_or, (one[channels:] != one[:-channels] for one in flat))
  starts = (np.flatnonzero(changes) + channels) // channels
  # Several channels of one pixel may change; the first pixel, if there is one, begins a run too.
  is_first = np.diff(starts, prepend=0) > 0
  count = flat[0].size // channels
  starts = np.concatenate([np.arange(count > 0), starts[is_first]])
  return starts, np.diff(starts, append=count)


def summed(codes: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """The [K] different ones of [R] codes, sorted, and the [K] float64 sums of their lengths."""
  present = np.unique(codes)
  return present, np.bincount(np.searchsorted(present, codes), lengths, len(present))


def segments_info(segments: Segments, categories: PanopticCategories, name: str) -> list[dict]:
  """The segments as JSON takes them, in plain Python numbers.

  Args:
    segments: H, W ≥ 1; each has a pixel.
    categories: of the dataset.
    name: what to call the image in an error.

  Returns:
    For each segment `id`, `category_id`, `area`, `bbox` [x, y, width, height] and `iscrowd`, as in
    COCO's files. Those of a prediction also have `label` (the category's name), `label_id` (its
    place among the categories, things first, from 1), `isthing` and `score`.

  Raises:
    InputError: if a segment has no pixel or a category is unknown; it names `name`.
  """
  count = len(segments.ids)
  areas, boxes = _extents(segments.index, count)
  check_segments_have_pixels(segments.ids, areas, name)
  columns = (segments.ids, segments.category_ids, areas, boxes, segments.is_crowd)
  info = [
    {
      'id': int(segment_id),
      'category_id': int(category_id),
      'area': int(area),
      'bbox': box.tolist(),
      'iscrowd': int(is_crowd),
    }
    for segment_id, category_id, area, box, is_crowd in zip(*columns, strict=True)
  ]
  if segments.scores is None:
    return info
  labels = segments.labels(categories, name)[1:].tolist()
  for entry, label, score in zip(info, labels, segments.scores.tolist(), strict=True):
    entry |= {
      'label': categories.category(label).name,
      'label_id': label,
      'isthing': int(categories.is_thing(label)),
      'score': score,
    }
  return info


def _extents(index: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
  """[S] areas and [S, 4] boxes [x, y, width, height]; a box means nothing where the area is 0."""
  height, width = index.shape
  # Runs of one row each.
  starts, lengths = runs(index, np.broadcast_to(np.arange(height)[:, None], index.shape))
  of_run = index.ravel()[starts]
  y, x = np.divmod(starts, width)
  low, high = np.full([count + 1, 2], index.size), np.zeros([count + 1, 2], np.intp)
  np.minimum.at(low, of_run, np.stack([x, y], axis=1))
  np.maximum.at(high, of_run, np.stack([x + lengths, y + 1], axis=1))
  areas = np.bincount(of_run, lengths, minlength=count + 1)[1:].astype(np.intp)
  return areas, np.concatenate([low, high - low], axis=1)[1:]


def read_id_png(encoded: bytes, name: str, *, verify: bool = True) -> np.ndarray:
  """The colours of a PNG that codes segment ids.

  An alpha channel says nothing of ids and is left out, as panopticapi does; a palette's colours are
  the code.

  Args:
    encoded: content of the file.
    name: what to call it in an error.
    verify: see `pictures.decoded`.

  Returns:
    [H, W, 3] uint8 RGB.

  Raises:
    InputError: if it is damaged, or of a kind that does not code ids.
  """
  if not verify and (rgb := _decoded_quickly(encoded)) is not None:
    return rgb
  png = pictures.decoded(encoded, name, verify=verify)
  # A PNG's first chunk says its depth; Pillow drops the lower 8 of 16 bits.
  is_deep = png.format == 'PNG' and encoded[24] == 16
  if png.format != 'PNG' or png.mode not in ('RGB', 'RGBA', 'P') or is_deep:
    kind = f'{png.format} {png.mode}' + (' of 16 bits' if is_deep else '')
    raise InputError(
      f'{name}: is {kind}, not PNG RGB of 8 bits, which codes segment ids as R + 256 G + 65536 B'
    )
  return np.asarray(png if png.mode == 'RGB' else png.convert('RGB'))


def _decoded_quickly(encoded: bytes) -> np.ndarray | None:
  """[H, W, 3] uint8 in a third of Pillow's time, or None.

  It takes sound RGB PNGs of 8 bits in which nothing comes before the pixels that could say how they
  are meant, such as a palette. COCO's and ours are so.
  """
  # Not at the top, since predicting with LiteRT does without it.
  from kornia_rs import io

  size = tuple(int.from_bytes(encoded[at : at + 4], 'big') for at in (20, 16))
  if encoded[37:41] != b'IDAT' or size[0] * size[1] > pictures.MAX_PIXELS:
    return None
  try:
    return io.decode_image_png_u8(encoded, size, 'rgb')
  except Exception:  # Its errors have no other class. Pillow says what is wrong, if anything is.
    return None


def read_index(rgb: np.ndarray, ids: np.ndarray, name: str) -> np.ndarray:
  """The `index` of an RGB image of segment ids.

  Args:
    rgb: [H, W, 3] uint8.
    ids: [S] int32, the segments' in [0, 2^24 - 1], unique.
    name: what to call the image in an error.

  Returns:
    [H, W] int32, as of `index_of_ids`.

  Raises:
    InputError: if an id of the image is not in the list.
  """
  starts, lengths = runs(rgb, channels=3)
  index = index_of_ids(ids_at(rgb, starts), ids, name)
  return np.repeat(index, lengths).reshape(rgb.shape[:2])


def ids_at(rgb: np.ndarray, places: np.ndarray) -> np.ndarray:
  """The ids that pixels code: R + 256 G + 256² B (cocodataset.org/#format-data).

  Args:
    rgb: [H, W, 3] uint8.
    places: [R] int, of the pixels in the flat map.

  Returns:
    [R] int32.
  """
  # Faster than `[places]`.
  return rgb.reshape(-1, 3).take(places, axis=0) @ np.array([1, 256, 65536], np.int32)


def index_of_ids(
  found: np.ndarray, ids: np.ndarray, name: str, allow_unlisted: bool = False
) -> np.ndarray:
  """The places of ids in the list of segments.

  Args:
    found: [R] int32, the pixels'.
    ids: [S] int32 in [0, 2^24 - 1], unique. If 0 is among them, it is no longer void.
    name: what to call the image in an error.
    allow_unlisted: whether there may be pixels whose ids are not in the list.

  Returns:
    [R] int32: 0 for void, k for the k-th of `ids`, counted from 1; S + 1 for what is not listed.

  Raises:
    InputError: if an id is not in the list, unless that is allowed.
  """
  listed = np.concatenate([[-1 if VOID_ID in ids else VOID_ID], ids])
  order = np.argsort(listed).astype(np.int32)
  places = np.searchsorted(listed, found, sorter=order)
  index = order[np.minimum(places, len(ids))]
  unlisted = listed[index] != found
  if allow_unlisted:
    return np.where(unlisted, np.int32(len(listed)), index)
  if unlisted.any():
    raise InputError(
      f'{name}: segment {found[unlisted][0]} is in the map but not in the list of segments'
    )
  return index


def ids_to_rgb(ids: np.ndarray) -> np.ndarray:
  """[…] integers in [0, 2^24 - 1] -> […, 3] uint8; the code of `read_index`."""
  return np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)


def write_panoptic_png(path: FilePath, segments: Segments) -> None:
  """Writes the segment ids of [H, W], H, W ≥ 1, as COCO's RGB; whole or not at all."""
  colors = ids_to_rgb(np.concatenate([[VOID_ID], segments.ids]))
  with replacing(pathlib.Path(path)) as temporary:
    Image.fromarray(colors[segments.index]).save(temporary, format='PNG')


def check_sizes(
  ground_truth: Sequence[int], prediction: Sequence[int], ground_truth_name: str, name: str
) -> None:
  """Raises `InputError` if two maps' [height, width] differ; it names the prediction's `name`."""
  if ground_truth != prediction:
    sizes = [f'{width} × {height}' for height, width in (prediction, ground_truth)]
    raise InputError(
      f'{name}: is {sizes[0]} pixels (width × height), but {ground_truth_name} is {sizes[1]}'
    )


def check_segments_have_pixels(ids: np.ndarray, areas: np.ndarray, name: str) -> None:
  """Raises `InputError` if one of the [S] areas, in pixels, is 0."""
  if not areas.all():
    raise InputError(f'{name}: segment {ids[areas == 0][0]} is listed but has no pixel in the map')
