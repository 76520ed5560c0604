"""The fusion of UPSNet (Xiong et al., UPSNet: A Unified Panoptic Segmentation Network, 2019)."""

# B images, N instances, H, W canvas, h, w grid of the stuff branch, T thing, S stuff categories.

import tensorflow as tf

from oanet_tf.modeling.scene import Panoptic, Scene, paste_at_stride, with_stuff, within_image
from oanet_tf.modeling.stuff_map import resampled_argmax

# Masks' probabilities are kept so far from 0 and 1, for finite logits.
_EPSILON = 1e-6


def upsnet(scene: Scene) -> Panoptic:
  """Each pixel goes to the largest of the stuff, the unknown and the instances' logits.

  Section 3.3: within its box an instance's logit is its mask's plus the stuff branch's of its
  category, outside of it 0; the unknown class has the stuff branch's largest thing logit less the
  largest that an instance brought in. What is unknown becomes void. Masks are not pruned before.
  """
  logits = scene.outputs['stuff_logits']
  things, stuff = tf.split(logits, [scene.num_things, scene.num_stuff], axis=-1)
  masks, brought_in = _instance_logits(scene, things)
  unknown = tf.reduce_max(things, axis=-1, keepdims=True) - brought_in
  winner = resampled_argmax(
    tf.concat([stuff, unknown, masks], axis=-1),
    scene.image_info,
    scene.height,
    scene.width,
    scene.stuff_stride,
  )
  inside = within_image(scene.image_info, scene.height, scene.width)
  instance_mask = tf.maximum(winner - scene.num_stuff, 0) * inside
  is_stuff = tf.cast(winner < scene.num_stuff, tf.int32) * inside
  return with_stuff(scene, instance_mask, (1 + scene.num_things + winner) * is_stuff)


def _instance_logits(scene: Scene, things: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
  """Of the kept instances, on the grid.

  Args:
    scene: the batch.
    things: [B, h, w, T] logits of the stuff branch.

  Returns:
    [B, h, w, N], the instances' logits, and [B, h, w, 1], the largest that the stuff branch gives
    to the category of an instance there; 0 if no instance is kept.
  """
  probabilities = tf.clip_by_value(scene.outputs['detection_masks'], _EPSILON, 1.0 - _EPSILON)
  logits = tf.math.log(probabilities) - tf.math.log1p(-probabilities)
  masks = paste_at_stride(scene, logits, scene.stuff_stride)
  boxes = tf.round(paste_at_stride(scene, tf.ones_like(probabilities), scene.stuff_stride))
  classes = tf.one_hot(scene.outputs['detection_classes'] - 1, scene.num_things)
  semantic = tf.einsum('bhwt,bnt->bnhw', things, classes) * boxes
  kept = scene.kept[..., None, None]
  lowest = things.dtype.min
  brought_in = tf.reduce_max(tf.where(kept, semantic, lowest), axis=1)
  brought_in = tf.where(tf.reduce_any(kept, axis=1), brought_in, 0.0)
  masks = tf.where(kept, masks + semantic, lowest)
  return tf.transpose(masks, [0, 2, 3, 1]), brought_in[..., None]
