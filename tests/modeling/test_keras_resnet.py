import logging
import pathlib
import shutil

import h5py
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from official.vision.modeling.backbones import resnet

from oanet_tf.config import definitions
from oanet_tf.errors import InputError
from oanet_tf.modeling import build, oanet
from oanet_tf.modeling.keras_resnet import KerasResNet
from oanet_tf.weights.initialization import load_initial_weights
from tests import small_model

# What every variable holds before it is loaded, and no file.
UNTOUCHED = -7.0
LAST_BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


def clear(network):
  for variable in network.weights:
    variable.assign(tf.fill(variable.shape, UNTOUCHED))


def untouched(part):
  return all((variable.numpy() == UNTOUCHED).all() for variable in part.weights)


def keras_model(model_id):
  """Keras' own network without top, weights at random, and its features by level."""
  network = getattr(tf_keras.applications, f'ResNet{model_id}')(
    include_top=False, weights=None, input_shape=[None, None, 3]
  )
  rng = np.random.default_rng(0)
  network.set_weights(
    [
      rng.normal(0, 0.02, weight.shape)
      if 'kernel' in weight.name
      else rng.uniform(0.5, 1.5, weight.shape)
      for weight in network.weights
    ]
  )
  outputs = {
    str(level): network.get_layer(f'conv{level}_block{block}_out').output
    for level, block in zip((2, 3, 4, 5), LAST_BLOCKS[model_id], strict=True)
  }
  return network, tf_keras.Model(network.input, outputs)


def assert_same_features(backbone, keras_features, height, width):
  """At each level the largest difference is under 1e-4 of the largest feature."""
  images = np.random.default_rng(1).integers(0, 256, (2, height, width, 3)).astype(np.uint8)
  info = np.tile(np.array([[height, width]] * 2 + [[1, 1], [0, 0]], np.float32), (2, 1, 1))
  ours = backbone(oanet.normalize(tf.constant(images), tf.constant(info)))
  theirs = keras_features(tf_keras.applications.resnet.preprocess_input(images.astype(np.float32)))
  assert list(ours) == ['2', '3', '4', '5']
  for level, expected in theirs.items():
    scale = np.abs(expected).max()
    assert scale > 1.0
    np.testing.assert_allclose(ours[level], expected, rtol=0, atol=1e-4 * scale)


@pytest.fixture(scope='module')
def keras_50():
  return keras_model(50)


@pytest.fixture(scope='module')
def backbone(keras_50):
  """Ours with the same weights, and weight decay."""
  backbone = KerasResNet(50, kernel_regularizer=tf_keras.regularizers.l2(0.5))
  backbone.set_weights(keras_50[0].get_weights())
  return backbone


@pytest.mark.parametrize('size', [(64, 64), (75, 111)])
def test_outputs_equal_keras(size, backbone, keras_50):
  assert_same_features(backbone, keras_50[1], *size)


def test_the_paddings_zero_is_the_mean_color(backbone):
  colors = tf_keras.Model(backbone.input, backbone.get_layer('caffe_colors').output)
  # The Model Garden's mean less Keras', in the order blue, green, red.
  np.testing.assert_allclose(
    colors(np.zeros([1, 2, 3, 3], np.float32))[0, 0, 0],
    [0.406 * 255 - 103.939, 0.456 * 255 - 116.779, 0.485 * 255 - 123.68],
    atol=1e-4,
  )


def test_levels_are_those_of_the_model_gardens_resnet_50(backbone):
  assert {level: feature.shape.as_list() for level, feature in backbone.output.items()} == {
    '2': [None, None, None, 256],
    '3': [None, None, None, 512],
    '4': [None, None, None, 1024],
    '5': [None, None, None, 2048],
  }


def norms(model):
  return [
    layer
    for layer in model.backbone.layers
    if isinstance(layer, tf_keras.layers.BatchNormalization)
  ]


@pytest.fixture(scope='module')
def network(categories):
  return build_small(categories, 'task.model.batch_norm=frozen')


def build_small(categories, *overrides, model_id=50):
  task = small_model.small_experiment(*overrides).task
  task.model.backbone = definitions.Backbone(
    type='keras_resnet', keras_resnet=definitions.KerasResNet(model_id=model_id)
  )
  return build.build_oanet(task.model, categories, task.losses.l2_weight_decay)


@pytest.mark.slow
@pytest.mark.parametrize('batch_norm', ['frozen', 'sync'])
def test_the_backbone_trains_with_each_batch_norm(batch_norm, categories):
  backbone = build_small(categories, f'task.model.batch_norm={batch_norm}').backbone
  norms = [
    layer for layer in backbone.layers if isinstance(layer, tf_keras.layers.BatchNormalization)
  ]
  assert len(norms) == 53
  assert {layer.synchronized for layer in norms} == {batch_norm == 'sync'}
  assert {(layer.momentum, layer.epsilon) for layer in norms} == {(0.97, 1.001e-5)}
  before = norms[0].moving_mean.numpy()
  images = tf.constant(np.random.default_rng(0).normal(size=(1, 64, 64, 3)), tf.float32)
  with tf.GradientTape() as tape:
    features = backbone(images, training=True)
    loss = tf.add_n([tf.reduce_mean(level**2) for level in features.values()])
  gradients = tape.gradient(loss, backbone.trainable_variables)
  assert all(np.isfinite(gradient).all() for gradient in gradients)
  # 53 kernels and their biases; with batch norm as many scales and offsets.
  assert len(gradients) == (106 if batch_norm == 'frozen' else 212)
  assert (norms[0].moving_mean.numpy() == before).all() == (batch_norm == 'frozen')


