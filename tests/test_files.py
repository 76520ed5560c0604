import errno
import fcntl
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from oanet_tf import files
from oanet_tf.errors import InputError
from tests.small_files import small_files


def test_a_folder_is_there_when_it_is_full(tmp_path):
  path = tmp_path / 'above' / 'folder'
  with files.making_folder(path) as temporary:
    (temporary / 'file').write_text('content')
    assert not path.exists()
  assert (path / 'file').read_text() == 'content'
  assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize('error', [ValueError, KeyboardInterrupt])
def test_of_a_folder_that_failed_nothing_is_left(tmp_path, error):
  with pytest.raises(error), files.making_folder(tmp_path / 'above' / 'folder') as temporary:
    (temporary / 'file').write_text('content')
    raise error
  assert not list(tmp_path.iterdir())


def test_what_a_killed_process_left_is_removed(tmp_path):
  (tmp_path / '.folder.part').mkdir()
  (tmp_path / '.folder.part' / 'old').write_text('')
  with files.making_folder(tmp_path / 'folder') as temporary:
    assert not list(temporary.iterdir())


def test_only_what_is_hidden_and_unfinished_is_removed(tmp_path):
  for name in ('.a.part', 'b.part', '.c', 'd'):
    (tmp_path / name).mkdir()
    (tmp_path / name / 'file').write_text('')
    (tmp_path / f'{name}.png').write_text('')
  (tmp_path / '.e.png.part').write_text('')
  (tmp_path / '.f.part').symlink_to(tmp_path / 'd')
  files.remove_unfinished(tmp_path)
  left = sorted(path.name for path in tmp_path.iterdir())
  assert left == ['.a.part.png', '.c', '.c.png', 'b.part', 'b.part.png', 'd', 'd.png']
  assert (tmp_path / 'd' / 'file').exists()
  files.remove_unfinished(tmp_path / 'missing')


def test_one_process_leaves_the_folder_of_another_alone(tmp_path):
  with files.making_folder(tmp_path / 'folder') as first:
    (first / 'file').write_text('first')
    with (
      pytest.raises(InputError, match="another process that makes 'folder' is running"),
      files.making_folder(tmp_path / 'folder'),
    ):
      pass
    assert (first / 'file').read_text() == 'first'
  assert [p.name for p in tmp_path.iterdir()] == ['folder']


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
  (tmp_path / 'file').write_text('')
  path = tmp_path / 'file' / 'folder'
  with pytest.raises(InputError, match=f'{path}: '), files.making_folder(path):
    pass


def test_a_folder_that_came_in_between_stays(tmp_path):
  path = tmp_path / 'folder'
  with pytest.raises(InputError, match=f'{path}: '), files.making_folder(path) as temporary:
    (temporary / 'new').write_text('')
    path.mkdir()
    (path / 'other').write_text('')
  assert [p.name for p in path.iterdir()] == ['other'] and list(tmp_path.iterdir()) == [path]


def test_write_text_makes_folders_and_replaces(tmp_path):
  path = tmp_path / 'above' / 'file'
  for text in ('old', 'né'):
    files.write_text(path, text)
  assert path.read_bytes() == 'né'.encode() and list(path.parent.iterdir()) == [path]


def test_a_text_is_written_whole_or_not_at_all(tmp_path):
  path = tmp_path / 'above' / 'file'
  files.write_text(path, 'whole')
  with pytest.raises(InputError, match=f'{path.parent}: '):
    files.write_text(path.parent, 'a folder')
  with pytest.raises(UnicodeEncodeError):
    files.write_text(path, '\ud800')
  assert path.read_text() == 'whole'
  assert list(path.parent.iterdir()) == [path] and list(tmp_path.iterdir()) == [path.parent]


def test_of_a_file_that_the_disk_has_no_room_for_nothing_is_left(tmp_path):
  path = tmp_path / 'file'
  files.write_text(path, 'old')
  noise = np.random.default_rng(0).integers(0, 255, [30, 30], np.uint8)
  with small_files(100):
    for one in (path, tmp_path / 'new' / 'folder' / 'file'):
      with pytest.raises(InputError, match=f'{one}: .*too large'):
        files.write_bytes(one, bytes(200))
    with pytest.raises(InputError, match=f'{path}: '), files.replacing(path) as temporary:
      Image.fromarray(noise).save(temporary, 'PNG')
  assert path.read_text() == 'old' and list(tmp_path.iterdir()) == [path]


