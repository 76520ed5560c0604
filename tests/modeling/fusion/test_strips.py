"""Maps in strips are, to the bit, those at once."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from oanet_tf.modeling.fusion import strips
from oanet_tf.modeling.fusion.strips import MAP, by_strips, shape_of


def run(maps, most_pixels, monkeypatch):
  """What a function of two maps gives in strips; the numbers of rows; the sums of the strips."""
  monkeypatch.setattr(strips, '_STRIP_PIXELS', most_pixels)

  @tf.function(input_signature=[MAP, MAP], autograph=False)
  def function(first, second):
    def of_strip(top, rows, first, second):
      numbers = tf.broadcast_to(tf.range(top, top + rows)[:, None], tf.shape(first))
      return first * second, numbers, tf.reduce_sum(first, axis=[1, 2])[:, None, None]

    return by_strips(of_strip, (MAP, MAP, MAP), shape_of(first), first, second)

  return [values.numpy() for values in function(*maps)]


@settings(max_examples=12)
@given(
  st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), st.integers(1, 60), st.integers(0, 99)
)
def test_every_row_is_computed_once(batch, height, width, most_pixels, seed):
  rng = np.random.default_rng(seed)
  first, second = rng.integers(0, 9, (2, batch, height, width)).astype(np.int32)
  with pytest.MonkeyPatch.context() as monkeypatch:
    product, numbers, sums = run((first, second), most_pixels, monkeypatch)
  np.testing.assert_array_equal(product, first * second)
  assert (numbers == np.arange(height)[:, None]).all() and numbers.shape == product.shape
  rows = min(max(most_pixels // (batch * width), 1), height)
  assert sums.shape == (batch, -(-height // rows), 1)
  np.testing.assert_array_equal(sums.sum(axis=(1, 2)), first.sum(axis=(1, 2)))


def test_of_a_constant_size_there_is_one_strip_and_no_loop():
  @tf.function(input_signature=[tf.TensorSpec([1, 5, 7], tf.int32)], autograph=False)
  def function(values):
    return by_strips(lambda top, rows, values: values + top + rows, MAP, shape_of(values), values)

  graph = function.get_concrete_function().graph
  assert not {'While', 'StatelessWhile'} & {node.op for node in graph.as_graph_def().node}
  assert function(tf.zeros([1, 5, 7], tf.int32)).numpy().tolist() == [[[5] * 7] * 5]
