"""Atomic writes: a file or folder appears under its name only when it is complete."""

import atexit
import contextlib
import functools
import os
import pathlib
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence

from oanet_tf.errors import InputError, first_line
from oanet_tf.printing import note

FilePath = str | os.PathLike[str]


def as_list(given: FilePath | Sequence[FilePath]) -> list[str]:
  """One path or name, or several, as a list; a string is not taken for its letters."""
  several = [given] if isinstance(given, str | os.PathLike) else given
  return [os.fspath(one) for one in several]


def check_output_file(
  path: FilePath,
  inputs: Sequence[FilePath | None] = (),
  overwrite: bool = False,
  suffixes: Sequence[str] = (),
) -> None:
  """Checks, before the work, that a file can be written later and replaces nothing by mistake.

  Args:
    path: of the file; the folders above it need not exist.
    inputs: files that are read and must stay; None is skipped.
    overwrite: whether another file may be replaced.
    suffixes: those that the file may have, such as '.png'; () for any.

  Raises:
    InputError: if it is one of the inputs, a folder, exists already, has another suffix, or cannot
      be made there.
  """
  path = pathlib.Path(path)
  if suffixes and path.suffix.lower() not in suffixes:
    raise InputError(f'{path}: does not end in {" or ".join(suffixes)}; give another name')
  with writing(path):
    _status(_hidden(path))  # Its name is the longest.
    found = _status(path)
  check_output_folder(path.parent)
  if found is None:
    return
  if stat.S_ISDIR(found.st_mode):
    raise InputError(f'{path}: is a folder; give the name of a file')
  if any(_is_at(found, one) for one in inputs if one is not None):
    raise InputError(f'{path}: is read, so it cannot be written; give another name')
  if not overwrite:
    raise InputError(f'{path}: exists already; give another name, or --overwrite')


def check_output_folder(folder: FilePath, inputs: Sequence[FilePath | None] = ()) -> None:
  """Checks, before the work, that files can be written into a folder and fall on no input.

  Args:
    folder: need not exist.
    inputs: files and folders that are read; None is skipped.

  Raises:
    InputError: if it is a folder that is read or has a file that is read, is a file, or cannot be
      made or written to.
  """
  folder = pathlib.Path(folder)
  with writing(folder):
    found = _status(folder)
    existing = next(path for path in (folder, *folder.absolute().parents) if _status(path))
  if not existing.is_dir():
    raise InputError(f'{folder}: cannot be made, as {existing} is a file; give another folder')
  if not os.access(existing, os.W_OK | os.X_OK):
    raise InputError(f'{folder}: cannot be written, as {existing} is not yours to write to')
  if found is None:
    return
  for one in inputs:
    if one is not None and _is_at(found, one if os.path.isdir(one) else pathlib.Path(one).parent):
      raise InputError(f'{folder}: {one} is read from there; give another folder for the results')


def _status(path: pathlib.Path) -> os.stat_result | None:
  """What is at a path; None if nothing is."""
  try:
    return path.stat()
  except FileNotFoundError:
    return None


def _is_at(status: os.stat_result, path: FilePath) -> bool:
  """Whether a path leads, perhaps by links, to what has this status."""
  other = _status(pathlib.Path(path))
  return other is not None and os.path.samestat(status, other)


def _hidden(path: pathlib.Path) -> pathlib.Path:
  return path.with_name(f'.{path.name}.part')


@contextlib.contextmanager
def writing(path: FilePath) -> Iterator[None]:
  """Turns an `OSError`, such as a full disk, into an `InputError` that names `path`."""
  try:
    yield
  except OSError as error:
    fact = error.strerror or first_line(error)
    raise InputError(f'{path}: cannot be written ({fact})') from None


@contextlib.contextmanager
def writing_by_tensorflow(path: FilePath) -> Iterator[None]:
  """As `writing`, for TensorFlow's own writers, whose errors are of other types."""
  import tensorflow as tf

  try:
    with writing(path):
      yield
  except tf.errors.OpError as error:
    raise InputError(f'{path}: cannot be written ({first_line(error)})') from None


def for_tensorflow(path: FilePath) -> str:
  """A path as TensorFlow's readers of checkpoints and SavedModels can take it.

  They take a path with `[` or `\\` for a pattern, and find nothing. The folder then gets another
  name, by a link that stays until the process ends, since TensorFlow may read late.
  """
  absolute = os.path.abspath(path)
  folder, name = (absolute, '') if os.path.isdir(path) else os.path.split(absolute)
  return os.path.join(_link_to(folder), name) if {'[', '\\'} & set(folder) else os.fspath(path)


@functools.cache
def _link_to(folder: str) -> str:
  holder = tempfile.mkdtemp(prefix='oanet_tf_')
  atexit.register(shutil.rmtree, holder, ignore_errors=True)
  link = os.path.join(holder, 'link')
  os.symlink(folder, link)
  return link


