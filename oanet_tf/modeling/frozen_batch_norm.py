"""Batch normalization with fixed statistics and scales, which takes half the memory in training."""

import tensorflow as tf
import tf_keras


class FrozenBatchNormalization(tf_keras.layers.BatchNormalization):
  """As Keras' layer that is not trainable.

  TensorFlow's fused operation has gradients for the scales too, so its input is kept until then.
  With fixed scales it is enough to multiply and add, and nothing is kept. In inference the fused
  operation is better, as TensorFlow makes one of it and the convolution before.
  """

  @classmethod
  def freeze(cls, layer: tf_keras.layers.Layer) -> None:
    """Fixes the statistics and scales of a batch normalization of any kind."""
    layer.trainable = False
    if type(layer) is tf_keras.layers.BatchNormalization and layer.fused:
      # The Model Garden's parts make their layers themselves, and take no other class.
      layer.__class__ = cls

  def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
    """[B, H, W, C] -> [B, H, W, C] of the same type."""
    # In half precision the kept input is half as large, and rounding twice would spoil the result.
    if not training or inputs.dtype != tf.float32:
      return tf.compat.v1.nn.fused_batch_norm(
        inputs, self.gamma, self.beta, self.moving_mean, self.moving_variance, self.epsilon,
        is_training=False,
      )[0]  # fmt: skip
    factor = self.gamma * tf.math.rsqrt(self.moving_variance + self.epsilon)
    return inputs * factor + (self.beta - self.moving_mean * factor)
