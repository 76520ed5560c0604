"""torchvision's ResNets; its features of an image of even sides are in `weights/test_torchvision`.

The numbers are of torchvision 0.29 with the same weights, for an image of odd sides.
"""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from oanet_tf.config import definitions
from oanet_tf.errors import InputError
from oanet_tf.modeling import build
from oanet_tf.modeling.torch_resnet import BLOCKS, TorchResNet
from oanet_tf.weights.initialization import load_initial_weights
from tests import small_model
from tests.weights.files import write_torch_zip
from tests.weights.torchvision_networks import (
  NETWORKS,
  random_input,
  random_state_dict,
)

DEPTHS = (18, 50)
# By depth and stride: of each level, the deviation and the first channels of the last cell. In
# Detectron2, bottlenecks have the stride in their first convolution; the blocks of 18 have none.
TORCHVISION = {
  (18, '3x3'): {
    '2': (1.458, [3.1895, 2.2831, 0.7847, 1.3532, 3.2515, 1.2663]),
    '3': (2.094, [1.8723, 2.8809, 0.1872, 0.0, 2.3178, 1.4632]),
    '4': (2.479, [0.1817, 3.1581, 5.5034, 0.5589, 0.1691, 0.2392]),
    '5': (2.482, [0.0, 4.1375, 6.5718, 0.9288, 0.6202, 1.0376]),
  },
  (50, '3x3'): {
    '2': (2.331, [2.2266, 0.4315, 1.5452, 1.3457, 2.9154, 0.0]),
    '3': (3.225, [1.6143, 6.8526, 0.0860, 9.0305, 1.3584, 4.5492]),
    '4': (4.213, [3.6710, 3.3036, 0.0, 0.5521, 3.8086, 4.1068]),
    '5': (4.932, [4.3314, 0.0, 3.5077, 11.3764, 0.2573, 0.0]),
  },
  (50, '1x1'): {
    '2': (2.331, [2.2266, 0.4315, 1.5452, 1.3457, 2.9154, 0.0]),
    '3': (3.221, [1.4325, 6.8185, 0.2227, 8.1170, 1.3241, 4.9602]),
    '4': (4.182, [4.2624, 4.5074, 0.0, 0.4862, 3.9440, 4.8444]),
    '5': (4.867, [4.2285, 0.0, 3.4748, 10.1355, 0.0, 0.0]),
  },
}


def write_resnet(path, depth, **changes):
  """torchvision's file of random values, some of them changed."""
  tensors = {**random_state_dict(NETWORKS[f'resnet{depth}']()), **changes}
  write_torch_zip(path, {name: value for name, value in tensors.items() if value is not None})
  return str(path)


def holder(backbone):
  """A network that has nothing but a backbone."""
  network = tf.Module()
  network.backbone = backbone
  return network


def loaded(path, depth, **settings):
  backbone = TorchResNet(depth, **settings)
  report = load_initial_weights(holder(backbone), path, 'backbone')['backbone']
  assert len(report.loaded) == len(backbone.weights)
  return backbone


@pytest.fixture(scope='module')
def files(tmp_path_factory):
  folder = tmp_path_factory.mktemp('torchvision')
  return {depth: write_resnet(folder / f'resnet{depth}.pth', depth) for depth in DEPTHS}


@pytest.fixture(scope='module')
def backbones(files):
  return {depth: loaded(path, depth) for depth, path in files.items()}


@pytest.mark.parametrize(('depth', 'stride_in'), TORCHVISION)
def test_features_of_odd_sides_equal_torchvisions(depth, stride_in, backbones):
  backbone = backbones[depth]
  if stride_in != backbone.stride_in:
    backbone = TorchResNet(depth, stride_in=stride_in)
    backbone.set_weights(backbones[depth].get_weights())
  features = backbone(random_input('image')[:, :75, :93])
  assert list(features) == ['2', '3', '4', '5']
  assert [tuple(value.shape[1:3]) for value in features.values()] == [
    (19, 24), (10, 12), (5, 6), (3, 3)
  ]  # fmt: skip
  for level, (deviation, corner) in TORCHVISION[depth, stride_in].items():
    # The numbers have four digits after the point.
    np.testing.assert_allclose(features[level][0, -1, -1, :6], corner, atol=1e-4 * deviation)
    assert np.std(features[level]) == pytest.approx(deviation, abs=1e-3)


@pytest.mark.parametrize(
  'depth',
  [pytest.param(depth, marks=[pytest.mark.slow] if depth > 50 else []) for depth in BLOCKS],
)
def test_layers_are_named_as_in_detectron2(depth):
  numbers, is_bottleneck = BLOCKS[depth]
  backbone = TorchResNet(depth)
  kernels = {layer.name for layer in backbone.layers if isinstance(layer, tf_keras.layers.Conv2D)}
  norms = {
    layer.name for layer in backbone.layers if isinstance(layer, tf_keras.layers.BatchNormalization)
  }
  blocks = [f'res{level}.{n}' for level, number in enumerate(numbers, 2) for n in range(number)]
  expected = {f'{block}.conv{place}' for block in blocks for place in range(1, 3 + is_bottleneck)}
  # Without bottlenecks, the first level has as many channels as the stem.
  shortcuts = {f'res{level}.0.shortcut' for level in range(2 if is_bottleneck else 3, 6)}
  assert kernels == {'stem.conv1', *expected, *shortcuts}
  assert norms == {f'{name}.norm' for name in kernels}
  # The layers that give a ResNet its name are those with a kernel, and a last one for classes.
  assert len(kernels - shortcuts) + 1 == depth
  widths = [feature.shape[-1] for feature in backbone.output.values()]
  assert widths == [channels * (4 if is_bottleneck else 1) for channels in (64, 128, 256, 512)]