def test_weight_decay_is_on_the_kernels_alone(backbone):
  kernels = [weight for weight in backbone.weights if 'kernel' in weight.name]
  assert len(kernels) == len(backbone.losses) == 53
  expected = sum(0.5 * np.sum(kernel.numpy().astype(np.float64) ** 2) for kernel in kernels)
  assert float(tf.add_n(backbone.losses)) == pytest.approx(expected, rel=1e-5)


@pytest.fixture(scope='module')
def h5(keras_50, tmp_path_factory):
  """The file that Keras writes."""
  path = tmp_path_factory.mktemp('keras') / 'resnet50_notop.h5'
  keras_50[0].save_weights(path)
  return path


@pytest.mark.parametrize(
  ('top', 'modules'),
  [
    (False, 'all'),
    (True, 'backbone'),
    pytest.param(False, 'backbone', marks=pytest.mark.slow),
    pytest.param(True, 'all', marks=pytest.mark.slow),
  ],
)
def test_weights_of_keras_give_its_outputs(top, modules, network, keras_50, h5, tmp_path, caplog):
  caplog.set_level(logging.INFO, 'oanet_tf')
  clear(network)
  if top:
    h5 = pathlib.Path(shutil.copy(h5, tmp_path))
    add_top(h5)
  load_initial_weights(network, str(h5), modules)
  assert_same_features(network.backbone, keras_50[1], 64, 96)
  # 53 convolutions with bias, 53 norms with 4 variables.
  assert 'backbone: 318 of 318 variables loaded' in caplog.messages
  assert untouched(network.decoder) and untouched(network.mask_head)


@pytest.mark.slow
def test_weights_of_keras_101_give_its_outputs(categories, tmp_path):
  keras, features = keras_model(101)
  keras.save_weights(tmp_path / 'resnet101_notop.h5')
  network = build_small(categories, 'task.model.sharing=none', model_id=101)
  load_initial_weights(network, str(tmp_path / 'resnet101_notop.h5'), 'backbone')
  for backbone in (network.backbone, network.stuff_backbone):
    assert_same_features(backbone, features, 75, 111)


def write_h5(path, names):
  """The layout of `save_weights`, one number a variable."""
  with h5py.File(path, 'w') as file:
    layers = dict.fromkeys(name.split('/')[0] for name in names)
    file.attrs['layer_names'] = [layer.encode() for layer in layers]
    for layer in layers:
      weights = [name for name in names if name.startswith(f'{layer}/')]
      group = file.create_group(layer)
      group.attrs['weight_names'] = [weight.encode() for weight in weights]
      for weight in weights:
        group[weight] = np.zeros([1], np.float32)


def add_top(path):
  with h5py.File(path, 'a') as file:
    file.attrs['layer_names'] = [*file.attrs['layer_names'], 'predictions']
    group = file.create_group('predictions')
    group.attrs['weight_names'] = [b'predictions/kernel:0']
    group['predictions/kernel:0'] = np.zeros([2048, 1000], np.float32)


def of_depth(blocks):
  return lambda path, _: write_h5(
    path, [f'conv4_block{block}_1_conv/kernel:0' for block in range(1, blocks + 1)]
  )


def cut_off(path, h5):
  path.write_bytes(h5.read_bytes()[: h5.stat().st_size // 2])


def without_a_layer(path, h5):
  shutil.copy(h5, path)
  with h5py.File(path, 'a') as file:
    names = [name for name in file.attrs['layer_names'] if name != 'conv5_block3_3_bn']
    file.attrs['layer_names'] = names


def without_names(path, _):
  h5py.File(path, 'w').close()


BAD_FILES = {
  'missing': (lambda path, _: None, 'no such file'),
  'text': (lambda path, _: path.write_text('404 Not Found'), 'cannot be read'),
  'empty': (lambda path, _: path.touch(), 'cannot be read'),
  'cut off': (cut_off, 'cannot be read'),
  'no layers': (without_names, 'weights'),
  'another network': (
    lambda path, _: write_h5(path, ['block1_conv1/kernel:0']),
    'ResNet-50, 101 or 152',
  ),
  'deeper': (
    of_depth(23),
    'task.model.backbone.type=keras_resnet,task.model.backbone.keras_resnet.model_id=101',
  ),
  'a layer missing': (
    without_a_layer,
    'conv5_block3_3_bn/gamma',
  ),
}


@pytest.mark.parametrize('name', BAD_FILES)
def test_a_bad_file_is_named_in_one_line_and_changes_nothing(name, network, h5, tmp_path):
  make, message = BAD_FILES[name]
  path = tmp_path / 'weights.h5'
  make(path, h5)
  clear(network)
  with pytest.raises(InputError) as error:
    load_initial_weights(network, str(path))
  assert str(error.value).startswith(f'{path}: ') and '\n' not in str(error.value)
  assert message in str(error.value)
  assert untouched(network)


def test_keras_weights_for_the_model_gardens_backbone_name_the_settings(categories, h5):
  network = build.build_oanet(small_model.small_experiment().task.model, categories)
  with pytest.raises(InputError, match=r'task\.model\.backbone\.type=keras_resnet,.*model_id=50$'):
    load_initial_weights(network, str(h5))


def test_keras_weights_hold_no_decoder(network, h5):
  with pytest.raises(InputError, match='decoder'):
    load_initial_weights(network, str(h5), 'backbone,decoder')


def test_a_checkpoint_of_the_model_gardens_resnet_is_refused(network, tmp_path):
  garden = resnet.ResNet(50)
  path = tf.train.Checkpoint(backbone=garden).save(str(tmp_path / 'ckpt'))
  with pytest.raises(InputError, match=r'task\.model\.backbone'):
    load_initial_weights(network, path)
