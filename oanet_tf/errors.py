"""Errors that the user can mend, and how command lines report them."""

import contextlib
import io
import os
import re
import signal
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, TextIO, cast

from oanet_tf import printing

# What TensorFlow puts around the fact: names of functions, iterators, nodes and operations.
_NODE_NAMES = re.compile(r'^\{\{.*?\}\} |.*Iterator::Root(::\w+)*: | *\[\[.*| \[Op:.*')


# In errors of the loader of libraries, of threads, of C++, of TensorFlow and of LiteRT.
_LACK_OF_MEMORY = re.compile(
  "[^\n]*(failed to map segment|annot allocate memory|can't start new thread|bad_alloc"
  "|OOM when allocating|Mmap of [^\n]* failed with error '12'|failed to create XNNPACK runtime"
  '|XNNPack delegate failed to reshape)[^\n]*'
)
_UP = '\x1b[A'  # The cursor.
_LONGEST_MESSAGE = 2000  # Characters.
# How to get packages that are not in every installation; all others come with the package itself.
REMEDIES = {
  'ai_edge_quantizer': "'oanet_tf[tflite]'",
  'av': "'oanet_tf[video]'",
  'supervision': "'oanet_tf[supervision]'",
  'tensorflow_serving': "'oanet_tf[serving]'",
}


class InputError(ValueError):
  """Something the user gave is wrong.

  The message is one line that names the file (or key), the fact and, where it helps, the remedy.
  Names in it are shown as `printing.shown` does, and only the ends of a long message.
  """

  def __init__(self, message: str):
    message = printing.shown(message)
    if len(message) > _LONGEST_MESSAGE:
      message = f'{message[: _LONGEST_MESSAGE // 2]} … {message[-_LONGEST_MESSAGE // 2 :]}'
    super().__init__(message)


def first_line(error: BaseException) -> str:
  """The first line of an error's message, or the name of its type if it has none.

  Names of nodes, which TensorFlow's messages have, are left out.
  """
  lines = str(error).strip().splitlines()
  return _NODE_NAMES.sub('', lines[0]) if lines else type(error).__name__


@contextlib.contextmanager
def naming_missing_packages(what: object) -> Iterator[None]:
  """Turns the failed import of another package into an `InputError` that names it.

  Args:
    what: needs the package, for the message.
  """
  try:
    yield
  except ModuleNotFoundError as error:
    package = (error.name or '').partition('.')[0]
    if package in ('', 'oanet_tf'):
      raise
    remedy = REMEDIES.get(package, 'oanet_tf')
    raise InputError(
      f'{what}: needs the package {package}, which is not installed; pip install {remedy}'
    ) from None


class Terminated(KeyboardInterrupt):
  """SIGTERM came."""


class _StandardText(io.TextIOWrapper):
  """Standard output or error, to which no text, whoever prints it, can send commands."""

  def write(self, text: str, /) -> int:
    if not text.isprintable():
      # tqdm moves between its bars.
      parts = (printing.escaped(part, but='\n\r\t') for part in text.split(_UP))
      text = _UP.join(parts)
    return super().write(text)


class _StandardFile(io.FileIO):
  """Standard output or error, which goes on after an error as if nothing were the matter.

  So whatever becomes of a terminal or pipe, a command comes to its end and saves what it found.

  Attributes:
    failure: the first error, or None.
  """

  failure: OSError | None = None

  def write(self, content: Any, /) -> int:
    try:
      return super().write(content)
    except OSError as error:
      self.failure = self.failure or error
      return len(content)


def run(main: Callable[[], int | None]) -> None:
  """Runs a command line's `main` and exits with its code.

  This is 2 after an `InputError`, an error of a file or a lack of memory, which are told in one
  line; and 2 if standard output cannot be written, but 1 if its reader went away. Any other
  exception is a bug and keeps its traceback.
  """
  output = _guard_standard_streams()
  signal.signal(signal.SIGTERM, _terminate)
  code = _code_of(main)
  sys.stdout.flush()
  if output and (failure := output.failure) and not code:
    code = 1
    if not isinstance(failure, BrokenPipeError):
      code = _report(f'standard output: cannot be written ({failure.strerror})')
  sys.exit(code)


def _code_of(main: Callable[[], int | None]) -> int | str:
  try:
    with naming_missing_packages('this command'):
      return main() or 0
  except SystemExit as error:
    return error.code or 0
  except InputError as error:
    return _report(str(error))
  except OSError as error:
    where = f'{error.filename}: ' if error.filename else ''
    return _report(where + (error.strerror or first_line(error)))
  except Exception as error:
    if fact := lack_of_memory(error):
      _leave(_report(f'there is not enough memory ({fact})'))
    raise
  except KeyboardInterrupt as error:
    print('interrupted', file=sys.stderr)
    return 128 + (signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT)


def lack_of_memory(error: BaseException) -> str:
  """What could not be had, if it was memory that lacked; '' otherwise."""
  if isinstance(error, MemoryError):
    return first_line(error)
  # What NumPy makes of it is about the installation.
  causes: list[BaseException] = [error]
  while cause := causes[-1].__cause__ or causes[-1].__context__:
    causes.append(cause)
  found = (_LACK_OF_MEMORY.search(str(cause)) for cause in causes)
  return next((match[0] for match in found if match), '')


def _report(message: str) -> int:
  sys.stdout.flush()
  printing.note(f'error: {message}')
  return 2


def _leave(code: int) -> NoReturn:
  """Ends the process without what libraries do at its end.

  A thread of OpenBLAS asks for its memory until it gets some, and the library waits for the thread.
  """
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(code)


def _terminate(number: int, frame: types.FrameType | None) -> None:
  raise Terminated


def _guard_standard_streams() -> _StandardFile | None:
  """Lets nothing that happens to standard output or error end the command.

  Returns:
    The file behind standard output; None if that is no file, as in a test.
  """
  for number in range(3):
    try:
      os.fstat(number)
    except OSError:
      # The shell closed it (`>&-`); the next file that is opened would get its number.
      os.open(os.devnull, os.O_RDWR)
  output = None
  if sys.stdout is sys.__stdout__:
    sys.stdout, output = _guarded(sys.stdout, 1)
  if sys.stderr is sys.__stderr__:
    sys.stderr, _ = _guarded(sys.stderr, 2)
  return output


def _guarded(stream: TextIO | None, number: int) -> tuple[io.TextIOWrapper, _StandardFile]:
  """A standard stream again, on a `_StandardFile`; Python has none (None) if it was closed."""
  if stream:
    stream.flush()
  file = _StandardFile(number, 'w', closefd=False)
  unbuffered = getattr(stream, 'write_through', False)  # By `python -u`.
  text = _StandardText(
    cast(io.BufferedWriter, file) if unbuffered else io.BufferedWriter(file),
    stream.encoding if stream else 'utf-8',
    # Names of categories and files may have any character.
    errors='backslashreplace',
    line_buffering=number == 2 or file.isatty(),
    write_through=unbuffered,
  )
  return text, file
