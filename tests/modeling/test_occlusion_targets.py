import numpy as np
import tensorflow as tf

from oanet_tf.modeling import occlusion_targets
from oanet_tf.modeling.occlusion_targets import NO_PAIR
from oanet_tf.modeling.roi_sampling import SampledROIs


def row(*masks):
  """Masks of one row of pixels, [1, M, 1, w]."""
  return tf.constant(np.array(masks, np.float32)[None, :, None])


def test_won_pixels():
  masks = row([1, 1, 1, 0, 0], [0, 1, 1, 1, 1], [0, 0, 0, 0, 1])
  # Of the two pixels that the first two share, each has one; the third has no segment.
  segment_map = tf.constant([[[7, 7, 2, 2, 2]]])
  won = occlusion_targets.won_pixels(masks, tf.constant([[7, 2, 0]]), segment_map)
  assert won.numpy().tolist() == [[[0, 1, 0], [1, 0, 1], [0, 0, 0]]]


def test_objects_of_one_segment_win_nothing_of_each_other():
  masks = row([1, 1, 1], [0, 1, 1], [1, 1, 1])
  won = occlusion_targets.won_pixels(masks, tf.constant([[3, 3, 4]]), tf.constant([[[3, 3, 3]]]))
  assert won.numpy().tolist() == [[[0, 0, 3], [0, 0, 2], [0, 0, 0]]]


def test_padding_wins_nothing():
  masks = row([1, 1], [1, 1], [1, 1])
  won = occlusion_targets.won_pixels(masks, tf.constant([[1, -1, -1]]), tf.constant([[[1, 0]]]))
  assert won.numpy().tolist() == [[[0, 1, 1], [0, 0, 0], [0, 0, 0]]]


def test_a_finer_map_is_sampled_at_the_centres_of_the_canvas_cells():
  segment_map = np.zeros((1, 4, 8), np.int32)
  segment_map[0, 2::4, 2::4] = [[1, 2]]
  masks = row([1, 1], [1, 1])
  won = occlusion_targets.won_pixels(masks, tf.constant([[1, 2]]), tf.constant(segment_map))
  assert won.numpy().tolist() == [[[0, 1], [1, 0]]]


def labels(boxes):
  return {
    'gt_boxes': tf.constant([boxes], tf.float32),
    'gt_masks': tf.ones([1, len(boxes), 4, 4]),
  }


def test_targets_of_true_pairs():
  won = np.zeros((1, 3, 3), np.float32)
  won[0, 0, 1], won[0, 1, 0], won[0, 2, 0] = 1, 3, 20
  boxes = [[0, 0, 8, 8], [4, 4, 12, 12], [0, 0, 2, 2]]
  pairs = occlusion_targets.true_pairs(tf.constant(won), labels(boxes), number=5, side=2)
  assert pairs.targets.numpy().tolist() == [[0, 0.25, NO_PAIR]]
  assert pairs.crops.boxes[0, :2].numpy().tolist() == [[0, 0, 8, 8], [0, 0, 12, 12]]


def test_predicted_pairs_have_the_masks_of_rois_and_the_order_of_their_objects():
  won = np.zeros((1, 2, 2), np.float32)
  won[0, 1, 0] = 5
  boxes = tf.constant([[[0, 0, 4, 4], [2, 2, 8, 8], [1, 1, 4, 4], [0, 0, 9, 9]]], tf.float32)
  # The third RoI is the first's object again, and the last one is background.
  objects = SampledROIs(
    boxes=boxes,
    matched_boxes=tf.zeros([1, 4, 4]),
    classes=tf.constant([[1, 2, 1, 0]]),
    matched_indices=tf.constant([[0, 1, 0, -1]]),
  )
  logits = np.full((1, 4, 2, 2), -3.0, np.float32)
  logits[0, 0] = 3.0
  pairs = occlusion_targets.predicted_pairs(
    tf.constant(won), objects, tf.constant(logits), number=3, side=2
  )
  assert pairs.targets.numpy().tolist() == [[0, 1, NO_PAIR]]
  assert pairs.crops.boxes[0, :2].numpy().tolist() == [[0, 0, 8, 8], [1, 1, 8, 8]]
  assert pairs.crops.first[0, 0].numpy().tolist() == [[1, 0], [0, 0]]
  assert not pairs.crops.second[0, 0].numpy().any()


def test_predicted_pairs_are_of_many_rois_and_of_all_conflicts():
  # The first two objects conflict, and the last two; RoIs match them in turn.
  won = np.zeros((1, 4, 4), np.float32)
  won[0, 0, 1], won[0, 3, 2] = 900, 1
  matched = np.arange(16, dtype=np.int32)[None] % 4
  objects = SampledROIs(
    boxes=tf.ones([1, 16, 4]) * [0.0, 0.0, 8.0, 8.0],
    matched_boxes=tf.zeros([1, 16, 4]),
    classes=tf.ones([1, 16], tf.int32),
    matched_indices=tf.constant(matched),
  )
  pairs = occlusion_targets.predicted_pairs(
    tf.constant(won), objects, tf.zeros([1, 16, 2, 2]), number=8, side=2
  )
  assert set(pairs.targets[0].numpy()) == {0, 1}


def test_sizes_need_not_be_known_when_it_is_traced():
  function = tf.function(
    occlusion_targets.won_pixels,
    [tf.TensorSpec([None, 2, None, None]), tf.TensorSpec([None, 2], tf.int32),
     tf.TensorSpec([None, None, None], tf.int32)],
    autograph=False,
  )  # fmt: skip
  won = function(row([1, 1], [0, 1]), tf.constant([[1, 2]]), tf.constant([[[1, 2]]]))
  assert won.numpy().tolist() == [[[0, 0], [1, 0]]]


def test_without_any_conflict_there_is_no_pair():
  won = tf.zeros([2, 3, 3])
  given = {'gt_boxes': tf.fill([2, 3, 4], -1.0), 'gt_masks': tf.fill([2, 3, 4, 4], -1.0)}
  pairs = occlusion_targets.true_pairs(won, given, number=8, side=2)
  assert (pairs.targets.numpy() == NO_PAIR).all()
  assert np.isfinite(pairs.crops.first).all()


def test_joined_pairs_come_one_after_the_other():
  won = np.zeros((1, 2, 2), np.float32)
  won[0, 0, 1] = 1
  part = occlusion_targets.true_pairs(
    tf.constant(won), labels([[0, 0, 4, 4], [2, 2, 6, 6]]), number=8, side=2
  )
  both = occlusion_targets.joined([part, part])
  assert both.targets.numpy().tolist() == [[1, 1]]
  assert both.crops.boxes.shape == (1, 2, 4)
