import numpy as np
import pytest
import tensorflow as tf

from oanet_tf.modeling.fusion import order
from oanet_tf.modeling.fusion.fuser import GroundTruth
from tests.modeling.fusion.given import NUM_THINGS, TIE_ON_PERSON, batch, fuse, outputs

# Of two categories that both cover a pixel, person (1), tie (2) or cup (3), who has it.
CLASS_PRIOR = np.array([[0.5, 0.1, 0.3], [0.9, 0.5, 0.5], [0.7, 0.5, 0.5]], np.float32)


def test_class_prior_score_is_the_mean_over_what_is_shared():
  # A person of 20 × 20 shares 15 pixels with a tie and 40 with a cup, a second tie is by itself.
  given = outputs(
    [[0, 0, 20, 20], [5, 5, 10, 8], [16, 10, 24, 20], [28, 28, 32, 32]],
    [1, 2, 3, 2],
    [0.9, 0.8, 0.7, 0.6],
  )
  scores = order.class_prior_scores(batch(given, class_prior=CLASS_PRIOR))
  person = (15 * 0.1 + 40 * 0.3) / 55
  np.testing.assert_allclose(scores, [[person, 0.9, 0.7, 0.5]], rtol=1e-5)


def test_class_prior_leaves_out_what_is_not_kept():
  given = outputs([[0, 0, 20, 20], [5, 5, 10, 8]], [1, 2], [0.9, 0.2])
  scores = order.class_prior_scores(batch(given, class_prior=CLASS_PRIOR))
  np.testing.assert_allclose(scores, [[0.5, 0.5]])


def test_class_prior_of_one_category_keeps_the_detection_scores_order():
  given = outputs([[0, 0, 10, 10], [0, 5, 10, 15]], [1, 1], [0.9, 0.8])
  _, instance = fuse(given, 'class_prior', class_prior=CLASS_PRIOR)
  assert (instance == 1).sum() == 100 and (instance == 2).sum() == 50


def test_class_prior_puts_the_tie_on_the_person():
  category, _ = fuse(outputs(**TIE_ON_PERSON), 'class_prior', class_prior=CLASS_PRIOR)
  assert (category == 2).sum() == 15 and (category == 1).sum() == 400 - 15


@pytest.mark.parametrize('method', ['class_prior', 'oracle', 'srm', 'upsnet'])
def test_no_detection_gives_stuff_alone(method):
  nothing = tf.zeros([1, 32, 32], tf.int32)
  options = {'class_prior': CLASS_PRIOR, 'ground_truth': GroundTruth(nothing, nothing)}
  category, instance = fuse(outputs([], [], []), method, **options)
  assert (category == NUM_THINGS + 1).all() and not instance.any()


def ground_truth_of(*segments, side=32):
  """Rectangles `(label, y1, x1, y2, x2)`, the later ones on top."""
  number, labels = np.zeros((2, 1, side, side), np.int32)
  for k, (label, y1, x1, y2, x2) in enumerate(segments, start=1):
    number[0, y1:y2, x1:x2], labels[0, y1:y2, x1:x2] = k, label
  return GroundTruth(tf.constant(number), tf.constant(labels))


def test_true_score_is_the_share_of_what_is_disputed():
  given = outputs(
    # A person with a tie of 2 × 2; a second person's detection, mostly on the first; a cup that
    # is none.
    [[0, 0, 10, 10], [0, 4, 10, 14], [2, 2, 4, 4], [0, 12, 10, 14]],
    [1, 1, 2, 3],
    [0.9, 0.8, 0.7, 0.6],
  )
  truth = ground_truth_of((1, 0, 0, 10, 10), (1, 0, 10, 10, 20), (2, 2, 2, 4, 3), (4, 2, 3, 3, 4))
  scores = order.true_scores(batch(given, ground_truth=truth))
  # Of the tie's pixels 2 are of its segment, 1 is the person's, and 1 is nobody's. Both persons'
  # detections are taken for the first, so they dispute nothing; of what the cup covers nothing is
  # of that segment.
  np.testing.assert_allclose(scores, [[1 / 3, 0.5, 2 / 3, 0.5]], rtol=1e-5)


def test_an_instance_without_a_segment_loses_what_it_covers():
  given = outputs([[0, 0, 8, 8], [0, 0, 20, 20]], [3, 1], [0.9, 0.8])
  scores = order.true_scores(batch(given, ground_truth=ground_truth_of((1, 0, 0, 20, 20))))
  np.testing.assert_array_equal(scores, [[0, 1]])


def test_oracle_puts_the_tie_on_the_person():
  truth = ground_truth_of((1, 0, 0, 20, 20), (2, 5, 5, 10, 8))
  category, _ = fuse(outputs(**TIE_ON_PERSON), 'oracle', ground_truth=truth)
  assert (category == 2).sum() == 15 and (category == 1).sum() == 400 - 15


def test_a_truth_that_is_void():
  truth = GroundTruth(*tf.zeros([2, 1, 32, 32], tf.int32))
  scores = order.true_scores(batch(outputs(**TIE_ON_PERSON), ground_truth=truth))
  np.testing.assert_array_equal(scores, [[0.5, 0.5]])


def test_every_image_of_a_batch_is_scored_by_itself():
  first = outputs(**TIE_ON_PERSON)
  second = outputs([[0, 0, 8, 8], [2, 2, 30, 30]], [3, 1], [0.8, 0.7])
  truths = (
    ground_truth_of((1, 0, 0, 20, 20)),
    ground_truth_of((3, 0, 0, 8, 8), (2, 0, 9, 9, 20), (1, 9, 9, 30, 30)),
  )
  both = {key: tf.concat([first[key], second[key]], axis=0) for key in first}
  truth = GroundTruth(*(tf.concat(parts, axis=0) for parts in zip(*truths, strict=True)))
  info = tf.repeat(batch(first).canvas.image_info, 2, axis=0)
  joint = batch(both, info=info, class_prior=CLASS_PRIOR, ground_truth=truth)
  for score in (order.class_prior_scores, order.true_scores):
    alone = [
      score(batch(given, class_prior=CLASS_PRIOR, ground_truth=t))[0]
      for given, t in zip((first, second), truths, strict=True)
    ]
    np.testing.assert_allclose(score(joint), alone, rtol=1e-5)
