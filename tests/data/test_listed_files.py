import os

import pytest

from oanet_tf.data.listed_files import ListedFiles
from oanet_tf.errors import InputError


def make(folder, *names):
  for name in names:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b'')
  return folder


def found(folder, *names):
  files = ListedFiles(folder, names)
  return [os.path.relpath(files.path(name, 'a.json'), folder) for name in names]


def test_the_file_of_one_name_is_not_given_to_another(tmp_path):
  make(tmp_path, 'y/1.png')
  assert found(tmp_path, 'x/1.png', 'y/1.png') == ['x/1.png', 'y/1.png']
  assert found(tmp_path, 'x/1.png') == ['y/1.png']
  make(tmp_path, 'z/1.png')
  # Nor does it make the name ambiguous.
  assert found(tmp_path, 'x/1.png', 'y/1.png') == ['z/1.png', 'y/1.png']
  assert found(tmp_path, 'x/1.png', 'y/1.png', 'z\\1.png')[0] == 'x/1.png'


def test_two_names_of_one_file(tmp_path):
  make(tmp_path, '1.png')
  with pytest.raises(InputError, match=r'a\.json: .*1\.png .*x/1\.png.*y/1\.png'):
    found(tmp_path, 'x/1.png', 'y/1.png')
  assert found(tmp_path, 'x/1.png', 'x/1.png') == ['1.png', '1.png']


def test_a_whole_path_however_the_folder_is_given(tmp_path, monkeypatch):
  make(tmp_path / 'real', 'x/1.png')
  make(tmp_path / 'other', '2.png')
  (tmp_path / 'link').symlink_to(tmp_path / 'real')
  monkeypatch.chdir(tmp_path / 'other')
  whole = str(tmp_path / 'real' / 'x' / '1.png')
  for folder in ('../real', '../other/../real', '../link', tmp_path / 'link', tmp_path / 'real'):
    assert found(folder, whole) == ['x/1.png']
  with pytest.raises(InputError, match=r'a\.json: .*2\.png'):
    found(tmp_path / 'real', str(tmp_path / 'other' / '2.png'))


@pytest.mark.parametrize('name', ['1\ud800.png', 'x\ud800/1.png'])
def test_a_name_that_no_file_can_have(tmp_path, name):
  with pytest.raises(InputError, match=r'^a\.json: file name'):
    found(tmp_path, name)


def test_a_name_whose_bytes_are_no_text(tmp_path):
  make(tmp_path, '1\udcff.png')
  assert found(tmp_path, '1\udcff.png') == ['1\udcff.png']
