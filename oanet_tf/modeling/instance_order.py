"""Scores by which instances are put in order before the merge, the highest on top.

Each takes a scene and gives [B, N] float32; detections with equal scores keep the order of their
detection scores.
"""

# B images, N instances, h, w grid of the stuff branch, T thing categories, K segments.

import tensorflow as tf

from oanet_tf.modeling.scene import Scene, instances_on_grid


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
  masks = tf.reshape(instances_on_grid(scene), [*scene.kept.shape[:2], -1])
  shared = tf.matmul(masks, masks, transpose_b=True)
  shared = tf.linalg.set_diag(shared, tf.zeros_like(shared[..., 0]))
  classes = tf.maximum(scene.outputs['detection_classes'] - 1, 0)
  on_top = tf.gather(tf.constant(scene.class_prior), classes)
  on_top = tf.gather(on_top, classes, axis=2, batch_dims=1)
  total = tf.reduce_sum(shared, axis=2)
  score = tf.math.divide_no_nan(tf.reduce_sum(shared * on_top, axis=2), total)
  return tf.where(total > 0.0, score, 0.5)


def true_visibility(scene: Scene) -> tf.Tensor:
  """The share of the instance that can be seen in truth: the order that a fusion could know best.

  Of the true segments of its category an instance takes the one that it overlaps most; its score is
  the share of its mask where this segment is.
  """
  masks = instances_on_grid(scene)
  number = tf.reduce_max(scene.truth.segments) + 1
  segments = tf.one_hot(scene.truth.segments, number)
  overlap = tf.einsum('bnhw,bhwk->bnk', masks, segments)
  labels = tf.reduce_max(tf.cast(segments, tf.int32) * scene.truth.labels[..., None], axis=[1, 2])
  own = scene.outputs['detection_classes'][:, :, None] == labels[:, None]
  overlap = tf.reduce_max(tf.where(own, overlap, 0.0), axis=2)
  return tf.math.divide_no_nan(overlap, tf.reduce_sum(masks, axis=[2, 3]))
