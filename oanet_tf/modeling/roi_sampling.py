"""Chooses the proposals that the second stage is trained on, and their targets.

Follows `official.vision.modeling.layers.roi_sampler.ROISampler`, except that the random numbers
come with each image. A step then depends only on its batch, not on the number of devices or on
earlier steps.
"""

# B images, P proposals, G padded ground truth, N sampled RoIs.

from typing import NamedTuple

import tensorflow as tf
from official.vision.configs import maskrcnn
from official.vision.ops import box_ops

# Preferences; the random priorities in [0, 1) decide among boxes of the same preference.
_CHOSEN_OBJECT, _BACKGROUND, _SPARE_OBJECT = 3.0, 2.0, 1.0


class SampledROIs(NamedTuple):
  """Sampled RoIs with their targets.

  Attributes:
    boxes: [B, N, 4] in pixels of the network input.
    matched_boxes: [B, N, 4], of the ground truth; 0 for background.
    classes: [B, N] int32, 0 for background.
    matched_indices: [B, N] int32 into the ground truth, -1 for background.
  """

  boxes: tf.Tensor
  matched_boxes: tf.Tensor
  classes: tf.Tensor
  matched_indices: tf.Tensor


class ROISampler:
  """Samples objects and background from the proposals, by the Model Garden's settings."""

  def __init__(self, settings: maskrcnn.ROISampler):
    self._settings = settings

  def __call__(
    self, proposals: tf.Tensor, gt_boxes: tf.Tensor, gt_classes: tf.Tensor, priorities: tf.Tensor
  ) -> SampledROIs:
    """Samples objects, at most `foreground_fraction` of all, and fills up with background.

    Args:
      proposals: [B, P, 4], padded with -1.
      gt_boxes, gt_classes: [B, G, 4] and [B, G] int32, padded with -1.
      priorities: [B, P + G] float32 in [0, 1), random; without `mix_gt_boxes`, only the first P
        are used.

    Returns:
      `num_sampled_rois` RoIs, or all boxes if there are fewer.
    """
    settings = self._settings
    boxes = tf.concat([proposals, gt_boxes], axis=1) if settings.mix_gt_boxes else proposals
    overlaps = box_ops.bbox_overlap(boxes, gt_boxes)
    best, matched = tf.reduce_max(overlaps, axis=-1), tf.argmax(overlaps, -1, tf.int32)
    objects = best >= settings.foreground_iou_threshold
    is_match = best >= settings.background_iou_high_threshold
    background = (best >= settings.background_iou_low_threshold) & ~is_match
    sampled = self._choose(objects, background, priorities[:, : boxes.shape[1]])
    matched = tf.where(is_match, matched, -1)
    matched = tf.gather(matched, sampled, batch_dims=1)
    safe, is_object = tf.maximum(matched, 0), matched >= 0
    true_boxes = tf.gather(gt_boxes, safe, batch_dims=1)
    return SampledROIs(
      boxes=tf.gather(boxes, sampled, batch_dims=1),
      matched_boxes=tf.where(is_object[..., None], true_boxes, 0.0),
      classes=tf.where(is_object, tf.gather(gt_classes, safe, batch_dims=1), 0),
      matched_indices=matched,
    )

  def _choose(self, objects: tf.Tensor, background: tf.Tensor, priorities: tf.Tensor) -> tf.Tensor:
    """[B, N] int32 indices of the sampled boxes."""
    number = min(self._settings.num_sampled_rois, priorities.shape[1])
    quota = max(1, int(number * self._settings.foreground_fraction))
    object_priorities = tf.where(objects, priorities, -1.0)
    last_chosen = tf.math.top_k(object_priorities, k=quota).values[:, -1:]
    chosen = objects & (object_priorities >= last_chosen)
    preference = tf.where(objects, _SPARE_OBJECT, 0.0)
    preference = tf.where(background, _BACKGROUND, preference)
    preference = tf.where(chosen, _CHOSEN_OBJECT, preference)
    return tf.math.top_k(priorities + preference, k=number).indices
