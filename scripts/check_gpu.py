#!/usr/bin/env python3
"""Says whether this machine can train: yes or no, and why.

Takes the first steps of a training in each precision, and with XLA, on the same data from the same
weights. Each is a process of its own, so that one that fails or takes too long leaves the others.
On GPUs the training is that of oanet_r50fpn_coco at its real size, with two images a GPU; without
one it is a small network, and what could not be checked is said. The images are made up unless
--input_path gives shards.

It is yes if all trainings take their steps, all losses are finite, and those of each training agree
with those of float32. Which operations run on the host, which slows a GPU down, is told but does
not count. The exit code is 0 for yes and 1 for no.
"""

import argparse
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence

import tqdm
from check_gpu_verdict import REFERENCE, Result, find_problems, report

from oanet_tf import errors, files
from oanet_tf.arguments import add_config_file, add_params_override, names, positive
from oanet_tf.config import check as config_check
from oanet_tf.config import plain_yaml
from oanet_tf.data import shard_files
from oanet_tf.errors import InputError

ROOT = pathlib.Path(__file__).resolve().parents[1]
WORKER = pathlib.Path(__file__).with_name('check_gpu_worker.py')
# Name -> keys of the runtime.
CHECKS = {
  REFERENCE: {'mixed_precision_dtype': 'float32', 'enable_xla': False},
  'bfloat16': {'mixed_precision_dtype': 'bfloat16', 'enable_xla': False},
  'float16': {'mixed_precision_dtype': 'float16', 'enable_xla': False},
  'xla': {'mixed_precision_dtype': 'float32', 'enable_xla': True},
}
# As in the recipes of configs/ for GPUs of 16 GB.
IMAGES_A_GPU = 2
SMALL_EXPERIMENT, SMALL_CONFIG = 'oanet_synthetic', ROOT / 'configs' / 'check_cpu.yaml'


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument(
    '--experiment',
    help=f'one of {", ".join(config_check.experiment_names())} '
    f'(default: {config_check.BASE_EXPERIMENT}; without a GPU, a small network)',
  )
  add_config_file(parser, ', such as configs/coco_8gpu.yaml')
  add_params_override(parser, 'to the files')
  parser.add_argument(
    '--input_path', metavar='GLOB,…', help='training shards (default: made-up images)'
  )
  parser.add_argument(
    '--checks', type=names, default=list(CHECKS), help=f'of {",".join(CHECKS)} (default: all)'
  )
  parser.add_argument('--steps', type=positive, default=10, help='(default: %(default)s)')
  parser.add_argument(
    '--time_limit', type=positive, default=900, help='seconds for each check (%(default)s)'
  )
  parser.add_argument('--output', type=pathlib.Path, help='JSON file for all that was found')
  parsed = parser.parse_args(arguments)
  for name in parsed.checks:
    if name not in CHECKS:
      parser.error(f'--checks: {name!r} is none of {", ".join(CHECKS)}')
  return parsed


def main(arguments: Sequence[str] | None = None) -> int:
  parsed = parse_arguments(arguments)
  # What is wrong with them is told before TensorFlow loads.
  resolve(parsed, [])
  if parsed.input_path:
    shard_files.list_shards(parsed.input_path)
  with tempfile.TemporaryDirectory(prefix='check_gpu_') as folder:
    machine = prepare(parsed, pathlib.Path(folder))
    results = {
      name: run_check(name, parsed, pathlib.Path(folder), len(machine['gpus']))
      for name in parsed.checks
    }
  problems = find_problems(machine, results, parsed.steps)
  print(report(machine, results, is_small(parsed, len(machine['gpus']))))
  if parsed.output:
    found = {'machine': machine, 'checks': {name: one._asdict() for name, one in results.items()}}
    files.write_text(parsed.output, json.dumps({**found, 'problems': problems}, indent=1) + '\n')
  print('\n'.join(f'no: {problem}' for problem in problems) or 'yes')
  return 1 if problems else 0


def is_small(parsed: argparse.Namespace, num_gpus: int) -> bool:
  """Whether a small network stands in for COCO's."""
  return not num_gpus and not parsed.experiment


def resolve(
  parsed: argparse.Namespace, config_files: Sequence[pathlib.Path], experiment: str = ''
) -> config_check.Settings:
  """The settings of the command line.

  Args:
    parsed: of `parse_arguments`.
    config_files: applied before those of the command line.
    experiment: in place of its own.

  Raises:
    InputError: if they are wrong.
  """
  return config_check.resolve_experiment(
    experiment or parsed.experiment or config_check.BASE_EXPERIMENT,
    [*map(str, config_files), *parsed.config_file],
    parsed.params_override,
  )


