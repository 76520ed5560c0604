"""How an image on a canvas of a fixed size reaches the network: all shapes are static."""

# H, W canvas, A, B network input.

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from oanet_tf.config.definitions import OANetTask
from oanet_tf.config.values import CANVAS_STRIDE
from oanet_tf.data import geometry
from oanet_tf.data.resizing import resize
from oanet_tf.serving.letterbox import PADDING_COLOR, size_within


class FixedCanvas:
  """A canvas of `letterbox.letterbox`.

  Attributes:
    size: [H, W].
    whole_size: [height, width] of the network input in pixels of the canvas.

  Args:
    task: for the size of the network input.
    size: [H, W].
  """

  def __init__(self, task: OANetTask, size: Sequence[int]):
    self.size = list(size)
    validation = task.validation_data
    fit, self._input_size = geometry.canvas_of(
      list(validation.output_size), portrait=size[0] > size[1]
    )
    self._scaled = size_within(size, fit)
    if validation.tight_padding:
      self._input_size = [-(-side // CANVAS_STRIDE) * CANVAS_STRIDE for side in self._scaled]
    self._scale = np.divide(self._scaled, size).astype(np.float32)
    self._resizing = task.model.resizing
    self.whole_size = np.ceil(np.float32(self._input_size) / self._scale).astype(int)

  def network_input(self, image: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """[1, H, W, 3] uint8 -> what the network sees, [1, A, B, 3], and [1, 4, 2] image_info."""
    # In float32, since TFLite can neither resize uint8 nor pad it.
    resized = resize(tf.cast(image[0], tf.float32), list(self._scaled), self._resizing)[None]
    size = size_on_canvas(image[0])
    valid = tf.maximum(tf.round(size * self._scale), 1.0)
    padded = tf.image.pad_to_bounding_box(tf.cast(resized, tf.float32), 0, 0, *self._input_size)
    info = tf.stack([size, valid, tf.constant(self._scale), tf.zeros([2])])
    return tf.cast(padded, resized.dtype), info[None]


def size_on_canvas(canvas: tf.Tensor) -> tf.Tensor:
  """[H, W, 3] uint8 of `letterbox.letterbox` -> [2] float32, height and width of the image on it.

  Rows at the bottom and columns on the right that are entirely `PADDING_COLOR` are padding.
  """
  is_image = tf.reduce_any(tf.cast(canvas, tf.int32) != tf.constant(PADDING_COLOR), axis=2)

  def extent(axis: int) -> tf.Tensor:
    has_some = tf.reduce_any(is_image, axis=1 - axis)
    ends = tf.range(1.0, canvas.shape[axis] + 1.0)
    return tf.reduce_max(tf.where(has_some, ends, 1.0))

  return tf.stack([extent(0), extent(1)])
