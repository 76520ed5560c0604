import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given as hypothesis_given
from hypothesis import settings
from hypothesis import strategies as st

from oanet_tf.modeling.fusion import order
from oanet_tf.modeling.fusion.fuser import GroundTruth
from oanet_tf.modeling.fusion.merge import merge_order
from oanet_tf.modeling.occlusion_head import OcclusionHead
from tests.modeling.fusion.given import (
  NUM_THINGS,
  TIE_ON_PERSON,
  batch,
  fuse,
  ground_truth_of,
  outputs,
)

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


def scores_of_claims(claims):
  return order.order_of_claims(tf.constant(claims, tf.float32)).numpy()


def claims_of(number, *pairs):
  """[1, N, N] from (above, below, strength)."""
  claims = np.zeros((1, number, number))
  for above, below, strength in pairs:
    claims[0, above, below] = strength
  return claims


def test_a_chain_of_claims_is_an_order():
  # 2 on 0 on 3, and 1 has nothing to do with them.
  scores = scores_of_claims(claims_of(4, (2, 0, 0.1), (0, 3, 5.0)))
  np.testing.assert_allclose(scores, [[0.25, 0.0, 0.5, 0.0]])


def test_of_claims_in_a_circle_the_weakest_is_not_heard():
  claims = claims_of(3, (0, 1, 2.0), (1, 2, 3.0), (2, 0, 1.0))
  np.testing.assert_allclose(scores_of_claims(claims), [[2 / 3, 1 / 3, 0.0]])
  claims = claims_of(3, (0, 1, 2.0), (1, 2, 1.0), (2, 0, 3.0))
  np.testing.assert_allclose(scores_of_claims(claims), [[1 / 3, 0.0, 2 / 3]])


def test_equal_claims_in_a_circle_leave_the_order_of_the_detections():
  claims = claims_of(3, (0, 1, 1.0), (1, 2, 1.0), (2, 0, 1.0))
  assert len(set(scores_of_claims(claims)[0])) == 1


def test_a_weak_claim_is_heard_beside_a_circle_of_strong_ones():
  claims = claims_of(4, (0, 1, 5.0), (1, 2, 5.0), (2, 0, 5.0), (0, 3, 1.0))
  scores = scores_of_claims(claims)[0]
  assert scores[3] < scores[0] == scores[1] == scores[2]


def test_the_example_of_schulze():
  # Section 3.1: who wins against whom, of 45 votes; the ranking is E, A, C, B, D.
  wins = {'AC': 26, 'AD': 30, 'BA': 25, 'BD': 33, 'CB': 29, 'CE': 24, 'DC': 28, 'EA': 23,
          'EB': 27, 'ED': 31}  # fmt: skip
  numbers = {name: number for number, name in enumerate('ABCDE')}
  claims = claims_of(5, *((numbers[a], numbers[b], votes) for (a, b), votes in wins.items()))
  ranking = np.argsort(-scores_of_claims(claims)[0])
  assert ranking.tolist() == [numbers[name] for name in 'EACBD']


def test_each_image_has_an_order_of_its_own():
  claims = np.concatenate([claims_of(3, (0, 1, 1.0), (1, 2, 1.0)), claims_of(3, (2, 0, 1.0))])
  together = scores_of_claims(claims)
  for one, alone in zip(claims, together, strict=True):
    np.testing.assert_array_equal(scores_of_claims(one[None])[0], alone)


@hypothesis_given(st.data())
@settings(deadline=None, max_examples=40)
def test_claims_without_a_circle_are_all_heard(data):
  number = data.draw(st.integers(1, 9))
  ranks = np.array(data.draw(st.permutations(range(number))))
  heard = np.array(data.draw(st.lists(st.booleans(), min_size=number**2, max_size=number**2)))
  above = (ranks[:, None] < ranks[None]) & heard.reshape(number, number)
  scores = scores_of_claims((above * 0.5)[None])[0]
  assert (scores[:, None] > scores[None])[above].all()


def head_that_says(logits):
  """An occlusion head whose answer for a pair of classes is in a table."""

  class Head(OcclusionHead):
    def call(self, outputs, views):
      del views
      return tf.constant([logits], tf.float32)

  return Head(num_things=3)


def test_pairwise_puts_on_top_what_the_head_says():
  given = outputs(**TIE_ON_PERSON)
  for logit, number in ((-2.0, 15), (2.0, 0)):
    category, _ = fuse(given, 'pairwise', occlusion_head=head_that_says([logit]))
    # Where the person comes first, the tie is covered and dropped.
    assert (category == 2).sum() == number


def test_pairwise_asks_only_of_instances_that_overlap():
  given = outputs([[0, 0, 4, 4], [10, 10, 20, 20], [12, 12, 14, 14]], [1, 1, 2], [0.9, 0.8, 0.7])
  made = batch(given, occlusion_head=head_that_says([-3.0]))
  expected = np.zeros((1, 3, 3))
  expected[0, 2, 1] = 3.0
  np.testing.assert_array_equal(made.claims, expected)


