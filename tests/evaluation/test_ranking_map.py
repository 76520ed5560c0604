import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oanet_tf.errors import InputError
from oanet_tf.evaluation import ranking_map


def test_the_most_probable_category():
  found = ranking_map.most_probable(np.array([[[0.6, 0.4], [0.25, 0.75], [0.5, 0.5]]], np.float32))
  np.testing.assert_array_equal(found.labels, [[1, 2, 1]])
  np.testing.assert_array_equal(found.probability, np.array([[0.6, 0.75, 0.5]], np.float32))


@given(st.integers(1, 600), st.integers(0, 2**32 - 1))
def test_coded_and_decoded(num_things, seed):
  rng = np.random.default_rng(seed)
  labels = rng.integers(1, num_things + 1, [2, 3])
  probability = rng.uniform(size=[2, 3]).astype(np.float32)
  coded = ranking_map.encode(ranking_map.RankingMap(labels, probability))
  assert coded.shape == (2, 3, 3) and coded.dtype == np.uint8
  found = ranking_map.decode(coded, num_things, 'map')
  np.testing.assert_array_equal(found.labels, labels)
  np.testing.assert_allclose(found.probability, probability, atol=1 / 509)


@pytest.mark.parametrize('label', [0, 3, 257])
def test_a_label_that_the_dataset_does_not_have(label):
  coded = ranking_map.encode(ranking_map.RankingMap(np.array([[label]]), np.array([[0.5]])))
  with pytest.raises(InputError, match=r'one\.png: .*\[1, 2\]'):
    ranking_map.decode(coded, 2, 'one.png')


def test_no_cell():
  found = ranking_map.decode(np.zeros([0, 4, 3], np.uint8), 2, 'map')
  assert found.labels.shape == found.probability.shape == (0, 4)
