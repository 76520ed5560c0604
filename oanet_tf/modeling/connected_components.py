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
  row_runs = tf.reshape(_runs(labels), [-1])
  turned = tf.transpose(labels, [0, 2, 1])
  column_runs = tf.reshape(tf.transpose(_runs(turned), [0, 2, 1]), [-1])

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


def _runs(labels: tf.Tensor) -> tf.Tensor:
  """[B, H, W] int32: for each pixel the number of its run of equal labels in its row."""
  begins = labels[:, :, 1:] != labels[:, :, :-1]
  begins = tf.pad(tf.cast(begins, tf.int32), [[0, 0], [0, 0], [1, 0]], constant_values=1)
  return tf.reshape(tf.cumsum(tf.reshape(begins, [-1])) - 1, tf.shape(labels))