@pytest.mark.parametrize(('width', 'asked'), [(10, True), (11, False)])
def test_of_two_masks_for_one_object_the_better_detection_lies_on_top(width, asked):
  """Of their union of 20 × 20 pixels they share half, or more than that."""
  given = outputs([[0, 0, 20, 20], [0, 0, 20, width], [0, 0, 2, 2]], [1, 2, 3], [0.9, 0.8, 0.7])
  # Where the first two are not asked of, the answers are of (0, 2) and (1, 2).
  head = head_that_says([-3.0, 1.0, 1.0] if asked else [1.0, 1.0])
  scores = order.pairwise_scores(batch(given, occlusion_head=head))
  np.testing.assert_allclose(scores, [[1 / 3, 2 / 3, 0]] if asked else [[2 / 3, 1 / 3, 0]])


def test_pairwise_of_instances_that_do_not_overlap_is_the_order_of_the_detections():
  given = outputs([[0, 0, 4, 4], [10, 10, 20, 20]], [1, 1], [0.9, 0.8])
  # The head is asked of an empty slot, and its answer does not count.
  scores = order.pairwise_scores(batch(given, occlusion_head=head_that_says([-3.0])))
  np.testing.assert_array_equal(scores, [[0.0, 0.0]])


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


# A person, a part of that person as a second detection, and a tie on the person's other half.
PART_OF_PERSON = {
  'boxes': [[0, 0, 20, 20], [0, 0, 8, 8], [12, 12, 16, 16]],
  'classes': [1, 1, 2],
  'scores': [0.9, 0.8, 0.7],
  'ranking': [0.3, 0.95, 0.9],
}


def test_a_part_leaves_no_hole_in_its_whole():
  _, instance = fuse(outputs(**PART_OF_PERSON), 'srm')
  assert (instance == 1).sum() == 400 - 16 and (instance == 3).sum() == 16
  # Eq. 3 by the letter lays the part first.
  _, instance = fuse(outputs(**PART_OF_PERSON), 'srm', ranking_pairs='all')
  assert (instance == 2).sum() == 64 and (instance == 1).sum() == 400 - 64 - 16


def lowered(**given):
  return order.ranking_scores(batch(outputs(**given))).numpy()[0]


def test_an_instance_has_at_most_the_score_of_the_better_ones_that_it_overlaps():
  # The part goes below the person, who stays below the tie.
  np.testing.assert_allclose(lowered(**PART_OF_PERSON), [0.3, 0.3, 0.9])
  apart = {**PART_OF_PERSON, 'boxes': [[0, 0, 20, 20], [24, 0, 32, 8], [12, 12, 16, 16]]}
  np.testing.assert_allclose(lowered(**apart), [0.3, 0.95, 0.9])
  other_category = {**PART_OF_PERSON, 'classes': [1, 3, 2]}
  np.testing.assert_allclose(lowered(**other_category), [0.3, 0.95, 0.9])
  dropped = {**PART_OF_PERSON, 'boxes': PART_OF_PERSON['boxes'][::-1], 'scores': [0.9, 0.8, 0.1]}
  np.testing.assert_allclose(lowered(**dropped), [0.3, 0.95, 0.9])


def test_a_chain_of_overlaps():
  boxes = [[0, 4 * n, 4, 4 * n + 6] for n in range(5)]
  given = {'boxes': boxes, 'classes': [2] * 5, 'scores': [0.9, 0.8, 0.7, 0.6, 0.5]}
  np.testing.assert_allclose(
    lowered(**given, ranking=[0.5, 0.7, 0.2, 0.6, 0.9]), [0.5, 0.5, 0.2, 0.2, 0.2]
  )


def test_one_instance_keeps_its_score():
  np.testing.assert_allclose(
    lowered(boxes=[[0, 0, 8, 8]], classes=[1], scores=[0.9], ranking=[0.4]), [0.4]
  )


@settings(max_examples=60)
@hypothesis_given(st.integers(0, 10**6), st.integers(0, 12), st.sampled_from([1, 2, 5, 100]))
def test_eq_3_between_categories_and_detection_scores_within_one(seed, number, num_values):
  rng = np.random.default_rng(seed)
  classes = tf.constant(rng.integers(0, 4, (2, number)))
  shared = rng.integers(0, 2, (2, number, number))
  shared = tf.constant(shared + shared.transpose(0, 2, 1), tf.float32)
  # Few values, so that many are equal.
  scores = rng.integers(0, num_values, (2, number)).astype(np.float32) / num_values
  found = order.below_better_ones(tf.constant(scores), classes, shared).numpy()
  places = np.argsort(merge_order(tf.constant(found), tf.ones_like(found) > 0), axis=1)
  for image in range(2):
    of_class = classes.numpy()[image]
    for j in range(number):
      better = (of_class[:j] == of_class[j]) & (shared.numpy()[image, :j, j] > 0)
      assert (places[image, :j][better] < places[image, j]).all()
      # No lower than that asks for.
      assert found[image, j] == min([scores[image, j], *found[image, :j][better]])


@settings(max_examples=30)
@hypothesis_given(st.integers(0, 10**6), st.integers(1, 12))
def test_eq_3_alone_where_each_category_has_one_instance(seed, number):
  rng = np.random.default_rng(seed)
  scores = tf.constant(rng.uniform(size=(1, number)), tf.float32)
  classes = tf.constant(rng.permutation(number)[None])
  found = order.below_better_ones(scores, classes, tf.ones([1, number, number]))
  np.testing.assert_array_equal(found, scores)
