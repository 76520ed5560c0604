"""A copy of LiteRT.js from archives of npm, or from a `node_modules`."""

import io
import json
import tarfile

import pytest

from oanet_tf.errors import InputError
from oanet_tf.serving import litert_js
from oanet_tf.serving.litert_js import PACKAGES, VERSION

CONTENTS = {
  '@litertjs/core': ['dist/index.js', 'dist/index.d.ts', 'wasm/litert.js', 'wasm/litert.wasm'],
  '@litertjs/wasm-utils': ['dist/index.js', 'README.md'],
}


def files_of(name, version=VERSION, without=()):
  about = json.dumps({'name': name, 'version': version})
  files = {path: f'{name} {path}' for path in CONTENTS[name] if path not in without}
  return {'package.json': about, **files}


def node_modules(folder, **changes):
  for name in PACKAGES:
    for path, text in files_of(name, **changes).items():
      (folder / name / path).parent.mkdir(parents=True, exist_ok=True)
      (folder / name / path).write_text(text)
  return folder


def archive(path, files):
  with tarfile.open(path, 'w:gz') as content:
    for name, text in files.items():
      entry = tarfile.TarInfo(f'package/{name}')
      entry.size = len(text.encode())
      content.addfile(entry, io.BytesIO(text.encode()))
  return path


def archives(folder):
  return [archive(folder / f'{number}.tgz', files_of(name)) for number, name in enumerate(PACKAGES)]


def copied(folder):
  return {str(path.relative_to(folder)) for path in folder.rglob('*') if path.is_file()}


NEEDED = {
  'litert/@litertjs/core/package.json',
  'litert/@litertjs/core/dist/index.js',
  'litert/@litertjs/core/wasm/litert.js',
  'litert/@litertjs/core/wasm/litert.wasm',
  'litert/@litertjs/wasm-utils/package.json',
  'litert/@litertjs/wasm-utils/dist/index.js',
}


def test_from_node_modules(tmp_path):
  source = node_modules(tmp_path / 'node_modules')
  (tmp_path / 'page').mkdir()
  litert_js.copy([source], tmp_path / 'page')
  assert copied(tmp_path / 'page') == NEEDED


def test_from_archives_in_any_order(tmp_path):
  sources = archives(tmp_path)[::-1]
  litert_js.check(sources)
  (tmp_path / 'page').mkdir()
  litert_js.copy(sources, tmp_path / 'page')
  assert copied(tmp_path / 'page') == NEEDED


def refused(sources, folder, message):
  folder.mkdir()
  with pytest.raises(InputError, match=message) as error:
    litert_js.copy(sources, folder)
  assert '\n' not in str(error.value)
  # Nothing of the archives is left.
  assert not [path for path in folder.iterdir() if path.name.startswith('.')]


def test_one_archive_is_not_enough(tmp_path):
  refused(archives(tmp_path)[:1], tmp_path / 'page', 'wasm-utils is not there; give both archives')


def test_another_version(tmp_path):
  source = node_modules(tmp_path / 'node_modules', version='2.4.0')
  refused([source], tmp_path / 'page', f'version 2.4.0; the page was made for {VERSION}')


def test_an_incomplete_package(tmp_path):
  source = node_modules(tmp_path / 'node_modules', without=['dist/index.js'])
  refused([source], tmp_path / 'page', r'has no dist/index\.js')


def test_a_damaged_archive(tmp_path):
  sources = archives(tmp_path)
  sources[0].write_bytes(sources[0].read_bytes()[:-20])
  refused(sources, tmp_path / 'page', r'0\.tgz: is damaged')


def test_an_empty_archive_is_told_in_a_line(tmp_path):
  (tmp_path / 'empty.tgz').touch()
  refused([tmp_path / 'empty.tgz'], tmp_path / 'page', r'empty\.tgz: is damaged [^\\]*; remove it')


def test_an_archive_of_something_else(tmp_path):
  other = archive(tmp_path / 'other.tgz', {'readme': 'text'})
  refused([other], tmp_path / 'page', 'is no package of npm')


def test_a_file_outside_of_the_folder(tmp_path):
  other = archive(tmp_path / 'other.tgz', {'../../../out.js': 'text'})
  refused([other], tmp_path / 'page', 'outside')


@pytest.mark.parametrize('name', ['none.tgz', 'photo.jpg'])
def test_sources_are_looked_at_first(tmp_path, name):
  (tmp_path / 'photo.jpg').write_bytes(b'')
  with pytest.raises(InputError, match=name):
    litert_js.check([tmp_path / name])


def test_where_a_page_finds_it():
  imports = json.loads(litert_js.import_map(False))['imports']
  assert imports['@litertjs/core'] == (
    f'https://cdn.jsdelivr.net/npm/@litertjs/core@{VERSION}/dist/index.js'
  )
  assert litert_js.wasm_url(True) == './litert/@litertjs/core/wasm/'
