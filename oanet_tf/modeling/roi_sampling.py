"""Chooses the proposals that the second stage is trained on, and their targets.

Follows `official.vision.modeling.layers.roi_sampler.ROISampler`, with two differences. The random
numbers come with each image, so a step depends only on its batch, not on the number of devices or
on earlier steps. And neither padding nor what lies in a crowd is taken for background.
"""

# B images, P proposals, G padded ground truth, N sampled RoIs.

from typing import NamedTuple

import tensorflow as tf
from official.vision.configs import maskrcnn
from official.vision.ops import box_ops

from oanet_tf.data.anchor_targets import within_crowd

# Preferences; the random priorities in [0, 1) decide among boxes of the same preference.
_CHOSEN_OBJECT, _BACKGROUND, _SPARE_OBJECT = 3.0, 2.0, 1.0
# The class in slots that hold no RoI.
NOT_SAMPLED = -1


class SampledROIs(NamedTuple):
  """Sampled RoIs with their targets.

  Attributes:
    boxes: [B, N, 4] in pixels of the network input.
    matched_boxes: [B, N, 4], of the ground truth; 0 where none matches.
    classes: [B, N] int32, 0 for background; `NOT_SAMPLED` where an image has too few boxes, which
      no loss counts. Their `boxes` are 0.
    matched_indices: [B, N] int32 into the ground truth, -1 where none matches.
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
    self,
    proposals: tf.Tensor,
    gt_boxes: tf.Tensor,
    gt_classes: tf.Tensor,
    crowd_boxes: tf.Tensor,
    priorities: tf.Tensor,
  ) -> SampledROIs:
    """Samples objects, at most `foreground_fraction` of all, and fills up with background.

    A box that matches no object is background unless it lies in a crowd, in which there may be
    objects without annotation.

    Args:
      proposals: [B, P, 4], padded with boxes without area.
      gt_boxes, gt_classes: [B, G, 4] and [B, G] int32, padded with -1.
      crowd_boxes: [B, K, 4], padded with -1.
      priorities: [B, P + G] float32 in [0, 1), random; without `mix_gt_boxes`, only the first P
        are used.

    Returns:
      `num_sampled_rois` RoIs, or as many as there are boxes if these are fewer.
    """
    settings = self._settings
    boxes = tf.concat([proposals, gt_boxes], axis=1) if settings.mix_gt_boxes else proposals
    overlaps = box_ops.bbox_overlap(boxes, gt_boxes)
    # Padding has the overlap -1.
    best = tf.maximum(tf.reduce_max(overlaps, axis=-1), 0.0)
    is_match = best >= settings.background_iou_high_threshold
    background = (best >= settings.background_iou_low_threshold) & ~is_match
    background &= ~within_crowd(boxes, crowd_boxes)
    is_box = tf.reduce_all(boxes[..., 2:] > boxes[..., :2], axis=-1)
    sampled, is_sampled = self._choose(
      (best >= settings.foreground_iou_threshold) & is_box,
      background & is_box,
      priorities[:, : boxes.shape[1]],
    )
    matched = tf.where(is_match, tf.argmax(overlaps, -1, tf.int32), -1)
    matched = tf.where(is_sampled, tf.gather(matched, sampled, batch_dims=1), -1)
    safe, is_object = tf.maximum(matched, 0), matched >= 0
    classes = tf.where(is_object, tf.gather(gt_classes, safe, batch_dims=1), 0)
    true_boxes = tf.gather(gt_boxes, safe, batch_dims=1)
    return SampledROIs(
      boxes=tf.where(is_sampled[..., None], tf.gather(boxes, sampled, batch_dims=1), 0.0),
      matched_boxes=tf.where(is_object[..., None], true_boxes, 0.0),
      classes=tf.where(is_sampled, classes, NOT_SAMPLED),
      matched_indices=matched,
    )

  def _choose(
    self, objects: tf.Tensor, background: tf.Tensor, priorities: tf.Tensor
  ) -> tuple[tf.Tensor, tf.Tensor]:
    """[B, N] int32 indices of the sampled boxes, and [B, N] bool, false where there is none."""
    number = min(self._settings.num_sampled_rois, priorities.shape[1])
    quota = max(1, int(number * self._settings.foreground_fraction))
    object_priorities = tf.where(objects, priorities, -1.0)
    last_chosen = tf.math.top_k(object_priorities, k=quota).values[:, -1:]
    chosen = objects & (object_priorities >= last_chosen)
    preference = tf.where(objects, _SPARE_OBJECT, 0.0)
    preference = tf.where(background, _BACKGROUND, preference)
    preference = tf.where(chosen, _CHOSEN_OBJECT, preference)
    sampled = tf.math.top_k(priorities + preference, k=number)
    return sampled.indices, sampled.values >= _SPARE_OBJECT
