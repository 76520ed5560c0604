import numpy as np
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from official.vision.configs import maskrcnn
from official.vision.modeling.layers import roi_sampler

from oanet_tf.modeling.roi_sampling import ROISampler

TRUTH = np.array([[[0, 0, 10, 10], [20, 20, 40, 40], [-1, -1, -1, -1]]], np.float32)
CLASSES = np.array([[3, 1, -1]], np.int32)


def sample(proposals, gt_boxes=TRUTH, gt_classes=CLASSES, seed=0, **changes):
  proposals = np.asarray(proposals, np.float32)
  count = proposals.shape[1] + gt_boxes.shape[1]
  priorities = np.random.default_rng(seed).random((len(proposals), count), np.float32)
  result = ROISampler(maskrcnn.ROISampler(**changes))(
    tf.constant(proposals), tf.constant(gt_boxes), tf.constant(gt_classes), tf.constant(priorities)
  )
  return type(result)(*(value.numpy() for value in result))


def as_rows(*values):
  """Each ROI with its targets as one tuple, in sorted order."""
  columns = [np.asarray(value, np.float32).reshape(len(value), -1) for value in values]
  return sorted(map(tuple, np.concatenate(columns, axis=1).round(3).tolist()))


def test_targets_of_hand_worked_boxes():
  # IoU 0.8 with the first box; 0.5 with the second; 0.2 with the first; none.
  proposals = [[[0, 0, 10, 8], [20, 20, 40, 30], [0, 0, 2, 10], [50, 50, 60, 60]]]
  sampled = sample(proposals, mix_gt_boxes=False, num_sampled_rois=4, foreground_fraction=1.0)
  found = {tuple(box): index for index, box in enumerate(sampled.boxes[0].tolist())}
  order = [found[tuple(map(float, box))] for box in proposals[0]]
  np.testing.assert_array_equal(sampled.classes[0][order], [3, 1, 0, 0])
  np.testing.assert_array_equal(sampled.matched_indices[0][order], [0, 1, -1, -1])
  np.testing.assert_array_equal(
    sampled.matched_boxes[0][order], [TRUTH[0, 0], TRUTH[0, 1], [0] * 4, [0] * 4]
  )


def test_objects_are_at_most_their_fraction_and_background_fills_up():
  proposals = [[[0, 0, 10, 10]] * 10 + [[50, 50, 60, 60]] * 10 + [[-1] * 4] * 10]
  sampled = sample(proposals, num_sampled_rois=8, foreground_fraction=0.25)
  assert (sampled.classes > 0).sum() == 2
  # The background is all proposals, no padding.
  assert (sampled.boxes.max(-1) >= 0).all()


def test_without_enough_background_spare_objects_come_before_padding():
  proposals = [[[0, 0, 10, 10]] * 6 + [[50, 50, 60, 60]] + [[-1] * 4] * 10]
  sampled = sample(proposals, num_sampled_rois=8, foreground_fraction=0.25)
  assert (sampled.classes > 0).sum() == 7 and (sampled.boxes.max(-1) >= 0).all()


def test_an_image_without_truth_gives_background_alone():
  nothing = np.full((1, 3, 4), -1, np.float32), np.full((1, 3), -1, np.int32)
  sampled = sample([[[0, 0, 10, 10]] * 5], *nothing, num_sampled_rois=4)
  assert not sampled.classes.any() and not sampled.matched_boxes.any()
  assert (sampled.matched_indices == -1).all()


def test_fewer_boxes_than_asked_for_gives_them_all():
  assert sample([[[0, 0, 10, 10]] * 5], num_sampled_rois=512).boxes.shape == (1, 8, 4)


def test_an_image_is_sampled_alike_in_any_batch():
  rng = np.random.default_rng(1)
  corners = rng.uniform(0, 40, (2, 30, 2))
  proposals = np.concatenate([corners, corners + rng.uniform(1, 20, (2, 30, 2))], -1)
  priorities = rng.random((2, 33), np.float32)
  truth = np.repeat(TRUTH, 2, 0), np.repeat(CLASSES, 2, 0)
  sampler = ROISampler(maskrcnn.ROISampler(num_sampled_rois=6))
  arguments = [tf.cast(proposals, tf.float32), *map(tf.constant, truth), tf.constant(priorities)]
  both = sampler(*arguments)
  for index in range(2):
    alone = sampler(*(value[index : index + 1] for value in arguments))
    for one, many in zip(alone, both, strict=True):
      np.testing.assert_array_equal(one[0], many[index])
  # And other numbers give another sample.
  arguments[-1] = 1.0 - arguments[-1]
  assert (sampler(*arguments).boxes.numpy() != both.boxes.numpy()).any()


@given(st.integers(0, 2**31), st.integers(0, 4), st.booleans())
@settings(max_examples=15, deadline=None)
def test_equals_the_model_gardens_where_nothing_is_left_to_chance(seed, num_truth, mix):
  rng = np.random.default_rng(seed)
  truth = np.full((2, 5, 4), -1, np.float32)
  classes = np.full((2, 5), -1, np.int32)
  for image in range(2):
    corner = rng.uniform(0, 60, (num_truth, 2))
    truth[image, :num_truth] = np.concatenate(
      [corner, corner + rng.uniform(4, 30, (num_truth, 2))], 1
    )
    classes[image, :num_truth] = rng.integers(1, 9, num_truth)
  near = np.repeat(np.maximum(truth, 0), 3, 1) + rng.uniform(-4, 4, (2, 15, 4))
  proposals = np.clip(np.concatenate([near, rng.uniform(0, 90, (2, 5, 4))], 1), 0, 100)
  proposals = np.concatenate(
    [np.minimum(proposals[..., :2], proposals[..., 2:]), proposals[..., 2:]], -1
  ).astype(np.float32)
  # Everything is sampled: the sets must be equal.
  everything = 20 + 5 * mix
  changes = {'mix_gt_boxes': mix, 'num_sampled_rois': everything, 'foreground_fraction': 1.0}
  ours = sample(proposals, truth, classes, seed, **changes)
  options = maskrcnn.ROISampler(**changes).as_dict()
  del options['cascade_iou_thresholds']
  theirs = roi_sampler.ROISampler(**options)(
    tf.constant(proposals), tf.constant(truth), tf.constant(classes)
  )
  for image in range(2):
    expected = as_rows(*(value[image].numpy() for value in theirs))
    np.testing.assert_allclose(as_rows(*(value[image] for value in ours)), expected)
