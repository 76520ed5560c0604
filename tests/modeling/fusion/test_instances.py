import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from oanet_tf.modeling import spatial_ranking
from oanet_tf.modeling.fusion import methods
from oanet_tf.modeling.fusion.instances import mask_overlap, suppress
from tests.modeling.fusion.given import batch, fuse, outputs

PRIOR = np.full((3, 3), 0.5, np.float32)


def strip(*spans, length=12):
  """[1, N, 1, length] masks, each of the pixels from its first to its last."""
  masks = np.zeros((1, len(spans), 1, length), np.float32)
  for index, (first, last) in enumerate(spans):
    masks[0, index, 0, first:last] = 1.0
  return tf.constant(masks)


def kept_of(masks, threshold, kept=None):
  kept = np.ones(masks.shape[:2], bool) if kept is None else np.array([kept])
  return suppress(masks, tf.constant(kept), threshold).numpy()[0].tolist()


def test_intersection_over_union():
  overlap = mask_overlap(strip((0, 4), (2, 6), (6, 12), (0, 0)))[0].numpy()
  np.testing.assert_allclose(overlap[0], [1, 2 / 6, 0, 0], atol=1e-6)
  np.testing.assert_array_equal(overlap, overlap.T)
  assert overlap[3, 3] == 0


def test_what_a_dropped_one_overlaps_stays():
  # Each shares 2/3 with the next, and 3/7 with the one after that.
  masks = strip((0, 5), (1, 6), (2, 7), (3, 8))
  assert kept_of(masks, 0.5) == [True, False, True, False]
  assert kept_of(masks, 0.4) == [True, False, False, True]
  assert kept_of(masks, 2 / 3 + 1e-6) == [True] * 4


def test_those_that_do_not_count_drop_nothing():
  masks = strip((0, 5), (1, 6), (0, 5))
  assert kept_of(masks, 0.5, [False, True, True]) == [False, True, False]
  assert kept_of(masks, 0.5, [False] * 3) == [False] * 3


def test_no_detection_equal_masks_and_empty_ones():
  assert kept_of(strip(), 0.5) == []
  assert kept_of(strip(*[(2, 9)] * 5), 0.0) == [True] + [False] * 4
  assert kept_of(strip(*[(2, 9)] * 5), 1.0) == [True] * 5
  assert kept_of(strip((3, 3), (3, 3)), 0.0) == [True, True]


def greedy(masks, kept, threshold):
  """One image, one detection after the other."""
  left = []
  for index in np.flatnonzero(kept):
    union = [(masks[index] | masks[other]).sum() for other in left]
    shared = [(masks[index] & masks[other]).sum() for other in left]
    if not any(u and s / u > threshold for s, u in zip(shared, union, strict=True)):
      left.append(index)
  return [index in left for index in range(len(masks))]


@given(st.integers(0, 2**31), st.integers(1, 12), st.sampled_from([0.03, 0.21, 0.47, 0.83]))
@settings(max_examples=20, deadline=None)
def test_equals_one_after_the_other(seed, number, threshold):
  rng = np.random.default_rng(seed)
  masks = rng.random((2, number, 3, 4)) < rng.uniform(0.2, 0.9, (2, number, 1, 1))
  kept = rng.random((2, number)) < 0.8
  found = suppress(tf.constant(masks, tf.float32), tf.constant(kept), threshold).numpy()
  for image in range(2):
    assert found[image].tolist() == greedy(masks[image], kept[image], threshold)


# A table (1) that is taken for a bed (2) too, by a mask that shares 80 % with it; a cup (3) on it.
TWICE = outputs(
  [[0, 0, 20, 20], [0, 4, 20, 20], [5, 5, 10, 10]], [1, 2, 3], [0.9, 0.8, 0.7], [0.2, 0.5, 0.6]
)


@pytest.mark.parametrize('method', ['heuristic', 'srm', 'class_prior', 'upsnet'])
def test_every_fusion_sees_the_same(method):
  options = {'method': method, 'class_prior': PRIOR, 'overlap_threshold': 1.0}
  alone = outputs(
    [[0, 0, 20, 20], [0, 0, 0, 0], [5, 5, 10, 10]], [1, 2, 3], [0.9, 0.0, 0.7], [0.2, 0.5, 0.6]
  )
  for found, expected in zip(
    fuse(TWICE, suppression_threshold=0.75, **options), fuse(alone, **options), strict=True
  ):
    np.testing.assert_array_equal(found, expected)
  assert (fuse(TWICE, suppression_threshold=0.75, **options)[0] == 1).sum() >= 400 - 25


def test_nothing_is_suppressed_unless_told():
  category, _ = fuse(TWICE, method='srm')
  assert (category == 2).sum() == 16 * 20 - 25
  np.testing.assert_array_equal(fuse(TWICE, method='srm', suppression_threshold=0.81)[0], category)


def test_the_ranking_module_does_not_see_the_suppressed_either():
  module = spatial_ranking.SpatialRankingModule(num_things=3)

  def rank(threshold, given):
    instances = batch(given, suppression_threshold=threshold).instances
    return spatial_ranking.rank(module, instances.canvas_masks, instances.classes)

  alone = {**TWICE, 'detection_scores': tf.constant([[0.9, 0.0, 0.7]])}
  found, expected = rank(0.75, TWICE), rank(1.0, alone)
  np.testing.assert_allclose(found.map, expected.map, atol=1e-6)
  assert found.scores[0, 1] == 0.0 < found.scores[0, 0]
  assert (rank(1.0, TWICE).map.numpy() != found.map.numpy()).any()


def test_it_costs_nothing_when_off():
  """Nothing is pasted for it: the graph has no such operation."""

  def operations(threshold):
    function = tf.function(
      lambda: methods.fuse(batch(TWICE, suppression_threshold=threshold), 'heuristic'),
      autograph=False,
    )
    graph = function.get_concrete_function().graph
    return [operation.type for operation in graph.get_operations()]

  assert operations(0.9).count('DivNoNan') == operations(1.0).count('DivNoNan') + 3
