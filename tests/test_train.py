import json
import logging
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from oanet_tf import files
from oanet_tf.cluster import Cluster
from oanet_tf.config import experiments
from oanet_tf.model_folder import ModelFolder
from oanet_tf.training import loop, state
from tests import end_to_end
from tests.categories import TIE_ON_PERSON
from tests.commands import run_without_tensorflow, train
from tests.devices import TWO, mirrored
from tests.references import approx


def scalars(folder):
  events = EventAccumulator(str(folder), size_guidance={'tensors': 0})
  events.Reload()
  return {
    tag: {event.step: float(tf.make_ndarray(event.tensor_proto)) for event in events.Tensors(tag)}
    for tag in events.Tags()['tensors']
    if not tag.startswith('image_')
  }


def test_writes_config_categories_checkpoint_and_scores(trained):
  folder, results = trained
  model_dir = folder / 'model'
  saved = experiments.load_experiment('oanet_r50fpn_coco', [model_dir / 'params.yaml'])
  assert saved.trainer.train_steps == 4
  shards = (folder / 'shards' / 'categories.json').read_text()
  assert (model_dir / 'categories.json').read_text() == shards
  assert tf.train.latest_checkpoint(str(model_dir)).endswith('-4')
  assert json.loads((model_dir / 'evaluation' / 'results.json').read_text()) == json.loads(
    json.dumps(results)
  )


def test_tensorboard_has_every_loss_rate_and_quality(trained):
  folder, results = trained
  written = scalars(folder / 'model' / 'train')
  losses = ['rpn_class', 'rpn_box', 'class', 'box', 'mask', 'stuff', 'srm', 'weight_decay']
  tags = [
    *('loss', 'learning_rate', 'images_per_second', 'gradient_norm/instance'),
    *('gradient_norm/stuff', 'step_seconds/input', 'step_seconds/compute', 'step_seconds/total'),
  ]
  for tag in [*tags, *(f'loss_{name}' for name in losses)]:
    assert set(written[tag]) == {2, 4}, tag
    assert all(np.isfinite(value) for value in written[tag].values())
  # After step 2 of a warm-up of 100 steps from 0.004 to 0.04, for batches of 8; these are of 2.
  expected = (0.004 + 2 / 100 * 0.036) * 2 / 8
  assert written['learning_rate'][2] == pytest.approx(expected, rel=1e-4)
  quality = scalars(folder / 'model' / 'validation')
  for method in ('srm', 'heuristic'):
    expected = 100 * results[method]['Stuff']['pq']
    assert quality[f'pq_stuff/{method}'][4] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize('method', ['srm', 'heuristic'])
def test_scores_are_those_of_other_packages_on_the_written_predictions(
  trained, other_scores, method
):
  folder, results = trained
  truth = folder / 'scenes' / 'annotations' / 'panoptic_val.json'
  predicted = folder / 'model' / 'evaluation' / f'{method}.json'
  assert len(json.loads(predicted.read_text())['annotations']) == 3
  expected = approx(other_scores(truth, predicted).result)
  assert {key: results[method][key] for key in expected} == expected


@pytest.mark.slow
def test_goes_on_from_the_checkpoint(trained, tmp_path, caplog):
  folder, _ = trained
  model_dir = tmp_path / 'model'
  shutil.copytree(folder / 'model', model_dir)
  config = experiments.load_experiment(
    'oanet_synthetic', (), end_to_end.training_overrides(folder, steps=5)
  )
  with caplog.at_level(logging.INFO):
    assert loop.run(config, model_dir, 'train') is None
  ours = [record.message for record in caplog.records if record.name.startswith('oanet_tf')]
  assert re.fullmatch(r'training on the CPU \(\d+ cores?\), 1 replica, float32', ours[0])
  assert 'resumed from' in caplog.text and 'ckpt-4' in caplog.text
  assert tf.train.latest_checkpoint(str(model_dir)).endswith('ckpt-5')
  checkpoint = tf.train.load_checkpoint(str(model_dir))
  steps = [n for n in checkpoint.get_variable_to_shape_map() if 'optimizer/iter' in n]
  assert [checkpoint.get_tensor(name) for name in steps] == [5]
  momentum = [n for n in checkpoint.get_variable_to_shape_map() if 'momentum' in n]
  # 6 images of which not all are square: two at a time, in one orientation.
  (position,) = (n for n in checkpoint.get_variable_to_shape_map() if n.startswith('position'))
  ((epoch, place),) = checkpoint.get_tensor(position)
  assert epoch >= 0 and place >= 1 and epoch * 4 + place >= 5
  assert momentum and all(np.isfinite(checkpoint.get_tensor(name)).all() for name in momentum)


