import numpy as np
import pytest
import tensorflow as tf

from oanet_tf.modeling.stuff_channels import StuffChannels

# Labels of 3 things, then of 2 stuff categories; 0 is void.
LABELS = tf.range(6)


@pytest.mark.parametrize(
  ('channels', 'expected'),
  [
    (StuffChannels.of_all(3, 2), [-1, 0, 1, 2, 3, 4]),
    (StuffChannels(void=0, things=0, stuff=2, num_things=3), [-1, -1, -1, -1, 0, 1]),
    (StuffChannels(void=0, things=1, stuff=2, num_things=3), [-1, 0, 0, 0, 1, 2]),
    (StuffChannels(void=1, things=1, stuff=2, num_things=3), [0, 1, 1, 1, 2, 3]),
  ],
)
def test_the_right_channel_of_each_label(channels, expected):
  np.testing.assert_array_equal(channels.of_labels(LABELS), expected)
  assert channels.total == 1 + max(expected)


@pytest.mark.parametrize('num_things', [1, 2, 5])
@pytest.mark.parametrize('void', [0, 1])
def test_one_channel_stands_for_all_things(num_things, void):
  channels = StuffChannels(void, things=1, stuff=2, num_things=num_things)
  logits = tf.constant([[[9.0] * void + [4.0, 5.0, 6.0]]])
  np.testing.assert_array_equal(channels.thing_logits(logits), [[[4.0] * num_things]])
  np.testing.assert_array_equal(channels.stuff_logits(logits), [[[5.0, 6.0]]])
  labels = tf.range(1 + num_things + 2)
  expected = [void - 1, *[void] * num_things, void + 1, void + 2]
  np.testing.assert_array_equal(channels.of_labels(labels), expected)
