import json

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from oanet_tf.config import definitions
from oanet_tf.data import annotation_scores
from oanet_tf.data.categories import PanopticCategories
from oanet_tf.errors import InputError
from tests import end_to_end


@pytest.mark.parametrize(
  ('area', 'frequency', 'expected'),
  [(0.0, 0.0, 0.5), (1.0, 1.0, 1.0), (0.25, 1.0, 0.875), (0.04, 0.5, 0.675), (1.0, 0.0, 0.75)],
)
def test_hand_worked_scores(area, frequency, expected):
  scores = annotation_scores.annotation_scores(tf.constant([area]), tf.constant([frequency]))
  assert scores.numpy() == pytest.approx([expected])


@given(*[st.tuples(st.floats(0, 1), st.floats(0, 1))] * 2)
def test_the_bigger_and_more_frequent_scores_no_less(one, other):
  low, high = np.minimum(one, other), np.maximum(one, other)
  areas, frequencies = tf.constant([low[0], high[0]]), tf.constant([low[1], high[1]])
  scores = annotation_scores.annotation_scores(areas, frequencies).numpy()
  assert 0.5 <= scores[0] <= scores[1] <= 1.0


def example(boxes, classes, masks):
  return {
    'gt_boxes': tf.constant(boxes, tf.float32, [len(boxes), 4]),
    'gt_classes': tf.constant(classes, tf.int32),
    'gt_masks': tf.constant(masks, tf.float32, [len(boxes), 2, 2]),
    # A picture of 40 × 40 pixels in a network input of 64 × 64.
    'image_info': tf.constant([[80, 80], [40, 40], [0.5, 0.5], [0, 0]], tf.float32),
  }


def test_instances_are_scored_by_their_masks_and_sorted():
  """100 of 1,600 pixels, 1/16, and a mask that fills half of a box of 800, 1/4."""
  frequencies = np.array([0.0, 1.0, 0.2], np.float32)
  objects = example([[0, 0, 10, 10], [0, 0, 40, 20]], [2, 1], [[[1, 1], [1, 1]], [[1, 0], [0, 1]]])
  scored = annotation_scores.score_instances(objects, frequencies)
  assert scored['gt_scores'].numpy() == pytest.approx([0.875, 0.5 + 0.25 / 4 + 0.05])
  assert scored['gt_classes'].numpy().tolist() == [1, 2]
  assert scored['gt_boxes'].numpy().tolist() == [[0, 0, 40, 20], [0, 0, 10, 10]]
  assert scored['gt_masks'].numpy().tolist() == [[[1, 0], [0, 1]], [[1, 1], [1, 1]]]


def test_no_instance():
  scored = annotation_scores.score_instances(example([], [], []), np.zeros(3, np.float32))
  assert {key: len(value) for key, value in scored.items()} == dict.fromkeys(scored, 0)


def write_shard(path, records):
  def feature(values):
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))

  with tf.io.TFRecordWriter(str(path)) as writer:
    for ids, is_crowd in records:
      features = {
        'image/object/class/label': feature(ids),
        'image/object/is_crowd': feature(is_crowd),
      }
      kept = {key: value for key, value in features.items() if ids}
      example = tf.train.Example(features=tf.train.Features(feature=kept))
      writer.write(example.SerializeToString())


def test_frequencies_are_of_single_objects_in_all_shards(tmp_path, categories):
  """Persons (7) are 3, ties (31) 1; two of the objects are crowds."""
  write_shard(tmp_path / 'a-0', [([7, 31, 7], [0, 0, 1]), ([], [])])
  write_shard(tmp_path / 'a-1', [([7, 7, 31], [0, 0, 1])])
  found = annotation_scores.category_frequencies(
    definitions.Data(input_path=f'{tmp_path}/a-*'), categories
  )
  assert found[categories.label(7)] == 1.0
  assert found[categories.label(31)] == pytest.approx(1 / 3)
  assert found.shape == (3,) and found[0] == 0.0


def test_no_object_at_all(tmp_path, categories):
  write_shard(tmp_path / 'a-0', [([], [])])
  found = annotation_scores.category_frequencies(
    definitions.Data(input_path=f'{tmp_path}/a-0'), categories
  )
  assert found.tolist() == [0.0, 0.0, 0.0]


def test_frequencies_are_those_of_the_annotations(tmp_path):
  end_to_end.make_shards(tmp_path, num_train=8)
  annotations = json.loads((tmp_path / 'scenes/annotations/instances_train.json').read_text())
  ids = [item['category_id'] for item in annotations['annotations'] if not item['iscrowd']]
  categories = PanopticCategories.from_json(tmp_path / 'shards' / 'categories.json')
  data = definitions.Data(input_path=f'{tmp_path}/shards/train-*')
  found = annotation_scores.category_frequencies(data, categories)
  most = max(ids.count(category_id) for category_id in ids)
  for category in categories:
    if category.is_thing:
      expected = ids.count(category.id) / most
      assert found[categories.label(category.id)] == pytest.approx(expected), category.name


def test_a_damaged_shard_is_named(tmp_path, categories):
  write_shard(tmp_path / 'a-0', [([7], [0])])
  content = bytearray((tmp_path / 'a-0').read_bytes())
  content[-5] ^= 1
  (tmp_path / 'a-0').write_bytes(content)
  with pytest.raises(InputError, match=r'a-0: .*record 0'):
    annotation_scores.category_frequencies(
      definitions.Data(input_path=f'{tmp_path}/a-0'), categories
    )
