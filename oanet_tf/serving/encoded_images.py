"""Decodes images of different sizes into one batch, with TensorFlow ops."""

# B images, H, W size of the largest.

from collections.abc import Callable

import tensorflow as tf

from oanet_tf.data import encoded_picture
from oanet_tf.serving.image_limits import assert_each, assert_limits


def decode_images(encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
  """Decodes JPEG and PNG files to the same pixels as `data.pictures.read_picture`.

  Images are turned as their EXIF orientation says; for all else see `encoded_picture`. Sizes are
  read from the headers and checked before anything is decoded.

  Args:
    encoded: [B] string.

  Returns:
    [B, H, W, 3] uint8 RGB, each image at the top left and padded with black; and the images'
    shapes, [B, 2] int32 [height, width].

  Raises:
    tf.errors.InvalidArgumentError: when it is run. It names the first image that is no JPEG or PNG,
      is too large (see `image_limits`), or is damaged.
  """
  is_known = encoded_picture.is_png(encoded) | encoded_picture.is_jpeg(encoded)
  known = assert_each(is_known, _message('is neither JPEG nor PNG'))
  with tf.control_dependencies([known]):
    encoded = tf.identity(encoded)
  shapes = _attempt(_upright_size, encoded, 'has no header that can be read')
  with tf.control_dependencies([assert_limits(shapes)]):
    encoded = tf.identity(encoded)
  return _attempt(_decode, encoded, 'cannot be decoded: it is cut off or damaged'), shapes


def _message(fault: str) -> Callable[[tf.Tensor], tf.Tensor]:
  return lambda index: tf.strings.format(f'image {{}} of the batch {fault}', index)


def _attempt(
  function: Callable[[tf.Tensor], tf.Tensor], encoded: tf.Tensor, fault: str
) -> tf.Tensor:
  """The function's values for all images, padded to the largest; names the first that fails.

  It uses a dataset, since only a dataset can continue after an operation fails.
  """

  @tf.autograph.experimental.do_not_convert
  def value_of(index: tf.Tensor, image: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    return index, function(image)

  images = tf.data.Dataset.from_tensor_slices(encoded).enumerate()
  values = images.map(value_of, tf.data.AUTOTUNE)
  # An extra last element, without which there would be no batch if all images failed.
  none = values.element_spec[1]
  none = tf.zeros([side or 0 for side in none.shape], none.dtype)
  values = values.ignore_errors().concatenate(
    tf.data.Dataset.from_tensors((tf.constant(-1, tf.int64), none))
  )
  number = tf.size(encoded, tf.int64)
  indices, batch = values.padded_batch(number + 1).get_single_element()
  worked = tf.reduce_any(indices == tf.range(number)[:, None], axis=1)
  with tf.control_dependencies([assert_each(worked, _message(fault))]):
    return batch[:-1]


def _upright_size(image: tf.Tensor) -> tf.Tensor:
  """[2] int32, the [height, width] of the header, as the picture is turned."""
  size = encoded_picture.stored_size(image)
  is_transposed = encoded_picture.is_transposed(encoded_picture.orientation(image))
  return tf.where(is_transposed, size[::-1], size)


def _decode(image: tf.Tensor) -> tf.Tensor:
  """[h, w, 3] uint8, upright."""
  pixels = encoded_picture.decode_stored(image)
  return encoded_picture.turn(pixels, encoded_picture.orientation(image))
