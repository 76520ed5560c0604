"""The pairs that the occlusion head is trained on, and which of each lies on top."""

# B images, N instances, M objects, K pairs, h, w canvas.

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import tensorflow as tf

from oanet_tf.data.anchor_targets import within_crowd
from oanet_tf.modeling.fusion.instances import Instances, flat
from oanet_tf.modeling.fusion.true_order import matched_segments, won_pixels
from oanet_tf.modeling.occlusion_head import Pairs, Views, largest_pairs, views_of

# The target in slots without a pair.
NO_PAIR = -1.0


class TrainingPairs(NamedTuple):
  """Pairs with their targets.

  Attributes:
    views: of the pairs.
    targets: [B, K] float32 in [0, 1], the fraction of the pixels of two instances' conflict that
      the first one has; `NO_PAIR` in empty slots.
  """

  views: Views
  targets: tf.Tensor


def true_pairs(
  masks: tf.Tensor, labels: Mapping[str, tf.Tensor], number: int, side: int
) -> TrainingPairs:
  """The pairs of annotated objects that conflict most.

  Args:
    masks: [B, M, h, w] float32 in {0, 1}, the objects on the canvas.
    labels: examples of `data.preprocess.training_steps`.
    number: K, at most.
    side: of the views.
  """
  segments = _at_cells(labels['segment_map'], masks)
  won = won_pixels(flat(masks), labels['gt_segments'], segments)
  pairs = _conflicting(won, number)
  of_objects = (labels[f'gt_{name}'] for name in ('boxes', 'masks', 'classes'))
  return TrainingPairs(views_of(pairs, *of_objects, side), _targets(pairs, won))


def detected_pairs(
  detections: Instances, labels: Mapping[str, tf.Tensor], number: int, side: int
) -> TrainingPairs:
  """The pairs of detections that conflict most.

  A detection stands for the annotated segment of its category that it covers most of. One that
  covers none is wrong, and so belongs below others; unless it lies in a crowd, whose objects are
  not annotated.

  Args:
    detections: as the fusion is to see them.
    labels: examples of `data.preprocess.training_steps`.
    number: K, at most.
    side: of the views.
  """
  segments = _at_cells(labels['segment_map'], detections.canvas_masks)
  masks, classes = detections.flat_masks, detections.classes
  objects = labels['gt_segments'], labels['gt_classes']
  own = matched_segments(masks, classes, segments, *objects)
  unknown = (own == 0) & within_crowd(detections.boxes, labels['crowd_boxes'])
  won = won_pixels(masks * tf.cast(~unknown, masks.dtype)[..., None], own, segments)
  pairs = _conflicting(won, number)
  views = views_of(pairs, detections.boxes, detections.binary_masks, classes, side)
  return TrainingPairs(views, _targets(pairs, won))


def joined(parts: Sequence[TrainingPairs]) -> TrainingPairs:
  """All pairs of an image, one after the other."""
  return tf.nest.map_structure(lambda *values: tf.concat(values, axis=1), *parts)


def _at_cells(segment_map: tf.Tensor, masks: tf.Tensor) -> tf.Tensor:
  """[B, H, W] segments, at a multiple of the canvas's resolution -> [B, h * w], at its cells."""
  step = tf.shape(segment_map)[1] // tf.shape(masks)[2]
  segments = segment_map[:, step // 2 :: step, step // 2 :: step]
  return tf.reshape(segments, [tf.shape(masks)[0], -1])


def _conflicting(won: tf.Tensor, number: int) -> Pairs:
  return largest_pairs(won + tf.transpose(won, [0, 2, 1]), number)


def _targets(pairs: Pairs, won: tf.Tensor) -> tf.Tensor:
  number = won.shape[1]
  of_all = tf.reshape(won, [-1, number * number])
  of_first, of_second = (
    tf.gather(of_all, one * number + other, batch_dims=1)
    for one, other in ((pairs.first, pairs.second), (pairs.second, pairs.first))
  )
  return tf.where(pairs.exists, tf.math.divide_no_nan(of_first, of_first + of_second), NO_PAIR)
