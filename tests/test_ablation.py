import csv
import fcntl
import functools
import os
import pathlib
import subprocess
import sys
import threading

import numpy as np
import pytest
from PIL import Image

from oanet_tf import ablation
from oanet_tf.paper import runs
from tests import end_to_end
from tests.paper.stand_in import Commands


@pytest.fixture
def shards(tmp_path):
  """Overrides that name shards, of which nothing is read."""
  (tmp_path / 'one.tfrecord').touch()
  names = ('train_data', 'validation_data')
  return ','.join(f'task.{name}.input_path={tmp_path}/one.tfrecord' for name in names)


@pytest.fixture
def make(monkeypatch, capsys, tmp_path, shards):
  """Runs the command with a stand-in -> exit code, standard output, standard error."""

  def run(commands, *arguments):
    main = functools.partial(ablation.main, commands)
    return end_to_end.run_command(
      monkeypatch, capsys, main, '--dataset', 'synthetic', '--model_dir', tmp_path / 'paper',
      '--params_override', shards, *arguments,
    )  # fmt: skip

  return run


def trained(commands):
  return [name for module, name, _ in commands.calls if module == 'train']


def test_rows_share_trainings(make, tmp_path):
  commands = Commands()
  code, _, _ = make(commands, '--table', 'all')
  assert code == 0
  names = trained(commands)
  assert len(names) == len(set(names)) == 15
  # The networks with λ = 0.25, with object context and of all of Table 5 are one.
  assert names.count('network') == 1
  assert not (tmp_path / 'paper' / 'table_beyond.md').exists()
  # Of Table 5, the modules alone are trained, and scored on that network.
  assert commands.calls.index(('train', 'network', 'seed_0')) < commands.calls.index(
    ('evaluate', 'srm_3x3', 'seed_0')
  )
  for number in range(1, 6):
    assert (tmp_path / 'paper' / f'table_{number}.md').is_file()


@pytest.mark.slow
def test_options_beyond_the_paper(make, tmp_path):
  make(Commands(), '--table', '1')
  commands = Commands()
  code, stdout, _ = make(commands, '--table', 'beyond')
  assert code == 0
  # The experiment as it is, which Table 1 has as well, is trained already.
  assert 'network' not in trained(commands) and 'beyond_no_stuff_group_norm' in trained(commands)
  # What changes evaluation alone is an evaluation of the same network.
  assert ('evaluate', 'network', 'seed_0') in commands.calls
  folder = tmp_path / 'paper' / 'network' / 'seed_0'
  assert (folder / 'evaluation_beyond_conflicting_pixels' / 'results.json').is_file()
  lines = stdout.splitlines()
  assert lines[4] == '| Methods | PQ | PQ Th | PQ St |'
  # Merged by ranking score, which the stand-in puts 10 above.
  assert lines[6] == '| as it is | 60.0 | 60.0 | 60.0 |'
  assert lines[7].startswith('| stuff head without group norm | 60.0')
  assert (tmp_path / 'paper' / 'table_beyond.png').is_file()
  # With the paper's, nothing is named twice.
  assert make(Commands(), '--table', 'all,beyond,1')[1].count('Table 1.') == 1


def test_a_second_time_nothing_is_done(make, tmp_path):
  make(Commands(), '--table', '2')
  commands = Commands()
  code, stdout, _ = make(commands, '--table', '2,5')
  assert code == 0 and 'Table 2' in stdout and 'Table 5' in stdout
  assert trained(commands) == ['srm_1x1', 'srm_3x3', 'srm_1x7_7x1']


def test_the_table_is_the_papers_beside_ours(make, tmp_path):
  code, stdout, _ = make(Commands(), '--table', '3', '--seeds', '2', '--train_steps', '600')
  assert code == 0
  lines = stdout.splitlines()
  assert lines[0] == '**Table 3. The spatial ranking module**'
  assert lines[2] == 'OccludedScenes, 600 steps, mean ± standard deviation over 2 seeds'
  ours = {line.split(' | ')[0] + line.split(' | ')[1]: line.split(' | ') for line in lines[6:11]}
  # Seeds 0 and 1 have 50 and 52 %; the deviation of two numbers is their distance over √2.
  srm = ours['| w/spatial ranking moduleResNet-18 ×½']
  assert srm[2:5] == ['61.0 ± 1.4'] * 3 and srm[5] == '80.0 ± 0.0'
  assert srm[11:14] == ['39.0', '48.3', '24.9'] and srm[-1] == '32.5 |'
  assert ours['| baselineResNet-34 ×½'][2] == '51.0 ± 1.4'
  with open(tmp_path / 'paper' / 'table_3.csv', newline='') as file:
    rows = list(csv.DictReader(file))
  assert len(rows) == 5 and rows[2]['PQ mean'] == '61.000' and rows[2]['PQ paper'] == '39.000'
  assert rows[2]['PQ standard deviation'] == '1.414' and rows[2]['seeds'] == '2'
  picture = np.asarray(Image.open(tmp_path / 'paper' / 'table_3.png').convert('L'))
  assert (picture < 200).mean() > 0.005