@pytest.mark.slow
def test_two_devices_train_on_images_of_both_orientations(trained, tmp_path, monkeypatch):
  """In one graph a device, whatever the shapes that the input gives it."""
  folder, _ = trained
  override = end_to_end.training_overrides(folder, steps=4)
  override += ',task.train_data.output_size=[64,96]'
  config = experiments.load_experiment('oanet_synthetic', (), override)
  steps = []

  def make_step(*arguments):
    steps.append(loop_step(*arguments))
    return steps[0]

  loop_step = loop.make_train_step
  monkeypatch.setattr(loop, 'make_train_step', make_step)
  monkeypatch.setattr(loop.cluster_lib, 'make_cluster', lambda _: Cluster(mirrored(TWO)))
  loop.run(config, tmp_path / 'model', 'train')
  assert tf.train.latest_checkpoint(str(tmp_path / 'model')).endswith('ckpt-4')
  assert steps[0].tracing_count == 1


@pytest.mark.slow
def test_eval_scores_the_newest_checkpoint_alike(trained, monkeypatch, capsys):
  folder, results = trained
  outcome = end_to_end.run_command(
    monkeypatch, capsys, train.main, '--mode', 'eval', '--model_dir', folder / 'model'
  )
  assert outcome[0] == 0
  again = json.loads((folder / 'model' / 'evaluation' / 'results.json').read_text())
  assert again == json.loads(json.dumps(results))


def test_the_backbone_is_loaded_from_a_model_garden_checkpoint(trained, tmp_path):
  folder, _ = trained
  config = experiments.load_experiment(
    'oanet_synthetic', (), end_to_end.training_overrides(folder, steps=1)
  )
  model, _, categories = ModelFolder(folder / 'model').load()
  path = tf.train.Checkpoint(backbone=model.backbone).save(str(tmp_path / 'ckpt'))
  config.task.init_checkpoint = path
  cluster = Cluster(tf.distribute.get_strategy())
  model_of_run = state.create_state(config, categories, tmp_path / 'model', cluster).model
  for loaded, saved in zip(model_of_run.backbone.weights, model.backbone.weights, strict=True):
    np.testing.assert_array_equal(loaded, saved)


BAD_RUNS = {
  'unknown key': (
    ['--params_override', 'trainer.train_step=1'],
    'trainer.train_steps?',
  ),
  'unknown experiment': (['--experiment', 'oanet_coco'], "'oanet_coco'"),
  'empty glob': (
    ['--params_override', 'task.train_data.input_path=nowhere/train-*'],
    'nowhere/train-*: ',
  ),
  'no checkpoint': (['--mode', 'eval'], 'checkpoint'),
  'missing file': (['--config_file', 'nowhere.yaml'], 'nowhere.yaml: '),
  'missing init checkpoint': (
    ['--params_override', 'task.init_checkpoint=nowhere/ckpt-1'],
    'nowhere/ckpt-1: ',
  ),
}


@pytest.mark.parametrize('name', BAD_RUNS)
def test_a_bad_run_says_why_in_one_line(name, trained, tmp_path, monkeypatch, capsys):
  arguments, message = BAD_RUNS[name]
  files = tmp_path / 'good.yaml'
  files.write_text(
    f'task: {{train_data: {{input_path: "{trained[0]}/shards/train-*"}},'
    f' validation_data: {{input_path: "{trained[0]}/shards/val-*"}}}}\n'
  )
  outcome = end_to_end.run_command(
    monkeypatch, capsys, train.main, '--experiment', 'oanet_synthetic', '--model_dir',
    tmp_path / 'model', '--config_file', files, *arguments,
  )  # fmt: skip
  assert message in end_to_end.one_line_error(outcome)
  assert not (tmp_path / 'model').exists()


def test_a_folder_that_is_no_model(tmp_path, monkeypatch, capsys):
  outcome = end_to_end.run_command(
    monkeypatch, capsys, train.main, '--mode', 'eval', '--model_dir', tmp_path
  )
  assert 'params.yaml' in end_to_end.one_line_error(outcome)


@pytest.mark.parametrize('module', ['oanet_tf.train', 'oanet_tf.predict'])
def test_help_answers_without_loading_tensorflow(module):
  done = run_without_tensorflow(module, '--help')
  assert done.returncode == 0 and 'usage: oanet ' in done.stdout


