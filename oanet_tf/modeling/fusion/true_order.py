"""What annotated segments say of the order of instances.

The fusion 'oracle' and the targets of the occlusion head both go by this.
"""

# B images, N instances, K segments, P pixels; segments are numbered from 1.

import tensorflow as tf


def matched_segments(
  masks: tf.Tensor,
  classes: tf.Tensor,
  segments: tf.Tensor,
  numbers: tf.Tensor,
  classes_of_segments: tf.Tensor,
) -> tf.Tensor:
  """The segment of its category that each instance covers most of.

  Args:
    masks: [B, N, P] float32 in {0, 1}.
    classes: [B, N] int32.
    segments: [B, P] int32, the segment that has each pixel; at most 0 for none.
    numbers: [B, K] int32, those to choose from; at most 0 in empty slots.
    classes_of_segments: [B, K] int32.

  Returns:
    [B, N] int32; 0 where an instance covers none.
  """
  shared = tf.matmul(masks, _is_in(numbers, segments), transpose_b=True)
  fits = classes[:, :, None] == classes_of_segments[:, None]
  shared = tf.where(fits, shared, 0.0)
  best = tf.gather(numbers, tf.argmax(shared, axis=2), batch_dims=1)
  return tf.where(tf.reduce_max(shared, axis=2) > 0.0, best, 0)


def won_pixels(masks: tf.Tensor, own: tf.Tensor, segments: tf.Tensor) -> tf.Tensor:
  """Pixels that both of two instances cover and that belong to the first.

  Args:
    masks: [B, N, P] float32 in {0, 1}.
    own: [B, N] int32, the segment that each stands for; at most 0 for none.
    segments: [B, P] int32.

  Returns:
    [B, N, N] float32; 0 for two instances of one segment.
  """
  in_own = masks * _is_in(own, segments)
  differ = tf.cast(own[:, :, None] != own[:, None], masks.dtype)
  return tf.matmul(in_own, masks, transpose_b=True) * differ


def _is_in(numbers: tf.Tensor, segments: tf.Tensor) -> tf.Tensor:
  """[B, N] segments -> [B, N, P] float32, 1 where they are."""
  numbers = numbers[..., None]
  return tf.cast((segments[:, None] == numbers) & (numbers > 0), tf.float32)
