"""Pastes masks from their boxes onto a canvas, with two small matrix products for each mask."""

# B images, N instances, S mask side, H, W canvas, L its length along one axis.

import tensorflow as tf

# A position at which no cell has weight.
_OUTSIDE = -2.0


def paste_masks(
  masks: tf.Tensor,
  boxes: tf.Tensor,
  height: int | tf.Tensor,
  width: int | tf.Tensor,
  edges: str = 'repeat',
) -> tf.Tensor:
  """Resamples each mask from its box to the canvas, bilinearly; canvas pixels at their centres.

  Args:
    masks: [..., N, S, S] float.
    boxes: [..., N, 4] float, [y1, x1, y2, x2] in pixels of the canvas.
    height, width: of the canvas.
    edges: of `cell_positions`.

  Returns:
    [..., N, H, W] float, of the masks' dtype; all 0 for a box without area.
  """
  side = masks.shape[-1]
  rows = cell_positions(boxes[..., 0], boxes[..., 2], side, height, edges=edges)
  columns = cell_positions(boxes[..., 1], boxes[..., 3], side, width, edges=edges)
  stretched = tf.matmul(masks, weights_of_cells(columns, masks), transpose_b=True)
  return tf.matmul(weights_of_cells(rows, masks), stretched)


def cell_positions(
  low: tf.Tensor,
  high: tf.Tensor,
  side: int,
  length: int | tf.Tensor,
  limit: tf.Tensor | None = None,
  edges: str = 'repeat',
) -> tf.Tensor:
  """Positions of canvas pixels among the cells of boxes, along one axis.

  Args:
    low, high: [..., N] float, the boxes' sides in pixels of the canvas.
    side: S.
    length: L.
    limit: [..., 1] float, nothing is pasted from this pixel on; None for no limit.
    edges: between the centres of the outermost cells and the edge of the box, 'repeat' repeats the
      outermost values, for pixels whose centre lies in the box. 'from_corner' does so for those
      whose upper left corner lies in it. 'fade' goes on to 0 within a cell, half of it outside.

  Returns:
    [..., N, L] float, where 0 and S - 1 are the centres of the outermost cells, and nothing is to
    be pasted at -1, S and beyond.
  """
  end = (high if limit is None else tf.minimum(high, limit))[..., None]
  low, high = low[..., None], high[..., None]
  corners = tf.cast(tf.range(length), tf.float32)
  centres = corners + 0.5
  positions = tf.math.divide_no_nan(centres - low, high - low) * side - 0.5
  if edges == 'fade':
    visible = high > low if limit is None else (high > low) & (centres < limit[..., None])
    return tf.where(visible, positions, _OUTSIDE)
  tested = corners if edges == 'from_corner' else centres
  inside = tf.logical_and(tested >= low, tested < end)
  return tf.where(inside, tf.clip_by_value(positions, 0.0, side - 1.0), _OUTSIDE)


def weights_of_cells(positions: tf.Tensor, masks: tf.Tensor) -> tf.Tensor:
  """The weights of a mask's cells at positions along one axis.

  Args:
    positions: [..., L], of `cell_positions`.
    masks: [..., S, W], for S and the dtype.

  Returns:
    [..., L, S].
  """
  cells = tf.range(masks.shape[-2], dtype=tf.float32)
  return tf.cast(tf.nn.relu(1.0 - tf.abs(positions[..., None] - cells)), masks.dtype)
