"""The occlusion head: of two instances that overlap, which lies on top.

After Lazarow et al., *Learning Instance Occlusion for Panoptic Segmentation* (CVPR 2020): it sees
both masks and the features under them; and, as in Yang et al., *SOGNet* (AAAI 2020), both
categories. Other than there, it does not train the features, which are reduced first; group
normalization lets it learn from features of any scale; and the answer for two instances is the
opposite of that for the same two in the other order.
"""

# B images, N instances, K pairs, M mask side, S crop side, C filters, T thing categories.

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import tensorflow as tf
import tf_keras

from oanet_tf.modeling.mask_targets import covered_fractions
from oanet_tf.modeling.roi_align import RoIAlign

# Among a network's outputs, the reduced features of each level.
_FEATURES = 'occlusion_features_'


class Pairs(NamedTuple):
  """Pairs of instances.

  Attributes:
    first, second: [B, K] int32, indices of the instances.
    exists: [B, K] bool; the other slots are empty.
  """

  first: tf.Tensor
  second: tf.Tensor
  exists: tf.Tensor


class Views(NamedTuple):
  """What the head is told of pairs.

  Attributes:
    boxes: [B, K, 4] float32 around the two, [y1, x1, y2, x2] in pixels of the network input.
    masks: two of [B, K, S, S] float32 in [0, 1], the part of a box's cell that each covers.
    classes: two of [B, K] int32 in [1, T]; others are of no category.
  """

  boxes: tf.Tensor
  masks: tuple[tf.Tensor, tf.Tensor]
  classes: tuple[tf.Tensor, tf.Tensor]


