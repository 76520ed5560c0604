"""Commands that are killed, run out of room, lose permission or shards, or run twice at once.

Each test is one trial: a command is disturbed five times in the same output folder, and then runs
undisturbed. After each fault there is the undisturbed result, or one line that says what is wrong,
and what has a name is whole; at the end there is the undisturbed result, and nothing else.

  pytest -m slow tests/faults                          about 40 faults
  FAULTS=200 FAULTS_SEED=1 pytest -m slow tests/faults   200 others

A trial that fails can be run alone, with the same numbers: -k 'train-3'. The table of faults that
were survived is printed at the end, and written to the file that FAULTS_TABLE names.
"""

import collections
import contextlib
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest

from oanet_tf.training import checkpoints
from tests.faults import commands, faults, processes
from tests.faults.commands import COMMANDS
from tests.faults.faults import Place, Strike
from tests.faults.processes import Process
from tests.training.test_multi_worker import free_ports

NUMBER, SEED = int(os.environ.get('FAULTS', '40')), os.environ.get('FAULTS_SEED', '0')
FAULTS_OF_TRIAL = 5
WEIGHTS = sum(command.weight for command in COMMANDS.values())
TRIALS = [
  pytest.param(name, number, id=f'{name}-{number}')
  for name, command in COMMANDS.items()
  for number in range(max(1, round(NUMBER * command.weight / WEIGHTS / FAULTS_OF_TRIAL)))
]

pytestmark = pytest.mark.slow


class Tally:
  """Counts faults by kind and command."""

  def __init__(self):
    self.injected, self.survived = collections.Counter(), collections.Counter()

  def table(self) -> str:
    """Rows are kinds, columns commands; survived/injected."""
    kinds, names = (sorted({key[i] for key in self.injected}) for i in (0, 1))
    rows = [['', *names, 'all']]
    for kind in [*kinds, 'all']:
      row = [kind]
      for name in [*names, 'all']:
        of_cell = [k for k in self.injected if kind in (k[0], 'all') and name in (k[1], 'all')]
        counts = [sum(c[k] for k in of_cell) for c in (self.survived, self.injected)]
        row.append('{}/{}'.format(*counts) if counts[1] else '')
      rows.append(row)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return '\n'.join(
      '  '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
      for row in rows
    )


@pytest.fixture(scope='module')
def tally(request):
  counts = Tally()
  yield counts
  table = f'faults survived/injected, seed {SEED}\n{counts.table()}\n'
  if path := os.environ.get('FAULTS_TABLE'):
    pathlib.Path(path).write_text(table)
  with request.config.pluginmanager.getplugin('capturemanager').global_and_fixture_disabled():
    print(f'\n{table}')


@pytest.fixture(scope='module')
def ground(tmp_path_factory):
  """A folder with scenes, shards and, later, a model."""
  folder = tmp_path_factory.mktemp('ground')
  commands.make_ground(folder)
  return folder


@pytest.fixture(scope='module')
def reference(ground):
  """Gives the undisturbed result of a command, and how its process ended."""
  found = {}

  def of(name):
    if name not in found:
      if name in ('evaluate', 'export', 'export_tflite'):
        of('train')
      output = ground / ('model' if name == 'train' else f'{name}_reference')
      found[name] = (*commands.reference_of(COMMANDS[name], ground, output), output)
    return found[name]

  return of


def place_of(ground, output, undisturbed, whole):
  """Where a command that writes to `output` is disturbed, from a run of it that was not."""
  sizes = [path.stat().st_size for path in whole.rglob('*') if path.is_file()]
  return Place(ground, output, undisturbed.calls, undisturbed.seconds, max(sizes), sum(sizes))


def check_told(outcome, ground, number=None):
  """A code that fits, and one line that names a file unless all went well."""
  code, printed = outcome.code, outcome.printed
  assert 'Traceback' not in printed and 'Exception ignored' not in printed, printed
  stopped = re.findall(r'(?:^|[\r\n])(?:interrupted|stopped by .*)(?=[\r\n])', printed)
  if code == 2:
    assert len(outcome.errors) == 1 and str(ground) in outcome.errors[0], printed
  elif number is not None and code == 128 + number:
    assert len(stopped) == 1 and not outcome.errors, printed
  elif code == -signal.SIGINT and number == signal.SIGINT:
    # It waited for the other worker, and had done nothing yet.
    assert 'waits for all' in printed and 'training on' not in printed
    assert not outcome.errors, printed
  else:
    assert code in (0, -signal.SIGKILL if number == signal.SIGKILL else 0), (code, printed)
    assert not outcome.errors, printed


