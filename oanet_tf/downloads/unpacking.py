"""Unpacks archives; nothing of them is written outside the folder."""

import contextlib
import gzip
import pathlib
import tarfile
import zipfile
import zlib
from collections.abc import Iterator

import tqdm

from oanet_tf import files
from oanet_tf.errors import InputError, first_line
from oanet_tf.printing import shown


def unzip(archive: pathlib.Path, folder: pathlib.Path) -> None:
  """Unpacks a ZIP file, with a progress bar; the checksum of each file in it is verified.

  Args:
    archive: the ZIP file.
    folder: exists; files that are there already are replaced.

  Raises:
    InputError: if the archive is damaged or not one, has a file for elsewhere, or the disk is full.
  """
  title = f'unpacking {shown(archive.name)}'
  with (
    files.writing(folder),
    _reading(archive),
    zipfile.ZipFile(archive) as content,
    tqdm.tqdm(content.infolist(), title, unit='file') as members,
  ):
    for member in members:
      _check_name(archive, member.filename)
      content.extract(member, folder)


def untar(archive: pathlib.Path, folder: pathlib.Path) -> None:
  """Unpacks a .tar.gz file of files and folders.

  Args:
    archive: the .tar.gz file.
    folder: exists.

  Raises:
    InputError: as `unzip`, and if the archive has a link or a device.
  """
  with (
    files.writing(folder),
    _reading(archive),
    gzip.open(archive) as stream,
    tarfile.open(fileobj=stream) as content,
  ):
    # Early releases of Python 3.10 and 3.11 have no filters.
    content.extraction_filter = getattr(tarfile, 'data_filter', None)
    for member in content:
      _check_name(archive, member.name)
      if not (member.isfile() or member.isdir()):
        raise InputError(f'{archive}: {member.name} is neither a file nor a folder')
      content.extract(member, folder)
    # The archive's checksum is behind its end.
    while stream.read(2**20):
      pass


def _check_name(archive: pathlib.Path, name: str) -> None:
  path = pathlib.PurePosixPath(name)
  if path.is_absolute() or '..' in path.parts:
    raise InputError(f'{archive}: {name!r} would be written outside the folder; do not trust it')


@contextlib.contextmanager
def _reading(archive: pathlib.Path) -> Iterator[None]:
  """Turns what the libraries say of damaged archives into an `InputError`."""
  try:
    yield
  except (
    zipfile.BadZipFile,
    tarfile.TarError,
    gzip.BadGzipFile,
    zlib.error,
    EOFError,
    RuntimeError,  # A password or a compression that `zipfile` does not know.
  ) as error:
    raise InputError(
      f'{archive}: is damaged ({first_line(error)}); remove it and start again'
    ) from None
