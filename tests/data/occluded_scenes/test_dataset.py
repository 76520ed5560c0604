"""Tests of OccludedScenes: its files as COCO's own tools read them, its annotations by hand."""

import collections
import hashlib
import json
import subprocess
import sys

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from oanet_tf.data.categories import PanopticCategories
from oanet_tf.data.occluded_scenes import dataset as occluded_scenes
from oanet_tf.data.occluded_scenes import scenes, shapes, stage
from oanet_tf.data.panoptic_map import MAX_SEGMENT_ID
from oanet_tf.errors import InputError
from tests.data.occluded_scenes.test_scenes import rectangle
from tests.segments import read_ids
from tests.small_files import small_files

NUM_TRAIN, NUM_VAL = 80, 20
NAMES = {c['id']: c['name'] for c in occluded_scenes.CATEGORIES}


@pytest.fixture(scope='module')
def dataset(tmp_path_factory):
  folder = tmp_path_factory.mktemp('data') / 'not' / 'there' / 'yet'
  occluded_scenes.generate(folder, NUM_TRAIN, NUM_VAL, image_size=128, seed=3)
  return folder


def read_panoptic(folder, split='train'):
  """The panoptic JSON and each image's map of ids."""
  annotations = folder / 'annotations'
  content = json.loads((annotations / f'panoptic_{split}.json').read_text())
  maps = [
    read_ids(annotations / f'panoptic_{split}' / a['file_name']) for a in content['annotations']
  ]
  return content, maps


def hashes(folder):
  return {
    str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
    for path in sorted(folder.rglob('*'))
    if path.is_file()
  }


def generate_small(folder, num_train=3, num_val=2, image_size=64, seed=0, order='category'):
  occluded_scenes.generate(folder, num_train, num_val, image_size, seed, order)
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
    ({'order': 'chaos'}, "order 'chaos' .*category, context"),
  ],
)
def test_arguments_out_of_range_are_refused(tmp_path, arguments, message):
  with pytest.raises(InputError, match=message):
    generate_small(tmp_path / 'out', **arguments)
  assert not list(tmp_path.iterdir())


def test_folder_that_holds_something_is_refused_and_untouched(tmp_path):
  (tmp_path / 'out').mkdir()
  (tmp_path / 'out' / 'mine.txt').write_text('mine')
  with pytest.raises(InputError, match='out: '):
    generate_small(tmp_path / 'out')
  assert [path.name for path in tmp_path.rglob('*')] == ['out', 'mine.txt']


def test_file_in_the_way_is_refused(tmp_path):
  (tmp_path / 'out').write_text('mine')
  for folder in (tmp_path / 'out', tmp_path / 'out' / 'below'):
    with pytest.raises(InputError, match=f'{folder}: '):
      generate_small(folder)
  assert (tmp_path / 'out').read_text() == 'mine'


def test_empty_folder_is_accepted(tmp_path):
  (tmp_path / 'out').mkdir()
  assert generate_small(tmp_path / 'out')
  assert [path.name for path in tmp_path.iterdir()] == ['out']


def test_interrupted_run_leaves_nothing(tmp_path, monkeypatch):
  write_image = occluded_scenes._write_image

  def fail_late(folder, split, index, *arguments):
    if split == 'val' and index == 1:
      raise KeyboardInterrupt
    return write_image(folder, split, index, *arguments)

  monkeypatch.setattr(occluded_scenes, '_write_image', fail_late)
  with pytest.raises(KeyboardInterrupt):
    generate_small(tmp_path / 'out')
  assert not list(tmp_path.iterdir())


def test_without_room_on_the_disk_the_folder_is_named_and_nothing_is_left(tmp_path):
  folder = tmp_path / 'new' / 'scenes'
  with small_files(1000), pytest.raises(InputError, match=f'{folder}: '):
    occluded_scenes.generate(folder, num_train=1, num_val=0, image_size=64)
  assert not list(tmp_path.iterdir())


def test_command_line(tmp_path):
  command = [
    sys.executable,
    '-m',
    'oanet_tf.data.occluded_scenes',
    '--output_dir',
    str(tmp_path / 'out'),
  ]
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
    'context': {'order': 'context'},
    'context again': {'order': 'context'},
  }.items():
    images[name] = generate_small(tmp_path / name, **arguments)
  first, longer, other = images['first'], images['longer'], images['other']
  assert first == images['again']
  assert images['context'] == images['context again']
  assert images['context'] != first
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


@pytest.mark.parametrize('kind', ['panoptic', 'instances'])
def test_fields_are_those_of_coco(coco_sample, dataset, kind):
  ours = json.loads((dataset / f'annotations/{kind}_val.json').read_text())
  theirs = json.loads((coco_sample / f'annotations/{kind}_val2017.json').read_text())
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


