import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from oanet_tf.data.geometry import Canvas
from oanet_tf.modeling.fusion.stuff import (
  large_stuff,
  resampled_argmax,
  stuff_labels,
  stuff_scores,
)
from oanet_tf.modeling.stuff_channels import StuffChannels
from tests.lite import run_in_litert
from tests.modeling.fusion.given import image_info


def sampled(values, info, length, stride):
  """Along the first axis, the slow way: at the middles of the original's pixels."""
  scale, offset = info[2], info[3]
  result = []
  for pixel in range(length):
    position = ((pixel + 0.5) * scale - offset) / stride - 0.5
    position = min(max(position, 0.0), len(values) - 1.0)
    low = int(position)
    high = min(low + 1, len(values) - 1)
    result.append((high - position if high > low else 1.0) * values[low])
    result[-1] = result[-1] + (position - low) * values[high]
  return np.array(result)


@settings(max_examples=40, deadline=None)
@given(
  st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 7), st.integers(1, 7),
  st.floats(0.3, 2.5), st.sampled_from([1, 2, 4]),
)  # fmt: skip
def test_resampled_argmax(seed, channels, h, w, scale, stride):
  rng = np.random.default_rng(seed)
  logits = rng.normal(size=(2, h, w, channels)).astype(np.float32)
  info = np.zeros((2, 4, 2), np.float32)
  info[:, 2] = scale, 1.3 * scale
  info[1, 3] = rng.uniform(0, 3, 2)
  height, width = 9, 14
  winner = resampled_argmax(
    tf.constant(logits), Canvas(tf.constant(info), height, width), stride
  ).numpy()
  for image in range(2):
    values = sampled(logits[image], info[image, :, 0], height, stride)
    values = sampled(values.transpose(1, 0, 2), info[image, :, 1], width, stride).transpose(1, 0, 2)
    of_winner = np.take_along_axis(values, winner[image, ..., None], axis=-1)[..., 0]
    # Float32 may decide otherwise where two are as good as equal.
    np.testing.assert_allclose(of_winner, values.max(axis=-1), atol=1e-5)


def test_doubling_equals_bilinear_resizing():
  logits = tf.random.stateless_normal([1, 6, 8, 4], [0, 1])
  expected = tf.argmax(tf.image.resize(logits, [12, 16]), axis=-1, output_type=tf.int32)
  found = resampled_argmax(logits, Canvas(image_info((12, 16)), 12, 16), 2)
  np.testing.assert_array_equal(found, expected)


def test_of_equal_logits_the_first_is_taken():
  logits = tf.constant([[[[0.0, 1.0, 1.0, -5.0]]]])
  np.testing.assert_array_equal(
    resampled_argmax(logits, Canvas(image_info((2, 3)), 2, 3), 1), [[[1] * 3] * 2]
  )


# Two things, labels 1 and 2, and two stuff categories, 3 and 4.
LOGITS = tf.constant([[[[9.0, 0, 1, 2], [0, 1, 5, 2], [0, 8, 7, 1], [0, 0, 0, 1]]]])


@pytest.mark.parametrize(
  ('stuff_from', 'logits', 'expected'),
  [
    ('stuff', LOGITS, [4, 3, 3, 4]),
    ('all', LOGITS, [0, 3, 0, 4]),
    ('stuff', LOGITS[..., 2:], [4, 3, 3, 4]),
    ('stuff', LOGITS[..., :0], [0, 0, 0, 0]),
  ],
)
def test_stuff_labels(stuff_from, logits, expected):
  stuff = min(2, logits.shape[-1])
  channels = StuffChannels(0, logits.shape[-1] - stuff, stuff, num_things=2)
  canvas = Canvas(image_info((1, 4)), 1, 4)
  labels = stuff_labels(logits, canvas, channels=channels, stride=1, stuff_from=stuff_from)
  np.testing.assert_array_equal(labels, [[expected]])


def test_a_dataset_without_stuff_is_void():
  canvas = Canvas(image_info((1, 4)), 1, 4)
  labels = stuff_labels(LOGITS[..., :2], canvas, channels=StuffChannels.of_all(2, 0), stride=1)
  np.testing.assert_array_equal(labels, [[[0] * 4]])


SCATTERED = np.array([[3, 3, 0, 4, 4], [0, 0, 0, 4, 4], [3, 3, 3, 0, 3]])


