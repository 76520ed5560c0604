"""Records as `tf.train.Example`: feature keys, `encode`, `decode` (schema: tfrecords/README.md).

H, W height and width of the image, S segments, M objects.
"""

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from oanet_tf.data.coco_panoptic import PanopticRecord
from oanet_tf.data.panoptic_map import PanopticSegmentation, segment_positions
from oanet_tf.errors import InputError

if TYPE_CHECKING:
  # Loaded in the functions that use it: the converter's processes encode features only, and
  # without TensorFlow start in a tenth of the time.
  import tensorflow as tf

SCHEMA = 1
# A 16-bit PNG holds their index.
_MAX_SEGMENTS = 2**16 - 1

# The Model Garden's names (create_coco_tf_record.py), so that its decoder reads boxes and classes.
IMAGE = 'image/encoded'
FORMAT = 'image/format'
HEIGHT = 'image/height'
WIDTH = 'image/width'
SOURCE_ID = 'image/source_id'
FILE_NAME = 'image/filename'
OBJECT_BOX_SIDES = tuple(f'image/object/bbox/{side}' for side in ('ymin', 'xmin', 'ymax', 'xmax'))
OBJECT_CATEGORY_ID = 'image/object/class/label'
OBJECT_IS_CROWD = 'image/object/is_crowd'
OBJECT_AREA = 'image/object/area'
# Our own.
OBJECT_MASK = 'image/object/cropped_mask'
SEGMENT_INDEX = 'image/panoptic/segment_index'
SEGMENT_ID = 'image/panoptic/segment/id'
SEGMENT_CATEGORY_ID = 'image/panoptic/segment/category_id'
SEGMENT_IS_CROWD = 'image/panoptic/segment/is_crowd'
SCHEMA_VERSION = 'image/schema_version'

Features = dict[str, list[bytes] | list[int] | list[float]]


def features(record: PanopticRecord) -> Features:
  """A record's features as plain lists; this needs no TensorFlow.

  Raises:
    InputError: if there are more than 65,535 segments, or the map has an id that no segment has.
  """
  segmentation, objects = record.segmentation, record.objects
  if len(segmentation.segment_ids) > _MAX_SEGMENTS:
    raise InputError(
      f'{record.file_name}: has more than {_MAX_SEGMENTS} segments; records cannot hold them'
    )
  sides = objects.boxes / np.tile([record.height, record.width], 2)
  return {
    SCHEMA_VERSION: [SCHEMA],
    SOURCE_ID: [str(record.image_id).encode()],
    FILE_NAME: [record.file_name.encode()],
    HEIGHT: [record.height],
    WIDTH: [record.width],
    FORMAT: [record.image_format.encode()],
    IMAGE: [record.encoded_image],
    SEGMENT_INDEX: [_png(segment_positions(segmentation, record.file_name).astype(np.uint16))],
    SEGMENT_ID: segmentation.segment_ids.tolist(),
    SEGMENT_CATEGORY_ID: segmentation.category_ids.tolist(),
    SEGMENT_IS_CROWD: segmentation.is_crowd.astype(int).tolist(),
    **{key: side.tolist() for key, side in zip(OBJECT_BOX_SIDES, sides.T, strict=True)},
    OBJECT_CATEGORY_ID: objects.category_ids.tolist(),
    OBJECT_IS_CROWD: objects.is_crowd.astype(int).tolist(),
    OBJECT_AREA: [float(mask.sum()) for mask in objects.masks],
    # 8 bits a pixel: TensorFlow decodes 1-bit PNGs to 0 and 255, and slower.
    OBJECT_MASK: [_png(mask.astype(np.uint8)) for mask in objects.masks],
  }


def serialize(plain: Features) -> bytes:
  """`features` as a serialized `tf.train.Example`; equal features give equal bytes."""
  import tensorflow as tf

  kinds = {
    int: lambda values: tf.train.Feature(int64_list=tf.train.Int64List(value=values)),
    float: lambda values: tf.train.Feature(float_list=tf.train.FloatList(value=values)),
    bytes: lambda values: tf.train.Feature(bytes_list=tf.train.BytesList(value=values)),
  }
  feature = {key: kinds[type(values[0])](values) for key, values in plain.items() if values}
  example = tf.train.Example(features=tf.train.Features(feature=feature))
  return example.SerializeToString(deterministic=True)


def encode(record: PanopticRecord) -> bytes:
  """A record as a serialized `tf.train.Example`; the inverse of `decode`.

  Raises:
    InputError: if there are more than 65,535 segments, or the map has an id that no segment has.
  """
  return serialize(features(record))


