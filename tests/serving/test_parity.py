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
    [
      (first, results([1, 1, 3], [1, 1, 0], [0.5, 0.5])),
      (second, results([3, 3], [0, 0], [0.625])),
    ]
  )
  assert parity == Parity(2, 3 / 5, 0.25)


@pytest.mark.parametrize(
  ('parity', 'accepted'),
  [
    (Parity(1, 0.9, 0.5), True),
    (Parity(1, 0.89, 0.5), False),
    (Parity(1, 1.0, 0.6), False),
    (Parity(1, 1.0, float('nan')), False),
  ],
)
def test_what_is_accepted(parity, accepted):
  form = Format(None, None, least_same_pixels=0.9, largest_score_difference=0.5)
  assert form.accepts(parity) == accepted


def test_scores_that_are_no_numbers_do_not_hide():
  good, bad = results([1], [1], [0.5]), results([1], [1], [np.nan])
  assert np.isnan(parity_of([(good, good), (good, bad), (good, good)]).score_difference)


def test_a_saved_model_of_other_results_is_refused(served):
  trained = served.source.trained
  config = trained.config.replace()
  config.override({'task': {'model': {'fusion': {'score_threshold': 1.0}}}})
  source = served.source._replace(trained=trained._replace(config=config))
  parity = saved_model.compare(source, served.folder)
  assert parity.same_pixels < 1 and not saved_model.FORMAT.accepts(parity)
