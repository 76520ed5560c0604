"""The numbers are of torchvision 0.29's `roi_align(aligned=True)` and `LevelMapper`."""

import numpy as np
import pytest
import tensorflow as tf

from oanet_tf.modeling.roi_align import RoIAlign, assign_levels

ROWS, COLUMNS = np.mgrid[:6, :8]
MAP = np.stack([(7 * ROWS + 3 * COLUMNS**2) % 11, (ROWS * COLUMNS) % 5], -1).astype(np.float32)
# [y1, x1, y2, x2]: within the map; all of it; over its top left; over its bottom right; without
# area; narrow.
ROIS = np.array(
  [
    [0.4, 1.3, 5.2, 6.9], [0, 0, 6, 8], [-2, -3, 1.5, 2], [3.25, 5.5, 8, 9.5], [2, 2, 2, 2],
    [1, 3.1, 4.4, 3.9],
  ],
  np.float32,
)  # fmt: skip
# By samples along a side of a bin: both channels of 2 × 2 bins, row by row.
TORCHVISION = {
  1: [
    [6.42, 2.32, 4.6, 0, 3.2, 2.2, 6, 0],
    [9, 1.5, 5, 0.5, 8, 3.5, 4, 2],
    [0, 0, 0, 0, 0, 0, 1.625, 0.03125],
    [4.25, 3.9375, 9.5625, 2.875, 0, 0, 0, 0],
    [7, 2.25] * 4,
    [4.08, 2.38, 3.25, 2.57, 3.11, 3.34, 3.71, 3.51],
  ],
  2: [
    [5.17, 1.6325, 4.1975, 1.3125, 3.5725, 2.65, 5.8175, 1.6625],
    [4.4375, 1.03125, 4.5625, 1.28125, 4.46875, 1.3125, 4.9375, 1.0625],
    [0, 0, 0, 0, 0, 0, 3.28125, 0.12305],
    [4.84766, 1.69141, 3.32031, 0.77344, 0.75, 0, 1.5, 0],
    [7, 2.25] * 4,
    [4.3275, 2.23, 3.6625, 2.3825, 3.5225, 2.7775, 4.1225, 2.76],
  ],
}


def align(features, rois, **settings):
  layer = RoIAlign(**{'crop_size': 2, **settings})
  return layer({k: tf.constant(v) for k, v in features.items()}, tf.constant(rois)).numpy()


@pytest.mark.parametrize('samples', TORCHVISION)
def test_equals_torchvision(samples):
  # A pyramid of one level of stride 1 samples all RoIs there.
  crops = align({'0': MAP[None]}, ROIS[None], samples=samples)
  assert crops.shape == (1, 6, 2, 2, 2)
  np.testing.assert_allclose(crops.reshape(6, 8), TORCHVISION[samples], atol=1e-5)


def test_levels_equal_torchvision():
  sides = [(10, 10), (111, 111), (112, 112), (113, 112), (224, 224), (223.9, 224), (448, 448),
           (2000, 1000), (56, 224), (0, 0)]  # fmt: skip
  rois = tf.constant([[0, 0, height, width] for height, width in sides], tf.float32)
  np.testing.assert_array_equal(assign_levels(rois, 2, 5), [2, 2, 3, 3, 4, 3, 5, 5, 3, 2])


def test_a_roi_is_sampled_on_its_level_up_to_the_coarsest():
  features = {
    str(level): np.full((1, 512 >> level, 512 >> level, 1), level, np.float32)
    for level in range(2, 7)
  }
  rois = np.array([[[0, 0, 20, 20], [0, 0, 150, 150], [0, 0, 230, 230], [0, 0, 500, 500]]])
  rois = np.concatenate([rois, [[[0, 0, 1000, 1000]]]], axis=1).astype(np.float32)
  np.testing.assert_allclose(align(features, rois)[0, :, 0, 0, 0], [2, 3, 4, 5, 5])
  np.testing.assert_allclose(align(features, rois, max_level=6)[0, 4, 0, 0, 0], 6)
  np.testing.assert_allclose(align(features, rois, max_level=3)[0, :, 0, 0, 0], [2, 3, 3, 3, 3])


