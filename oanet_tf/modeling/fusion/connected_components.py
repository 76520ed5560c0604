"""Connected areas of equal labels, in the graph."""

# B images, H, W canvas.

import tensorflow as tf


def connected_components(labels: tf.Tensor) -> tf.Tensor:
  """Numbers the areas of equal labels that hang together over pixels' edges.

  Every pixel points to one of its own area, in the end to the one of the greatest index. In each
  round all of a run of equal labels, in a row or in a column, learn of the run's greatest, and a
  pixel that others point to learns what they have learnt (the hooking and shortcutting of Shiloach
  and Vishkin, An O(log n) Parallel Connectivity Algorithm, 1982).

  Args:
    labels: [B, H, W] int32.

  Returns:
    [B, H, W] int32 in [0, B·H·W): equal for two pixels if and only if they are of one area.
  """
  size = tf.size(labels)
  row_runs, column_runs = _runs(labels, axis=2), _runs(labels, axis=1)

  def greatest(values: tf.Tensor, groups: tf.Tensor) -> tf.Tensor:
    return tf.gather(tf.math.unsorted_segment_max(values, groups, size), groups)

  def spread(pointers: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    learnt = greatest(greatest(pointers, row_runs), column_runs)
    learnt = tf.maximum(learnt, greatest(learnt, pointers))
    learnt = tf.gather(learnt, learnt)
    return learnt, tf.reduce_any(learnt != pointers)

  pointers, _ = tf.while_loop(
    lambda _, changed: changed, spread, (tf.range(size), tf.constant(True))
  )
  return tf.reshape(pointers, tf.shape(labels))


def _runs(labels: tf.Tensor, axis: int) -> tf.Tensor:
  """[B·H·W] int32 in [0, B·H·W): for each pixel the number of its run along an axis, 1 or 2."""
  batch, height, width = tf.unstack(tf.shape(labels))
  lines, length = ([batch, 1, width], height) if axis == 1 else ([batch, height, 1], width)
  before = tf.gather(labels, tf.maximum(tf.range(length) - 1, 0), axis=axis)
  begun = tf.cumsum(tf.cast(labels != before, tf.int32), axis)
  first = tf.reshape(tf.range(tf.reduce_prod(lines)) * length, lines)
  return tf.reshape(first + begun, [-1])
