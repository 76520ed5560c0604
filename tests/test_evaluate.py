import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from oanet_tf import class_prior, files, report
from oanet_tf.config import experiments
from oanet_tf.config import values as config_values
from oanet_tf.data.categories import COCO_FILE, PanopticCategories
from oanet_tf.model_folder import ModelFolder
from oanet_tf.training import loop
from tests import end_to_end
from tests.commands import evaluate


def run(monkeypatch, capsys, *arguments):
  return end_to_end.run_command(monkeypatch, capsys, evaluate.main, *arguments)


@pytest.fixture
def model_dir(trained):
  return trained[0] / 'model'


def test_scores_all_fusions_in_one_pass(trained, tmp_path, monkeypatch, capsys):
  folder, results = trained
  prior, output = tmp_path / 'prior.json', tmp_path / 'scores'
  end_to_end.run_command(
    monkeypatch, capsys, class_prior.main, '--input_path', f'{folder}/shards/train-*', '--output',
    prior,
  )  # fmt: skip
  code, stdout, _ = run(
    monkeypatch, capsys, '--model_dir', folder / 'model', '--output_dir', output, '--fusions',
    ','.join(config_values.FUSIONS), '--params_override', f'task.model.fusion.class_prior={prior}',
  )  # fmt: skip
  assert code == 0
  assert stdout.splitlines()[0].replace('|', '').split() == list(config_values.FUSIONS)
  written = json.loads((output / 'results.json').read_text())
  assert list(written) == list(config_values.FUSIONS)
  categories = PanopticCategories.from_json(folder / 'model' / 'categories.json')
  # The best weights of this training are its last.
  for method in config_values.MONITORED_FUSIONS:
    assert written[method] == json.loads(json.dumps(results[method]))
  for method in config_values.FUSIONS:
    annotations = json.loads((output / f'{method}.json').read_text())['annotations']
    assert len(annotations) == 3
    for segment in (one for annotation in annotations for one in annotation['segments_info']):
      category = categories.of_id(segment['category_id'])
      assert (segment['label'], segment['isthing']) == (category.name, category.is_thing)
      assert categories.category(segment['label_id']) == category
      assert 0 < segment['score'] <= 1
    assert len(list((output / method).glob('*.png'))) == 3
  branches = json.loads((output / 'branches.json').read_text())
  assert {'box_ap', 'mask_ap', 'stuff_mean_iou'} <= branches.keys()
  assert 'stuff branch: mean IoU' in stdout
  page = tmp_path / 'report.html'
  code, stdout, _ = end_to_end.run_command(
    monkeypatch, capsys, report.main, '--results', output, '--output', page
  )
  assert code == 0 and 'oracle' in page.read_text()
  stuff = [written[method]['Stuff']['n'] for method in config_values.FUSIONS]
  assert min(stuff) > 0


@pytest.mark.slow
def test_writes_to_the_model_folder_unless_told(model_dir, tmp_path, monkeypatch, capsys):
  copied = tmp_path / 'model'
  shutil.copytree(model_dir, copied, ignore=shutil.ignore_patterns('evaluation'))
  override = 'task.model.fusion.stuff_area_limit=100000'
  code, stdout, _ = run(monkeypatch, capsys, '--model_dir', copied, '--params_override', override)
  assert code == 0 and stdout.splitlines()[0].replace('|', '').split() == ['srm', 'heuristic']
  written = json.loads((copied / 'evaluation' / 'results.json').read_text())
  assert written['srm']['Stuff']['pq'] == 0.0


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (['--fusions', 'srm,best'], "'best'"),
    (['--fusions', ''], "''"),
    (['--fusions', 'class_prior'], 'task.model.fusion.class_prior'),
    (
      ['--fusions', 'class_prior', '--params_override', 'task.model.fusion.class_prior=none.json'],
      'none.json',
    ),
    (
      ['--fusions', 'upsnet', '--params_override', 'task.model.stuff_head.object_context=false'],
      'task.model.stuff_head.object_context',
    ),
    (
      ['--params_override', 'task.model.fusion.mehtod=srm'],
      'task.model.fusion.method?',
    ),
    (['--params_override', 'task.validation_data.input_path=none-*'], 'none-*'),
    (['--params_override', f'task.validation_data.input_path={__file__}'], f'{__file__}: '),
    (['--params_override', 'task.categories=none.json'], 'none.json: '),
    (
      ['--params_override', f'task.categories={COCO_FILE}'],
      f'{COCO_FILE}: has other categories',
    ),
  ],
)
def test_what_cannot_be_had_is_told_before_tensorflow_loads(model_dir, flags, message):
  command = [sys.executable, '-m', 'oanet_tf.evaluate', '--model_dir', str(model_dir), *flags]
  done = subprocess.run(command, capture_output=True, text=True)
  assert done.returncode == 2 and message in done.stderr
  assert done.stderr.count('\n') == 1 and done.stderr.startswith('error: ')


