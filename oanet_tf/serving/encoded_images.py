"""Decodes images of different sizes into one batch, with TensorFlow ops."""

# B images, H, W size of the largest.

from collections.abc import Callable

import tensorflow as tf

from oanet_tf.serving.image_limits import assert_each, assert_limits

_PNG, _JPEG = b'\x89PNG\r\n\x1a\n', b'\xff\xd8\xff'


def decode_images(encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
  """Decodes JPEG and PNG files to the same pixels as `data.pictures.read_picture`.

  Gray, palette and CMYK images are converted to RGB. Of 16 bits, the upper 8 are used. The alpha
  channel is blended with white. Of an animated PNG, the first frame is used. EXIF rotation and
  single colours that a PNG declares transparent are not supported: send pixels, or encode such
  images anew. Sizes are read from the headers and checked before anything is decoded.

  Args:
    encoded: [B] string.

  Returns:
    [B, H, W, 3] uint8 RGB, each image at the top left and padded with black; and the images'
    shapes, [B, 2] int32 [height, width].

  Raises:
    tf.errors.InvalidArgumentError: when it is run. It names the first image that is no JPEG or PNG,
      is too large (see `image_limits`), or is damaged.
  """
  is_known = _begins_with(encoded, _PNG) | _begins_with(encoded, _JPEG)
  known = assert_each(is_known, _message('is neither JPEG nor PNG'))
  with tf.control_dependencies([known]):
    encoded = tf.identity(encoded)
  shapes = _attempt(_declared_shape, encoded, 'has no header that can be read')
  with tf.control_dependencies([assert_limits(shapes)]):
    encoded = tf.identity(encoded)
  return _attempt(_decode, encoded, 'cannot be decoded: it is cut off or damaged'), shapes


def _message(fault: str) -> Callable[[tf.Tensor], tf.Tensor]:
  return lambda index: tf.strings.format(f'image {{}} of the batch {fault}', index)


def _begins_with(encoded: tf.Tensor, signature: bytes) -> tf.Tensor:
  return tf.strings.substr(encoded, 0, len(signature)) == signature


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


def _declared_shape(image: tf.Tensor) -> tf.Tensor:
  """[2] int32, the [height, width] in the header."""

  def of_png() -> tf.Tensor:
    # Width and height, 4 bytes each.
    size = tf.io.decode_raw(tf.strings.substr(image, 16, 8), tf.int32, little_endian=False)
    return tf.ensure_shape(size, [2])[::-1]

  return tf.cond(_begins_with(image, _PNG), of_png, lambda: tf.image.extract_jpeg_shape(image)[:2])


def _decode(image: tf.Tensor) -> tf.Tensor:
  """[h, w, 3] uint8."""
  # The colour type in a PNG's header; 4 and 6 are gray and RGB with an alpha channel.
  kind = tf.strings.substr(image, 25, 1)
  return tf.case(
    [
      # As Pillow does; the default is faster but less exact.
      (
        _begins_with(image, _JPEG),
        lambda: tf.io.decode_jpeg(image, channels=3, dct_method='INTEGER_ACCURATE'),
      ),
      (
        (kind == b'\x04') | (kind == b'\x06'),
        lambda: _on_white(tf.io.decode_png(image, channels=4)),
      ),
    ],
    default=lambda: tf.io.decode_png(image, channels=3),
  )


def _on_white(image: tf.Tensor) -> tf.Tensor:
  """[h, w, 4] uint8 RGBA -> [h, w, 3] uint8, rounded."""
  color, opacity = tf.cast(image[..., :3], tf.int32), tf.cast(image[..., 3:], tf.int32)
  return tf.cast((color * opacity + 255 * (255 - opacity) + 127) // 255, tf.uint8)
