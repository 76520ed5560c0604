"""The ResNets of `tf_keras.applications` as backbones, for the weights in their `.h5` files."""

import tensorflow as tf
import tf_keras
from official.vision.ops import preprocess_ops

MODELS = {
  50: tf_keras.applications.ResNet50,
  101: tf_keras.applications.ResNet101,
  152: tf_keras.applications.ResNet152,
}
# The means that `tf_keras.applications.resnet.preprocess_input` subtracts from BGR images.
CAFFE_MEAN_BGR = (103.939, 116.779, 123.68)


class KerasResNet(tf_keras.Model):
  """`tf_keras.applications.ResNet50`, 101 or 152 with the interface of the Model Garden's ResNet.

  The input is [B, H, W, 3] float32 RGB, normalized as the Model Garden does. The first layers turn
  it into what Keras' weights expect: BGR in 0–255 minus Keras' mean. The output is a dict of
  features by level, '2' to '5', [B, ⌈H / 2^level⌉, ⌈W / 2^level⌉, 64 · 2^level]. The layers keep
  Keras' names, initial values and epsilon.

  Args:
    model_id: 50, 101 or 152.
    use_sync_bn: whether batch statistics are computed over all replicas instead of each.
    norm_momentum: of the moving statistics.
    kernel_regularizer: of the convolutions.
  """

  def __init__(
    self,
    model_id: int,
    *,
    use_sync_bn: bool = False,
    norm_momentum: float = 0.99,
    kernel_regularizer: tf_keras.regularizers.Regularizer | None = None,
  ):
    def configured(layer: tf_keras.layers.Layer) -> tf_keras.layers.Layer:
      settings = layer.get_config()
      if isinstance(layer, tf_keras.layers.BatchNormalization):
        settings |= {'momentum': norm_momentum, 'synchronized': use_sync_bn}
      if isinstance(layer, tf_keras.layers.Conv2D):
        settings['kernel_regularizer'] = kernel_regularizer
      return type(layer).from_config(settings)

    images = tf_keras.Input([None, None, 3])
    network = MODELS[model_id](include_top=False, weights=None, input_tensor=_caffe_colors(images))
    # The Keras function takes no such settings, and a built layer cannot change them.
    network = tf_keras.models.clone_model(network, clone_function=configured)
    super().__init__(inputs=network.input, outputs=_features_by_level(network))
    self.model_id = model_id


def _caffe_colors(images: tf.Tensor) -> tf.Tensor:
  """[B, H, W, 3] normalized RGB -> BGR in 0–255 minus Keras' mean."""
  mean, deviation = preprocess_ops.MEAN_RGB[::-1], preprocess_ops.STDDEV_RGB[::-1]
  offset = [ours - keras for ours, keras in zip(mean, CAFFE_MEAN_BGR, strict=True)]
  return tf_keras.layers.Rescaling(list(deviation), offset, name='caffe_colors')(images[..., ::-1])


def _features_by_level(network: tf_keras.Model) -> dict[str, tf.Tensor]:
  """The output of the last block of each level; blocks end in `conv<level>_block<number>_out`."""
  return {
    layer.name[len('conv')]: layer.output for layer in network.layers if layer.name.endswith('_out')
  }
