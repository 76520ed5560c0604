import pytest

from oanet_tf import files
from oanet_tf.errors import InputError


def test_a_folder_is_there_when_it_is_full(tmp_path):
  path = tmp_path / 'above' / 'folder'
  with files.making_folder(path) as temporary:
    (temporary / 'file').write_text('content')
    assert not path.exists()
  assert (path / 'file').read_text() == 'content'
  assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize('error', [ValueError, KeyboardInterrupt])
def test_of_a_folder_that_failed_nothing_is_left(tmp_path, error):
  with pytest.raises(error), files.making_folder(tmp_path / 'folder') as temporary:
    (temporary / 'file').write_text('content')
    raise error
  assert not list(tmp_path.iterdir())


def test_what_a_killed_process_left_is_removed(tmp_path):
  (tmp_path / '.folder.part').mkdir()
  (tmp_path / '.folder.part' / 'old').write_text('')
  with files.making_folder(tmp_path / 'folder') as temporary:
    assert not list(temporary.iterdir())


def test_one_process_leaves_the_folder_of_another_alone(tmp_path):
  with files.making_folder(tmp_path / 'folder', '1.part') as first:
    (first / 'file').write_text('first')
    with pytest.raises(ValueError), files.making_folder(tmp_path / 'folder', '2.part') as second:
      (second / 'file').write_text('second')
      raise ValueError
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
