"""The stuff branch: FPN features -> category logits (Figure 3)."""

import tensorflow as tf
import tf_keras

from oanet_tf.data.geometry import height_and_width
from oanet_tf.modeling.in_turn import InTurn


class StuffHead(tf_keras.layers.Layer):
  """3×3 convolutions on each level, upsampling, concatenation, then a 3×3 and a 1×1 convolution.

  Levels do not share convolutions. Follows section 3.1 and Figure 3 of the paper; group
  normalization, which the paper does not have, is an option.

  Args:
    levels: FPN levels to use, the finest first.
    num_labels: channels of the logits.
    num_convs: 3×3 convolutions on each level.
    num_filters: channels of each 3×3 convolution.
    group_norm: whether to normalize after each 3×3 convolution.
    kernel_regularizer: of all convolutions.
    **kwargs: of the Keras layer.
  """

  def __init__(
    self,
    *,
    levels: list[int],
    num_labels: int,
    num_convs: int = 2,
    num_filters: int = 128,
    group_norm: bool = False,
    kernel_regularizer: tf_keras.regularizers.Regularizer | None = None,
    **kwargs,
  ):
    super().__init__(**kwargs)
    self._levels = levels
    self._group_norm = group_norm
    self._num_filters = num_filters
    self._kernel_regularizer = kernel_regularizer
    self._towers = {
      str(level): [self._conv(f'level_{level}_conv_{i}') for i in range(num_convs)]
      for level in levels
    }
    self._fuse = self._conv('fuse')
    self._logits = tf_keras.layers.Conv2D(
      num_labels,
      1,
      kernel_initializer=tf_keras.initializers.RandomNormal(stddev=0.01),
      kernel_regularizer=kernel_regularizer,
      dtype='float32',
      name='logits',
    )

  def _conv(self, name: str) -> InTurn:
    layers = [
      tf_keras.layers.Conv2D(
        self._num_filters,
        3,
        padding='same',
        kernel_initializer='he_normal',
        kernel_regularizer=self._kernel_regularizer,
      )
    ]
    if self._group_norm:
      groups = next(g for g in (32, 16, 8, 4, 2, 1) if self._num_filters % g == 0)
      layers.append(tf_keras.layers.GroupNormalization(groups))
    layers.append(tf_keras.layers.ReLU())
    return InTurn(layers, name=name)

  def call(self, features: dict[str, tf.Tensor]) -> tf.Tensor:
    """Predicts logits.

    Args:
      features: [B, H_l, W_l, C] by level.

    Returns:
      [B, H, W, num_labels] float32 at the finest level's size.
    """
    finest = height_and_width(features[str(self._levels[0])])
    maps = []
    for level in self._levels:
      x = features[str(level)]
      for conv in self._towers[str(level)]:
        x = conv(x)
      if level != self._levels[0]:
        # The gradient sums many numbers.
        x = tf.image.resize(tf.cast(x, tf.float32), finest)
      maps.append(tf.cast(x, self.compute_dtype))
    return self._logits(self._fuse(tf.concat(maps, axis=-1)))
