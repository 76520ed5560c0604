"""Two processes on this machine that train together."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest

from oanet_tf import cluster
from oanet_tf.errors import InputError
from tests import end_to_end

# So long nothing may hang.
PATIENCE = 300


def free_ports(number):
  sockets = [socket.socket() for _ in range(number)]
  for one in sockets:
    one.bind(('localhost', 0))
  ports = [one.getsockname()[1] for one in sockets]
  for one in sockets:
    one.close()
  return ports


class Workers:
  """`python -m oanet_tf.train` as often as there are workers."""

  def __init__(self, folder, model_dir, overrides, mode, number=2):
    """Starts them, each with a folder for its temporary files."""
    addresses = [f'localhost:{port}' for port in free_ports(number)]
    self.temporary = [folder / f'temporary_{index}' for index in range(number)]
    self.logs = [folder / f'log_{index}' for index in range(number)]
    self.processes = []
    for index in range(number):
      # A worker that was killed leaves something there.
      shutil.rmtree(self.temporary[index], ignore_errors=True)
      self.temporary[index].mkdir()
      task = {'cluster': {'worker': addresses}, 'task': {'type': 'worker', 'index': index}}
      environment = {
        **os.environ, 'TF_CONFIG': json.dumps(task), 'TMPDIR': str(self.temporary[index]),
      }  # fmt: skip
      command = [
        *(sys.executable, '-m', 'oanet_tf.train', '--experiment', 'oanet_synthetic'),
        *('--model_dir', str(model_dir), '--mode', mode, '--params_override', overrides),
      ]
      with open(self.logs[index], 'w') as log:
        process = subprocess.Popen(
          command, env=environment, stdout=log, stderr=subprocess.STDOUT, cwd=folder
        )
      self.processes.append(process)

  def wait(self):
    """-> their exit codes and what they said."""
    codes = [process.wait(PATIENCE) for process in self.processes]
    return codes, [log.read_text() for log in self.logs]

  def stop(self):
    for process in self.processes:
      process.kill()


def wait_for(path, processes):
  start = time.monotonic()
  while not path.exists():
    assert all(process.poll() is None for process in processes), 'a worker ended too early'
    assert time.monotonic() - start < PATIENCE
    time.sleep(0.2)


@pytest.fixture(scope='module')
def shards(tmp_path_factory):
  folder = tmp_path_factory.mktemp('workers')
  end_to_end.make_shards(folder, num_train=12, num_shards=2)
  return folder


@pytest.mark.slow
def test_two_workers_lose_one_go_on_and_score_as_one_would(shards):
  model_dir = shards / 'model'
  overrides = end_to_end.training_overrides(shards, steps=10_000)
  overrides += ',trainer.summary_interval=100'
  workers = Workers(shards, model_dir, overrides, 'train')
  try:
    wait_for(model_dir / 'ckpt-3.index', workers.processes)
    workers.processes[1].send_signal(signal.SIGKILL)
    lost = time.monotonic()
    codes, logs = workers.wait()
  finally:
    workers.stop()
  print(f'the other worker stopped {time.monotonic() - lost:.0f} s after')
  assert codes == [2, -signal.SIGKILL]
  (error,) = re.findall('^error: .*$', logs[0], re.MULTILINE)
  assert 'worker 0: another worker is gone' in error and 'Traceback' not in logs[0]

  steps = max(int(p.stem.removeprefix('ckpt-')) for p in model_dir.glob('ckpt-*.index')) + 2
  overrides = end_to_end.training_overrides(shards, steps) + ',trainer.summary_interval=100'
  workers = Workers(shards, model_dir, overrides, 'train_and_eval')
  try:
    codes, logs = workers.wait()
  finally:
    workers.stop()
  assert codes == [0, 0], logs
  assert all(f'resumed from {model_dir}/ckpt-{steps - 2}' in log for log in logs)
  assert (model_dir / f'ckpt-{steps}.index').exists()
  # The other one neither wrote nor left anything, nor said what the chief says.
  assert not list(workers.temporary[1].rglob('*')) and 'PQ' not in logs[1]
  events = [path.name for path in model_dir.rglob('events.*')]
  assert len(events) == len(list((model_dir / 'validation').iterdir()))
  scores = json.loads((model_dir / 'evaluation' / 'results.json').read_text())
  best = json.loads((model_dir / 'best' / 'best.json').read_text())
  assert best['step'] == steps and best['value'] == 100 * scores['srm']['All']['pq']

  alone = Workers(shards, model_dir, overrides, 'eval', number=1)
  codes, logs = alone.wait()
  assert codes == [0], logs
  assert json.loads((model_dir / 'evaluation' / 'results.json').read_text()) == scores


@pytest.mark.slow
def test_a_worker_that_waits_for_another_can_be_stopped(shards):
  model_dir = shards / 'waiting'
  overrides = end_to_end.training_overrides(shards, steps=2)
  workers = Workers(shards, model_dir, overrides, 'train')
  try:
    workers.processes[1].kill()
    start = time.monotonic()
    while 'Started server' not in workers.logs[0].read_text():
      assert time.monotonic() - start < PATIENCE
      time.sleep(0.2)
    workers.processes[0].send_signal(signal.SIGINT)
    codes, _ = workers.wait()
  finally:
    workers.stop()
  assert codes == [-signal.SIGINT, -signal.SIGKILL]


@pytest.mark.parametrize(
  'text',
  ['{', '[]', '{"cluster": 3}', '{"cluster": {"worker": ["a:1", "b:2"]}}',
   '{"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": 2}}',
   '{"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "evaluator", "index": 0}}',
   '{"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": "x"}}'],
)  # fmt: skip
def test_a_bad_tf_config_says_so(text, monkeypatch):
  monkeypatch.setenv('TF_CONFIG', text)
  with pytest.raises(InputError, match='TF_CONFIG') as error:
    cluster._read_tf_config()
  assert '\n' not in str(error.value)


@pytest.mark.parametrize(
  ('text', 'expected'),
  [
    ('', (1, 0)),
    ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 0}}', (1, 0)),
    ('{"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": 1}}', (2, 1)),
    (
      '{"cluster": {"chief": ["c:0"], "worker": ["a:1"]}, "task": {"type": "worker", "index": 0}}',
      (2, 1),
    ),
  ],
)
def test_the_place_in_tf_config(text, expected, monkeypatch):
  monkeypatch.setenv('TF_CONFIG', text)
  assert cluster._read_tf_config() == expected