def decode(serialized: 'tf.Tensor') -> dict[str, 'tf.Tensor']:
  """A serialized example -> tensors; pure TensorFlow, for use inside tf.data.

  Args:
    serialized: [] string, of `encode`.
  Returns:
    source_id: [] string, the image's id.
    height, width: [] int32.
    image: [H, W, 3] uint8 RGB.
    segment_index: [H, W] int32, 0 where void, k where the k-th segment is (1 is the first).
    segment_ids, segment_category_ids: [S] int32, ids of the dataset.
    segment_is_crowd: [S] bool.
    object_boxes: [M, 4] float32, [y1, x1, y2, x2] in pixels: whole numbers, tight.
    object_category_ids: [M] int32, ids of the dataset.
    object_is_crowd: [M] bool.
    object_masks: [M] string: 8-bit PNGs of 0 and 1, each the size of its box.
  Raises:
    tf.errors.InvalidArgumentError: if the record is of another schema, or damaged.
  """
  import tensorflow as tf

  parsed = _parse(serialized)
  tf.debugging.assert_equal(
    parsed[SCHEMA_VERSION],
    tf.constant(SCHEMA, tf.int64),
    'record of another schema; convert the dataset again',
  )
  height, width = (tf.cast(parsed[key], tf.int32) for key in (HEIGHT, WIDTH))
  image = tf.io.decode_image(parsed[IMAGE], channels=3, expand_animations=False)
  image.set_shape([None, None, 3])
  index = tf.io.decode_png(parsed[SEGMENT_INDEX], channels=1, dtype=tf.uint16)
  sides = tf.stack([parsed[key] for key in OBJECT_BOX_SIDES], axis=-1)
  return {
    'source_id': parsed[SOURCE_ID],
    'height': height,
    'width': width,
    'image': image,
    'segment_index': tf.cast(index[..., 0], tf.int32),
    'segment_ids': tf.cast(parsed[SEGMENT_ID], tf.int32),
    'segment_category_ids': tf.cast(parsed[SEGMENT_CATEGORY_ID], tf.int32),
    'segment_is_crowd': tf.cast(parsed[SEGMENT_IS_CROWD], tf.bool),
    'object_boxes': tf.round(sides * tf.cast([height, width, height, width], tf.float32)),
    'object_category_ids': tf.cast(parsed[OBJECT_CATEGORY_ID], tf.int32),
    'object_is_crowd': tf.cast(parsed[OBJECT_IS_CROWD], tf.bool),
    'object_masks': parsed[OBJECT_MASK],
  }


def segmentation_from_decoded(decoded: Mapping[str, np.ndarray]) -> PanopticSegmentation:
  """The segmentation of a record; `decoded` is `decode`'s dict as numpy arrays."""
  ids = np.concatenate([[0], decoded['segment_ids']]).astype(np.int32)
  return PanopticSegmentation(
    ids[decoded['segment_index']],
    decoded['segment_ids'],
    decoded['segment_category_ids'],
    decoded['segment_is_crowd'],
  )


def _parse(serialized: 'tf.Tensor') -> dict[str, 'tf.Tensor']:
  import tensorflow as tf

  def one(dtype: tf.DType) -> tf.io.FixedLenFeature:
    return tf.io.FixedLenFeature([], dtype)

  def many(dtype: tf.DType) -> tf.io.FixedLenSequenceFeature:
    return tf.io.FixedLenSequenceFeature([], dtype, allow_missing=True)

  return tf.io.parse_single_example(
    serialized,
    {
      SCHEMA_VERSION: tf.io.FixedLenFeature([], tf.int64, default_value=0),
      SOURCE_ID: one(tf.string),
      HEIGHT: one(tf.int64),
      WIDTH: one(tf.int64),
      IMAGE: one(tf.string),
      SEGMENT_INDEX: one(tf.string),
      SEGMENT_ID: many(tf.int64),
      SEGMENT_CATEGORY_ID: many(tf.int64),
      SEGMENT_IS_CROWD: many(tf.int64),
      **{key: many(tf.float32) for key in OBJECT_BOX_SIDES},
      OBJECT_CATEGORY_ID: many(tf.int64),
      OBJECT_IS_CROWD: many(tf.int64),
      OBJECT_MASK: many(tf.string),
    },
  )


def _png(gray: np.ndarray) -> bytes:
  """[h, w] uint8 or uint16 -> PNG of that depth."""
  buffer = io.BytesIO()
  Image.fromarray(gray).save(buffer, 'PNG')
  return buffer.getvalue()
