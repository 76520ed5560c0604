"""The Model Garden's encoding of masks: official/vision/data/create_coco_tf_record.py.

Each object's mask is a PNG of the image's size. The panoptic map is two 8-bit PNGs: each pixel's
category id (0 is void), and its instance number within the image (0 for stuff). There is no list of
segments.
"""

# H, W image, S segments, M objects.

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from oanet_tf.data.coco_panoptic import PanopticRecord
from oanet_tf.data.png import gray_png
from oanet_tf.errors import InputError

if TYPE_CHECKING:
  import tensorflow as tf

FULL_MASK = 'image/object/mask'
CATEGORY_MASK = 'image/panoptic/category_mask'
INSTANCE_MASK = 'image/panoptic/instance_mask'

_MAX_VALUE = 255
# In pixels; boxes are stored as float32 fractions of the image's sides.
_TOLERANCE = 0.01


def mask_features(record: PanopticRecord) -> dict[str, list[bytes]]:
  """Encodes the masks and maps of a record; its thing segments are the instances 1, 2, …

  Raises:
    InputError: if a category id or the number of instances is above 255, or a category id is 0,
      which stands for void.
  """
  segments, objects = record.segments, record.objects
  category_ids = np.concatenate([[0], segments.category_ids])
  instances = np.concatenate([[0], np.cumsum(record.is_thing) * record.is_thing])
  highest_id = max(category_ids.max(), objects.category_ids.max(initial=0))
  _check_fits(highest_id, 'a category id', record.file_name)
  if not segments.category_ids.all():
    raise InputError(
      f'{record.file_name}: a segment is of the category with the id 0, which is void in records '
      'with mask_encoding full_png; use cropped'
    )
  _check_fits(instances.max(), 'the number of things', record.file_name)
  return {
    FULL_MASK: [gray_png(mask) for mask in _full_masks(record)],
    CATEGORY_MASK: [gray_png(category_ids.astype(np.uint8)[segments.index])],
    INSTANCE_MASK: [gray_png(instances.astype(np.uint8)[segments.index])],
  }


def _check_fits(value: int, what: str, file_name: str) -> None:
  if value > _MAX_VALUE:
    raise InputError(
      f'{file_name}: {what} is {value}, but records with mask_encoding full_png hold up to '
      f'{_MAX_VALUE}; use cropped'
    )


def _full_masks(record: PanopticRecord) -> Iterator[np.ndarray]:
  for (y1, x1, y2, x2), mask in zip(
    record.objects.boxes.astype(int), record.objects.masks, strict=True
  ):
    full = np.zeros([record.height, record.width], bool)
    full[y1:y2, x1:x2] = mask
    yield full


def decode_segments(
  category_mask: 'tf.Tensor', instance_mask: 'tf.Tensor'
) -> tuple['tf.Tensor', 'tf.Tensor', 'tf.Tensor', 'tf.Tensor']:
  """Decodes the segments: the distinct pairs of category and instance, in ascending order.

  Args:
    category_mask: [] string, PNG.
    instance_mask: [] string, PNG.

  Returns:
    index: [H, W] int32, 0 for void, k for the k-th segment, counted from 1.
    segment_ids: [S] int32, 256 × category + instance.
    category_ids: [S] int32, ids of the dataset.
    is_crowd: [S] bool, all False: these records do not tell which segments are crowds.
  """
  import tensorflow as tf

  category, instance = (
    tf.cast(tf.io.decode_png(png, channels=1)[..., 0], tf.int32)
    for png in (category_mask, instance_mask)
  )
  pairs = 256 * category + instance
  # tf.unique would take ten times as long.
  present = tf.math.bincount(tf.reshape(pairs, [-1]), minlength=2**16) > 0
  is_segment = present & (tf.range(2**16) >= 256)
  position_of = tf.cumsum(tf.cast(is_segment, tf.int32)) * tf.cast(is_segment, tf.int32)
  ids = tf.cast(tf.where(is_segment)[:, 0], tf.int32)
  return tf.gather(position_of, pairs), ids, ids // 256, tf.zeros_like(ids, tf.bool)


def crop_masks(
  masks: 'tf.Tensor', boxes: 'tf.Tensor', height: 'tf.Tensor', width: 'tf.Tensor'
) -> tuple['tf.Tensor', 'tf.Tensor']:
  """Crops masks of the image's size to their boxes.

  Args:
    masks: [M] string: 8-bit PNGs, 0 outside the object.
    boxes: [M, 4] float32, [y1, x1, y2, x2] in pixels.
    height: [] int32, H.
    width: [] int32, W.

  Returns:
    masks: [M] string: 8-bit PNGs of 0 and 1.
    boxes: [M, 4] float32, rounded outward to whole pixels, and inside the image.
  """
  import tensorflow as tf

  whole = tf.cast(
    tf.concat([tf.floor(boxes[:, :2] + _TOLERANCE), tf.math.ceil(boxes[:, 2:] - _TOLERANCE)], 1),
    tf.int32,
  )
  size = tf.stack([height, width])
  starts = tf.clip_by_value(whole[:, :2], 0, size - 1)
  stops = tf.clip_by_value(whole[:, 2:], starts + 1, size)

  def crop(elements: tuple['tf.Tensor', ...]) -> 'tf.Tensor':
    png, (y1, x1), (y2, x2) = elements[0], tf.unstack(elements[1]), tf.unstack(elements[2])
    mask = tf.io.decode_png(png, channels=1)[y1:y2, x1:x2]
    return tf.io.encode_png(tf.cast(mask > 0, tf.uint8))

  cropped = tf.map_fn(crop, (masks, starts, stops), fn_output_signature=tf.string)
  return cropped, tf.cast(tf.concat([starts, stops], 1), tf.float32)
