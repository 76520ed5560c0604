"""Finds the files that a dataset's JSON names, in their folder."""

import functools
import os
import pathlib
from collections.abc import Iterable

from oanet_tf.errors import InputError
from oanet_tf.files import FilePath


class ListedFiles:
  """The files of a folder, by the names that a JSON gives them.

  Attributes:
    num_in_subfolders: how many files were found in subfolders that the JSON does not name.

  Args:
    folder: is looked through only if a name leads to no file.
    names: all names in the JSON. A file that is where its own name says is given to no other name.
  """

  def __init__(self, folder: FilePath, names: Iterable[object] = ()):
    self.num_in_subfolders = 0
    self._folder = pathlib.Path(folder)
    self._names = [name for name in names if isinstance(name, str)]
    self._found: dict[str, str] = {}
    self._listed: dict[pathlib.Path, set[str]] = {}

  def path(self, name: str, where: str) -> str:
    """The path of a file, which is missing if no such file is found.

    A name may have backslashes, as on Windows, or be the whole path of a file in the folder. A file
    that is not where its name says may lie in a subfolder, and its letters may be of another case.

    Args:
      name: in the JSON.
      where: for errors, what gives the name.

    Raises:
      InputError: if the name leads out of the folder, several subfolders have such a file, or it
        was found for another name.
    """
    path = self._inside(name, where)
    if there := self._where_it_says(name, where):
      return str(there)
    found = self._by_name.get(_key(name)) or self._by_name.get(_key(_of_cityscapes(name)), [])
    found = [one for one in found if self._folder / one not in self._taken]
    if len(found) > 1:
      raise InputError(
        f'{where}: file {name!r} is not in {self._folder}, but {found[0]} and {found[1]} are; name '
        'the subfolder in the JSON'
      )
    if not found:
      return str(path)
    if (other := self._found.setdefault(found[0], name)) != name:
      raise InputError(
        f'{where}: {self._folder / found[0]} could be {other!r} or {name!r}; place the files in '
        'folders as the JSON says'
      )
    self.num_in_subfolders += 1
    return str(self._folder / found[0])

  def _where_it_says(self, name: str, where: str) -> pathlib.Path | None:
    for one in (name, name.replace('\\', '/')):
      if self._is_there(path := self._inside(one, where)):
        return path
    return None

  @functools.cached_property
  def _taken(self) -> set[pathlib.Path]:
    taken = (self._where_it_says(name, str(self._folder)) for name in self._names)
    return {path for path in taken if path}

  @functools.cached_property
  def _whole_paths(self) -> list[str]:
    """The folder's, without `..` and, where it is a link, without links."""
    return [os.path.abspath(self._folder), os.path.realpath(self._folder)]

  def _inside(self, name: str, where: str) -> pathlib.Path:
    path = pathlib.PurePath(name)
    for folder in self._whole_paths:
      if path.is_absolute() and path.is_relative_to(folder):
        path = path.relative_to(folder)
    check_encodable(name, where)
    if not path.parts or path.is_absolute() or '..' in path.parts or '\0' in name:
      raise InputError(f'{where}: file name {name!r} is not one inside {self._folder}')
    return self._folder / path

  def _is_there(self, path: pathlib.Path) -> bool:
    # To list a folder once is far cheaper than to ask a network drive for each of its files.
    if path.parent not in self._listed:
      try:
        self._listed[path.parent] = set(os.listdir(path.parent))
      except OSError:
        # Whoever reads the file says what is wrong.
        self._listed[path.parent] = set()
    return path.name in self._listed[path.parent]

  @functools.cached_property
  def _by_name(self) -> dict[str, list[str]]:
    """Paths relative to the folder, by their last part."""
    found: dict[str, list[str]] = {}
    for folder, _, names in os.walk(self._folder, followlinks=True):
      for name in sorted(names):
        relative = os.path.relpath(os.path.join(folder, name), self._folder)
        found.setdefault(_key(name), []).append(relative)
    return found


def check_encodable(name: str, where: str) -> None:
  """Raises `InputError`, which names `where`, if the system can have no file of this name."""
  try:
    os.fsencode(name)
  except UnicodeEncodeError:
    raise InputError(f'{where}: file name {name!r} is no text that a file can have') from None


def _of_cityscapes(name: str) -> str:
  # createPanopticImgs of cityscapesscripts gives images a name that is made of their labels'.
  return name.replace('_gtFine_leftImg8bit.', '_leftImg8bit.')


def stem(name: str) -> str:
  """'a/b.jpg' or 'a\\\\b.jpg' -> 'b'."""
  return pathlib.PurePosixPath(_last(name)).stem


def _last(name: str) -> str:
  return name.replace('\\', '/').rpartition('/')[2]


def _key(name: str) -> str:
  return _last(name).casefold()
