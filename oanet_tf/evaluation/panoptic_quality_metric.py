"""Panoptic quality as a Keras metric: the same numbers as `panoptic_quality`, in graph ops.

Every image becomes a table of how many pixels each pair of segments shares; what `panoptic_quality`
does with lists of pairs is here done with whole tables.
"""

# B images, H, W canvas, K listed truth segments, N instances, L = 1 + T + S labels.
# P = N + L slots for predicted segments: 0 void, 1…N instances, N + label stuff.

from collections.abc import Mapping

import numpy as np
import tensorflow as tf
import tf_keras

from oanet_tf.data.categories import VOID_LABEL, PanopticCategories
from oanet_tf.modeling.fusion import Panoptic


class PanopticQualityMetric(tf_keras.metrics.Metric):
  """Panoptic quality over batches, on one device or many.

  Replicas gather apart; what is read outside of `strategy.run` is their sum.

  Attributes:
    statistics: [L, 4] float64 variable, that of `panoptic_quality.PanopticQuality`, whose
      `summarize` makes panopticapi's result of it.
  """

  def __init__(
    self, categories: PanopticCategories, max_instances: int, name: str = 'panoptic_quality'
  ):
    """Makes the variable; to be called in the strategy's scope.

    Args:
      categories: of truth and predictions.
      max_instances: N, the highest instance number of a prediction: detections of an image.
      name: of the metric.
    """
    super().__init__(name=name, dtype=tf.float64)
    self._label_of_id = tf.constant(categories.label_of_id_table())
    self._num_labels = categories.num_labels
    self._num_things = categories.num_things
    self._max_instances = max_instances
    self.statistics = self.add_weight(
      'statistics', shape=[self._num_labels, 4], initializer='zeros', dtype=tf.float64
    )

  def update_state(
    self,
    truth: Mapping[str, tf.Tensor],
    prediction: Panoptic,
    sample_weight: tf.Tensor | None = None,
  ) -> None:
    """Adds a batch.

    Args:
      truth: a batch of `input_pipeline.evaluation_input`: `segment_index` [B, H, W] int32,
        `segment_ids`, `segment_category_ids` [B, K] int32, `segment_is_crowd` [B, K] bool, all
        padded with 0; other keys are not read.
      prediction: of `fusion.fuse`, on the same canvas.
      sample_weight: [B], 0 for an image that is not to count (a repeated one); default: 1.

    Raises:
      tf.errors.InvalidArgumentError: if the canvases differ, an instance number is over N, or a
        category is unknown.
    """
    truth_labels = self._truth_labels(truth)
    prediction_labels, segments = self._predicted_segments(prediction)
    overlaps = count_overlaps(
      truth['segment_index'],
      segments,
      tf.shape(truth_labels)[1],
      self._max_instances + self._num_labels,
    )
    is_crowd = tf.pad(tf.cast(truth['segment_is_crowd'], tf.bool), [[0, 0], [1, 0]])
    statistics = image_statistics(
      overlaps, truth_labels, prediction_labels, is_crowd, self._num_labels
    )
    if sample_weight is not None:
      statistics *= tf.cast(sample_weight, tf.float64)[:, None, None]
    self.statistics.assign_add(tf.reduce_sum(statistics, axis=0))

  def reset_state(self) -> None:
    """Forgets all images."""
    tf_keras.backend.set_value(self.statistics, np.zeros([self._num_labels, 4]))

  def result(self) -> dict[str, tf.Tensor]:
    """{'pq_all', 'sq_all', 'rq_all', 'pq_things', …, 'rq_stuff': [] float64 in [0, 1]}."""
    iou_sum, true_positives, false_positives, false_negatives = tf.unstack(self.statistics, axis=1)
    segments = true_positives + 0.5 * (false_positives + false_negatives)
    scores = {
      'pq': tf.math.divide_no_nan(iou_sum, segments),
      'sq': tf.math.divide_no_nan(iou_sum, true_positives),
      'rq': tf.math.divide_no_nan(true_positives, segments),
    }
    is_thing = tf.range(self._num_labels) <= self._num_things
    groups = {
      'all': segments > 0,
      'things': (segments > 0) & is_thing,
      'stuff': (segments > 0) & ~is_thing,
    }
    return {
      f'{key}_{group}': _mean_where(score, chosen)
      for group, chosen in groups.items()
      for key, score in scores.items()
    }

  def _truth_labels(self, truth: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """[B, 1 + K] int32; 0 for void and for padding."""
    ids = truth['segment_category_ids']
    known = (ids >= 0) & (ids < tf.size(self._label_of_id))
    labels = tf.gather(self._label_of_id, tf.where(known, ids, 0))
    fits = (labels != VOID_LABEL) | (truth['segment_ids'] == 0)
    message = 'truth has a category id that is not in the categories'
    tf.debugging.Assert(tf.reduce_all(fits), [message, ids])
    return tf.pad(labels, [[0, 0], [1, 0]])

  def _predicted_segments(self, prediction: Panoptic) -> tuple[tf.Tensor, tf.Tensor]:
    """[B, P] int32 labels of the slots, and [B, H, W] int32 slots of the pixels."""
    categories, instances = prediction
    tf.debugging.assert_less_equal(
      instances, self._max_instances, 'instance_mask has more than max_instances'
    )
    batch, count = tf.shape(instances)[0], self._max_instances + 1
    codes = instances + tf.range(batch)[:, None, None] * count
    # All pixels of an instance are of its category; the highest of none is the lowest integer.
    labels = tf.maximum(tf.math.unsorted_segment_max(categories, codes, batch * count), VOID_LABEL)
    labels = tf.reshape(labels, [batch, count])[:, 1:]
    void = tf.fill([batch, 1], VOID_LABEL)
    others = tf.tile(tf.range(1, self._num_labels)[None], [batch, 1])
    without_instance = tf.where(categories == VOID_LABEL, 0, self._max_instances + categories)
    slots = tf.where(instances > 0, instances, without_instance)
    return tf.concat([void, labels, others], axis=1), slots


def count_overlaps(
  truth: tf.Tensor, prediction: tf.Tensor, num_truth: int | tf.Tensor, num_predicted: int
) -> tf.Tensor:
  """How many pixels each pair of segments shares.

  Args:
    truth: [B, H, W] int32 in [0, num_truth).
    prediction: [B, H, W] int32 in [0, num_predicted).
    num_truth: 1 + K.
    num_predicted: P.

  Returns:
    [B, 1 + K, P] float64, whole numbers.
  """
  tf.debugging.assert_equal(
    tf.shape(truth), tf.shape(prediction), 'truth and prediction differ in size'
  )
  batch = tf.shape(truth)[0]
  codes = (tf.range(batch)[:, None, None] * num_truth + truth) * num_predicted + prediction
  counts = tf.math.unsorted_segment_sum(
    tf.ones_like(codes), codes, batch * num_truth * num_predicted
  )
  return tf.cast(tf.reshape(counts, [batch, num_truth, num_predicted]), tf.float64)


def image_statistics(
  overlaps: tf.Tensor,
  truth_labels: tf.Tensor,
  prediction_labels: tf.Tensor,
  is_crowd: tf.Tensor,
  num_labels: int,
) -> tf.Tensor:
  """What each image adds to `PanopticQuality.statistics`, by the rules of its `update`.

  Args:
    overlaps: [B, 1 + K, P] float64, of `count_overlaps`.
    truth_labels: [B, 1 + K] int32, 0 for what is no segment.
    prediction_labels: [B, P] int32, likewise.
    is_crowd: [B, 1 + K] bool.
    num_labels: L.

  Returns:
    [B, L, 4] float64.
  """
  truth_area = tf.reduce_sum(overlaps, axis=2)
  prediction_area, on_void = tf.reduce_sum(overlaps, axis=1), overlaps[:, 0]
  union = truth_area[:, :, None] + (prediction_area - on_void)[:, None] - overlaps
  iou = tf.math.divide_no_nan(overlaps, union)
  same_label = truth_labels[:, :, None] == prediction_labels[:, None]
  scored = (truth_labels != VOID_LABEL) & ~is_crowd
  matched = same_label & scored[:, :, None] & (iou > 0.5)
  missed = scored & ~tf.reduce_any(matched, axis=2)

  excusing = same_label & _is_last_crowd(truth_labels, is_crowd, num_labels)[:, :, None]
  unscored = on_void + tf.reduce_sum(tf.where(excusing, overlaps, 0.0), axis=1)
  spurious = (prediction_labels != VOID_LABEL) & (prediction_area > 0)
  spurious &= ~tf.reduce_any(matched, axis=1) & (unscored <= 0.5 * prediction_area)

  iou_sum = tf.reduce_sum(tf.where(matched, iou, 0.0), axis=2)
  columns = (
    _per_label(iou_sum, truth_labels, num_labels),
    _per_label(tf.reduce_any(matched, axis=2), truth_labels, num_labels),
    _per_label(spurious, prediction_labels, num_labels),
    _per_label(missed, truth_labels, num_labels),
  )
  return tf.stack(columns, axis=2)


def _is_last_crowd(truth_labels: tf.Tensor, is_crowd: tf.Tensor, num_labels: int) -> tf.Tensor:
  """[B, 1 + K] bool: the last crowd of its label in the list, the one that panopticapi knows."""
  places = tf.where(is_crowd, tf.range(tf.shape(is_crowd)[1])[None], -1)
  codes = _label_codes(truth_labels, num_labels)
  last = tf.math.unsorted_segment_max(places, codes, tf.shape(codes)[0] * num_labels)
  return is_crowd & (tf.gather(last, codes) == places)


def _per_label(values: tf.Tensor, labels: tf.Tensor, num_labels: int) -> tf.Tensor:
  """[B, n] values, summed by [B, n] labels -> [B, L] float64."""
  codes = _label_codes(labels, num_labels)
  batch = tf.shape(codes)[0]
  sums = tf.math.unsorted_segment_sum(tf.cast(values, tf.float64), codes, batch * num_labels)
  return tf.reshape(sums, [batch, num_labels])


def _label_codes(labels: tf.Tensor, num_labels: int) -> tf.Tensor:
  """[B, n] labels -> labels that differ from image to image."""
  return labels + tf.range(tf.shape(labels)[0])[:, None] * num_labels


def _mean_where(values: tf.Tensor, chosen: tf.Tensor) -> tf.Tensor:
  """Mean of the [L] values that are chosen; 0 if none is."""
  weights = tf.cast(chosen, values.dtype)
  return tf.math.divide_no_nan(tf.reduce_sum(values * weights), tf.reduce_sum(weights))
