"""The rules of merging in which packages differ although they follow the same paper.

Kirillov et al., Panoptic Segmentation, section 7, leave open what an equal value is, how masks end
at their boxes, how logits reach the image's size, and when the area of stuff is counted.
"""

# B images, L pixels along one axis, N cells along it.

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from oanet_tf.data.geometry import Canvas, Size

Resampling = Callable[[Canvas, int, Size, int], list[tf.Tensor]]


class Rules(NamedTuple):
  """The rules of one package.

  Attributes:
    strict: whether scores, mask probabilities and areas must be above their thresholds, and the
      covered fraction below its own; else they may be equal.
    mask_edges: of `mask_paste.cell_positions`.
    merges_padding: whether masks go on beyond the image, into the padding of the network input, and
      are counted there.
    counts_hidden_stuff: whether the area of stuff includes what instances hide.
    resampling: (canvas, axis, N, stride of the logits) -> the positions at which an axis of the
      logits is sampled, one after the other, [B, L] float32 each.
  """

  strict: bool
  mask_edges: str
  merges_padding: bool
  counts_hidden_stuff: bool
  resampling: Resampling

  def reaches(self, values: tf.Tensor, threshold: float | tf.Tensor) -> tf.Tensor:
    """Whether values are high enough."""
    return values > threshold if self.strict else values >= threshold

  def is_low(self, values: tf.Tensor, threshold: float) -> tf.Tensor:
    """Whether values are low enough."""
    return values < threshold if self.strict else values <= threshold


def directly(canvas: Canvas, axis: int, num_cells: Size, stride: int) -> list[tf.Tensor]:
  """Takes the logits at the centres of the original's pixels."""
  return [canvas.cells_of_pixels(axis, num_cells, stride)]


def by_whole_pixels(canvas: Canvas, axis: int, num_cells: Size, stride: int) -> list[tf.Tensor]:
  """Scales the whole canvas to a whole number of pixels, as the Model Garden's generator."""
  cells = tf.cast(num_cells, tf.float32)
  length = tf.math.ceil(cells * stride / canvas.image_info[:, 2, axis, None])
  positions = canvas.centres(axis) * (cells / length) - 0.5
  return [tf.clip_by_value(positions, 0.0, cells - 1.0)]


def through_the_input(canvas: Canvas, axis: int, num_cells: Size, stride: int) -> list[tf.Tensor]:
  """Scales to the network input, cuts off its padding, and scales that, as Detectron2 does."""
  _, valid, scale, _ = (canvas.image_info[:, row, axis, None] for row in range(4))
  pixels = tf.cast(tf.range(num_cells * stride), tf.float32)
  last = tf.cast(num_cells - 1, tf.float32)
  cells = tf.clip_by_value((pixels + 0.5) / stride - 0.5, 0.0, last)
  return [
    tf.tile(cells[None], [tf.shape(scale)[0], 1]),
    tf.clip_by_value(canvas.centres(axis) * scale - 0.5, 0.0, valid - 1.0),
  ]


RULES = {
  'panopticapi': Rules(
    strict=False,
    mask_edges='repeat',
    merges_padding=False,
    counts_hidden_stuff=False,
    resampling=directly,
  ),
  'model_garden': Rules(
    strict=True,
    mask_edges='from_corner',
    merges_padding=True,
    counts_hidden_stuff=True,
    resampling=by_whole_pixels,
  ),
  'detectron2': Rules(
    strict=False,
    mask_edges='fade',
    merges_padding=False,
    counts_hidden_stuff=False,
    resampling=through_the_input,
  ),
}
