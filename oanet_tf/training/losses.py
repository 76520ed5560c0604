"""The losses of Eq. 1, as pure functions of predictions and labels.

Under a strategy, each is one replica's contribution, scaled so that the mean over replicas is the
loss of the whole batch.
"""

# B images, h, w map, T thing and S stuff categories.

import tensorflow as tf
from official.vision.losses import maskrcnn_losses

from oanet_tf.config.definitions import Losses

# Offsets up to this count as 0, as in the Model Garden's `RpnBoxLoss`.
_ZERO = 1e-6
# The losses of the instance branch.
INSTANCE_LOSSES = ('loss_rpn_class', 'loss_rpn_box', 'loss_class', 'loss_box', 'loss_mask')


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
    labels: the examples of `data.preprocess.training_steps`.
    settings: weights and Huber deltas.
    num_things: T.
    object_context: whether the stuff branch is supervised with things too.
    rpn_batch_size_per_im: number of anchors sampled in an image.

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


def srm_only_losses(
  outputs: dict[str, tf.Tensor], labels: dict[str, tf.Tensor]
) -> dict[str, tf.Tensor]:
  """The loss of the spatial ranking module alone, as `loss_srm` and as `loss`."""
  loss = srm_loss(outputs['ranking_logits'], outputs['instance_tensor'], labels['category_labels'])
  return {'loss_srm': loss, 'loss': loss}


def instance_losses(
  outputs: dict[str, tf.Tensor], settings: Losses, rpn_batch_size_per_im: int
) -> dict[str, tf.Tensor]:
  """The five losses of Mask R-CNN, as in `official.vision.tasks.maskrcnn.MaskRCNNTask`.

  Only the means over boxes and masks differ: `official.vision.losses.maskrcnn_losses` adds 0.01 to
  each replica's count, so the loss depends on the number of replicas. Here they are exact.
  """
  outputs = tf.nest.map_structure(
    lambda value: tf.cast(value, tf.float32) if value.dtype.is_floating else value, outputs
  )
  rpn_class = maskrcnn_losses.RpnScoreLoss(rpn_batch_size_per_im)
  box_class = maskrcnn_losses.FastrcnnClassLoss()
  return {
    'loss_rpn_class': rpn_class(outputs['rpn_scores'], outputs['rpn_score_targets']),
    'loss_rpn_box': rpn_box_loss(
      outputs['rpn_boxes'], outputs['rpn_box_targets'], settings.rpn_huber_loss_delta
    ),
    'loss_class': box_class(outputs['class_outputs'], outputs['class_targets']),
    'loss_box': box_loss(
      outputs['box_outputs'],
      outputs['class_targets'],
      outputs['box_targets'],
      settings.frcnn_huber_loss_delta,
    ),
    'loss_mask': mask_loss(
      outputs['mask_outputs'], outputs['mask_targets'], outputs['mask_class_targets']
    ),
  }


def rpn_box_loss(
  outputs: dict[str, tf.Tensor], targets: dict[str, tf.Tensor], delta: float
) -> tf.Tensor:
  """Huber loss of the anchors' offsets, summed over levels as in the Model Garden's `RpnBoxLoss`.

  Args:
    outputs: level -> [B, h, w, 4 A].
    targets: level -> [B, h, w, 4 A]; an anchor with four zeros matches no box.
    delta: of the Huber loss.

  Returns:
    The sum over levels of the mean over the coordinates of matched anchors of all replicas.
  """

  def of_level(output: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    output, target = (tf.reshape(value, [-1, 4]) for value in (output, target))
    matched = tf.reduce_any(tf.abs(target) > _ZERO, axis=-1, keepdims=True)
    return _mean_where(huber(target - output, delta), matched)

  return tf.add_n([of_level(outputs[level], targets[level]) for level in sorted(outputs)])


def box_loss(outputs: tf.Tensor, classes: tf.Tensor, targets: tf.Tensor, delta: float) -> tf.Tensor:
  """Huber loss of the offsets of each object's own class.

  Args:
    outputs: [B, N, 4 C].
    classes: [B, N] int, 0 for background, which has no box.
    targets: [B, N, 4].
    delta: of the Huber loss.

  Returns:
    The mean over the coordinates of the boxes of all replicas; 0 if there is none.
  """
  by_class = tf.reshape(outputs, [*outputs.shape[:2], -1, 4])
  own = tf.gather(by_class, tf.maximum(classes, 0), batch_dims=2)
  return _mean_where(huber(targets - own, delta), classes[..., None] > 0)


def mask_loss(logits: tf.Tensor, targets: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
  """Binary cross-entropy of the objects' masks.

  Args:
    logits, targets: [B, K, M, M].
    classes: [B, K] int, 0 for background, which has no mask.

  Returns:
    The mean over the pixels of the masks of all replicas; 0 if there is none.
  """
  losses = tf.nn.sigmoid_cross_entropy_with_logits(labels=targets, logits=logits)
  return _mean_where(losses, classes[..., None, None] > 0)


def huber(errors: tf.Tensor, delta: float) -> tf.Tensor:
  """Half the square of errors up to ±delta, and linear beyond."""
  size = tf.abs(errors)
  return tf.where(size <= delta, 0.5 * size**2, delta * (size - 0.5 * delta))


def stuff_loss(
  logits: tf.Tensor, labels: tf.Tensor, num_things: int, object_context: bool
) -> tf.Tensor:
  """Cross-entropy of the stuff branch over the pixels that it is supervised on.

  Args:
    logits: [B, h, w, T + S], or [B, h, w, S] without object context. They are resampled to the
      labels' size.
    labels: [B, H, W] int32 in [0, T + S]. Void is ignored, and without object context things too.
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
  """Cross-entropy of the ranking map over the pixels where categories conflict (Eq. 2).

  A pixel counts if instances of two or more categories cover it and its label is one of these
  (section 4.2: "we set the non-conflicting pixels ignored").

  Args:
    logits: [B, h, w, T].
    instances: [B, h, w, T] in {0, 1}, the instance tensor.
    labels: [B, H, W] int32 category labels of the panoptic ground truth, H a multiple of h.

  Returns:
    The mean over these pixels of all replicas; 0 if there is none.
  """
  step = labels.shape[1] // logits.shape[1]
  targets = labels[:, step // 2 :: step, step // 2 :: step] - 1
  active = tf.reduce_sum(instances * tf.one_hot(targets, instances.shape[-1]), axis=-1)
  conflict = (tf.reduce_sum(instances, axis=-1) >= 2.0) & (active > 0.0)
  return _mean_cross_entropy(logits, targets, conflict)


def _mean_cross_entropy(logits: tf.Tensor, targets: tf.Tensor, counted: tf.Tensor) -> tf.Tensor:
  losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
    labels=tf.where(counted, targets, 0), logits=tf.cast(logits, tf.float32)
  )
  return _mean_where(losses, counted)


def _mean_where(losses: tf.Tensor, counted: tf.Tensor) -> tf.Tensor:
  """A replica's contribution to the mean over the counted elements of all replicas.

  `counted` is broadcast to the shape of `losses`.
  """
  weights = tf.broadcast_to(tf.cast(counted, tf.float32), tf.shape(losses))
  count = tf.distribute.get_replica_context().all_reduce(
    tf.distribute.ReduceOp.MEAN, tf.reduce_sum(weights)
  )
  return tf.math.divide_no_nan(tf.reduce_sum(losses * weights), count)
