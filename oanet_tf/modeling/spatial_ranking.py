"""The spatial ranking module: which instance lies on top (section 3.2)."""

# B images, N instances, T thing categories, h, w canvas at the module's stride, C channels of the
# stuff branch.

from collections.abc import Sequence

import tensorflow as tf
import tf_keras

from oanet_tf.modeling.mask_paste import paste_masks
from oanet_tf.modeling.suppression import suppress

CONVOLUTIONS = {
  '1x1': [(1, 1)],
  '3x3': [(3, 3)],
  '1x7+7x1': [(1, 7), (7, 1)],
}
# Of a box's height or width: how far `jittered_boxes` moves its sides at most.
LARGEST_JITTER = 0.1


class SpatialRankingModule(tf_keras.layers.Layer):
  """Convolutions from the instance tensor to the ranking map (Figure 4, Table 5)."""

  def __init__(
    self,
    *,
    num_things: int,
    convolution: str = '1x7+7x1',
    kernel_regularizer: tf_keras.regularizers.Regularizer | None = None,
    **kwargs,
  ):
    """Makes the layers.

    Args:
      num_things: T, channels in and out.
      convolution: a key of `CONVOLUTIONS`.
      kernel_regularizer: of the convolutions.
      **kwargs: of the Keras layer.
    """
    super().__init__(**kwargs)
    self._convolutions = [
      tf_keras.layers.Conv2D(
        num_things,
        kernel,
        padding='same',
        kernel_initializer='glorot_uniform',
        kernel_regularizer=kernel_regularizer,
        name=f'conv_{kernel[0]}x{kernel[1]}',
      )
      for kernel in CONVOLUTIONS[convolution]
    ]

  def call(self, x: tf.Tensor) -> tf.Tensor:
    """The instance tensor -> [B, h, w, T] float32 ranking logits; softmax makes the map.

    Args:
      x: [B, h, w, T] in {0, 1}; [B, h, w, T + C] with `stuff_channels` behind.
    """
    for convolution in self._convolutions:
      x = convolution(x)
    return tf.cast(x, tf.float32)


