"""The kinds of faults: what strikes, and how it is undone."""

# A process must be able to unpickle what strikes it, so these are functions of this module.

import contextlib
import functools
import os
import pathlib
import random
import resource
import shutil
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from oanet_tf.data.shard_files import record_lengths
from tests.faults.processes import Strike

if TYPE_CHECKING:
  # This runs TensorFlow, which the processes that are struck must do for themselves.
  from tests.faults.commands import Command

SIGNALS = {'SIGKILL': signal.SIGKILL, 'SIGTERM': signal.SIGTERM, 'SIGINT': signal.SIGINT}
# Between records: length (8 bytes), checksum (4), data, checksum (4).
FRAME = 16


class Place(NamedTuple):
  """Where a command is disturbed.

  Attributes:
    ground: has what the command reads.
    output: folder of the results.
    calls: how many calls the undisturbed command makes in the output folder.
    seconds: that it takes.
    largest: bytes of its largest file.
    total: bytes of all its files.
  """

  ground: pathlib.Path
  output: pathlib.Path
  calls: int
  seconds: float
  largest: int
  total: int


class Fault(NamedTuple):
  """One fault.

  Attributes:
    kind: for the table.
    strike: what happens to the process.
    told: what this test says of it when something is lost.
    undo: gives back room, permission and shards.
    number: of the signal, if it is one.
    leaves_hidden: whether what is hidden may stay until the next run.
  """

  kind: str
  strike: Strike
  told: str
  undo: Callable[[], object] = bool
  number: int | None = None
  leaves_hidden: bool = False


def moment(rng: random.Random, place: Place) -> tuple[dict, str]:
  """A call or a time, each as likely; of times, all are."""
  if rng.random() < 0.5 and place.calls:
    call = rng.randrange(place.calls)
    return {'call': call}, f'before call {call} of {place.calls}'
  seconds = rng.uniform(0.0, place.seconds)
  return {'seconds': seconds}, f'after {seconds:.2f} of {place.seconds:.1f} s'


def signal_of(name: str, rng: random.Random, place: Place, command: 'Command') -> Fault:
  number = SIGNALS[name]
  when, told = moment(rng, place)
  strike = Strike(functools.partial(_send, number), **when)
  return Fault(name, strike, told, number=number, leaves_hidden=name == 'SIGKILL')


def _send(number, pid):
  with contextlib.suppress(ProcessLookupError):
    os.kill(pid, number)


def full_disk(rng: random.Random, place: Place, command: 'Command') -> Fault:
  """From then on, or from the start, no file may have more than so many bytes."""
  size = rng.choice([0, rng.randrange(100), rng.randrange(place.largest)])
  when, told = ({}, 'at first') if rng.random() < 0.5 else moment(rng, place)
  strike = Strike(functools.partial(_limit, size), **when)
  return Fault('full disk', strike, f'{size} bytes, {told}')


def _limit(size, pid):
  with contextlib.suppress(ProcessLookupError):
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def read_only(rng: random.Random, place: Place, command: 'Command') -> Fault:
  """The output folder, or one in it, can no longer be written."""
  when, told = ({}, 'at first') if rng.random() < 0.3 else moment(rng, place)
  seed = rng.random()
  return Fault(
    'read-only',
    Strike(functools.partial(_forbid, place.output, seed), **when),
    told,
    functools.partial(_allow, place.output),
    leaves_hidden=True,
  )


def _forbid(output, seed, pid):
  folders = [path for path in (output, *output.rglob('*')) if path.is_dir()]
  if seed < 0.5:
    folders = random.Random(seed).sample(folders, min(1, len(folders)))
  for folder in folders:
    with contextlib.suppress(FileNotFoundError):
      folder.chmod(0o555)


def _allow(output):
  if output.exists():
    output.chmod(0o755)
    for path in output.rglob('*'):
      if path.is_dir():
        path.chmod(0o755)


def damaged_shard(rng: random.Random, place: Place, command: 'Command') -> Fault:
  """A shard, or the summary of its conversion, is not what it was."""
  shard = rng.choice(sorted((place.ground / 'shards').glob(f'{command.shards}.tfrecord')))
  kind = rng.choice([*DAMAGE])
  when, told = ({}, 'at first') if rng.random() < 0.5 else moment(rng, place)
  damage = functools.partial(DAMAGE[kind], shard, rng.random())
  return Fault(
    f'shard {kind}',
    Strike(damage, **when),
    f'{shard.name}, {told}',
    functools.partial(_mend, place.ground),
  )


def _mend(ground):
  shutil.copytree(ground / 'kept', ground / 'shards', dirs_exist_ok=True)


def _emptied(shard, _, pid):
  os.truncate(shard, 0)


def _cut_between_records(shard, fraction, pid):
  lengths = list(record_lengths(shard))
  kept = int(fraction * len(lengths))
  os.truncate(shard, sum(lengths[:kept]) + FRAME * kept)


def _cut(shard, fraction, pid):
  os.truncate(shard, int(fraction * shard.stat().st_size))


def _flipped(shard, fraction, pid):
  with open(shard, 'r+b') as file:
    file.seek(int(fraction * shard.stat().st_size))
    (byte,) = file.read(1)
    file.seek(-1, os.SEEK_CUR)
    file.write(bytes([byte ^ 1 << int(fraction * 10**6) % 8]))


def _missing(shard, _, pid):
  shard.unlink()


def _of_another_conversion(shard, fraction, pid):
  """With other images, as many or more."""
  others = [path for path in sorted(shard.parent.glob('*.tfrecord')) if path != shard]
  shutil.copyfile(others[int(fraction * len(others))], shard)


def _summary(shard):
  return shard.parent / f'{shard.name.partition("-")[0]}_summary.json'


def _summary_missing(shard, _, pid):
  _summary(shard).unlink()


def _summary_cut(shard, fraction, pid):
  os.truncate(_summary(shard), int(fraction * _summary(shard).stat().st_size))


DAMAGE = {
  'emptied': _emptied,
  'cut between records': _cut_between_records,
  'cut': _cut,
  'flipped bit': _flipped,
  'missing': _missing,
  'of another': _of_another_conversion,
  'summary missing': _summary_missing,
  'summary cut': _summary_cut,
}
