"""The files in a TFLite file: a ZIP archive after the model, with a checksum of the model.

A damaged model can end the process that LiteRT runs in, so nothing is given to LiteRT unchecked.
"""

import contextlib
import hashlib
import io
import json
import os
import pathlib
import zipfile
from collections.abc import Iterator, Mapping
from typing import BinaryIO

from oanet_tf.errors import InputError, first_line

MODEL_FILE = 'model.tflite'
DESCRIPTION_FILE = 'model.json'
# The second of two steps, a TFLite file itself; see `serving.two_steps`.
MERGE_FILE = 'merge.tflite'
# In the description: SHA-256 of all bytes before the archive, in hexadecimal.
CHECKSUM = 'sha256'
# The same of all of `MERGE_FILE`.
MERGE_CHECKSUM = 'merge_sha256'
# Of the archive, and of a file in it. A description has 100 bytes for each category.
MAX_BYTES = 2**22
_CHUNK = 2**20


def checksum(model: bytes) -> str:
  """What `CHECKSUM` is to be for a TFLite file without an archive."""
  return hashlib.sha256(model).hexdigest()


def with_files(model: bytes, files: Mapping[str, bytes]) -> bytes:
  """Adds files to a TFLite file; any ZIP program can extract them.

  Args:
    model: a TFLite file without an archive.
    files: by name.

  Raises:
    InputError: if they are too large to be read again.
  """
  file = io.BytesIO(model)
  # Readers on phones cannot decompress.
  with zipfile.ZipFile(file, 'a', zipfile.ZIP_STORED) as archive:
    for name, content in files.items():
      archive.writestr(name, content)
  size = len(file.getvalue()) - len(model)
  if size > MAX_BYTES:
    raise InputError(
      f'labels and description take {size} bytes of a TFLite file, which has room for {MAX_BYTES}; '
      'give the categories shorter names'
    )
  return file.getvalue()


def read_description(path: pathlib.Path) -> dict:
  """The description in a TFLite file of `oanet_tf.export`, whose model is as it was written.

  Raises:
    InputError: if the file cannot be read, is damaged, or has no such description.
  """
  try:
    with path.open('rb') as file:
      description, model_bytes = _read_archive(file, path)
      found = _checksum_of(file, model_bytes)
  except OSError as error:
    raise InputError(f'{path}: cannot be read ({error.strerror or first_line(error)})') from None
  if CHECKSUM not in description:
    raise InputError(
      f'{path}: has no checksum, as oanet export once wrote none; export the network again'
    )
  if description[CHECKSUM] != found:
    raise InputError(f'{path}: is damaged: its checksum is another; copy or export it again')
  return description


def read_file(path: pathlib.Path, name: str) -> bytes:
  """A file in a TFLite file of `oanet_tf.export`.

  Raises:
    InputError: if it cannot be read, is damaged, or is not there.
  """
  try:
    with path.open('rb') as file, _reading(path), _archive(file)[0] as archive:
      return archive.read(_checked(archive, name))
  except OSError as error:
    raise InputError(f'{path}: cannot be read ({error.strerror or first_line(error)})') from None


def _read_archive(file: BinaryIO, path: pathlib.Path) -> tuple[dict, int]:
  """The description, and the number of bytes before the archive."""
  with _reading(path):
    archive, before = _archive(file)
    with archive:
      description = json.loads(archive.read(_checked(archive, DESCRIPTION_FILE)))
      model_bytes = before + min(entry.header_offset for entry in archive.infolist())
    if not isinstance(description, dict):
      raise ValueError(f'its {DESCRIPTION_FILE} is no JSON object')
  return description, model_bytes


def _archive(file: BinaryIO) -> tuple[zipfile.ZipFile, int]:
  """The archive, and how many bytes of the file are not looked at as they come before it."""
  before = file.seek(max(0, file.seek(0, os.SEEK_END) - MAX_BYTES))
  return zipfile.ZipFile(io.BytesIO(file.read(MAX_BYTES))), before


def _checked(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
  entry = archive.getinfo(name)
  if entry.file_size > MAX_BYTES:
    raise ValueError(f'its {name} is larger than {MAX_BYTES} bytes')
  return entry


@contextlib.contextmanager
def _reading(path: pathlib.Path) -> Iterator[None]:
  """Turns what is said of damaged archives into an `InputError`."""
  try:
    yield
  except Exception as error:  # zipfile raises nearly anything on damaged archives.
    raise InputError(
      f'{path}: is cut off, damaged or not of oanet export ({first_line(error)}); copy or export '
      'it again'
    ) from None


def _checksum_of(file: BinaryIO, number: int) -> str:
  """SHA-256 of the first bytes."""
  digest = hashlib.sha256()
  file.seek(0)
  while number > 0 and (chunk := file.read(min(number, _CHUNK))):
    digest.update(chunk)
    number -= len(chunk)
  return digest.hexdigest()
