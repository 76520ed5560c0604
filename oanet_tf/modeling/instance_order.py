"""Scores by which instances are put in order before the merge, the highest on top.

Each takes a scene and gives [B, N] float32; detections with equal scores keep the order of their
detection scores.
"""

# B images, N instances, P cells of the ranking module's canvas, T thing categories, K segments.

import tensorflow as tf

from oanet_tf.modeling.scene import Scene, instance_masks


def detection_score(scene: Scene) -> tf.Tensor:
  """The usual heuristic (Kirillov et al., Panoptic Segmentation, section 7)."""
  return scene.outputs['detection_scores']


def ranking_score(scene: Scene) -> tf.Tensor:
  """Of the spatial ranking module (section 3.2)."""
  return scene.outputs['ranking_scores']


def class_prior_score(scene: Scene) -> tf.Tensor:
  """How often the category lies on those of the other instances that it overlaps.

  The mean of the table's entries over the others, by the number of pixels that they share; 1/2 for
  an instance by itself.
  """
  masks = _masks(scene)
  classes = tf.maximum(scene.outputs['detection_classes'] - 1, 0)
  on_top = tf.gather(tf.constant(scene.class_prior), classes)
  on_top = tf.gather(on_top, classes, axis=2, batch_dims=1)
  shared = tf.matmul(masks, masks, transpose_b=True) * (1.0 - tf.eye(masks.shape[1]))
  return _share(tf.reduce_sum(shared * on_top, axis=2), tf.reduce_sum(shared, axis=2))


def true_score(scene: Scene) -> tf.Tensor:
  """How much of what it shares with others an instance has in truth.

  Of the true segments of its category an instance is taken for the one that it overlaps most, if
  any. Of the pixels that it shares with instances of other segments, and which the truth shows of
  the one or of the other, the score is the share of its own; 1/2 if there are none.
  """
  masks = _masks(scene)
  segments = tf.reshape(scene.truth.segments, [tf.shape(masks)[0], -1])
  matched = _matched_segments(scene, masks, segments)
  own = masks * tf.cast(matched[..., None] == segments[:, None], tf.float32)
  others = tf.cast(matched[:, :, None] != matched[:, None], tf.float32)
  won = tf.matmul(own, masks, transpose_b=True) * others
  lost = tf.transpose(won, [0, 2, 1])
  return _share(tf.reduce_sum(won, axis=2), tf.reduce_sum(won + lost, axis=2))


def _matched_segments(scene: Scene, masks: tf.Tensor, segments: tf.Tensor) -> tf.Tensor:
  """[B, N] int32: k for the k-th segment, or -1 where there is none.

  Args:
    scene: the batch.
    masks: [B, N, P] in {0, 1}.
    segments: [B, P] int32.
  """
  number = tf.reduce_max(segments) + 1
  is_segment = tf.one_hot(segments, number)
  labels = tf.reshape(scene.truth.labels, [tf.shape(masks)[0], -1, 1])
  labels = tf.reduce_max(tf.cast(is_segment, tf.int32) * labels, axis=1)
  fits = scene.outputs['detection_classes'][:, :, None] == labels[:, None]
  overlap = tf.where(fits, tf.matmul(masks, is_segment), 0.0)
  best = tf.argmax(overlap, axis=2, output_type=tf.int32)
  return tf.where(tf.reduce_max(overlap, axis=2) > 0.0, best, -1)


def _masks(scene: Scene) -> tf.Tensor:
  """[B, N, P] float32 in {0, 1}."""
  masks = instance_masks(scene)
  return tf.reshape(masks, [tf.shape(masks)[0], scene.kept.shape[1], -1])


def _share(part: tf.Tensor, whole: tf.Tensor) -> tf.Tensor:
  return tf.where(whole > 0.0, tf.math.divide_no_nan(part, whole), 0.5)
