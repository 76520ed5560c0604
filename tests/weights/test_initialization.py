"""Starting points, written by the Model Garden's, Keras' and our own networks."""

import logging
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from official.core import base_trainer, config_definitions
from official.modeling import optimization
from official.vision.configs import image_classification
from official.vision.configs import maskrcnn as maskrcnn_config
from official.vision.modeling import backbones, classification_model, decoders
from official.vision.tasks import maskrcnn as maskrcnn_task

from oanet_tf.config import experiments
from oanet_tf.data.categories import Category, PanopticCategories
from oanet_tf.errors import InputError
from oanet_tf.modeling import build
from oanet_tf.weights.initialization import load_initial_weights
from tests import small_model

PARTS = ('backbone', 'decoder', 'rpn_head', 'detection_head', 'mask_head')
# What every variable holds before it is loaded, and no file.
UNTOUCHED = -7.0


def randomize(layer):
  rng = np.random.default_rng(0)
  for variable in layer.weights:
    variable.assign(rng.uniform(0.1, 0.3, variable.shape))


def clear(model):
  for variable in model.weights:
    variable.assign(tf.fill(variable.shape, UNTOUCHED))
  return model


def untouched(variables):
  return all((variable.numpy() == UNTOUCHED).all() for variable in variables)


def assert_equal(ours, theirs):
  assert len(ours.weights) == len(theirs.weights) > 0
  for mine, other in zip(ours.weights, theirs.weights, strict=True):
    np.testing.assert_array_equal(mine, other)


def build_small(categories, *overrides):
  return build.build_oanet(small_model.small_experiment(*overrides).task.model, categories)


@pytest.fixture(scope='module')
def built(categories):
  return build_small(categories)


@pytest.fixture
def network(built):
  return clear(built)


@pytest.fixture(scope='module')
def unshared(categories):
  """With a backbone and a decoder for the stuff branch."""
  return build_small(categories, 'task.model.sharing=none')


def save_as_the_garden(model, folder):
  """What the Model Garden's trainer keeps, with averaged weights."""
  optimizer = optimization.ExponentialMovingAverage(tf_keras.optimizers.legacy.SGD(momentum=0.9))
  optimizer.shadow_copy(model)
  for variable in model.trainable_variables:
    optimizer.get_slot(variable, 'average').assign(tf.fill(variable.shape, 99.0))
  config = config_definitions.ExperimentConfig(
    task=maskrcnn_config.MaskRCNNTask(), trainer=config_definitions.TrainerConfig()
  )
  trainer = base_trainer.Trainer(config, None, model, optimizer, train=False, evaluate=False)
  return trainer.checkpoint.save(str(folder / 'ckpt'))


def garden_backbone(**changes):
  config = small_model.small_experiment().task.model
  return backbones.factory.build_backbone(
    tf_keras.layers.InputSpec(shape=[None, None, None, 3]),
    config.backbone.replace(resnet=config.backbone.resnet.replace(**changes)),
    config.norm_activation,
  )


@pytest.fixture(scope='module')
def classifier(tmp_path_factory):
  """The Model Garden's classifier with the small network's backbone, and its checkpoint."""
  model = classification_model.ClassificationModel(garden_backbone(), num_classes=10)
  randomize(model)
  return model, save_as_the_garden(model, tmp_path_factory.mktemp('resnet'))


@pytest.fixture(scope='module')
def mask_rcnn(tmp_path_factory):
  """The Model Garden's Mask R-CNN of 5 classes with the small network's parts, its checkpoint."""
  ours = small_model.small_experiment().task.model
  same = ('min_level', 'max_level', 'norm_activation', 'anchor', 'rpn_head', 'detection_head')
  config = maskrcnn_config.MaskRCNN(
    num_classes=5,
    input_size=[64, 64, 3],
    backbone=ours.backbone,
    # By default its FPN adds and enlarges by operations, not layers.
    decoder=ours.decoder.replace(fpn=ours.decoder.fpn.replace(use_keras_layer=False)),
    mask_head=ours.mask_head,
    **{name: getattr(ours, name) for name in same},
  )
  task = maskrcnn_task.MaskRCNNTask(maskrcnn_config.MaskRCNNTask(model=config))
  # AutoGraph, which nothing here needs, would convert all of its layers' code.
  model = tf.autograph.experimental.do_not_convert(task.build_model)()
  randomize(model)
  return model, save_as_the_garden(model, tmp_path_factory.mktemp('mask_rcnn'))


