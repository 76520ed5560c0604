"""Conversions that are stopped, by whatever, and started again."""

import json
import os
import random
import signal
import sys
import time

import pytest
import tensorflow as tf

from oanet_tf.data.convert import convert
from oanet_tf.errors import InputError
from tests.commands import convert as command
from tests.data import conversions
from tests.data.conversions import contents, flags, many_images, names, wait_until

pytestmark = pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')


def undisturbed(paths, output, **options):
  convert(**paths, output_dir=output, split='val', num_workers=1, **options)
  return contents(output)


def shards(folder):
  """When each shard that is there was written."""
  return {path: path.stat().st_mtime_ns for path in sorted(folder.glob('val-*.tfrecord'))}


def summary(folder):
  return json.loads((folder / 'val_summary.json').read_text())


@pytest.mark.parametrize(
  'signal_number', [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM]
)
def test_interrupts_keep_finished_shards_only(coco, tmp_path, signal_number):
  many_images(coco, 5000)
  paths, output = coco.write(), tmp_path / 'o'
  with conversions.started(
    [conversions.SCRIPT, *flags(paths, output, num_workers=2, num_shards=500)]
  ) as process:
    wait_until(lambda: shards(output))
    workers = conversions.children(process)
    assert len(workers) == 2
    for pid in [*workers, process.pid]:  # As a terminal does.
      os.kill(pid, signal_number)
    _, err = process.communicate(timeout=60)
  assert process.returncode == 128 + signal_number
  assert 'Traceback' not in err and err.splitlines()[-1] == 'interrupted'
  finished = [path.name for path in shards(output)]
  assert names(output) == [*finished, 'val_summary.json']
  assert set(finished) <= set(summary(output)['shards'])
  assert summary(output)['complete'] is False
  wait_until(lambda: not any(map(conversions.command, workers)))


def kill_and_restart(coco, tmp_path, num_images, killers):
  """Kills a run by each killer, a function of the folder that returns when it is time."""
  many_images(coco, num_images)
  paths, output = coco.write(), tmp_path / 'o'
  expected = undisturbed(paths, tmp_path / 'undisturbed', num_shards=60)
  arguments = flags(paths, output, num_workers=2, num_shards=60)
  before = {}
  for wait in killers:
    with conversions.started([conversions.SCRIPT, *arguments]) as process:
      wait(process)
      process.kill()
      process.wait()
    after = shards(output)
    assert before.items() <= after.items()  # None was made again.
    for path in after:
      assert path.read_bytes() == expected[path.name]
    before = after
  convert(**paths, output_dir=output, split='val', num_workers=1, num_shards=60)
  assert 0 < len(before) < 60
  assert before.items() <= shards(output).items()
  assert contents(output) == expected
  assert summary(output)['complete'] is True


@pytest.mark.slow
def test_killed_and_started_again(coco, tmp_path):
  output = tmp_path / 'o'

  def after_three_more_shards(_):
    count = len(shards(output))
    wait_until(lambda: len(shards(output)) >= count + 3)

  kill_and_restart(coco, tmp_path, 1500, [after_three_more_shards])


@pytest.mark.slow
def test_killed_at_random_moments(coco, tmp_path):
  rng, output = random.Random(0), tmp_path / 'o'

  def at_a_random_moment(_):
    count = len(shards(output))
    wait_until(lambda: len(shards(output)) > count)
    time.sleep(rng.uniform(0, 0.3))

  kill_and_restart(coco, tmp_path, 12_000, [at_a_random_moment] * 6)


def test_a_second_run_writes_nothing_again(coco, tmp_path):
  paths, output = coco.write(), tmp_path / 'o'
  first = undisturbed(paths, output, num_shards=2)
  times = shards(output)
  assert undisturbed(paths, output, num_shards=2) == first
  assert shards(output) == times


@pytest.mark.slow
def test_two_runs_at_once(coco, tmp_path):
  many_images(coco, 5000)
  paths, output = coco.write(), tmp_path / 'o'
  arguments = [conversions.SCRIPT, *flags(paths, output, num_workers=1, num_shards=500)]
  with conversions.started(arguments):
    wait_until(lambda: shards(output))
    with pytest.raises(InputError, match="'val'"):
      undisturbed(paths, output, num_shards=500)
  # It was killed, which lifts the lock. Its half shard is gone, be it of another number of shards.
  for path in [*shards(output), output / 'val_summary.json']:
    path.unlink()
  (output / '.val-00000-of-00009.tfrecord.part').write_bytes(b'half')
  undisturbed(paths, output, num_shards=1)
  assert names(output) == ['categories.json', 'val-00000-of-00001.tfrecord', 'val_summary.json']


