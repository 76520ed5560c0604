"""The fusion of UPSNet (Xiong et al., UPSNet: A Unified Panoptic Segmentation Network, 2019)."""

# B images, N instances, h, w grid of the stuff branch, T thing, S stuff categories.

import tensorflow as tf

from oanet_tf.modeling.fusion.fuser import FusionBatch, Panoptic
from oanet_tf.modeling.fusion.stuff import resampled_argmax

# Mask probabilities are kept so far from 0 and 1, for finite logits.
_EPSILON = 1e-6


def upsnet(batch: FusionBatch) -> Panoptic:
  """Each pixel goes to the largest of the stuff, the unknown and the instances' logits.

  Section 3.3: within its box an instance's logit is its mask's plus the stuff branch's of its
  category, outside of it 0. The unknown class has the stuff branch's largest thing logit less the
  largest that an instance brought in; what is unknown becomes void. Masks are not pruned before.
  """
  num_things, num_stuff = batch.fuser.num_things, batch.fuser.num_stuff
  things, stuff = tf.split(batch.outputs['stuff_logits'], [num_things, num_stuff], axis=-1)
  masks, brought_in = _instance_logits(batch, things)
  unknown = tf.reduce_max(things, axis=-1, keepdims=True) - brought_in
  logits = tf.concat([stuff, unknown, masks], axis=-1)
  winner = resampled_argmax(logits, batch.canvas, batch.fuser.stuff_stride)
  instance_mask = tf.maximum(winner - num_stuff, 0) * batch.inside
  is_stuff = tf.cast(winner < num_stuff, tf.int32) * batch.inside
  return batch.panoptic(instance_mask, (1 + num_things + winner) * is_stuff)


def _instance_logits(batch: FusionBatch, things: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
  """Logits of the kept instances on the grid.

  Args:
    batch: of images.
    things: [B, h, w, T] logits of the stuff branch.

  Returns:
    [B, h, w, N], the instances' logits, and [B, h, w, 1], the largest that the stuff branch gives
    to the category of an instance there; 0 if no instance is kept.
  """
  instances, stride = batch.instances, batch.fuser.stuff_stride
  probabilities = tf.clip_by_value(instances.masks, _EPSILON, 1.0 - _EPSILON)
  logits = tf.math.log(probabilities) - tf.math.log1p(-probabilities)
  masks = instances.paste(logits, stride)
  boxes = tf.round(instances.paste(tf.ones_like(probabilities), stride))
  classes = tf.one_hot(instances.classes - 1, batch.fuser.num_things)
  semantic = tf.einsum('bhwt,bnt->bnhw', things, classes) * boxes
  kept = instances.kept[..., None, None]
  lowest = things.dtype.min
  brought_in = tf.reduce_max(tf.where(kept, semantic, lowest), axis=1)
  brought_in = tf.where(tf.reduce_any(kept, axis=1), brought_in, 0.0)
  masks = tf.where(kept, masks + semantic, lowest)
  return tf.transpose(masks, [0, 2, 3, 1]), brought_in[..., None]
