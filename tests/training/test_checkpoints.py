import json
import logging
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from oanet_tf import files
from oanet_tf.errors import InputError
from oanet_tf.training import checkpoints
from oanet_tf.weights.opening import open_weights
from tests.small_files import small_files


def save(folder, *steps):
  variable = tf.Variable(np.arange(1000, dtype=np.float32))
  manager = tf.train.CheckpointManager(
    tf.train.Checkpoint(variable=variable), str(folder), max_to_keep=None
  )
  for step in steps:
    variable.assign_add(tf.ones([1000]))
    manager.save(checkpoint_number=step)


def test_no_checkpoint(tmp_path):
  assert checkpoints.newest_readable(tmp_path) is None
  assert checkpoints.newest_readable(tmp_path / 'nowhere') is None


def test_the_newest_is_that_of_the_highest_step(tmp_path):
  save(tmp_path, 900, 1000, 1100)
  (tmp_path / 'checkpoint').unlink()
  assert checkpoints.newest_readable(tmp_path) == str(tmp_path / 'ckpt-1100')


def truncate(path):
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_byte(path):
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 0xFF
  path.write_bytes(content)


DAMAGES = {
  'truncated data': ('data-00000-of-00001', truncate),
  'empty data': ('data-00000-of-00001', lambda path: path.write_bytes(b'')),
  'missing data': ('data-00000-of-00001', lambda path: path.unlink()),
  'flipped byte': ('data-00000-of-00001', flip_a_byte),
  'truncated index': ('index', truncate),
  'empty index': ('index', lambda path: path.write_bytes(b'')),
}


@pytest.mark.parametrize('name', DAMAGES)
def test_a_damaged_newest_one_is_passed_over_with_a_warning(name, tmp_path, caplog):
  suffix, damage = DAMAGES[name]
  save(tmp_path, 10, 20)
  damage(tmp_path / f'ckpt-20.{suffix}')
  with caplog.at_level(logging.WARNING):
    assert checkpoints.newest_readable(tmp_path) == str(tmp_path / 'ckpt-10')
  (record,) = [r for r in caplog.records if r.name == 'oanet_tf.training.checkpoints']
  assert 'ckpt-20: cannot be read' in record.message and '\n' not in record.message


def test_nothing_but_damaged_ones(tmp_path):
  save(tmp_path, 10)
  truncate(tmp_path / 'ckpt-10.data-00000-of-00001')
  assert checkpoints.newest_readable(tmp_path) is None


class Weight(tf.Module):
  def __init__(self, value):
    super().__init__()
    self.value = tf.Variable(value)


@pytest.mark.parametrize(('comparison', 'kept'), [('higher', 3.0), ('lower', 1.0)])
def test_the_best_is_kept_across_runs(comparison, kept, tmp_path):
  model = Weight(0.0)
  for step, score in enumerate([2.0, 3.0, 1.0, 2.5], start=1):
    # Each time anew, as after a restart.
    best = checkpoints.BestCheckpoint(tmp_path / 'best', 'pq/srm', comparison)
    model.value.assign(score)
    if best.is_better({'pq/srm': score}):
      best.save(model, {'pq/srm': score}, step)
  path = checkpoints.newest_readable(tmp_path / 'best')
  restored = Weight(0.0)
  tf.train.Checkpoint(model=restored).restore(path).assert_consumed()
  assert float(restored.value) == kept
  written = json.loads((tmp_path / 'best' / 'best.json').read_text())
  assert written['value'] == kept and path.endswith(f'ckpt-{written["step"]}')
  # One checkpoint, not all that were once the best.
  assert len(list((tmp_path / 'best').glob('*.index'))) == 1


def test_the_best_by_another_metric_does_not_count(tmp_path):
  best = checkpoints.BestCheckpoint(tmp_path, 'pq/srm', 'higher')
  best.save(Weight(0.0), {'pq/srm': 50.0}, 1)
  other = checkpoints.BestCheckpoint(tmp_path, 'pq/heuristic', 'higher')
  assert other.is_better({'pq/heuristic': 10.0})


def saved(value=0.0):
  return tf.train.Checkpoint(value=tf.Variable(tf.fill([1000], value)))