class Trial:
  """A command in one output folder, disturbed again and again."""

  def __init__(self, name, ground, expected, undisturbed, whole):
    self.command = COMMANDS[name]
    self.ground, self.expected, self.whole = ground, expected, commands.contents(whole)
    self.output, self.temporary = ground / 'output', ground / 'temporary'
    self.place = place_of(ground, self.output, undisturbed, whole)
    self.clear()

  def clear(self):
    """Begins with an empty folder."""
    for folder in (self.output, self.temporary):
      shutil.rmtree(folder, ignore_errors=True)
      folder.mkdir()

  def start(self, strike: Strike | None = None) -> Process:
    arguments = self.command.arguments(self.ground, self.output)
    if any(self.output.iterdir()):
      arguments += self.command.again
    return Process(arguments, self.output, self.temporary, strike)

  def disturb(self, fault: faults.Fault) -> bool:
    """Runs it with the fault; -> whether the fault came before the end."""
    before = processes.hidden(self.output)
    outcome = self.start(fault.strike).wait()
    left = processes.hidden(self.output) - before
    fault.undo()
    check_told(outcome, self.ground, fault.number)
    if not fault.leaves_hidden:
      assert not left, outcome.printed
    if outcome.code == 0:
      self.check_result()
      self.clear()
    else:
      self.check_parts()
    if fault.number == signal.SIGKILL:
      # What is in the system's folder for such files is the system's.
      shutil.rmtree(self.temporary)
      self.temporary.mkdir()
    self.check_temporary()
    return outcome.was_struck

  def check_parts(self):
    """What has its name already is whole."""
    for name, digest in commands.contents(self.output).items():
      is_hidden = any(part.startswith('.') for part in pathlib.PurePath(name).parts)
      is_growing = any(pathlib.PurePath(name).match(p) for p in self.command.growing)
      if not is_hidden and not is_growing:
        assert self.whole.get(name) == digest, name

  def check_result(self):
    assert self.command.results(self.output) == self.expected
    assert not processes.hidden(self.output)
    self.check_temporary()

  def check_temporary(self):
    """There is nothing but what AutoGraph leaves where it has no room."""
    assert not [path for path in self.temporary.iterdir() if 'autograph' not in path.name]

  def finish(self):
    """Undisturbed, it comes to its end."""
    outcome = self.start().wait()
    check_told(outcome, self.ground)
    assert outcome.code == 0, outcome.printed
    self.check_result()


def kinds_of(command):
  """What may happen to a command, as functions of `faults`."""
  kinds = [faults.full_disk, faults.read_only]
  kinds += [lambda *given, name=name: faults.signal_of(name, *given) for name in faults.SIGNALS]
  # Half of all is killed.
  kinds += kinds[2:]
  if command.shards:
    kinds += [faults.damaged_shard] * 3
  return kinds


