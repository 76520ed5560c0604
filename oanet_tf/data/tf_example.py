"""Records as `tf.train.Example`: feature keys, `encode`, `decode` (schema: tfrecords/README.md).

H, W height and width of the image, S segments, M objects.
"""

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal

import numpy as np

from oanet_tf.data import image_ids, model_garden_records
from oanet_tf.data.coco_panoptic import PanopticRecord
from oanet_tf.data.model_garden_records import CATEGORY_MASK, FULL_MASK, INSTANCE_MASK
from oanet_tf.data.panoptic_map import Segments
from oanet_tf.data.png import gray_png

if TYPE_CHECKING:
  # Loaded in the functions that use it: the converter's processes only encode features, and start
  # in a tenth of the time without TensorFlow.
  import tensorflow as tf

MaskEncoding = Literal['cropped', 'full_png']

SCHEMA = 1

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
# A record has the first, or the other two.
_PANOPTIC_MAPS = (SEGMENT_INDEX, CATEGORY_MASK, INSTANCE_MASK)
# The fields of annotated `Segments`, in order.
_SEGMENTS = ('index', 'ids', 'category_ids', 'is_crowd')

_NO_IMAGE = (
  'it has no image, which is enough for the ranking module alone (task.mode=srm_only); for all '
  'else, convert the dataset again with --image_dir'
)

Features = dict[str, list[bytes] | list[int] | list[float]]


