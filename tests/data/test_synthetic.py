"""Tests of OccludedScenes: its files as COCO's own tools read them, its orders, its masks."""

import collections
import hashlib
import json
import pathlib
import subprocess
import sys

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from panopticapi import evaluation
from PIL import Image
from pycocotools.coco import COCO

from oanet_tf.data import panoptic_map, synthetic, synthetic_shapes
from oanet_tf.data.categories import PanopticCategories
from oanet_tf.errors import InputError

SAMPLE = pathlib.Path(__file__).resolve().parents[2].parent / 'shared' / 'coco_sample'
NUM_TRAIN, NUM_VAL = 80, 20
NAMES = {c['id']: c['name'] for c in synthetic.CATEGORIES}


@pytest.fixture(scope='module')
def dataset(tmp_path_factory):
  folder = tmp_path_factory.mktemp('data') / 'not' / 'there' / 'yet'
  synthetic.generate(folder, NUM_TRAIN, NUM_VAL, image_size=128, seed=3)
  return folder


@pytest.fixture(scope='module')
def scenes():
  """400 planned, unpainted scenes."""
  rng = np.random.default_rng(7)
  return [synthetic.plan_scene(rng, 128) for _ in range(400)]


def read_panoptic(folder, split='train'):
  """The panoptic JSON and each image's map of ids."""
  annotations = folder / 'annotations'
  content = json.loads((annotations / f'panoptic_{split}.json').read_text())
  maps = [
    panoptic_map.rgb_to_ids(
      np.array(Image.open(annotations / f'panoptic_{split}' / a['file_name']))
    )
    for a in content['annotations']
  ]
  return content, maps


def hashes(folder):
  return {
    str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
    for path in sorted(folder.rglob('*'))
    if path.is_file()
  }


def generate_small(folder, num_train=3, num_val=2, image_size=64, seed=0):
  synthetic.generate(folder, num_train, num_val, image_size, seed)
  return hashes(folder)


# What is refused


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ({'num_train': -1}, 'num_train -1 '),
    ({'num_val': 2**19}, 'num_val 524288 '),
    ({'image_size': 63}, 'image_size 63 '),
    ({'image_size': 10**6}, 'image_size 1000000 '),
    ({'seed': -5}, 'seed -5 '),
  ],
)
def test_arguments_out_of_range_are_refused(tmp_path, arguments, message):
  with pytest.raises(InputError, match=message):
    generate_small(tmp_path / 'out', **arguments)
  assert not list(tmp_path.iterdir())


def test_folder_that_holds_something_is_refused_and_untouched(tmp_path):
  (tmp_path / 'out').mkdir()
  (tmp_path / 'out' / 'mine.txt').write_text('mine')
  with pytest.raises(InputError, match='out: is not empty; remove it or choose another'):
    generate_small(tmp_path / 'out')
  assert [path.name for path in tmp_path.rglob('*')] == ['out', 'mine.txt']


def test_file_in_the_way_is_refused(tmp_path):
  (tmp_path / 'out').write_text('mine')
  for folder in (tmp_path / 'out', tmp_path / 'out' / 'below'):
    with pytest.raises(InputError, match='cannot be made'):
      generate_small(folder)
  assert (tmp_path / 'out').read_text() == 'mine'


def test_empty_folder_is_accepted(tmp_path):
  (tmp_path / 'out').mkdir()
  assert generate_small(tmp_path / 'out')
  assert [path.name for path in tmp_path.iterdir()] == ['out']


def test_interrupted_run_leaves_nothing(tmp_path, monkeypatch):
  write_image = synthetic._write_image

  def fail_late(folder, split, index, *arguments):
    if split == 'val' and index == 1:
      raise KeyboardInterrupt
    return write_image(folder, split, index, *arguments)

  monkeypatch.setattr(synthetic, '_write_image', fail_late)
  with pytest.raises(KeyboardInterrupt):
    generate_small(tmp_path / 'out')
  assert not list(tmp_path.iterdir())