def several(total: int, *names: str) -> list:
  """As many trials as there are to be in all, of the commands in turn."""
  trials = [(names[i % len(names)], i // len(names)) for i in range(max(1, total))]
  return [pytest.param(*trial, id='{}-{}'.format(*trial)) for trial in trials]


SEVERAL = several(NUMBER // 16, 'convert', 'predict', 'inspect', 'train_srm', 'evaluate', 'export')


@pytest.fixture
def trial_of(ground, reference):
  return lambda name: Trial(name, ground, *reference(name))


@pytest.mark.parametrize(('name', 'number'), TRIALS)
def test_disturbed(name, number, trial_of, tally):
  rng = random.Random(f'{SEED}-{name}-{number}')
  trial = trial_of(name)
  struck = []
  for kind in rng.choices(kinds_of(trial.command), k=FAULTS_OF_TRIAL):
    fault = kind(rng, trial.place, trial.command)
    print(fault.kind, fault.told)
    tally.injected[fault.kind, name] += 1
    if trial.disturb(fault):
      struck.append(fault.kind)
    else:
      # It came too late.
      tally.injected[fault.kind, name] -= 1
  trial.finish()
  for kind in struck:
    tally.survived[kind, name] += 1


@pytest.mark.parametrize(('name', 'number'), SEVERAL)
def test_two_at_once(name, number, trial_of, tally):
  rng = random.Random(f'{SEED}-two-{name}-{number}')
  trial = trial_of(name)
  tally.injected['two at once', name] += 1
  first = trial.start()
  later = rng.uniform(0.0, trial.place.seconds)
  print(f'{later:.2f} s later')
  time.sleep(later)
  outcomes = [process.wait() for process in (first, trial.start())]
  for outcome in outcomes:
    check_told(outcome, trial.ground)
  codes = [outcome.code for outcome in outcomes]
  # Whichever comes first to the lock goes on.
  assert 0 in codes, codes
  trial.check_result()
  tally.survived['two at once', name] += 1


@pytest.mark.parametrize(('name', 'number'), SEVERAL)
def test_full_file_system(name, number, trial_of, tally):
  """As a limit of the size of files, but with everything that takes room in it."""
  rng = random.Random(f'{SEED}-room-{name}-{number}')
  trial = trial_of(name)
  size = rng.randrange(1, trial.place.total // 1024)
  print(f'{size} kB of {trial.place.total // 1024}')
  with file_system(trial.output, size) as enlarge:
    tally.injected['full file system', name] += 1
    outcome = trial.start().wait()
    check_told(outcome, trial.ground)
    assert not processes.hidden(trial.output), outcome.printed
    trial.check_parts()
    enlarge()
    trial.finish()
  tally.survived['full file system', name] += 1


class Workers:
  """Two workers that train one network, disturbed again and again."""

  def __init__(self, folder, ground):
    self.ground, self.output = ground, folder / 'output'
    self.temporary = [folder / 'temporary_0', folder / 'temporary_1']
    for path in (self.output, *self.temporary):
      path.mkdir(parents=True)

  def run(self, strike=None, struck=0) -> list[processes.Outcome]:
    """-> how both ended; of them, one is struck."""
    addresses = [f'localhost:{port}' for port in free_ports(2)]
    started = []
    for index, temporary in enumerate(self.temporary):
      task = {'cluster': {'worker': addresses}, 'task': {'type': 'worker', 'index': index}}
      arguments = commands.train_as_worker(self.ground, self.output)
      environment = {'TF_CONFIG': json.dumps(task)}
      given = strike if index == struck else None
      started.append(Process(arguments, self.output, temporary, given, environment))
    outcomes = {struck: started[struck].wait()}
    other = started[1 - struck]
    if outcomes[struck].code and 'training on' not in other.text():
      # It may wait for the other one to be started again.
      other.wait_until(30)
      other.interrupt()
    outcomes[1 - struck] = other.wait()
    return [outcomes[0], outcomes[1]]

  def result(self) -> tuple[dict, dict]:
    newest = checkpoints.newest(self.output)
    assert newest.endswith(f'-{commands.STEPS}')
    return commands.trained_but_for_rounding(self.output), commands.weights(newest)


@pytest.fixture(scope='module')
def undisturbed_workers(ground):
  workers = Workers(ground / 'two_workers', ground)
  outcomes = workers.run()
  assert [outcome.code for outcome in outcomes] == [0, 0], outcomes
  return workers.result(), outcomes, workers.output


@pytest.mark.parametrize('number', range(max(1, NUMBER // 40)))
def test_two_workers(number, ground, undisturbed_workers, tally):
  """One of them is struck: the other one says so, and together they go on from where they were."""
  expected, undisturbed, whole = undisturbed_workers
  rng = random.Random(f'{SEED}-workers-{number}')
  workers = Workers(ground / f'two_workers_{number}', ground)
  struck = []
  for name in rng.choices([*faults.SIGNALS, 'full disk', 'read-only'], k=FAULTS_OF_TRIAL):
    # Only the chief writes.
    index = rng.randrange(2) if name in faults.SIGNALS else 0
    place = place_of(ground, workers.output, undisturbed[index], whole)
    if name in faults.SIGNALS:
      fault = faults.signal_of(name, rng, place, None)
    else:
      fault = {'full disk': faults.full_disk, 'read-only': faults.read_only}[name](rng, place, None)
    print(f'worker {index}:', fault.kind, fault.told)
    tally.injected[fault.kind, 'two workers'] += 1
    outcomes = workers.run(fault.strike, index)
    fault.undo()
    check_told(outcomes[index], ground, fault.number)
    check_other(outcomes[1 - index], outcomes[index], fault.number)
    if outcomes[index].was_struck:
      struck.append(fault.kind)
    else:
      # It came too late.
      tally.injected[fault.kind, 'two workers'] -= 1
  outcomes = workers.run()
  assert [outcome.code for outcome in outcomes] == [0, 0], outcomes
  files, weights = workers.result()
  assert files == expected[0]
  assert weights.keys() == expected[1].keys()
  for variable, value in weights.items():
    # Rounding differs from run to run, and more where it turns a ReLU on or off.
    difference = np.linalg.norm(np.float64(value) - expected[1][variable])
    assert difference <= 0.01 * np.linalg.norm(expected[1][variable]) + 1e-6, variable
  assert not processes.hidden(workers.output)
  for kind in struck:
    tally.survived[kind, 'two workers'] += 1


def check_other(outcome, struck, number):
  """The worker that was not struck ends well, or says in one line that the other one is gone."""
  assert 'Traceback' not in outcome.printed, outcome.printed
  if outcome.code == 2:
    assert len(outcome.errors) == 1 and 'another worker is gone' in outcome.errors[0], outcome
  elif outcome.code == -signal.SIGINT:
    assert struck.code and not outcome.errors and 'training on' not in outcome.printed, outcome
  elif outcome.code > 128:
    # Both stop after the same step.
    assert number and 'stopped by' in outcome.printed and not outcome.errors, outcome
  else:
    assert outcome.code == 0 and not outcome.errors, outcome


@contextlib.contextmanager
def file_system(folder, size):
  """Mounts one of so many kB; yields what makes it large."""
  mount = subprocess.run(
    ['mount', '-t', 'tmpfs', '-o', f'size={size}k', 'tmpfs', folder], capture_output=True, text=True
  )
  if mount.returncode:
    pytest.skip(f'no file system can be mounted here: {mount.stderr.strip()}')
  try:
    yield lambda: subprocess.run(['mount', '-o', 'remount,size=1g', folder], check=True)
  finally:
    subprocess.run(['umount', folder], check=True)
