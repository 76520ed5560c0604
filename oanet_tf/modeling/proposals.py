"""The region proposals: the boxes of the RPN that the second stage looks at."""

# B images, N anchors of a level, K kept of them, P proposals.

from collections.abc import Mapping
from typing import NamedTuple

import tensorflow as tf
from official.vision.configs import maskrcnn
from official.vision.ops import box_ops

ByLevel = Mapping[str, tf.Tensor]


class Limits(NamedTuple):
  """Which boxes become proposals; the meaning is that of `maskrcnn.ROIGenerator`."""

  pre_nms_top_k: int
  score_threshold: float
  min_size: float
  iou_threshold: float
  num_proposals: int

  @classmethod
  def of(cls, settings: maskrcnn.ROIGenerator, training: bool) -> 'Limits':
    """Those for training or for inference."""
    values = settings.as_dict()
    prefix = '' if training else 'test_'
    limits = cls(
      *(
        values[prefix + name]
        for name in (
          'pre_nms_top_k', 'pre_nms_score_threshold', 'pre_nms_min_size_threshold',
          'nms_iou_threshold', 'num_proposals',
        )
      )
    )  # fmt: skip
    # In the Model Garden, 0 means no suppression.
    return limits._replace(iou_threshold=limits.iou_threshold or 1.0)


class ROIGenerator:
  """Chooses the proposals, as the Model Garden's `MultilevelROIGenerator` without batched NMS.

  The boxes with the best scores of each level are taken first, and only they are decoded and
  compared. Non-maximum suppression has no GPU kernel, and takes three times as long for all 201,600
  boxes of a large image's finest level. Boxes without area, outside the image, are dropped.
  """

  def __init__(self, settings: maskrcnn.ROIGenerator):
    self._settings = settings

  def __call__(
    self,
    raw_boxes: ByLevel,
    raw_scores: ByLevel,
    anchors: ByLevel,
    image_shape: tf.Tensor,
    training: bool,
  ) -> tf.Tensor:
    """The proposals of a batch.

    Args:
      raw_boxes, raw_scores: of the RPN head, [B, h, w, 4 A] and [B, h, w, A] by level.
      anchors: [h, w, 4 A] by level.
      image_shape: [B, 2] float32, [height, width] of the images within the network input.
      training: whether the settings for training or for inference hold.

    Returns:
      [B, P, 4] float32 in pixels of the network input, the best first, padded with 0.
    """
    limits = Limits.of(self._settings, training)
    best = [
      _best(raw_boxes[level], raw_scores[level], anchors[level], limits.pre_nms_top_k)
      for level in sorted(raw_scores, key=int)
    ]
    # All levels are decoded together, in one graph instead of one for each. A level is a class, so
    # that boxes of different levels do not suppress each other.
    best = _Best(
      *(
        tf.stack([_padded(part, limits.pre_nms_top_k) for part in parts], axis=2)
        for parts in zip(*best, strict=True)
      )
    )
    boxes, scores = _decoded(best, image_shape[:, None, None], limits)
    kept = tf.image.combined_non_max_suppression(
      boxes,
      scores,
      max_output_size_per_class=min(limits.pre_nms_top_k, limits.num_proposals),
      max_total_size=limits.num_proposals,
      iou_threshold=limits.iou_threshold,
      score_threshold=limits.score_threshold,
      clip_boxes=False,
    )
    return kept.nmsed_boxes


def best_boxes(
  raw_boxes: tf.Tensor,
  raw_scores: tf.Tensor,
  anchors: tf.Tensor,
  image_shape: tf.Tensor,
  limits: Limits,
) -> tuple[tf.Tensor, tf.Tensor]:
  """The boxes of one level with the best scores, decoded and clipped to the image.

  Args:
    raw_boxes, raw_scores: of the RPN head, [B, h, w, 4 A] and [B, h, w, A].
    anchors: [h, w, 4 A].
    image_shape: [B, 2] float32.
    limits: give the number K of boxes, and their least size.

  Returns:
    [B, K, 4] boxes and [B, K] scores, descending; K is less than `pre_nms_top_k` where there are
    fewer anchors. Boxes that are too small or outside the image are 0 and have the
    score 0.
  """
  best = _best(raw_boxes, raw_scores, anchors, limits.pre_nms_top_k)
  return _decoded(best, image_shape[:, None], limits)


class _Best(NamedTuple):
  """Boxes with the best scores, [B, K, …] scores, [B, K, …, 4] offsets and anchors."""

  scores: tf.Tensor
  offsets: tf.Tensor
  anchors: tf.Tensor


def _best(raw_boxes: tf.Tensor, raw_scores: tf.Tensor, anchors: tf.Tensor, most: int) -> _Best:
  """The best `most` boxes of one level, or all if there are fewer."""
  count = raw_scores.shape[1:].num_elements()
  if count:  # TFLite needs a static number.
    scores, offsets = tf.reshape(raw_scores, [-1, count]), tf.reshape(raw_boxes, [-1, count, 4])
    number = min(count, most)
  else:
    images = tf.shape(raw_scores)[0]
    scores, offsets = (
      tf.reshape(raw, [images, -1, *last]) for raw, last in ((raw_scores, []), (raw_boxes, [4]))
    )
    number = tf.minimum(tf.shape(scores)[1], most)
  scores, indices = tf.math.top_k(scores, number)
  return _Best(
    tf.sigmoid(scores),
    tf.gather(offsets, indices, batch_dims=1),
    tf.gather(tf.reshape(anchors, [-1, 4]), indices),
  )


def _decoded(best: _Best, image_shape: tf.Tensor, limits: Limits) -> tuple[tf.Tensor, tf.Tensor]:
  """Boxes and scores of `best_boxes`; the image's shape is [B, …, 2] with as many axes."""
  boxes = box_ops.clip_boxes(_decode(best.offsets, best.anchors), image_shape)
  return box_ops.filter_boxes(boxes, best.scores, image_shape, limits.min_size)


def _decode(offsets: tf.Tensor, anchors: tf.Tensor) -> tf.Tensor:
  """[..., 4] offsets and anchors -> boxes, as the Model Garden's `decode_boxes`.

  That adds up three terms, whose order TensorFlow changes where it knows all shapes; exported
  graphs then give other last digits.
  """
  size = anchors[..., 2:] - anchors[..., :2]
  centre = offsets[..., :2] * size + 0.5 * (anchors[..., :2] + anchors[..., 2:])
  half = 0.5 * tf.exp(tf.minimum(offsets[..., 2:], box_ops.BBOX_XFORM_CLIP)) * size
  return tf.concat([centre - half, centre + half], axis=-1)


def _padded(values: tf.Tensor, number: int) -> tf.Tensor:
  """[B, K, …] -> [B, number, …], padded with 0, which is the score of no proposal."""
  if values.shape[1] == number:
    return values
  missing = number - (values.shape[1] or tf.shape(values)[1])
  padded = tf.pad(values, [[0, 0], [0, missing]] + [[0, 0]] * (values.shape.rank - 2))
  return tf.ensure_shape(padded, [values.shape[0], number, *values.shape[2:]])