def without_tensorflow(*arguments):
  """The one line with which `oanet evaluate` refuses."""
  code = (
    'import runpy, sys\ntry:\n  runpy.run_module("oanet_tf.evaluate", run_name="__main__")\n'
    'finally:\n  assert "tensorflow" not in sys.modules'
  )
  command = [sys.executable, '-c', code, *map(str, arguments)]
  done = subprocess.run(command, capture_output=True, text=True)
  assert done.returncode == 2 and done.stderr.count('\n') == 1
  return done.stderr


def test_instances_are_read_before_tensorflow_loads(trained, tmp_path):
  folder = trained[0]
  path = tmp_path / 'instances.json'
  content = json.loads((folder / 'scenes' / 'annotations' / 'instances_val.json').read_text())
  content['categories'][0]['name'] = 'unheard of'
  path.write_text(json.dumps(content))
  flags = ['--model_dir', folder / 'model', '--instances_json', path]
  error = without_tensorflow(*flags)
  assert f'{path}: ' in error and f'{folder}/model/categories.json' in error
  assert 'unheard of' in error
  path.write_text('{}')
  assert f'{path}: ' in without_tensorflow(*flags)


def test_records_of_other_categories_are_refused(trained, tmp_path, monkeypatch, capsys):
  shards = tmp_path / 'shards'
  shutil.copytree(trained[0] / 'shards', shards)
  path = shards / 'categories.json'
  path.write_text(path.read_text().replace('"id": 31', '"id": 33'))
  outcome = run(
    monkeypatch, capsys, '--model_dir', trained[0] / 'model', '--output_dir', tmp_path / 'o',
    '--params_override', f'task.validation_data.input_path={shards}/val-*',
  )  # fmt: skip
  error = end_to_end.one_line_error(outcome)
  assert f'{path}: has other categories than {trained[0]}/model/categories.json: ' in error
  assert "thing 32 'tie', not thing 31 'bag'" in error


def test_only_an_earlier_evaluation_is_replaced(model_dir, tmp_path):
  (tmp_path / 'mine.txt').write_text('')
  flags = ['--model_dir', model_dir, '--output_dir']
  assert f'{tmp_path}: ' in without_tensorflow(*flags, tmp_path)
  assert f'{model_dir}: ' in without_tensorflow(*flags, model_dir)
  assert 'mine.txt: ' in without_tensorflow(*flags, tmp_path / 'mine.txt')


def test_a_model_folder_without_weights_is_told_before_tensorflow_loads(model_dir, tmp_path):
  for name in ('params.yaml', 'categories.json'):
    shutil.copy(model_dir / name, tmp_path)
  assert f'{tmp_path}: has no checkpoint' in without_tensorflow('--model_dir', tmp_path)


@pytest.mark.slow
def test_scores_given_instances_in_a_folder_that_looks_like_a_pattern(
  trained, tmp_path, monkeypatch, capsys
):
  folder, copied = trained[0], tmp_path / 'lr[0.01]'
  shutil.copytree(folder / 'model', copied, ignore=shutil.ignore_patterns('evaluation'))
  # As if a run before had been interrupted.
  (copied / 'evaluation' / 'srm').mkdir(parents=True)
  (copied / 'evaluation' / '.evaluation.lock').write_text('')
  output = copied / 'evaluation'
  code, _, _ = run(
    monkeypatch, capsys, '--model_dir', copied, '--output_dir', output, '--instances_json',
    folder / 'scenes' / 'annotations' / 'instances_val.json',
  )  # fmt: skip
  assert code == 0
  assert json.loads((output / 'results.json').read_text())['srm'] == json.loads(
    json.dumps(trained[1]['srm'])
  )
  assert {path.name for path in output.iterdir()} == {
    'results.json', 'branches.json', 'details', 'srm', 'srm.json', 'heuristic', 'heuristic.json'
  }  # fmt: skip
  with files.only_one(output, 'evaluation'):
    outcome = run(monkeypatch, capsys, '--model_dir', copied)
  assert f'{output}: another evaluation' in end_to_end.one_line_error(outcome)


