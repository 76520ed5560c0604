"""What the launchers for clusters hand to each worker."""

import json
import os
import pathlib
import stat
import subprocess

import pytest
import yaml

SCRIPTS = pathlib.Path(__file__).resolve().parents[2] / 'scripts'
# Stands in for Python: tells its TF_CONFIG and its arguments.
TELL = '#!/bin/bash\nprintf "%s\\n" "$TF_CONFIG" "$@" >> "$OUTPUT"\nexit ${CODE:-0}\n'


def executable(path, text):
  path.write_text(text)
  path.chmod(path.stat().st_mode | stat.S_IEXEC)


@pytest.fixture
def slurm(tmp_path):
  """An environment with a Slurm of two machines that start one after the other."""
  executable(
    tmp_path / 'scontrol',
    '#!/bin/bash\nif [ "$1" = show ]; then\n  echo node1; echo node2\n'
    'else\n  echo "$@" >> "$CALLS"\nfi\n',
  )
  executable(
    tmp_path / 'srun',
    '#!/bin/bash\nshift\nfor SLURM_PROCID in 0 1; do export SLURM_PROCID; "$@" || exit $?; done\n',
  )
  executable(tmp_path / 'python', TELL)
  return {
    **os.environ, 'PATH': f'{tmp_path}:{os.environ["PATH"]}', 'PYTHON': str(tmp_path / 'python'),
    'SLURM_JOB_NODELIST': 'node[1-2]', 'SLURM_JOB_ID': '7', 'OUTPUT': str(tmp_path / 'output'),
    'CALLS': str(tmp_path / 'calls'),
  }  # fmt: skip


def run_slurm(environment, *arguments):
  command = ['bash', str(SCRIPTS / 'train_slurm.sh'), *arguments]
  return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_slurm_gives_each_worker_its_place_and_the_arguments(slurm):
  done = run_slurm(slurm, '--model_dir', 'a folder')
  assert done.returncode == 0, done.stderr
  lines = pathlib.Path(slurm['OUTPUT']).read_text().splitlines()
  for index, told in enumerate((lines[:5], lines[5:])):
    assert json.loads(told[0]) == {
      'cluster': {'worker': ['node1:23456', 'node2:23456']},
      'task': {'type': 'worker', 'index': index},
    }
    assert told[1:] == ['-m', 'oanet_tf.train', '--model_dir', 'a folder']
  assert not pathlib.Path(slurm['CALLS']).exists()


@pytest.mark.parametrize(('code', 'requeued'), [(143, True), (2, False)])
def test_slurm_queues_the_job_again_after_a_signal_alone(slurm, code, requeued):
  assert run_slurm({**slurm, 'CODE': str(code)}).returncode == code
  assert pathlib.Path(slurm['CALLS']).exists() == requeued


def test_kubernetes_gives_each_worker_its_place_and_the_arguments(tmp_path):
  service, job = yaml.safe_load_all((SCRIPTS / 'train_kubernetes.yaml').read_text())
  pod = job['spec']['template']['spec']
  (container,) = pod['containers']
  assert pod['subdomain'] == service['metadata']['name']
  executable(tmp_path / 'python', TELL)
  environment = {
    **os.environ, 'PATH': f'{tmp_path}:{os.environ["PATH"]}', 'JOB_COMPLETION_INDEX': '1',
    'OUTPUT': str(tmp_path / 'output'),
  }  # fmt: skip
  subprocess.run([*container['command'], *container['args']], env=environment, check=True)
  told = (tmp_path / 'output').read_text().splitlines()
  config = json.loads(told[0])
  assert config['task'] == {'type': 'worker', 'index': 1}
  names = [f'{job["metadata"]["name"]}-{i}' for i in range(job['spec']['completions'])]
  domain = service['metadata']['name']
  assert config['cluster']['worker'] == [f'{name}.{domain}:23456' for name in names]
  assert told[3:] == container['args']
