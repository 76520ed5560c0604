"""Which of several detections of one object are kept, whatever their categories."""

# B images, N detections, h, w canvas.

import numpy as np
import tensorflow as tf


def suppress(masks: tf.Tensor, kept: tf.Tensor, threshold: float) -> tf.Tensor:
  """Drops detections whose masks are much the same as a better one's.

  Non-maximum suppression, greedy as that of boxes: a detection is dropped if a better one that is
  not dropped itself overlaps it by more than the threshold.

  Args:
    masks: [B, N, h, w] float in {0, 1}, the best detection first.
    kept: [B, N] bool: those that count; the others neither stay nor drop one.
    threshold: of the masks' intersection over union, in [0, 1].

  Returns:
    [B, N] bool, a part of `kept`.
  """
  better = np.tri(masks.shape[1], k=-1, dtype=np.float32)
  drops = tf.cast(mask_overlap(masks) > threshold, tf.float32) * better
  candidates = tf.cast(kept, tf.float32)

  def drop(_: tf.Tensor, left: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    return left, candidates * (1.0 - tf.reduce_max(drops * left[:, None], axis=2))

  # Each round settles one more detection at least, as it depends on the better ones alone.
  _, left = tf.while_loop(
    lambda before, left: tf.reduce_any(before != left),
    drop,
    (tf.zeros_like(candidates), candidates),
  )
  return left > 0.0


def mask_overlap(masks: tf.Tensor) -> tf.Tensor:
  """[B, N, h, w] float in {0, 1} -> [B, N, N]: intersections over unions; 0 of empty masks."""
  _, number, height, width = masks.shape
  flat = tf.reshape(masks, [tf.shape(masks)[0], number, height * width])
  shared = tf.matmul(flat, flat, transpose_b=True)
  area = tf.reduce_sum(flat, axis=2)
  return tf.math.divide_no_nan(shared, area[:, :, None] + area[:, None] - shared)