class OcclusionHead(tf_keras.layers.Layer):
  """A logit for each pair: of convolutions on crops of features and masks, and of a table.

  Attributes:
    crop_size: S.
    max_pairs: K of the fusion, at most.
    all_shapes_static: whether the fusion asks for K pairs even where no image has so many.

  Args:
    num_things: T.
    crop_size: S.
    max_pairs: K of the fusion, at most.
    num_filters: C.
    max_level: the coarsest level of the pyramid that is sampled.
    kernel_regularizer: of all layers.
    **kwargs: of the Keras layer.
  """

  def __init__(
    self,
    *,
    num_things: int,
    crop_size: int = 14,
    num_filters: int = 32,
    max_pairs: int = 64,
    max_level: int = 5,
    kernel_regularizer: tf_keras.regularizers.Regularizer | None = None,
    **kwargs,
  ):
    super().__init__(**kwargs)
    self.crop_size = crop_size
    self.max_pairs = max_pairs
    self.all_shapes_static = False
    self._max_level = max_level
    options = {'kernel_initializer': 'he_normal', 'kernel_regularizer': kernel_regularizer}
    self._reduce = tf_keras.layers.Conv2D(
      num_filters, 1, activation='relu', name='occlusion_features', **options
    )
    self.aligner = RoIAlign(crop_size=crop_size, max_level=max_level, dtype='float32')
    self._convolutions = [
      tf_keras.layers.Conv2D(
        num_filters,
        3,
        strides=strides,
        padding='same',
        dtype='float32',
        name=f'conv_{index}',
        **options,
      )
      for index, strides in enumerate((1, 1, 2))
    ]
    groups = next(number for number in (8, 4, 2, 1) if num_filters % number == 0)
    self._norms = [
      tf_keras.layers.GroupNormalization(groups, dtype='float32', name=f'norm_{index}')
      for index in range(len(self._convolutions))
    ]
    self._hidden = tf_keras.layers.Dense(
      num_filters, activation='relu', dtype='float32', name='hidden', **options
    )
    # A bias would be added to both answers of a pair.
    self._logit = tf_keras.layers.Dense(
      1, use_bias=False, kernel_regularizer=kernel_regularizer, dtype='float32', name='logit'
    )
    # A category's row says on which others it tends to lie.
    self.class_order = self.add_weight(
      'class_order',
      [num_things, num_things],
      'float32',
      initializer='zeros',
      regularizer=kernel_regularizer,
    )

  def pairs_of(self, shared: tf.Tensor) -> Pairs:
    """The pairs of a batch that the fusion needs.

    Args:
      shared: of `largest_pairs`.
    """
    pairs = largest_pairs(shared, self.max_pairs)
    if self.all_shapes_static:
      return pairs
    counts = tf.reduce_sum(tf.cast(pairs.exists, tf.int32), axis=1)
    # At least one: oneDNN's convolutions give a wrong shape for empty input.
    number = tf.maximum(tf.reduce_max(counts), 1)
    return Pairs(*(values[:, :number] for values in pairs))

  def reduced(self, features: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """[B, h, w, channels] by level -> [B, h, w, C] float32, named as outputs of the network.

    No gradient flows back into the features: what the other heads learn, they learn as without this
    one.
    """
    return {
      f'{_FEATURES}{level}': tf.cast(self._reduce(tf.stop_gradient(feature)), tf.float32)
      for level, feature in features.items()
      if int(level) <= self._max_level
    }

  def call(self, outputs: Mapping[str, tf.Tensor], views: Views) -> tf.Tensor:
    """Which lies on top.

    Args:
      outputs: of the network, with those of `reduced` among them.
      views: of the pairs.

    Returns:
      [B, K] float32 logits that the first instance of a pair lies on the second.
    """
    by_level = {
      name.removeprefix(_FEATURES): feature
      for name, feature in outputs.items()
      if name.startswith(_FEATURES)
    }
    side = self.crop_size
    features = self.aligner(by_level, views.boxes)
    features = tf.reshape(features, [-1, side, side, features.shape[-1]])
    first, second = (tf.reshape(mask, [-1, side, side, 1]) for mask in views.masks)
    # In both orders, so that the answer does not depend on which is called the first.
    both = [
      tf.concat([features, first, second, first * second], axis=-1),
      tf.concat([features, second, first, first * second], axis=-1),
    ]
    for_first, for_second = tf.split(self._on_top(tf.concat(both, axis=0)), 2)
    seen = tf.reshape(for_first - for_second, tf.shape(views.boxes)[:2])
    return seen + self._by_classes(*views.classes)

  def _by_classes(self, first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    """[B, K] classes -> [B, K] logits, 0 for two of one category."""
    order = self.class_order - tf.transpose(self.class_order)
    first, second = (tf.one_hot(classes - 1, order.shape[0]) for classes in (first, second))
    return tf.reduce_sum(tf.matmul(first, order) * second, axis=-1)

  def _on_top(self, crops: tf.Tensor) -> tf.Tensor:
    """[…, S, S, C + 3] -> [… 1]."""
    x = crops
    for convolution, norm in zip(self._convolutions, self._norms, strict=True):
      x = tf.nn.relu(norm(convolution(x)))
    pooled = tf.concat([tf.reduce_mean(x, axis=[1, 2]), tf.reduce_max(x, axis=[1, 2])], axis=-1)
    return self._logit(self._hidden(pooled))


def largest_pairs(shared: tf.Tensor, number: int) -> Pairs:
  """The pairs that share most pixels; of each, the first instance has the lower index.

  Args:
    shared: [B, N, N] float, symmetric: pixels that two instances share.
    number: K, at most; no more than there can be, N (N - 1) / 2.
  """
  instances = shared.shape[1]
  above_diagonal = shared * np.triu(np.ones([instances, instances], np.float32), k=1)
  # At least one slot, which a single instance leaves empty.
  most = max(1, instances * (instances - 1) // 2)
  values, chosen = tf.math.top_k(
    tf.reshape(above_diagonal, [-1, instances**2]), k=min(number, most)
  )
  return Pairs(chosen // instances, chosen % instances, values > 0.0)


def views_of(
  pairs: Pairs, boxes: tf.Tensor, masks: tf.Tensor, classes: tf.Tensor, side: int
) -> Views:
  """The views of pairs; no gradient flows back into boxes or masks.

  Args:
    pairs: of instances.
    boxes: [B, N, 4] float32, [y1, x1, y2, x2] in pixels of the network input.
    masks: [B, N, M, M] float32 in {0, 1}, each in its box.
    classes: [B, N] int32.
    side: S.
  """

  def of_both(values: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    values = tf.stop_gradient(values)
    return (
      tf.gather(values, pairs.first, batch_dims=1),
      tf.gather(values, pairs.second, batch_dims=1),
    )

  first, second = of_both(boxes)
  around = tf.concat(
    [tf.minimum(first[..., :2], second[..., :2]), tf.maximum(first[..., 2:], second[..., 2:])],
    axis=-1,
  )
  first_mask, second_mask = of_both(masks)
  covered = (
    covered_fractions(first_mask, first, around, side),
    covered_fractions(second_mask, second, around, side),
  )
  return Views(around, covered, of_both(classes))
