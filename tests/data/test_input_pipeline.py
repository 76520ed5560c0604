import itertools
import os
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf

from oanet_tf.config import experiments
from oanet_tf.data import input_pipeline, preprocess, shard_files
from oanet_tf.data.categories import Category, PanopticCategories
from oanet_tf.errors import InputError
from tests import end_to_end


@pytest.fixture(scope='module')
def shards(tmp_path_factory):
  """OccludedScenes at 64 px: of 24 images about a quarter are not square."""
  folder = tmp_path_factory.mktemp('shards')
  end_to_end.make_shards(folder, num_train=24, num_shards=3)
  return folder / 'shards'


@pytest.fixture(scope='module')
def scene_categories(shards):
  return PanopticCategories.from_json(shards / 'categories.json')


def settings(path, **changes):
  """A task that trains and evaluates on the same shards."""
  task = experiments.load_experiment('oanet_synthetic').task
  task.train_data.override(
    {'input_path': str(path), 'output_size': [32, 64], 'global_batch_size': 4,
     'shuffle_buffer_size': 10, **changes}
  )  # fmt: skip
  return task.replace(seed=0, validation_data=task.train_data)


def training(shards, categories, seed=0, start=(0, 0), **changes):
  task = settings(shards / 'train-*', **changes).replace(seed=seed)
  return input_pipeline.training_input(task, categories, start=start)


@pytest.fixture(scope='module')
def batches(shards, scene_categories):
  """The first batches of a run; to trace a pipeline takes seconds."""
  return list(training(shards, scene_categories).take(17))


def ids_of(batches):
  return [tuple(preprocess.source_ids(batch['source_id'].numpy())) for batch in batches]


def position_of(batch):
  return tuple(batch['position'].numpy()[0])


def test_the_order_does_not_depend_on_the_seed_of_the_program(shards, scene_categories, batches):
  tf.random.set_seed(0)
  assert ids_of(training(shards, scene_categories).take(3)) == ids_of(batches[:3])
  tf.random.set_seed(None)


def test_batches_have_one_orientation(batches):
  shapes = set()
  for batch in batches:
    height, width = batch['image'].shape[1:3]
    originals = batch['image_info'][:, 0].numpy()
    assert ((originals[:, 0] > originals[:, 1]) == (height > width)).all()
    shapes.add((height, width))
  assert shapes == {(32, 64), (64, 32)}


def test_an_epoch_gives_each_image_at_most_once_and_nearly_all(batches):
  epochs = {}
  for batch in batches:
    epoch, _ = position_of(batch)
    epochs.setdefault(epoch, []).extend(preprocess.source_ids(batch['source_id'].numpy()))
  for ids in (epochs[0], epochs[1]):
    # Up to three of each orientation do not fill a batch, and wait for another epoch.
    assert len(set(ids)) == len(ids) and 18 <= len(ids) <= 24
  assert epochs[0] != epochs[1]


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes_and_another_others(shards, scene_categories):
  changes = {'min_scale': 0.5, 'max_scale': 2.0, 'color_jitter': 0.4}
  first, again, other = (
    list(training(shards, scene_categories, seed, **changes).take(5)) for seed in (1, 1, 2)
  )
  for one, two in zip(first, again, strict=True):
    tf.nest.map_structure(np.testing.assert_array_equal, one, two)
  assert ids_of(first) != ids_of(other)


@pytest.mark.parametrize(
  'steps', [3, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 8, 13))]
)
def test_a_run_goes_on_where_another_one_stopped(shards, scene_categories, batches, steps):
  epoch, place = position_of(batches[steps - 1])
  rest = training(shards, scene_categories, start=(epoch, place + 1)).take(4)
  for expected, batch in zip(batches[steps : steps + 4], rest, strict=True):
    tf.nest.map_structure(np.testing.assert_array_equal, expected, batch)


@pytest.mark.slow
def test_a_batch_larger_than_the_dataset(shards, scene_categories):
  dataset = training(shards, scene_categories, global_batch_size=40)
  assert next(iter(dataset))['image'].shape[0] == 40


@pytest.mark.slow
def test_two_pipelines_share_the_records(shards, scene_categories):
  """As two workers of two replicas each would."""
  task = settings(shards / 'train-*', output_size=[64, 64])
  seen = []
  for pipeline in range(2):
    context = tf.distribute.InputContext(2, pipeline, num_replicas_in_sync=4)
    dataset = input_pipeline.training_input(task, scene_categories, context)
    first_epoch = dataset.take_while(lambda batch: batch['position'][0, 0] == 0)
    batches = list(first_epoch)
    assert all(batch['image'].shape[0] == 1 for batch in batches)
    seen.append({name for ids in ids_of(batches) for name in ids})
  assert not seen[0] & seen[1] and len(seen[0] | seen[1]) == 24