@pytest.mark.parametrize('modules', ['all', 'backbone'])
def test_a_classifier_gives_its_backbone_and_nothing_else_changes(
  modules, network, classifier, caplog
):
  caplog.set_level(logging.INFO, 'oanet_tf')
  reports = load_initial_weights(network, classifier[1], modules)
  assert_equal(network.backbone, classifier[0].backbone)
  count = len(network.backbone.weights)
  assert untouched(v for name in PARTS[1:] for v in getattr(network, name).weights)
  assert untouched(network.stuff_head.weights + network.spatial_ranking.weights)
  assert f'backbone: {count} of {count} variables loaded' in caplog.messages
  if modules == 'backbone':
    assert list(reports) == ['backbone']
  else:
    assert 'decoder: 0 of 32 variables loaded; 32 not in the file' in caplog.messages


def test_every_variable_of_the_network_is_in_a_report(network, classifier):
  reports = load_initial_weights(network, classifier[1])
  listed = sum(len(names) for report in reports.values() for names in report)
  assert listed == len(network.weights)


def test_a_mask_rcnn_gives_all_but_what_depends_on_the_classes(network, mask_rcnn, caplog):
  caplog.set_level(logging.INFO, 'oanet_tf')
  reports = load_initial_weights(network, mask_rcnn[1])
  theirs = {name: getattr(mask_rcnn[0], name) for name in PARTS}
  theirs['detection_head'] = theirs['detection_head'][0]
  for name in PARTS[:3]:
    assert_equal(getattr(network, name), theirs[name])
    assert not reports[name].absent and not reports[name].other_shape
  for name in PARTS[3:]:
    pairs = list(zip(getattr(network, name).weights, theirs[name].weights, strict=True))
    for mine, other in pairs:
      if mine.shape == other.shape:
        np.testing.assert_array_equal(mine, other)
      else:
        assert untouched([mine])
    assert len(reports[name].loaded) == sum(mine.shape == other.shape for mine, other in pairs)
  # 2 things and background here, 5 classes there.
  assert reports['detection_head'].other_shape == {
    '_classifier/kernel': ((32, 3), (32, 5)),
    '_classifier/bias': ((3,), (5,)),
    '_box_regressor/kernel': ((32, 12), (32, 20)),
    '_box_regressor/bias': ((12,), (20,)),
  }
  line = next(line for line in caplog.messages if line.startswith('detection_head'))
  assert line == (
    'detection_head: 12 of 16 variables loaded; '
    '_classifier/kernel is [32, 3] here but [32, 5] in the file, '
    '_classifier/bias is [3] here but [5] in the file, '
    '_box_regressor/kernel is [32, 12] here but [32, 20] in the file and 1 more'
  )


def test_backbone_and_decoder_of_a_mask_rcnn_compute_the_same(network, mask_rcnn):
  load_initial_weights(network, mask_rcnn[1], 'backbone,decoder')
  image = np.random.default_rng(0).normal(size=(1, 64, 64, 3)).astype(np.float32)
  expected = mask_rcnn[0].decoder(mask_rcnn[0].backbone(image))
  for level, features in network.decoder(network.backbone(image)).items():
    np.testing.assert_allclose(features, expected[level], rtol=1e-5)
  assert untouched(v for name in PARTS[2:] for v in getattr(network, name).weights)


def test_the_stuff_branchs_own_parts_start_as_the_instance_branchs(unshared, mask_rcnn):
  load_initial_weights(clear(unshared), mask_rcnn[1], 'backbone,decoder')
  for part in ('backbone', 'decoder'):
    assert_equal(getattr(unshared, part), getattr(mask_rcnn[0], part))
    assert_equal(getattr(unshared, f'stuff_{part}'), getattr(mask_rcnn[0], part))


def test_the_stuff_branchs_own_parts_come_from_a_file_that_has_them(unshared, tmp_path):
  randomize(unshared)
  saved = [variable.numpy() for variable in unshared.weights]
  path = tf.train.Checkpoint(model=unshared).save(str(tmp_path / 'ckpt'))
  load_initial_weights(clear(unshared), path)
  for variable, value in zip(unshared.weights, saved, strict=True):
    np.testing.assert_array_equal(variable, value)


