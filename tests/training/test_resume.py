"""Training that is stopped and goes on, on real signals."""

import os
import re
import signal
import subprocess
import sys
import time
import types

import numpy as np
import pytest
import tensorflow as tf

from oanet_tf.cluster import Cluster
from oanet_tf.config import experiments
from oanet_tf.data import preprocess
from oanet_tf.errors import InputError
from oanet_tf.training import loop
from tests import end_to_end
from tests.devices import TWO, mirrored

STEPS = 20
STOP = 10


@pytest.fixture(scope='module')
def shards(tmp_path_factory):
  folder = tmp_path_factory.mktemp('resume')
  end_to_end.make_shards(folder, num_train=12, num_shards=2)
  return folder


class Observer:
  """Looks at each step's batch, and does something at one of them."""

  def __init__(self, monkeypatch, step=0, action=None):
    """Takes the step and what to do there."""
    self.seen = []
    original = loop.check_finite

    def look(losses, micro_batches, state):
      self.seen.append(preprocess.source_ids(micro_batches[0]['source_id'].numpy()))
      if state.step == step:
        action(losses, state)
      original(losses, micro_batches, state)

    monkeypatch.setattr(loop, 'check_finite', look)


def config_of(folder, *overrides, steps=STEPS):
  text = end_to_end.training_overrides(folder, steps)
  return experiments.load_experiment(
    'oanet_synthetic', (), ','.join([text, 'trainer.summary_interval=100', *overrides])
  )


def values(path):
  reader = tf.train.load_checkpoint(str(path))
  return {
    name: reader.get_tensor(name)
    for name in reader.get_variable_to_shape_map()
    if 'OBJECT_GRAPH' not in name and 'save_counter' not in name
  }


