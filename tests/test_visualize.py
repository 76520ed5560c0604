"""Properties of the pictures; how they look is for the eye."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from oanet_tf.data.categories import Category, PanopticCategories
from oanet_tf.errors import InputError
from oanet_tf.visualize import draw_panoptic, side_by_side
from tests.segments import segments_of_ids

PERSON, SKY = 7, 90
CATEGORIES = PanopticCategories(
  [
    Category(PERSON, 'person', True, (220, 20, 60)),
    Category(SKY, 'sky', False, (0, 200, 200)),
    Category(91, 'a category of a very long name ' * 30, False, (0, 0, 0)),
  ]
)


def noise(height, width):
  return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def test_void_is_untouched_and_stuff_is_blended_with_its_color():
  image = noise(400, 500)
  segment_map = np.zeros((400, 500))
  segment_map[:300, :300] = 9
  drawn = draw_panoptic(image, segments_of_ids(segment_map, {9: SKY}), CATEGORIES)
  assert drawn.shape == image.shape and drawn.dtype == np.uint8
  np.testing.assert_array_equal(drawn[300:], image[300:])
  np.testing.assert_array_equal(drawn[:, 300:], image[:, 300:])
  # A corner that neither name nor outline reaches; colours are blended half and half.
  half = 0.5 * image[:50, :50] + 0.5 * np.array([0, 200, 200])
  assert np.abs(drawn[:50, :50] - half).max() <= 0.5


def test_outlines_part_neighbours_and_contrast_with_their_surroundings():
  segment_map = np.repeat([[1, 2]], 400, axis=0).repeat(200, axis=1)
  content = segments_of_ids(segment_map, {1: PERSON, 2: PERSON})
  for brightness, line in ((0, 255), (255, 0)):
    image = np.full((400, 400, 3), brightness, np.uint8)
    light = PanopticCategories([Category(PERSON, 'person', True, (brightness,) * 3)])
    drawn = draw_panoptic(image, content, light)
    assert (drawn[:100, 199] == line).all()
    assert (np.abs(drawn[:100, 190:199].astype(int) - line) > 60).all()


def test_names_stand_in_large_segments_only():
  image = np.zeros((400, 400, 3), np.uint8)
  segment_map = np.zeros((400, 400))
  segment_map[100:300, 100:300] = 1
  segment_map[10:14, 10:14] = 2
  black = PanopticCategories([Category(SKY, 'sky', False, (0, 0, 0))])
  drawn = draw_panoptic(image, segments_of_ids(segment_map, {1: SKY, 2: SKY}), black)
  rows, columns = np.nonzero(drawn[110:290, 110:290].max(axis=-1) > 200)
  assert len(rows) > 20
  assert abs(rows.mean() - 90) < 10 and abs(columns.mean() - 90) < 20
  assert drawn[11:13, 11:13].max() == 0


def test_a_name_at_the_edge_is_moved_into_the_picture():
  segment_map = np.zeros((400, 400))
  segment_map[:, :20] = 1
  black = PanopticCategories([Category(SKY, 'a name of many letters', False, (0, 0, 0))])
  image = np.zeros((400, 400, 3), np.uint8)
  drawn = draw_panoptic(image, segments_of_ids(segment_map, {1: SKY}), black)
  written = np.nonzero(drawn[:, 20:].max(axis=-1) > 200)[1]
  assert written.max() > 50  # to the right of its segment, as to the left there is no room


def test_the_smaller_segment_goes_without_a_name_that_would_cover_another():
  # Neighbours whose names, over 200 pixels wide, have no room beside each other.
  name = 'a name that is much longer than its segment is wide'
  categories = PanopticCategories([Category(SKY, name, False, (0, 0, 0))])
  segment_map = np.zeros((400, 400))
  segment_map[180:220, :200] = 1
  segment_map[180:219, 200:] = 2
  image = np.zeros((400, 400, 3), np.uint8)
  both = draw_panoptic(image, segments_of_ids(segment_map, {1: SKY, 2: SKY}), categories)
  alone = draw_panoptic(
    image, segments_of_ids(np.where(segment_map == 1, 1, 0), {1: SKY}), categories
  )
  np.testing.assert_array_equal(both[185:215, :198], alone[185:215, :198])


def test_many_things_of_one_category_differ():
  rows, columns = np.mgrid[:480, :640]
  segment_map = np.minimum(rows // 80 * 8 + columns // 80, 46) + 1
  content = segments_of_ids(segment_map, dict.fromkeys(range(1, 48), PERSON))
  drawn = draw_panoptic(np.zeros((480, 640, 3), np.uint8), content, CATEGORIES)
  corners = drawn[6::80, 6::80].reshape(-1, 3)[:47].astype(int)
  distances = np.abs(corners[:, np.newaxis] - corners).sum(axis=-1)
  assert distances[~np.eye(47, dtype=bool)].min() > 3
  np.testing.assert_array_equal(corners[0], [110, 10, 30])


@pytest.mark.parametrize(
  ('size', 'drawn_size'),
  [
    ((1, 1), (384, 384)),
    ((128, 128), (384, 384)),
    ((128, 200), (384, 600)),
    ((383, 500), (766, 1000)),
    ((384, 600), (384, 600)),
    ((1, 3000), (1, 3000)),
    ((100, 1000), (200, 2000)),
  ],
)
def test_small_pictures_are_enlarged(size, drawn_size):
  content = segments_of_ids(np.full(size, 3), {3: SKY})
  drawn = draw_panoptic(noise(*size), content, CATEGORIES)
  assert drawn.shape == (*drawn_size, 3)


def test_things_of_one_category_look_alike_if_asked_for():
  segment_map = np.repeat([[1, 2, 3]], 400, axis=0).repeat(200, axis=1)
  content = segments_of_ids(segment_map, {1: PERSON, 2: PERSON, 3: SKY})
  image = np.zeros((400, 600, 3), np.uint8)
  drawn = draw_panoptic(image, content, CATEGORIES, by_category=True, label_size=0)
  for column, color in ((100, [110, 10, 30]), (300, [110, 10, 30]), (500, [0, 100, 100])):
    np.testing.assert_array_equal(drawn[200, column], color)
  differing = draw_panoptic(image, content, CATEGORIES, label_size=0)
  assert (differing[200, 300] != [110, 10, 30]).any()


def test_void_alone_is_the_image():
  image = noise(400, 400)
  void = segments_of_ids(np.zeros((400, 400)), {})
  np.testing.assert_array_equal(draw_panoptic(image, void, CATEGORIES), image)


def test_a_name_wider_than_the_picture_is_left_out():
  black = np.zeros((400, 400, 3), np.uint8)
  drawn = draw_panoptic(black, segments_of_ids(np.ones((400, 400)), {1: 91}), CATEGORIES)
  assert drawn.max() == 0


@settings(max_examples=20, deadline=None)
@given(
  st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1), st.sampled_from([PERSON, SKY])
)
def test_deterministic_and_leaves_its_input_alone(height, width, seed, category_id):
  rng = np.random.default_rng(seed)
  segment_map = rng.integers(0, 6, (height, width))
  content = segments_of_ids(segment_map, dict.fromkeys(range(1, 6), category_id))
  image = rng.integers(0, 256, (height, width, 3), np.uint8)
  before = image.copy()
  once, again = (draw_panoptic(image, content, CATEGORIES) for _ in range(2))
  np.testing.assert_array_equal(once, again)
  np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize(
  ('image', 'content', 'message'),
  [
    (noise(2, 3), segments_of_ids(np.zeros((3, 2)), {}), r'\[2, 3, 3\].*\[3, 2\]'),
    (noise(2, 3)[..., 0], segments_of_ids(np.zeros((2, 3)), {}), r'\[2, 3\]'),
    (noise(2, 3), segments_of_ids(np.ones((2, 3)), {1: 8}), 'category id 8'),
  ],
)
def test_malformed_input(image, content, message):
  with pytest.raises(InputError, match=message):
    draw_panoptic(image, content, CATEGORIES)


def test_side_by_side_sets_panels_at_equal_height_below_their_titles():
  red = np.full((100, 150, 3), (255, 0, 0), np.uint8)
  blue = np.full((50, 100, 3), (0, 0, 255), np.uint8)
  row = side_by_side({'red': red, 'blue': blue})
  is_red, is_blue = ((row == color).all(axis=-1) for color in ((255, 0, 0), (0, 0, 255)))
  assert is_red.sum() == 100 * 150
  assert is_blue.sum() == 100 * 200
  assert (np.nonzero(is_red)[0].min(), np.nonzero(is_red)[0].max()) == (
    row.shape[0] - 100,
    row.shape[0] - 1,
  )
  assert np.nonzero(is_red)[1].max() < np.nonzero(is_blue)[1].min()
  assert (row[: row.shape[0] - 100, :150] > 200).all(axis=-1).sum() > 10  # the title's letters


def test_side_by_side_of_one_pixel_has_room_for_its_title():
  assert side_by_side({'a title': np.zeros((1, 1, 3), np.uint8)}).shape[1] > 40
  wide = np.asarray(Image.new('RGB', (3000, 1)))
  assert side_by_side({'': wide, 'b': wide}).shape[1] >= 6000
