import numpy as np
import pytest
import tensorflow as tf

from tests.modeling.fusion.given import GRASS, NUM_STUFF, NUM_THINGS, SKY, fuse, outputs

SIDE = 6
BOX = [0, 0, SIDE, 3]  # The left half.


def with_logits(things, stuff, masks, boxes=(BOX,), classes=(1,), scores=(0.9,)):
  """One image whose logits are the same everywhere; `masks` are logits of whole boxes."""
  given = outputs(boxes, classes, scores, side=SIDE)
  probabilities = tf.sigmoid(tf.constant(masks, tf.float32))
  logits = np.broadcast_to([*things, *stuff], (1, SIDE, SIDE, NUM_THINGS + NUM_STUFF))
  return {
    **given,
    'detection_masks': given['detection_masks'] * probabilities[None, :, None, None],
    'stuff_logits': tf.constant(logits, tf.float32),
  }


def halves(mask):
  """The one value in the left, and that in the right half."""
  (left,), (right,) = np.unique(mask[:, :3]), np.unique(mask[:, 3:])
  return left, right


@pytest.mark.parametrize(
  ('things', 'stuff', 'mask', 'expected'),
  [
    # In the box 4 + 1 = 5 against 4.5; outside of it unknown has 1 - 0.
    ([1, 0, 0], [4.5, 0], 4, (1, GRASS)),
    # 4 + 0.4 is not enough.
    ([0.4, 0, 0], [4.5, 0], 4, (GRASS, GRASS)),
    # A person without a detection outside of the box: unknown has 6 there, and 0 in the box.
    ([6, 0, 0], [4.5, 0], 4, (1, 0)),
    # The stuff branch sees a cup in the box: unknown has 9 - 1 against 4 + 1.
    ([1, 0, 9], [4.5, 0], 4, (0, 0)),
    ([0, 0, 0], [-1, 3], 2, (SKY, SKY)),
  ],
)
def test_the_largest_logit_wins(things, stuff, mask, expected):
  category, instance = fuse(with_logits(things, stuff, [mask]), 'upsnet', size=(SIDE, SIDE))
  assert halves(category) == expected
  assert halves(instance) == tuple(int(label == 1) for label in expected)


def test_of_two_instances_the_one_with_the_larger_sum_wins():
  given = with_logits([2, 4, 0], [0, 0], [3, 2], [BOX, BOX], [1, 2], [0.9, 0.8])
  category, instance = fuse(given, 'upsnet', size=(SIDE, SIDE))
  assert halves(category) == (2, 0) and halves(instance) == (2, 0)


@pytest.mark.parametrize(('thing', 'expected'), [(3, 0), (1, GRASS)])
def test_detections_under_the_threshold_bring_nothing_in(thing, expected):
  given = with_logits([thing, 0, 0], [2, 0], [9], scores=[0.3])
  category, instance = fuse(given, 'upsnet', size=(SIDE, SIDE))
  # Unknown has the thing's logit everywhere.
  assert halves(category) == (expected, expected) and not instance.any()


def test_small_stuff_becomes_void():
  given = with_logits([1, 0, 0], [4.5, 0], [4])
  category, _ = fuse(given, 'upsnet', size=(SIDE, SIDE), stuff_area_limit=SIDE * SIDE)
  assert halves(category) == (1, 0)


def test_certain_masks_are_finite():
  given = with_logits([1, 0, 0], [4.5, 0], [100])
  assert halves(fuse(given, 'upsnet', size=(SIDE, SIDE))[0]) == (1, GRASS)
