"""The package's commands in processes that are struck at chosen moments.

Each process is forked from one that has loaded TensorFlow already, so that it starts at once, and
then does what `oanet COMMAND` does. A moment is a time, or the number of a call that is about to
touch a file below a watched folder: an audit hook counts these in the process itself, so it is the
same in each run, and lies where files and folders get and lose their names.
"""

import atexit
import ctypes
import multiprocessing
import os
import pathlib
import re
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from oanet_tf import __main__ as oanet
from oanet_tf import errors

# So long nothing may take.
PATIENCE = 400
# The number of calls of a process that does not handle signals yet.
_NOT_BEGUN = -1

_context = multiprocessing.get_context('forkserver')
_context.set_forkserver_preload(['tests.faults.preloaded'])

# Which arguments of a Python audit event are paths. Removals are left out: a signal that is raised
# there comes instead of the call, which it has no more than microseconds to do in truth.
_PATHS = {'open': (0,), 'os.rename': (0, 1), 'os.mkdir': (0,)}


class Strike(NamedTuple):
  """What happens to a process, and when.

  Attributes:
    action: is called with the process's id; picklable.
    call: strikes just before this call, counted from 0; -1 for before the command.
    seconds: strikes then instead; None if a call is given.
  """

  action: Callable[[int], None]
  call: int = -1
  seconds: float | None = None


class Outcome(NamedTuple):
  """How a process ended.

  Attributes:
    code: of its exit; negative for the signal that killed it.
    printed: to standard output and error.
    calls: how often it touched files in the watched folder.
    seconds: that it took.
    was_struck: whether the strike came before its end.
  """

  code: int
  printed: str
  calls: int
  seconds: float
  was_struck: bool

  @property
  def errors(self) -> list[str]:
    """The lines that tell of an error."""
    return re.findall(r'(?:^|[\r\n])error: (.*)', self.printed)


class Process:
  """A command that runs.

  Args:
    arguments: of `oanet`.
    watched: the folder whose calls are counted.
    temporary: folder for temporary files.
    strike: if any.
    environment: more variables.
  """

  def __init__(self, arguments, watched, temporary, strike=None, environment=None):
    self._strike, self._calls = strike, _context.Value('q', _NOT_BEGUN)
    self._was_struck = False
    reader, writer = _context.Pipe(duplex=False)
    options = {'TMPDIR': str(temporary), **(environment or {})}
    call = strike if strike and strike.seconds is None else None
    self._process = _context.Process(
      target=_run,
      args=([*map(str, arguments)], str(watched), writer, self._calls, call, options),
    )
    self._process.start()
    writer.close()
    self.pid = self._process.pid
    self._printed = []
    self._reading = threading.Thread(target=self._read, args=(reader,), daemon=True)
    self._reading.start()
    while self._calls.value == _NOT_BEGUN and self.is_running:
      time.sleep(0.001)
    self._start = time.monotonic()

  def _read(self, reader):
    while part := os.read(reader.fileno(), 2**16):
      self._printed.append(part)
    reader.close()

  @property
  def is_running(self):
    return self._process.is_alive()

  def wait(self) -> Outcome:
    """Strikes when it is time, and waits for the end of it and of all processes it started."""
    if self._strike and self._strike.seconds is not None:
      self._process.join(max(0.0, self._start + self._strike.seconds - time.monotonic()))
      if self.is_running:
        self._was_struck = True
        self._strike.action(self.pid)
    self._process.join(PATIENCE)
    if self.is_running:
      self._process.kill()
      raise AssertionError(f'still runs after {PATIENCE} s: {self.text()}')
    seconds = time.monotonic() - self._start
    self._reading.join(60)
    assert not self._reading.is_alive(), f'left a process: {self.text()}'
    calls = self._calls.value
    if self._strike and self._strike.seconds is None:
      self._was_struck = calls > self._strike.call
    return Outcome(self._process.exitcode, self.text(), calls, seconds, self._was_struck)

  def wait_until(self, seconds: float) -> None:
    """For its end, so long at most."""
    self._process.join(seconds)

  def interrupt(self) -> None:
    if self.is_running:
      os.kill(self.pid, signal.SIGINT)

  def text(self) -> str:
    return b''.join(self._printed).decode(errors='replace')


def _run(arguments, watched, writer, calls, strike, environment):
  """What the process does."""
  for number in (1, 2):
    os.dup2(writer.fileno(), number)
  writer.close()
  signal.signal(signal.SIGINT, signal.default_int_handler)
  os.environ.update(environment)
  tempfile.tempdir = None
  if os.getuid() == 0:
    _give_up_privileges()
  sys.argv = ['oanet', *arguments]
  if strike and strike.call < 0:
    strike.action(os.getpid())

  def main():
    sys.addaudithook(_hook(watched, calls, strike))
    calls.value = 0
    return oanet.main()

  try:
    errors.run(main)
  finally:
    # As at the end of an ordinary process.
    atexit._run_exitfuncs()


def _give_up_privileges():
  """Lets permissions bind this process and those that it starts, although it is root's."""
  libc = ctypes.CDLL(None, use_errno=True)
  set_securebits, noroot, version = 28, 1, 0x20080522
  header, nothing = (ctypes.c_uint32 * 2)(version, 0), (ctypes.c_uint32 * 6)()
  if libc.prctl(set_securebits, noroot, 0, 0, 0) or libc.capset(header, nothing):
    raise OSError(ctypes.get_errno(), 'privileges cannot be given up')


def _hook(watched, calls, strike):
  own = os.getpid()

  def look(event, arguments):
    if event not in _PATHS or os.getpid() != own:
      return
    paths = [arguments[i] for i in _PATHS[event] if isinstance(arguments[i], str | os.PathLike)]
    if any(os.fspath(path).startswith(watched) for path in paths):
      number = calls.value
      calls.value = number + 1
      if strike and number == strike.call:
        strike.action(own)

  return look


def hidden(folder: pathlib.Path) -> set[str]:
  """What is hidden below a folder: files that are not finished, locks, staging folders."""
  return {str(path.relative_to(folder)) for path in folder.rglob('.*')}
