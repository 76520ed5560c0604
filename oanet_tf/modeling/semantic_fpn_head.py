"""The semantic heads of Detectron2's and of the Model Garden's Panoptic FPN."""

import tensorflow as tf
import tf_keras
from official.vision.modeling.heads import segmentation_heads

from oanet_tf.config.values import GROUPS
from oanet_tf.data.geometry import height_and_width
from oanet_tf.modeling.in_turn import InTurn

NORM_EPSILON = 1e-5


class SemanticFPNHead(tf_keras.layers.Layer):
  """FPN features -> logits (Kirillov et al., Panoptic Feature Pyramid Networks, section 3).

  A level goes through as many stages as it takes to the finest one's size, but at least one. Each
  is a 3×3 convolution, group normalization, ReLU and bilinear upsampling by 2; the finest level is
  not upsampled. The sum of all levels goes through a 1×1 convolution.

  Args:
    levels: FPN levels to use, the finest first.
    num_labels: channels of the logits.
    num_filters: channels of each 3×3 convolution, a multiple of `GROUPS`.
    kernel_regularizer: of all convolutions.
    **kwargs: of the Keras layer.
  """

  def __init__(
    self,
    *,
    levels: list[int],
    num_labels: int,
    num_filters: int = 128,
    kernel_regularizer: tf_keras.regularizers.Regularizer | None = None,
    **kwargs,
  ):
    super().__init__(**kwargs)

    def stage(level: int, place: int) -> InTurn:
      conv = tf_keras.layers.Conv2D(
        num_filters,
        3,
        padding='same',
        use_bias=False,
        kernel_initializer='he_normal',
        kernel_regularizer=kernel_regularizer,
      )
      norm = tf_keras.layers.GroupNormalization(GROUPS, epsilon=NORM_EPSILON)
      name = f'level_{level}_stage_{place}'
      return InTurn([conv, norm, tf_keras.layers.ReLU()], name=name)

    self._levels = levels
    self._stages = {
      str(level): [stage(level, place) for place in range(max(1, level - levels[0]))]
      for level in levels
    }
    self._logits = tf_keras.layers.Conv2D(
      num_labels,
      1,
      kernel_initializer=tf_keras.initializers.RandomNormal(stddev=0.01),
      kernel_regularizer=kernel_regularizer,
      dtype='float32',
      name='logits',
    )

  def call(self, features: dict[str, tf.Tensor]) -> tf.Tensor:
    """Predicts logits.

    Args:
      features: [B, H_l, W_l, C] by level, each level half the size of the one before.

    Returns:
      [B, H, W, num_labels] float32 at the finest level's size.
    """
    maps = []
    for level in self._levels:
      x = features[str(level)]
      for stage in self._stages[str(level)]:
        x = stage(x)
        if level != self._levels[0]:
          height, width = height_and_width(x)
          x = tf.image.resize(tf.cast(x, tf.float32), [2 * height, 2 * width])
          x = tf.cast(x, self.compute_dtype)
      maps.append(x)
    return self._logits(tf.add_n(maps))


class ModelGardenSemanticHead(segmentation_heads.SegmentationHead):
  """The Model Garden's semantic head of Panoptic FPN, with the interface of the other heads.

  Args:
    levels: FPN levels to use, the finest first.
    num_labels: channels of the logits.
    num_filters: channels of each 3×3 convolution, a multiple of `GROUPS`.
    num_fpn_filters: channels of the features.
    kernel_regularizer: of all convolutions.
  """

  def __init__(
    self,
    *,
    levels: list[int],
    num_labels: int,
    num_filters: int,
    num_fpn_filters: int,
    kernel_regularizer: tf_keras.regularizers.Regularizer | None = None,
  ):
    super().__init__(
      num_classes=num_labels,
      level=levels[0],
      num_convs=0,
      num_filters=num_filters,
      feature_fusion='panoptic_fpn_fusion',
      decoder_min_level=levels[0],
      decoder_max_level=levels[-1],
      num_decoder_filters=num_fpn_filters,
      kernel_regularizer=kernel_regularizer,
    )

  def call(self, features: dict[str, tf.Tensor]) -> tf.Tensor:
    """Predicts logits; arguments and result are those of `SemanticFPNHead`."""
    return tf.cast(super().call((features, features)), tf.float32)
