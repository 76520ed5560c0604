"""Masks within boxes -> masks on a canvas, as two small matrix products for each."""

# B images, N instances, S mask side, H, W canvas.

import tensorflow as tf

# Of a sample that no cell of a mask reaches.
_OUTSIDE = -2.0


def paste_masks(
  masks: tf.Tensor, boxes: tf.Tensor, height: int | tf.Tensor, width: int | tf.Tensor
) -> tf.Tensor:
  """Resamples each mask from its box to the canvas, bilinearly.

  A canvas pixel is sampled at its middle. Within a box but beyond the middles of the outermost
  cells, those cells go on; outside of the box all is 0.

  Args:
    masks: [..., N, S, S] float.
    boxes: [..., N, 4] float, [y1, x1, y2, x2] in pixels of the canvas.
    height, width: of the canvas.

  Returns:
    [..., N, H, W] float, of the masks' dtype; all 0 for a box without area.
  """
  return stretch_rows(stretch_columns(masks, boxes, width), boxes, height)


def stretch_columns(
  masks: tf.Tensor,
  boxes: tf.Tensor,
  width: int | tf.Tensor,
  limit: tf.Tensor | None = None,
) -> tf.Tensor:
  """The first half of `paste_masks`: [..., N, S, S] -> [..., N, S, W].

  Args:
    masks, boxes, width: of `paste_masks`.
    limit: [..., N] float, the column from which on nothing is pasted.
  """
  weights = _interpolation(boxes[..., 1], boxes[..., 3], masks.shape[-1], width, 0, limit)
  return tf.matmul(masks, tf.cast(weights, masks.dtype), transpose_b=True)


def stretch_rows(
  stretched: tf.Tensor,
  boxes: tf.Tensor,
  height: int | tf.Tensor,
  first_row: int | tf.Tensor = 0,
  limit: tf.Tensor | None = None,
) -> tf.Tensor:
  """The second half: [..., N, S, W] -> [..., N, H, W], the canvas's rows from `first_row` on.

  Args:
    stretched: of `stretch_columns`.
    boxes: of `paste_masks`.
    height: number of rows.
    first_row: of the canvas.
    limit: [..., N] float, the row from which on nothing is pasted.
  """
  side = stretched.shape[-2]
  weights = _interpolation(boxes[..., 0], boxes[..., 2], side, height, first_row, limit)
  return tf.matmul(tf.cast(weights, stretched.dtype), stretched)


def _interpolation(
  low: tf.Tensor,
  high: tf.Tensor,
  side: int,
  length: int | tf.Tensor,
  first: int | tf.Tensor,
  limit: tf.Tensor | None,
) -> tf.Tensor:
  """[..., N, length, S]: weights of the S cells of [low, high) at each pixel's middle."""
  end = high if limit is None else tf.minimum(high, limit)
  low, high, end = low[..., None], high[..., None], end[..., None]
  middles = tf.cast(tf.range(length) + first, tf.float32) + 0.5
  position = tf.math.divide_no_nan(middles - low, high - low) * side - 0.5
  position = tf.clip_by_value(position, 0.0, side - 1.0)
  inside = tf.logical_and(middles >= low, middles < end)
  position = tf.where(inside, position, _OUTSIDE)[..., None]
  return tf.nn.relu(1.0 - tf.abs(position - tf.range(side, dtype=tf.float32)))
