"""Objects of an image: instances of things, whose masks may overlap.

H, W height and width of an image, S segments, M objects, h, w height and width of an object's box.
"""

import reprlib
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from pycocotools import mask as coco_mask
from scipy import ndimage

from oanet_tf.data import pictures
from oanet_tf.data.panoptic_map import Segments
from oanet_tf.errors import InputError

Overlaps = Literal['fill_holes', 'none']

# pycocotools allocates memory in proportion to a polygon's length.
_MAX_COORDINATE = 2**16


class Objects(NamedTuple):
  """Instances of things; their masks may overlap.

  Attributes:
    boxes: [M, 4] float32, [y1, x1, y2, x2] in pixels: whole numbers, tight around the masks.
    category_ids: [M] int32, ids of the dataset.
    is_crowd: [M] bool.
    masks: M arrays [h, w] bool, each the size of its box.
  """

  boxes: np.ndarray
  category_ids: np.ndarray
  is_crowd: np.ndarray
  masks: list[np.ndarray]


class Instance(NamedTuple):
  """One annotation of an instances JSON; `segmentation` is COCO's: polygons or RLE, unchecked."""

  annotation_id: int | str
  category_id: int
  is_crowd: bool
  segmentation: Any


def objects_of_segments(
  segments: Segments, is_thing: np.ndarray, overlaps: Overlaps = 'fill_holes'
) -> Objects:
  """The segments of thing categories as objects.

  Args:
    segments: each with a pixel in the map.
    is_thing: [S] bool.
    overlaps: 'fill_holes' applies `fill_holes` to all but crowds, which are no single object that
      others could lie on. 'none' leaves the masks as they are: they do not overlap.
  """
  index, category_ids, is_crowd = segments.index, segments.category_ids, segments.is_crowd
  things = np.concatenate([[False], is_thing])[index]
  windows = ndimage.find_objects(index)
  found = []
  for k in np.flatnonzero(is_thing):
    rows, columns = windows[k]
    mask = index[rows, columns] == k + 1
    if overlaps == 'fill_holes' and not is_crowd[k]:
      mask = fill_holes(mask, things[rows, columns])
    box = rows.start, columns.start, rows.stop, columns.stop
    found.append((box, category_ids[k], is_crowd[k], mask))
  return _objects(found)


def fill_holes(mask: np.ndarray, things: np.ndarray) -> np.ndarray:
  """Adds to a mask those pixels of its holes that things occupy.

  Panoptic masks do not overlap, so a tie is a hole in the person who wears it. A hole is not
  4-connected to the border of the array. Its stuff and void pixels are not added.

  Args:
    mask: [h, w] bool.
    things: [h, w] bool, pixels of any thing.
  Returns:
    [h, w] bool.
  """
  others = things & ~mask
  if not others.any():
    return mask
  # Two to three times as fast as `ndimage.binary_fill_holes`.
  regions, count = ndimage.label(~mask)
  is_hole = np.ones(count + 1, bool)
  for edge in (regions[0], regions[-1], regions[:, 0], regions[:, -1]):
    is_hole[edge] = False
  return mask | (is_hole[regions] & others)


def turned(objects: Objects, orientation: int, height: int, width: int) -> Objects:
  """Objects of the pixels as stored -> of the upright picture; see `pictures.turned`.

  Args:
    objects: of stored pixels.
    orientation: EXIF's, in [1, 8].
    height, width: of the stored pixels.
  """
  boxes, size = objects.boxes, (height, width)
  if orientation >= 5:
    boxes, size = boxes[:, [1, 0, 3, 2]], (width, height)
  boxes = boxes.copy()
  for axis, side in enumerate(size):
    if pictures.flip(orientation, axis) < 0:
      boxes[:, [axis, axis + 2]] = side - boxes[:, [axis + 2, axis]]
  masks = [np.ascontiguousarray(pictures.turned(mask, orientation)) for mask in objects.masks]
  return objects._replace(boxes=boxes, masks=masks)


def overlapping(objects: Objects, height: int, width: int) -> np.ndarray:
  """[M] bool: whether an object's mask shares a pixel with another object's mask."""
  depth = np.zeros([height, width], np.uint8)  # Number of masks at a pixel, up to 2.
  crops = [depth[y1:y2, x1:x2] for y1, x1, y2, x2 in objects.boxes.astype(int)]
  for crop, mask in zip(crops, objects.masks, strict=True):
    crop += mask & (crop < 2)
  return np.array(
    [(mask & (crop > 1)).any() for crop, mask in zip(crops, objects.masks, strict=True)], bool
  )


