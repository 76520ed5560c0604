"""LiteRT.js, which runs TFLite files in browsers: where a page finds it, and how it gets a copy."""

import json
import pathlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence

from oanet_tf import files
from oanet_tf.data.json_file import read_json_object
from oanet_tf.downloads.unpacking import untar
from oanet_tf.errors import InputError

# The release that the page was written for and tested with.
VERSION = '2.5.3'
PACKAGES = ('@litertjs/core', '@litertjs/wasm-utils')
CDN = 'https://cdn.jsdelivr.net'
# Beside the page.
FOLDER = 'litert'
# Of each package, what is imported by its name; and of the first, the programs for LiteRT itself.
_MODULE, _WASM = 'dist/index.js', 'wasm/'
# A page needs no type declarations and no maps for debuggers.
_NEEDED = ('package.json', _MODULE)
_NEEDED_OF_CORE = (f'{_WASM}*.js', f'{_WASM}*.wasm')
_NPM_PACK = f'npm pack {" ".join(f"{name}@{VERSION}" for name in PACKAGES)}'


def urls(is_copied: bool) -> dict[str, str]:
  """The folder of each package, beside the page or in the CDN, with a slash at its end."""
  if is_copied:
    return {name: f'./{FOLDER}/{name}/' for name in PACKAGES}
  return {name: f'{CDN}/npm/{name}@{VERSION}/' for name in PACKAGES}


def import_map(is_copied: bool) -> str:
  """The page's import map, as JSON."""
  modules = {name: url + _MODULE for name, url in urls(is_copied).items()}
  return json.dumps({'imports': modules}, indent=1)


def wasm_url(is_copied: bool) -> str:
  """Of the folder that `loadLiteRt` takes."""
  return urls(is_copied)[PACKAGES[0]] + _WASM


def check(sources: Sequence[files.FilePath]) -> None:
  """Raises the errors of `copy`, before other work is lost by them."""
  with tempfile.TemporaryDirectory() as folder:
    copy(sources, pathlib.Path(folder))


def copy(sources: Sequence[files.FilePath], folder: pathlib.Path) -> None:
  """Copies what a page needs of the packages to `folder/litert`.

  Args:
    sources: archives of `npm pack`, and folders `node_modules`.
    folder: of the page.

  Raises:
    InputError: if a source is neither, or damaged, or a package is missing, of another version or
      incomplete.
  """
  for source in map(pathlib.Path, sources):
    if not source.exists():
      raise InputError(f'{source}: does not exist; {_NPM_PACK} writes two archives')
    if source.is_file() and source.suffix != '.tgz':
      raise InputError(f'{source}: is neither a .tgz of npm pack nor a folder node_modules')
  with files.temporary_folder(folder / FOLDER) as unpacked:
    packages = dict(_found(sources, unpacked))
    for name in PACKAGES:
      if name not in packages:
        raise InputError(
          f'{", ".join(map(str, sources))}: {name} is not there; give both archives that '
          f'{_NPM_PACK} writes, or a node_modules that has them'
        )
      _copy(name, packages[name], folder / FOLDER / name)


def _found(
  sources: Sequence[files.FilePath], unpacked: pathlib.Path
) -> Iterator[tuple[str, pathlib.Path]]:
  """The packages by name, and their folders; those of archives are unpacked."""
  for number, source in enumerate(map(pathlib.Path, sources)):
    if source.is_dir():
      yield from ((name, source / name) for name in PACKAGES if (source / name).is_dir())
      continue
    folder = unpacked / str(number)
    folder.mkdir()
    untar(source, folder)
    # npm puts a package into a folder of this name.
    package = folder / 'package'
    yield _about(package, source).get('name', ''), package


def _about(package: pathlib.Path, source: pathlib.Path) -> Mapping:
  if not (package / 'package.json').is_file():
    raise InputError(f'{source}: is no package of npm')
  return read_json_object(package / 'package.json')


def _copy(name: str, package: pathlib.Path, target: pathlib.Path) -> None:
  version = _about(package, package).get('version')
  if version != VERSION:
    raise InputError(f'{name} has version {version}; the page was made for {VERSION}: {_NPM_PACK}')
  for pattern in _NEEDED + (_NEEDED_OF_CORE if name == PACKAGES[0] else ()):
    paths = sorted(package.glob(pattern))
    if not paths:
      raise InputError(f'{name} {version} has no {pattern}; fetch it again: {_NPM_PACK}')
    for path in paths:
      copied = target / path.relative_to(package)
      copied.parent.mkdir(parents=True, exist_ok=True)
      shutil.copyfile(path, copied)