def features(record: PanopticRecord, mask_encoding: MaskEncoding = 'cropped') -> Features:
  """A record's features as plain lists; this needs no TensorFlow.

  Args:
    record: any.
    mask_encoding: 'cropped' stores each object's mask at the size of its box, which decodes in a
      fraction of the time. 'full_png' stores what the Model Garden's decoder reads: masks of the
      image's size, and 8-bit maps of categories and instances.

  Raises:
    InputError: if 'full_png' cannot hold the record; see `model_garden_records.mask_features`.
  """
  segments, objects = record.segments, record.objects
  sides = objects.boxes / np.tile([record.height, record.width], 2)
  return {
    SCHEMA_VERSION: [SCHEMA],
    SOURCE_ID: [image_ids.encoded(record.image_id).encode(errors='surrogatepass')],
    FILE_NAME: [record.file_name.encode(errors='surrogateescape')],
    HEIGHT: [record.height],
    WIDTH: [record.width],
    FORMAT: [record.image_format.encode()],
    IMAGE: [record.encoded_image],
    SEGMENT_INDEX: [gray_png(segments.index)],
    SEGMENT_ID: segments.ids.tolist(),
    SEGMENT_CATEGORY_ID: segments.category_ids.tolist(),
    SEGMENT_IS_CROWD: segments.is_crowd.astype(int).tolist(),
    **{key: side.tolist() for key, side in zip(OBJECT_BOX_SIDES, sides.T, strict=True)},
    OBJECT_CATEGORY_ID: objects.category_ids.tolist(),
    OBJECT_IS_CROWD: objects.is_crowd.astype(int).tolist(),
    OBJECT_AREA: [float(mask.sum()) for mask in objects.masks],
    **(
      {OBJECT_MASK: [gray_png(mask) for mask in objects.masks]}
      if mask_encoding == 'cropped'
      else model_garden_records.mask_features(record)
    ),
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


def encode(record: PanopticRecord, mask_encoding: MaskEncoding = 'cropped') -> bytes:
  """A record as a serialized `tf.train.Example`, the inverse of `decode`; see `features`."""
  return serialize(features(record, mask_encoding))


def decode(serialized: 'tf.Tensor') -> dict[str, 'tf.Tensor']:
  """A serialized example -> tensors; pure TensorFlow, for use inside tf.data.

  Args:
    serialized: [] string, of `encode`, or of the Model Garden's create_coco_tf_record with masks
      and panoptic masks (`model_garden_records` says what these lack).
  Returns:
    source_id: [] string, the image's id; `image_ids.decoded` gives it back.
    file_name: [] string, of the image; empty if the record has none.
    height, width: [] int32.
    image: [H, W, 3] uint8 RGB.
    segment_index: [H, W] int32, 0 where void, k where the k-th segment is (1 is the first).
    segment_ids, segment_category_ids: [S] int32, ids of the dataset.
    segment_is_crowd: [S] bool.
    object_boxes: [M, 4] float32, [y1, x1, y2, x2] in pixels: whole numbers, tight in our own
      records.
    object_category_ids: [M] int32, ids of the dataset.
    object_is_crowd: [M] bool.
    object_masks: [M] string: 8-bit PNGs of 0 and 1, each the size of its box.
  Raises:
    tf.errors.InvalidArgumentError: if the record is of another schema, damaged or without an image.
  """
  import tensorflow as tf

  from oanet_tf.data import encoded_picture

  parsed = _parse(serialized)
  has_image = tf.strings.length(parsed[IMAGE]) > 0
  with tf.control_dependencies([tf.debugging.Assert(has_image, [_NO_IMAGE])]):
    encoded = tf.identity(parsed[IMAGE])
  return {**_decode_annotations(parsed), 'image': encoded_picture.decode_stored(encoded)}


def decode_annotations(serialized: 'tf.Tensor') -> dict[str, 'tf.Tensor']:
  """`decode` without `image`, which may be damaged or empty."""
  return _decode_annotations(_parse(serialized))


@functools.cache
def traced(decode: Callable[['tf.Tensor'], dict[str, 'tf.Tensor']]) -> Callable:
  """`decode` or `decode_annotations` for tf.data, traced once, which takes a second.

  Without this, each dataset that it is mapped over traces it again.
  """
  import tensorflow as tf

  return tf.function(decode, [tf.TensorSpec([], tf.string)], autograph=False)


def _decode_annotations(parsed: dict[str, 'tf.Tensor']) -> dict[str, 'tf.Tensor']:
  import tensorflow as tf

  height, width = (tf.cast(parsed[key], tf.int32) for key in (HEIGHT, WIDTH))
  is_of_model_garden = parsed[SCHEMA_VERSION] == 0
  segments = tf.cond(
    is_of_model_garden,
    lambda: model_garden_records.decode_segments(parsed[CATEGORY_MASK], parsed[INSTANCE_MASK]),
    lambda: _decode_segments(parsed),
  )
  sides = tf.stack([parsed[key] for key in OBJECT_BOX_SIDES], axis=-1)
  boxes = sides * tf.cast([height, width, height, width], tf.float32)
  masks, boxes = tf.cond(
    tf.size(parsed[FULL_MASK]) > 0,
    lambda: model_garden_records.crop_masks(parsed[FULL_MASK], boxes, height, width),
    lambda: (parsed[OBJECT_MASK], tf.round(boxes)),
  )
  return {
    'source_id': parsed[SOURCE_ID],
    'file_name': parsed[FILE_NAME],
    'height': height,
    'width': width,
    **{f'segment_{name}': value for name, value in zip(_SEGMENTS, segments, strict=True)},
    'object_boxes': boxes,
    'object_category_ids': tf.cast(parsed[OBJECT_CATEGORY_ID], tf.int32),
    'object_is_crowd': tf.cast(parsed[OBJECT_IS_CROWD], tf.bool),
    'object_masks': masks,
  }


def _decode_segments(parsed: Mapping[str, 'tf.Tensor']) -> tuple['tf.Tensor', ...]:
  """The tensors of `Segments`, as `model_garden_records.decode_segments` gives them."""
  import tensorflow as tf

  index = tf.io.decode_png(parsed[SEGMENT_INDEX], channels=1, dtype=tf.uint16)
  return (
    tf.cast(index[..., 0], tf.int32),
    tf.cast(parsed[SEGMENT_ID], tf.int32),
    tf.cast(parsed[SEGMENT_CATEGORY_ID], tf.int32),
    tf.cast(parsed[SEGMENT_IS_CROWD], tf.bool),
  )


def decoded_segments(decoded: Mapping[str, np.ndarray]) -> Segments:
  """The segments of a record; `decoded` is `decode`'s dict as numpy arrays."""
  return Segments(**{name: decoded[f'segment_{name}'] for name in _SEGMENTS})


def _parse(serialized: 'tf.Tensor') -> dict[str, 'tf.Tensor']:
  import tensorflow as tf

  def one(dtype: tf.DType) -> tf.io.FixedLenFeature:
    return tf.io.FixedLenFeature([], dtype)

  def many(dtype: tf.DType) -> tf.io.FixedLenSequenceFeature:
    return tf.io.FixedLenSequenceFeature([], dtype, allow_missing=True)

  parsed = tf.io.parse_single_example(
    serialized,
    {
      SCHEMA_VERSION: tf.io.FixedLenFeature([], tf.int64, default_value=0),
      SOURCE_ID: one(tf.string),
      FILE_NAME: tf.io.FixedLenFeature([], tf.string, default_value=''),
      HEIGHT: one(tf.int64),
      WIDTH: one(tf.int64),
      IMAGE: one(tf.string),
      SEGMENT_ID: many(tf.int64),
      SEGMENT_CATEGORY_ID: many(tf.int64),
      SEGMENT_IS_CROWD: many(tf.int64),
      **{key: many(tf.float32) for key in OBJECT_BOX_SIDES},
      OBJECT_CATEGORY_ID: many(tf.int64),
      OBJECT_IS_CROWD: many(tf.int64),
      OBJECT_MASK: many(tf.string),
      **{key: tf.io.FixedLenFeature([], tf.string, default_value='') for key in _PANOPTIC_MAPS},
      FULL_MASK: many(tf.string),
    },
  )
  is_known = (parsed[SCHEMA_VERSION] == SCHEMA) | (
    (parsed[SCHEMA_VERSION] == 0) & (tf.strings.length(parsed[CATEGORY_MASK]) > 0)
  )
  message = (
    f'record of another schema than {SCHEMA} (and not of the Model Garden with panoptic masks); '
    'convert the dataset again. Its image/schema_version, 0 if it has none:'
  )
  # Otherwise decoding a missing feature could fail first, with a misleading message.
  with tf.control_dependencies([tf.debugging.Assert(is_known, [message, parsed[SCHEMA_VERSION]])]):
    return {key: tf.identity(value) for key, value in parsed.items()}