SYNTHETIC = ('--experiment', 'oanet_synthetic')


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ([], 'error: --experiment'),
    ([*SYNTHETIC, '--mode', 'test'], "--mode: invalid choice: 'test'"),
    (['--experiment', 'oanet'], "'oanet'"),
    ([*SYNTHETIC, '--config_file', 'nowhere.yaml'], 'nowhere.yaml: '),
    ([*SYNTHETIC, '--params_override', 'task.sed=1'], 'task.seed?'),
    ([*SYNTHETIC, '--params_override', 'task.seed=x'], "task.seed is 'x'"),
    ([*SYNTHETIC, '--params_override', 'task.seed=-1'], 'task.seed is -1'),
    (['--mode', 'eval'], 'params.yaml'),
  ],
)
def test_a_bad_configuration_is_told_without_loading_tensorflow(arguments, message, tmp_path):
  done = run_without_tensorflow('oanet_tf.train', '--model_dir', tmp_path / 'model', *arguments)
  assert done.returncode == 2 and message in done.stderr and 'Traceback' not in done.stderr
  assert not (tmp_path / 'model').exists()


@pytest.fixture
def some_shards(tmp_path):
  """The override that names them; each holds an empty record."""
  folder = tmp_path / 'shards'
  folder.mkdir()
  for name in ('train-0', 'val-0'):
    (folder / name).write_bytes(bytes(16))
  (folder / 'text').write_text('no record')
  TIE_ON_PERSON.to_json(folder / 'categories.json')
  return (
    f'task.train_data.input_path={folder}/train-*,task.validation_data.input_path={folder}/val-*'
  )


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ('task.train_data.input_path=nowhere-*', 'nowhere-*: '),
    ('task.validation_data.input_path=nowhere-*', 'nowhere-*: '),
    ('task.categories=nowhere.json', 'nowhere.json: '),
    ('task.init_checkpoint=nowhere/ckpt-1', 'nowhere/ckpt-1: '),
    ('task.model.fusion.class_prior=nowhere.json', 'nowhere.json: '),
    ('task.train_data.input_path=shards/text', 'shards/text: '),
    ('task.validation_data.input_path=shards/text', 'shards/text: '),
  ],
)
def test_a_wrong_file_is_told_without_loading_tensorflow(some_shards, change, message, tmp_path):
  change = change.replace('=shards', f'={tmp_path}/shards')
  # A training alone reads no class prior, but what comes after it does.
  mode = 'train' if 'class_prior' in change else 'train_and_eval'
  done = run_without_tensorflow(
    'oanet_tf.train', '--model_dir', tmp_path / 'model', *SYNTHETIC, '--mode', mode,
    '--params_override', f'{some_shards},{change}',
  )  # fmt: skip
  assert done.returncode == 2 and message in done.stderr and done.stderr.count('\n') == 1
  assert not (tmp_path / 'model').exists()


def test_a_model_folder_that_cannot_be_is_told_without_loading_tensorflow(some_shards, tmp_path):
  (tmp_path / 'file').write_text('')
  (tmp_path / 'imported').mkdir()
  (tmp_path / 'imported' / 'import.json').write_text('{}')
  (tmp_path / 'data').mkdir()
  TIE_ON_PERSON.to_json(tmp_path / 'data' / 'categories.json')
  for name in ('file', 'file/below', 'imported', 'data', 'shards'):
    folder = tmp_path / name
    done = run_without_tensorflow(
      'oanet_tf.train', '--model_dir', folder, *SYNTHETIC, '--params_override', some_shards
    )
    assert done.returncode == 2 and f'{folder}: ' in done.stderr and done.stderr.count('\n') == 1


@pytest.mark.parametrize(
  ('mode', 'locked', 'what'),
  [
    ('train', '.', 'training'),
    ('train_and_eval', 'evaluation', 'evaluation'),
    ('eval', 'evaluation', 'evaluation'),
  ],
)
def test_a_second_process_in_a_model_folder_is_refused(
  mode, locked, what, trained, monkeypatch, capsys, tmp_path
):
  folder, _ = trained
  model_dir = tmp_path / 'model'
  shutil.copytree(folder / 'model', model_dir)
  before = sorted(model_dir.rglob('*'))
  override = end_to_end.training_overrides(folder, steps=5)
  with files.only_one(model_dir / locked, what):
    outcome = end_to_end.run_command(
      monkeypatch, capsys, train.main, '--model_dir', model_dir, '--mode', mode, *SYNTHETIC,
      '--params_override', override,
    )  # fmt: skip
  assert f'another {what}' in end_to_end.one_line_error(outcome)
  assert sorted(model_dir.rglob('*')) == before


