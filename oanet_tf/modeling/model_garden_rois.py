"""The Model Garden's own layers for regions of interest, with the interface of the other ones.

They give its results to the last digit, but take longer, and need images of one size.
"""

# B images, A anchors at a cell, K boxes of a level.

import tensorflow as tf
from official.vision.configs import maskrcnn
from official.vision.modeling.layers import roi_generator
from official.vision.ops import box_ops

from oanet_tf.modeling.proposals import ByLevel, Limits


class ModelGardenROIGenerator:
  """`MultilevelROIGenerator`; arguments and result are those of `proposals.ROIGenerator`."""

  def __init__(self, settings: maskrcnn.ROIGenerator):
    self._generate = roi_generator.MultilevelROIGenerator(**settings.as_dict())

  def __call__(
    self,
    raw_boxes: ByLevel,
    raw_scores: ByLevel,
    anchors: ByLevel,
    image_shape: tf.Tensor,
    training: bool,
  ) -> tf.Tensor:
    images = tf.shape(image_shape)[0]
    repeated = {level: tf.repeat(boxes[None], images, axis=0) for level, boxes in anchors.items()}
    boxes, _ = self._generate(raw_boxes, raw_scores, repeated, image_shape, training=training)
    return boxes


def best_boxes(
  raw_boxes: tf.Tensor,
  raw_scores: tf.Tensor,
  anchors: tf.Tensor,
  image_shape: tf.Tensor,
  limits: Limits,
) -> tuple[tf.Tensor, tf.Tensor]:
  """What `MultilevelROIGenerator` compares of one level, for images of one size.

  In contrast to `proposals.best_boxes`, these are the boxes of the greatest probability, of which
  many are equal in float32 where logits are not. Boxes without area are kept, and so are those of
  probability 0. Only a box at the origin is dropped, since its suppression takes it for padding.

  Args:
    raw_boxes, raw_scores, anchors, image_shape, limits: of `proposals.best_boxes`.

  Returns:
    [B, K, 4] boxes and [B, K] scores, descending; -1 for a dropped box.
  """
  number = raw_scores.shape[1:].num_elements()
  probabilities = tf.sigmoid(tf.reshape(raw_scores, [-1, number]))
  scores, indices = tf.math.top_k(probabilities, min(number, limits.pre_nms_top_k))
  offsets = tf.gather(tf.reshape(raw_boxes, [-1, number, 4]), indices, batch_dims=1)
  boxes = box_ops.decode_boxes(offsets, tf.gather(tf.reshape(anchors, [-1, 4]), indices))
  boxes = box_ops.clip_boxes(boxes, image_shape[:, None])
  return boxes, tf.where(tf.reduce_any(boxes > 0.0, axis=-1), scores, -1.0)
