"""Which proposals the second stage is trained on, and what they should become.

Follows `official.vision.modeling.layers.roi_sampler.ROISampler`, without its own random numbers:
they come with each image, so that a step depends on its batch alone and not on how many devices
share it or on what came before.
"""

# B images, P proposals, G padded ground truth, N sampled RoIs.

from typing import NamedTuple

import tensorflow as tf
from official.vision.ops import box_ops

# In order of preference; the random priorities, in [0, 1), decide within each.
_CHOSEN_OBJECT, _BACKGROUND, _SPARE_OBJECT = 3.0, 2.0, 1.0


class SampledROIs(NamedTuple):
  """Sampled regions with their targets.

  Attributes:
    boxes: [B, N, 4] in pixels of the network input.
    matched_boxes: [B, N, 4], the true box; 0 for background.
    classes: [B, N] int32, 0 for background.
    matched_indices: [B, N] int32 into the ground truth, -1 for background.
  """

  boxes: tf.Tensor
  matched_boxes: tf.Tensor
  classes: tf.Tensor
  matched_indices: tf.Tensor


class ROISampler:
  """Samples objects and background from the proposals."""

  def __init__(
    self,
    *,
    mix_gt_boxes: bool,
    num_sampled_rois: int,
    foreground_fraction: float,
    foreground_iou_threshold: float,
    background_iou_high_threshold: float,
    background_iou_low_threshold: float,
  ):
    """Takes numbers and thresholds, named as the Model Garden names them."""
    self._mix_gt_boxes = mix_gt_boxes
    self._num_sampled_rois = num_sampled_rois
    self._foreground_fraction = foreground_fraction
    self._foreground = foreground_iou_threshold
    self._background_high = background_iou_high_threshold
    self._background_low = background_iou_low_threshold

  def __call__(
    self, proposals: tf.Tensor, gt_boxes: tf.Tensor, gt_classes: tf.Tensor, priorities: tf.Tensor
  ) -> SampledROIs:
    """At most `foreground_fraction` of the sample are objects; background fills it up.

    Args:
      proposals: [B, P, 4], padded with -1.
      gt_boxes, gt_classes: [B, G, 4] and [B, G] int32, padded with -1.
      priorities: [B, P + G] float32 in [0, 1), random; without `mix_gt_boxes` the first P count.

    Returns:
      As many as `num_sampled_rois`, or all there are.
    """
    boxes = tf.concat([proposals, gt_boxes], axis=1) if self._mix_gt_boxes else proposals
    overlaps = box_ops.bbox_overlap(boxes, gt_boxes)
    best, matched = tf.reduce_max(overlaps, axis=-1), tf.argmax(overlaps, -1, tf.int32)
    objects = best >= self._foreground
    background = (best >= self._background_low) & (best < self._background_high)
    sampled = self._choose(objects, background, priorities[:, : boxes.shape[1]])
    matched = tf.where(best >= self._background_high, matched, -1)
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
    number = min(self._num_sampled_rois, priorities.shape[1])
    quota = max(1, int(number * self._foreground_fraction))
    object_priorities = tf.where(objects, priorities, -1.0)
    last_chosen = tf.math.top_k(object_priorities, k=quota).values[:, -1:]
    chosen = objects & (object_priorities >= last_chosen)
    preference = tf.where(objects, _SPARE_OBJECT, 0.0)
    preference = tf.where(background, _BACKGROUND, preference)
    preference = tf.where(chosen, _CHOSEN_OBJECT, preference)
    return tf.math.top_k(priorities + preference, k=number).indices
