"""The position of an image in the network input: everything that is derived from `image_info`.

An image is scaled, perhaps cropped, and placed at the top left of the network input; the rest is
padding. `image_info`, [..., 4, 2] float32 in the Model Garden's layout, says how. For height and
width it has
  the size of the original,
  the size of its visible part in the network input,
  the scale from the original to the network input,
  the offset of the crop, in pixels of the scaled image.
Pixels are squares, and a map at a stride has square cells of that side. Both are sampled at their
centres.
"""

# B images, N boxes, H, W sizes, L pixels or cells along one axis.

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from oanet_tf.config.values import CANVAS_STRIDE

Size = int | tf.Tensor


def height_and_width(batch: tf.Tensor) -> tuple[Size, Size]:
  """The sides of a [B, H, W, …] tensor: Python ints where they are static, else tensors.

  Batches of landscape and of portrait images train in one graph, in which sides are not static.
  """
  sides = tf.shape(batch)
  return tuple(sides[axis] if batch.shape[axis] is None else batch.shape[axis] for axis in (1, 2))


def canvas_of(
  output_size: Sequence[int], portrait: bool | tf.Tensor
) -> tuple[list[Size], list[Size]]:
  """[height, width] of what an image is fitted into, and of the padded network input."""
  fit, transposed = list(output_size), list(output_size)[::-1]
  if tf.is_tensor(portrait):
    fit = tf.unstack(tf.where(portrait, transposed, fit))
  elif portrait:
    fit = transposed
  return fit, [-(-side // CANVAS_STRIDE) * CANVAS_STRIDE for side in fit]


def tight_canvas(image_info: tf.Tensor) -> tf.Tensor:
  """[4, 2] -> [2] int32 [height, width] of the network input with the least padding."""
  return -(-tf.cast(size_in_input(image_info), tf.int32) // CANVAS_STRIDE) * CANVAS_STRIDE


def fit_image(
  size: tf.Tensor,
  output_size: Sequence[int] | tf.Tensor,
  zoom: tf.Tensor | float = 1.0,
  crop: tf.Tensor | float = 0.0,
) -> tf.Tensor:
  """Scales an image to the largest size that fits, times `zoom`, and crops what is too large.

  Args:
    size: [2] float32, of the original.
    output_size: [height, width] to fit into.
    zoom: factor of the scale.
    crop: [2] in [0, 1), position of the crop between the top left and the bottom right.

  Returns:
    `image_info` [4, 2] float32.
  """
  return _place(size, _fitting_scale(size, output_size) * zoom, output_size, crop)


def fit_short_side(
  size: tf.Tensor, output_size: Sequence[int], short_side: tf.Tensor | float
) -> tf.Tensor:
  """Scales an image to a length of its short side, or to the largest size that fits.

  Args:
    size: [2] float32, of the original.
    output_size: [height, width] to fit into.
    short_side: in pixels.

  Returns:
    `image_info` [4, 2] float32.
  """
  wanted = tf.cast(short_side, tf.float32) / tf.reduce_min(size)
  return _place(size, tf.minimum(wanted, _fitting_scale(size, output_size)), output_size)


def _fitting_scale(size: tf.Tensor, output_size: Sequence[int] | tf.Tensor) -> tf.Tensor:
  return tf.reduce_min(tf.cast(output_size, tf.float32) / size)


def _place(
  size: tf.Tensor,
  scale: tf.Tensor,
  output_size: Sequence[int] | tf.Tensor,
  crop: tf.Tensor | float = 0.0,
) -> tf.Tensor:
  """`image_info` of an image that is scaled and cropped to at most `output_size`."""
  output = tf.cast(output_size, tf.float32)
  scaled = tf.maximum(tf.round(size * scale), 1.0)
  excess = tf.maximum(scaled - output, 0.0)
  offset = tf.minimum(tf.floor(crop * (excess + 1.0)), excess)
  return tf.stack([size, tf.minimum(scaled - offset, output), scaled / size, offset])


def original_size(image_info: tf.Tensor) -> tf.Tensor:
  """[..., 4, 2] -> [..., 2] int32 [height, width] of the original."""
  return tf.cast(image_info[..., 0, :], tf.int32)


def size_in_input(image_info: tf.Tensor) -> tf.Tensor:
  """[..., 4, 2] -> [..., 2] float32 [height, width] of the image within the network input."""
  return image_info[..., 1, :]


def largest_original(image_info: tf.Tensor) -> tf.Tensor:
  """[B, 4, 2] -> [2] int32, the smallest canvas that holds every original of the batch."""
  return tf.cast(tf.reduce_max(image_info[:, 0], axis=0), tf.int32)


def boxes_to_input(boxes: tf.Tensor, image_info: tf.Tensor) -> tf.Tensor:
  """[..., N, 4] boxes in pixels of the original -> pixels of the network input."""
  scale, offset = _for_boxes(image_info)
  return boxes * scale - offset


def boxes_to_original(boxes: tf.Tensor, image_info: tf.Tensor) -> tf.Tensor:
  """[..., N, 4] boxes in pixels of the network input -> pixels of the original."""
  scale, offset = _for_boxes(image_info)
  return (boxes + offset) / scale


def _for_boxes(image_info: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
  scale, offset = image_info[..., 2, :], image_info[..., 3, :]
  return tuple(tf.concat([x, x], axis=-1)[..., None, :] for x in (scale, offset))


def pixels_of_cells(
  image_info: tf.Tensor, axis: int, num_cells: int, stride: int
) -> tuple[tf.Tensor, tf.Tensor]:
  """The pixel of the original at the centre of each cell, along one axis.

  Args:
    image_info: [..., 4, 2].
    axis: 0 for rows, 1 for columns.
    num_cells: L, of a map of the network input.
    stride: of that map.

  Returns:
    [..., L] int32 indices into the original, and [..., L] bool, false for cells in the padding.
  """
  size, shown, scale, offset = (image_info[..., row, axis, None] for row in range(4))
  centres = (tf.range(num_cells, dtype=tf.float32) + 0.5) * stride
  indices = tf.clip_by_value(tf.floor((centres + offset) / scale), 0.0, size - 1.0)
  return tf.cast(indices, tf.int32), centres < shown


class Canvas(NamedTuple):
  """The size of a batch's maps, with each original at the top left.

  Attributes:
    image_info: [B, 4, 2].
    height, width: at least those of the largest original; Python ints if they are constant.
    top: the first row, for a strip of the maps.
  """

  image_info: tf.Tensor
  height: Size
  width: Size
  top: Size = 0

  @classmethod
  def of_size(cls, image_info: tf.Tensor, size: Sequence[int] | tf.Tensor) -> 'Canvas':
    """A canvas of size [2] int. If that is a constant, all shapes on the canvas are static."""
    static = tf.get_static_value(tf.convert_to_tensor(size))
    return cls(image_info, *(tf.unstack(size) if static is None else static.tolist()))

  def strip(self, top: Size, height: Size) -> 'Canvas':
    """Some rows of the canvas."""
    return self._replace(top=top, height=height)

  def centres(self, axis: int) -> tf.Tensor:
    """[L] float32, the centres of pixels along an axis, 0 for rows or 1 for columns."""
    first = self.top if axis == 0 else 0
    return tf.cast(tf.range(first, first + self[1 + axis]), tf.float32) + 0.5

  def inside(self) -> tf.Tensor:
    """[B, H, W] bool, true for the pixels of each original."""
    return _inside(self.image_info[:, 0], self.centres(0), self.centres(1))

  def cells_of_pixels(self, axis: int, num_cells: Size, stride: int) -> tf.Tensor:
    """Positions of the originals' pixel centres among the cells, along one axis.

    Args:
      axis: 0 for rows, 1 for columns.
      num_cells: of a map of the network input.
      stride: of that map.

    Returns:
      [B, L] float32 in [0, num_cells - 1]; integers are centres of cells.
    """
    scale, offset = (self.image_info[:, row, axis, None] for row in (2, 3))
    last = tf.cast(num_cells - 1, tf.float32)
    return tf.clip_by_value((self.centres(axis) * scale - offset) / stride - 0.5, 0.0, last)


def inside_input(image_info: tf.Tensor, height: Size, width: Size) -> tf.Tensor:
  """[B, H, W] bool, false for pixels of the network input that are padding."""
  centres = (tf.cast(tf.range(length), tf.float32) + 0.5 for length in (height, width))
  return _inside(image_info[:, 1], *centres)


def _inside(sizes: tf.Tensor, row_centres: tf.Tensor, column_centres: tf.Tensor) -> tf.Tensor:
  rows = row_centres < sizes[:, 0, None]
  columns = column_centres < sizes[:, 1, None]
  return rows[:, :, None] & columns[:, None, :]


def without_padding(
  canvas: np.ndarray, image_info: np.ndarray, input_size: Sequence[int]
) -> np.ndarray:
  """The part of a map of the network input that is not padding.

  Args:
    canvas: [h, w, ...], at any stride.
    image_info: [4, 2].
    input_size: [height, width] of the network input.
  """
  scale = np.array(canvas.shape[:2]) / input_size
  height, width = np.maximum(np.round(image_info[1] * scale).astype(int), 1)
  return canvas[:height, :width]
