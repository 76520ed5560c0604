"""What the launcher hands to Docker, and the batching it asks for."""

import os
import pathlib
import re
import shutil
import subprocess

import pytest

SCRIPTS = pathlib.Path(__file__).resolve().parents[2] / 'scripts'
MEMORY = [
  '--env', 'TF_ONEDNN_USE_SYSTEM_ALLOCATOR=1', '--env', 'MALLOC_MMAP_THRESHOLD_=1048576',
]  # fmt: skip


@pytest.fixture
def docker(tmp_path):
  """An environment whose `docker` tells its arguments."""
  program = tmp_path / 'bin' / 'docker'
  program.parent.mkdir()
  program.write_text('#!/bin/bash\nprintf "%s\\n" "$@"\n')
  program.chmod(0o755)
  return {'PATH': f'{program.parent}:{os.environ["PATH"]}'}


@pytest.fixture
def export_dir(tmp_path):
  folder = tmp_path / 'an export'
  (folder / 'savedmodel' / '12').mkdir(parents=True)
  (folder / 'savedmodel' / '12' / 'saved_model.pb').touch()
  return folder


def serve(environment, *arguments, cwd=None):
  command = [shutil.which('bash'), str(SCRIPTS / 'serve_docker.sh'), *map(str, arguments)]
  return subprocess.run(command, env=environment, capture_output=True, text=True, cwd=cwd)


def test_serves_the_export(docker, export_dir):
  done = serve({**docker, 'REST_PORT': '9001'}, export_dir.name, cwd=export_dir.parent)
  assert done.returncode == 0, done.stderr
  assert done.stdout.splitlines() == [
    'run', '--rm', '--init', '--publish', '8500:8500', '--publish', '9001:8501', '--volume',
    f'{export_dir}/savedmodel:/models/oanet:ro', '--env', 'MODEL_NAME=oanet',
    *MEMORY, 'tensorflow/serving:2.20.0',
  ]  # fmt: skip


def test_batching_and_gpu(docker, export_dir):
  told = serve(docker, '--batching', export_dir, '--gpu').stdout.splitlines()
  config = SCRIPTS / 'serving_batching.config'
  assert told[-11:] == [
    '--volume', f'{config}:/batching.config:ro', '--gpus', 'all', *MEMORY,
    'tensorflow/serving:2.20.0-gpu',
    '--enable_batching', '--batching_parameters_file=/batching.config',
  ]  # fmt: skip
  own = serve({**docker, 'IMAGE': 'mine'}, export_dir, '--gpu').stdout.splitlines()
  assert own[-1] == 'mine'


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ([], 'usage: '),
    (['--batch', 'exports'], 'usage: '),
    (['exports', 'more'], 'usage: '),
    (['exports'], 'error: exports: '),
  ],
)
def test_bad_arguments(docker, tmp_path, arguments, message):
  (tmp_path / 'exports' / 'savedmodel' / '.1.part').mkdir(parents=True)
  done = serve(docker, *arguments, cwd=tmp_path)
  assert done.returncode == 2 and done.stderr.startswith(message) and not done.stdout


def test_no_docker(export_dir):
  done = serve({'PATH': str(export_dir)}, export_dir)
  assert done.returncode == 2 and 'docker' in done.stderr


def test_help():
  done = serve(dict(os.environ), '--help')
  assert done.returncode == 0 and 'EXPORT_DIR/savedmodel' in done.stdout


def test_batching_parameters_are_those_of_serving():
  """In the text format of tensorflow.serving.BatchingParameters, whose proto is in no package."""
  text = (SCRIPTS / 'serving_batching.config').read_text()
  lines = [line for line in text.splitlines() if line and not line.startswith('#')]
  values = {}
  for line in lines:
    name, value = re.fullmatch(r'(\w+) \{ value: (\d+) \}', line).groups()
    values[name] = int(value)
  assert values.keys() == {
    'max_batch_size', 'batch_timeout_micros', 'max_enqueued_batches', 'num_batch_threads',
  }  # fmt: skip