class InstanceRanker:
  """From instances in their boxes to what the module says of them."""

  def __init__(
    self,
    module: SpatialRankingModule,
    *,
    num_things: int,
    stride: int,
    scored_pixels: str,
    training_masks: str,
    sees_stuff: bool,
    score_threshold: float,
    mask_threshold: float,
    suppression_threshold: float,
  ):
    """Takes the module, and how instances are laid out for it.

    Args:
      module: instance tensor -> ranking logits.
      num_things: T.
      stride: of the instance tensor, relative to the network input.
      scored_pixels: 'all' of a mask, or the 'conflicting' ones, give an instance's ranking score.
      training_masks: the 'truth', 'jittered' or 'predicted'.
      sees_stuff: whether the module takes the stuff branch's channels too.
      score_threshold, mask_threshold, suppression_threshold: which detections, and which of their
        pixels, the instance tensor shows in inference.
    """
    self.module = module
    self._num_things = num_things
    self._stride = stride
    self._scored_pixels = scored_pixels
    self._training_masks = training_masks
    self._sees_stuff = sees_stuff
    self._score_threshold = score_threshold
    self._mask_threshold = mask_threshold
    self._suppression_threshold = suppression_threshold

  def in_training(
    self,
    images: tf.Tensor,
    labels: dict[str, tf.Tensor],
    outputs: dict[str, tf.Tensor] | None = None,
  ) -> dict[str, tf.Tensor]:
    """The ranking of true instances, or of what the network predicts of them; they overlap.

    Args:
      images: [B, H, W, 3], of which only the size matters.
      labels: `data.preprocess.training_steps`' examples.
      outputs: of `OANet`: `mask_outputs`, `mask_rois` and `mask_class_targets` for masks that are
        predicted, `stuff_logits` for a module that sees stuff.

    Returns:
      `instance_tensor` and `ranking_logits` [B, h, w, T].
    """
    masks, boxes, classes = (labels[key] for key in ('gt_masks', 'gt_boxes', 'gt_classes'))
    if self._training_masks == 'jittered':
      boxes = jittered_boxes(boxes, labels['box_jitter'])
    if self._training_masks == 'predicted':
      # Of the true class; background has none, and so no channel.
      masks = tf.sigmoid(tf.cast(outputs['mask_outputs'], tf.float32))
      boxes, classes = outputs['mask_rois'], outputs['mask_class_targets']
    masks = self._on_canvas(images, masks, boxes)
    tensor = instance_tensor(masks, classes, self._num_things)
    return {'instance_tensor': tensor, 'ranking_logits': self._logits(tensor, outputs)}

  def in_inference(
    self, images: tf.Tensor, detections: dict[str, tf.Tensor]
  ) -> dict[str, tf.Tensor]:
    """The ranking of the detected instances (Eq. 3).

    Args:
      images: [B, H, W, 3], of which only the size matters.
      detections: `detection_masks`, `detection_boxes`, `detection_classes` and `detection_scores`
        of `OANet`, and `stuff_logits` for a module that sees stuff.

    Returns:
      `ranking_map` [B, h, w, T] and `ranking_scores` [B, N].
    """
    classes = detections['detection_classes']
    masks = self._on_canvas(images, detections['detection_masks'], detections['detection_boxes'])
    shown = detections['detection_scores'] >= self._score_threshold
    if self._suppression_threshold < 1.0:
      shown = suppress(masks, shown, self._suppression_threshold)
    masks *= tf.cast(shown, tf.float32)[..., None, None]
    tensor = instance_tensor(masks, classes, self._num_things)
    ranking_map = tf.nn.softmax(self._logits(tensor, detections))
    if self._scored_pixels == 'conflicting':
      masks = conflicting_pixels(masks, tensor)
    return {
      'ranking_map': ranking_map,
      'ranking_scores': ranking_scores(ranking_map, masks, classes),
    }

  def _logits(self, tensor: tf.Tensor, outputs: dict[str, tf.Tensor] | None) -> tf.Tensor:
    """[B, h, w, T] of the module."""
    if self._sees_stuff:
      stuff = stuff_channels(outputs['stuff_logits'], tensor.shape[1:3])
      tensor = tf.concat([tensor, stuff], axis=-1)
    return self.module(tensor)

  def _on_canvas(self, images: tf.Tensor, masks: tf.Tensor, boxes: tf.Tensor) -> tf.Tensor:
    """[B, N, h, w] float32 in {0, 1}, at the module's stride."""
    height, width = (side // self._stride for side in images.shape[1:3])
    pasted = paste_masks(masks, boxes / self._stride, height, width)
    return tf.cast(pasted >= self._mask_threshold, tf.float32)


def jittered_boxes(boxes: tf.Tensor, jitter: tf.Tensor) -> tf.Tensor:
  """Boxes of which each side has moved by up to a tenth of the box.

  Args:
    boxes: [B, N, 4], [y1, x1, y2, x2]; those without area stay as they are.
    jitter: [B, N, 4] in [-1, 1].

  Returns:
    [B, N, 4].
  """
  size = boxes[..., 2:] - boxes[..., :2]
  return boxes + LARGEST_JITTER * jitter * tf.concat([size, size], axis=-1)


def instance_tensor(masks: tf.Tensor, classes: tf.Tensor, num_things: int) -> tf.Tensor:
  """A channel for each thing category: 1 where an instance of it is (Figure 4).

  No gradient flows back into the masks.

  Args:
    masks: [B, N, h, w] float in {0, 1}.
    classes: [B, N] int, detection classes in [1, T]; others have no channel.
    num_things: T.

  Returns:
    [B, h, w, T] float32 in {0, 1}.
  """
  channels = tf.one_hot(classes - 1, num_things)
  counts = tf.einsum('bnhw,bnt->bhwt', tf.cast(masks, tf.float32), channels)
  return tf.stop_gradient(tf.minimum(counts, 1.0))


def stuff_channels(logits: tf.Tensor, size: Sequence[int]) -> tf.Tensor:
  """What the stuff branch says of each cell, without a gradient.

  Args:
    logits: [B, H, W, C] of the stuff branch, at its own stride.
    size: [h, w] of the canvas.

  Returns:
    [B, h, w, C] float32 in [0, 1].
  """
  return tf.stop_gradient(tf.image.resize(tf.nn.softmax(logits), size))


def conflicting_pixels(masks: tf.Tensor, instance_tensor: tf.Tensor) -> tf.Tensor:
  """The part of each mask where instances of another category lie too; all of it if there is none.

  Args:
    masks: [B, N, h, w] float in {0, 1}.
    instance_tensor: [B, h, w, T] of these.

  Returns:
    [B, N, h, w] float in {0, 1}.
  """
  conflict = tf.cast(tf.reduce_sum(instance_tensor, axis=-1) >= 2.0, masks.dtype)
  conflicting = masks * conflict[:, None]
  has_some = tf.reduce_any(conflicting > 0.0, axis=[2, 3], keepdims=True)
  return tf.where(has_some, conflicting, masks)


def ranking_scores(ranking_map: tf.Tensor, masks: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
  """Mean ranking of each instance's own class over its mask (Eq. 3).

  Eq. 4 of the paper gives 0 inside of the instance and 1 outside; that is a slip of the pen.

  Args:
    ranking_map: [B, h, w, T] float, softmax over the thing categories.
    masks: [B, N, h, w] float in {0, 1}.
    classes: [B, N] int, detection classes in [1, T].

  Returns:
    [B, N] float in [0, 1]; 0 where a mask is empty.
  """
  per_class = tf.einsum('bnhw,bhwt->bnt', masks, ranking_map)
  own = tf.reduce_sum(per_class * tf.one_hot(classes - 1, ranking_map.shape[-1]), axis=-1)
  return tf.math.divide_no_nan(own, tf.reduce_sum(masks, axis=[2, 3]))