def test_command_line(tmp_path):
  command = [sys.executable, '-m', 'oanet_tf.data.synthetic', '--output_dir', str(tmp_path / 'out')]
  command += ['--num_train', '2', '--num_val', '1', '--image_size', '64']
  first = subprocess.run(command, capture_output=True, text=True)
  assert (first.returncode, first.stdout) == (0, f'wrote {tmp_path}/out\n')
  assert 'train: 100%' in first.stderr
  assert len(list((tmp_path / 'out').rglob('*.jpg'))) == 3
  second = subprocess.run(command, capture_output=True, text=True)
  assert second.returncode == 2
  assert second.stderr.startswith('error: ') and second.stderr.count('\n') == 1


def test_split_without_images_is_valid(tmp_path):
  files = generate_small(tmp_path / 'out', num_train=0, num_val=1)
  assert 'val/000000000001.jpg' in files
  content = json.loads((tmp_path / 'out/annotations/panoptic_train.json').read_text())
  assert (content['images'], content['annotations'], len(content['categories'])) == ([], [], 13)
  assert (tmp_path / 'out/train').is_dir()


# The same bytes


def test_image_depends_on_seed_split_and_index_only(tmp_path):
  images = {}
  for name, arguments in {
    'first': {},
    'again': {},
    'longer': {'num_train': 5, 'num_val': 0},
    'other': {'seed': 1},
  }.items():
    images[name] = generate_small(tmp_path / name, **arguments)
  first, longer, other = images['first'], images['longer'], images['other']
  assert first == images['again']
  pictures = [name for name in first if name.endswith(('.jpg', '.png'))]
  assert len(pictures) == 10
  for name in pictures:
    assert first[name] != other[name]
    if 'train' in name:
      assert first[name] == longer[name]
      assert first[name] != first.get(name.replace('train', 'val'))


# COCO's layout, as COCO's tools see it


def test_layout(dataset):
  names = {str(path.relative_to(dataset)) for path in dataset.rglob('*') if path.is_file()}
  expected = set()
  for split, count in (('train', NUM_TRAIN), ('val', NUM_VAL)):
    expected |= {f'annotations/{kind}_{split}.json' for kind in ('panoptic', 'instances')}
    for i in range(1, count + 1):
      expected |= {f'{split}/{i:012d}.jpg', f'annotations/panoptic_{split}/{i:012d}.png'}
  assert names == expected
  assert [path.name for path in dataset.parent.iterdir()] == [dataset.name]


@pytest.mark.skipif(not SAMPLE.exists(), reason='the sample of real COCO is not there')
@pytest.mark.parametrize('kind', ['panoptic', 'instances'])
def test_fields_are_those_of_coco(dataset, kind):
  ours = json.loads((dataset / f'annotations/{kind}_val.json').read_text())
  theirs = json.loads((SAMPLE / f'annotations/{kind}_val2017.json').read_text())
  assert ours.keys() == theirs.keys()
  assert ours['info'].keys() == theirs['info'].keys()
  for key in ('licenses', 'images', 'annotations', 'categories'):
    assert ours[key][0].keys() == theirs[key][0].keys(), key
  if kind == 'panoptic':
    segments = [content['annotations'][0]['segments_info'][0] for content in (ours, theirs)]
    assert segments[0].keys() == segments[1].keys()


def test_panoptic_json_tells_what_the_pngs_hold(dataset):
  content, maps = read_panoptic(dataset)
  assert len(maps) == NUM_TRAIN
  ids = []
  for image, annotation, ids_map in zip(
    content['images'], content['annotations'], maps, strict=True
  ):
    assert image['id'] == annotation['image_id']
    assert Image.open(dataset / 'train' / image['file_name']).size == ids_map.shape[::-1]
    assert ids_map.shape == (image['height'], image['width'])
    segments = annotation['segments_info']
    ids += [segment['id'] for segment in segments]
    assert set(np.unique(ids_map)) - {0} == {segment['id'] for segment in segments}
    for segment in segments:
      rows, columns = np.nonzero(ids_map == segment['id'])
      box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
      assert (segment['area'], segment['bbox']) == (len(rows), box)
  assert len(ids) == len(set(ids))
  assert max(ids) > 2**16


