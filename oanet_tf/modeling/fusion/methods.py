"""The fusions: detections and stuff logits -> one panoptic map at the image's own size.

To add a fusion, write a function of a batch and add it to `FUSIONS`, and its name to
`config.values.FUSIONS`, which the command lines read.
"""

# B images, N instances.

from collections.abc import Callable

import tensorflow as tf

from oanet_tf.data import geometry
from oanet_tf.modeling.fusion import order
from oanet_tf.modeling.fusion.fuser import FusionBatch, Panoptic, inside
from oanet_tf.modeling.fusion.merge import merge_instances, merge_order
from oanet_tf.modeling.fusion.upsnet import upsnet


def fuse(batch: FusionBatch, method: str) -> Panoptic:
  """The panoptic maps of a batch, void outside the images.

  Args:
    batch: of `Fuser.batch`.
    method: a key of `FUSIONS`.
  """
  return FUSIONS[method](batch)


def ordered_by(score: Callable[[FusionBatch], tf.Tensor]) -> Callable[[FusionBatch], Panoptic]:
  """The fusion that pastes instances over stuff, the one with the highest score on top.

  Args:
    score: batch -> [B, N] float.
  """

  def fusion(batch: FusionBatch) -> Panoptic:
    instances, settings = batch.instances, batch.fuser.settings
    merged = merge_instances(
      instances.masks,
      geometry.boxes_to_original(instances.boxes, batch.canvas.image_info),
      merge_order(score(batch), instances.kept),
      instances.kept,
      batch.merge_canvas,
      mask_threshold=settings.mask_threshold,
      overlap_threshold=settings.overlap_threshold,
      rules=batch.fuser.rules,
    )
    if batch.fuser.rules.merges_padding:
      merged = merged[:, : batch.canvas.height, : batch.canvas.width] * inside(batch.canvas)
    # One after the other, so that the memory of one is free for the other.
    with tf.control_dependencies([merged]):
      stuff = batch.stuff
    return batch.panoptic(merged, stuff)

  return fusion


FUSIONS: dict[str, Callable[[FusionBatch], Panoptic]] = {
  'srm': ordered_by(order.ranking_scores),
  'heuristic': ordered_by(order.detection_scores),
  'class_prior': ordered_by(order.class_prior_scores),
  'pairwise': ordered_by(order.pairwise_scores),
  'upsnet': upsnet,
  'oracle': ordered_by(order.true_scores),
}