def make_folder(path: FilePath) -> None:
  """Makes a folder and those above it, unless it exists.

  Raises:
    InputError: if it cannot be made; it names `path`.
  """
  with writing(path):
    pathlib.Path(path).mkdir(parents=True, exist_ok=True)


@contextlib.contextmanager
def replacing(path: pathlib.Path, durable: bool = False) -> Iterator[pathlib.Path]:
  """Yields a hidden path to write to, which is renamed to `path` at the end or removed on an error.

  Args:
    path: in a folder that exists.
    durable: whether to sync the content to the disk first, so that a power cut cannot leave an
      empty file.

  Raises:
    InputError: if the file cannot be written or renamed; it names `path`. So the `with` block
      should do nothing but write.
  """
  temporary = _hidden(path)
  try:
    with writing(path):
      yield temporary
      if durable:
        with open(temporary, 'rb') as file:
          os.fsync(file.fileno())
      os.replace(temporary, path)
  finally:
    # Where it cannot be written, it cannot be removed either.
    with contextlib.suppress(OSError):
      temporary.unlink()


def write_text(path: pathlib.Path, text: str, durable: bool = False) -> None:
  """Writes a file as a whole or not at all, and makes the folders above it; see `replacing`.

  Raises:
    InputError: if it cannot be written; it names `path`.
  """
  write_bytes(path, text.encode(), durable)


def write_bytes(path: pathlib.Path, content: bytes, durable: bool = False) -> None:
  """As `write_text`."""
  with folder_unless_empty(path.parent, path), replacing(path, durable) as temporary:
    temporary.write_bytes(content)


@contextlib.contextmanager
def making_folder(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields a hidden folder to fill, which is renamed to `path` at the end or removed on an error.

  Args:
    path: does not exist yet or is an empty folder; the folders above it are made.

  Raises:
    InputError: if it cannot be made, or another process is making it; it names `path`.
  """
  with (
    folder_unless_empty(path.parent, path),
    only_one(path.parent, f'process that makes {path.name!r}', path.name),
    temporary_folder(path) as temporary,
  ):
    yield temporary
    with writing(path):
      temporary.rename(path)


@contextlib.contextmanager
def temporary_folder(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields a hidden folder for what is to be at `path`; it is removed at the end.

  A process that was killed leaves it, and the next one removes it.

  Args:
    path: in a folder that exists; no other process may do the same, see `only_one`.

  Raises:
    InputError: if it cannot be made; it names `path`.
  """
  temporary = _hidden(path)
  shutil.rmtree(temporary, ignore_errors=True)
  try:
    with writing(path):
      temporary.mkdir()
    yield temporary
  finally:
    shutil.rmtree(temporary, ignore_errors=True)


def remove_unfinished(folder: pathlib.Path) -> None:
  """Removes the hidden files and folders that killed processes left in a folder, if there is one.

  Nothing else may be writing there, see `only_one`.
  """
  for path in folder.glob('.*.part'):
    if path.is_dir() and not path.is_symlink():
      shutil.rmtree(path, ignore_errors=True)
    else:
      path.unlink(missing_ok=True)


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
      note(f'{path}: cannot be locked ({error.strerror})')
    yield lock if is_free else None
  finally:
    os.close(lock)


@contextlib.contextmanager
def only_one(folder: pathlib.Path, what: str, name: str = '') -> Iterator[None]:
  """Makes a folder, and keeps other processes from writing the same into it meanwhile.

  The lock is a hidden file in it, and is removed at the end, as is a new folder that stayed empty.

  Args:
    folder: where is written.
    what: is written, for the error, such as 'training'.
    name: tells locks in the folder apart; '' takes `what`.

  Raises:
    InputError: if the folder cannot be made, or another process holds the lock.
  """
  path = folder / f'.{name or what}.lock'
  with folder_unless_empty(folder), locked(path) as lock:
    # The other may have removed the file after it was opened here.
    if lock is None or not _is_at(os.fstat(lock), path):
      raise InputError(
        f'{folder}: another {what} is running there; wait until it ends, or give another folder'
      )
    try:
      yield
    finally:
      path.unlink(missing_ok=True)


@contextlib.contextmanager
def folder_unless_empty(folder: pathlib.Path, named: pathlib.Path | None = None) -> Iterator[None]:
  """Makes a folder and those above it; those that are still empty at the end are removed.

  Raises:
    InputError: if it cannot be made; it names `named` or the folder.
  """
  with writing(named or folder):
    new = [path for path in (folder, *folder.parents) if _status(path) is None]
    folder.mkdir(parents=True, exist_ok=True)
  try:
    yield
  finally:
    with contextlib.suppress(OSError):
      for path in new:
        path.rmdir()