def test_a_training_that_diverges_is_a_dash(make, tmp_path):
  commands = Commands(diverging=('lambda_1.00',))
  code, stdout, _ = make(commands, '--table', '1')
  assert code == 0
  assert '| 1.0 | – | – | – | – | – | – |' in stdout and '–: training diverged' in stdout
  assert ('evaluate', 'lambda_1.00', 'seed_0') not in commands.calls
  found = tmp_path / 'paper' / 'lambda_1.00' / 'seed_0' / 'diverged.txt'
  assert found.read_text() == 'step 7: non-finite loss (nan) in the batch of images 1\n'
  again = Commands()
  make(again, '--table', '1')
  assert not again.calls


def test_a_network_that_diverges_takes_its_ranking_modules_with_it(make):
  commands = Commands(diverging=('network',))
  code, stdout, _ = make(commands, '--table', '5')
  assert code == 0 and stdout.count('| – | – | – |') == 3
  assert not any(module == 'evaluate' for module, *_ in commands.calls)


def test_what_fails_is_named_and_what_there_is_is_shown(make, tmp_path):
  outcome = make(Commands(failing=('lambda_0.33',)), '--table', '1')
  message = end_to_end.one_line_error(outcome)
  assert 'lambda_0.33/seed_0: ' in message and 'shard: is damaged' in message
  # λ = 0.2 and 0.25 came before.
  lines = outcome[1].splitlines()[6:]
  assert lines[1].startswith('| 0.25 | 50.0 |') and lines[2].startswith('| 0.33 |  |')
  commands = Commands()
  make(commands, '--table', '1')
  assert trained(commands) == ['lambda_0.33', 'lambda_0.50', 'lambda_0.75', 'lambda_1.00']


def test_other_settings_in_the_folder_are_refused(make):
  make(Commands(), '--table', '2', '--train_steps', '100')
  commands = Commands()
  message = end_to_end.one_line_error(make(commands, '--table', '2', '--train_steps', '200'))
  assert 'seed_0: ' in message and 'trainer.train_steps 100' in message and '200' in message
  assert not commands.calls


def test_a_dry_run_says_what_is_there(make, tmp_path):
  commands = Commands(diverging=('stuff_only',))
  make(commands, '--table', '2')
  (tmp_path / 'paper' / 'srm_1x1' / 'seed_0').mkdir(parents=True)
  (tmp_path / 'paper' / 'srm_1x1' / 'seed_0' / 'ckpt-800.index').touch()
  before = list(commands.calls)
  code, stdout, _ = make(commands, '--table', '2,5', '--dry_run')
  assert code == 0 and commands.calls == before
  states = {line.split()[0]: line.split('steps')[1].strip() for line in stdout.splitlines()}
  assert states == {
    'stuff_only/seed_0': 'diverged',
    'network/seed_0': 'done',
    'srm_1x1/seed_0': 'started',
    'srm_3x3/seed_0': 'to do',
    'srm_1x7_7x1/seed_0': 'to do',
  }


def test_two_commands_share_the_work(make, tmp_path, monkeypatch):
  """What another process has is waited for, and not done twice."""
  monkeypatch.setattr(runs, '_SECONDS_BETWEEN_LOOKS', 0.05)
  folder = tmp_path / 'paper' / 'stuff_only' / 'seed_0'
  folder.mkdir(parents=True)
  lock = os.open(folder / '.lock', os.O_CREAT | os.O_RDWR)
  fcntl.flock(lock, fcntl.LOCK_EX)
  other, mine = Commands(), Commands()

  class Mine(Commands):
    def train(self, arguments):
      # While this process trains the one network, the other one ends the other.
      result = mine.train(arguments)
      override = arguments[arguments.index('--params_override') + 1]
      config = next(a for a in arguments if a.endswith('oanet_synthetic'))
      assert config
      stuff_only = pathlib.Path(ablation.plan.config_path('stuff_only'))
      other.train(['--experiment', 'oanet_synthetic', '--config_file', str(stuff_only),
                   '--model_dir', str(folder), '--params_override', override])  # fmt: skip
      other.evaluate(['--model_dir', str(folder), '--output_dir', str(folder / 'evaluation')])
      threading.Timer(0.2, os.close, [lock]).start()
      return result

    def evaluate(self, arguments):
      return mine.evaluate(arguments)

  code, stdout, _ = make(Mine(), '--table', '2')
  assert code == 0 and stdout.count('| 50.0 | 50.0 | 50.0 |') == 2
  assert mine.calls == [('train', 'network', 'seed_0'), ('evaluate', 'network', 'seed_0')]


