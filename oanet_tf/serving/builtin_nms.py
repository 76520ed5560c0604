"""Non-maximum suppression with a built-in operation of TFLite.

TFLite has no built-in operation for `tf.image.combined_non_max_suppression`. The Model Garden's
other versions loop over the overlaps of 512 × 512 boxes, which takes longer in LiteRT than the rest
of a small network. These keep the same boxes.
"""

# One image. N boxes, K boxes kept, P proposals or RoIs, T thing categories.

from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf
from official.vision.configs import maskrcnn
from official.vision.modeling.layers import detection_generator

from oanet_tf.config.definitions import OANet as OANetConfig
from oanet_tf.modeling import model_garden_rois
from oanet_tf.modeling.oanet import OANet
from oanet_tf.modeling.proposals import Limits, best_boxes
from oanet_tf.modeling.roi_align import RoIAlign

# All 49,000 of 1,000 RoIs would take 800 MB, which a browser does not give.
_BINS_AT_ONCE = 2**12


def use_builtin_nms(model: OANet, config: OANetConfig) -> None:
  """Replaces parts of a network by ones that TFLite can run, for batches of one image.

  Args:
    model: is changed.
    config: that it was built from.
  """
  limits = Limits.of(config.roi_generator, training=False)
  if config.roi_layers == 'model_garden':
    limits = limits._replace(score_threshold=limits.score_threshold or -1.0)
    model.roi_generator = Proposals(limits, model_garden_rois.best_boxes)
  else:
    model.roi_generator = Proposals(limits, best_boxes)
  model.detection_generator = Detections(config.detection_generator)
  model.all_shapes_static = True
  aligners = [model.roi_aligner, model.mask_roi_aligner]
  if head := model.occlusion_head:
    head.all_shapes_static = True
    aligners.append(head.aligner)
  for aligner in aligners:
    if isinstance(aligner, RoIAlign):
      aligner.bins_at_once = _BINS_AT_ONCE


class Kept(NamedTuple):
  """Kept boxes by descending score.

  Attributes:
    indices: [K] int32, 0 in the padding.
    is_box: [K] bool, false in the padding.
  """

  indices: tf.Tensor
  is_box: tf.Tensor

  def of(self, values: tf.Tensor) -> tf.Tensor:
    """[N, …] -> [K, …], the values of the kept boxes; 0 in the padding."""
    kept = tf.gather(values, self.indices)
    is_box = tf.reshape(self.is_box, [-1] + [1] * (values.shape.rank - 1))
    return tf.where(is_box, kept, tf.zeros_like(kept))


def non_max_suppression(
  boxes: tf.Tensor, scores: tf.Tensor, *, most: int, iou_threshold: float, score_threshold: float
) -> Kept:
  """Drops boxes that overlap a box with a higher score too much.

  Args:
    boxes: [N, 4] float32.
    scores: [N] float32.
    most: K.
    iou_threshold: boxes with a greater overlap are dropped.
    score_threshold: boxes with at most this score are dropped.
  """
  # Of a box without area, TFLite's operation makes copies up to the end. No such box overlaps any.
  has_area = tf.reduce_min(boxes[:, 2:] - boxes[:, :2], axis=1, keepdims=True) > 0.0
  apart = -2.0 * tf.range(1.0, boxes.shape[0] + 1.0)[:, None] + tf.constant([[0.0, 0.0, 1.0, 1.0]])
  indices, number = tf.raw_ops.NonMaxSuppressionV4(
    boxes=tf.where(has_area, boxes, apart),
    scores=scores,
    max_output_size=most,
    iou_threshold=iou_threshold,
    score_threshold=score_threshold,
    pad_to_max_output_size=True,
  )
  indices = tf.ensure_shape(indices, [most])
  return Kept(indices, tf.range(most) < number)


