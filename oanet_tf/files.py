"""Writing files so that nothing half-written is ever there under its name."""

import contextlib
import os
import pathlib
import shutil
from collections.abc import Iterator

from oanet_tf.errors import InputError


@contextlib.contextmanager
def replacing(path: pathlib.Path, durable: bool = False) -> Iterator[pathlib.Path]:
  """A hidden name to write to, which becomes `path` at the end; gone on an error.

  Args:
    path: in a folder that exists.
    durable: makes sure that the content is on the disk first, lest a machine that loses power
      leaves an empty file.

  Raises:
    InputError: if the system refuses, e.g. for want of space; it names `path`.
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
  """Makes what the system refuses, e.g. for want of space, an `InputError` that names `path`."""
  try:
    yield
  except OSError as error:
    raise InputError(f'{path}: cannot be written ({error.strerror})') from None


def write_text(path: pathlib.Path, text: str) -> None:
  """Writes a whole file or nothing; the folders above it are made.

  Raises:
    InputError: if the system refuses; it names `path`.
  """
  with writing(path):
    path.parent.mkdir(parents=True, exist_ok=True)
  with replacing(path) as temporary, writing(path):
    temporary.write_text(text, encoding='utf-8')


@contextlib.contextmanager
def making_folder(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """A hidden folder to fill, which becomes `path` at the end; gone on an error.

  Args:
    path: is not there yet; the folders above it are made.

  Raises:
    InputError: if the system refuses; it names `path`.
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