def test_a_removed_shard_is_made_again(coco, tmp_path):
  many_images(coco, 4)
  paths, output = coco.write(), tmp_path / 'o'
  first = undisturbed(paths, output, num_shards=3)
  (output / 'val-00001-of-00003.tfrecord').unlink()
  assert undisturbed(paths, output, num_shards=3) == first


@pytest.mark.parametrize(
  'options',
  [
    {'overlaps': 'none'},
    {'mask_encoding': 'full_png'},
    {'num_shards': 1},
    {'conflicts_only': True},
  ],
)
def test_other_settings_are_refused(coco, tmp_path, options):
  coco.panoptic['categories'][3]['id'] = 200  # Fits 8 bits.
  coco.panoptic['annotations'][1]['segments_info'][0]['category_id'] = 200
  paths, output = coco.write(), tmp_path / 'o'
  before = undisturbed(paths, output, num_shards=2)
  with pytest.raises(InputError, match=rf'val_summary\.json: .*\b{next(iter(options))} '):
    undisturbed(paths, output, **{'num_shards': 2, **options})
  assert contents(output) == before
  for path in [*shards(output), output / 'val_summary.json']:
    path.unlink()
  undisturbed(paths, output, **{'num_shards': 2, **options})


def test_shards_with_and_without_images_are_not_mixed(coco, tmp_path):
  paths, output = coco.write(), tmp_path / 'o'
  undisturbed(paths, output)
  with pytest.raises(InputError, match=r'val_summary\.json: .*\bwithout_images '):
    undisturbed({**paths, 'image_dir': None}, output)


def test_shards_without_images_of_conflicts_go_on(coco, tmp_path):
  """Of the shards, the second has no image left; the first is lost."""
  paths, output = {**coco.write(), 'image_dir': None}, tmp_path / 'o'
  first = undisturbed(paths, output, num_shards=2, conflicts_only=True)
  assert first['val-00001-of-00002.tfrecord'] == b''
  times = shards(output)
  (output / 'val-00000-of-00002.tfrecord').unlink()
  assert undisturbed(paths, output, num_shards=2, conflicts_only=True) == first
  assert list(times.items())[1] in shards(output).items()


@pytest.mark.parametrize('kind', ['panoptic_json', 'instances_json'])
def test_another_input_is_refused(coco, tmp_path, kind):
  coco.add_instances([[1, 1, 4, 1, 4, 3, 1, 3]])
  paths, output = coco.write(), tmp_path / 'o'
  undisturbed(paths, output)
  paths[kind].write_text(paths[kind].read_text() + ' ')
  with pytest.raises(InputError, match=rf'\b{kind} '):
    undisturbed(paths, output)


def test_shards_that_no_summary_lists_are_refused(coco, tmp_path):
  paths, output = coco.write(), tmp_path / 'o'
  undisturbed(paths, output)
  (output / 'val_summary.json').unlink()
  with pytest.raises(InputError, match=r'val-00000-of-00001\.tfrecord: .*val_summary'):
    undisturbed(paths, output)


def test_shards_of_another_number_are_refused(coco, tmp_path):
  paths, output = coco.write(), tmp_path / 'o'
  undisturbed(paths, output)
  (output / 'val-00001-of-00002.tfrecord').write_bytes(b'')
  with pytest.raises(InputError, match=r'val-00001-of-00002\.tfrecord: '):
    undisturbed(paths, output)


@pytest.mark.parametrize('content', ['', '[]', '{}', '{"made_of": 3}', '{"made_of": {"a": 1}}'])
def test_a_damaged_summary(coco, tmp_path, content):
  paths, output = coco.write(), tmp_path / 'o'
  undisturbed(paths, output)
  (output / 'val_summary.json').write_text(content)
  with pytest.raises(InputError, match=r'^[^\n]*val_summary\.json: [^\n]*$'):
    undisturbed(paths, output)


# Errors in images.


def last_picture(coco, content):
  many_images(coco, 4)
  coco.panoptic['images'][-1]['file_name'] = 'last.jpg'
  coco.pictures['last.jpg'] = content


