import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as np_st

from oanet_tf.data.categories import Category, PanopticCategories
from oanet_tf.errors import InputError
from oanet_tf.evaluation.mean_iou import MeanIoU
from tests.categories import CATEGORIES, GRASS, SKY

# Labels: void 0, person 1, dog 2, grass 3, sky 4.


def mean_iou(*images):
  metric = MeanIoU(CATEGORIES)
  for truth, prediction in images:
    metric.update(np.array([truth], np.int32), np.array([prediction], np.int32))
  return metric


def test_by_hand():
  metric = mean_iou(([3, 3, 3, 4, 4, 4], [3, 3, 4, 4, 4, 4]))
  assert metric.confusion.tolist() == [[0, 2, 1], [0, 0, 3]]
  result = metric.result()
  assert result == {'mean_iou': pytest.approx(17 / 24), 'per_class': {GRASS: 2 / 3, SKY: 3 / 4}}
  assert json.loads(json.dumps(result))['per_class'] == {'3': 2 / 3, '90': 3 / 4}


def test_void_and_things_of_the_truth_are_ignored():
  assert mean_iou(([0, 1, 2, 3], [3, 4, 3, 3])).result() == {
    'mean_iou': 1.0,
    'per_class': {GRASS: 1.0},
  }


def test_void_and_things_of_the_prediction_are_misses():
  assert mean_iou(([3, 3, 3, 3], [3, 0, 1, 2])).result()['per_class'] == {GRASS: 0.25}


def test_a_category_that_is_only_predicted_counts():
  assert mean_iou(([3, 3], [3, 4])).result() == {
    'mean_iou': 0.25,
    'per_class': {GRASS: 0.5, SKY: 0},
  }


def test_nothing():
  nothing = {'mean_iou': 0.0, 'per_class': {}}
  assert mean_iou().result() == mean_iou(([], [])).result() == nothing
  assert mean_iou(([0, 1], [3, 4])).result() == nothing
  only_things = PanopticCategories([Category(1, 'cup', True, (0, 0, 0))])
  metric = MeanIoU(only_things)
  metric.update(np.ones([2, 2], int), np.zeros([2, 2], int))
  assert metric.result() == nothing


def test_sizes_must_agree():
  with pytest.raises(InputError, match=r'\(1, 2\).* \(2, 1\)'):
    MeanIoU(CATEGORIES).update(np.zeros([1, 2], int), np.zeros([2, 1], int))


LABELS = np_st.arrays(np.uint8, st.just((3, 4)), elements=st.integers(0, 4))


@given(images=st.lists(st.tuples(LABELS, LABELS), max_size=3))
def test_equals_a_loop_over_pixels_and_adds_up(images):
  whole, parts = MeanIoU(CATEGORIES), MeanIoU(CATEGORIES)
  pixels = []
  for truth, prediction in images:
    whole.update(truth, prediction)
    part = MeanIoU(CATEGORIES)
    part.update(truth, prediction)
    parts.confusion += part.confusion
    pixels += [
      pair
      for pair in zip(truth.ravel().tolist(), prediction.ravel().tolist(), strict=True)
      if pair[0] >= 3
    ]
  expected = {}
  for label, category_id in ((3, GRASS), (4, SKY)):
    union = sum(label in pair for pair in pixels)
    if union:
      expected[category_id] = sum(pair == (label, label) for pair in pixels) / union
  assert whole.result()['per_class'] == pytest.approx(expected)
  assert parts.result() == whole.result()
