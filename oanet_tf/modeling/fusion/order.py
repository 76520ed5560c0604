"""Scores that order instances for the merge; the highest lies on top.

Each function maps a batch to [B, N] float32. Instances with equal scores keep the order of their
detection scores.
"""

# B images, N instances, T thing categories.

import numpy as np
import tensorflow as tf

from oanet_tf.modeling.fusion.fuser import FusionBatch
from oanet_tf.modeling.fusion.true_order import matched_segments, won_pixels


def detection_scores(batch: FusionBatch) -> tf.Tensor:
  """The usual heuristic (Kirillov et al., Panoptic Segmentation, section 7)."""
  return batch.instances.scores


def ranking_scores(batch: FusionBatch) -> tf.Tensor:
  """The scores of the spatial ranking module (section 3.2), for the pairs of `ranking_pairs`."""
  scores, instances = batch.ranking.scores, batch.instances
  if batch.fuser.settings.ranking_pairs == 'all':
    return scores
  return below_better_ones(scores, instances.classes, instances.shared_pixels)


def below_better_ones(scores: tf.Tensor, classes: tf.Tensor, shared: tf.Tensor) -> tf.Tensor:
  """Ranking scores, lowered to those of better detections of the same category.

  The ranking map is never trained on two instances of one category, so it says nothing of their
  order. In the order of the lowered scores, each instance waits for the better detections of its
  category that it overlaps; otherwise it is the order of the ranking scores.

  Args:
    scores: [B, N] float in [0, 1], the best detection first.
    classes: [B, N] int.
    shared: [B, N, N] float, pixels that two instances share.

  Returns:
    [B, N] float, at most `scores`. Equal ones are to keep the order of the detections.
  """
  better = np.tri(scores.shape[1], k=-1, dtype=bool)
  waits_for = (classes[:, :, None] == classes[:, None]) & (shared > 0.0) & better

  def lower(_: tf.Tensor, lowered: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    of_better = tf.reduce_min(tf.where(waits_for, lowered[:, None], 1.0), axis=2)
    return lowered, tf.minimum(scores, of_better)

  # An instance depends only on better ones, so each round settles at least one more.
  _, lowered = tf.while_loop(
    lambda before, lowered: tf.reduce_any(before != lowered),
    lower,
    (tf.zeros_like(scores), scores),
  )
  return lowered


def class_prior_scores(batch: FusionBatch) -> tf.Tensor:
  """How often an instance's category lies on the categories of those that it overlaps.

  This is the mean of the table's entries over the other instances, weighted by the number of shared
  pixels, or 1/2 for an instance that overlaps none.
  """
  classes = tf.maximum(batch.instances.classes - 1, 0)
  on_top = tf.gather(tf.constant(batch.fuser.class_prior), classes)
  on_top = tf.gather(on_top, classes, axis=2, batch_dims=1)
  shared = batch.instances.shared_pixels * (1.0 - tf.eye(classes.shape[1]))
  return _fraction(tf.reduce_sum(shared * on_top, axis=2), tf.reduce_sum(shared, axis=2))


def pairwise_scores(batch: FusionBatch) -> tf.Tensor:
  """An order in which each instance lies on those that it is to lie on, by the occlusion head."""
  return order_of_claims(batch.claims)


def order_of_claims(claims: tf.Tensor) -> tf.Tensor:
  """Scores by which no instance lies on one that claims to lie on it, unless claims form a circle.

  Of claims in a circle, the weakest is not heard. This is Schulze's method: a chain of claims is as
  strong as its weakest link, and an instance lies on those to which it has a stronger chain than
  they have to it, which is never a circle (Schulze, *A new monotonic, clone-independent, reversal
  symmetric, and condorcet-consistent single-winner election method*, 2011, section 2).

  Args:
    claims: [B, N, N] float, at least 0: how strongly the first instance claims to lie on the
      second.

  Returns:
    [B, N] float32 in [0, 1): the fraction of the instances below. Instances without any chain
      between them are in no particular order.
  """
  number = claims.shape[1]
  chains = claims
  # Each round doubles the length of the chains that are known.
  for _ in range(max(1, number - 1).bit_length()):
    of_two = tf.reduce_max(tf.minimum(chains[..., None], chains[:, None]), axis=2)
    chains = tf.maximum(chains, of_two)
  lies_on = tf.cast(chains > tf.transpose(chains, [0, 2, 1]), tf.float32)
  return tf.reduce_sum(lies_on, axis=2) / number


def true_scores(batch: FusionBatch) -> tf.Tensor:
  """The fraction of its shared pixels that the ground truth gives to an instance.

  An instance is matched to the annotated segment of its category that it overlaps most, if any.
  Counted are the pixels that it shares with an instance of another segment and that belong to one
  of the two segments. The score is the fraction that belongs to its own, or 1/2 if there are none.
  """
  masks, truth = batch.instances.flat_masks, batch.ground_truth
  segments, labels = (tf.reshape(values, [tf.shape(masks)[0], -1]) for values in truth)
  numbers = tf.tile(tf.range(tf.reduce_max(segments) + 1)[None], [tf.shape(masks)[0], 1])
  is_segment = tf.cast(segments[:, None] == numbers[..., None], tf.int32)
  of_segments = tf.reduce_max(is_segment * labels[:, None], axis=2)
  own = matched_segments(masks, batch.instances.classes, segments, numbers, of_segments)
  won = won_pixels(masks, own, segments)
  lost = tf.transpose(won, [0, 2, 1])
  return _fraction(tf.reduce_sum(won, axis=2), tf.reduce_sum(won + lost, axis=2))


def _fraction(part: tf.Tensor, whole: tf.Tensor) -> tf.Tensor:
  return tf.where(whole > 0.0, tf.math.divide_no_nan(part, whole), 0.5)
