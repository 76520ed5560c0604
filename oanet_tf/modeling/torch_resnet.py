"""The ResNets of torchvision and Detectron2 as backbones, for the weights in their files."""

import tensorflow as tf
import tf_keras

# Depth -> number of blocks on each level, and whether they are bottlenecks (He et al., Deep
# Residual Learning for Image Recognition, Table 1).
BLOCKS = {
  18: ((2, 2, 2, 2), False),
  34: ((3, 4, 6, 3), False),
  50: ((3, 4, 6, 3), True),
  101: ((3, 4, 23, 3), True),
  152: ((3, 8, 36, 3), True),
}
NORM_EPSILON = 1e-5


class TorchResNet(tf_keras.Model):
  """A ResNet with PyTorch's symmetric padding and the interface of the Model Garden's ResNet.

  The Model Garden's pads strided convolutions by 'same', which is a cell off where sides are even,
  so weights that PyTorch trained do not fit it. The input is [B, H, W, 3] float32 RGB, normalized
  as the Model Garden and torchvision do; Detectron2's colours are a matter of the first kernel. The
  output is a dict of features by level, '2' to '5', [B, ⌈H / 2^level⌉, ⌈W / 2^level⌉, …]. Layers
  are named as in Detectron2, such as 'res2.0.conv1' and 'res2.0.conv1.norm'.

  Args:
    model_id: a key of `BLOCKS`.
    stride_in: the convolution of a bottleneck that moves by two cells, '3x3' or the first '1x1'.
    use_sync_bn: whether batch statistics are computed over all replicas instead of each.
    norm_momentum: of the moving statistics.
    kernel_regularizer: of the convolutions.
  """

  def __init__(
    self,
    model_id: int,
    *,
    stride_in: str = '3x3',
    use_sync_bn: bool = False,
    norm_momentum: float = 0.9,
    kernel_regularizer: tf_keras.regularizers.Regularizer | None = None,
  ):
    def conv_norm(
      x: tf.Tensor, name: str, filters: int, kernel_size: int, stride: int = 1
    ) -> tf.Tensor:
      if kernel_size > 1:
        x = tf_keras.layers.ZeroPadding2D(kernel_size // 2, name=f'{name}.pad')(x)
      x = tf_keras.layers.Conv2D(
        filters,
        kernel_size,
        stride,
        use_bias=False,
        kernel_initializer='he_normal',
        kernel_regularizer=kernel_regularizer,
        name=name,
      )(x)
      return tf_keras.layers.BatchNormalization(
        momentum=norm_momentum,
        epsilon=NORM_EPSILON,
        synchronized=use_sync_bn,
        name=f'{name}.norm',
      )(x)

    blocks, is_bottleneck = BLOCKS[model_id]
    images = tf_keras.Input([None, None, 3])
    x = _relu(conv_norm(images, 'stem.conv1', 64, 7, stride=2), 'stem.relu')
    # The values are not negative, so zeros in the padding are never the largest.
    x = tf_keras.layers.ZeroPadding2D(1, name='stem.pool.pad')(x)
    x = tf_keras.layers.MaxPool2D(3, 2, name='stem.pool')(x)
    features = {}
    for level, number in enumerate(blocks, start=2):
      filters = 64 * 2 ** (level - 2)
      for index in range(number):
        block, stride = f'res{level}.{index}', 2 if level > 2 and index == 0 else 1
        outer = filters * (4 if is_bottleneck else 1)
        shortcut = x
        if index == 0 and (stride > 1 or outer != x.shape[-1]):
          shortcut = conv_norm(x, f'{block}.shortcut', outer, 1, stride)
        # For each convolution: filters, kernel size and stride.
        convs = ((filters, 3, stride), (filters, 3, 1))
        if is_bottleneck:
          first, second = (stride, 1) if stride_in == '1x1' else (1, stride)
          convs = ((filters, 1, first), (filters, 3, second), (outer, 1, 1))
        for place, settings in enumerate(convs, start=1):
          x = conv_norm(x, f'{block}.conv{place}', *settings)
          if place < len(convs):
            x = _relu(x, f'{block}.relu{place}')
        x = _relu(tf_keras.layers.Add(name=f'{block}.add')([x, shortcut]), f'{block}.out')
      features[str(level)] = x
    super().__init__(inputs=images, outputs=features)
    self.model_id = model_id
    self.stride_in = stride_in


def _relu(x: tf.Tensor, name: str) -> tf.Tensor:
  return tf_keras.layers.ReLU(name=name)(x)
