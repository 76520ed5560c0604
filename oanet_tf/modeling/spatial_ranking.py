"""The spatial ranking module: which instance lies on top (section 3.2)."""

# B images, N instances, T thing categories, h, w canvas at the module's stride.

import tensorflow as tf
import tf_keras

from oanet_tf.modeling.mask_paste import paste_masks
from oanet_tf.modeling.suppression import suppress

CONVOLUTIONS = {
  '1x1': [(1, 1)],
  '3x3': [(3, 3)],
  '1x7+7x1': [(1, 7), (7, 1)],
}


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

  def call(self, instance_tensor: tf.Tensor) -> tf.Tensor:
    """[B, h, w, T] in {0, 1} -> [B, h, w, T] float32 ranking logits; softmax makes the map."""
    x = instance_tensor
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
      score_threshold, mask_threshold, suppression_threshold: which detections, and which of their
        pixels, the instance tensor shows in inference.
    """
    self.module = module
    self._num_things = num_things
    self._stride = stride
    self._scored_pixels = scored_pixels
    self._score_threshold = score_threshold
    self._mask_threshold = mask_threshold
    self._suppression_threshold = suppression_threshold

  def in_training(self, images: tf.Tensor, labels: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """The ranking of the true instances, whose masks overlap.

    Args:
      images: [B, H, W, 3], of which only the size matters.
      labels: `data.preprocess.training_steps`' examples.

    Returns:
      `instance_tensor` and `ranking_logits` [B, h, w, T].
    """
    masks = self._on_canvas(images, labels['gt_masks'], labels['gt_boxes'])
    tensor = instance_tensor(masks, labels['gt_classes'], self._num_things)
    return {'instance_tensor': tensor, 'ranking_logits': self.module(tensor)}

  def in_inference(
    self, images: tf.Tensor, detections: dict[str, tf.Tensor]
  ) -> dict[str, tf.Tensor]:
    """The ranking of the detected instances (Eq. 3).

    Args:
      images: [B, H, W, 3], of which only the size matters.
      detections: `detection_masks`, `detection_boxes`, `detection_classes` and `detection_scores`
        of `OANet`.

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
    ranking_map = tf.nn.softmax(self.module(tensor))
    if self._scored_pixels == 'conflicting':
      masks = conflicting_pixels(masks, tensor)
    return {
      'ranking_map': ranking_map,
      'ranking_scores': ranking_scores(ranking_map, masks, classes),
    }

  def _on_canvas(self, images: tf.Tensor, masks: tf.Tensor, boxes: tf.Tensor) -> tf.Tensor:
    """[B, N, h, w] float32 in {0, 1}, at the module's stride."""
    height, width = (side // self._stride for side in images.shape[1:3])
    pasted = paste_masks(masks, boxes / self._stride, height, width)
    return tf.cast(pasted >= self._mask_threshold, tf.float32)


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
