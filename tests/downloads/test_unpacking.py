import gzip
import io
import tarfile
import zipfile

import pytest

from oanet_tf.downloads.unpacking import untar, unzip
from oanet_tf.errors import InputError

UNSAFE = ['../outside', 'inside/../../outside', '/{folder}/outside']


@pytest.fixture(params=['with filters', 'without filters'], autouse=True)
def python(request, monkeypatch):
  """Pythons whose `tarfile` has filters, and earlier ones."""
  if request.param == 'without filters':
    monkeypatch.delattr(tarfile, 'data_filter', raising=False)


@pytest.fixture
def folder(tmp_path):
  folder = tmp_path / 'folder'
  folder.mkdir()
  return folder


def make_zip(path, names, content=b'content'):
  with zipfile.ZipFile(path, 'w') as archive:
    for name in names:
      archive.writestr(name, content)
  return path


def make_tar(path, *members):
  with tarfile.open(path, 'w:gz') as archive:
    for member in members:
      member.size = 7 if member.isfile() else 0
      archive.addfile(member, io.BytesIO(b'content'))
  return path


def unpacked(folder):
  return {
    path.relative_to(folder).as_posix(): path.read_text()
    for path in folder.rglob('*')
    if path.is_file()
  }


def test_zip_files_are_unpacked_and_replace_what_is_there(tmp_path, folder, capsys):
  archive = make_zip(tmp_path / 'a.zip', ['one', 'inside/', 'inside/two..png'])
  (folder / 'one').write_text('half')
  unzip(archive, folder)
  assert unpacked(folder) == {'one': 'content', 'inside/two..png': 'content'}
  assert 'a.zip: 100%' in capsys.readouterr().err


def test_tar_files_are_unpacked(tmp_path, folder):
  inside = tarfile.TarInfo('./inside')
  inside.type = tarfile.DIRTYPE
  archive = make_tar(tmp_path / 'a.tar.gz', inside, tarfile.TarInfo('./inside/one'))
  untar(archive, folder)
  assert unpacked(folder) == {'inside/one': 'content'}


@pytest.mark.parametrize('name', UNSAFE)
def test_nothing_is_written_outside_the_folder(tmp_path, folder, name):
  name = name.format(folder=tmp_path)
  zip_file = make_zip(tmp_path / 'a.zip', [name])
  with pytest.raises(InputError, match=f'{zip_file}: .*outside'):
    unzip(zip_file, folder)
  tar_file = make_tar(tmp_path / 'a.tar.gz', tarfile.TarInfo(name))
  with pytest.raises(InputError, match=f'{tar_file}: .*outside'):
    untar(tar_file, folder)
  assert sorted(tmp_path.rglob('*')) == [tar_file, zip_file, folder]


@pytest.mark.parametrize('kind', [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(tmp_path, folder, kind):
  member = tarfile.TarInfo('link')
  member.type, member.linkname = kind, '..'
  archive = make_tar(tmp_path / 'a.tar.gz', member, tarfile.TarInfo('link/outside'))
  with pytest.raises(InputError, match=f'{archive}: link '):
    untar(archive, folder)
  assert not list(folder.iterdir())


def test_a_link_in_a_zip_file_is_a_file(tmp_path, folder):
  link = zipfile.ZipInfo('link')
  link.external_attr = 0o120777 << 16
  unzip(make_zip(tmp_path / 'a.zip', [link], '..'), folder)
  assert not (folder / 'link').is_symlink() and unpacked(folder) == {'link': '..'}


def test_damage_is_named(tmp_path, folder):
  archive = make_zip(tmp_path / 'a.zip', ['one'])
  whole = archive.read_bytes()
  for damaged in (whole.replace(b'content', b'contend'), whole[:-30], b''):
    archive.write_bytes(damaged)
    with pytest.raises(InputError, match=f'{archive}: is damaged'):
      unzip(archive, folder)
  archive = make_tar(tmp_path / 'a.tar.gz', tarfile.TarInfo('one'))
  whole = archive.read_bytes()
  wrong_sum = whole[:-8] + bytes([whole[-8] ^ 1]) + whole[-7:]
  wrong_tar = gzip.compress(b'x' * 2000)
  for damaged in (wrong_sum, wrong_tar, whole[:-10], b'<html>', b''):
    archive.write_bytes(damaged)
    with pytest.raises(InputError, match=f'{archive}: is damaged'):
      untar(archive, folder)


def test_a_file_in_place_of_a_folder_is_no_damage(tmp_path, folder):
  (folder / 'inside').write_text('')
  with pytest.raises(InputError, match=f'{folder}: cannot be written'):
    unzip(make_zip(tmp_path / 'a.zip', ['inside/one']), folder)