@pytest.mark.slow
def test_our_own_newest_checkpoint_but_for_other_categories(network, tmp_path):
  three = PanopticCategories(
    [Category(number, str(number), number < 4, (number, 0, 0)) for number in range(1, 6)]
  )
  trained = build_small(three)
  checkpoint = tf.train.Checkpoint(model=trained, position=tf.Variable([1, 2]))
  manager = tf.train.CheckpointManager(checkpoint, str(tmp_path), max_to_keep=2)
  manager.save(1)
  randomize(trained)
  manager.save(2)
  reports = load_initial_weights(network, str(tmp_path))
  for part in ('backbone', 'decoder', 'rpn_head'):
    assert_equal(getattr(network, part), getattr(trained, part))
  assert {name: set(report.other_shape) for name, report in reports.items()} == {
    'backbone': set(),
    'decoder': set(),
    'rpn_head': set(),
    'detection_head': {
      f'{layer}/{kind}'
      for layer in ('_classifier', '_box_regressor')
      for kind in ('kernel', 'bias')
    },
    'mask_head': {'_mask_regressor/kernel', '_mask_regressor/bias'},
    'stuff_head': {'_logits/kernel', '_logits/bias'},
    'spatial_ranking': {
      f'_convolutions/{index}/{kind}' for index in (0, 1) for kind in ('kernel', 'bias')
    },
  }
  assert not any(report.absent for report in reports.values())


@pytest.mark.slow
def test_under_a_strategy(categories, classifier):
  strategy = tf.distribute.MirroredStrategy(['/cpu:0'])
  with strategy.scope():
    model = build_small(categories, 'task.model.batch_norm=sync')
  load_initial_weights(model, classifier[1])
  assert_equal(model.backbone, classifier[0].backbone)


def truncate(path):
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def copy_checkpoint(source, folder):
  for path in pathlib.Path(source).parent.glob('ckpt-1.*'):
    shutil.copy(path, folder)
  return folder / 'ckpt-1'


def truncated_data(folder, classifier):
  path = copy_checkpoint(classifier[1], folder)
  truncate(path.with_suffix('.data-00000-of-00001'))
  return path


def truncated_index(folder, classifier):
  path = copy_checkpoint(classifier[1], folder)
  truncate(path.with_suffix('.index'))
  return path


def without_data(folder, classifier):
  path = copy_checkpoint(classifier[1], folder)
  path.with_suffix('.data-00000-of-00001').unlink()
  return path


def text(folder, _):
  (folder / 'notes.index').write_text('weights are on the other disk\n' * 20)
  return folder / 'notes'


def of_tensorflow_1(folder, _):
  with tf.Graph().as_default(), tf.compat.v1.Session() as session:
    tf.compat.v1.get_variable('conv/kernel', [3, 3], use_resource=False)
    session.run(tf.compat.v1.global_variables_initializer())
    return tf.compat.v1.train.Saver().save(session, str(folder / 'v1'))


def of_something_else(folder, _):
  return tf.train.Checkpoint(generator=tf_keras.Sequential(), step=tf.Variable(3)).save(
    str(folder / 'gan')
  )


def other_backbone(folder, _):
  return tf.train.Checkpoint(backbone=garden_backbone(model_id=34)).save(str(folder / 'r34'))


def other_width(folder, _):
  return tf.train.Checkpoint(backbone=garden_backbone(depth_multiplier=0.5)).save(
    str(folder / 'wide')
  )


BAD_CHECKPOINTS = {
  'missing': (lambda folder, _: folder / 'none', 'all', 'checkpoint'),
  'empty folder': (lambda folder, _: folder, 'all', 'checkpoint'),
  'data cut off': (truncated_data, 'all', 'cannot be read'),
  'index cut off': (truncated_index, 'all', 'cannot be read'),
  'no data': (without_data, 'all', 'cannot be read'),
  'text': (text, 'all', 'cannot be read'),
  'TensorFlow 1': (of_tensorflow_1, 'all', 'TensorFlow 2'),
  'no part of ours': (of_something_else, 'all', 'fits'),
  'no backbone': (of_something_else, 'backbone', 'backbone'),
  'no decoder': (lambda _, saved: saved[1], 'backbone,decoder', 'decoder'),
  'deeper': (
    other_backbone,
    'all',
    'layer_with_weights-4/_conv1/kernel is [3, 3, 16, 32] here but [3, 3, 16, 16] ',
  ),
  'wider': (
    other_width,
    'backbone',
    'layer_with_weights-0/kernel is [7, 7, 3, 16] here but [7, 7, 3, 32] ',
  ),
}


@pytest.mark.parametrize('name', BAD_CHECKPOINTS)
def test_a_bad_checkpoint_is_named_in_one_line_and_changes_nothing(
  name, network, classifier, tmp_path
):
  make, modules, message = BAD_CHECKPOINTS[name]
  path = str(make(tmp_path, classifier))
  with pytest.raises(InputError) as error:
    load_initial_weights(network, path, modules)
  assert message in str(error.value) and '\n' not in str(error.value)
  assert name == 'modules' or path in str(error.value)
  assert untouched(network.weights)


