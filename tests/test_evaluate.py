import json
import shutil
import subprocess
import sys

import pytest

from oanet_tf import class_prior, config_values, evaluate, report
from tests import end_to_end


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
  # The best weights of this training are its last.
  for method in config_values.FUSION_METHODS:
    assert written[method] == json.loads(json.dumps(results[method]))
  for method in config_values.FUSIONS:
    assert len(json.loads((output / f'{method}.json').read_text())['annotations']) == 3
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
    (['--fusions', 'srm,best'], "there is no fusion 'best'; known are srm, heuristic, class_prior"),
    (['--fusions', ''], "there is no fusion ''"),
    (['--fusions', 'class_prior'], 'python -m oanet_tf.class_prior counts; name it in task.model'),
    (
      ['--fusions', 'class_prior', '--params_override', 'task.model.fusion.class_prior=none.json'],
      'none.json: there is no such file',
    ),
    (
      ['--fusions', 'upsnet', '--params_override', 'task.model.stuff_head.object_context=false'],
      'needs logits of things',
    ),
    (
      ['--params_override', 'task.model.fusion.mehtod=srm'],
      'did you mean task.model.fusion.method',
    ),
    (['--params_override', 'task.validation_data.input_path=none-*'], 'no TFRecord file matches'),
  ],
)
def test_what_cannot_be_had_is_told_before_tensorflow_loads(model_dir, flags, message):
  command = [sys.executable, '-m', 'oanet_tf.evaluate', '--model_dir', str(model_dir), *flags]
  done = subprocess.run(command, capture_output=True, text=True)
  assert done.returncode == 2 and message in done.stderr
  assert done.stderr.count('\n') == 1 and done.stderr.startswith('error: ')


def test_no_model_folder(tmp_path, monkeypatch, capsys):
  outcome = run(monkeypatch, capsys, '--model_dir', tmp_path)
  assert 'is no model folder' in end_to_end.one_line_error(outcome)
