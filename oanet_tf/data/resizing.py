"""How an image is brought to the network's size."""

# H, W image, h, w wanted size, K pixels that one is a mean of, L pixels along an axis.

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from official.vision.ops import preprocess_ops

# By `task.model.resizing`, what a pixel of the network input is.
DTYPES = {'bilinear': tf.uint8, 'pillow': tf.uint8, 'normalized': tf.float32}
# Pillow's weights are multiples of 2 to the power of minus this.
_PRECISION_BITS = 22


def resize(image: tf.Tensor, size: Sequence[int] | tf.Tensor, how: str) -> tf.Tensor:
  """Resizes an image.

  Args:
    image: [H, W, 3] uint8, or float32 in [0, 255].
    size: [h, w] int.
    how: 'bilinear' takes each pixel from the nearest four. 'normalized' does so too, but with
      colours that are normalized before, and not rounded. 'pillow' is `PIL.Image.resize` with
      `BILINEAR`, to the bit: where the image shrinks, a pixel is a weighted mean of all that it
      covers, first of its row and then of its column.

  Returns:
    [h, w, 3] of the type in `DTYPES`.
  """
  if how == 'normalized':
    return tf.image.resize(normalize(image), size)
  if how == 'bilinear':
    return rounded(tf.image.resize(image, size))
  image = tf.cast(rounded(image), tf.int32)
  for axis in (1, 0):
    image = _resample(image, axis, size[axis])
  return tf.cast(image, tf.uint8)


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
  return image if image.dtype == tf.uint8 else tf.cast(tf.round(image), tf.uint8)


class _Taps(NamedTuple):
  """What each pixel is a mean of, along one axis.

  Attributes:
    pixels: [L, K] int32 indices.
    weights: [L, K] int32, in units of 2^-22.
  """

  pixels: tf.Tensor
  weights: tf.Tensor


def _resample(image: tf.Tensor, axis: int, length: int | tf.Tensor) -> tf.Tensor:
  """[H, W, 3] int32 -> the same with another length of an axis."""
  before = image.shape[axis]
  if before is None or not isinstance(length, int):
    taps = _taps(tf.shape(image)[axis], length)
  else:
    # A TFLite file has no float64, so these become constants.
    with tf.init_scope():
      taps = _Taps(*(tf.constant(part.numpy()) for part in _taps(before, length)))
  shape = [1, -1, 1] if axis == 1 else [-1, 1, 1]

  def add(index: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    pixels = tf.gather(image, taps.pixels[:, index], axis=axis)
    return index + 1, total + pixels * tf.reshape(taps.weights[:, index], shape)

  number = tf.shape(taps.weights)[1]
  first = tf.gather(image, taps.pixels[:, 0], axis=axis) * tf.reshape(taps.weights[:, 0], shape)
  _, total = tf.while_loop(lambda index, _: index < number, add, (tf.constant(1), first))
  half = 2 ** (_PRECISION_BITS - 1)
  return tf.clip_by_value((total + half) // 2**_PRECISION_BITS, 0, 255)


def _taps(before: int | tf.Tensor, length: int | tf.Tensor) -> _Taps:
  """As `precompute_coeffs` of Pillow's Resample.c, with a triangle as wide as a pixel's extent."""
  before, length = tf.cast(before, tf.float64), tf.cast(length, tf.float64)
  scale = before / length
  support = tf.maximum(scale, 1.0)
  centres = (tf.range(length) + 0.5)[:, None] * scale
  first = tf.maximum(tf.floor(centres - support + 0.5), 0.0)
  end = tf.minimum(tf.floor(centres + support + 0.5), before)
  pixels = first + tf.range(2.0 * tf.math.ceil(support) + 1.0)
  weights = tf.nn.relu(1.0 - tf.abs((pixels - centres + 0.5) * (1.0 / support)))
  weights = tf.where(pixels < end, weights, 0.0)
  weights /= tf.reduce_sum(weights, axis=1, keepdims=True)
  return _Taps(
    tf.cast(tf.minimum(pixels, before - 1.0), tf.int32),
    tf.cast(tf.floor(weights * 2.0**_PRECISION_BITS + 0.5), tf.int32),
  )
