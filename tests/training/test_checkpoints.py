import json
import logging

import numpy as np
import pytest
import tensorflow as tf

from oanet_tf.training import checkpoints


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
