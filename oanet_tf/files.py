"""Atomic writes: a file or folder appears under its name only when it is complete."""

import contextlib
import os
import pathlib
import shutil
import sys
from collections.abc import Iterator, Sequence

from oanet_tf.errors import InputError

FilePath = str | os.PathLike[str]


def as_list(given: FilePath | Sequence[FilePath]) -> list[str]:
  """One path or name, or several, as a list; a string is not taken for its letters."""
  several = [given] if isinstance(given, str | os.PathLike) else given
  return [os.fspath(one) for one in several]


@contextlib.contextmanager
def replacing(path: pathlib.Path, durable: bool = False) -> Iterator[pathlib.Path]:
  """Yields a hidden path to write to, which is renamed to `path` at the end or removed on an error.

  Args:
    path: in a folder that exists.
    durable: whether to sync the content to the disk first, so that a power cut cannot leave an
      empty file.

  Raises:
    InputError: if the file cannot be renamed; it names `path`.
  """
  temporary = path.with_name(f'.{path.name}.part')
  try:
    yield temporary
    with writing(path):
      if durable:
        with open(temporary, 'rb') as file:
          os.fsync(file.fileno())
      os.replace(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def writing(path: pathlib.Path) -> Iterator[None]:
  """Turns an `OSError`, such as a full disk, into an `InputError` that names `path`."""
  try:
    yield
  except OSError as error:
    raise InputError(f'{path}: cannot be written ({error.strerror})') from None


def write_text(path: pathlib.Path, text: str, durable: bool = False) -> None:
  """Writes a file as a whole or not at all, and makes the folders above it; see `replacing`.

  Raises:
    InputError: if it cannot be written; it names `path`.
  """
  with writing(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, durable) as temporary:
      temporary.write_text(text, encoding='utf-8')


@contextlib.contextmanager
def making_folder(path: pathlib.Path, suffix: str = 'part') -> Iterator[pathlib.Path]:
  """Yields a hidden folder to fill, which is renamed to `path` at the end or removed on an error.

  Args:
    path: does not exist yet or is an empty folder; the folders above it are made.
    suffix: of the hidden folder. With a process's own, several may make `path` at once.

  Raises:
    InputError: if it cannot be made; it names `path`.
  """
  temporary = path.with_name(f'.{path.name}.{suffix}')
  # A process that was killed may have left one.
  shutil.rmtree(temporary, ignore_errors=True)
  try:
    with writing(path):
      temporary.mkdir(parents=True)
    yield temporary
    with writing(path):
      temporary.rename(path)
  finally:
    shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def locked(path: pathlib.Path) -> Iterator[int | None]:
  """Holds a lock file, which the system unlocks when the process ends, however it ends.

  Args:
    path: in a folder that exists; the file stays.

  Yields:
    The file's descriptor, or None if another process holds the lock.

  Raises:
    InputError: if the file cannot be made; it names `path`.
  """
  import fcntl  # Windows has no such module.

  with writing(path):
    lock = os.open(path, os.O_CREAT | os.O_RDWR)
  is_free = True
  try:
    try:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      is_free = False
    except OSError as error:
      # Some network file systems have no locks; their users must see to it themselves.
      print(f'{path}: cannot be locked ({error.strerror})', file=sys.stderr)
    yield lock if is_free else None
  finally:
    os.close(lock)
