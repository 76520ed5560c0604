"""Tests of the scenes of OccludedScenes: who lies on whom, what there is, and what is hidden."""

import collections
import itertools

import numpy as np
import pytest

from oanet_tf.data.occluded_scenes import scenes, shapes, stage


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


# Who lies on whom where only the scene tells


@pytest.fixture(scope='module')
def in_context():
  """400 planned, unpainted scenes, ordered by context."""
  rng = np.random.default_rng(8)
  return [scenes.plan_scene(rng, 128, 'context') for _ in range(400)]


@pytest.mark.parametrize(
  'pair',
  [('person', 'table'), ('person', 'tie'), ('person', 'bag'), ('table', 'cup'), ('car', 'dog'),
   ('ball', 'person')],
)  # fmt: skip
def test_both_orders_are_about_equally_frequent(in_context, pair):
  counts = overlaps(in_context, *pair), overlaps(in_context, *pair[::-1])
  assert sum(counts) > 25
  assert 0.3 < counts[0] / sum(counts) < 0.7


@pytest.mark.parametrize(
  'pair', [('person', 'table'), ('person', 'tie'), ('person', 'bag'), ('table', 'cup')]
)
def test_a_table_of_categories_is_at_chance(in_context, pair):
  pixels = collections.Counter()
  for scene in in_context:
    things = list(zip(scene.things, scene.visible, strict=True))
    for (one, visible), (other, _) in itertools.permutations(things, 2):
      pixels[one.name, other.name] += (visible & other.mask).sum()
  assert 0.25 < pixels[pair] / (pixels[pair] + pixels[pair[::-1]]) < 0.75


@pytest.mark.parametrize('name', ['person', 'car', 'table'])
def test_what_stands_lower_is_in_front(in_context, name):
  pairs = [
    (back, front)
    for scene in in_context
    for index, back in enumerate(scene.things)
    for front in scene.things[index + 1 :]
    if {back.name, front.name} <= {'person', 'car', 'table'} and not back.is_crowd
    if name in (back.name, front.name) and (back.mask & front.mask).any()
  ]
  assert len(pairs) > 20
  for back, front in pairs:
    feet = [pose.y + pose.height / 2 for (pose, _), *_ in (back.figures, front.figures)]
    assert feet[0] < feet[1]


@pytest.mark.parametrize(('small', 'large'), [('tie', 'person'), ('cup', 'table')])
def test_what_is_contained_is_in_front_and_what_touches_is_behind(in_context, small, large):
  shares = {True: [], False: []}
  for scene in in_context:
    for thing in scene.things:
      if thing.name == small:
        assert thing.host.name == large
        in_front = scene.things.index(thing) > scene.things.index(thing.host)
        shares[in_front].append((thing.mask & thing.host.mask).sum() / thing.mask.sum())
  assert min(len(shares[True]), len(shares[False])) > 20
  assert min(shares[True]) == 1.0
  assert min(shares[False]) >= 0.2 and max(shares[False]) <= 0.45


def test_of_dog_and_car_what_the_edge_cuts_off_is_in_front(in_context):
  fronts = []
  for scene in in_context:
    for back, front in itertools.pairwise(scene.things):
      beside = front.depth - back.depth < 1e-5 and {back.name, front.name} == {'car', 'dog'}
      if beside and (back.mask & front.mask).any():
        assert front.mask[:, [0, -1]].any() and not back.mask[:, [0, -1]].any()
        fronts.append(front.name)
  assert fronts.count('car') > 8 < fronts.count('dog')


def test_at_least_half_of_each_thing_shows(in_context):
  for scene in in_context:
    for thing, visible in zip(scene.things, scene.visible, strict=True):
      assert visible.sum() >= 0.5 * thing.mask.sum()


# What is in the scenes


@pytest.mark.parametrize('order', ['category', 'context'])
def test_frequencies(request, order):
  planned = request.getfixturevalue({'category': 'planned', 'context': 'in_context'}[order])
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
  figure = stage.Figure(pose, drawing)
  return stage.Thing(name, [figure], depth=0.0, host=host)


def test_mask_of_a_crowd_is_that_of_all_its_figures():
  first, second = rectangle('person', 0, 0, 10, 10), rectangle('person', 5, 5, 15, 15)
  crowd = stage.Thing('person', first.figures + second.figures, depth=0.0)
  assert crowd.is_crowd and not first.is_crowd
  np.testing.assert_array_equal(crowd.mask, first.mask | second.mask)
  assert crowd.mask.sum() == 175  # 100 + 100, 25 of them shared


def test_thing_of_which_nothing_shows_is_dropped_with_what_lies_on_it():
  person = rectangle('person', 0, 0, 20, 20)
  tie = rectangle('tie', 5, 5, 10, 10, host=person)
  table = rectangle('table', 0, 0, 20, 20)
  assert scenes._drop_hidden([person, table, tie], 20)[0] == [table]
  assert scenes._drop_hidden([], 20) == ([], [])


def test_what_belongs_to_what_is_dropped_is_dropped_too():
  person = rectangle('person', 0, 0, 20, 20)
  tie = rectangle('tie', 0, 30, 10, 40, host=person)
  ball = rectangle('ball', 30, 30, 40, 40, host=tie)
  table = rectangle('table', 0, 0, 20, 20)
  assert scenes._drop_hidden([person, tie, ball, table], 20)[0] == [table]


def test_thing_of_which_just_enough_shows_is_kept():
  car = rectangle('car', 0, 0, 20, 20)
  dogs = [rectangle('dog', 0, 0, 20, 10), rectangle('dog', 0, 10, 19, 20)]  # one row of 10 is free
  things, visible = scenes._drop_hidden([car, *dogs], 10)
  assert things == [car, *dogs] and [int(mask.sum()) for mask in visible] == [10, 200, 190]
  assert scenes._drop_hidden([car, *dogs], 11)[0] == dogs


def test_thing_that_shows_too_small_a_part_is_dropped():
  car, dog = rectangle('car', 0, 0, 20, 20), rectangle('dog', 0, 0, 20, 11)
  assert scenes._drop_hidden([car, dog], 20, min_share=0.5)[0] == [dog]
  assert scenes._drop_hidden([car, dog], 20, min_share=0.45)[0] == [car, dog]