def test_the_schedule_keeps_its_shape(tmp_path, shards):
  for steps, boundaries, warmup in ((120, [100], 10), (1, [1], 0), (12_000, [10_000], 1_000)):
    options = ablation.Options(tmp_path, steps, params_override=shards)
    settings = ablation.plan.Training(
      'network', 'oanet_synthetic', (), 'small', 3, options
    ).settings
    prefix = 'trainer.optimizer_config'
    assert settings[f'{prefix}.learning_rate.stepwise.boundaries'].value == boundaries
    assert settings[f'{prefix}.warmup.linear.warmup_steps'].value == warmup
    assert settings['trainer.train_steps'].value == steps and settings['task.seed'].value == 3


def test_a_cosine_schedule_is_as_long_as_the_training(tmp_path, shards):
  prefix = 'trainer.optimizer_config.learning_rate'
  cosine = f'{prefix}.type=cosine,{prefix}.cosine.initial_learning_rate=0.04'
  cosine += f',{prefix}.cosine.decay_steps=1200'
  options = ablation.Options(tmp_path, 120, params_override=f'{shards},{cosine}')
  training = ablation.plan.Training('network', 'oanet_synthetic', (), 'small', 0, options)
  assert training.settings[f'{prefix}.cosine.decay_steps'].value == 120


def test_each_backbone_starts_from_its_checkpoint(tmp_path):
  options = ablation.Options(tmp_path, init_checkpoints=('r50', 'r101'))
  found = {}
  for row in ablation.TABLES['4'].rows + ablation.TABLES['5'].rows:
    scoring = ablation.plan.scoring_of(row, ablation.DATASETS['coco'], options, 0)
    for training in {scoring.network, scoring.training}:
      names = ('init_checkpoint', 'init_checkpoint_modules')
      found[training.name] = [training.settings[f'task.{name}'].value for name in names]
  assert found['sharing_none'] == found['network'] == ['r50', 'backbone']
  assert found['sharing_none_resnet101'] == found['resnet101'] == ['r101', 'backbone']
  assert found['srm_1x1'] == ['', 'all']


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['--table', '6'], "'6'"),
    (['--table', ''], "''"),
    (['--table', '1', '--seeds', '0'], "--seeds: '0'"),
    (['--table', '1', '--train_steps', '-1'], "--train_steps: '-1'"),
  ],
)
def test_bad_arguments(make, arguments, message):
  code, _, stderr = make(Commands(), *arguments)
  assert code == 2 and message in stderr


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['--config_file', 'none.yaml'], 'none.yaml'),
    (['--params_override', 'task.sed=1'], 'task.seed?'),
    (['--params_override', 'task.train_data.input_path=none-*'], 'none-*'),
  ],
)
def test_what_is_wrong_is_told_before_anything_is_trained(make, arguments, message, tmp_path):
  commands = Commands()
  outcome = make(commands, '--table', '1', *arguments)
  assert message in end_to_end.one_line_error(outcome)
  assert not commands.calls and not (tmp_path / 'paper').exists()


def test_a_command_that_is_interrupted_is_told_and_waited_for(tmp_path):
  """Ctrl-C and SIGTERM let a training write its checkpoint."""
  script = (
    'import signal, sys, time\n'
    'from oanet_tf.paper import runs\n'
    'signal.signal(signal.SIGTERM, signal.default_int_handler)\n'
    "child = 'import signal,sys,time;signal.signal(signal.SIGTERM,lambda *_:(open(sys.argv[1],"
    '"w").close(),sys.exit(143)));print("ready",flush=True);time.sleep(60)\'\n'
    "runs.run_python(['-c', child, sys.argv[1]], 0)\n"
  )
  saved = tmp_path / 'saved'
  process = subprocess.Popen(
    [sys.executable, '-c', script, str(saved)], stderr=subprocess.PIPE, text=True
  )
  assert process.stderr.readline() == 'ready\n'
  process.terminate()
  assert 'KeyboardInterrupt' in process.communicate()[1]
  assert saved.exists()