@pytest.mark.parametrize(('stride_in', 'strides'), [('3x3', (1, 2)), ('1x1', (2, 1))])
def test_one_convolution_of_a_bottleneck_moves_by_two_cells(stride_in, strides):
  backbone = TorchResNet(50, stride_in=stride_in)
  for level in (3, 4, 5):
    convs = [backbone.get_layer(f'res{level}.0.conv{place}') for place in (1, 2)]
    assert tuple(conv.strides[0] for conv in convs) == strides
    assert backbone.get_layer(f'res{level}.0.shortcut').strides == (2, 2)
    assert backbone.get_layer(f'res{level}.1.conv1').strides == (1, 1)
  assert backbone.get_layer('res2.0.conv1').strides == (1, 1)


def build_small(categories, batch_norm):
  task = small_model.small_experiment(f'task.model.batch_norm={batch_norm}').task
  task.model.backbone = definitions.Backbone(
    type='torch_resnet', torch_resnet=definitions.TorchResNet(model_id=18)
  )
  return build.build_oanet(task.model, categories)


@pytest.mark.parametrize('batch_norm', ['frozen', 'sync'])
def test_it_trains_with_each_batch_norm(batch_norm, categories, files):
  network = build_small(categories, batch_norm)
  load_initial_weights(network, files[18], 'backbone')
  backbone = network.backbone
  norms = [
    layer for layer in backbone.layers if isinstance(layer, tf_keras.layers.BatchNormalization)
  ]
  assert len(norms) == 20
  assert {layer.synchronized for layer in norms} == {batch_norm == 'sync'}
  assert {(layer.momentum, layer.epsilon) for layer in norms} == {(0.97, 1e-5)}
  mean = norms[0].moving_mean.numpy()
  with tf.GradientTape() as tape:
    features = backbone(random_input('image'), training=True)
    loss = tf.add_n([tf.reduce_mean(level**2) for level in features.values()])
  # 20 kernels; with batch norm as many scales and offsets.
  assert len(backbone.trainable_variables) == (20 if batch_norm == 'frozen' else 60)
  gradients = tape.gradient(loss, backbone.trainable_variables)
  assert all(np.isfinite(gradient).all() and np.any(gradient) for gradient in gradients)
  assert (norms[0].moving_mean.numpy() == mean).all() == (batch_norm == 'frozen')
  inference = backbone(random_input('image'))
  difference = tf.reduce_max(tf.abs(features['5'] - inference['5']))
  # Frozen norms compute alike in both, up to rounding.
  assert (float(difference) < 1e-3) == (batch_norm == 'frozen')


def test_weight_decay_is_on_the_kernels_alone():
  backbone = TorchResNet(18, kernel_regularizer=tf_keras.regularizers.l2(0.5))
  kernels = [weight for weight in backbone.weights if 'kernel' in weight.name]
  assert len(kernels) == len(backbone.losses) == 20
  expected = sum(0.5 * np.sum(kernel.numpy() ** 2) for kernel in kernels)
  assert float(tf.add_n(backbone.losses)) == pytest.approx(expected, rel=1e-5)


BAD_FILES = {
  'a tensor missing': (
    {'layer2.1.conv1.weight': None},
    r'res3\.1\.conv1/kernel is not in the file',
  ),
  'another shape': (
    {'layer2.1.bn1.bias': np.zeros(5, np.float32)},
    r'res3\.1\.conv1\.norm/beta is \[128\] here but \[5\] in the file',
  ),
  'another depth': (
    {'layer4.2.conv1.weight': np.zeros([512, 512, 3, 3], np.float32)},
    'no ResNet of 18, 34, 50, 101, 152 layers',
  ),
}


@pytest.mark.parametrize('name', BAD_FILES)
def test_a_bad_file_is_named_in_one_line_and_changes_nothing(name, tmp_path):
  changes, message = BAD_FILES[name]
  path = write_resnet(tmp_path / 'resnet.pth', 18, **changes)
  backbone = TorchResNet(18)
  before = backbone.get_weights()
  with pytest.raises(InputError, match=message) as error:
    load_initial_weights(holder(backbone), path, 'backbone')
  assert str(error.value).startswith(f'{path}: ') and '\n' not in str(error.value)
  for value, other in zip(backbone.get_weights(), before, strict=True):
    np.testing.assert_array_equal(value, other)


@pytest.mark.parametrize('depth', [34, 50])
def test_a_file_of_another_depth_names_the_setting(depth, files):
  with pytest.raises(InputError, match=r'torch_resnet\.model_id=18,.*stride_in=3x3$'):
    load_initial_weights(holder(TorchResNet(depth)), files[18], 'backbone')


def test_a_file_for_another_stride_names_the_setting(files):
  with pytest.raises(InputError, match=r'type=torch_resnet,.*model_id=50,.*stride_in=3x3$'):
    load_initial_weights(holder(TorchResNet(50, stride_in='1x1')), files[50], 'backbone')
  # Its blocks have only one place for it.
  loaded(files[18], 18, stride_in='1x1')
