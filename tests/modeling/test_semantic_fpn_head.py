"""The semantic heads of Panoptic FPN; `tests/weights` compares them with the peers' outputs."""

import numpy as np
import pytest
import tensorflow as tf

from oanet_tf.modeling.semantic_fpn_head import ModelGardenSemanticHead, SemanticFPNHead

LEVELS, FILTERS = [2, 3, 4], 32


def features(side=16, channels=8):
  return {
    str(level): tf.random.stateless_normal([2, side >> (level - 2), side >> (level - 2), channels],
                                           [1, level])
    for level in range(2, 6)
  }  # fmt: skip


def by_hand(head, given):
  """Conv, group norm of 32 groups of one channel, ReLU, ×2; the sum; a 1×1 convolution."""
  total = 0.0
  for level in LEVELS:
    x = given[str(level)]
    for stage in head._stages[str(level)]:
      x = tf.nn.conv2d(x, stage.layers[0].kernel, 1, 'SAME')
      mean, variance = tf.nn.moments(x, [1, 2], keepdims=True)
      norm = stage.layers[1]
      x = tf.nn.relu((x - mean) / tf.sqrt(variance + 1e-5) * norm.gamma + norm.beta)
      if level > 2:
        x = tf.image.resize(x, [2 * x.shape[1], 2 * x.shape[2]])
    total += x
  return tf.nn.conv2d(total, head._logits.kernel, 1, 'SAME') + head._logits.bias


def test_equals_its_definition():
  head = SemanticFPNHead(levels=LEVELS, num_labels=5, num_filters=FILTERS)
  given = features()
  head(given)
  for variable in head.variables:
    variable.assign_add(tf.random.stateless_normal(variable.shape, [3, 4], stddev=0.3))
  np.testing.assert_allclose(head(given), by_hand(head, given), rtol=1e-4, atol=1e-4)
  # As many stages as it takes to the finest level, but at least one.
  assert [len(head._stages[str(level)]) for level in LEVELS] == [1, 1, 2]


@pytest.mark.parametrize('make', [
  lambda: SemanticFPNHead(levels=LEVELS, num_labels=5, num_filters=FILTERS),
  lambda: ModelGardenSemanticHead(
    levels=LEVELS, num_labels=5, num_filters=FILTERS, num_fpn_filters=8
  ),
])  # fmt: skip
def test_logits_of_any_size_in_one_graph(make):
  head, given = make(), features()
  spec = {level: tf.TensorSpec([None, None, None, 8]) for level in given}
  function = tf.function(head.call, [spec], autograph=False)
  head(given)
  np.testing.assert_allclose(function(given), head(given), rtol=1e-4, atol=1e-5)
  assert function(features(32)).shape == (2, 32, 32, 5)
  assert head(given).dtype == tf.float32
