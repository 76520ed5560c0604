import hypothesis
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as st
from official.vision.ops import preprocess_ops

from oanet_tf.serving.fixed_canvas import size_on_canvas
from oanet_tf.serving.letterbox import PADDING_COLOR, from_canvas, letterbox, size_within

SIDES = st.integers(1, 90)


def test_the_padding_is_the_mean_color():
  assert tuple(round(value) for value in preprocess_ops.MEAN_RGB) == PADDING_COLOR


@hypothesis.settings(max_examples=100, deadline=None)
@hypothesis.given(SIDES, SIDES, SIDES, SIDES)
def test_resizes_as_tensorflow(height, width, canvas_height, canvas_width):
  picture = np.random.default_rng(width).integers(0, 256, (height, width, 3)).astype(np.uint8)
  size = size_within(picture.shape, (canvas_height, canvas_width))
  expected = tf.cast(tf.round(tf.image.resize(picture, size)), tf.uint8)
  found = letterbox(picture, (canvas_height, canvas_width))[: size[0], : size[1]]
  np.testing.assert_array_equal(found, expected)


def test_a_picture_lies_at_the_top_left():
  picture = np.full((20, 40, 3), 200, np.uint8)
  canvas = letterbox(picture, (32, 32))
  assert (canvas[:16] == 200).all() and (canvas[16:] == PADDING_COLOR).all()
  canvas = letterbox(picture.transpose(1, 0, 2), (32, 64))
  assert (canvas[:, :16] == 200).all() and (canvas[:, 16:] == PADDING_COLOR).all()


def test_a_picture_of_the_canvass_size_stays_as_it_is():
  picture = np.random.default_rng(0).integers(0, 256, (30, 50, 3)).astype(np.uint8)
  np.testing.assert_array_equal(letterbox(picture, (30, 50)), picture)


@hypothesis.settings(max_examples=50, deadline=None)
@hypothesis.given(SIDES, SIDES, SIDES, SIDES)
def test_the_picture_is_found_again(height, width, canvas_height, canvas_width):
  canvas_size = (canvas_height, canvas_width)
  picture = np.random.default_rng(height).integers(130, 256, (height, width, 3)).astype(np.uint8)
  found = size_within(picture.shape, canvas_size)
  assert all(1 <= side <= most for side, most in zip(found, canvas_size, strict=True))
  assert any(side == most for side, most in zip(found, canvas_size, strict=True))
  canvas = letterbox(picture, canvas_size)
  assert canvas.shape == (*canvas_size, 3) and canvas.dtype == np.uint8
  assert size_on_canvas(canvas).numpy().tolist() == list(found)


@pytest.mark.parametrize(('height', 'width'), [(1, 5000), (5000, 1), (3000, 4000)])
def test_extreme_pictures(height, width):
  canvas = letterbox(np.zeros((height, width, 3), np.uint8), (24, 32))
  found = size_on_canvas(canvas).numpy().tolist()
  assert found == list(size_within((height, width), (24, 32)))


def test_what_only_looks_like_padding():
  """Rows and columns of the padding's colour count where others follow them; an empty canvas is
  one pixel."""
  canvas = np.full((8, 10, 3), PADDING_COLOR, np.uint8)
  assert size_on_canvas(canvas).numpy().tolist() == [1, 1]
  canvas[5, 2, 1] += 1
  assert size_on_canvas(canvas).numpy().tolist() == [6, 3]


def test_a_mask_goes_back_to_the_picture():
  mask = np.zeros((4, 6), np.int32)
  mask[:2, :2], mask[:2, 2:4], mask[2:, :2] = 7, 70000, 9
  # A picture of 8 × 8 pixels fills 4 × 4 of the canvas.
  expected = np.zeros((8, 8), int)
  expected[:4, :4], expected[:4, 4:], expected[4:, :4] = 7, 70000, 9
  np.testing.assert_array_equal(from_canvas(mask, (8, 8, 3)), expected)


@hypothesis.settings(max_examples=30, deadline=None)
@hypothesis.given(SIDES, SIDES)
def test_a_mask_of_the_pictures_size_stays_as_it_is(height, width):
  mask = np.random.default_rng(0).integers(0, 1000, (height, width)).astype(np.int32)
  np.testing.assert_array_equal(from_canvas(mask, mask.shape), mask)
