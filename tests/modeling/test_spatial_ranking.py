import numpy as np
import pytest
import tensorflow as tf

from oanet_tf.modeling import spatial_ranking


def test_instance_tensor_has_a_channel_for_each_class():
  masks = np.zeros((1, 3, 2, 2), np.float32)
  masks[0, 0, 0] = 1
  masks[0, 1, :, 0] = 1
  masks[0, 2, 0, 0] = 1  # A second instance of the first's class.
  tensor = spatial_ranking.instance_tensor(masks, tf.constant([[2, 1, 2]]), 3).numpy()
  np.testing.assert_array_equal(tensor[0, :, :, 0], [[1, 0], [1, 0]])
  np.testing.assert_array_equal(tensor[0, :, :, 1], [[1, 1], [0, 0]])
  assert not tensor[..., 2].any()


def test_instance_tensor_leaves_padding_out():
  masks = tf.ones([1, 2, 2, 2])
  assert not spatial_ranking.instance_tensor(masks, tf.constant([[-1, 0]]), 4).numpy().any()


def test_no_gradient_flows_into_the_masks():
  masks = tf.ones([1, 1, 2, 2])
  with tf.GradientTape() as tape:
    tape.watch(masks)
    tensor = spatial_ranking.instance_tensor(masks, tf.constant([[1]]), 2)
  assert tape.gradient(tensor, masks) is None


def test_ranking_score_is_the_mean_of_the_own_class_over_the_mask():
  ranking_map = np.zeros((1, 1, 4, 2), np.float32)
  ranking_map[0, 0, :, 0] = [0.9, 0.5, 0.1, 0.2]
  ranking_map[0, 0, :, 1] = [0.1, 0.5, 0.9, 0.8]
  masks = np.array([[[[1, 1, 1, 0]], [[0, 0, 1, 1]], [[0, 0, 0, 0]]]], np.float32)
  scores = spatial_ranking.ranking_scores(ranking_map, masks, tf.constant([[1, 2, 1]]))
  np.testing.assert_allclose(scores, [[0.5, 0.85, 0]], atol=1e-6)


@pytest.mark.parametrize(
  ('convolution', 'reach'), [('1x1', (0, 0)), ('3x3', (1, 1)), ('1x7+7x1', (3, 3))]
)
def test_convolution_settings_see_as_far_as_their_names_say(convolution, reach):
  module = spatial_ranking.SpatialRankingModule(num_things=2, convolution=convolution)
  tensor = np.zeros((1, 11, 11, 2), np.float32)
  base = module(tensor).numpy()
  tensor[0, 5, 5, 0] = 1
  changed = np.abs(module(tensor).numpy() - base).sum(-1)[0] > 0
  rows, columns = np.nonzero(changed)
  assert (rows.min(), rows.max()) == (5 - reach[0], 5 + reach[0])
  assert (columns.min(), columns.max()) == (5 - reach[1], 5 + reach[1])


def test_a_coarser_scale_sees_twice_as_far():
  module = spatial_ranking.SpatialRankingModule(num_things=2, convolution='3x3', num_scales=3)
  tensor = np.zeros((1, 31, 33, 2), np.float32)
  base = module(tensor).numpy()
  assert base.shape == tensor.shape
  tensor[0, 15, 16, 0] = 1
  rows, columns = np.nonzero(np.abs(module(tensor).numpy() - base).sum(-1)[0] > 0)
  # Cells of 4 × 4: the one, its neighbours, and those that are interpolated from them.
  assert 15 - rows.min() >= 4 and rows.max() - 15 >= 4
  assert rows.max() - rows.min() <= 20 and columns.max() - columns.min() <= 20


def test_the_first_scale_is_the_module_of_the_paper():
  tensor = np.random.default_rng(0).integers(0, 2, (1, 10, 12, 2)).astype(np.float32)
  one, two = (
    spatial_ranking.SpatialRankingModule(num_things=2, num_scales=scales) for scales in (1, 2)
  )
  expected = one(tensor)
  two(tensor)
  assert [len(module.weights) for module in (one, two)] == [4, 8]
  two.set_weights([*one.get_weights(), *(np.zeros(weight.shape) for weight in two.weights[4:])])
  np.testing.assert_allclose(two(tensor), expected, atol=1e-6)


def test_conflicting_pixels():
  masks = np.zeros((2, 3, 1, 4), np.float32)
  masks[0, :, 0] = [[1, 1, 1, 0], [0, 1, 0, 0], [0, 0, 1, 1]]  # The third is of the first's class.
  masks[1, 0, 0] = [0, 1, 1, 0]
  masks = tf.constant(masks)
  tensor = spatial_ranking.instance_tensor(masks, tf.constant([[1, 2, 1]] * 2), 2)
  found = spatial_ranking.conflicting_pixels(masks, tensor)
  np.testing.assert_array_equal(found[0, :, 0], [[0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 1]])
  np.testing.assert_array_equal(found[1, :, 0], [[0, 1, 1, 0], [0] * 4, [0] * 4])