def test_ground_truth_as_prediction_has_pq_100(dataset):
  path = str(dataset / 'annotations/panoptic_train.json')
  result = evaluation.pq_compute(path, path)
  assert result['All'] == {'pq': 1.0, 'sq': 1.0, 'rq': 1.0, 'n': 13}
  assert (result['Things']['n'], result['Stuff']['n']) == (8, 5)


def test_instances_hold_their_panoptic_segments(dataset):
  coco = COCO(str(dataset / 'annotations/instances_train.json'))
  content, maps = read_panoptic(dataset)
  things = 0
  for annotation, ids_map in zip(content['annotations'], maps, strict=True):
    segments = {s['id']: s for s in annotation['segments_info'] if s['category_id'] <= 90}
    instances = coco.imgToAnns[annotation['image_id']]
    assert {a['id'] for a in instances} == segments.keys()
    for instance in instances:
      mask = coco.annToMask(instance)
      assert isinstance(instance['segmentation']['counts'], str)
      assert mask.shape == ids_map.shape
      assert mask[ids_map == instance['id']].all()
      assert instance['area'] == mask.sum() >= segments[instance['id']]['area'] >= 20
      for key in ('category_id', 'iscrowd'):
        assert instance[key] == segments[instance['id']][key]
      things += 1
  assert things == len(coco.anns) > 2 * NUM_TRAIN
  assert {c['name'] for c in coco.dataset['categories']} == synthetic_shapes.SILHOUETTES.keys()


def test_categories_have_gaps_and_things_before_stuff():
  categories = PanopticCategories.from_coco(list(synthetic.CATEGORIES))
  assert (categories.num_things, categories.num_stuff) == (8, 5)
  ids = [c.id for c in categories]
  assert ids == sorted(ids) and ids[0] != 0 and min(np.diff(ids)[:7]) >= 1 < max(np.diff(ids)[:7])
  assert all(c.id > 90 for c in categories if not c.is_thing)
  assert len({c.color for c in categories}) == 13


# Who lies on whom


def test_visible_ties_and_cups_lie_inside_a_person_and_a_table(dataset):
  coco = COCO(str(dataset / 'annotations/instances_train.json'))
  _, maps = read_panoptic(dataset)
  riders = collections.Counter()
  for image_id, ids_map in enumerate(maps, start=1):
    instances = coco.imgToAnns[image_id]
    for rider in instances:
      host = {'tie': 'person', 'cup': 'table'}.get(NAMES[rider['category_id']])
      shown = ids_map == rider['id']
      if host and not any(
        coco.annToMask(other)[shown].all()
        for other in instances
        if NAMES[other['category_id']] == host and not other['iscrowd']
      ):
        pytest.fail(f'image {image_id}: {rider["id"]} lies on no {host}')
      riders[host] += bool(host)
  assert riders['person'] >= 10 and riders['table'] >= 15


def test_table_is_before_person_where_their_masks_overlap(dataset):
  coco = COCO(str(dataset / 'annotations/instances_train.json'))
  _, maps = read_panoptic(dataset)
  shared = 0
  for image_id, ids_map in enumerate(maps, start=1):
    masks = [
      (NAMES[a['category_id']], a['id'], coco.annToMask(a) > 0) for a in coco.imgToAnns[image_id]
    ]
    for _, person_id, person in (m for m in masks if m[0] == 'person'):
      for _, _, table in (m for m in masks if m[0] == 'table'):
        shared += (person & table).sum()
        assert not (ids_map[person & table] == person_id).any()
  assert shared > 1000


def overlaps(scenes, back, front):
  """How many pairs of the two categories overlap by over 10 px, in this order."""
  return sum(
    (below.mask & above.mask).sum() > 10
    for scene in scenes
    for index, below in enumerate(scene.things)
    for above in scene.things[index + 1 :]
    if (below.name, above.name) == (back, front)
  )


