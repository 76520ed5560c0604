import hypothesis
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as st

from oanet_tf.data import geometry

# An image of 30 × 40, doubled, of which 50 × 60 from row 4 and column 10 on are shown.
INFO = np.array([[30, 40], [50, 60], [2, 2], [4, 10]], np.float32)
sides = st.integers(1, 300)
fractions = st.floats(0, 0.875, width=32)


def test_canvas_is_padded_to_multiples_of_the_coarsest_stride_and_turned():
  assert geometry.canvas_of([800, 1333], portrait=False) == ([800, 1333], [800, 1344])
  assert geometry.canvas_of([800, 1333], portrait=True) == ([1333, 800], [1344, 800])


@pytest.mark.parametrize(
  ('size', 'zoom', 'crop', 'expected'),
  [
    # The long side decides: 640 -> 64.
    ((480, 640), 1.0, (0, 0), [(480, 640), (48, 64), (0.1, 0.1), (0, 0)]),
    # A scale is that of the rounded size, never to nothing.
    ((1, 640), 1.0, (0, 0), [(1, 640), (1, 64), (1, 0.1), (0, 0)]),
    # Doubled, 96 × 128: of 32 and 64 pixels too many half go above and nearly all on the left.
    ((480, 640), 2.0, (0.5, 0.999), [(480, 640), (64, 64), (0.2, 0.2), (16, 64)]),
    ((480, 640), 0.5, (0.5, 0.5), [(480, 640), (24, 32), (0.05, 0.05), (0, 0)]),
  ],
)
def test_fit_image(size, zoom, crop, expected):
  size, crop = tf.constant(size, tf.float32), tf.constant(crop, tf.float32)
  info = geometry.fit_image(size, [64, 64], zoom, crop)
  np.testing.assert_allclose(info, expected, rtol=1e-6)


@pytest.mark.parametrize(
  ('size', 'short_side', 'output', 'shown'),
  [
    # 640 · 640 / 480 = 853.3.
    ((480, 640), 640, (800, 1333), (640, 853)),
    ((480, 640), 800, (800, 1333), (800, 1067)),
    ((640, 480), 640, (1333, 800), (853, 640)),
    # The long side would be 1,920; 300 · 1333 / 900 = 444.3.
    ((300, 900), 640, (800, 1333), (444, 1333)),
    ((900, 300), 800, (1333, 800), (1333, 444)),
    # A portrait image in a square: 640 · 736 / 480 = 981.3.
    ((640, 480), 736, (1024, 1024), (981, 736)),
    ((1, 1), 640, (800, 1333), (640, 640)),
    ((1, 640), 800, (800, 1333), (2, 1333)),
  ],
)
def test_fit_short_side(size, short_side, output, shown):
  info = geometry.fit_short_side(tf.constant(size, tf.float32), output, short_side)
  scale = np.array(shown) / size
  np.testing.assert_allclose(info, [size, shown, scale, (0, 0)], rtol=1e-6)


@hypothesis.given(sides, sides, st.floats(0.125, 3, width=32), fractions, fractions)
@hypothesis.settings(deadline=None)
def test_what_is_shown_fits_and_lies_within_the_scaled_image(height, width, zoom, down, right):
  size = tf.constant([height, width], tf.float32)
  info = geometry.fit_image(size, [64, 96], zoom, tf.constant([down, right])).numpy()
  _, shown, scale, offset = info
  scaled = np.round(info[0] * scale)
  assert (shown >= 1).all() and (shown <= [64, 96]).all() and (offset >= 0).all()
  assert (offset + shown <= scaled).all()


def test_sizes():
  batch = np.stack([INFO, INFO + [[10, -20], [0, 0], [0, 0], [0, 0]]]).astype(np.float32)
  batch = tf.constant(batch)
  assert geometry.original_size(batch).numpy().tolist() == [[30, 40], [40, 20]]
  assert geometry.size_in_input(batch).numpy().tolist() == [[50, 60], [50, 60]]
  assert geometry.largest_original(batch).numpy().tolist() == [40, 40]


def test_boxes_go_to_the_input_and_back():
  boxes = tf.constant([[2.0, 5.0, 12.0, 20.0], [0, 0, 30, 40]])
  there = geometry.boxes_to_input(boxes, tf.constant(INFO))
  np.testing.assert_array_equal(there, [[0, 0, 20, 30], [-4, -10, 56, 70]])
  np.testing.assert_array_equal(geometry.boxes_to_original(there, tf.constant(INFO)), boxes)
  of_batch = geometry.boxes_to_original(tf.stack([there, there]), tf.stack([INFO, 2 * INFO]))
  np.testing.assert_array_equal(of_batch[0], boxes)
  np.testing.assert_array_equal(of_batch[1, 0], [2, 5, 7, 12.5])


def test_no_box_goes_there_too():
  assert geometry.boxes_to_input(tf.zeros([0, 4]), tf.constant(INFO)).shape == (0, 4)


def test_pixels_under_the_centres_of_cells():
  indices, inside = geometry.pixels_of_cells(tf.constant(INFO), 0, num_cells=16, stride=4)
  # Centres 2, 6, … of the input; (2 + 4) / 2 = 3 in the original.
  assert indices.numpy().tolist() == [*range(3, 29, 2), 29, 29, 29]
  assert inside.numpy().tolist() == [True] * 12 + [False] * 4


@hypothesis.given(sides, sides, st.sampled_from([1, 2, 4, 8]))
@hypothesis.settings(deadline=None)
def test_a_pixel_lies_in_the_cell_that_samples_it(height, width, stride):
  info = geometry.fit_image(tf.constant([height, width], tf.float32), [64, 64])
  for axis in (0, 1):
    cells = geometry.Canvas(info[None], height, width).cells_of_pixels(axis, 64 // stride, stride)
    pixels, inside = geometry.pixels_of_cells(info, axis, 64 // stride, stride)
    scale = info[2, axis].numpy()
    sampled = cells[0].numpy()[pixels.numpy()[inside]]
    # By at most half a pixel of the original off the centre, in cells.
    assert (abs(sampled - np.flatnonzero(inside)) <= 0.5 * scale / stride + 1e-3).all()


def test_what_is_inside():
  canvas = geometry.Canvas(tf.constant(INFO[None]), 32, 64)
  inside = canvas.inside().numpy()[0]
  assert inside[:30, :40].all() and inside.sum() == 30 * 40
  inside = geometry.inside_input(tf.constant(INFO[None]), 64, 64).numpy()[0]
  assert inside[:50, :60].all() and inside.sum() == 50 * 60


def test_a_canvas_of_constant_size_has_numbers_for_sides():
  assert geometry.Canvas.of_size(None, [3, 5])[1:3] == (3, 5)
  assert geometry.Canvas.of_size(None, tf.constant([3, 5]))[1:] == (3, 5, 0)

  @tf.function(autograph=False, input_signature=[tf.TensorSpec([2], tf.int32)])
  def sides_of(size):
    canvas = geometry.Canvas.of_size(None, size)
    assert tf.is_tensor(canvas.height)
    return canvas.width

  assert sides_of([3, 5]) == 5


def test_without_padding():
  canvas = np.arange(16 * 16).reshape(16, 16)
  inside = geometry.without_padding(canvas, INFO, [64, 64])
  np.testing.assert_array_equal(inside, canvas[:12, :15])
  tiny = INFO.copy()
  tiny[1] = 1
  assert geometry.without_padding(canvas, tiny, [64, 64]).shape == (1, 1)