@pytest.mark.parametrize(
  ('area_by', 'limit', 'expected'),
  [
    ('class', 4, SCATTERED),
    ('class', 5, np.where(SCATTERED == 3, 3, 0)),
    ('class', 7, np.zeros((3, 5))),
    ('component', 1, SCATTERED),
    ('component', 3, [[0, 0, 0, 4, 4], [0, 0, 0, 4, 4], [3, 3, 3, 0, 0]]),
    ('component', 4, np.where(SCATTERED == 4, 4, 0)),
  ],
)
def test_small_areas_become_void(area_by, limit, expected):
  # Beside another image, whose areas do not count.
  labels = tf.constant(np.stack([SCATTERED, np.full_like(SCATTERED, 3)]), tf.int32)
  large = large_stuff(labels, 5, lambda areas: areas >= limit, area_by)
  found = tf.where(large, labels, 0)
  np.testing.assert_array_equal(found[0], expected)
  np.testing.assert_array_equal(found[1], labels[1])


CHANNELS = StuffChannels.of_all(num_things=1, num_stuff=2)


def scores_of(logits, category_mask, stride=2):
  size = [int(side) for side in category_mask.shape[1:]]
  canvas = Canvas(image_info(size), *size)
  return stuff_scores(logits, category_mask, canvas, channels=CHANNELS, stride=stride)


def test_stuff_scores_by_hand():
  """Two cells, of 2 × 2 pixels each: softmax gives 1/4, 1/4, 1/2 on the left and 1/2, 1/4, 1/4."""
  probabilities = np.array([[[[1, 1, 2], [2, 1, 1]]]], np.float32) / 4
  # The label 2 has the right cell's upper pixels, 3 one of each cell, and a thing the rest.
  category_mask = np.array([[[1, 3, 2, 2], [0, 1, 3, 1]]], np.int32)
  scores = scores_of(np.log(probabilities), category_mask)
  np.testing.assert_allclose(scores, [[1 / 4, (1 / 2 + 1 / 4) / 2]], rtol=1e-6)


def test_stuff_without_a_pixel_has_the_score_0():
  logits = np.zeros((2, 3, 3, 3), np.float32)
  category_mask = np.zeros((2, 6, 6), np.int32)
  category_mask[1, 0, 0] = 3
  np.testing.assert_allclose(scores_of(logits, category_mask), [[0, 0], [0, 1 / 3]], rtol=1e-6)


def test_scores_of_a_network_without_stuff():
  canvas = Canvas(image_info((2, 2)), 2, 2)
  only_things = StuffChannels.of_all(num_things=1, num_stuff=0)
  logits, mask = tf.zeros([1, 1, 1, 1]), tf.ones([1, 2, 2], tf.int32)
  assert stuff_scores(logits, mask, canvas, channels=only_things, stride=2).shape == (1, 0)


def test_the_score_of_very_many_pixels():
  """A float32 that counts by ones stops at 2^24."""
  side = 4200
  logits = np.log(np.array([[[[0.2, 0.7, 0.1]]]], np.float32))
  scores = scores_of(logits, np.full((1, side, side), 2, np.int32), stride=side)
  np.testing.assert_allclose(scores, [[0.7, 0]], rtol=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 5), st.floats(0.3, 2.5))
def test_stuff_scores_are_means_over_the_nearest_cells(seed, h, w, scale):
  rng = np.random.default_rng(seed)
  logits = rng.normal(size=(2, h, w, 3)).astype(np.float32)
  info = np.zeros((2, 4, 2), np.float32)
  info[:, 2] = scale
  category_mask = rng.integers(0, 4, (2, 5, 7)).astype(np.int32)
  canvas = Canvas(tf.constant(info), 5, 7)
  found = stuff_scores(logits, category_mask, canvas, channels=CHANNELS, stride=2).numpy()
  probabilities = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
  # Halves are rounded to even by both.
  rows, columns = (
    np.round(canvas.cells_of_pixels(axis, cells, 2).numpy()).astype(int)
    for axis, cells in enumerate((h, w))
  )
  for image in range(2):
    of_pixels = probabilities[image][np.ix_(rows[image], columns[image])]
    for stuff, label in enumerate((2, 3)):
      chosen = of_pixels[category_mask[image] == label, label - 1]
      np.testing.assert_allclose(
        found[image, stuff], chosen.mean() if chosen.size else 0, atol=1e-6
      )


def test_stuff_scores_run_in_litert():
  rng = np.random.default_rng(0)
  inputs = {
    'logits': rng.normal(size=(1, 4, 5, 3)).astype(np.float32),
    'category_mask': rng.integers(0, 4, (1, 8, 10)).astype(np.int32),
  }

  def function(logits, category_mask):
    return {'scores': scores_of(logits, category_mask)}

  expected, found = function(**inputs), run_in_litert(function, inputs)
  np.testing.assert_allclose(found['scores'], expected['scores'], rtol=1e-6)