def settings_of(
  name: str, parsed: argparse.Namespace, folder: pathlib.Path, num_gpus: int
) -> config_check.Settings:
  """The settings of a check.

  Args:
    name: of `CHECKS`.
    parsed: of `parse_arguments`.
    folder: with the made-up shards, and for a file.
    num_gpus: of the machine.

  Raises:
    InputError: if the training cannot have them, as moving averages cannot have float16.
  """
  if is_small(parsed, num_gpus):
    settings = resolve(parsed, [SMALL_CONFIG], SMALL_EXPERIMENT)
  elif parsed.experiment:
    settings = resolve(parsed, [])
  else:
    batch = folder / 'batch.yaml'
    batch.write_text(f'task: {{train_data: {{global_batch_size: {IMAGES_A_GPU * num_gpus}}}}}\n')
    settings = resolve(parsed, [batch])
  runtime = dict(CHECKS[name])
  if name != 'float16':
    runtime['loss_scale'] = None
  task = {'train_data': {'input_path': parsed.input_path}}
  if not parsed.input_path:
    task = {'train_data': {'input_path': f'{folder}/train-*.tfrecord'}, 'categories': ''}
  return config_check.resolve(settings, (), json.dumps({'runtime': runtime, 'task': task}))


def prepare(parsed: argparse.Namespace, folder: pathlib.Path) -> dict:
  """Finds the GPUs and, unless there are shards, makes some in the folder.

  Returns:
    `version` of TensorFlow, `gpus` that it sees by name, and `driver`, those that the driver sees.

  Raises:
    InputError: if TensorFlow does not load.
  """
  found = {}
  made_up = [] if parsed.input_path else [str(folder)]
  failure = run_worker(
    ['prepare', *made_up], folder / 'prepare.txt', parsed.time_limit, receive=found.update
  )
  if failure:
    raise InputError(f'TensorFlow does not work here: {failure}')
  driver = []
  if shutil.which('nvidia-smi'):
    listed = subprocess.run(['nvidia-smi', '-L'], capture_output=True, text=True, timeout=60)
    driver = [line for line in listed.stdout.splitlines() if line.startswith('GPU ')]
  return {**found, 'driver': driver}


def run_check(name: str, parsed: argparse.Namespace, folder: pathlib.Path, num_gpus: int) -> Result:
  """Runs a check in a process of its own, and shows its progress."""
  params = folder / f'{name}.yaml'
  try:
    settings = settings_of(name, parsed, folder, num_gpus)
  except InputError as error:
    return Result(failure=str(error))
  params.write_text(plain_yaml.write(config_check.to_nested(settings)))
  steps, rest = [], {}
  with tqdm.tqdm(total=parsed.steps, desc=f'{name}: starts', unit='step', leave=False) as progress:

    def receive(answer: dict) -> None:
      if 'step' in answer:
        steps.append(answer)
        progress.set_description_str(name)
        progress.update()
      elif 'built' in answer:
        progress.set_description_str(f'{name}: compiles')
      else:
        rest.update(answer)

    failure = run_worker(
      ['train', str(params), str(parsed.steps)],
      folder / f'{name}.txt',
      parsed.time_limit,
      receive,
      is_xla=CHECKS[name]['enable_xla'],
    )
  of_steps = {key: [one[key] for one in steps] for key in ('losses', 'seconds', 'input_seconds')}
  return Result(**of_steps, **{'failure': failure, **rest})


def run_worker(
  arguments: Sequence[str],
  log: pathlib.Path,
  time_limit: int,
  receive: Callable[[dict], None],
  is_xla: bool = False,
) -> str:
  """Runs `check_gpu_worker.py`.

  Args:
    arguments: its own.
    log: file for what it and its libraries print.
    time_limit: in seconds.
    receive: is called with each answer.
    is_xla: whether XLA may compile for the CPU too.

  Returns:
    One line that says why it failed; '' if it did not.
  """
  environment = {key: value for key, value in os.environ.items() if key != 'TF_CONFIG'}
  if is_xla:
    # TensorFlow reads this when it starts.
    flags = f'{environment.get("TF_XLA_FLAGS", "")} --tf_xla_cpu_global_jit'
    environment['TF_XLA_FLAGS'] = flags
  timed_out = threading.Event()
  with open(log, 'w') as output:
    process = subprocess.Popen(
      [sys.executable, str(WORKER), *arguments],
      stdout=subprocess.PIPE,
      stderr=output,
      text=True,
      env=environment,
      start_new_session=True,
    )

  def stop() -> None:
    timed_out.set()
    os.killpg(process.pid, signal.SIGKILL)

  timer = threading.Timer(time_limit, stop)
  timer.start()
  try:
    for line in process.stdout:
      receive(json.loads(line))
    code = process.wait()
  finally:
    timer.cancel()
    if process.poll() is None:
      os.killpg(process.pid, signal.SIGKILL)
      process.wait()
  if timed_out.is_set():
    return f'took longer than {time_limit} s (--time_limit)'
  return why_it_ended(code, log.read_text(errors='replace')) if code else ''


def why_it_ended(code: int, output: str) -> str:
  """One line about a process that failed.

  Args:
    code: its exit code; below 0 for a signal.
    output: what it printed.
  """
  if code == -signal.SIGKILL:
    return 'was killed, perhaps because the machine has too little memory'
  if code < 0:
    return f'crashed ({signal.Signals(-code).name})'
  lines = [line for line in output.splitlines() if line.strip()]
  return lines[-1].removeprefix('error: ') if lines else f'ended with exit code {code}'


if __name__ == '__main__':
  errors.run(main)
