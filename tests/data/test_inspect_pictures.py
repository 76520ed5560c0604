"""How the pictures look is for the eye; these are their properties."""

import numpy as np
import pytest

from oanet_tf.data import inspect_pictures


def objects_drawn(*objects, side=100):
  """`draw_objects` on white; objects are (box, is crowd)."""
  boxes = np.array([box for box, _ in objects], int).reshape(-1, 4)
  record = {
    'image': np.full((side, side, 3), 255, np.uint8),
    'object_boxes': boxes,
    'object_is_crowd': np.array([is_crowd for _, is_crowd in objects], bool),
    'object_masks': [np.ones((y2 - y1, x2 - x1), bool) for y1, x1, y2, x2 in boxes],
  }
  return inspect_pictures.draw_objects(record, [''] * len(objects)).astype(int)


def test_objects_are_drawn_as_they_overlap():
  drawn = objects_drawn(((0, 0, 60, 60), False), ((40, 40, 100, 100), False))
  nothing, first, second, both = drawn[20, 80], drawn[20, 20], drawn[80, 80], drawn[50, 50]
  colors = {tuple(color) for color in (nothing, first, second, both)}
  assert len(colors) == 4
  assert len(set(nothing)) == 1 and nothing[0] < 200  # white, dimmed
  # An outline, also where the other lies on it.
  assert (drawn[20:40, 59] == drawn[0, 0]).all() and (drawn[41:60, 59] == drawn[0, 0]).all()
  assert (drawn[30:50, 30:40] == first).all()


def test_crowds_are_hatched():
  single, crowd = (objects_drawn(((0, 0, 90, 90), flag))[30:88, 2:88] for flag in (False, True))
  assert len(np.unique(single.reshape(-1, 3), axis=0)) == 1
  unmarked = crowd == objects_drawn()[0, 0]
  assert 0.4 < unmarked.all(axis=-1).mean() < 0.6


def test_no_object_and_a_name_without_room():
  assert len(np.unique(objects_drawn())) == 1
  assert objects_drawn(((5, 5, 6, 6), False))[5, 5].tolist() != objects_drawn()[5, 5].tolist()


@pytest.mark.parametrize(('things', 'stuff'), [(80, 53), (1, 1), (1, 0), (0, 1)])
def test_histogram_of_any_number_of_categories(things, stuff):
  counts = [
    {'name': f'category {i}', 'isthing': int(i < things), 'segments': i, 'pixel_share': i / 1e4}
    for i in range(things + stuff)
  ]
  picture = inspect_pictures.draw_categories(counts, [(255, 0, 0)] * (things + stuff))
  assert picture.height >= 20 * max(things, stuff)
  assert picture.height < 1800 and picture.width < 1800


def test_bars_are_as_long_as_the_numbers_say():
  counts = [
    {'name': name, 'isthing': 1, 'segments': segments, 'pixel_share': share}
    for name, segments, share in (
      ('a', 10, 0.1),
      ('b', 40, 0.4),
      ('c', 0, 0.0),
      ('d' * 99, 20, 0.2),
    )
  ]
  colors = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 0, 255)]
  drawn = np.asarray(inspect_pictures.draw_categories(counts, colors))
  rows, areas = zip(
    *((np.nonzero((drawn == color).all(axis=-1))[0], (drawn == color).all(axis=-1).sum())
      for color in colors),
    strict=True,
  )  # fmt: skip
  a, b, c, d = areas
  assert c == 0
  assert b / a == pytest.approx(4, rel=0.05) and b / d == pytest.approx(2, rel=0.05)
  assert rows[1].max() < rows[3].min() and rows[3].max() < rows[0].min()  # greatest on top
