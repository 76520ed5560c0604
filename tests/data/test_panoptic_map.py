import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from oanet_tf.data.categories import Category, PanopticCategories
from oanet_tf.data.panoptic_map import (
  MAX_SEGMENT_ID,
  check_segments_have_pixels,
  ids_to_rgb,
  read_index,
  runs,
  segments_of_masks,
  summed,
)
from oanet_tf.errors import InputError
from tests.segments import segments_of_ids

MAPS = hnp.arrays(
  np.int32, hnp.array_shapes(min_dims=2, max_dims=2), elements=st.integers(0, MAX_SEGMENT_ID)
)


SKY, PERSON = 90, 7
CATEGORIES = PanopticCategories(
  [Category(SKY, 'sky', False, (0, 0, 200)), Category(PERSON, 'person', True, (200, 0, 0))]
)


def index_of(id_map, *ids):
  """What is read of an image with these ids."""
  return read_index(ids_to_rgb(np.array(id_map)), np.array(ids, np.int32), 'map')


def test_a_hand_worked_id():
  rgb = np.array([[[16, 39, 1]]], np.uint8)  # 16 + 39 * 256 + 1 * 65536
  assert read_index(rgb, np.array([4, 75536]), 'map').tolist() == [[2]]
  assert ids_to_rgb(np.array([[75536]])).tolist() == rgb.tolist()


def test_extremes_do_not_overflow():
  assert index_of([[0, MAX_SEGMENT_ID, 1]], 1, MAX_SEGMENT_ID).tolist() == [[0, 2, 1]]


@given(MAPS)
def test_inverses(ids):
  rgb = ids_to_rgb(ids)
  assert rgb.dtype == np.uint8
  np.testing.assert_array_equal(rgb @ np.int32([1, 256, 256**2]), ids)
  listed = np.setdiff1d(ids, [0])
  index = read_index(rgb, listed, 'map')
  np.testing.assert_array_equal(np.concatenate([[0], listed])[index], ids)


def test_the_index_is_the_place_in_the_list_whatever_the_order_of_the_ids():
  index = index_of([[0, 9, 4], [7, 4, 0]], 7, 9, 4)
  assert index.dtype == np.int32
  assert index.tolist() == [[0, 2, 3], [1, 3, 0]]


def test_the_index_of_void_only():
  assert index_of([[0, 0, 0], [0, 0, 0]]).tolist() == [[0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize('stranger', [1, 6, 2**24 - 1])
def test_an_unlisted_id_is_named(stranger):
  with pytest.raises(InputError, match=f'map: segment {stranger} is in the map but not'):
    index_of([[5, stranger, 0]], 5)


def test_a_segment_without_pixels_is_named():
  with pytest.raises(InputError, match='map: segment 8 is listed but has no pixel'):
    check_segments_have_pixels(np.array([5, 8]), np.array([2, 0]), 'map')


def test_runs_go_on_from_row_to_row():
  starts, lengths = runs(np.array([[1, 1], [1, 2]]), np.array([[3, 4], [4, 4]]))
  assert starts.tolist() == [0, 1, 3] and lengths.tolist() == [1, 2, 1]
  assert [len(part) for part in runs(np.zeros([0, 3]))] == [0, 0]


def test_runs_of_colors_are_of_pixels():
  # The second pixel differs in green, the third from it in red and blue, the fourth from none.
  one = np.array([[[1, 2, 3], [1, 4, 3]], [[2, 4, 5], [2, 4, 5]]], np.uint8)
  starts, lengths = runs(one, channels=3)
  assert starts.tolist() == [0, 1, 2] and lengths.tolist() == [1, 1, 2]
  # Neighbouring bytes of two pixels may be alike, as in [1, 2, 3] and [3, 1, 2].
  other = np.array([[[7, 7, 7], [7, 7, 7]], [[7, 7, 7], [7, 7, 8]]], np.uint8)
  assert runs(one, other, channels=3)[0].tolist() == [0, 1, 2, 3]
  shifted = np.array([[[1, 2, 3], [3, 1, 2], [3, 1, 2]]], np.uint8)
  assert runs(shifted, channels=3)[0].tolist() == [0, 1]


def test_lengths_are_summed_by_code():
  codes, lengths = np.array([9, 2**47, 9, 0]), np.array([1, 2, 4, 8])
  present, sums = summed(codes, lengths)
  assert present.tolist() == [0, 9, 2**47] and sums.tolist() == [8, 5, 2]


def test_labels_and_things():
  segments = segments_of_ids([[4, 9]], {9: SKY, 4: PERSON})
  assert segments.labels(CATEGORIES).tolist() == [0, 2, 1]
  assert segments.is_thing(CATEGORIES).tolist() == [False, True]
  nothing = segments_of_ids([[0]], {})
  assert nothing.labels(CATEGORIES).tolist() == [0]
  assert nothing.is_thing(CATEGORIES).shape == (0,)


def test_masks_by_hand():
  """Two persons side by side, and sky in two places."""
  segments = segments_of_masks(
    np.array([[2, 1, 1], [0, 2, 1]]), np.array([[0, 5, 5], [0, 0, 3]]), CATEGORIES
  )
  assert segments.index.tolist() == [[1, 3, 3], [0, 1, 2]]
  assert segments.index.dtype == segments.ids.dtype == segments.category_ids.dtype == np.int32
  assert segments.ids.tolist() == [1, 2, 3]
  assert segments.category_ids.tolist() == [SKY, PERSON, PERSON]
  assert segments.is_crowd.tolist() == [False, False, False]


LABELS = hnp.arrays(np.int32, (3, 4), elements=st.integers(0, 2))
INSTANCES = hnp.arrays(np.int32, (3, 4), elements=st.integers(0, 3))


@given(LABELS, INSTANCES)
def test_masks_give_a_segment_to_each_pair(labels, instances):
  segments = segments_of_masks(labels, instances, CATEGORIES)
  table = {}
  for k, label, instance in zip(
    segments.index.ravel(), labels.ravel(), instances.ravel(), strict=True
  ):
    assert (k == 0) == (label == 0)
    if k:
      assert table.setdefault((label, instance), k) == k
      assert segments.category_ids[k - 1] == CATEGORIES.category(label).id
  assert sorted(table.values()) == list(range(1, len(segments.ids) + 1))
