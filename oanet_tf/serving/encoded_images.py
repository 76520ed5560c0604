"""Decodes images of different sizes, with TensorFlow ops, and prepares each before the next."""

# B images.

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from oanet_tf.data import encoded_picture
from oanet_tf.serving.image_limits import assert_each, assert_limits


def decode_images(encoded: tf.Tensor, prepare: Callable[[tf.Tensor], Any]) -> Any:
  """Decodes JPEG and PNG files to the same pixels as `data.pictures.read_picture`.

  Images are turned as their EXIF orientation says; for all else see `encoded_picture`. Sizes are
  read from the headers and checked before anything is decoded. Pixels of full size are kept only
  until the image is prepared.

  Args:
    encoded: [B] string.
    prepare: [h, w, 3] uint8 RGB -> nest of tensors.

  Returns:
    The nest with a first axis of B, and others padded with 0 to the largest.

  Raises:
    tf.errors.InvalidArgumentError: when it is run. It names the first image that is no JPEG or PNG,
      is too large (see `image_limits`), takes too long (see `encoded_picture`), or is damaged.
  """
  is_known = encoded_picture.is_png(encoded) | encoded_picture.is_jpeg(encoded)
  encoded = _checked(encoded, assert_each(is_known, _message('is neither JPEG nor PNG')))
  shapes = _attempt(_upright_size, encoded, 'has no header that can be read')
  encoded = _checked(encoded, assert_limits(shapes))
  is_quick = encoded_picture.has_few_scans(encoded)
  encoded = _checked(encoded, assert_each(is_quick, _message('has too many scans; save it again')))

  def decode(image: tf.Tensor) -> Any:
    pixels = encoded_picture.decode_stored(image)
    return prepare(encoded_picture.turn(pixels, encoded_picture.orientation(image)))

  return _attempt(decode, encoded, 'cannot be decoded: it is cut off or damaged')


def _checked(encoded: tf.Tensor, check: tf.Operation) -> tf.Tensor:
  with tf.control_dependencies([check]):
    return tf.identity(encoded)


def _message(fault: str) -> Callable[[tf.Tensor], tf.Tensor]:
  return lambda index: tf.strings.format(f'image {{}} of the batch {fault}', index)


def _attempt(function: Callable[[tf.Tensor], Any], encoded: tf.Tensor, fault: str) -> Any:
  """The function's values for all images, padded to the largest; names the first that fails.

  It uses a dataset, since only a dataset can continue after an operation fails.
  """

  @tf.autograph.experimental.do_not_convert
  def value_of(index: tf.Tensor, image: tf.Tensor) -> tuple[tf.Tensor, Any]:
    return index, function(image)

  images = tf.data.Dataset.from_tensor_slices(encoded).enumerate()
  values = images.map(value_of, tf.data.AUTOTUNE)
  # An extra last element, without which there would be no batch if all images failed.
  none = tf.nest.map_structure(
    lambda spec: tf.zeros([side or 0 for side in spec.shape], spec.dtype), values.element_spec[1]
  )
  values = values.ignore_errors().concatenate(
    tf.data.Dataset.from_tensors((tf.constant(-1, tf.int64), none))
  )
  number = tf.size(encoded, tf.int64)
  indices, batch = values.padded_batch(number + 1).get_single_element()
  worked = tf.reduce_any(indices == tf.range(number)[:, None], axis=1)
  with tf.control_dependencies([assert_each(worked, _message(fault))]):
    return tf.nest.map_structure(lambda values: values[:-1], batch)


def _upright_size(image: tf.Tensor) -> tf.Tensor:
  """[2] int32, the [height, width] of the header, as the picture is turned."""
  size = encoded_picture.stored_size(image)
  is_transposed = encoded_picture.is_transposed(encoded_picture.orientation(image))
  return tf.where(is_transposed, size[::-1], size)
