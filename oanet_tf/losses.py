"""The losses of Eq. 1: pure functions of predictions and labels.

Under a strategy each is the replica's share, scaled so that the mean over replicas is the loss of
the whole batch.
"""

# B images, h, w map, T thing and S stuff categories.

import tensorflow as tf
from official.vision.losses import maskrcnn_losses

from oanet_tf.config import Losses


def oanet_losses(
  outputs: dict[str, tf.Tensor],
  labels: dict[str, tf.Tensor],
  settings: Losses,
  *,
  num_things: int,
  object_context: bool,
  rpn_batch_size_per_im: int,
) -> dict[str, tf.Tensor]:
  """All losses of one batch, without weight decay.

  Args:
    outputs: of `OANet` in training.
    labels: `data.preprocess.training_steps`' examples.
    settings: weights and Huber deltas.
    num_things: T.
    object_context: whether the stuff branch is supervised with things too.
    rpn_batch_size_per_im: sampled anchors of an image.

  Returns:
    Scalars: `loss_rpn_class`, `loss_rpn_box`, `loss_class`, `loss_box`, `loss_mask`, `loss_stuff`
    (before λ), `loss_srm`, and `loss`, their weighted sum.
  """
  losses = instance_losses(outputs, settings, rpn_batch_size_per_im)
  losses['loss_stuff'] = stuff_loss(
    outputs['stuff_logits'], labels['category_labels'], num_things, object_context
  )
  losses['loss_srm'] = srm_loss(
    outputs['ranking_logits'], outputs['instance_tensor'], labels['category_labels']
  )
  weights = {'loss_stuff': settings.stuff_weight}
  losses['loss'] = tf.add_n([weights.get(name, 1.0) * loss for name, loss in losses.items()])
  return losses


def instance_losses(
  outputs: dict[str, tf.Tensor], settings: Losses, rpn_batch_size_per_im: int
) -> dict[str, tf.Tensor]:
  """The five losses of Mask R-CNN, as `official.vision.tasks.maskrcnn.MaskRCNNTask`."""
  outputs = tf.nest.map_structure(
    lambda value: tf.cast(value, tf.float32) if value.dtype.is_floating else value, outputs
  )
  rpn_class = maskrcnn_losses.RpnScoreLoss(rpn_batch_size_per_im)
  rpn_box = maskrcnn_losses.RpnBoxLoss(settings.rpn_huber_loss_delta)
  box_class = maskrcnn_losses.FastrcnnClassLoss()
  box = maskrcnn_losses.FastrcnnBoxLoss(settings.frcnn_huber_loss_delta)
  mask = maskrcnn_losses.MaskrcnnLoss()
  return {
    'loss_rpn_class': rpn_class(outputs['rpn_scores'], outputs['rpn_score_targets']),
    'loss_rpn_box': rpn_box(outputs['rpn_boxes'], outputs['rpn_box_targets']),
    'loss_class': box_class(outputs['class_outputs'], outputs['class_targets']),
    'loss_box': box(outputs['box_outputs'], outputs['class_targets'], outputs['box_targets']),
    'loss_mask': mask(
      outputs['mask_outputs'], outputs['mask_targets'], outputs['mask_class_targets']
    ),
  }


def stuff_loss(
  logits: tf.Tensor, labels: tf.Tensor, num_things: int, object_context: bool
) -> tf.Tensor:
  """Cross-entropy of the stuff branch over the pixels that it is supervised on.

  Args:
    logits: [B, h, w, T + S], or [B, h, w, S] without object context; resampled to the labels' size
      where that differs.
    labels: [B, H, W] int32 in [0, T + S]; void is ignored, and so are things without object
      context.
    num_things: T.
    object_context: whether things are supervised.

  Returns:
    The mean over supervised pixels of all replicas; 0 if there is none.
  """
  if logits.shape[1:3] != labels.shape[1:3]:
    logits = tf.image.resize(logits, labels.shape[1:3])
  targets = labels - (1 if object_context else num_things + 1)
  return _mean_cross_entropy(logits, targets, targets >= 0)


def srm_loss(logits: tf.Tensor, instances: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
  """Cross-entropy of the ranking map on the pixels where categories conflict (Eq. 2).

  A pixel counts where instances of two or more categories lie and its label is one of these
  (section 4.2: "we set the non-conflicting pixels ignored").

  Args:
    logits: [B, h, w, T].
    instances: [B, h, w, T] in {0, 1}, the instance tensor.
    labels: [B, H, W] int32 non-overlapping category labels, H a multiple of h.

  Returns:
    The mean over these pixels of all replicas; 0 if there is none.
  """
  step = labels.shape[1] // logits.shape[1]
  targets = labels[:, step // 2 :: step, step // 2 :: step] - 1
  active = tf.reduce_sum(instances * tf.one_hot(targets, instances.shape[-1]), axis=-1)
  conflict = (tf.reduce_sum(instances, axis=-1) >= 2.0) & (active > 0.0)
  return _mean_cross_entropy(logits, targets, conflict)


def _mean_cross_entropy(logits: tf.Tensor, targets: tf.Tensor, counted: tf.Tensor) -> tf.Tensor:
  """Mean over the counted pixels of all replicas; the mean over replicas of the result is it."""
  losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
    labels=tf.where(counted, targets, 0), logits=tf.cast(logits, tf.float32)
  )
  counted = tf.cast(counted, tf.float32)
  count = tf.distribute.get_replica_context().all_reduce(
    tf.distribute.ReduceOp.MEAN, tf.reduce_sum(counted)
  )
  return tf.math.divide_no_nan(tf.reduce_sum(losses * counted), count)
