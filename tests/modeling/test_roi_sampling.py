import numpy as np
import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st
from official.vision.configs import maskrcnn
from official.vision.modeling.layers import roi_sampler

from oanet_tf.modeling.roi_sampling import NOT_SAMPLED, ROISampler

TRUTH = np.array([[[0, 0, 10, 10], [20, 20, 40, 40], [-1, -1, -1, -1]]], np.float32)
CLASSES = np.array([[3, 1, -1]], np.int32)


def sample(proposals, gt_boxes=TRUTH, gt_classes=CLASSES, seed=0, crowds=(), **changes):
  proposals = np.asarray(proposals, np.float32)
  count = proposals.shape[1] + gt_boxes.shape[1]
  priorities = np.random.default_rng(seed).random((len(proposals), count), np.float32)
  crowds = np.concatenate([np.reshape(crowds, (-1, 4)), np.full((2, 4), -1)]).astype(np.float32)
  result = ROISampler(maskrcnn.ROISampler(**changes))(
    tf.constant(proposals),
    tf.constant(gt_boxes),
    tf.constant(gt_classes),
    tf.repeat(crowds[None], len(proposals), 0),
    tf.constant(priorities),
  )
  return type(result)(*(value.numpy() for value in result))


def as_rows(*values):
  """Each ROI with its targets as one tuple, in sorted order."""
  rows = np.column_stack([np.asarray(value, np.float32) for value in values])
  return sorted(map(tuple, rows.round(3).tolist()))


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
  np.testing.assert_array_equal(sampled.boxes, [[[0, 0, 10, 10]] * 4])


def test_padding_is_never_sampled():
  """Of 1,000 proposals and 100 empty places for objects, 512 were drawn alike, without objects."""
  rng = np.random.default_rng(0)
  corners = rng.uniform(0, 500, (1, 400, 2))
  proposals = np.concatenate([corners, corners + rng.uniform(1, 90, (1, 400, 2))], -1)
  proposals = np.concatenate([proposals, np.zeros((1, 600, 4))], 1)
  nothing = np.full((1, 100, 4), -1, np.float32), np.full((1, 100), -1, np.int32)
  sampled = sample(proposals, *nothing)
  is_box = (sampled.boxes[..., 2:] > sampled.boxes[..., :2]).all(-1)
  assert is_box.sum() == 400
  np.testing.assert_array_equal(sampled.classes, np.where(is_box, 0, NOT_SAMPLED))
  assert not sampled.boxes[~is_box].any()


def test_nothing_but_padding_samples_nothing():
  sampled = sample(np.full((1, 30, 4), -1), np.full((1, 3, 4), -1, np.float32), CLASSES * 0 - 1)
  assert (sampled.classes == NOT_SAMPLED).all() and (sampled.matched_indices == -1).all()


def test_objects_in_a_crowd_stay_and_its_background_is_ignored():
  """A crowd took 125 of 128 objects, and 403 of 512 places were padding, labelled background."""
  rng = np.random.default_rng(0)
  objects = np.array([[0, 0, 100, 100], [120, 50, 180, 120], [300, 300, 350, 360]], np.float32)
  near = np.repeat(objects, 60, 0) + rng.uniform(-5, 5, (180, 4))
  corners = rng.uniform(0, 400, (800, 2))
  anywhere = np.concatenate([corners, corners + rng.uniform(5, 90, (800, 2))], 1)
  proposals = np.concatenate([near, anywhere])[None]
  truth, classes = objects[None], np.array([[1, 2, 3]], np.int32)
  crowd = np.array([0, 0, 250, 250], np.float32)
  without = sample(proposals, truth, classes)
  sampled = sample(proposals, truth, classes, crowds=crowd)
  assert (without.classes > 0).sum() == 128 == (sampled.classes > 0).sum()
  np.testing.assert_array_equal(np.unique(sampled.classes[sampled.classes > 0]), [1, 2, 3])
  background = sampled.boxes[sampled.classes == 0]
  assert len(background) == 512 - 128
  shared = np.minimum(background[:, 2:], 250) - np.maximum(background[:, :2], 0)
  inside = shared.clip(0).prod(1) / (background[:, 2:] - background[:, :2]).prod(1)
  assert inside.max() < 0.5


def test_a_crowd_over_everything_leaves_places_empty():
  proposals = [[[0, 0, 10, 10], [0, 0, 5, 30], [50, 50, 60, 60]]]
  sampled = sample(proposals, crowds=[0, 0, 100, 100], num_sampled_rois=6)
  assert sorted(sampled.classes[0]) == [NOT_SAMPLED, NOT_SAMPLED, NOT_SAMPLED, 1, 3, 3]


def test_fewer_boxes_than_asked_for_gives_them_all():
  assert sample([[[0, 0, 10, 10]] * 5], num_sampled_rois=512).boxes.shape == (1, 8, 4)


def test_an_image_is_sampled_alike_in_any_batch():
  rng = np.random.default_rng(1)
  corners = rng.uniform(0, 40, (2, 30, 2))
  proposals = np.concatenate([corners, corners + rng.uniform(1, 20, (2, 30, 2))], -1)
  priorities = rng.random((2, 33), np.float32)
  truth = np.repeat(TRUTH, 2, 0), np.repeat(CLASSES, 2, 0)
  sampler = ROISampler(maskrcnn.ROISampler(num_sampled_rois=6))
  crowds = tf.fill([2, 1, 4], -1.0)
  arguments = [
    tf.cast(proposals, tf.float32), *map(tf.constant, truth), crowds, tf.constant(priorities)
  ]  # fmt: skip
  both = sampler(*arguments)
  for index in range(2):
    alone = sampler(*(value[index : index + 1] for value in arguments))
    for one, many in zip(alone, both, strict=True):
      np.testing.assert_array_equal(one[0], many[index])
  # And other numbers give another sample.
  arguments[-1] = 1.0 - arguments[-1]
  assert (sampler(*arguments).boxes.numpy() != both.boxes.numpy()).any()


@example(seed=247, num_truth=0, mix=False)  # An image without any proposal.
@given(seed=st.integers(0, 2**31), num_truth=st.integers(0, 4), mix=st.booleans())
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
    # The Model Garden samples padding as background.
    boxes = theirs[0][image].numpy()
    is_box = (boxes[:, 2:] > boxes[:, :2]).all(-1)
    expected = as_rows(*(value[image].numpy()[is_box] for value in theirs))
    found = as_rows(*(value[image][ours.classes[image] != NOT_SAMPLED] for value in ours))
    np.testing.assert_allclose(found, expected)
