import json

import pytest

from oanet_tf.data import shard_files
from oanet_tf.errors import InputError
from tests.categories import CATEGORIES, PERSON, TIE_ON_PERSON


def shard(folder, name='a.tfrecord'):
  """A shard with an empty record."""
  folder.mkdir(parents=True, exist_ok=True)
  (folder / name).write_bytes(bytes(16))
  return str(folder / name)


@pytest.mark.parametrize(
  'name', ['lr[0.01]', '[a', 'a]', '[1] [2]', 'a,b', 'a, b', 'star*', 'why?']
)
def test_signs_in_the_names_of_folders(tmp_path, name):
  path = shard(tmp_path / name)
  assert shard_files.list_shards(path) == [path]
  assert shard_files.list_shards(f'{tmp_path}/{name}/*.tfrecord') == [path]


def test_several_patterns_and_sets_of_letters(tmp_path):
  a, b, c = (shard(tmp_path, name) for name in ('a', 'b', 'c'))
  assert shard_files.list_shards(f'{a}, {tmp_path}/[bc], {b}') == [a, b, c]


def test_nothing_matches(tmp_path):
  with pytest.raises(InputError, match=r'no\[1\]/\*: no TFRecord file matches'):
    shard_files.list_shards(f'{tmp_path}/no[1]/*')


def test_files_without_a_record_are_no_shards(tmp_path):
  (tmp_path / 'text').write_text('no record')
  (tmp_path / 'empty').write_text('')
  paths = [str(tmp_path / name) for name in ('text', 'empty')]
  with pytest.raises(InputError, match='text: '):
    shard_files.check_shards(paths, CATEGORIES)
  # Of the others, a training that skips what is damaged can still read this one.
  shard_files.check_shards([*paths, shard(tmp_path / 'folder')], CATEGORIES)


def write_categories(folder, categories, **changes):
  entries = categories.to_coco()
  entries[0] |= changes
  (folder / 'categories.json').write_text(json.dumps({'categories': entries}))


def test_categories_of_other_records_name_both_files_and_the_difference(tmp_path):
  shards = [shard(tmp_path / 'one'), shard(tmp_path / 'two'), shard(tmp_path / 'three')]
  shard_files.check_shards(shards, CATEGORIES)
  write_categories(tmp_path / 'one', CATEGORIES, color=[9, 9, 9])
  shard_files.check_shards(shards, CATEGORIES)
  write_categories(tmp_path / 'two', CATEGORIES, name='human')
  with pytest.raises(InputError) as caught:
    shard_files.check_shards(shards, CATEGORIES)
  assert str(caught.value) == (
    f'{tmp_path}/two/categories.json: has other categories than categories: '
    f"thing {PERSON} 'human', not thing {PERSON} 'person'"
  )
  write_categories(tmp_path / 'two', TIE_ON_PERSON)
  with pytest.raises(InputError, match=r'two/categories\.json: .* 31 '):
    shard_files.check_shards(shards, CATEGORIES)


@pytest.mark.parametrize('count', [0, 2])
def test_shards_of_turned_annotations_take_no_instances_json(tmp_path, count):
  (tmp_path / 'val_summary.json').write_text(json.dumps({'turned_images': count}))
  shards = [str(tmp_path / name) for name in ('other.tfrecord', 'val-00000-of-00001.tfrecord')]
  if not count:
    shard_files.check_not_turned(shards, 'a.json')
    return
  with pytest.raises(InputError, match=r'a\.json: .*val_summary\.json .* 2 '):
    shard_files.check_not_turned(shards, 'a.json')