@pytest.mark.parametrize(
  'override',
  [
    'spatial_ranking.convolution=1x1',
    'stuff_head.num_convs=3',
  ],
)
def test_changes_that_make_another_network(override, model_dir, tmp_path, monkeypatch, capsys):
  outcome = run(
    monkeypatch, capsys, '--model_dir', model_dir, '--output_dir', tmp_path / 'scores',
    '--params_override', f'task.model.{override}',
  )  # fmt: skip
  assert str(model_dir) in end_to_end.one_line_error(outcome)
  assert not (tmp_path / 'scores').exists()


def test_no_model_folder(tmp_path, monkeypatch, capsys):
  outcome = run(monkeypatch, capsys, '--model_dir', tmp_path)
  assert 'params.yaml' in end_to_end.one_line_error(outcome)


@pytest.fixture(scope='module')
def ranking_module(trained, tmp_path_factory):
  """A training of another ranking module, alone."""
  folder = tmp_path_factory.mktemp('srm') / 'model'
  overrides = (
    f'{end_to_end.training_overrides(trained[0], steps=1)},task.mode=srm_only,'
    'task.model.spatial_ranking.convolution=1x1,task.seed=5'
  )
  loop.run(experiments.load_experiment('oanet_synthetic', (), overrides), folder, 'train')
  return folder


def test_a_ranking_module_of_another_training(model_dir, ranking_module, tmp_path):
  trained, other = (ModelFolder(folder).load() for folder in (model_dir, ranking_module))
  fuser = trained.fuser(['srm'], ranked_by=other)
  kernel, bias = (weight.numpy() for weight in fuser.ranking_module.weights)
  assert kernel.shape[:2] == (1, 1)
  np.testing.assert_array_equal(bias, other.model.spatial_ranking.weights[1])
  images = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8)
  info = tf.constant([[[64, 64], [64, 64], [1, 1], [0, 0]]], tf.float32)
  batch = fuser.batch(trained.model(tf.constant(images), info), info, [64, 64])
  # Where no instance lies, a 1 × 1 convolution gives its bias.
  empty = np.exp(bias) / np.exp(bias).sum()
  distances = np.abs(batch.ranking.map[0] - empty).max(axis=-1)
  assert distances.min() < 1e-6


@pytest.mark.slow
def test_scores_with_a_ranking_module_of_another_training(
  trained, ranking_module, tmp_path, monkeypatch, capsys
):
  code, _, _ = run(
    monkeypatch, capsys, '--model_dir', trained[0] / 'model', '--output_dir', tmp_path / 'scores',
    '--ranking_module', ranking_module,
  )  # fmt: skip
  written = json.loads((tmp_path / 'scores' / 'results.json').read_text())
  assert code == 0 and written['heuristic'] == json.loads(json.dumps(trained[1]['heuristic']))
  outcome = run(
    monkeypatch, capsys, '--model_dir', ranking_module, '--ranking_module', trained[0] / 'model'
  )
  assert str(ranking_module) in end_to_end.one_line_error(outcome)
  outcome = run(
    monkeypatch, capsys, '--model_dir', trained[0] / 'model', '--ranking_module', tmp_path
  )
  assert 'params.yaml' in end_to_end.one_line_error(outcome)
  other = tmp_path / 'other'
  shutil.copytree(ranking_module, other)
  path = other / 'categories.json'
  path.write_text(path.read_text().replace('person', 'human'))
  outcome = run(monkeypatch, capsys, '--model_dir', trained[0] / 'model', '--ranking_module', other)
  assert str(other) in end_to_end.one_line_error(outcome)