def test_a_linear_map_gives_the_centres_of_bins():
  """Where features are the pixels' own positions, a bin's value is its centre."""
  features = {}
  for level in (2, 3):
    stride, side = 2**level, 256 >> level
    centres = (np.arange(side, dtype=np.float32) + 0.5) * stride
    features[str(level)] = np.stack(np.meshgrid(centres, centres, indexing='ij'), -1)[None]
  rois = np.array([[[20, 30, 60, 100], [40, 16, 200, 200]]], np.float32)
  crops = align(features, rois)
  for roi, crop in zip(rois[0], crops[0], strict=True):
    for axis in (0, 1):
      low, high = roi[axis], roi[2 + axis]
      expected = low + (high - low) * np.array([0.25, 0.75])
      np.testing.assert_allclose(np.moveaxis(crop[..., axis], axis, 0)[:, 0], expected, rtol=1e-5)


def test_images_of_a_batch_keep_their_features_and_gradients():
  maps = tf.constant(np.stack([MAP, 100 - MAP]))
  with tf.GradientTape() as tape:
    tape.watch(maps)
    crops = RoIAlign(crop_size=2)({'0': maps}, tf.constant(np.stack([ROIS, ROIS])))
    loss = tf.reduce_sum(crops[1, 1])
  gradient = tape.gradient(loss, maps).numpy()
  # All 2 × 2 bins of the whole map, each a mean: every bin passes on 1 for each channel.
  assert not gradient[0].any() and gradient[1].sum() == pytest.approx(8.0)
  np.testing.assert_allclose(crops[1, 0] + crops[0, 0], 100.0, rtol=1e-5)


def test_the_size_of_the_map_may_be_unknown_when_traced():
  layer = RoIAlign(crop_size=2)
  spec = tf.TensorSpec([1, None, None, 2]), tf.TensorSpec([1, 6, 4])
  function = tf.function(lambda maps, rois: layer({'0': maps}, rois), spec, autograph=False)
  assert function.get_concrete_function().output_shapes == (1, 6, 2, 2, 2)
  crops = function(MAP[None], ROIS[None]).numpy()
  np.testing.assert_allclose(crops.reshape(6, 8), TORCHVISION[2], atol=1e-5)


def test_every_graph_rounds_alike():
  """TensorFlow moves constants about where it knows shapes; an exported graph knows fewer."""
  rng = np.random.default_rng(0)
  maps = {str(n): rng.normal(size=(1, 64 >> n, 64 >> n, 4)).astype(np.float32) for n in (2, 3, 4)}
  corners = rng.uniform(0, 40, (1, 30, 2))
  rois = np.concatenate([corners, corners + rng.uniform(2, 24, (1, 30, 2))], -1).astype(np.float32)
  layer = RoIAlign(crop_size=7)
  expected = layer(maps, tf.constant(rois)).numpy()
  for batch in (1, None):
    spec = {n: tf.TensorSpec([batch, *value.shape[1:]]) for n, value in maps.items()}
    function = tf.function(
      lambda m, r: layer(m, r), [spec, tf.TensorSpec([batch, 30, 4])], autograph=False
    )
    np.testing.assert_array_equal(function(maps, rois), expected)


def test_no_roi_gives_nothing():
  assert align({'0': MAP[None]}, np.zeros((1, 0, 4), np.float32)).shape == (1, 0, 2, 2, 2)


def test_no_integer_is_computed_but_for_shapes():
  """TensorFlow computes int32 on the host, which a step would wait for."""
  layer = RoIAlign(crop_size=7)
  spec = tf.TensorSpec([2, None, None, 8]), tf.TensorSpec([2, 16, 4])
  function = tf.function(lambda maps, rois: layer({'2': maps}, rois), spec, autograph=False)
  large = [
    operation.name
    for operation in function.get_concrete_function().graph.get_operations()
    for output in operation.outputs
    if output.dtype == tf.int32 and output.shape.rank not in (0, 1)
  ]
  assert not large


@pytest.mark.parametrize('bins', [1, 4, 11, 1000])
def test_in_parts_it_is_the_same(bins):
  layer = RoIAlign(crop_size=2)
  features = {'0': tf.constant(MAP[None]), '1': tf.constant(MAP[None, ::2, ::2])}
  expected = layer(features, tf.constant(ROIS[None])).numpy()
  layer.bins_at_once = bins
  np.testing.assert_array_equal(layer(features, tf.constant(ROIS[None])), expected)
