import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from official.vision.ops import spatial_transform_ops

from oanet_tf.data.object_masks import sample_mask
from oanet_tf.modeling.mask_paste import paste_masks
from oanet_tf.modeling.mask_targets import covered_fractions, first_objects, mask_targets
from oanet_tf.modeling.roi_sampling import NOT_SAMPLED, SampledROIs

SIDE = 400


def disc():
  y, x = np.mgrid[:SIDE, :SIDE] + 0.5
  return np.hypot(y - SIDE / 2, x - SIDE / 2) < 0.3 * SIDE


def blob():
  y, x = np.mgrid[:SIDE, :SIDE] + 0.5 - SIDE / 2
  angle = np.arctan2(y, x)
  radius = 0.28 * SIDE * (1 + 0.2 * np.sin(3 * angle + 1) + 0.1 * np.cos(5 * angle))
  return np.hypot(y, x) < radius


def box_of(mask):
  rows, columns = np.nonzero(mask)
  return np.array([rows.min(), columns.min(), rows.max() + 1, columns.max() + 1], np.float32)


def stored(mask):
  """The 112 × 112 cells that the input pipeline keeps of a mask."""
  box = box_of(mask)
  y1, x1, y2, x2 = box.astype(int)
  png = tf.io.encode_png(mask[y1:y2, x1:x2, None].astype(np.uint8))
  return sample_mask(png, box, box, 112)


def iou(mask, other):
  return (mask & other).sum() / (mask | other).sum()


def pasted(target, roi):
  canvas = paste_masks(tf.cast(target, tf.float32)[None], tf.constant(roi)[None], SIDE, SIDE)
  return canvas[0].numpy() >= 0.5


@pytest.mark.parametrize('shape', [disc, blob])
@pytest.mark.parametrize(('larger', 'moved'), [(0.0, 0.0), (0.1, 0.0), (0.1, 0.05)])
def test_a_target_that_is_predicted_and_pasted_gives_the_mask(shape, larger, moved):
  mask = shape()
  box = box_of(mask)
  size = box[2:] - box[:2]
  roi = np.concatenate(
    [box[:2] - size * (larger / 2 - moved), box[2:] + size * (larger / 2 + moved)]
  )
  roi = roi.astype(np.float32)
  ours = covered_fractions(stored(mask)[None], box[None], roi[None], 28)[0]
  assert iou(pasted(ours, roi), mask) >= 0.985
  # The Model Garden's targets lie half a cell of the mask's 112 too far up and left.
  theirs = spatial_transform_ops.crop_mask_in_target_box(
    stored(mask)[None, None], box[None, None], roi[None, None], 28, sample_offset=0.5
  )
  assert iou(pasted(theirs[0, 0], roi), mask) < 0.975


def test_hand_worked_fractions():
  # The left column of a box of 4 × 4 pixels.
  mask = np.array([[[1, 0], [1, 0]]], np.float32)
  box = np.array([[0, 0, 4, 4]], np.float32)
  # A RoI from the middle of the box, 4 wide: its left cell has the columns 2 and 3, no mask.
  np.testing.assert_array_equal(
    covered_fractions(mask, box, box + np.float32([0, 2, 0, 2]), 2)[0], 0.0
  )
  # From 1 on: 1 of its left cell's 2 columns. From row 3 on: 1 of 2 rows.
  moved = covered_fractions(mask, box, box + np.float32([3, 1, 3, 1]), 2)[0]
  np.testing.assert_allclose(moved, [[0.25, 0.0], [0.0, 0.0]])
  # A RoI of one cell, larger than the box: 8 of 36 pixels.
  np.testing.assert_allclose(
    covered_fractions(mask, box, np.float32([[-1, -1, 5, 5]]), 1)[0], [[8 / 36]]
  )


@given(st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_areas_are_kept(seed):
  """A RoI that holds the box has the mask's area, whatever its size."""
  rng = np.random.default_rng(seed)
  mask = rng.integers(0, 2, (1, 7, 7)).astype(np.float32)
  corner, size = rng.uniform(0, 50, 2), rng.uniform(1, 60, 2)
  box = np.concatenate([corner, corner + size])
  roi = box + rng.uniform(0, 30, 4) * [-1, -1, 1, 1]
  target = covered_fractions(mask, np.float32(box[None]), np.float32(roi[None]), 28)[0].numpy()
  assert target.min() >= 0.0 and target.max() <= 1.0 + 1e-4
  area = target.mean() * np.prod(roi[2:] - roi[:2])
  assert area == pytest.approx(mask.mean() * np.prod(size), rel=1e-3)


@pytest.mark.parametrize('box', [[5, 5, 5, 5], [0, 0, 0, 0], [-1, -1, -1, -1], [90, 90, 99, 99]])
def test_nothing_is_0(box):
  mask = np.ones((1, 4, 4), np.float32)
  there = np.array([[10, 10, 30, 30]], np.float32)
  box = np.array([box], np.float32)
  assert not covered_fractions(mask, box, there, 28).numpy().any()
  assert not covered_fractions(mask, there, box, 28).numpy().any()


def test_the_first_objects_are_chosen():
  boxes = np.arange(20, dtype=np.float32).reshape(1, 5, 4)
  classes = np.array([[0, 3, NOT_SAMPLED, 1, 2]], np.int32)
  indices = np.array([[-1, 1, -1, 0, 1]], np.int32)
  sampled = SampledROIs(boxes, boxes + 100, classes, indices)
  two = first_objects(sampled, 2)
  np.testing.assert_array_equal(two.classes, [[3, 1]])
  np.testing.assert_array_equal(two.boxes, boxes[:, [1, 3]])
  np.testing.assert_array_equal(two.matched_indices, [[1, 0]])
  four = first_objects(sampled, 4)
  np.testing.assert_array_equal(four.classes[:, :3], [[3, 1, 2]])
  assert four.classes[0, 3] <= 0


def test_each_target_is_of_the_matched_mask():
  masks = np.stack([np.ones((4, 4)), np.tile([1, 1, 0, 0], (4, 1)), -np.ones((4, 4))])
  boxes = np.array([[[0, 0, 8, 8], [10, 10, 18, 18]]], np.float32)
  sampled = SampledROIs(boxes, boxes, np.array([[1, 2]], np.int32), np.array([[1, 0]], np.int32))
  targets = mask_targets(sampled, masks[None].astype(np.float32), 2)
  np.testing.assert_allclose(targets[0], [[[1, 0], [1, 0]], [[1, 1], [1, 1]]])
