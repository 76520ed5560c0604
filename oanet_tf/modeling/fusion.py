"""Instances + stuff logits -> one panoptic map at the image's own size, in one of several ways.

A new fusion is a function of a scene and an entry in `FUSIONS` (and in
`config_values.FUSIONS`, which the command lines read).
"""

# B images, N instances, H, W canvas.

from collections.abc import Callable

import tensorflow as tf

from oanet_tf.modeling import instance_order
from oanet_tf.modeling.merge import merge_instances, merge_order
from oanet_tf.modeling.scene import Panoptic, Scene, boxes_in_original, with_stuff
from oanet_tf.modeling.upsnet import upsnet

Fusion = Callable[[Scene], Panoptic]


def fuse(scene: Scene, method: str) -> Panoptic:
  """The panoptic maps of a scene; void outside of an image.

  Args:
    scene: of `make_scene`.
    method: a key of `FUSIONS`.
  """
  return FUSIONS[method](scene)


def ordered_by(score: Callable[[Scene], tf.Tensor]) -> Fusion:
  """The fusion that lays instances in the order of a score, the highest on top, over stuff.

  Args:
    score: scene -> [B, N] float.
  """

  def fusion(scene: Scene) -> Panoptic:
    instance_mask = merge_instances(
      scene.outputs['detection_masks'],
      boxes_in_original(scene.outputs['detection_boxes'], scene.image_info),
      merge_order(score(scene), scene.kept),
      scene.kept,
      scene.image_info[:, 0],
      scene.height,
      scene.width,
      mask_threshold=scene.settings.mask_threshold,
      overlap_threshold=scene.settings.overlap_threshold,
    )
    return with_stuff(scene, instance_mask, scene.stuff)

  return fusion


FUSIONS: dict[str, Fusion] = {
  'srm': ordered_by(instance_order.ranking_score),
  'heuristic': ordered_by(instance_order.detection_score),
  'class_prior': ordered_by(instance_order.class_prior_score),
  'upsnet': upsnet,
  'oracle': ordered_by(instance_order.true_score),
}
