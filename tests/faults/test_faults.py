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
import os
import pathlib
import random
import re
import shutil
import subprocess
import time

import pytest

from tests.faults import commands, faults, processes
from tests.faults.commands import COMMANDS
from tests.faults.faults import Place, Strike
from tests.faults.processes import Process

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


class Trial:
  """A command in one output folder, disturbed again and again."""

  def __init__(self, name, ground, expected, undisturbed, whole):
    self.command = COMMANDS[name]
    self.ground, self.expected, self.whole = ground, expected, commands.contents(whole)
    self.output, self.temporary = ground / 'output', ground / 'temporary'
    sizes = [path.stat().st_size for path in whole.rglob('*') if path.is_file()]
    self.place = Place(
      ground, self.output, undisturbed.calls, undisturbed.seconds, max(sizes), sum(sizes)
    )
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
    self.check_told(outcome, fault.number)
    if not fault.leaves_hidden:
      assert not left, outcome.printed
    if outcome.code == 0:
      self.check_result()
      self.clear()
    else:
      self.check_parts()
    if fault.number == faults.SIGNALS['SIGKILL']:
      # What is in the system's folder for such files is the system's.
      shutil.rmtree(self.temporary)
      self.temporary.mkdir()
    self.check_temporary()
    return outcome.was_struck

  def check_told(self, outcome, number=None):
    """A code that fits, and one line that names a file unless all went well."""
    code, printed = outcome.code, outcome.printed
    assert 'Traceback' not in printed and 'Exception ignored' not in printed, printed
    stopped = re.findall(r'(?:^|[\r\n])(?:interrupted|stopped by .*)(?=[\r\n])', printed)
    if code == 2:
      assert len(outcome.errors) == 1 and str(self.ground) in outcome.errors[0], printed
    elif number is not None and code == 128 + number:
      assert len(stopped) == 1 and not outcome.errors, printed
    else:
      assert code in (0, -faults.SIGNALS['SIGKILL'] if number == 9 else 0), (code, printed)
      assert not outcome.errors, printed

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
    self.check_told(outcome)
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


@pytest.mark.parametrize(
  ('name', 'number'),
  several(NUMBER // 16, 'convert', 'predict', 'inspect', 'train_srm', 'evaluate', 'export'),
)
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
    trial.check_told(outcome)
  codes = [outcome.code for outcome in outcomes]
  # Whichever comes first to the lock goes on.
  assert 0 in codes, codes
  trial.check_result()
  tally.survived['two at once', name] += 1


@pytest.mark.parametrize(
  ('name', 'number'),
  several(NUMBER // 16, 'convert', 'predict', 'inspect', 'train_srm', 'evaluate', 'export'),
)
def test_full_file_system(name, number, trial_of, tally):
  """As a limit of the size of files, but with everything that takes room in it."""
  rng = random.Random(f'{SEED}-room-{name}-{number}')
  trial = trial_of(name)
  size = rng.randrange(1, trial.place.total // 1024)
  print(f'{size} kB of {trial.place.total // 1024}')
  with file_system(trial.output, size) as enlarge:
    tally.injected['full file system', name] += 1
    outcome = trial.start().wait()
    trial.check_told(outcome)
    assert not processes.hidden(trial.output), outcome.printed
    trial.check_parts()
    enlarge()
    trial.finish()
  tally.survived['full file system', name] += 1


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
