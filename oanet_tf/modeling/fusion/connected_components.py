"""Connected components of equal labels, as TensorFlow ops."""

# B images, H, W canvas.

import tensorflow as tf


def connected_components(labels: tf.Tensor) -> tf.Tensor:
  """Numbers the 4-connected components of equal labels.

  Every pixel points to a pixel of its component, in the end to the one with the greatest index. In
  each round, the pixels of a run of equal labels, in a row or column, take the greatest pointer of
  the run, and a pixel takes the greatest pointer of those that point to it (the hooking and
  shortcutting of Shiloach and Vishkin, An O(log n) Parallel Connectivity Algorithm, 1982).

  Args:
    labels: [B, H, W] int32.

  Returns:
    [B, H, W] int32 in [0, B·H·W), equal for two pixels if and only if they are in one component.
  """
  size = tf.size(labels)
  row_runs, column_runs = _runs(labels, axis=2), _runs(labels, axis=1)

  def greatest(values: tf.Tensor, groups: tf.Tensor) -> tf.Tensor:
    return tf.gather(tf.math.unsorted_segment_max(values, groups, size), groups)

  def spread(pointers: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    new = greatest(greatest(pointers, row_runs), column_runs)
    new = tf.maximum(new, greatest(new, pointers))
    new = tf.gather(new, new)
    return new, tf.reduce_any(new != pointers)

  pointers, _ = tf.while_loop(
    lambda _, changed: changed, spread, (tf.range(size), tf.constant(True))
  )
  return tf.reshape(pointers, tf.shape(labels))


def _runs(labels: tf.Tensor, axis: int) -> tf.Tensor:
  """[B·H·W] int32 in [0, B·H·W): the number of each pixel's run along an axis, 1 or 2."""
  batch, height, width = tf.unstack(tf.shape(labels))
  lines, length = ([batch, 1, width], height) if axis == 1 else ([batch, height, 1], width)
  before = tf.gather(labels, tf.maximum(tf.range(length) - 1, 0), axis=axis)
  begun = tf.cumsum(tf.cast(labels != before, tf.int32), axis)
  first = tf.reshape(tf.range(tf.reduce_prod(lines)) * length, lines)
  return tf.reshape(first + begun, [-1])
