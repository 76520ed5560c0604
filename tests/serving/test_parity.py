import numpy as np
import pytest

from oanet_tf.serving import saved_model
from oanet_tf.serving.parity import Format, Parity, Results, parity_of


def results(categories, instances, scores):
  return Results(np.array([categories]), np.array([instances]), np.float32(scores))


def test_parity_counts_pixels_and_takes_the_largest_difference():
  """Of 5 pixels of two images one has another category, one another instance."""
  first = results([1, 1, 2], [1, 2, 0], [0.75, 0.5])
  second = results([3, 3], [0, 0], [0.5])
  parity = parity_of(
    ['a', 'b'],
    [
      (first, results([1, 1, 3], [1, 1, 0], [0.5, 0.5])),
      (second, results([3, 3], [0, 0], [0.875])),
    ],
  )
  assert parity == Parity(2, 5, 2, 'a', 0.375, 'b')
  assert parity.same_pixels == 3 / 5


@pytest.mark.parametrize(
  ('different', 'score_difference', 'objection'),
  [
    (10, 0.5, None),
    (11, 0.5, '11 of 100 pixels differ, most of them in a.png (at most 10.00% may)'),
    (0, 0.6, 'a score differs by 0.6 in b.png (at most 0.5)'),
    (0, float('nan'), 'a score differs by nan in b.png (at most 0.5)'),
    (
      100,
      0.7,
      '100 of 100 pixels differ, most of them in a.png (at most 10.00% may), and a score differs '
      'by 0.7 in b.png (at most 0.5)',
    ),
  ],
)
def test_what_is_accepted(different, score_difference, objection):
  form = Format(None, None, least_same_pixels=0.9, largest_score_difference=0.5)
  parity = Parity(1, 100, different, 'a.png', score_difference, 'b.png')
  assert form.objection(parity) == objection


def test_two_logits_that_are_equal_are_no_other_network():
  """One pixel of real photos may be of another category, as another graph rounds otherwise."""
  one = results(np.ones(20_000), np.zeros(20_000), [0.5])
  other_pixel = one._replace(category_mask=one.category_mask + np.eye(1, 20_000, 7))
  objection = saved_model.FORMAT.objection
  assert objection(parity_of('a', [(one, other_pixel)])) is None
  assert objection(parity_of('a', [(one, one._replace(scores=one.scores + 2e-5))])) is None
  others = one._replace(category_mask=one.category_mask + (np.arange(20_000) < 3))
  assert objection(parity_of('ab', [(one, one), (one, others)])) is None
  told = '3 of 20000 pixels differ, most of them in a (at most 0.01% may)'
  assert objection(parity_of('a', [(one, others)])) == told


def test_scores_that_are_no_numbers_do_not_hide():
  good, bad = results([1], [1], [0.5]), results([1], [1], [np.nan])
  parity = parity_of('abc', [(good, good), (good, bad), (good, good)])
  assert np.isnan(parity.score_difference) and parity.image_of_score == 'b'


@pytest.mark.slow
def test_a_saved_model_of_other_results_is_refused(served):
  trained = served.source.trained
  config = trained.config.replace()
  config.override({'task': {'model': {'fusion': {'score_threshold': 1.0}}}})
  source = served.source._replace(trained=trained._replace(config=config))
  parity = saved_model.compare(source, served.folder)
  assert parity.different_pixels and saved_model.FORMAT.objection(parity)
