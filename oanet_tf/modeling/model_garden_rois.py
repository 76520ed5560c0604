"""The Model Garden's own layers for regions of interest, with the interface of the other ones.

They give its results to the last digit, but take longer, and need images of one size.
"""

# B images, A anchors at a cell, P proposals.

import tensorflow as tf
from official.vision.configs import maskrcnn
from official.vision.modeling.layers import roi_generator

from oanet_tf.modeling.proposals import ByLevel


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