@pytest.mark.parametrize('modules', ['all', 'backbone,decoder'])
def test_weights_of_as_many_other_categories_are_told(
  trained, tmp_path, caplog, monkeypatch, modules
):
  folder, _ = trained
  model_dir = tmp_path / 'other'
  shutil.copytree(folder / 'model', model_dir)
  path = model_dir / 'categories.json'
  path.write_text(path.read_text().replace('"tie"', '"bow"'))
  categories = ModelFolder(folder / 'model').categories
  config = experiments.load_experiment(
    'oanet_synthetic', (), end_to_end.training_overrides(folder, steps=1)
  )
  config.task.init_checkpoint_modules = modules
  cluster = Cluster(tf.distribute.get_strategy())
  # To build it takes seconds.
  network = state.build_network(config.task, categories)
  monkeypatch.setattr(state, 'build_network', lambda *_: network)
  for init in (model_dir, model_dir / 'ckpt-4', folder / 'model'):
    caplog.clear()
    config.task.init_checkpoint = str(init)
    state.create_state(config, categories, tmp_path / 'model', cluster)
    warned = [one.message for one in caplog.records if one.message.startswith(f'{path}: ')]
    assert len(warned) == (modules == 'all' and init != folder / 'model')
    for message in warned:
      assert "'bow'" in message and "'tie'" in message and categories.source in message


@pytest.fixture
def renamed(trained, tmp_path):
  """The shards of the training, beside categories of which one has another name."""
  folder = tmp_path / 'renamed'
  shutil.copytree(trained[0] / 'shards', folder)
  path = folder / 'categories.json'
  path.write_text(path.read_text().replace('"tie"', '"bow"'))
  return folder


@pytest.mark.parametrize('mode', ['train', 'eval', 'train_and_eval'])
def test_records_of_other_categories_are_refused(
  trained, renamed, mode, tmp_path, monkeypatch, capsys
):
  folder, model_dir = trained[0], trained[0] / 'model'
  split = 'validation_data' if mode == 'eval' else 'train_data'
  outcome = end_to_end.run_command(
    monkeypatch, capsys, train.main, '--experiment', 'oanet_synthetic', '--mode', mode,
    '--model_dir', model_dir, '--config_file', model_dir / 'params.yaml', '--params_override',
    f'task.{split}.input_path={renamed}/*-*.tfrecord',
  )  # fmt: skip
  error = end_to_end.one_line_error(outcome)
  assert f'{renamed}/categories.json: has other categories than {folder}' in error
  assert "'bow', not thing" in error


def test_validation_records_of_other_categories_are_refused(
  trained, renamed, tmp_path, monkeypatch, capsys
):
  outcome = end_to_end.run_command(
    monkeypatch, capsys, train.main, '--experiment', 'oanet_synthetic', '--model_dir',
    tmp_path / 'model', '--config_file', trained[0] / 'model' / 'params.yaml',
    '--params_override', f'task.validation_data.input_path={renamed}/val-*.tfrecord',
  )  # fmt: skip
  error = end_to_end.one_line_error(outcome)
  assert f'{renamed}/categories.json' in error and f'{trained[0]}/shards/categories.json' in error
  assert not (tmp_path / 'model').exists()


def test_training_without_experiment_is_a_usage_error(monkeypatch, capsys):
  outcome = end_to_end.run_command(monkeypatch, capsys, train.main, '--model_dir', 'x')
  assert outcome[0] == 2 and '--experiment is required' in outcome[2]


@pytest.mark.slow
def test_xla_compiles_what_it_can(trained, tmp_path):
  folder, _ = trained
  overrides = end_to_end.training_overrides(folder, steps=5) + ',runtime.enable_xla=true'
  command = [
    *(sys.executable, '-m', 'oanet_tf.train', '--experiment', 'oanet_synthetic', '--mode', 'train'),
    *('--model_dir', tmp_path, '--params_override', f'{overrides},trainer.summary_interval=5'),
  ]
  environment = {**os.environ, 'TF_CPP_MIN_LOG_LEVEL': '0'}
  done = subprocess.run(command, capture_output=True, text=True, env=environment)
  assert done.returncode == 0, done.stderr
  assert 'Compiled cluster using XLA!' in done.stderr
  (record,) = map(json.loads, (tmp_path / 'metrics.jsonl').read_text().splitlines())
  assert record['step'] == 5 and np.isfinite(record['loss'])


@pytest.mark.slow
@pytest.mark.parametrize(
  ('redirection', 'code'), [('| true', 1), ('>/dev/full', 2), ('>&- 2>&-', 0), ('2>&1 | true', 1)]
)
def test_a_training_outlives_its_terminal(trained, tmp_path, redirection, code):
  folder, _ = trained
  command = [
    *(sys.executable, '-m', 'oanet_tf.train', *SYNTHETIC, '--model_dir', tmp_path),
    *('--params_override', end_to_end.training_overrides(folder, steps=2)),
  ]
  shell = f'set -o pipefail; "$@" {redirection}'
  done = subprocess.run(['bash', '-c', shell, 'bash', *command], capture_output=True, text=True)
  assert done.returncode == code and 'Traceback' not in done.stderr
  assert (tmp_path / 'ckpt-2.index').is_file()
  assert (tmp_path / 'evaluation' / 'results.json').is_file()
