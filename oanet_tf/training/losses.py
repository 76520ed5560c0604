"""The losses of Eq. 1, as pure functions of predictions and labels.

Under a strategy, each is one replica's contribution, scaled so that the mean over replicas is the
loss of the whole batch.
"""

# B images, N RoIs, K masks, M mask side, A anchors at a cell, C classes, h, w map, T thing and S
# stuff categories.

import tensorflow as tf
from official.vision.losses import maskrcnn_losses

from oanet_tf.config import definitions
from oanet_tf.config.definitions import Losses
from oanet_tf.modeling.stuff_channels import StuffChannels

# Offsets up to this count as 0, as in the Model Garden's `RpnBoxLoss`.
_ZERO = 1e-6
# The losses of the instance branch.
INSTANCE_LOSSES = ('loss_rpn_class', 'loss_rpn_box', 'loss_class', 'loss_box', 'loss_mask')


def oanet_losses(
  outputs: dict[str, tf.Tensor],
  labels: dict[str, tf.Tensor],
  task: definitions.OANetTask,
  stuff_channels: StuffChannels,
) -> dict[str, tf.Tensor]:
  """All losses of one batch, without weight decay.

  Args:
    outputs: of `OANet` in training.
    labels: the examples of `data.preprocess.training_steps`.
    task: has the weights and what the losses are means of.
    stuff_channels: of the network.

  Returns:
    Scalars before their weights: `loss_rpn_class`, `loss_rpn_box`, `loss_class`, `loss_box`,
    `loss_mask`, `loss_stuff`, `loss_srm`; `loss_occlusion`, if the network has the head; and
    `loss`, their weighted sum.
  """
  settings, label_stride = task.losses, task.train_data.label_stride
  losses = instance_losses(outputs, settings, task.train_data.rpn_batch_size_per_im)
  losses['loss_stuff'] = stuff_loss(
    outputs['stuff_logits'],
    labels['category_labels'],
    stuff_channels,
    resample=2**task.model.min_level != label_stride,
  )
  losses['loss_srm'] = srm_loss(
    outputs['ranking_logits'],
    outputs['instance_tensor'],
    labels['category_labels'],
    step=task.model.spatial_ranking.stride // label_stride,
  )
  if 'occlusion_logits' in outputs:
    losses['loss_occlusion'] = occlusion_loss(
      outputs['occlusion_logits'], outputs['occlusion_targets']
    )
  weights = {
    'loss_rpn_class': settings.rpn_class_weight,
    'loss_rpn_box': settings.rpn_box_weight,
    'loss_class': settings.class_weight,
    'loss_box': settings.box_weight,
    'loss_mask': settings.mask_weight,
    'loss_stuff': settings.stuff_weight,
    'loss_srm': 1.0,
    'loss_occlusion': settings.occlusion_weight,
  }
  losses['loss'] = tf.add_n([weights[name] * loss for name, loss in losses.items()])
  return losses


def srm_only_losses(
  outputs: dict[str, tf.Tensor], labels: dict[str, tf.Tensor], task: definitions.OANetTask
) -> dict[str, tf.Tensor]:
  """The loss of the spatial ranking module alone, as `loss_srm` and as `loss`."""
  loss = srm_loss(
    outputs['ranking_logits'],
    outputs['instance_tensor'],
    labels['category_labels'],
    step=task.model.spatial_ranking.stride // task.train_data.label_stride,
  )
  return {'loss_srm': loss, 'loss': loss}


