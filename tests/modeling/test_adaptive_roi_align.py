"""The numbers are of torchvision 0.29's `roi_align(aligned=True, sampling_ratio=-1)`."""

import math

import numpy as np
import pytest
import tensorflow as tf

from oanet_tf.modeling import adaptive_roi_align
from oanet_tf.modeling.adaptive_roi_align import AdaptiveRoIAlign
from oanet_tf.modeling.roi_align import RoIAlign, assign_levels
from tests.modeling.test_roi_align import MAP

# [y1, x1, y2, x2] on the map of 6 × 8 cells, and both channels of its 2 × 2 bins, row by row.
TORCHVISION = {
  'within': ([0.4, 1.3, 5.2, 6.9], [5.17111, 1.75333, 4.18519, 1.19259, 3.98, 2.4, 5.39778, 1.4]),
  'whole': (
    [0, 0, 6, 8],
    [4.66667, 1.08333, 4.33333, 1.33333, 4.58333, 1.41667, 5.16667, 1.16667],
  ),
  'over the top left': ([-2, -3, 1.5, 2], [0, 0, 0, 0, 0, 0, 3.16319, 0.125]),
  'over the bottom right': (
    [3.25, 5.5, 8, 9.5],
    [4.90972, 1.77604, 3.44444, 0.82986, 0.5, 0, 1, 0],
  ),
  'over the right by more than a cell': ([-1.2, 7, 0.3, 9.1], [0, 0, 0, 0, 4.59375, 0, 2, 0]),
  'over both sides': ([-20, 2, 30, 4], [0.84, 0.4, 0.92, 0.4, 0.24, 0, 0.56, 0]),
  'outside': ([-9, -9, -5, -5], [0] * 8),
  'point': ([2, 2, 2, 2], [0] * 8),
  'line': ([3, 2, 5, 2], [0] * 8),
  'sides in the wrong order': ([5, 5, 2, 2], [0] * 8),
  'narrow': ([1, 3.1, 4.4, 3.9], [4.3275, 2.23, 3.6625, 2.3825, 3.5225, 2.7775, 4.1225, 2.76]),
  'flat': ([2.5, 0, 2.9, 8], [5.125, 1.775, 4.15, 2.175, 4.875, 1.825, 4.45, 2.025]),
  'upright': ([0, 6.5, 6, 6.8], [4.9, 1.075, 4.7, 1.225, 4.175, 2.25833, 4.525, 2.10833]),
  'tiny': (
    [1.5, 1.5, 1.6, 1.6],
    [9.85, 1.05062, 9.75, 1.10187, 9.65, 1.10187, 9.55, 1.15562],
  ),
  'cells': ([1, 1, 3, 3], [10, 1, 8, 2, 6, 2, 4, 4]),
  'three by two samples': (
    [0.7, 0.2, 4.7, 6.2],
    [5.85, 1.32333, 3.77667, 1.59, 4.92667, 1.97333, 5.09, 1.57333],
  ),
}
ROIS = np.array([roi for roi, _ in TORCHVISION.values()], np.float32)
BINS = np.array([bins for _, bins in TORCHVISION.values()], np.float32).reshape(-1, 2, 2, 2)


@pytest.fixture
def few_groups(monkeypatch):
  """For graphs: each group is traced, and so many take seconds."""
  monkeypatch.setattr(adaptive_roi_align, '_GROUPS', 3)


def align(maps, rois, crop_size=2, **settings):
  layer = AdaptiveRoIAlign(crop_size=crop_size, **settings)
  return layer({k: tf.constant(v) for k, v in maps.items()}, tf.constant(rois))


def one_by_one(cells, roi, side):
  """[h, w, C] and one RoI in cells -> [S, S, C], a sample at a time."""
  result = np.zeros([side, side, cells.shape[-1]])
  low, size = roi[:2] - 0.5, roi[2:] - roi[:2]
  counts = np.ceil(size / side).astype(int)
  if (counts <= 0).any():
    return result
  rows, columns = (
    list(samples(*of_axis, side))
    for of_axis in zip(low, size, counts, cells.shape[:2], strict=True)
  )
  for row, top, bottom, y in rows:
    for column, left, right, x in columns:
      above = (1 - x) * cells[top, left] + x * cells[top, right]
      below = (1 - x) * cells[bottom, left] + x * cells[bottom, right]
      result[row, column] += (1 - y) * above + y * below
  return result / counts.prod()


def samples(low, size, count, length, side):
  """Along an axis, the bin of each sample, the cells around it, and how near it is to the second.

  Without those further than a cell outside.
  """
  for index, sample in np.ndindex(side, count):
    position = low + (index + (sample + 0.5) / count) * size / side
    if -1 <= position <= length:
      position = min(max(position, 0), length - 1)
      first = int(position)
      yield index, first, min(first + 1, length - 1), position - first