def test_fixed_orders_hold(scenes):
  for back, front in (('person', 'table'), ('person', 'tie'), ('table', 'cup')):
    assert overlaps(scenes, back, front) > 80
  assert overlaps(scenes, 'table', 'person') == 0
  for scene in scenes:
    for index, thing in enumerate(scene.things):
      if thing.host:
        assert scene.things.index(thing.host) < index
        assert thing.host.mask[thing.mask].all()


@pytest.mark.parametrize('pair', [('dog', 'car'), ('ball', 'person'), ('bag', 'person')])
def test_random_orders_occur_both_ways(scenes, pair):
  counts = overlaps(scenes, *pair), overlaps(scenes, *pair[::-1])
  assert min(counts) > 0.25 * sum(counts) > 5


@pytest.mark.parametrize('name', ['person', 'car'])
def test_things_of_a_category_overlap(scenes, name):
  assert overlaps(scenes, name, name) > 10


# What is in the scenes


def test_frequencies(scenes):
  names = collections.Counter(t.name for s in scenes for t in s.things if not t.is_crowd)
  assert names.keys() == synthetic_shapes.SILHOUETTES.keys()
  assert min(names.values()) > 0.26 * len(scenes)
  assert names['person'] > 0.8 * len(scenes) and names['table'] > 0.4 * len(scenes)
  assert 0.01 < np.mean([not s.things for s in scenes]) < 0.1
  assert 0.01 < np.mean([any(t.is_crowd for t in s.things) for s in scenes]) < 0.07
  assert 0.15 < np.mean([np.diff(s.stuff_map.shape) != 0 for s in scenes]) < 0.35
  assert 3 < np.mean([len(s.things) for s in scenes]) < 4.5
  assert max(len(s.stuff_names) + len(s.things) for s in scenes) < 32


def test_crowd_is_one_person_segment(scenes):
  scene = next(s for s in scenes if any(t.is_crowd for t in s.things))
  _, segments, instances = synthetic.annotate(scene, np.random.default_rng(0), 1, 128)
  for annotations in (segments, instances):
    assert [NAMES[a['category_id']] for a in annotations if a['iscrowd']] == ['person']
  assert len(scene.things[0].figures) >= 25


def test_background(scenes):
  for scene in scenes:
    assert len(set(scene.stuff_names)) == len(scene.stuff_names) in (2, 3)
    assert set(np.unique(scene.stuff_map)) - {-1} <= set(range(len(scene.stuff_names)))
  shares = np.concatenate(
    [np.bincount(s.stuff_map.ravel() + 1, minlength=3)[1:] / s.stuff_map.size for s in scenes]
  )
  assert np.mean(shares > 0.15) > 0.9
  assert 0.01 < np.mean([np.mean(s.stuff_map == -1) for s in scenes]) < 0.03


def test_visible_masks_are_disjoint_parts_of_the_silhouettes(scenes):
  for scene in scenes:
    assert np.sum([np.zeros_like(scene.stuff_map), *scene.visible], axis=0).max() <= 1
    for thing, visible in zip(scene.things, scene.visible, strict=True):
      assert thing.mask[visible].all() and visible.sum() >= 20


def test_small_things_are_large_enough_to_see(scenes):
  for name, height, width in (('tie', 10, 4), ('cup', 9, 9), ('ball', 12, 12), ('bag', 12, 12)):
    for thing in (t for s in scenes for t in s.things if t.name == name):
      clipped = thing.mask[[0, -1]].any() or thing.mask[:, [0, -1]].any()
      rows, columns = np.nonzero(thing.mask)
      assert clipped or (np.ptp(rows) + 1 >= height and np.ptp(columns) + 1 >= width)


