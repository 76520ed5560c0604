import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from panopticapi.utils import id2rgb, rgb2id

from oanet_tf.data.panoptic_map import MAX_SEGMENT_ID, ids_to_rgb, rgb_to_ids

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
