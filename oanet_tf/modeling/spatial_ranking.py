"""The spatial ranking module, which predicts the instance that lies on top (section 3.2)."""

# B images, N instances, T thing categories, h, w canvas at the module's stride.

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import tensorflow as tf
import tf_keras

from oanet_tf.data.geometry import Size, height_and_width
from oanet_tf.modeling.in_turn import in_turn
from oanet_tf.modeling.mask_paste import paste_masks

CONVOLUTIONS = {'1x1': [(1, 1)], '3x3': [(3, 3)], '1x7+7x1': [(1, 7), (7, 1)]}
# A resampled ground-truth mask contains the cells with at least this value.
_INSIDE = 0.5


class SpatialRankingModule(tf_keras.layers.Layer):
  """Convolutions from the instance tensor to the ranking map (Figure 4, Table 5).

  Args:
    num_things: T, the number of input and output channels.
    convolution: a key of `CONVOLUTIONS`.
    num_scales: at how many resolutions it sees the instance tensor, each half of the one before;
      the logits of all are added. 1 in the paper.
    stride: of the instance tensor, relative to the network input.
    kernel_regularizer: of the convolutions.
    **kwargs: of the Keras layer.
  """

  def __init__(
    self,
    *,
    num_things: int,
    convolution: str = '1x7+7x1',
    num_scales: int = 1,
    stride: int = 4,
    kernel_regularizer: tf_keras.regularizers.Regularizer | None = None,
    **kwargs,
  ):
    super().__init__(**kwargs)
    self.num_things = num_things
    self.stride = stride

    def convolutions(of_scale: str) -> list[tf_keras.layers.Layer]:
      return [
        tf_keras.layers.Conv2D(
          num_things,
          kernel,
          padding='same',
          kernel_initializer='glorot_uniform',
          kernel_regularizer=kernel_regularizer,
          dtype='float32',
          name=f'conv_{kernel[0]}x{kernel[1]}{of_scale}',
        )
        for kernel in CONVOLUTIONS[convolution]
      ]

    self._convolutions = convolutions('')
    self._of_coarser_scales = [convolutions(f'_{2**n}') for n in range(1, num_scales)]

  def call(self, instance_tensor: tf.Tensor) -> tf.Tensor:
    """[B, h, w, T] in {0, 1} -> [B, h, w, T] float32 logits, whose softmax is the ranking map."""
    logits = in_turn(self._convolutions, instance_tensor)
    x = instance_tensor
    for convolutions in self._of_coarser_scales:
      x = tf.nn.avg_pool2d(x, 2, 2, 'SAME')
      logits += tf.image.resize(in_turn(convolutions, x), height_and_width(logits))
    return logits


class Ranking(NamedTuple):
  """The module's result for a batch of instances.

  Attributes:
    map: [B, h, w, T] float32, softmax over the thing categories.
    scores: [B, N] float32 in [0, 1], Eq. 3.
  """

  map: tf.Tensor
  scores: tf.Tensor


def rank(
  module: SpatialRankingModule, masks: tf.Tensor, classes: tf.Tensor, scored_pixels: str = 'all'
) -> Ranking:
  """Ranks instances.

  Args:
    module: with its variables created.
    masks: [B, N, h, w] float in {0, 1}, at the module's stride.
    classes: [B, N] int, detection classes in [1, T]; others have no channel.
    scored_pixels: whether a score is the mean over 'all' pixels of a mask or the 'conflicting'.
  """
  tensor = instance_tensor(masks, classes, module.num_things)
  ranking_map = tf.nn.softmax(module(tensor))
  if scored_pixels == 'conflicting':
    masks = conflicting_pixels(masks, tensor)
  return Ranking(ranking_map, ranking_scores(ranking_map, masks, classes))


def true_masks(
  labels: Mapping[str, tf.Tensor], input_size: Sequence[Size], stride: int
) -> tf.Tensor:
  """[B, M, h, w] float32 in {0, 1}, the masks of the annotated instances, which overlap.

  Args:
    labels: `gt_masks` and `gt_boxes` of `data.preprocess.training_steps`.
    input_size: [height, width] of the network input.
    stride: of the canvas, relative to the network input.
  """
  height, width = (side // stride for side in input_size)
  pasted = paste_masks(labels['gt_masks'], labels['gt_boxes'] / stride, height, width)
  return tf.cast(pasted >= _INSIDE, tf.float32)


def rank_ground_truth(
  module: SpatialRankingModule, masks: tf.Tensor, classes: tf.Tensor
) -> dict[str, tf.Tensor]:
  """Ranking logits of the annotated instances, for training.

  Args:
    module: with its variables created.
    masks: [B, M, h, w] of `true_masks`.
    classes: [B, M] int, `gt_classes` of `data.preprocess.training_steps`.

  Returns:
    `instance_tensor` and `ranking_logits` [B, h, w, T].
  """
  tensor = instance_tensor(masks, classes, module.num_things)
  return {'instance_tensor': tensor, 'ranking_logits': module(tensor)}


def instance_tensor(masks: tf.Tensor, classes: tf.Tensor, num_things: int) -> tf.Tensor:
  """A map for each thing category, with 1 where an instance of it is (Figure 4).

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
  """The pixels of each mask that instances of another category also cover; if none, all of them.

  Args:
    masks: [B, N, h, w] float in {0, 1}.
    instance_tensor: [B, h, w, T] of the masks.

  Returns:
    [B, N, h, w] float in {0, 1}.
  """
  conflict = tf.cast(tf.reduce_sum(instance_tensor, axis=-1) >= 2.0, masks.dtype)
  conflicting = masks * conflict[:, None]
  has_some = tf.reduce_any(conflicting > 0.0, axis=[2, 3], keepdims=True)
  return tf.where(has_some, conflicting, masks)


def ranking_scores(ranking_map: tf.Tensor, masks: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
  """Mean ranking of each instance's own class over its mask (Eq. 3).

  Eq. 4 of the paper is 0 inside the instance and 1 outside, which must be a slip.

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
