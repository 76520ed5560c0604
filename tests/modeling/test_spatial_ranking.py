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


def test_sides_of_boxes_move_by_a_tenth_of_the_box_at_most():
  boxes = tf.constant([[[10, 20, 30, 60], [-1, -1, -1, -1]]], tf.float32)
  jitter = tf.constant([[[-1, 0.5, 1, 1], [1, -1, 1, 1]]], tf.float32)
  np.testing.assert_allclose(
    spatial_ranking.jittered_boxes(boxes, jitter), [[[8, 22, 32, 64], [-1] * 4]], atol=1e-5
  )


def ranker(training_masks):
  return spatial_ranking.InstanceRanker(
    spatial_ranking.SpatialRankingModule(num_things=2), num_things=2, stride=1,
    scored_pixels='all', training_masks=training_masks, sees_stuff=False, score_threshold=0.5,
    mask_threshold=0.5, suppression_threshold=1.0,
  )  # fmt: skip


def training_tensor(training_masks, jitter):
  labels = {
    'gt_boxes': tf.constant([[[10, 20, 30, 60], [-1, -1, -1, -1]]] * 2, tf.float32),
    'gt_classes': tf.constant([[2, -1]] * 2),
    'gt_masks': tf.ones([2, 2, 4, 4]),
    'box_jitter': tf.constant(jitter, tf.float32),
  }
  images = tf.zeros([2, 64, 64, 3])
  return ranker(training_masks).in_training(images, labels)['instance_tensor'].numpy()


def test_jittered_masks_lie_in_jittered_boxes():
  jitter = [[[-1, 0.5, 1, 1], [1, -1, 1, 1]], [[0.0] * 4] * 2]
  expected = np.zeros((2, 64, 64, 2), np.float32)
  expected[0, 8:32, 22:64, 1] = 1
  expected[1, 10:30, 20:60, 1] = 1
  np.testing.assert_array_equal(training_tensor('jittered', jitter), expected)
  expected[0] = expected[1]
  np.testing.assert_array_equal(training_tensor('truth', jitter), expected)


def test_predicted_masks_lie_in_their_regions_and_have_the_true_class():
  logits = np.full((1, 3, 2, 2), 9.0, np.float32)
  logits[0, 1, :, 0] = -9.0  # The left half.
  outputs = {
    'mask_outputs': tf.constant(logits),
    'mask_rois': tf.constant([[[0, 0, 4, 4], [2, 0, 6, 8], [0, 0, 8, 8]]], tf.float32),
    'mask_class_targets': tf.constant([[1, 2, 0]]),  # The last is background.
  }
  truth = {
    'gt_boxes': tf.constant([[[0, 0, 8, 8]]], tf.float32),
    'gt_classes': tf.constant([[2]]),
    'gt_masks': tf.ones([1, 1, 2, 2]),
  }
  found = ranker('predicted').in_training(tf.zeros([1, 8, 8, 3]), truth, outputs)
  expected = np.zeros((1, 8, 8, 2), np.float32)
  expected[0, :4, :4, 0] = 1
  expected[0, 2:6, 4:, 1] = 1
  np.testing.assert_array_equal(found['instance_tensor'], expected)


def test_stuff_channels_are_probabilities_on_the_canvas_without_a_gradient():
  logits = tf.constant(np.log([[[[1, 3], [1, 1]]]]), tf.float32)
  with tf.GradientTape() as tape:
    tape.watch(logits)
    channels = spatial_ranking.stuff_channels(logits, [2, 4])
  assert tape.gradient(channels, logits) is None
  # Linearly between the middles of the two cells, and as they are beyond.
  first = [0.25, 0.3125, 0.4375, 0.5]
  np.testing.assert_allclose(channels[0, :, :, 0], [first, first], atol=1e-6)
  np.testing.assert_allclose(tf.reduce_sum(channels, -1), 1.0, atol=1e-6)


def test_conflicting_pixels():
  masks = np.zeros((2, 3, 1, 4), np.float32)
  masks[0, :, 0] = [[1, 1, 1, 0], [0, 1, 0, 0], [0, 0, 1, 1]]  # The third is of the first's class.
  masks[1, 0, 0] = [0, 1, 1, 0]
  masks = tf.constant(masks)
  tensor = spatial_ranking.instance_tensor(masks, tf.constant([[1, 2, 1]] * 2), 2)
  found = spatial_ranking.conflicting_pixels(masks, tensor)
  np.testing.assert_array_equal(found[0, :, 0], [[0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 1]])
  np.testing.assert_array_equal(found[1, :, 0], [[0, 1, 1, 0], [0] * 4, [0] * 4])