def has_conflict(objects: Objects, segments: Segments) -> bool:
  """Whether the ranking loss (`losses.srm_loss`) counts a pixel of the image.

  Such a pixel is covered by objects of two or more categories, crowds left out, and its segment is
  of one of these categories.
  """
  shown = np.concatenate([[0], segments.category_ids])[segments.index]
  depth = np.zeros(shown.shape, np.uint8)  # Number of categories at a pixel, up to 2.
  is_shown = np.zeros(shown.shape, bool)
  for category_id in np.unique(objects.category_ids[~objects.is_crowd]):
    covered = np.zeros(shown.shape, bool)
    for k in np.flatnonzero((objects.category_ids == category_id) & ~objects.is_crowd):
      y1, x1, y2, x2 = objects.boxes[k].astype(int)
      covered[y1:y2, x1:x2] |= objects.masks[k]
    depth += covered & (depth < 2)
    is_shown |= covered & (shown == category_id)
  return bool((is_shown & (depth > 1)).any())


def objects_of_instances(
  instances: Sequence[Instance], height: int, width: int, source: str
) -> Objects:
  """Annotations as objects, without those whose mask has no pixel in the image.

  Raises:
    InputError: if an annotation's `segmentation` is malformed; it names `source`, their file.
  """
  found = []
  for instance in instances:
    try:
      mask = instance_mask(instance.segmentation, height, width)
    except ValueError as error:
      raise InputError(f'{source}: annotation {instance.annotation_id}: {error}') from None
    if mask.any():
      y1, x1, y2, x2 = box = _tight_box(mask)
      crop = np.ascontiguousarray(mask[y1:y2, x1:x2])
      found.append((box, instance.category_id, instance.is_crowd, crop))
  return _objects(found)


def _objects(found: Sequence[tuple]) -> Objects:
  boxes, category_ids, is_crowd, masks = zip(*found, strict=True) if found else ((), (), (), ())
  return Objects(
    np.array(boxes, np.float32).reshape(-1, 4),
    np.array(category_ids, np.int32),
    np.array(is_crowd, bool),
    list(masks),
  )


def _tight_box(mask: np.ndarray) -> tuple[int, int, int, int]:
  rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
  return rows[0], columns[0], rows[-1] + 1, columns[-1] + 1


def instance_mask(segmentation: list | dict, height: int, width: int) -> np.ndarray:
  """COCO's `segmentation` (polygons, or RLE, compressed or not) -> [height, width] bool.

  Raises:
    ValueError: if it is malformed, or an RLE of another size.
  """
  if isinstance(segmentation, list):
    return _polygons_mask(segmentation, height, width)
  counts, size = segmentation.get('counts'), segmentation.get('size')
  if size != [height, width]:
    raise ValueError(f'RLE of size {reprlib.repr(size)}, not {[height, width]}')
  # Not pycocotools' decoder: it writes beyond its memory if the last character announces another,
  # and leaves pixels uninitialized if the runs do not fill the image.
  runs = _runs_of_string(counts) if isinstance(counts, str) else counts
  if not isinstance(runs, list) or not all(type(run) is int and run >= 0 for run in runs):
    raise ValueError(f'malformed RLE counts {reprlib.repr(counts)}')
  if sum(runs) != height * width:
    raise ValueError(f'RLE of {sum(runs)} pixels, not {height * width}')
  return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T


def _polygons_mask(polygons: list, height: int, width: int) -> np.ndarray:
  valid = []
  for polygon in polygons:
    try:
      points = np.array(polygon, np.float64)
    except (TypeError, ValueError):
      raise ValueError(f'malformed polygon {reprlib.repr(polygon)}') from None
    if points.ndim != 1 or points.size % 2 or not (np.abs(points) <= _MAX_COORDINATE).all():
      raise ValueError(f'malformed polygon {reprlib.repr(polygon)}')
    # Fewer than three points have no area, and pycocotools takes two for a box.
    if points.size >= 6:
      valid.append(points.tolist())
  if not valid:
    return np.zeros([height, width], bool)
  return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(valid, height, width))) > 0


def _runs_of_string(text: str) -> list[int]:
  """Runs of COCO's compressed RLE: the inverse of rleToString in cocoapi's maskApi.c.

  Each character holds six bits, five of them data, lowest first. From the fourth run on, it is the
  difference to the run before the last that is stored.
  """
  runs, value, shift = [], 0, 0
  for character in text:
    bits = ord(character) - 48
    if not 0 <= bits < 64:
      raise ValueError(f'malformed RLE with character {character!r}')
    value |= (bits & 31) << shift
    shift += 5
    if not bits & 32:
      signed = value - (1 << shift) if bits & 16 else value
      runs.append(signed + (runs[-2] if len(runs) > 2 else 0))
      value = shift = 0
  return runs
