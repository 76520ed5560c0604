import numpy as np
import pytest
import tensorflow as tf
from official.vision.ops import anchor

from oanet_tf.config import experiments
from oanet_tf.data import anchor_targets

CANVAS = [96, 160]
NO_CROWD = tf.zeros([0, 4])


def label(labeler, boxes, crowds=NO_CROWD, seed=0):
  """Labels of one image, as the losses take them."""
  samples, matches = labeler(boxes, crowds, tf.constant([0, seed], tf.int64))
  anchors = {
    level: tf.constant(grid.reshape(*grid.shape[:2], -1)) for level, grid in labeler._grids.items()
  }
  padded = tf.pad(boxes, [[0, 1], [0, 0]], constant_values=-1.0)
  targets = anchor_targets.rpn_targets(samples[None], matches[None], padded[None], anchors)
  return tuple({level: part[0] for level, part in by_level.items()} for by_level in targets)


def make(**changes):
  task = experiments.load_experiment('oanet_r50fpn_coco').task
  task.train_data.override({'rpn_batch_size_per_im': 100_000, 'rpn_fg_fraction': 1.0, **changes})
  return anchor_targets.AnchorLabeler(task.train_data, task.model, CANVAS), task


def reference(boxes, task):
  """The Model Garden's labels, of all anchors: its sampling has room for each."""
  anchors = anchor.build_anchor_generator(2, 6, 1, [0.5, 1.0, 2.0], task.model.anchor.anchor_size)
  labeler = anchor.RpnAnchorLabeler(
    task.train_data.rpn_match_threshold, task.train_data.rpn_unmatched_threshold, 100_000, 1.0
  )
  return labeler.label_anchors(anchors(CANVAS), boxes, tf.ones([len(boxes), 1]))


def random_boxes(seed, count):
  rng = np.random.default_rng(seed)
  sizes = np.exp(rng.uniform(np.log(3), np.log(90), (count, 2)))
  corners = rng.uniform(0, 1, (count, 2)) * (np.array(CANVAS) - sizes).clip(0)
  ends = np.minimum(corners + sizes, CANVAS)
  return tf.constant(np.concatenate([corners, ends], axis=1), tf.float32)


def flat(by_level, last):
  return np.concatenate([part.numpy().reshape(-1, last) for part in by_level.values()])


@pytest.mark.parametrize('count', [1, 2, 7, 40])
@pytest.mark.parametrize('seed', range(5))
def test_equals_the_model_gardens(seed, count):
  labeler, task = make()
  boxes = random_boxes(seed, count)
  scores, targets = label(labeler, boxes, seed=seed)
  expected_scores, expected_targets = reference(boxes, task)
  scores, expected_scores = flat(scores, 1)[:, 0], flat(expected_scores, 1)[:, 0]
  targets, expected_targets = flat(targets, 4), flat(expected_targets, 4)
  # Of anchors that overlap a box equally, to rounding, any may be its best.
  overlaps = anchor_targets.overlap(tf.constant(labeler._boxes), boxes).numpy()
  tied = (overlaps > overlaps.max(axis=0) - 1e-6).any(axis=1)
  assert tied.mean() < 0.3
  np.testing.assert_array_equal(scores[~tied], expected_scores[~tied])
  np.testing.assert_allclose(targets[~tied], expected_targets[~tied], atol=1e-5)
  for box in range(count):
    best = overlaps[:, box] > overlaps[:, box].max() - 1e-6
    assert (scores[best] == 1).any() and (expected_scores[best] == 1).any()
    if best.sum() == 1:
      np.testing.assert_allclose(targets[best], expected_targets[best], atol=1e-5)


def test_no_box():
  labeler, _ = make(rpn_batch_size_per_im=32)
  scores, targets = label(labeler, tf.zeros([0, 4]), seed=1)
  values = np.concatenate([part.numpy().ravel() for part in scores.values()])
  assert (values == 0).sum() == 32 and (values == 1).sum() == 0
  assert not any(part.numpy().any() for part in targets.values())


def test_samples_at_most_the_share_of_objects_and_fills_up_with_background():
  labeler, _ = make(rpn_batch_size_per_im=20, rpn_fg_fraction=0.25)
  boxes = tf.constant([[10.0, 10, 42, 42], [40.0, 60, 90, 120]])
  chosen = []
  for seed in range(4):
    scores, _ = label(labeler, boxes, seed=seed)
    values = np.concatenate([part.numpy().ravel() for part in scores.values()])
    assert 1 <= (values == 1).sum() <= 5 and (values >= 0).sum() == 20
    chosen.append(tuple(np.flatnonzero(values == 0)))
  assert len(set(chosen)) == 4


def test_every_box_has_an_anchor_however_odd():
  labeler, _ = make()
  odd = tf.constant([[0.0, 0, 1, 160], [50.0, 50, 51, 51], [0.0, 0, 96, 160]])
  scores, targets = label(labeler, odd, seed=0)
  assert sum((part.numpy() == 1).sum() for part in scores.values()) >= 3
  assert all(np.isfinite(part.numpy()).all() for part in targets.values())


def test_anchors_in_a_crowd_are_ignored():
  labeler, _ = make()
  crowd = tf.constant([[0.0, 0, 96, 80]])
  scores, _ = label(labeler, tf.zeros([0, 4]), crowd)
  finest = scores['2'].numpy()  # [24, 40, 3], a location every 4 pixels.
  assert (finest[6:18, 6:14] == -1).all() and (finest[6:18, 26:34] == 0).all()


def test_within_crowd():
  boxes = tf.constant([[0, 0, 10, 10], [0, 0, 10, 4], [0, 6, 10, 8], [-1, -1, -1, -1.0]])
  crowds = tf.constant([[0, 5, 10, 20], [-1, -1, -1, -1.0]])
  inside = anchor_targets.within_crowd(boxes, crowds)
  np.testing.assert_array_equal(inside, [True, False, True, False])
  assert not anchor_targets.within_crowd(boxes, crowds[:0]).numpy().any()
