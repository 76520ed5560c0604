import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from panopticapi.utils import id2rgb, rgb2id

from oanet_tf.data.panoptic_map import (
  MAX_SEGMENT_ID,
  PanopticSegmentation,
  check_segments_have_pixels,
  ids_to_rgb,
  rgb_to_ids,
  segment_positions,
)
from oanet_tf.errors import InputError

MAPS = hnp.arrays(
  np.int32, hnp.array_shapes(min_dims=2, max_dims=2), elements=st.integers(0, MAX_SEGMENT_ID)
)


def test_a_hand_worked_id():
  rgb = np.array([[[16, 39, 1]]], np.uint8)  # 16 + 39 * 256 + 1 * 65536
  assert rgb_to_ids(rgb).tolist() == [[75536]]
  assert ids_to_rgb(np.array([[75536]])).tolist() == rgb.tolist()


def test_extremes_do_not_overflow():
  rgb = np.array([[[0, 0, 0], [255, 255, 255]]], np.uint8)
  ids = rgb_to_ids(rgb)
  assert ids.dtype == np.int32
  assert ids.tolist() == [[0, MAX_SEGMENT_ID]]


def test_empty_map():
  assert rgb_to_ids(np.zeros([0, 4, 3], np.uint8)).shape == (0, 4)
  assert ids_to_rgb(np.zeros([3, 0], np.int32)).shape == (3, 0, 3)


@given(MAPS)
def test_inverses_and_as_in_panopticapi(ids):
  rgb = ids_to_rgb(ids)
  assert rgb.dtype == np.uint8
  np.testing.assert_array_equal(rgb_to_ids(rgb), ids)
  np.testing.assert_array_equal(rgb, id2rgb(ids))
  np.testing.assert_array_equal(rgb_to_ids(rgb), rgb2id(rgb))


def segmentation(segment_map, *ids):
  count = len(ids)
  return PanopticSegmentation(
    np.array(segment_map, np.int32),
    np.array(ids, np.int32),
    np.ones(count, np.int32),
    np.zeros(count, bool),
  )


def test_position_is_that_of_the_list_whatever_the_order_of_the_ids():
  positions = segment_positions(segmentation([[0, 9, 4], [7, 4, 0]], 7, 9, 4), 'map')
  assert positions.dtype == np.int32
  assert positions.tolist() == [[0, 2, 3], [1, 3, 0]]


def test_positions_of_void_only():
  assert not segment_positions(segmentation([[0, 0, 0], [0, 0, 0]]), 'map').any()


@pytest.mark.parametrize('stranger', [1, 6, 2**24 - 1])
def test_an_unlisted_id_is_named(stranger):
  with pytest.raises(InputError, match=f'map: segment {stranger} '):
    segment_positions(segmentation([[5, stranger, 0]], 5), 'map')


@pytest.mark.parametrize(('ids', 'message'), [((5, 5), 'segment 5 '), ((5, 0), 'out of')])
def test_a_bad_list_is_refused(ids, message):
  with pytest.raises(InputError, match=message):
    segment_positions(segmentation([[5, 0]], *ids), 'map')


def test_a_segment_without_pixels_is_named():
  listed = segmentation([[5, 5]], 5, 8)
  with pytest.raises(InputError, match='map: segment 8 '):
    check_segments_have_pixels(listed, np.array([2, 0]), 'map')
