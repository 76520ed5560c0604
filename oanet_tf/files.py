"""Atomic writes: a file or folder appears under its name only when it is complete."""

import contextlib
import os
import pathlib
import shutil
from collections.abc import Iterator

from oanet_tf.errors import InputError


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
def making_folder(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields a hidden folder to fill, which is renamed to `path` at the end or removed on an error.

  Args:
    path: does not exist yet or is an empty folder; the folders above it are made.

  Raises:
    InputError: if it cannot be made; it names `path`.
  """
  temporary = path.with_name(f'.{path.name}.part')
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
