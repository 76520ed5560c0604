import numpy as np
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from oanet_tf.modeling import occlusion_targets
from oanet_tf.modeling.fusion import order
from oanet_tf.modeling.fusion.true_order import matched_segments, won_pixels
from tests.modeling.fusion.given import batch, ground_truth_of, outputs

# The first mask reaches over both segments, 5 and 3, and a pixel of none.
SEGMENTS = tf.constant([[5, 5, 3, 3, 0]])
MASKS = tf.constant([[[0, 1, 1, 1, 1], [1, 1, 1, 0, 0]]], tf.float32)


def test_an_instance_is_matched_to_the_segment_of_its_category_that_it_covers_most_of():
  numbers = tf.constant([[3, 5, -1]])
  for classes, of_segments, matched in (
    ([1, 1], [1, 1, -1], [3, 5]),
    ([1, 2], [2, 1, -1], [5, 3]),
    ([1, 2], [3, 3, -1], [0, 0]),
    # Padding of detections and of segments is no category.
    ([-1, 0], [1, 1, -1], [0, 0]),
  ):
    found = matched_segments(
      MASKS, tf.constant([classes]), SEGMENTS, numbers, tf.constant([of_segments])
    )
    assert found.numpy().tolist() == [matched]


def test_won_pixels_are_shared_and_of_the_own_segment():
  won = won_pixels(MASKS, tf.constant([[3, 5]]), SEGMENTS)
  assert won.numpy().tolist() == [[[0, 1], [1, 0]]]
  # Nothing is of no segment, and two instances of one segment dispute nothing.
  assert won_pixels(MASKS, tf.constant([[0, -1]]), SEGMENTS).numpy().max() == 0
  assert won_pixels(MASKS, tf.constant([[3, 3]]), SEGMENTS).numpy().max() == 0


# Two of (class, y1, x1, y2, x2).
THINGS = st.lists(
  st.builds(
    lambda category, y, x, height, width: (category, y, x, y + height, x + width),
    st.integers(1, 2),
    *[st.integers(0, 6)] * 2,
    *[st.integers(8, 16)] * 2,
  ),
  min_size=2,
  max_size=2,
)


@given(detections=THINGS, truth=THINGS)
@settings(deadline=None, max_examples=60)
def test_the_target_of_two_detections_is_what_the_oracle_says(detections, truth):
  classes, *corners = zip(*detections, strict=True)
  boxes = np.transpose(corners)
  made = batch(outputs(boxes, classes, [0.9, 0.8]), ground_truth=ground_truth_of(*truth))
  labels = {
    'segment_map': made.ground_truth.segments,
    'gt_segments': tf.constant([[1, 2]]),
    'gt_classes': tf.constant([[category for category, *_ in truth]]),
    'crowd_boxes': tf.fill([1, 1, 4], -1.0),
  }
  targets = occlusion_targets.detected_pairs(made.instances, labels, 1, side=2).targets
  target = targets.numpy()[0, 0]
  in_dispute = target != occlusion_targets.NO_PAIR
  score = order.true_scores(made).numpy()[0, 0]
  np.testing.assert_allclose(score, target if in_dispute else 0.5, rtol=1e-6)