@pytest.mark.parametrize('workers', [1, 2])
def test_an_error_keeps_the_shards_before_it(coco, tmp_path, workers):
  last_picture(coco, b'damaged')
  output = tmp_path / 'o'
  with pytest.raises(InputError, match=r'^[^\n]*last\.jpg: [^\n]*$'):
    convert(**coco.write(), output_dir=output, split='val', num_shards=3, num_workers=workers)
  assert names(output) == [
    'val-00000-of-00003.tfrecord', 'val-00001-of-00003.tfrecord', 'val_summary.json'
  ]  # fmt: skip
  assert summary(output)['complete'] is False
  times = shards(output)
  coco.pictures['last.jpg'] = coco.pictures['sub/7.jpg']
  mended = coco.write()
  resumed = undisturbed(mended, output, num_shards=3)
  assert times.items() <= shards(output).items()
  assert resumed == undisturbed(mended, tmp_path / 'undisturbed', num_shards=3)


@pytest.mark.parametrize('workers', [1, 2])
def test_skipped_images_are_listed(coco, tmp_path, workers):
  last_picture(coco, b'damaged')
  del coco.pictures['42.jpg']
  paths, output = coco.write(), tmp_path / 'o'
  result = convert(
    **paths, output_dir=output, split='val', num_shards=6, num_workers=workers, on_error='skip'
  )
  assert (result.images, result.skipped_images) == (4, 2)
  written = summary(output)
  assert (written['images'], written['skipped_images'], written['complete']) == (4, 2, True)
  assert [(s['image_id'], s['file_name'], s['shard']) for s in written['skipped']] == [
    (42, '42.jpg', 'val-00000-of-00006.tfrecord'),
    (1003, 'last.jpg', 'val-00005-of-00006.tfrecord'),
  ]
  assert 'no such file' in written['skipped'][0]['reason']
  assert 'is no picture' in written['skipped'][1]['reason']
  assert (output / 'val-00000-of-00006.tfrecord').read_bytes() == b''


def test_raise_after_skip_makes_the_shards_of_skipped_images_again(coco, tmp_path):
  last_picture(coco, b'damaged')
  paths, output = coco.write(), tmp_path / 'o'
  undisturbed(paths, output, num_shards=3, on_error='skip')
  times = shards(output)
  undisturbed(paths, output, num_shards=3, on_error='skip')
  assert shards(output) == times
  with pytest.raises(InputError, match=r'last\.jpg: '):
    undisturbed(paths, output, num_shards=3)
  assert len(shards(output)) == 2
  coco.pictures['last.jpg'] = coco.pictures['sub/7.jpg']
  mended = coco.write()
  assert undisturbed(mended, output, num_shards=3) == undisturbed(
    mended, tmp_path / 'undisturbed', num_shards=3
  )
  assert list(times.items())[:2] == list(shards(output).items())[:2]


def test_the_command_line_says_where_skipped_images_are_listed(coco, tmp_path, capsys):
  last_picture(coco, b'damaged')
  arguments = flags(coco.write(), tmp_path / 'o', num_workers=1, on_error='skip')
  command.main(arguments)
  out = capsys.readouterr().out
  assert '1 images with an error' in out and 'val_summary.json lists the 1 images' in out


# Full disks.


def test_a_full_disk(coco, tmp_path, monkeypatch):
  class FullDisk:
    def __init__(self, _):
      pass

    def __enter__(self):
      return self

    def write(self, _):
      raise tf.errors.ResourceExhaustedError(None, None, 'No space left on device')

    def __exit__(self, *_):
      pass

  monkeypatch.setattr(tf.io, 'TFRecordWriter', FullDisk)
  with pytest.raises(InputError, match=r'val-.*tfrecord: .*No space left'):
    convert(**coco.write(), output_dir=tmp_path / 'o', split='val', num_workers=1)
  assert not (tmp_path / 'o').exists()


@pytest.mark.parametrize('limit', [100, pytest.param(100_000, marks=pytest.mark.slow)])
def test_files_that_cannot_grow(coco, tmp_path, limit):
  """The system refuses to write beyond a limit: at once, in the first shard, or at its end."""
  many_images(coco, 150)
  paths, output = coco.write(), tmp_path / 'o'
  script = (
    'import resource\nfrom oanet_tf import errors\nfrom oanet_tf.convert import main\n'
    f'resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n'
    'errors.run(main)'
  )
  with conversions.started(
    ['-c', script, *flags(paths, output, num_shards=1, num_workers=1)]
  ) as process:
    _, err = process.communicate(timeout=60)
  assert process.returncode == 2
  assert err.splitlines()[-1].startswith(f'error: {output}/val')
  assert 'cannot be written (' in err.splitlines()[-1]
  assert not output.exists()
