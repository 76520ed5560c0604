"""The fusion of UPSNet (Xiong et al., UPSNet: A Unified Panoptic Segmentation Network, 2019)."""

# B images, N instances, h, w grid of the stuff branch, T thing, S stuff categories.

import tensorflow as tf

from oanet_tf.data.geometry import Canvas
from oanet_tf.modeling.fusion.fuser import FusionBatch, Panoptic, inside
from oanet_tf.modeling.fusion.strips import MAP
from oanet_tf.modeling.fusion.stuff import resampled_argmax

# Keeps mask probabilities away from 0 and 1, so that logits are finite.
_EPSILON = 1e-6


def upsnet(batch: FusionBatch) -> Panoptic:
  """Gives each pixel to the largest of the stuff, unknown and instance logits (section 3.3).

  Within its box, an instance's logit is the sum of its mask's and the stuff branch's for its
  category; outside it is 0. The unknown class has the stuff branch's largest thing logit minus the
  largest that an instance used, and becomes void. Masks are not pruned first.
  """
  channels, logits = batch.fuser.stuff_channels, batch.outputs['stuff_logits']
  resampling = batch.fuser.rules.resampling
  num_things, num_stuff = channels.num_things, channels.stuff
  things, stuff = channels.thing_logits(logits), channels.stuff_logits(logits)
  masks, used = _instance_logits(batch, things)
  unknown = tf.reduce_max(things, axis=-1, keepdims=True) - used
  logits = tf.concat([stuff, unknown, masks], axis=-1)

  def of_strip(strip: Canvas) -> tuple[tf.Tensor, tf.Tensor]:
    winner = resampled_argmax(logits, strip, batch.fuser.stuff_stride, resampling)
    is_stuff = tf.cast(winner < num_stuff, tf.int32)
    stuff = (1 + num_things + winner) * is_stuff
    return tf.maximum(winner - num_stuff, 0) * inside(strip), stuff * inside(strip)

  return batch.panoptic(*batch.by_strips(of_strip, (MAP, MAP)))


def _instance_logits(batch: FusionBatch, things: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
  """[B, h, w, N] instance logits, and the largest thing logit [B, h, w, 1] that they used.

  Both come from the thing logits [B, h, w, T] of the stuff branch. The second is 0 where no
  instance is kept.
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
  used = tf.reduce_max(tf.where(kept, semantic, lowest), axis=1)
  used = tf.where(tf.reduce_any(kept, axis=1), used, 0.0)
  masks = tf.where(kept, masks + semantic, lowest)
  return tf.transpose(masks, [0, 2, 3, 1]), used[..., None]
