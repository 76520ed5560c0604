import tensorflow as tf

from oanet_tf.modeling.stuff_head import StuffHead


def features(side=16, channels=8):
  sizes = {str(level): side // 2 ** (level - 2) for level in range(2, 7)}
  return {
    level: tf.random.stateless_normal([2, size, size, channels], [1, 2])
    for level, size in sizes.items()
  }


def test_logits_are_at_the_finest_level_and_coarser_levels_than_asked_are_not_used():
  head = StuffHead(levels=[2, 3, 4], num_labels=5, num_filters=8)
  given = features()
  logits = head(given)
  assert logits.shape == (2, 16, 16, 5)
  given['6'] *= 100.0
  tf.debugging.assert_equal(head(given), logits)
  given['4'] *= 100.0
  assert float(tf.reduce_max(tf.abs(head(given) - logits))) > 0


def test_has_the_convolutions_of_figure_3():
  """Two 3×3 per level on four levels, one 3×3 after concatenation, one 1×1."""
  head = StuffHead(levels=[2, 3, 4, 5], num_labels=7, num_convs=2, num_filters=16)
  head(features(side=32))
  kernels = sorted(tuple(v.shape) for v in head.trainable_variables if len(v.shape) == 4)
  per_level = [(3, 3, 8, 16)] * 4 + [(3, 3, 16, 16)] * 4
  assert kernels == sorted([*per_level, (3, 3, 64, 16), (1, 1, 16, 7)])


def test_group_norm_normalises_each_convolution():
  plain = StuffHead(levels=[2, 3], num_labels=3, num_filters=8)
  normed = StuffHead(levels=[2, 3], num_labels=3, num_filters=8, group_norm=True)
  for head in (plain, normed):
    head(features())
  # Scale and offset for each of 2 × 2 + 1 convolutions.
  assert len(normed.trainable_variables) == len(plain.trainable_variables) + 2 * 5
