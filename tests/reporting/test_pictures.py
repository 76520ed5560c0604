import base64
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from oanet_tf.evaluation.ranking_map import RankingMap
from oanet_tf.reporting import pictures
from tests.segments import segments_of_ids

PERSON, TIE, SKY, GRASS = 7, 31, 92, 200


def segmentation(segment_map, category_ids):
  return segments_of_ids(segment_map, dict(enumerate(category_ids, start=1)))


def decode(png):
  return np.asarray(Image.open(io.BytesIO(png)))


def test_layer_of_segments(categories):
  layer = decode(
    pictures.segment_layer(segmentation([[1, 1, 0, 2], [1, 1, 0, 2]], [PERSON, SKY]), categories)
  )
  assert layer.shape == (320, 640, 4)
  for column, color in ((100, (200, 0, 0, 140)), (400, (0, 0, 0, 0)), (560, (0, 0, 200, 140))):
    assert tuple(layer[100, column]) == color
  is_white = (layer == (255, 255, 255, 230)).all(axis=-1)
  assert np.flatnonzero(is_white.all(axis=0)).tolist() == [319, 479] and is_white.sum() == 640


def test_layer_of_void(categories):
  layer = decode(pictures.segment_layer(segmentation([[0]], []), categories))
  assert layer.shape == (640, 640, 4) and not layer.any()


def test_layer_of_the_ranking_map(categories):
  ranking_map = RankingMap(np.array([[1, 2]]), np.ones([1, 2], np.float32))
  layer = decode(pictures.ranking_layer(ranking_map, np.array([[True] * 3 + [False]]), categories))
  assert layer.shape == (160, 640, 4)
  assert tuple(layer[80, 100]) == (200, 0, 0, 255)
  assert tuple(layer[80, 400]) == (200, 200, 0, 255)
  assert layer[80, 600, 3] == 0


@pytest.mark.parametrize(
  ('shape', 'resampled'),
  [((1, 1), (640, 640)), ((3000, 6000), (320, 640)), ((5000, 2), (640, 1)), ((2, 5000), (1, 640))],
)
def test_resampled_to_a_screens_size(shape, resampled):
  values = np.arange(shape[0] * shape[1]).reshape(shape)
  found = pictures.resample(values)
  assert found.shape == resampled
  assert (np.diff(found[:, 0]) >= 0).all() and (np.diff(found[0]) >= 0).all()


def test_resampling_to_the_same_size_changes_nothing():
  values = np.random.default_rng(0).integers(0, 9, [480, 640])
  np.testing.assert_array_equal(pictures.resample(values), values)


def test_labels_stand_where_segments_are_widest():
  segment_map = np.zeros([100, 200], np.int32)
  segment_map[20:60, 20:60] = 1
  segment_map[20:22, 60:200] = 1  # A tail, which the mean would follow.
  segment_map[70:90, 120:180] = 2
  labels = pictures.place_labels(segmentation(segment_map, [PERSON, TIE]), ['one', 'two'])
  assert [label.text for label in labels] == ['one', 'two']
  assert labels[0].x == pytest.approx(20, abs=1.5) and labels[0].y == pytest.approx(40, abs=1.5)
  assert labels[1].y == pytest.approx(80, abs=1.5) and 60 < labels[1].x < 90


def test_of_two_labels_in_one_place_the_first_is_kept():
  # So low that there is one line of text, and the texts are so long that they meet.
  segment_map = np.ones([8, 100], np.int32)
  segment_map[:, 48:53] = 2
  segments = segmentation(segment_map, [PERSON, TIE])

  def texts(**options):
    return [one.text for one in pictures.place_labels(segments, ['p' * 30, 't' * 30], **options)]

  assert texts() == texts(first=[1]) == texts(first=[1, 2]) == ['p' * 30]
  assert texts(first=[2]) == texts(first=[2, 1]) == ['t' * 30]


def test_what_has_no_room_or_no_pixel_has_no_label():
  listed_only = segmentation(np.ones([50, 50]), [PERSON, TIE])
  assert [one.text for one in pictures.place_labels(listed_only, ['a', 'b'])] == ['a']
  thin = segmentation(np.ones([5000, 2]), [PERSON])
  assert pictures.place_labels(thin, ['person']) == []
  long = segmentation(np.ones([50, 50]), [PERSON])
  assert pictures.place_labels(long, ['x' * 100]) == []


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(20, 90), st.integers(20, 90))
def test_labels_neither_overlap_nor_stick_out(seed, count, height, width):
  rng = np.random.default_rng(seed)
  segment_map = rng.integers(0, count + 1, [4, 5])
  segment_map = np.kron(segment_map, np.ones([height, width], int))
  texts = ['x' * rng.integers(1, 20) for _ in range(count)]
  labels = pictures.place_labels(segmentation(segment_map, [PERSON] * count), texts)
  scale = min(250 / segment_map.shape[1], 448 / segment_map.shape[0])
  size = np.array(segment_map.shape[::-1]) * scale
  taken = np.zeros(np.ceil(size[::-1]).astype(int), int)
  for label in labels:
    half = np.array([6.2 * len(label.text) + 8, 16]) / 2
    middle = np.array([label.x, label.y]) / 100 * size
    low, high = middle - half, middle + half
    assert (low >= -0.5).all() and (high <= size + 0.5).all()
    # Rounding to a tenth of a percent may make borders meet.
    (x1, y1), (x2, y2) = np.ceil(low + 0.5).astype(int), np.floor(high - 0.5).astype(int)
    taken[y1:y2, x1:x2] += 1
  assert taken.max(initial=0) <= 1


def test_data_uri():
  uri = pictures.data_uri(b'\x00\xff', 'image/png')
  head, content = uri.split(',')
  assert head == 'data:image/png;base64' and base64.b64decode(content) == b'\x00\xff'