@pytest.mark.slow
def test_stopped_and_resumed_is_bit_identical_to_undisturbed(shards, tmp_path, monkeypatch, capsys):
  config = config_of(shards)
  undisturbed = Observer(monkeypatch)
  loop.run(config, tmp_path / 'undisturbed', 'train')
  monkeypatch.undo()
  first = Observer(monkeypatch, STOP, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
  with pytest.raises(SystemExit) as stop:
    loop.run(config, tmp_path / 'stopped', 'train')
  assert stop.value.code == 128 + signal.SIGTERM
  assert f'stopped by SIGTERM after step {STOP}' in capsys.readouterr().out
  monkeypatch.undo()
  second = Observer(monkeypatch)
  loop.run(config, tmp_path / 'stopped', 'train')
  assert first.seen + second.seen == undisturbed.seen
  assert len(first.seen) == STOP and len(undisturbed.seen) == STEPS
  expected = values(tmp_path / 'undisturbed' / f'ckpt-{STEPS}')
  found = values(tmp_path / 'stopped' / f'ckpt-{STEPS}')
  assert found.keys() == expected.keys()
  assert any('momentum' in name for name in found) and any('positions' in name for name in found)
  for name, value in expected.items():
    np.testing.assert_array_equal(found[name], value, err_msg=name)


@pytest.mark.parametrize(
  ('step', 'is_logged', 'expected'),
  [
    (0, False, None),
    (2, False, None),
    (3, False, 'logs'),  # Stopped after the checkpoint of step 3, before its scores.
    (3, True, None),
    (4, False, None),
    (6, False, 'logs'),
    (6, True, 'does not log'),
    (8, True, 'does not log'),  # With more steps before than now.
  ],
)
def test_what_a_resumed_training_evaluates_first(step, is_logged, expected, monkeypatch):
  log = types.SimpleNamespace(has_scores={step: is_logged}.get)
  trainer = types.SimpleNamespace(train_steps=6, validation_interval=3)
  state = types.SimpleNamespace(
    step=step,
    config=types.SimpleNamespace(trainer=trainer),
    cluster=types.SimpleNamespace(any_worker=bool),
  )
  monkeypatch.setattr(loop, 'validate', lambda state, log, best: 'logs' if log else 'does not log')
  assert loop.resumed_evaluation(state, log, None) == expected


@pytest.mark.slow
def test_a_seed_fixes_a_deterministic_training(shards, tmp_path):
  """In processes of their own, since a process stays deterministic; of the quickstart's network."""
  overrides = ','.join(
    f'task.{split}.input_path={shards}/shards/{name}-*'
    for split, name in (('train_data', 'train'), ('validation_data', 'val'))
  )
  overrides += ',trainer.train_steps=4,trainer.checkpoint_interval=4,runtime.deterministic=true'
  for name in ('first', 'second'):
    command = [
      sys.executable, '-m', 'oanet_tf.train', '--experiment', 'oanet_synthetic', '--mode', 'train',
      '--model_dir', str(tmp_path / name), '--params_override', overrides,
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
  first, second = (values(tmp_path / name / 'ckpt-4') for name in ('first', 'second'))
  assert first.keys() == second.keys()
  for name, value in first.items():
    np.testing.assert_array_equal(second[name], value, err_msg=name)


def test_several_replicas_are_not_deterministic(shards):
  config = config_of(shards, 'runtime.deterministic=true,task.train_data.global_batch_size=2')
  cluster = Cluster(mirrored(TWO))
  with pytest.raises(InputError, match=r'runtime\.deterministic is true, .* these are 2'):
    loop.check_deterministic(config, cluster)


@pytest.mark.slow
def test_a_signal_gets_through_while_a_shard_hangs(tmp_path):
  end_to_end.make_shards(tmp_path, num_train=3)
  model_dir = tmp_path / 'model'
  with subprocess.Popen(
    [sys.executable, '-m', 'oanet_tf.train', '--experiment', 'oanet_synthetic', '--mode', 'train',
     '--model_dir', str(model_dir),
     '--params_override', end_to_end.training_overrides(tmp_path, 10**6)],
    stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
  ) as training:  # fmt: skip
    while not list(model_dir.glob('ckpt-*.index')):
      assert training.poll() is None
      time.sleep(0.1)
    # A drive that does not answer, when the next epoch opens the file.
    (shard,) = (tmp_path / 'shards').glob('train-*')
    shard.unlink()
    os.mkfifo(shard)
    saved = None
    while (newest := sorted(model_dir.glob('ckpt-*.index'))) != saved:
      saved = newest
      time.sleep(10)
    training.terminate()
    output, _ = training.communicate(timeout=120)
  assert training.returncode == 128 + signal.SIGTERM
  (step,) = re.findall(r'stopped by SIGTERM after step (\d+), with a checkpoint', output)
  assert (model_dir / f'ckpt-{step}.index').exists()


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_training(shards, tmp_path, monkeypatch):
  observer = Observer(monkeypatch, 5, lambda losses, _: losses.update(loss_srm=float('nan')))
  with pytest.raises(InputError) as error:
    loop.run(config_of(shards), tmp_path / 'model', 'train')
  message = str(error.value)
  assert message.startswith('step 5: ') and 'loss_srm (nan)' in message and '\n' not in message
  for source_id in observer.seen[-1]:
    assert source_id in message
  assert 'ckpt-3' in message
  assert sorted(path.name for path in (tmp_path / 'model').glob('*.index')) == ['ckpt-3.index']


@pytest.mark.slow
def test_weights_that_are_not_finite_are_not_saved(shards, tmp_path, monkeypatch):
  def spoil(_, state):
    variable = state.model.stuff_head.trainable_variables[0]
    variable.assign(tf.fill(variable.shape, float('inf')))

  Observer(monkeypatch, 6, spoil)
  with pytest.raises(InputError, match=r'step 6: .* finite.*ckpt-3'):
    loop.run(config_of(shards), tmp_path / 'model', 'train')
  assert not (tmp_path / 'model' / 'ckpt-6.index').exists()


def test_a_checkpoint_of_other_settings_is_refused(trained):
  folder, _ = trained
  config = experiments.load_experiment(
    'oanet_synthetic',
    (),
    end_to_end.training_overrides(folder, steps=8) + ',task.model.stuff_head.num_filters=32',
  )
  with pytest.raises(InputError, match='ckpt-4: '):
    loop.run(config, folder / 'model', 'train')