def random_maps(rng, batch, height, width, channels=3, levels=(2, 3, 4, 5)):
  return {
    str(n): rng.normal(size=(batch, -(-height // 2**n), -(-width // 2**n), channels)).astype('f')
    for n in levels
  }


def random_rois(rng, batch, number, height, width):
  """Some reach over the edges; about every tenth is 20 times as long as it is wide."""
  sizes = np.exp(rng.uniform(np.log(3), np.log(1.2 * max(height, width)), (batch, number, 1)))
  stretch = np.where(rng.uniform(size=sizes.shape) < 0.1, math.sqrt(20), 1.2)
  flip = np.where(rng.uniform(size=sizes.shape) < 0.5, 1, -1)
  sizes = sizes * np.concatenate([stretch**flip, stretch**-flip], -1)
  centres = rng.uniform(0, 1, sizes.shape) * [height, width]
  return np.concatenate([centres - sizes / 2, centres + sizes / 2], -1).astype(np.float32)


def test_no_roi_gives_nothing():
  assert align({'0': MAP[None]}, np.zeros((1, 0, 4), np.float32)).shape == (1, 0, 2, 2, 2)
  assert align({'0': np.stack([MAP] * 3)}, np.zeros((3, 0, 4), np.float32)).shape[:2] == (3, 0)


@pytest.mark.parametrize('name', TORCHVISION)
def test_one_roi_equals_torchvision(name):
  roi, bins = TORCHVISION[name]
  crop = align({'0': MAP[None]}, np.array([[roi]], np.float32))
  np.testing.assert_allclose(crop.numpy().reshape(-1), bins, atol=1e-5)


def test_the_slow_way_equals_torchvision():
  for roi, bins in zip(ROIS, BINS, strict=True):
    np.testing.assert_allclose(one_by_one(MAP, roi, 2), bins, atol=1e-5)


@pytest.mark.parametrize('number', [2, 7, 15, 16, 17, 31, 33, 50])
def test_any_number_of_rois_keeps_its_order(number):
  """Groups are of unequal size, or empty."""
  which = np.arange(number) * 7 % len(ROIS)
  crops = align({'0': MAP[None]}, ROIS[None, which])
  np.testing.assert_allclose(crops[0], BINS[which], atol=1e-5)


def test_each_image_has_its_own_features():
  rois = np.stack([ROIS, ROIS[::-1], np.roll(ROIS, 5, axis=0)])
  crops = align({'0': np.stack([MAP, 10 * MAP, -MAP])}, rois)
  expected = [BINS, 10 * BINS[::-1], -np.roll(BINS, 5, axis=0)]
  np.testing.assert_allclose(crops, expected, atol=1e-4)


@pytest.mark.parametrize('crop_size', [1, 3, 7])
def test_every_level_of_odd_maps(crop_size):
  rng = np.random.default_rng(crop_size)
  height, width = 411, 633
  maps = random_maps(rng, 2, height, width)
  rois = random_rois(rng, 2, 40, height, width)
  levels = assign_levels(tf.constant(rois), 2, 5).numpy()
  assert set(levels.ravel()) == {2, 3, 4, 5}
  crops = align(maps, rois, crop_size).numpy()
  for image, index in np.ndindex(2, 40):
    level = levels[image, index]
    expected = one_by_one(maps[str(level)][image], rois[image, index] / 2.0**level, crop_size)
    np.testing.assert_allclose(crops[image, index], expected, atol=1e-4)


def test_no_level_above_the_coarsest_is_sampled():
  maps = {str(n): np.full((1, 512 >> n, 512 >> n, 1), n, np.float32) for n in range(2, 7)}
  rois = np.array([[[0, 0, 20, 20], [0, 0, 230, 230], [0, 0, 500, 500]]], np.float32)
  np.testing.assert_allclose(align(maps, rois)[0, :, 0, 0, 0], [2, 4, 5], rtol=1e-6)
  np.testing.assert_allclose(align(maps, rois, max_level=3)[0, :, 0, 0, 0], [2, 3, 3], rtol=1e-6)


@pytest.mark.parametrize('samples', [1, 2, 3])
def test_equals_a_fixed_number_where_every_bin_needs_it(samples):
  rng = np.random.default_rng(samples)
  maps = random_maps(rng, 2, 640, 640, levels=(2,))
  # In cells, sizes above (samples - 1) · 7 and up to samples · 7.
  sizes = 4 * (7 * samples - rng.uniform(0, 6.9, (2, 20, 2)))
  corners = rng.uniform(-10, 600, (2, 20, 2))
  rois = np.concatenate([corners, corners + sizes], -1).astype(np.float32)
  fixed = RoIAlign(crop_size=7, samples=samples)({'2': tf.constant(maps['2'])}, tf.constant(rois))
  np.testing.assert_allclose(align(maps, rois, 7), fixed, atol=1e-4)


@pytest.mark.parametrize('crop_size', [7, 14])
def test_sides_of_whole_bins_take_no_sample_more(crop_size, few_groups):
  """A graph divides by multiplying with the reciprocal, by which 21 / 7 would be more than 3."""
  cells = np.random.default_rng(0).normal(size=(1, 6, 140, 2)).astype(np.float32)
  layer = AdaptiveRoIAlign(crop_size=crop_size)
  function = tf.function(lambda *args: layer({'0': args[0]}, args[1]), autograph=False)
  for samples in range(1, 140 // crop_size + 1):
    roi = np.array([[1, 0, 3, crop_size * samples]], np.float32)
    expected = one_by_one(cells[0], roi[0], crop_size)
    np.testing.assert_allclose(function(cells, roi[None])[0, 0], expected, atol=1e-5)


def test_lengths_round_as_torchvisions():
  """torchvision subtracts 0.5 from both sides first, which makes this one 7 cells, a sample each.

  The difference of the sides alone is a bit more than 7.
  """
  low, high = np.float32(0.24), np.float32(7.2400002)
  assert high - low > 7 and (high - np.float32(0.5)) - (low - np.float32(0.5)) == 7
  cells = np.random.default_rng(0).normal(size=(1, 9, 9, 2)).astype(np.float32)
  roi = np.array([[[low, low, high, high]]])
  expected = RoIAlign(crop_size=7, samples=1)({'0': cells}, tf.constant(roi))
  np.testing.assert_allclose(align({'0': cells}, roi, 7), expected, atol=1e-4)


def test_sizes_and_number_may_be_unknown_when_traced(few_groups):
  rng = np.random.default_rng(0)
  layer = AdaptiveRoIAlign(crop_size=2)
  specs = {str(n): tf.TensorSpec([None, None, None, 3]) for n in (2, 3, 4, 5)}
  function = tf.function(
    lambda maps, rois: layer(maps, rois),
    [specs, tf.TensorSpec([None, None, 4])],
    autograph=False,
  )
  assert function.get_concrete_function().output_shapes.as_list() == [None, None, 2, 2, 3]
  for batch, number, height, width in [(1, 1, 64, 96), (3, 21, 97, 65), (2, 0, 64, 64)]:
    maps = random_maps(rng, batch, height, width)
    rois = random_rois(rng, batch, number, height, width)
    np.testing.assert_array_equal(function(maps, rois), align(maps, rois))


def test_the_shape_is_static_where_it_is_known(few_groups):
  layer = AdaptiveRoIAlign(crop_size=7)
  spec = tf.TensorSpec([2, None, None, 8]), tf.TensorSpec([2, 16, 4])
  function = tf.function(lambda maps, rois: layer({'2': maps}, rois), spec, autograph=False)
  assert function.get_concrete_function().output_shapes == (2, 16, 7, 7, 8)


def test_the_gradient_is_a_numeric_one():
  rng = np.random.default_rng(0)
  rois = tf.constant(np.stack([ROIS, ROIS[::-1]]))
  weights = tf.constant(rng.normal(size=(2, len(ROIS), 2, 2, 2)).astype(np.float32))

  def weighted(maps):
    return tf.reduce_sum(AdaptiveRoIAlign(crop_size=2)({'0': maps}, rois) * weights)

  maps = tf.Variable(np.stack([MAP, MAP[::-1]]))
  with tf.GradientTape() as tape:
    loss = weighted(maps)
  gradient = tf.convert_to_tensor(tape.gradient(loss, maps)).numpy()
  # The result is linear in the features, so a step of any size gives the slope.
  for _ in range(8):
    step = rng.normal(size=maps.shape).astype(np.float32)
    assert np.sum(gradient * step) == pytest.approx(float(weighted(tf.constant(step))), abs=1e-3)


@pytest.mark.parametrize(('dtype', 'atol'), [(tf.float16, 0.02), (tf.bfloat16, 0.15)])
def test_half_precision_features(dtype, atol):
  rois = tf.constant(ROIS[None])
  crops = AdaptiveRoIAlign(crop_size=2, dtype=dtype)({'0': tf.cast(MAP[None], dtype)}, rois)
  assert crops.dtype == dtype
  np.testing.assert_allclose(tf.cast(crops, tf.float32)[0], BINS, atol=atol)


def test_positions_are_exact_in_half_precision():
  """Nothing may round the RoIs; bfloat16 has 8 bits, so 1,001 would become 1,000."""
  columns = np.broadcast_to(np.arange(1200, dtype=np.float32)[:, None], (1, 4, 1200, 1))
  maps = tf.cast(columns % 2, tf.bfloat16)
  rois = tf.constant([[[0.0, 1001, 4, 1002], [0, 1002, 4, 1003]]])
  layer = AdaptiveRoIAlign(crop_size=1, dtype='bfloat16')
  np.testing.assert_array_equal(
    tf.cast(layer({'0': maps}, rois), tf.float32)[0, :, 0, 0, 0], [1.0, 0.0]
  )
