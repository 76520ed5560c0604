import json

import numpy as np
import pytest

from oanet_tf import visualize
from oanet_tf.data.panoptic_map import Segments
from oanet_tf.errors import InputError
from oanet_tf.evaluation.ranking_map import RankingMap
from oanet_tf.evaluation.scoring import EvaluatedImage
from oanet_tf.training import panels
from oanet_tf.training.monitoring import TrainingLog
from oanet_tf.training.series import read_series
from tests.small_files import small_files


def records(folder):
  return [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]


def test_an_interval_is_the_mean_of_its_steps(tmp_path, capsys):
  training_log = TrainingLog(tmp_path, step=0)
  training_log.add({'loss': 1.0, 'loss_srm': 0.5}, input_seconds=0.5, compute_seconds=1.5)
  training_log.add({'loss': 3.0, 'loss_srm': 0.1}, input_seconds=1.5, compute_seconds=0.5)
  training_log.write_interval(2, 10, batch_size=8, learning_rate=0.02)
  training_log.add({'loss': 5.0, 'loss_srm': 0.0}, 0.0, 1.0)
  training_log.write_interval(3, 10, batch_size=8, learning_rate=0.02)
  first, second = records(tmp_path)
  assert first == {
    'step': 2, 'split': 'train', 'loss': 2.0, 'loss_srm': pytest.approx(0.3),
    'step_seconds/input': 1.0, 'step_seconds/compute': 1.0, 'step_seconds/total': 2.0,
    'images_per_second': 4.0, 'learning_rate': 0.02,
  }  # fmt: skip
  assert second['step'] == 3 and second['loss'] == 5.0 and second['images_per_second'] == 8.0
  lines = capsys.readouterr().out.splitlines()
  assert lines[0].startswith('step 2/10  loss 2.000  srm 0.300')
  assert '50% of the time waiting for input' in lines[0] and len(lines) == 2


def test_a_resumed_run_drops_what_it_will_do_again(tmp_path):
  (tmp_path / 'metrics.jsonl').write_text(
    '{"step": 2, "loss": 1.0}\n{"step": 4, "loss": 2.0}\n{"step": 6, "loss": 3.0}\n{"step": 8, "lo'
  )
  TrainingLog(tmp_path, step=4).write('validation', 5, {'pq/srm': 50.0})
  assert [record['step'] for record in records(tmp_path)] == [2, 4, 5]
  assert [path.name for path in tmp_path.glob('*metrics*')] == ['metrics.jsonl']


def test_a_resumed_run_knows_which_steps_have_scores(tmp_path):
  first = TrainingLog(tmp_path, step=0)
  for split, step in (('train', 2), ('validation', 3), ('train', 4), ('validation', 6)):
    first.write(split, step, {'loss': 1.0})
  resumed = TrainingLog(tmp_path, step=4)
  assert [step for step in range(8) if resumed.has_scores(step)] == [3]
  assert not TrainingLog(None, step=4).has_scores(3)


JUNK = b'{"step": 2, "lo\n\xff\xfe\x00\n[1]\n7\n{"split": "train"}\n{"step": "x"}\n' + b'[' * 10**5


def test_half_lines_and_junk_stop_nothing(tmp_path):
  good = b'{"step": 1, "loss": 1.0, "note": "x"}\n'
  (tmp_path / 'metrics.jsonl').write_bytes(JUNK + b'\n' + good + JUNK)
  assert read_series(tmp_path / 'metrics.jsonl', ('loss',)) == {'loss': ([1], [1.0])}
  TrainingLog(tmp_path, step=1).write('train', 2, {'loss': 0.5})
  assert [record['step'] for record in records(tmp_path)] == [1, 2]


@pytest.mark.parametrize('name', ['metrics.jsonl', 'validation'])
def test_what_cannot_be_written_is_named(tmp_path, name):
  training_log = TrainingLog(tmp_path, step=0)
  if name == 'validation':
    (tmp_path / name).write_text('')
  else:
    (tmp_path / name).mkdir()
  with pytest.raises(InputError, match=f'{tmp_path}/{name}: '):
    training_log.write('validation', 1, {'pq/srm': 50.0})


def test_a_full_disk_is_named(tmp_path):
  training_log = TrainingLog(tmp_path, step=0)
  with small_files(10), pytest.raises(InputError, match=f'{tmp_path}/metrics.jsonl: '):
    training_log.write('train', 2, {'loss': 1.0})


def test_without_a_folder_nothing_is_written_or_said(tmp_path, capsys, monkeypatch):
  monkeypatch.chdir(tmp_path)
  training_log = TrainingLog(None, step=0)
  training_log.add({'loss': 1.0}, 0.0, 1.0)
  training_log.write_interval(1, 2, 8, 0.1)
  training_log.write('validation', 1, {}, {'image': np.zeros([4, 4, 3], np.uint8)})
  assert not list(tmp_path.iterdir()) and not capsys.readouterr().out


def evaluated(source_id, categories):
  """A 6 × 4 picture in an 8 × 8 canvas; all of it is a person."""
  truth = Segments(
    index=np.ones([6, 4], np.int32),
    ids=np.array([1]),
    category_ids=np.array([7]),
    is_crowd=np.array([False]),
  )
  image = np.zeros([8, 8, 3], np.uint8)
  image[:6, :4] = 200
  ranking_map = RankingMap(np.ones([4, 4], np.int32), np.ones([4, 4], np.float32))
  info = np.array([[6, 4], [6, 4], [1, 1], [0, 0]], np.float32)
  return EvaluatedImage(
    source_id, '', truth, {'srm': truth, 'heuristic': truth}, image, info, ranking_map, {}, None, {}
  )


def test_panels_show_the_first_images(categories):
  shown = panels.Panels(categories, number=2)
  for source_id in ('a', 'b', 'c'):
    shown.add(evaluated(source_id, categories))
  assert list(shown.images) == ['image_a', 'image_b']
  picture = shown.images['image_a']
  assert picture.dtype == np.uint8 and picture.shape[1] > 4 * picture.shape[0] * 4 / 6


def test_the_ranking_map_has_the_colour_of_what_lies_on_top(categories):
  ranking_map = RankingMap(np.array([[1, 2]]), np.array([[1.0, 0.75]], np.float32))
  drawn = visualize.draw_ranking_map(ranking_map, categories)
  person, tie = (np.array(categories.category(label).color) for label in (1, 2))
  np.testing.assert_array_equal(drawn[0, 0], person)
  np.testing.assert_array_equal(drawn[0, 1], (255 + 0.75 * (tie - 255.0)).round())