def test_evaluation_gives_every_image_once_in_full_batches(shards, scene_categories):
  task = settings(shards / '*.tfrecord', global_batch_size=5)
  ids = []
  for batch in input_pipeline.evaluation_input(task, scene_categories):
    assert batch['image'].shape[0] == 5
    ids.extend(batch['source_id'].numpy()[~batch['is_repeated'].numpy()].tolist())
  # 24 of train and 3 of val, whose ids begin at 1 as well.
  assert sorted(map(int, ids)) == sorted([*range(1, 25), *range(1, 4)])


def damage(path, how):
  data = bytearray(path.read_bytes())
  if how == 'truncated':
    data = data[: len(data) * 2 // 3]
  else:
    data[len(data) // 2] ^= 1
  path.write_bytes(data)


@pytest.fixture
def damaged(shards, tmp_path, request):
  """A copy of the shards, the second of which is damaged."""
  for path in shards.iterdir():
    (tmp_path / path.name).write_bytes(path.read_bytes())
  damage(tmp_path / 'train-00001-of-00003.tfrecord', request.param)
  return tmp_path


def quick_settings(path, **changes):
  """Without boxes and anchors, which take most of the time that a pipeline takes to trace."""
  return settings(path, output_size=[64, 64], **changes).replace(mode='srm_only')


def read_all(dataset, task):
  batches = iter(dataset)
  with shard_files.named_errors(task.train_data.input_path):
    return [batch for _, batch in zip(range(10), batches, strict=False)]


@pytest.mark.parametrize('damaged', ['truncated', 'bit flipped'], indirect=True)
def test_a_damaged_shard_is_named(damaged, scene_categories):
  task = quick_settings(damaged / 'train-*')
  with pytest.raises(InputError, match=r'train-00001-of-00003\.tfrecord: .*record'):
    read_all(input_pipeline.training_input(task, scene_categories), task)


@pytest.mark.parametrize('damaged', ['truncated', 'bit flipped'], indirect=True)
def test_a_damaged_shard_is_skipped_with_a_count_if_told_so(damaged, scene_categories, caplog):
  task = quick_settings(damaged / 'train-*', skip_damaged=True)
  dataset = input_pipeline.training_input(task, scene_categories)
  assert 'train-00001-of-00003.tfrecord: is damaged after record' in caplog.text
  seen = {name for ids in ids_of(read_all(dataset, task)) for name in ids}
  assert 16 <= len(seen) < 24


def end_of(path, number):
  """Bytes of so many records."""
  return sum(16 + length for length in itertools.islice(shard_files.record_lengths(path), number))


@pytest.mark.parametrize(
  ('change', 'fact'),
  [
    (lambda path: os.truncate(path, end_of(path, 3)), 'holds 3 records, but .* says 8'),
    (lambda path: os.truncate(path, 0), 'holds no record'),
    (lambda path: os.truncate(path, 3000), 'is damaged after record'),
    (pathlib.Path.unlink, 'is missing'),
  ],
)  # fmt: skip
def test_a_shard_that_changes_after_it_was_counted(shards, tmp_path, change, fact):
  shutil.copytree(shards, tmp_path / 'shards')
  pattern = f'{tmp_path}/shards/train-*'
  counts = shard_files.whole_records(shard_files.list_shards(pattern))
  change(tmp_path / 'shards' / 'train-00001-of-00003.tfrecord')
  refused = pytest.raises(InputError, match=rf'train-00001-of-00003\.tfrecord: {fact}')
  with refused, shard_files.named_errors(pattern):
    list(shard_files.records(counts))


def test_categories_that_do_not_fit(shards):
  categories = PanopticCategories([Category(1, 'person', True, (0, 0, 0))])
  task = quick_settings(shards / 'train-*')
  dataset = input_pipeline.training_input(task, categories)
  with pytest.raises(InputError, match=r'categories\.json'):
    read_all(dataset, task)


def test_a_record_of_something_else(tmp_path, scene_categories):
  path = tmp_path / 'train-00000-of-00001.tfrecord'
  with tf.io.TFRecordWriter(str(path)) as writer:
    writer.write(b'this is no example')
  task = settings(path, output_size=[64, 64])
  dataset = input_pipeline.training_input(task, scene_categories)
  with pytest.raises(InputError, match=r'train-00000-of-00001\.tfrecord: record 1: '):
    read_all(dataset, task)


def test_record_lengths_stop_where_a_shard_is_cut_off(tmp_path):
  path = tmp_path / 'a.tfrecord'
  with tf.io.TFRecordWriter(str(path)) as writer:
    for length in (0, 5, 1000):
      writer.write(b'x' * length)
  assert list(shard_files.record_lengths(str(path))) == [0, 5, 1000]
  path.write_bytes(path.read_bytes()[:-1])
  assert list(shard_files.record_lengths(str(path))) == [0, 5]
  path.write_bytes(b'')
  assert list(shard_files.record_lengths(str(path))) == []


@pytest.mark.slow
def test_color_jitter_changes_colours_alone(shards, scene_categories, batches):
  plain = dict(batches[0])
  jittered = next(iter(training(shards, scene_categories, color_jitter=0.5)))
  assert (plain.pop('image') != jittered.pop('image')).numpy().mean() > 0.1
  tf.nest.map_structure(np.testing.assert_array_equal, plain, jittered)