def instance_losses(
  outputs: dict[str, tf.Tensor], settings: Losses, rpn_batch_size_per_im: int
) -> dict[str, tf.Tensor]:
  """The five losses of Mask R-CNN.

  They are means over all replicas. `official.vision.losses.maskrcnn_losses` adds 0.01 to each
  replica's count of boxes and masks, so its losses depend on the number of replicas.

  Args:
    outputs: of `OANet` in training.
    settings: Huber deltas, and what the losses of boxes are means of.
    rpn_batch_size_per_im: number of anchors sampled in an image.
  """
  outputs = tf.nest.map_structure(
    lambda value: tf.cast(value, tf.float32) if value.dtype.is_floating else value, outputs
  )
  rpn_class = maskrcnn_losses.RpnScoreLoss(rpn_batch_size_per_im)
  if settings.box_loss_mean_over == 'objects':
    rpn_box = rpn_box_loss(
      outputs['rpn_boxes'], outputs['rpn_box_targets'], settings.rpn_huber_loss_delta
    )
    box_samples = None
  else:
    rpn_box = sampled_rpn_box_loss(
      outputs['rpn_boxes'],
      outputs['rpn_box_targets'],
      outputs['rpn_score_targets'],
      settings.rpn_huber_loss_delta,
      rpn_batch_size_per_im,
    )
    box_samples = outputs['class_targets'] >= 0
  return {
    'loss_rpn_class': rpn_class(outputs['rpn_scores'], outputs['rpn_score_targets']),
    'loss_rpn_box': rpn_box,
    'loss_class': class_loss(outputs['class_outputs'], outputs['class_targets']),
    'loss_box': box_loss(
      outputs['box_outputs'],
      outputs['class_targets'],
      outputs['box_targets'],
      settings.frcnn_huber_loss_delta,
      box_samples,
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


def sampled_rpn_box_loss(
  outputs: dict[str, tf.Tensor],
  targets: dict[str, tf.Tensor],
  samples: dict[str, tf.Tensor],
  delta: float,
  rpn_batch_size_per_im: int,
) -> tf.Tensor:
  """Huber loss of the sampled objects' offsets, as Detectron2's `RPN.losses`.

  Args:
    outputs, targets: level -> [B, h, w, 4 A].
    samples: level -> [B, h, w, A] int, 1 for a sampled object.
    delta: of the Huber loss.
    rpn_batch_size_per_im: number of anchors sampled in an image.

  Returns:
    The sum over coordinates, divided by the number of anchors to sample in the replica's images.
  """

  def of_level(output: tf.Tensor, target: tf.Tensor, sample: tf.Tensor) -> tf.Tensor:
    errors = tf.reshape(target - output, [-1, 4])
    sampled = tf.reshape(sample == 1, [-1, 1])
    return tf.reduce_sum(tf.where(sampled, huber(errors, delta), 0.0))

  total = tf.add_n([of_level(outputs[n], targets[n], samples[n]) for n in sorted(outputs)])
  num_images = tf.shape(next(iter(outputs.values())))[0]
  return total / tf.cast(num_images * rpn_batch_size_per_im, tf.float32)


def class_loss(logits: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
  """Cross-entropy of the RoIs' classes.

  Args:
    logits: [B, N, C].
    classes: [B, N] int, 0 for background, below 0 for slots without a RoI.

  Returns:
    The mean over the RoIs of all replicas.
  """
  return _mean_cross_entropy(logits, classes, classes >= 0)


def box_loss(
  outputs: tf.Tensor,
  classes: tf.Tensor,
  targets: tf.Tensor,
  delta: float,
  samples: tf.Tensor | None = None,
) -> tf.Tensor:
  """Huber loss of the offsets of each object's own class.

  Args:
    outputs: [B, N, 4 C].
    classes: [B, N] int, 0 for background, which has no box.
    targets: [B, N, 4].
    delta: of the Huber loss.
    samples: [B, N] bool, the RoIs whose number divides the sum over coordinates, as in Detectron2's
      `FastRCNNOutputLayers.box_reg_loss`. None for the coordinates of objects.

  Returns:
    The mean for all replicas; 0 if there is no object.
  """
  by_class = tf.reshape(outputs, [-1, outputs.shape[1], outputs.shape[2] // 4, 4])
  own = tf.gather(by_class, tf.maximum(classes, 0), batch_dims=2)
  errors, is_object = huber(targets - own, delta), classes[..., None] > 0
  if samples is None:
    return _mean_where(errors, is_object)
  return _mean_where(tf.reduce_sum(tf.where(is_object, errors, 0.0), axis=-1), samples)


def mask_loss(logits: tf.Tensor, targets: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
  """Binary cross-entropy of the objects' masks.

  Args:
    logits: [B, K, M, M].
    targets: [B, K, M, M] in [0, 1].
    classes: [B, K] int, 0 for background, which has no mask.

  Returns:
    The mean over the pixels of the masks of all replicas; 0 if there is none.
  """
  losses = tf.nn.sigmoid_cross_entropy_with_logits(labels=targets, logits=logits)
  return _mean_where(losses, classes[..., None, None] > 0)


def huber(errors: tf.Tensor, delta: float) -> tf.Tensor:
  """Half the square of errors up to ±delta, and linear beyond; for 0, the absolute errors."""
  size = tf.abs(errors)
  if delta == 0.0:
    return size
  return tf.where(size <= delta, 0.5 * size**2, delta * (size - 0.5 * delta))


def stuff_loss(
  logits: tf.Tensor,
  labels: tf.Tensor,
  channels: StuffChannels,
  resample: bool = False,
) -> tf.Tensor:
  """Cross-entropy of the stuff branch over the pixels that it is supervised on.

  Args:
    logits: [B, h, w, channels.total].
    labels: [B, H, W] int32 in [0, T + S]. Those without a channel are ignored.
    channels: what the logits stand for.
    resample: whether the logits must be resampled to the labels' size.

  Returns:
    The mean over supervised pixels of all replicas; 0 if there is none.
  """
  if resample:
    logits = tf.image.resize(logits, tf.shape(labels)[1:3])
  targets = channels.of_labels(labels)
  return _mean_cross_entropy(logits, targets, targets >= 0)


def srm_loss(
  logits: tf.Tensor, instances: tf.Tensor, labels: tf.Tensor, step: int = 1
) -> tf.Tensor:
  """Cross-entropy of the ranking map over the pixels where categories conflict (Eq. 2).

  A pixel counts if instances of two or more categories cover it and its label is one of these
  (section 4.2: "we set the non-conflicting pixels ignored").

  Args:
    logits: [B, h, w, T].
    instances: [B, h, w, T] in {0, 1}, the instance tensor.
    labels: [B, h · step, w · step] int32 category labels of the panoptic ground truth.
    step: between the labels of neighbouring pixels of the map.

  Returns:
    The mean over these pixels of all replicas; 0 if there is none.
  """
  targets = labels[:, step // 2 :: step, step // 2 :: step] - 1
  active = tf.reduce_sum(instances * tf.one_hot(targets, instances.shape[-1]), axis=-1)
  conflict = (tf.reduce_sum(instances, axis=-1) >= 2.0) & (active > 0.0)
  return _mean_cross_entropy(logits, targets, conflict)


def occlusion_loss(logits: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
  """Binary cross-entropy of the pairs of instances.

  Args:
    logits: [B, K], that the first instance of a pair lies on the second.
    targets: [B, K] in [0, 1], below 0 for slots without a pair.

  Returns:
    The mean over the pairs of all replicas; 0 if there is none.
  """
  losses = tf.nn.sigmoid_cross_entropy_with_logits(
    labels=tf.maximum(targets, 0.0), logits=tf.cast(logits, tf.float32)
  )
  return _mean_where(losses, targets >= 0.0)


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