@pytest.mark.parametrize('name', ['plain', 'lr[0.01]', 'a*b', 'a?b', 'a,b', 'back\\slash', '{a,b}'])
def test_checkpoints_are_written_deleted_and_read_in_any_folder(tmp_path, name):
  folder = tmp_path / name
  for step in (1, 2, 10):
    checkpoints.save(saved(float(step)), folder, step, max_to_keep=2)
  assert sorted(path.name for path in folder.iterdir()) == [
    'checkpoint', 'ckpt-10.data-00000-of-00001', 'ckpt-10.index',
    'ckpt-2.data-00000-of-00001', 'ckpt-2.index',
  ]  # fmt: skip
  path = checkpoints.newest_readable(folder)
  assert path == str(folder / 'ckpt-10')
  restored = saved()
  status = restored.restore(files.for_tensorflow(path))
  status.assert_existing_objects_matched().assert_consumed()
  assert float(restored.value[0]) == 10.0
  found = tf.train.latest_checkpoint(files.for_tensorflow(folder))
  assert os.path.basename(found) == 'ckpt-10'
  assert open_weights(str(folder)).path == str(folder / 'ckpt-10')


def test_a_link_to_a_folder_ends_with_the_process(tmp_path):
  folder = tmp_path / 'lr[0.01]'
  folder.mkdir()
  code = (
    'import sys; from oanet_tf import files; print(files.for_tensorflow(sys.argv[1] + "/ckpt-1"))'
  )
  done = subprocess.run([sys.executable, '-c', code, folder], capture_output=True, text=True)
  assert done.stdout.endswith('/ckpt-1\n') and '[' not in done.stdout
  assert not os.path.lexists(os.path.dirname(done.stdout)) and folder.is_dir()


def test_checkpoints_of_tensorflows_manager_go_on(tmp_path):
  save(tmp_path, 10, 20)
  checkpoints.save(saved(), tmp_path, 30, max_to_keep=2)
  assert sorted(path.stem for path in tmp_path.glob('*.index')) == ['ckpt-20', 'ckpt-30']


def test_a_damaged_later_one_displaces_none(tmp_path):
  save(tmp_path, 10, 40)
  truncate(tmp_path / 'ckpt-40.index')
  checkpoints.save(saved(), tmp_path, 20, max_to_keep=1)
  assert checkpoints.newest_readable(tmp_path) == str(tmp_path / 'ckpt-20')
  assert sorted(path.stem for path in tmp_path.glob('*.index')) == ['ckpt-20', 'ckpt-40']


def test_on_a_full_disk_the_older_checkpoint_stays_alone(tmp_path):
  with small_files(50_000):
    checkpoints.save(saved(1.0), tmp_path, 1, max_to_keep=1)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    large = tf.train.Checkpoint(value=tf.Variable(tf.random.normal([100_000])))
    for step in (1, 2):
      with pytest.raises(InputError, match=f'{tmp_path}/ckpt-{step}: '):
        checkpoints.save(large, tmp_path, step, max_to_keep=1)
  assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
  checkpoints.save(large, tmp_path, 2, max_to_keep=1)
  assert checkpoints.newest_readable(tmp_path) == str(tmp_path / 'ckpt-2')


def test_what_a_killed_process_left_of_a_checkpoint_is_removed(tmp_path):
  (tmp_path / '.ckpt.part_temp').mkdir()
  (tmp_path / '.ckpt.part_temp' / 'part-00000').write_text('')
  (tmp_path / '.ckpt.part.index').write_text('')
  checkpoints.save(saved(), tmp_path, 1, max_to_keep=1)
  assert len(list(tmp_path.iterdir())) == 3


def test_a_checkpoint_cannot_be_in_a_file(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(InputError, match=f'{tmp_path}/file/below: '):
    checkpoints.save(saved(), tmp_path / 'file' / 'below', 1, max_to_keep=1)


@pytest.mark.parametrize(
  'text', ['', '{"step": 1, "met', '[]', '{}', '{"metric": "pq/srm", "value": []}']
)
def test_half_a_file_about_the_best_counts_as_none(tmp_path, text, caplog):
  (tmp_path / 'best.json').write_text(text)
  assert checkpoints.BestCheckpoint(tmp_path, 'pq/srm', 'higher').is_better({'pq/srm': 1.0})
  assert f'{tmp_path}/best.json' in caplog.text
