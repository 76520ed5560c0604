"""How an image is brought to the network's size."""

# H, W image, h, w wanted size.

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from official.vision.ops import preprocess_ops

# By `task.model.resizing`, what a pixel of the network input is.
DTYPES = {'bilinear': tf.uint8, 'pillow': tf.uint8, 'normalized': tf.float32}


def resize(image: tf.Tensor, size: Sequence[int] | tf.Tensor, how: str) -> tf.Tensor:
  """Resizes an image.

  Args:
    image: [H, W, 3] uint8 or float32, in [0, 255].
    size: [h, w] int.
    how: 'bilinear' takes each pixel from the nearest four. 'normalized' does so too, but with
      colours that are normalized before, and not rounded. 'pillow' is `PIL.Image.resize` with
      `BILINEAR`: where the image shrinks, a pixel is a weighted mean of all that it covers, first
      of its row and then of its column.

  Returns:
    [h, w, 3] of the type in `DTYPES`.
  """
  if how == 'pillow':
    for axis in (1, 0):
      image = tf.round(_shrink(tf.cast(image, tf.float32), axis, size[axis]))
  if how == 'normalized':
    return tf.image.resize(normalize(image), size)
  return rounded(tf.image.resize(image, size))


def antialiased(image: tf.Tensor, size: Sequence[int] | tf.Tensor) -> tf.Tensor:
  """As `resize`, but a pixel of a smaller image is a mean of all that it covers."""
  return rounded(tf.image.resize(image, size, antialias=True))


def normalize(image: tf.Tensor) -> tf.Tensor:
  """[..., 3] in [0, 255] -> float32, to the bit as the Model Garden's `normalize_image`."""
  image = tf.cast(image, tf.float32) * (1.0 / 255.0)
  return preprocess_ops.normalize_scaled_float_image(image)


def as_pixels(image: np.ndarray) -> np.ndarray:
  """[h, w, 3] of `resize` -> uint8."""
  if image.dtype == np.uint8:
    return image
  colors = image * preprocess_ops.STDDEV_RGB + preprocess_ops.MEAN_RGB
  return np.clip(np.round(colors), 0, 255).astype(np.uint8)


def rounded(image: tf.Tensor) -> tf.Tensor:
  """[..., 3] -> uint8."""
  return tf.cast(tf.round(tf.cast(image, tf.float32)), tf.uint8)


def _shrink(image: tf.Tensor, axis: int, length: int | tf.Tensor) -> tf.Tensor:
  """Makes a float32 image shorter along an axis; a shorter one stays as it is."""
  before = image.shape[axis]
  if isinstance(length, int) and before is not None:
    # A TFLite file has no other way to do it.
    return image if before <= length else _shrink_by_matrix(image, axis, length)
  size = [length, tf.shape(image)[1]] if axis == 0 else [tf.shape(image)[0], length]
  return tf.cond(
    length < tf.shape(image)[axis],
    lambda: tf.image.resize(image, size, antialias=True),
    lambda: image,
  )


def _shrink_by_matrix(image: tf.Tensor, axis: int, length: int) -> tf.Tensor:
  scale = image.shape[axis] / length
  centres = (np.arange(length)[:, None] + 0.5) * scale
  pixels = np.arange(image.shape[axis]) + 0.5
  weights = np.maximum(1.0 - np.abs(pixels - centres) / scale, 0.0)
  weights /= weights.sum(axis=1, keepdims=True)
  shrunk = tf.tensordot(weights.astype(np.float32), image, [[1], [axis]])
  return shrunk if axis == 0 else tf.transpose(shrunk, [1, 0, 2])
