"""The pairs that the occlusion head is trained on, and which of each lies on top."""

# B images, M objects, R RoIs, K pairs, h, w canvas, T side of predicted masks.

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from oanet_tf.modeling.occlusion_head import Crops, Pairs, crops_of, largest_pairs
from oanet_tf.modeling.roi_sampling import SampledROIs

# The target in slots without a pair.
NO_PAIR = -1.0


class TrainingPairs(NamedTuple):
  """Pairs with their targets.

  Attributes:
    crops: of the pairs.
    targets: [B, K] float32 in [0, 1], the fraction of the pixels of two objects' conflict that the
      first one has; `NO_PAIR` in empty slots.
  """

  crops: Crops
  targets: tf.Tensor


def won_pixels(masks: tf.Tensor, gt_segments: tf.Tensor, segment_map: tf.Tensor) -> tf.Tensor:
  """Pixels that both of two objects cover and that belong to the first.

  Args:
    masks: [B, M, h, w] float32 in {0, 1}, the objects on the canvas.
    gt_segments: [B, M] int32 of `data.preprocess`: the objects' panoptic segments, at most 0 for
      none.
    segment_map: [B, H, W] int32, at a whole multiple of the canvas's resolution.

  Returns:
    [B, M, M] float32; 0 for two objects of one segment.
  """
  images, _, height, width = tf.unstack(tf.shape(masks))
  step = tf.shape(segment_map)[1] // height
  segments = segment_map[:, step // 2 :: step, step // 2 :: step]
  own = (segments[:, None] == gt_segments[..., None, None]) & (gt_segments > 0)[..., None, None]
  flat_masks, flat_own = (
    tf.reshape(values, [images, masks.shape[1], height * width])
    for values in (masks, masks * tf.cast(own, masks.dtype))
  )
  differ = gt_segments[:, :, None] != gt_segments[:, None]
  return tf.matmul(flat_own, flat_masks, transpose_b=True) * tf.cast(differ, masks.dtype)


def true_pairs(
  won: tf.Tensor, labels: Mapping[str, tf.Tensor], number: int, side: int
) -> TrainingPairs:
  """The pairs of annotated objects that conflict most.

  Args:
    won: [B, M, M] of `won_pixels`.
    labels: with `gt_boxes` and `gt_masks`.
    number: K, at most.
    side: of the crops.
  """
  pairs = largest_pairs(_conflict(won), number)
  crops = crops_of(pairs, labels['gt_boxes'], labels['gt_masks'], side)
  return TrainingPairs(crops, _targets(pairs, won))


def predicted_pairs(
  won: tf.Tensor, objects: SampledROIs, mask_logits: tf.Tensor, number: int, side: int
) -> TrainingPairs:
  """The first pairs of RoIs, with their predicted masks, whose objects conflict.

  Args:
    won: [B, M, M] of `won_pixels`.
    objects: R RoIs; those that match no object are in no pair.
    mask_logits: [B, R, T, T].
    number: K, at most.
    side: of the crops.
  """
  matched = tf.maximum(objects.matched_indices, 0)
  won = tf.gather(tf.gather(won, matched, batch_dims=1), matched, axis=2, batch_dims=1)
  is_object = tf.cast(objects.classes > 0, won.dtype)
  won *= is_object[:, :, None] * is_object[:, None]
  # By size, all pairs would be of the same two objects. RoIs are in random order; the first ones
  # take part in a few pairs each.
  places = np.arange(won.shape[1], dtype=np.float32)
  early = 2.0 * won.shape[1] - places[:, None] - places
  pairs = largest_pairs(tf.cast(_conflict(won) > 0.0, tf.float32) * early, number)
  masks = tf.cast(mask_logits >= 0.0, tf.float32)
  return TrainingPairs(crops_of(pairs, objects.boxes, masks, side), _targets(pairs, won))


def joined(parts: Sequence[TrainingPairs]) -> TrainingPairs:
  """All pairs of an image, one after the other."""
  values = zip(*(part.crops for part in parts), strict=True)
  crops = Crops(*(tf.concat(list(of_parts), axis=1) for of_parts in values))
  return TrainingPairs(crops, tf.concat([part.targets for part in parts], axis=1))


def _conflict(won: tf.Tensor) -> tf.Tensor:
  return won + tf.transpose(won, [0, 2, 1])


def _targets(pairs: Pairs, won: tf.Tensor) -> tf.Tensor:
  number = won.shape[1]
  flat = tf.reshape(won, [-1, number * number])
  of_first, of_second = (
    tf.gather(flat, one * number + other, batch_dims=1)
    for one, other in ((pairs.first, pairs.second), (pairs.second, pairs.first))
  )
  return tf.where(pairs.exists, tf.math.divide_no_nan(of_first, of_first + of_second), NO_PAIR)
