"""Tests of the scenes of OccludedScenes: who lies on whom, what there is, and what is hidden."""

import collections

import numpy as np
import pytest

from oanet_tf.data.occluded_scenes import scenes, shapes


@pytest.fixture(scope='module')
def planned():
  """400 planned, unpainted scenes."""
  rng = np.random.default_rng(7)
  return [scenes.plan_scene(rng, 128) for _ in range(400)]


# Who lies on whom


def overlaps(planned, back, front):
  """How many pairs of the two categories overlap by over 10 px, in this order."""
  return sum(
    (below.mask & above.mask).sum() > 10
    for scene in planned
    for index, below in enumerate(scene.things)
    for above in scene.things[index + 1 :]
    if (below.name, above.name) == (back, front)
  )


def test_fixed_orders_hold(planned):
  for back, front in (('person', 'table'), ('person', 'tie'), ('table', 'cup')):
    assert overlaps(planned, back, front) > 80
  assert overlaps(planned, 'table', 'person') == 0
  for scene in planned:
    for index, thing in enumerate(scene.things):
      if thing.host:
        assert scene.things.index(thing.host) < index
        assert thing.host.mask[thing.mask].all()


@pytest.mark.parametrize('pair', [('dog', 'car'), ('ball', 'person'), ('bag', 'person')])
def test_random_orders_occur_both_ways(planned, pair):
  counts = overlaps(planned, *pair), overlaps(planned, *pair[::-1])
  assert min(counts) > 0.25 * sum(counts) > 5


@pytest.mark.parametrize('name', ['person', 'car'])
def test_things_of_a_category_overlap(planned, name):
  assert overlaps(planned, name, name) > 10


# What is in the scenes


def test_frequencies(planned):
  names = collections.Counter(t.name for s in planned for t in s.things if not t.is_crowd)
  assert names.keys() == shapes.SILHOUETTES.keys()
  assert min(names['tie'], names['cup']) > 0.27 * len(planned)  # 400 in 1500 images
  assert min(names.values()) > 0.2 * len(planned)
  assert names['person'] > 0.8 * len(planned) and names['table'] > 0.4 * len(planned)
  assert 0.01 < np.mean([not s.things for s in planned]) < 0.1
  assert 0.01 < np.mean([any(t.is_crowd for t in s.things) for s in planned]) < 0.07
  assert 0.15 < np.mean([np.diff(s.stuff_map.shape) != 0 for s in planned]) < 0.35
  assert 3 < np.mean([len(s.things) for s in planned]) < 4.5
  assert max(len(s.stuff_names) + len(s.things) for s in planned) < 32


def test_crowds_are_many_persons_behind_everything(planned):
  crowded = [scene for scene in planned if any(thing.is_crowd for thing in scene.things)]
  assert crowded
  for scene in crowded:
    crowd, *others = scene.things
    assert crowd.name == 'person' and 25 <= len(crowd.figures) < 50
    assert not any(thing.is_crowd for thing in others)


def test_background(planned):
  for scene in planned:
    assert len(set(scene.stuff_names)) == len(scene.stuff_names) in (2, 3)
    assert set(np.unique(scene.stuff_map)) - {-1} <= set(range(len(scene.stuff_names)))
  shares = np.concatenate(
    [np.bincount(s.stuff_map.ravel() + 1, minlength=3)[1:] / s.stuff_map.size for s in planned]
  )
  assert np.mean(shares > 0.15) > 0.9
  assert 0.01 < np.mean([np.mean(s.stuff_map == -1) for s in planned]) < 0.03


def test_visible_masks_are_disjoint_parts_of_the_silhouettes(planned):
  for scene in planned:
    assert np.sum([np.zeros_like(scene.stuff_map), *scene.visible], axis=0).max() <= 1
    for thing, visible in zip(scene.things, scene.visible, strict=True):
      assert thing.mask[visible].all() and visible.sum() >= 20


def test_small_things_are_large_enough_to_see(planned):
  for name, height, width in (('tie', 10, 4), ('cup', 9, 9), ('ball', 12, 12), ('bag', 12, 12)):
    for thing in (t for s in planned for t in s.things if t.name == name):
      clipped = thing.mask[[0, -1]].any() or thing.mask[:, [0, -1]].any()
      rows, columns = np.nonzero(thing.mask)
      assert clipped or (np.ptp(rows) + 1 >= height and np.ptp(columns) + 1 >= width)


@pytest.mark.parametrize('image_size', [64, 100, 256])
def test_sizes_scale(image_size):
  rng = np.random.default_rng(0)
  shares = []
  for _ in range(60):
    scene = scenes.plan_scene(rng, image_size)
    image = scenes.render(scene, rng)
    assert image.dtype == np.uint8 and image.shape == (*scene.stuff_map.shape, 3)
    assert sorted(image.shape[:2]) in (
      [image_size, image_size],
      [round(0.75 * image_size), image_size],
    )
    persons = [t.mask for t in scene.things if t.name == 'person' and not t.is_crowd]
    shares += [np.ptp(np.nonzero(mask)[0]) / image_size for mask in persons]
  assert 0.4 < np.median(shares) < 0.65


# What is hidden, by hand


def rectangle(name, top, left, bottom, right, host=None):
  """A thing in an image of 40 x 40, as deep as every other."""
  drawing = np.zeros((40, 40), np.uint8)
  drawing[top:bottom, left:right] = shapes.FLAT
  pose = shapes.Pose(0.0, 0.0, 1.0, 1.0, angle=0.0)
  figure = scenes.Figure(pose, drawing)
  return scenes.Thing(name, [figure], depth=0.0, host=host)


def test_mask_of_a_crowd_is_that_of_all_its_figures():
  first, second = rectangle('person', 0, 0, 10, 10), rectangle('person', 5, 5, 15, 15)
  crowd = scenes.Thing('person', first.figures + second.figures, depth=0.0)
  assert crowd.is_crowd and not first.is_crowd
  np.testing.assert_array_equal(crowd.mask, first.mask | second.mask)
  assert crowd.mask.sum() == 175  # 100 + 100, 25 of them shared


def test_thing_of_which_nothing_shows_is_dropped_with_what_lies_on_it():
  person = rectangle('person', 0, 0, 20, 20)
  tie = rectangle('tie', 5, 5, 10, 10, host=person)
  table = rectangle('table', 0, 0, 20, 20)
  assert scenes._drop_hidden([person, table, tie], 20)[0] == [table]
  assert scenes._drop_hidden([], 20) == ([], [])


def test_thing_of_which_just_enough_shows_is_kept():
  car = rectangle('car', 0, 0, 20, 20)
  dogs = [rectangle('dog', 0, 0, 20, 10), rectangle('dog', 0, 10, 19, 20)]  # one row of 10 is free
  things, visible = scenes._drop_hidden([car, *dogs], 10)
  assert things == [car, *dogs] and [int(mask.sum()) for mask in visible] == [10, 200, 190]
  assert scenes._drop_hidden([car, *dogs], 11)[0] == dogs
