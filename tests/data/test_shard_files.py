import json
import pathlib

import pytest

from oanet_tf.data import shard_files
from oanet_tf.data.resume import Progress, Split, Summary
from oanet_tf.errors import InputError
from tests.categories import CATEGORIES, PERSON, TIE_ON_PERSON


def shard(folder, name='a.tfrecord', records=1):
  """A shard with empty records."""
  folder.mkdir(parents=True, exist_ok=True)
  (folder / name).write_bytes(bytes(16 * records))
  return str(folder / name)


def converted(folder, counts=(3, 2), is_complete=True):
  """Shards of the split 'val' with empty records, and the summary of their conversion."""
  names = [f'val-{i:05}-of-{len(counts):05}.tfrecord' for i in range(len(counts))]
  paths = [shard(folder, name, count) for name, count in zip(names, counts, strict=True)]
  summaries = {name: Summary(images=n) for name, n in zip(names, counts, strict=True)}
  Split(folder, 'val').write(Progress({}, 0, summaries, [], is_complete))
  return paths


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


def test_files_without_a_record_are_no_shards(tmp_path, caplog):
  (tmp_path / 'text').write_text('no record')
  (tmp_path / 'empty').write_text('')
  paths = [str(tmp_path / name) for name in ('text', 'empty')]
  with pytest.raises(InputError, match='text: '):
    shard_files.check_shards(paths, CATEGORIES)
  good = shard(tmp_path / 'folder')
  with pytest.raises(InputError, match='text: '):
    shard_files.check_shards([good, *paths], CATEGORIES)
  shard_files.check_shards([*paths, good], CATEGORIES, skip_damaged=True)
  assert [record.message.split(': ')[0] for record in caplog.records] == paths
  with pytest.raises(InputError, match='text: '):
    shard_files.check_shards(paths, CATEGORIES, skip_damaged=True)


def test_counts_are_those_of_the_conversion(tmp_path):
  first, second = converted(tmp_path)
  assert shard_files.whole_records([first, second]) == {first: 3, second: 2}
  assert shard_files.whole_records([second]) == {second: 2}
  other = shard(tmp_path, 'other.tfrecord', 7)
  assert shard_files.whole_records([other, first]) == {other: 7, first: 3}


@pytest.mark.parametrize('count', [0, 1, 4])
def test_a_shard_with_another_number_of_records(tmp_path, count):
  first, second = converted(tmp_path)
  shard(tmp_path, 'val-00001-of-00002.tfrecord', count)
  said = f'holds {count} records, but .* says 2' if count else 'holds no record'
  with pytest.raises(InputError, match=f'00001-of-00002.tfrecord: {said}'):
    shard_files.whole_records([first, second])
  # A glob that does not take it is not concerned.
  assert shard_files.whole_records([first]) == {first: 3}


def test_a_shard_of_the_same_number_of_records_from_another_conversion(tmp_path):
  first, second = converted(tmp_path)
  summary = Split(tmp_path, 'val').read()
  sizes = {pathlib.Path(path).name: pathlib.Path(path).stat().st_size for path in (first, second)}
  shards = {name: part._replace(bytes=sizes[name]) for name, part in summary.shards.items()}
  Split(tmp_path, 'val').write(summary._replace(shards=shards))
  assert shard_files.whole_records([first, second]) == {first: 3, second: 2}
  content = bytearray(bytes(33))
  content[0] = 1  # The length of the first record.
  pathlib.Path(second).write_bytes(content)
  with pytest.raises(InputError, match=r'00001-of-00002\.tfrecord: has 33 bytes, but .* says 32'):
    shard_files.whole_records([first, second])


@pytest.mark.parametrize('size', range(1, 32))
def test_a_shard_that_is_cut_off(tmp_path, size):
  _, second = converted(tmp_path)
  with open(second, 'r+b') as file:
    file.truncate(size)
  fact = 'holds 1 records, but .* says 2' if size == 16 else 'is truncated'
  with pytest.raises(InputError, match=fact):
    shard_files.whole_records([second])


def test_a_shard_without_a_record_of_which_all_images_were_skipped(tmp_path):
  first, second = converted(tmp_path, (3, 0))
  assert shard_files.whole_records([first, second]) == {first: 3, second: 0}
  with pytest.raises(InputError, match='hold no record; convert again'):
    shard_files.whole_records([second])


def test_a_shard_that_is_missing(tmp_path):
  first, second = converted(tmp_path)
  pathlib.Path(second).unlink()
  with pytest.raises(InputError, match=r'00001-of-00002.* is missing, but val_summary'):
    shard_files.whole_records([first])


def test_a_shard_of_another_conversion(tmp_path):
  first, _ = converted(tmp_path)
  other = shard(tmp_path, 'val-00000-of-00009.tfrecord')
  with pytest.raises(InputError, match=r'00000-of-00009.* is not listed in val_summary'):
    shard_files.whole_records([first, other])


def test_a_conversion_that_was_not_finished(tmp_path):
  paths = converted(tmp_path, is_complete=False)
  with pytest.raises(InputError, match=r'val_summary.* says .* not finished; run it again'):
    shard_files.whole_records(paths)


@pytest.mark.parametrize('content', ['', '[]', '{}', '{"shards": 1}'])
def test_a_summary_that_is_none(tmp_path, content):
  paths = converted(tmp_path)
  (tmp_path / 'val_summary.json').write_text(content)
  with pytest.raises(InputError, match='val_summary'):
    shard_files.whole_records(paths)


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
  name = 'val-00000-of-00001.tfrecord'
  summary = Summary(images=3, turned_images=count)
  Split(tmp_path, 'val').write(Progress({}, 0, {name: summary}, []))
  shards = [str(tmp_path / name) for name in ('other.tfrecord', name)]
  if not count:
    shard_files.check_not_turned(shards, 'a.json')
    return
  with pytest.raises(InputError, match=r'a\.json: .*val_summary\.json .* 2 '):
    shard_files.check_not_turned(shards, 'a.json')
