"""Masks within boxes -> masks on a canvas."""

# B images, N instances, S mask side, H, W canvas.

import tensorflow as tf


def paste_masks(
  masks: tf.Tensor, boxes: tf.Tensor, height: int | tf.Tensor, width: int | tf.Tensor
) -> tf.Tensor:
  """Resamples each mask from its box to the canvas, bilinearly, as two small matrix products.

  A canvas pixel is sampled at its middle. Within a box but beyond the middles of the outermost
  cells, those cells go on; outside of the box all is 0.

  Args:
    masks: [..., N, S, S] float.
    boxes: [..., N, 4] float, [y1, x1, y2, x2] in pixels of the canvas.
    height, width: of the canvas.

  Returns:
    [..., N, H, W] float, of the masks' dtype; all 0 for a box without area.
  """
  side = masks.shape[-1]
  rows = _interpolation(boxes[..., 0], boxes[..., 2], height, side)
  columns = _interpolation(boxes[..., 1], boxes[..., 3], width, side)
  pasted = tf.matmul(tf.cast(rows, masks.dtype), masks)
  return tf.matmul(pasted, tf.cast(columns, masks.dtype), transpose_b=True)


def _interpolation(
  low: tf.Tensor, high: tf.Tensor, length: int | tf.Tensor, side: int
) -> tf.Tensor:
  """[..., N, length, S]: weights of the S cells of [low, high) at each canvas pixel's middle."""
  low, high = low[..., None], high[..., None]
  middles = tf.range(tf.cast(length, tf.float32)) + 0.5
  inside = tf.logical_and(middles >= low, middles < high)
  position = tf.math.divide_no_nan(middles - low, high - low) * side - 0.5
  position = tf.clip_by_value(position, 0.0, side - 1.0)[..., None]
  weights = tf.nn.relu(1.0 - tf.abs(position - tf.range(side, dtype=tf.float32)))
  return tf.where(inside[..., None], weights, 0.0)
