import numpy as np
import pytest
import scipy.ndimage
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from oanet_tf.modeling.fusion.connected_components import connected_components


def expected_components(labels):
  """[B, H, W] -> the same with SciPy, image by image and label by label."""
  components = np.zeros(labels.shape, int)
  for image, numbered in zip(labels, components, strict=True):
    for label in np.unique(image):
      found, _ = scipy.ndimage.label(image == label)
      numbered[found > 0] = found[found > 0] + components.max()
  return components


def assert_same_areas(labels):
  """Equal partitions, whatever the numbers; and none goes over from one image to the next."""
  found = connected_components(tf.constant(labels, tf.int32)).numpy()
  assert found.shape == labels.shape
  pairs = np.unique([found.ravel(), expected_components(labels).ravel()], axis=1)
  assert len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1]
  assert not labels.size or 0 <= found.min() <= found.max() < labels.size


@settings(max_examples=100, deadline=None)
@given(
  hnp.arrays(
    np.int32, hnp.array_shapes(min_dims=3, max_dims=3, max_side=12), elements=st.integers(0, 2)
  )
)
def test_equals_scipy(labels):
  assert_same_areas(labels)


def spiral(side):
  """A path of ones, one pixel wide, to the middle of zeros."""
  labels = np.zeros((side, side), int)
  y, x, step = 0, -1, (0, 1)
  for length in [side, *np.repeat(np.arange(side - 1, 0, -2), 2)]:
    for _ in range(length):
      y, x = y + step[0], x + step[1]
      labels[y, x] = 1
    step = (step[1], -step[0])
  return labels


@pytest.mark.parametrize(
  'labels',
  [
    np.zeros((1, 0, 5)),
    np.zeros((2, 300, 200)),
    np.indices((90, 90)).sum(axis=0)[None] % 2,
    np.random.default_rng(0).integers(0, 2, (1, 200, 300)),
    np.stack([spiral(101), 1 - spiral(101)]),
  ],
  ids=['empty', 'flat', 'checkerboard', 'noise', 'spirals'],
)
def test_extremes(labels):
  assert_same_areas(labels.astype(np.int32))


def test_diagonal_neighbours_do_not_hang_together():
  found = connected_components(tf.constant([[[1, 0], [0, 1]]])).numpy()
  assert len(np.unique(found)) == 4