class Proposals:
  """Replaces the generator of proposals in inference.

  Args:
    limits: for inference.
    best_boxes: that of `proposals` or of `model_garden_rois`.
  """

  def __init__(self, limits: Limits, best_boxes: Callable[..., tuple[tf.Tensor, tf.Tensor]]):
    self._limits = limits
    self._best_boxes = best_boxes

  def __call__(
    self,
    raw_boxes: dict[str, tf.Tensor],
    raw_scores: dict[str, tf.Tensor],
    anchors: dict[str, tf.Tensor],
    image_shape: tf.Tensor,
    training: bool,
  ) -> tf.Tensor:
    """The best proposals of all levels.

    Args:
      raw_boxes, raw_scores: of the RPN head, [1, h, w, 4A] and [1, h, w, A] by level.
      anchors: [h, w, 4A] by level.
      image_shape: [1, 2] float32.
      training: must be False.

    Returns:
      [1, P, 4] boxes, 0 in the padding.
    """
    assert not training
    limits = self._limits
    levels = []
    for level in sorted(raw_scores, key=int):
      boxes, scores = self._best_boxes(
        raw_boxes[level], raw_scores[level], anchors[level], image_shape, limits
      )
      kept = non_max_suppression(
        boxes[0],
        scores[0],
        most=min(scores.shape[1], limits.num_proposals),
        iou_threshold=limits.iou_threshold,
        score_threshold=limits.score_threshold,
      )
      # Boxes with a score of 0 come before padding.
      padded = tf.where(kept.is_box, tf.gather(scores[0], kept.indices), -1.0)
      levels.append((kept.of(boxes[0]), padded))
    boxes, scores = (tf.concat(parts, axis=0) for parts in zip(*levels, strict=True))
    best = tf.nn.top_k(scores, min(scores.shape[0], limits.num_proposals)).indices
    return tf.gather(boxes, best)[None]


class Detections:
  """Replaces the Model Garden's `DetectionGenerator`."""

  def __init__(self, settings: maskrcnn.DetectionGenerator):
    self._settings = settings
    self._decode = detection_generator.DetectionGenerator(
      **{**settings.as_dict(), 'apply_nms': False}, dtype='float32'
    )

  def __call__(
    self,
    raw_boxes: tf.Tensor,
    raw_scores: tf.Tensor,
    rois: tf.Tensor,
    image_shape: tf.Tensor,
    weights: Sequence[float],
  ) -> dict[str, tf.Tensor]:
    """The best detections of all categories.

    Args:
      raw_boxes, raw_scores: of the detection head, [1, P, 4 · (1 + T)] and [1, P, 1 + T].
      rois: [1, P, 4].
      image_shape: [1, 2] float32.
      weights: of the encoded boxes.

    Returns:
      As the Model Garden's `DetectionGenerator`: `detection_boxes` [1, K, 4], `detection_scores`
      and `detection_classes` [1, K], padded with 0, 0 and 1, and `num_detections` [1].
    """
    decoded = self._decode(raw_boxes, raw_scores, rois, image_shape, weights)
    boxes, scores = decoded['decoded_boxes'][0], decoded['decoded_box_scores'][0]
    number, num_things = scores.shape
    classes = tf.tile(tf.range(num_things), [number])
    boxes, scores = tf.reshape(boxes, [-1, 4]), tf.reshape(scores, [-1])
    # Moves the categories apart, so that none suppresses another.
    shift = tf.cast(classes, tf.float32) * (tf.reduce_max(image_shape) + 1.0)
    kept = non_max_suppression(
      boxes + shift[:, None],
      scores,
      most=self._settings.max_num_detections,
      iou_threshold=self._settings.nms_iou_threshold,
      score_threshold=self._settings.pre_nms_score_threshold,
    )
    return {
      'detection_boxes': kept.of(boxes)[None],
      'detection_scores': kept.of(scores)[None],
      'detection_classes': 1 + kept.of(classes)[None],
      'num_detections': tf.reduce_sum(tf.cast(kept.is_box, tf.int32))[None],
    }