@pytest.mark.parametrize('image_size', [64, 100, 256])
def test_sizes_scale(image_size):
  rng = np.random.default_rng(0)
  shares = []
  for _ in range(60):
    scene = synthetic.plan_scene(rng, image_size)
    image = synthetic.render(scene, rng, image_size)
    assert image.dtype == np.uint8 and image.shape == (*scene.stuff_map.shape, 3)
    assert sorted(image.shape[:2]) in (
      [image_size, image_size],
      [round(0.75 * image_size), image_size],
    )
    persons = [t.mask for t in scene.things if t.name == 'person' and not t.is_crowd]
    shares += [np.ptp(np.nonzero(mask)[0]) / image_size for mask in persons]
  assert 0.4 < np.median(shares) < 0.65


# Masks and ids, by hand


def rectangle(name, top, left, bottom, right, host=None):
  mask = np.zeros((40, 40), bool)
  mask[top:bottom, left:right] = True
  drawing = (mask * synthetic_shapes.FLAT).astype(np.uint8)
  pose = synthetic_shapes.Pose(0.0, 0.0, 1.0, 1.0, angle=0.0)
  return synthetic.Thing(name, [(pose, drawing)], mask, depth=0.0, host=host)


def mask_areas(thing, in_front, image_size=128):
  rng = np.random.default_rng(0)
  return collections.Counter(
    int(synthetic.instance_mask(thing, in_front, rng, image_size).sum()) for _ in range(600)
  )


def test_small_things_stay_in_the_mask_below():
  person = rectangle('person', 0, 0, 20, 20)
  assert mask_areas(person, []) == {400: 600}
  assert mask_areas(person, [rectangle('tie', 5, 5, 15, 15), rectangle('bag', 15, 0, 25, 10)]) == {
    400: 600
  }


@pytest.mark.parametrize('name', ['table', 'ball'])
def test_hiding_things_are_cut_off_exactly_or_with_a_margin_or_not_at_all(name):
  # 9 of the person's 20 rows are hidden: over 40 %.
  areas = mask_areas(rectangle('person', 0, 0, 20, 20), [rectangle(name, 11, 0, 30, 40)])
  assert areas.keys() == {400, 220, 240, 260, 280}  # whole, exact, margins of 1, 2 and 3 rows
  assert all(150 < areas[area] < 250 for area in (400, 220))
  assert all(40 < areas[area] < 100 for area in (240, 260, 280))


def test_margin_scales_with_the_image():
  areas = mask_areas(
    rectangle('person', 0, 0, 20, 20), [rectangle('table', 11, 0, 40, 40)], image_size=256
  )
  assert areas.keys() == {400, 220, 260, 300, 340}


def test_thing_of_which_nothing_shows_is_dropped_with_what_lies_on_it():
  person = rectangle('person', 0, 0, 20, 20)
  tie = rectangle('tie', 5, 5, 10, 10, host=person)
  table = rectangle('table', 0, 0, 20, 20)
  assert synthetic._drop_hidden([person, table, tie], 20)[0] == [table]
  assert synthetic._drop_hidden([], 20) == ([], [])


def test_thing_of_which_just_enough_shows_is_kept():
  car = rectangle('car', 0, 0, 20, 20)
  dogs = [rectangle('dog', 0, 0, 20, 10), rectangle('dog', 0, 10, 19, 20)]  # one row of 10 is free
  things, visible = synthetic._drop_hidden([car, *dogs], 10)
  assert things == [car, *dogs] and [int(mask.sum()) for mask in visible] == [10, 200, 190]
  assert synthetic._drop_hidden([car, *dogs], 11)[0] == dogs


@hypothesis.given(
  st.lists(
    st.tuples(st.integers(1, synthetic.MAX_IMAGES), st.integers(0, 31)), min_size=2, unique=True
  )
)
def test_segment_ids_are_unique_24_bit_numbers(places):
  ids = [synthetic.segment_id(*place) for place in places]
  assert len(set(ids)) == len(places)
  assert all(1 <= value <= panoptic_map.MAX_SEGMENT_ID for value in ids)


def test_ids_of_images_that_differ_in_one_bit_differ():
  ids = {synthetic.segment_id(1 + 2**bit, 0) for bit in range(19)}
  assert len(ids | {synthetic.segment_id(1, 0)}) == 20
