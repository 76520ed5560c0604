"""Fits images of any size onto a canvas of a fixed size, and maps masks back."""

# h, w image, H, W canvas.

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from official.vision.ops import preprocess_ops
from PIL import Image

# The mean colour, which is close to the network's own padding.
PADDING_COLOR = tuple(round(value) for value in preprocess_ops.MEAN_RGB)


def letterbox(image: np.ndarray, canvas_size: Sequence[int]) -> np.ndarray:
  """Scales an image to the largest size that fits, and puts it at the top left.

  Args:
    image: [h, w, 3] uint8 RGB.
    canvas_size: [H, W].

  Returns:
    [H, W, 3] uint8, with `PADDING_COLOR` below and to the right of the image.
  """
  height, width = size_within(image.shape, canvas_size)
  canvas = np.full([*canvas_size, 3], PADDING_COLOR, np.uint8)
  canvas[:height, :width] = tf.round(tf.image.resize(image, [height, width]))
  return canvas


def size_within(image_shape: Sequence[int], canvas_size: Sequence[int]) -> tuple[int, int]:
  """The height and width that `letterbox` gives an image of [h, w, …] on a canvas of [H, W]."""
  scale = min(canvas / side for canvas, side in zip(canvas_size, image_shape[:2], strict=True))
  height, width = (max(1, round(side * scale)) for side in image_shape[:2])
  return height, width


def from_canvas(mask: np.ndarray, image_shape: Sequence[int]) -> np.ndarray:
  """Resamples a mask from a canvas of `letterbox` to the image, by nearest neighbour.

  Args:
    mask: [H, W] int32 ids.
    image_shape: [h, w, …].

  Returns:
    [h, w] int32.
  """
  height, width = size_within(image_shape, mask.shape)
  inside = Image.fromarray(mask[:height, :width])
  return np.asarray(inside.resize(image_shape[1::-1], Image.Resampling.NEAREST))


def size_on_canvas(canvas: tf.Tensor) -> tf.Tensor:
  """[H, W, 3] uint8 of `letterbox` -> [2] float32, the height and width of the image on it.

  Rows at the bottom and columns on the right that are entirely `PADDING_COLOR` are padding.
  """
  is_image = tf.reduce_any(tf.cast(canvas, tf.int32) != tf.constant(PADDING_COLOR), axis=2)

  def extent(axis: int) -> tf.Tensor:
    has_some = tf.reduce_any(is_image, axis=1 - axis)
    ends = tf.range(1.0, canvas.shape[axis] + 1.0)
    return tf.reduce_max(tf.where(has_some, ends, 1.0))

  return tf.stack([extent(0), extent(1)])