def test_ground_truth_as_prediction_has_pq_100(dataset, other_scores):
  path = dataset / 'annotations/panoptic_train.json'
  result = other_scores(path, path).result
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
  assert {c['name'] for c in coco.dataset['categories']} == shapes.SILHOUETTES.keys()


def test_categories_have_gaps_and_things_before_stuff():
  categories = PanopticCategories.from_coco(list(occluded_scenes.CATEGORIES))
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


# Annotations, by hand


def scene_of(stuff_map, *things):
  """A scene of things that do not overlap."""
  return scenes.Scene(('sky', 'road'), stuff_map, list(things), [t.mask for t in things])


def halves():
  """Sky in the upper half of 40 x 40 pixels, road in the lower."""
  return np.repeat(np.int32([[0], [1]]), 20, axis=0) * np.ones((1, 40), np.int32)


def test_annotations_of_a_scene():
  stuff_map = halves()
  stuff_map[0] = -1
  scene = scene_of(stuff_map, rectangle('person', 20, 0, 40, 40), rectangle('ball', 5, 10, 15, 20))
  segment_map, segments = occluded_scenes.panoptic_annotation(scene, 7)
  sky, person, ball = (occluded_scenes.segment_id(7, index) for index in (0, 2, 3))
  expected = np.full((40, 40), sky)
  expected[0] = 0
  expected[20:] = person
  expected[5:15, 10:20] = ball
  np.testing.assert_array_equal(segment_map, expected)
  assert segment_map.dtype == np.int32
  # The person covers the whole road: index 1 is left out, not given to another.
  assert segments == [
    {'id': sky, 'category_id': 187, 'iscrowd': 0, 'area': 660, 'bbox': [0, 1, 40, 19]},
    {'id': person, 'category_id': 1, 'iscrowd': 0, 'area': 800, 'bbox': [0, 20, 40, 20]},
    {'id': ball, 'category_id': 37, 'iscrowd': 0, 'area': 100, 'bbox': [10, 5, 10, 10]},
  ]
  instances = occluded_scenes.instance_annotations(scene, np.random.default_rng(0), 7)
  for instance, segment in zip(instances, segments[1:], strict=True):
    assert instance.pop('image_id') == 7
    assert instance.pop('segmentation')['size'] == [40, 40]
    assert instance == segment


def test_annotations_of_a_scene_without_things():
  segment_map, segments = occluded_scenes.panoptic_annotation(scene_of(halves()), 1)
  assert [(s['category_id'], s['area']) for s in segments] == [(187, 800), (149, 800)]
  assert set(np.unique(segment_map)) == {s['id'] for s in segments}
  assert occluded_scenes.instance_annotations(scene_of(halves()), np.random.default_rng(0), 1) == []


def test_crowd_is_one_segment():
  figures = [rectangle('person', 0, x, 5, x + 5).figures[0] for x in (0, 20)]
  scene = scene_of(halves(), stage.Thing('person', figures, depth=0.0))
  _, segments = occluded_scenes.panoptic_annotation(scene, 1)
  instances = occluded_scenes.instance_annotations(scene, np.random.default_rng(0), 1)
  for annotations in (segments, instances):
    crowds = [a for a in annotations if a['iscrowd']]
    assert [(a['category_id'], a['area'], a['bbox']) for a in crowds] == [(1, 50, [0, 0, 25, 5])]


def mask_areas(thing, in_front, image_size=128):
  rng = np.random.default_rng(0)
  return collections.Counter(
    int(occluded_scenes.instance_mask(thing, in_front, rng, image_size).sum()) for _ in range(600)
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


def test_in_scenes_of_context_things_are_outlined_whole():
  scene = scene_of(halves(), rectangle('person', 0, 0, 20, 20), rectangle('table', 11, 0, 30, 40))
  annotations = occluded_scenes.instance_annotations(
    scene, np.random.default_rng(0), 1, order='context'
  )
  assert [annotation['area'] for annotation in annotations] == [400, 760]


@hypothesis.given(
  st.lists(
    st.tuples(st.integers(1, occluded_scenes.MAX_IMAGES), st.integers(0, 31)),
    min_size=2,
    unique=True,
  )
)
def test_segment_ids_are_unique_24_bit_numbers(places):
  ids = [occluded_scenes.segment_id(*place) for place in places]
  assert len(set(ids)) == len(places)
  assert all(1 <= value <= MAX_SEGMENT_ID for value in ids)


def test_ids_of_images_that_differ_in_one_bit_differ():
  ids = {occluded_scenes.segment_id(1 + 2**bit, 0) for bit in range(19)}
  assert len(ids | {occluded_scenes.segment_id(1, 0)}) == 20