def test_another_decoder_is_left_out_of_all_and_refused_by_name(network, tmp_path):
  config = small_model.small_experiment().task.model
  config.decoder.fpn.num_filters = 8
  backbone = garden_backbone()
  decoder = decoders.factory.build_decoder(backbone.output_specs, config)
  path = tf.train.Checkpoint(backbone=backbone, decoder=decoder).save(str(tmp_path / 'ckpt'))
  with pytest.raises(InputError, match=r'task\.model\.decoder'):
    load_initial_weights(network, path, 'backbone,decoder')
  assert untouched(network.weights)
  reports = load_initial_weights(network, f'{path}.index')
  assert_equal(network.backbone, backbone)
  assert untouched(network.decoder.weights) and not reports['decoder'].loaded


def test_a_decoder_with_another_p6_is_refused(classifier, categories, tmp_path):
  """By their numbers, P6's convolution would be taken for that of another level."""
  theirs = build_small(categories, 'task.model.max_level=6', 'task.model.coarse_levels=convolution')
  path = tf.train.Checkpoint(model=theirs).save(str(tmp_path / 'ckpt'))
  ours = clear(build_small(categories, 'task.model.max_level=6'))
  with pytest.raises(InputError, match=r'14 layers.*has 12.*coarse_levels=convolution'):
    load_initial_weights(ours, path)
  assert untouched(ours.weights)
  # A backbone alone fits.
  load_initial_weights(ours, classifier[1], 'backbone')


@pytest.fixture(scope='module')
def coco_network(categories):
  task = experiments.load_experiment('oanet_r50fpn_coco').task
  return build.build_oanet(task.model, categories)


def test_every_norm_has_the_epsilon_of_the_imagenet_checkpoint(coco_network):
  norms = [
    layer
    for part in coco_network.layers
    for layer in part.submodules
    if 'BatchNormalization' in type(layer).__name__
  ]
  # 53 of the backbone, one of each level but P6, which is pooled, and those of the heads.
  assert len(norms) == 69
  expected = image_classification.image_classification_imagenet().task.model.norm_activation
  assert {layer.epsilon for layer in norms} == {expected.norm_epsilon} == {1e-5}


def test_a_resnet_50_of_the_model_gardens_trainer_computes_the_same(coco_network, tmp_path):
  """With small variances, which an epsilon of 1e-4 would change."""
  config = image_classification.image_classification_imagenet().task.model
  theirs = backbones.factory.build_backbone(
    tf_keras.layers.InputSpec(shape=[None, None, None, 3]), config.backbone, config.norm_activation
  )
  rng = np.random.default_rng(0)
  for variable in theirs.weights:
    if 'variance' in variable.name:
      variable.assign(rng.uniform(1e-4, 1e-3, variable.shape))
    elif 'gamma' in variable.name:
      variable.assign(rng.uniform(0.005, 0.02, variable.shape))
  model = classification_model.ClassificationModel(theirs, num_classes=10)
  load_initial_weights(coco_network, save_as_the_garden(model, tmp_path), 'backbone')
  images = tf.random.stateless_uniform([1, 64, 96, 3], (0, 1))
  expected = theirs(images, training=False)
  found = coco_network.backbone(images, training=False)
  for level in '2345':
    scale = float(tf.math.reduce_std(expected[level]))
    assert scale > 0
    np.testing.assert_allclose(found[level], expected[level], atol=1e-4 * scale)


@pytest.mark.slow
def test_a_mobilenet_of_the_model_garden_gives_all_but_its_classifier(categories, tmp_path):
  config = small_model.small_mobile_experiment().task.model
  theirs = backbones.factory.build_backbone(
    tf_keras.layers.InputSpec(shape=[None, None, None, 3]), config.backbone, config.norm_activation
  )
  randomize(theirs)
  model = classification_model.ClassificationModel(theirs, num_classes=10)
  path = tf.train.Checkpoint(backbone=model.backbone).save(str(tmp_path / 'ckpt'))
  network = clear(build.build_oanet(config, categories))
  reports = load_initial_weights(network, path, 'backbone')
  images = tf.random.stateless_uniform([1, 64, 64, 3], (0, 1))
  expected = theirs(images, training=False)
  found = network.backbone(images, training=False)
  assert found.keys() == expected.keys() - {'6'} and len(reports['backbone'].loaded) > 200
  for level, features in found.items():
    np.testing.assert_allclose(features, expected[level], rtol=1e-4, atol=1e-5)
