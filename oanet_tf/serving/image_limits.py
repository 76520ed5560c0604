"""Checks the images of a request in the graph; errors name the image."""

# B images, H, W canvas.

from collections.abc import Callable

import tensorflow as tf

from oanet_tf.config.values import MAX_BATCH_IMAGES, MAX_IMAGE_PIXELS, MAX_IMAGE_SIDE


def assert_limits(image_shapes: tf.Tensor) -> tf.Operation:
  """Asserts that neither an image nor the batch, padded to the largest, is empty or too large.

  Args:
    image_shapes: [B, 2] int32, [height, width] of each image.

  Returns:
    A control dependency for all that uses the images.
  """
  shapes = tf.cast(image_shapes, tf.int64)
  pixels = tf.reduce_prod(shapes, axis=1)
  fits = tf.reduce_all((shapes > 0) & (shapes <= MAX_IMAGE_SIDE), axis=1)
  fits &= pixels <= MAX_IMAGE_PIXELS

  def too_large(index: tf.Tensor) -> tf.Tensor:
    height, width = tf.unstack(shapes[index])
    return tf.strings.format(
      f'image {{}} of the batch has {{}} x {{}} pixels; from 1 x 1 to {MAX_IMAGE_PIXELS} in all '
      f'are allowed, and {MAX_IMAGE_SIDE} along a side',
      [index, height, width],
    )

  with tf.control_dependencies([assert_each(fits, too_large)]):
    number = tf.shape(shapes, tf.int64)[0]
    height, width = tf.unstack(tf.reduce_max(shapes, axis=0))
  message = tf.strings.format(
    f'{{}} images on canvases of {{}} x {{}} are more than {MAX_IMAGE_PIXELS} pixels; send fewer',
    [number, height, width],
  )
  return tf.debugging.Assert(number * height * width <= MAX_IMAGE_PIXELS, [message])


def assert_each(is_good: tf.Tensor, message: Callable[[tf.Tensor], tf.Tensor]) -> tf.Operation:
  """Asserts that the batch is neither empty nor too large, and that all its images are good.

  Args:
    is_good: [B] bool.
    message: index of the first bad image -> [] string.
  """
  number = tf.size(is_good)
  some = tf.debugging.Assert(number > 0, ['the batch holds no image'])
  many = tf.strings.format(f'the batch holds {{}} images; send {MAX_BATCH_IMAGES} at most', number)
  few = tf.debugging.Assert(number <= MAX_BATCH_IMAGES, [many])
  with tf.control_dependencies([some, few]):
    first = tf.argmin(tf.cast(is_good, tf.int32))
  return tf.debugging.Assert(tf.reduce_all(is_good), [message(first)])
