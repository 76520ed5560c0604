"""The spatial ranking module alone, trained and judged on annotations."""

import json
import logging
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from oanet_tf import predict
from oanet_tf.cluster import Cluster
from oanet_tf.config import check as config_check
from oanet_tf.config import experiments
from oanet_tf.data import class_prior, convert, inspect, preprocess, tf_example
from oanet_tf.data.occluded_scenes import dataset as occluded_scenes
from oanet_tf.errors import InputError
from oanet_tf.model_folder import ModelFolder
from oanet_tf.modeling import build
from oanet_tf.modeling.fusion.methods import fuse
from oanet_tf.modeling.srm_only import SRMOnly
from oanet_tf.training import loop, losses, state, task
from oanet_tf.weights.initialization import load_initial_weights
from tests import end_to_end, small_model
from tests.commands import evaluate, train

SRM_ONLY = 'task.mode=srm_only'


def experiment(folder, steps, *more):
  overrides = (end_to_end.training_overrides(folder, steps), SRM_ONLY, *more)
  return experiments.load_experiment('oanet_synthetic', (), ','.join(overrides))


def break_images(shards):
  """Makes every picture in the records what no decoder can read."""
  for path in pathlib.Path(shards).glob('*-of-*'):
    records = [
      tf.train.Example.FromString(record.numpy()) for record in tf.data.TFRecordDataset(str(path))
    ]
    with tf.io.TFRecordWriter(str(path)) as writer:
      for record in records:
        record.features.feature['image/encoded'].bytes_list.value[:] = [b'\xff\xd8 broken']
        writer.write(record.SerializeToString())
  # They have other sizes than the conversion gave them.
  for path in pathlib.Path(shards).glob('*_summary.json'):
    path.unlink()


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Shards whose pictures cannot be read."""
  folder = tmp_path_factory.mktemp('srm_only')
  end_to_end.make_shards(folder)
  break_images(folder / 'shards')
  return folder


@pytest.fixture(scope='module')
def trained_srm(folder):
  """A model folder after 4 steps without a picture, and its scores."""
  return folder / 'model', loop.run(experiment(folder, 4), folder / 'model', 'train_and_eval')


def test_trains_and_evaluates_without_decoding_an_image(folder, trained_srm):
  model_dir, results = trained_srm
  assert set(results) == {'srm', 'heuristic', 'oracle'}
  assert (
    json.loads((model_dir / 'evaluation' / 'results.json').read_text()).keys() == results.keys()
  )
  lines = [json.loads(line) for line in (model_dir / 'metrics.jsonl').read_text().splitlines()]
  losses = {name for line in lines for name in line if name.startswith('loss')}
  assert losses == {'loss', 'loss_srm', 'loss_weight_decay'}
  assert not any(name.startswith('gradient_norm') for line in lines for name in line)
  assert json.loads((model_dir / 'best' / 'best.json').read_text())['step'] == 4
  shard = min((folder / 'shards').glob('train-*'))
  (record,) = tf.data.TFRecordDataset(str(shard)).take(1)
  with pytest.raises(tf.errors.InvalidArgumentError):
    tf_example.decode(record)


def test_the_true_stuff_is_the_stuff(trained_srm):
  """Up to the borders, which the coarse grid of the stuff branch blurs."""
  _, results = trained_srm
  assert results['oracle']['Stuff']['pq'] > 0.85
  assert results['oracle']['Things']['pq'] > 0.8


def test_only_the_ranking_module_is_built(folder, trained_srm):
  model_dir, _ = trained_srm
  model, _, categories = ModelFolder(model_dir).load()
  assert isinstance(model, SRMOnly)
  things = categories.num_things
  shapes = sorted(tuple(variable.shape) for variable in model.variables)
  assert shapes == sorted([(1, 7, things, things), (7, 1, things, things), (things,), (things,)])


@pytest.fixture
def without_images(folder, tmp_path):
  """Shards of images in which something conflicts, without the images."""
  annotations = folder / 'scenes' / 'annotations'
  for split in ('train', 'val'):
    convert.convert(
      None,
      annotations / f'panoptic_{split}.json',
      annotations / f'panoptic_{split}',
      tmp_path / 'shards',
      split,
      annotations / f'instances_{split}.json',
      num_workers=1,
      conflicts_only=True,
    )
  return tmp_path


@pytest.mark.slow
def test_shards_without_images_are_enough(without_images):
  results = loop.run(experiment(without_images, 2), without_images / 'model', 'train_and_eval')
  assert set(results) == {'srm', 'heuristic', 'oracle'} and results['oracle']['Things']['n'] > 0


def test_the_loss_counts_nothing_in_the_images_left_out(folder, without_images):
  config = experiment(without_images, 1)
  categories = state.find_categories(config.task, without_images)
  steps = preprocess.srm_training_steps(config.task.train_data, categories, portrait=False)
  module = build.build_srm_only(config.task.model, categories)
  ids = set()
  for path in sorted((without_images / 'shards').glob('train-*')):
    for record in tf.data.TFRecordDataset(str(path)):
      ids.add(tf_example.decode_annotations(record)['source_id'].numpy())
  for path in sorted((folder / 'shards').glob('train-*')):
    for record in tf.data.TFRecordDataset(str(path)):
      example = {**tf_example.decode_annotations(record), 'seed': tf.constant([0, 0], tf.int64)}
      if example['source_id'].numpy() in ids:
        continue
      batch = {key: value[None] for key, value in preprocess.apply(steps, example).items()}
      outputs = module(batch['image'], batch['image_info'], labels=batch, training=True)
      assert losses.srm_only_losses(outputs, batch, config.task)['loss'] == 0.0


def save_untrained(overrides, model_dir):
  """A checkpoint of a whole network."""
  config = experiments.load_experiment('oanet_synthetic', (), overrides)
  categories = state.find_categories(config.task, model_dir)
  new = state.create_state(config, categories, model_dir, Cluster(tf.distribute.get_strategy()))
  state.save_config(new)
  state.save(new)


@pytest.mark.parametrize('mode', ['train', pytest.param('eval', marks=pytest.mark.slow), 'inspect'])
def test_shards_without_images_are_refused_for_all_else(
  mode, folder, without_images, monkeypatch, capsys
):
  if mode == 'inspect':
    main, arguments = inspect.main, [without_images / 'shards' / 'val-*']
    arguments += ['--output_dir', without_images / 'out']
  else:
    overrides = end_to_end.training_overrides(without_images, 1)
    if mode == 'eval':
      save_untrained(overrides, without_images / 'm')
    main, arguments = train.main, ['--experiment', 'oanet_synthetic', '--mode', mode]
    arguments += ['--model_dir', without_images / 'm', '--params_override', overrides]
  line = end_to_end.one_line_error(end_to_end.run_command(monkeypatch, capsys, main, *arguments))
  assert '.tfrecord: record ' in line and 'it has no image' in line and '--image_dir' in line


def weights_of(config, model_dir):
  loop.run(config, model_dir, 'train')
  return [variable.numpy() for variable in ModelFolder(model_dir).load()[0].variables]


@pytest.mark.slow
def test_goes_on_as_if_it_had_not_stopped(folder, tmp_path):
  straight = weights_of(experiment(folder, 4), tmp_path / 'straight')
  weights_of(experiment(folder, 2), tmp_path / 'stopped')
  resumed = weights_of(experiment(folder, 4), tmp_path / 'stopped')
  for one, other in zip(straight, resumed, strict=True):
    np.testing.assert_array_equal(one, other)


def scene(categories, hidden_category=31):
  """A tie on a person who is nine times as large, as the network input of a batch of one."""
  config = small_model.small_experiment(SRM_ONLY, 'task.model.spatial_ranking.convolution=1x1').task
  steps = preprocess.srm_evaluation_steps(
    config.validation_data, categories, 4, np.ones(3, np.float32), portrait=False
  )
  record = {**small_model.TIE_ON_PERSON}
  del record['image']
  example = preprocess.apply(steps, record)
  return config, {key: value[None] for key, value in example.items()}


@pytest.mark.parametrize('on_top', ['tie', 'person'])
def test_the_order_is_the_modules(categories, on_top):
  """With a kernel of my own: what it favours is seen, and nothing else changes."""
  config, batch = scene(categories)
  model = build.build_srm_only(config.model, categories)
  tie = categories.label(31) - 1
  kernel = np.zeros([1, 1, 2, 2], np.float32)
  kernel[0, 0, :, tie] = 5.0 if on_top == 'tie' else -5.0
  model.spatial_ranking.weights[0].assign(kernel)
  info = batch['image_info']
  fusion_batch = build.build_fuser(config, model).batch(
    model(batch['image'], info, labels=batch), info, [64, 64]
  )
  maps = {method: fuse(fusion_batch, method) for method in ('srm', 'heuristic')}
  center = {method: map_.category_mask[0, 28, 20].numpy() for method, map_ in maps.items()}
  person = categories.label(7)
  assert center == {'heuristic': person, 'srm': tie + 1 if on_top == 'tie' else person}
  assert np.all(maps['srm'].category_mask[0, 6:18, 6:14] == person)


def test_evaluation_steps_give_detections_in_order(categories):
  _, batch = scene(categories)
  scores = batch['gt_scores'][0].numpy()
  # 56 × 36 and 20 × 8 of 64 × 64 pixels.
  expected = [0.75 + 0.25 * np.sqrt(2016 / 4096), 0.75 + 0.25 * np.sqrt(160 / 4096)]
  assert scores[:2] == pytest.approx(expected, abs=1e-3) and (scores[2:] == -1).all()
  assert batch['gt_classes'][0, :2].numpy().tolist() == [categories.label(7), categories.label(31)]
  assert not batch['image'].numpy().any() and batch['image'].shape == (1, 64, 64, 3)


def test_crowds_and_pictures_without_objects_are_no_detections(categories):
  config, _ = scene(categories)
  steps = preprocess.srm_evaluation_steps(
    config.validation_data, categories, 4, np.ones(3, np.float32), portrait=False
  )
  for record in (small_model.CROWD, small_model.STUFF, small_model.VOID):
    assert (preprocess.apply(steps, record)['gt_scores'].numpy() == -1).all()


def test_training_examples_are_those_of_the_whole_network(categories):
  """With the same draws, but for what only a detector needs."""
  data = small_model.small_experiment('task.train_data.max_scale=1.5').task
  whole = preprocess.training_steps(data.train_data, data.model, categories, portrait=False)
  alone = preprocess.srm_training_steps(data.train_data, categories, portrait=False)
  for record in (small_model.TIE_ON_PERSON, small_model.CROWD, small_model.VOID):
    expected = preprocess.apply(whole, record)
    for key, value in preprocess.apply(alone, record).items():
      if key != 'image':
        np.testing.assert_array_equal(value, expected[key], key)
      assert value.shape == expected[key].shape and value.dtype == expected[key].dtype


def test_a_whole_network_starts_from_it(trained_srm, folder, caplog):
  model_dir, _ = trained_srm
  model, _, categories = ModelFolder(model_dir).load()
  config = experiments.load_experiment(
    'oanet_synthetic', (), end_to_end.training_overrides(folder, 1)
  )
  whole = build.build_oanet(config.task.model, categories)
  before = whole.backbone.weights[0].numpy()
  with caplog.at_level(logging.INFO):
    reports = load_initial_weights(whole, str(model_dir))
  for one, other in zip(whole.spatial_ranking.weights, model.variables, strict=True):
    np.testing.assert_array_equal(one, other)
  np.testing.assert_array_equal(whole.backbone.weights[0], before)
  assert not reports['backbone'].loaded and len(reports['spatial_ranking'].loaded) == 4
  assert 'spatial_ranking: 4 of 4 variables loaded' in caplog.text


@pytest.mark.parametrize('mode', ['panoptic', 'srm_only'])
def test_a_frozen_backbone_that_no_file_has_is_warned_of(
  mode, trained_srm, folder, tmp_path, caplog
):
  model_dir, _ = trained_srm
  config = experiment(
    folder, 1, f'task.mode={mode},task.model.batch_norm=frozen,task.init_checkpoint={model_dir}'
  )
  categories = state.find_categories(config.task, tmp_path)
  state.create_state(config, categories, tmp_path, Cluster(tf.distribute.get_strategy()))
  warned = [record for record in caplog.records if 'batch norm is frozen' in record.message]
  assert len(warned) == (mode == 'panoptic')


def test_it_starts_from_a_whole_network(categories, tmp_path):
  config = small_model.small_experiment().task
  whole = build.build_oanet(config.model, categories)
  for variable in whole.spatial_ranking.weights:
    variable.assign(tf.fill(variable.shape, 3.0))
  path = tf.train.Checkpoint(model=whole).save(str(tmp_path / 'ckpt'))
  alone = build.build_srm_only(config.model, categories)
  load_initial_weights(alone, path)
  assert all((variable.numpy() == 3.0).all() for variable in alone.variables)
  (tmp_path / 'resnet.h5').touch()
  with pytest.raises(InputError, match=r'resnet\.h5'):
    load_initial_weights(alone, str(tmp_path / 'resnet.h5'))


@pytest.mark.parametrize(
  ('override', 'message'),
  [
    ('task.mode=srm', 'task.mode is .srm.; .*panoptic, srm_only'),
    (f'{SRM_ONLY},task.model.fusion.method=upsnet', 'task.mode=srm_only'),
    (f'{SRM_ONLY},task.init_checkpoint_modules=backbone', 'task.init_checkpoint_modules'),
  ],
)
def test_combinations_that_cannot_be(override, message):
  with pytest.raises(InputError, match=message) as refused:
    config_check.resolve_experiment('oanet_synthetic', (), override)
  assert '\n' not in str(refused.value)


def test_the_model_gardens_trainer_refuses_it():
  with pytest.raises(InputError, match=r'oanet train'):
    task.OANetPanopticTask(small_model.small_experiment(SRM_ONLY).task)


def test_a_dataset_without_things_is_refused(categories):
  stuff = type(categories)([category for category in categories if not category.is_thing])
  with pytest.raises(InputError, match='thing'):
    build.build_srm_only(small_model.small_experiment().task.model, stuff)


def test_prediction_is_refused_in_one_line(trained_srm, tmp_path, monkeypatch, capsys):
  Image.new('RGB', (8, 8)).save(tmp_path / 'a.png')
  outcome = end_to_end.run_command(
    monkeypatch, capsys, predict.main,
    '--model', trained_srm[0], '--images', tmp_path, '--output_dir', tmp_path / 'out',
  )  # fmt: skip
  assert str(trained_srm[0]) in end_to_end.one_line_error(outcome)
  assert not (tmp_path / 'out').exists()


@pytest.mark.slow
def test_the_evaluate_command_compares_orders(folder, trained_srm, tmp_path, monkeypatch, capsys):
  shards = sorted(str(path) for path in (folder / 'shards').glob('train-*'))
  categories = ModelFolder(trained_srm[0]).load()[2]
  prior = tmp_path / 'prior.json'
  class_prior.ClassPrior(categories, np.zeros([categories.num_things] * 2, np.int64)).to_json(prior)
  assert shards
  outcome = end_to_end.run_command(
    monkeypatch, capsys, evaluate.main,
    '--model_dir', trained_srm[0], '--fusions', 'srm,heuristic,class_prior,oracle',
    '--output_dir', tmp_path / 'out', '--params_override', f'task.model.fusion.class_prior={prior}',
  )  # fmt: skip
  assert outcome[0] == 0 and 'oracle' in outcome[1]
  results = json.loads((tmp_path / 'out' / 'results.json').read_text())
  assert set(results) == {'srm', 'heuristic', 'class_prior', 'oracle'}
  for method in ('srm', 'heuristic', 'oracle'):
    assert results[method]['Things'] == trained_srm[1][method]['Things']
  outcome = end_to_end.run_command(
    monkeypatch, capsys, evaluate.main, '--model_dir', trained_srm[0], '--fusions', 'upsnet'
  )
  assert 'upsnet' in end_to_end.one_line_error(outcome)


@pytest.mark.slow
def test_a_short_training_beats_the_heuristic(tmp_path):
  occluded_scenes.generate(tmp_path / 'scenes', num_train=120, num_val=30, image_size=128, seed=5)
  end_to_end.convert_scenes(tmp_path)
  overrides = ','.join(
    [
      f'task.train_data.input_path={tmp_path}/shards/train-*',
      f'task.validation_data.input_path={tmp_path}/shards/val-*',
      'trainer.train_steps=150,trainer.checkpoint_interval=150',
    ]
  )
  config = experiments.load_experiment('srm_only_synthetic', (), overrides)
  results = loop.run(config, tmp_path / 'model', 'train_and_eval')
  quality = {method: scores['Things']['pq'] for method, scores in results.items()}
  assert quality['heuristic'] + 0.2 < quality['srm'] < quality['oracle']