def test_an_output_file_may_be_new(tmp_path):
  files.check_output_file(tmp_path / 'a' / 'b' / 'new.PNG', [None], suffixes=['.png'])
  assert not any(tmp_path.iterdir())


def test_an_output_file_replaces_only_what_it_should(tmp_path):
  given, old, link = (tmp_path / name for name in ('given.json', 'old.json', 'link.json'))
  given.write_text('')
  old.write_text('')
  link.symlink_to(given)
  files.check_output_file(old, [given, tmp_path / 'missing', tmp_path], overwrite=True)
  for path, overwrite, part in (
    (old, False, '--overwrite'),
    (given, True, 'is read'),
    (link, True, 'is read'),
    (tmp_path, True, 'folder'),
    (old / 'below', True, 'Not a directory'),
    (tmp_path / ('n' * 252), True, 'name too long'),
  ):
    with pytest.raises(InputError, match=f'{path}: .*{part}'):
      files.check_output_file(path, [given], overwrite)
  with pytest.raises(InputError, match=r'new\.txt: .*\.png or \.gif'):
    files.check_output_file(tmp_path / 'new.txt', suffixes=['.png', '.gif'])


def test_an_output_folder_is_not_one_that_is_read(tmp_path):
  pictures, link, file = tmp_path / 'pictures', tmp_path / 'link', tmp_path / 'pictures' / 'a.png'
  pictures.mkdir()
  file.write_text('')
  link.symlink_to(pictures)
  files.check_output_folder(tmp_path / 'new' / 'folder', [pictures, file])
  files.check_output_folder(tmp_path, [pictures, file, None])
  for given in (pictures, file, link):
    for folder in (pictures, link, pictures / '..' / 'pictures'):
      with pytest.raises(InputError, match=f'{folder}: {given} is read'):
        files.check_output_folder(folder, [given])
  for folder in (file, file / 'below'):
    with pytest.raises(InputError, match=f'{folder}: '):
      files.check_output_folder(folder)


def test_a_folder_that_belongs_to_others_is_refused_before_the_work(tmp_path, monkeypatch):
  monkeypatch.setattr(os, 'access', lambda path, mode: path != tmp_path)
  with pytest.raises(InputError, match=f'{tmp_path}'):
    files.check_output_file(tmp_path / 'new' / 'file')


def test_only_one_writes_into_a_folder(tmp_path):
  folder = tmp_path / 'a' / 'b'
  with files.only_one(folder, 'training'):
    with files.only_one(folder, 'evaluation'):
      pass
    refused = pytest.raises(InputError, match=f'{folder}: .*training')
    with refused, files.only_one(folder, 'training'):
      pass
    (folder / 'result').write_text('')
  with files.only_one(folder, 'training'):
    pass
  assert [path.name for path in folder.iterdir()] == ['result']


def test_a_new_folder_that_stays_empty_is_removed(tmp_path):
  with pytest.raises(ValueError), files.only_one(tmp_path / 'a' / 'b', 'training'):
    raise ValueError
  assert not any(tmp_path.iterdir())


def test_a_killed_process_holds_no_lock(tmp_path):
  code = """
import os, pathlib, signal, sys
from oanet_tf import files
with files.only_one(pathlib.Path(sys.argv[1]), 'training'):
  os.kill(os.getpid(), signal.SIGKILL)
"""
  subprocess.run([sys.executable, '-c', code, str(tmp_path)])
  assert [path.name for path in tmp_path.iterdir()] == ['.training.lock']
  with files.only_one(tmp_path, 'training'):
    pass
  assert not any(tmp_path.iterdir())


def test_without_locks_a_folder_is_usable(tmp_path, monkeypatch, capsys):
  def refuse(*_):
    raise OSError(errno.ENOLCK, 'No locks available')

  monkeypatch.setattr(fcntl, 'flock', refuse)
  with files.only_one(tmp_path / 'folder', 'training'):
    pass
  assert 'No locks available' in capsys.readouterr().err
