"""Panoptic files made of instances and semantic PNGs, on images of 4 × 6 pixels."""

import json
import os
import re
import shutil
import signal
import sys

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from pycocotools import mask as coco_mask

from oanet_tf import files
from oanet_tf.data import panoptic_of_instances
from oanet_tf.data.convert import convert
from oanet_tf.data.objects import Objects
from oanet_tf.data.occluded_scenes.dataset import generate
from oanet_tf.data.panoptic_of_instances import panoptic_segments, write_panoptic
from oanet_tf.errors import InputError
from tests.commands import convert as command
from tests.data import conversions
from tests.data.coco_files import encoded_picture, grid
from tests.data.conversions import flags, names, wait_until
from tests.segments import read_ids

PERSON, TIE, SKY, GRASS = 1, 2, 3, 4
NAMES = {PERSON: 'person', TIE: 'tie', SKY: 'sky', GRASS: 'grass'}
STUFF = ['sky', 'grass']

HIGH = 'xxx... xxx... xxx... xxx...'
LOW = '...... .xxxx. .xxxx. ......'
DOT = '...... ..x... ...... ......'
TOP = 'xxxxxx xxxxxx ...... ......'
RING = 'xxxx.. x..x.. xxxx.. ......'


def rle(text, compressed=False):
  """'x' marks the pixels of the mask."""
  mask = grid(text, x=1) == 1
  if compressed:
    coded = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    return {'counts': coded['counts'].decode(), 'size': coded['size']}
  flat = mask.T.ravel()
  bounds = [0, *np.flatnonzero(np.diff(flat, prepend=False)), flat.size]
  return {'counts': np.diff(bounds).tolist(), 'size': list(mask.shape)}


class Export:
  """An instances JSON of one image, which tests change and write."""

  def __init__(self, folder):
    self.folder = folder
    self.images = [{'id': 7, 'file_name': '7.jpg', 'height': 4, 'width': 6}]
    self.annotations = []
    self.categories = [{'id': i, 'name': name, 'supercategory': ''} for i, name in NAMES.items()]
    self.semantic = {}

  def add(self, category_id, segmentation, image_id=7, **more):
    """An annotation; its mask is text, or COCO's `segmentation`."""
    if isinstance(segmentation, str):
      segmentation = rle(segmentation)
    self.annotations.append(
      {
        'id': 100 + len(self.annotations),
        'image_id': image_id,
        'category_id': category_id,
        'segmentation': segmentation,
        'iscrowd': 0,
        **more,
      }
    )
    return self

  def write(self):
    """Gives the arguments of `convert`."""
    (self.folder / 'img').mkdir(parents=True, exist_ok=True)
    content = {key: getattr(self, key) for key in ('images', 'annotations', 'categories')}
    (self.folder / 'inst.json').write_text(json.dumps(content))
    for image in self.images:
      if 'file_name' in image:
        path = self.folder / 'img' / image['file_name']
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encoded_picture(np.zeros([4, 6, 3], np.uint8)))
    for name, values in self.semantic.items():
      path = self.folder / 'sem' / name
      path.parent.mkdir(parents=True, exist_ok=True)
      (values if isinstance(values, Image.Image) else Image.fromarray(values)).save(path)
    paths = {'image_dir': self.folder / 'img', 'instances_json': self.folder / 'inst.json'}
    return {**paths, 'semantic_dir': self.folder / 'sem'} if self.semantic else paths

  def panoptic(self, **options):
    """Writes the panoptic files; gives the map of the image and its segments."""
    paths = self.write()
    del paths['image_dir']
    output = self.folder / 'out'
    output.mkdir(exist_ok=True)
    folder, _ = write_panoptic(json_path=output / 'a.json', num_workers=1, **paths, **options)
    (annotation,) = json.loads((output / 'a.json').read_text())['annotations']
    segments = [(s['category_id'], s['iscrowd']) for s in annotation['segments_info']]
    ids = [s['id'] for s in annotation['segments_info']]
    assert ids == list(range(1, len(ids) + 1))
    return read_ids(folder / annotation['file_name']).tolist(), segments


@pytest.fixture
def export(tmp_path):
  return Export(tmp_path / 'export')


def ids(text):
  return [[0 if digit == '.' else int(digit) for digit in row] for row in text.split()]


# What lies on top.


def test_smaller_masks_lie_on_top(export):
  """LOW has 8 pixels, HIGH 12, DOT 1."""
  export.add(PERSON, DOT).add(PERSON, LOW).add(TIE, HIGH)
  shown, segments = export.panoptic()
  assert shown == ids('333... 32122. 32222. 333...')
  assert segments == [(PERSON, 0), (PERSON, 0), (TIE, 0)]


def test_later_masks_lie_on_top(export):
  export.add(PERSON, LOW).add(TIE, HIGH).add(PERSON, DOT)
  shown, segments = export.panoptic(on_top='later')
  assert shown == ids('222... 22311. 22211. 222...')
  assert segments == [(PERSON, 0), (TIE, 0), (PERSON, 0)]


def test_of_equal_masks_the_later_lies_on_top(export):
  export.add(PERSON, LOW).add(TIE, LOW)
  shown, segments = export.panoptic()
  # The person has no pixel left, hence is no segment.
  assert shown == ids('...... .1111. .1111. ......')
  assert segments == [(TIE, 0)]


def test_wholly_covered_masks_are_no_segments(export):
  export.add(PERSON, DOT).add(TIE, HIGH).add(SKY, TOP).add(PERSON, LOW)
  shown, segments = export.panoptic(on_top='later', stuff=STUFF)
  assert shown == ids('111333 122223 12222. 111...')
  assert segments == [(TIE, 0), (PERSON, 0), (SKY, 0)]


def test_things_lie_over_smaller_and_later_stuff(export):
  export.add(PERSON, HIGH).add(SKY, DOT).add(GRASS, LOW)
  for on_top in ('smaller', 'later'):
    shown, segments = export.panoptic(on_top=on_top, stuff=STUFF)
    assert shown == ids('111... 11122. 11122. 111...')
    assert segments == [(PERSON, 0), (GRASS, 0)]


def test_stuff_of_a_category_is_one_segment(export):
  """Among stuff, too, the smaller lies on top. The sky is no crowd, whatever the JSON says."""
  export.add(SKY, DOT, iscrowd=1).add(GRASS, LOW).add(SKY, TOP)
  shown, segments = export.panoptic(stuff=STUFF)
  assert shown == ids('111111 121221 .2222. ......')
  assert segments == [(SKY, 0), (GRASS, 0)]


def test_crowds_lie_below_other_things_and_over_stuff(export):
  export.add(PERSON, HIGH).add(TIE, LOW, iscrowd=1).add(SKY, TOP)
  for on_top in ('smaller', 'later'):
    shown, segments = export.panoptic(on_top=on_top, stuff=STUFF)
    assert shown == ids('111333 111223 11122. 111...')
    assert segments == [(PERSON, 0), (TIE, 1), (SKY, 0)]


def test_holes_show_what_lies_below(export):
  export.add(PERSON, RING).add(SKY, TOP)
  shown, _ = export.panoptic(stuff=STUFF)
  assert shown == ids('111122 122122 1111.. ......')


def test_without_stuff_all_categories_are_things(export):
  export.add(SKY, TOP).add(SKY, LOW)
  shown, segments = export.panoptic()
  assert shown == ids('111111 122221 .2222. ......')
  assert segments == [(SKY, 0), (SKY, 0)]


def test_kinds_of_masks(export):
  export.add(PERSON, [[0, 0, 2, 0, 2, 2, 0, 2], [4, 2, 6, 2, 6, 4, 4, 4]])
  export.add(TIE, rle(DOT, compressed=True)).add(TIE, rle('...... ...... .....x ......'))
  shown, segments = export.panoptic()
  assert shown == ids('11.... 112... ....13 ....11')
  assert segments == [(PERSON, 0), (TIE, 0), (TIE, 0)]


@st.composite
def layers(draw):
  """Annotations of one image with stuff below them, and what lies on top."""
  masks = draw(st.lists(hnp.arrays(bool, (4, 6)).filter(np.any), max_size=6))
  count = len(masks)
  ids_of = draw(st.lists(st.sampled_from([*NAMES]), min_size=count, max_size=count))
  crowds = draw(st.lists(st.booleans(), min_size=count, max_size=count))
  whole = [[0, 0, 4, 6]] * count
  objects = Objects(
    np.array(whole, np.float32).reshape(-1, 4),
    np.array(ids_of, np.int32),
    np.array(crowds, bool),
    masks,
  )
  stuff = draw(hnp.arrays(np.int32, (4, 6), elements=st.integers(0, 2)))
  return objects, stuff, draw(st.sampled_from(['smaller', 'later']))


@given(layers())
def test_every_pixel_is_of_what_covers_it(drawn):
  objects, stuff, on_top = drawn
  segments = panoptic_segments(objects, stuff, [SKY, GRASS], on_top)
  covered = (stuff > 0) | np.any([np.zeros([4, 6], bool), *objects.masks], axis=0)
  np.testing.assert_array_equal(segments.index > 0, covered)
  assert len(set(segments.ids.tolist())) == len(segments.ids)
  things_cover = np.any(
    [m for m, i in zip(objects.masks, objects.category_ids, strict=True) if i in (PERSON, TIE)]
    or [np.zeros([4, 6], bool)],
    axis=0,
  )
  for number, (category_id, is_crowd) in enumerate(
    zip(segments.category_ids.tolist(), segments.is_crowd.tolist(), strict=True), start=1
  ):
    shown = segments.index == number
    assert shown.any()
    alike = [
      mask
      for mask, one, crowd in zip(
        objects.masks, objects.category_ids.tolist(), objects.is_crowd.tolist(), strict=True
      )
      if one == category_id and (category_id in (SKY, GRASS) or crowd == is_crowd)
    ]
    if category_id in (SKY, GRASS):
      below = stuff == [SKY, GRASS].index(category_id) + 1
      assert not (shown & ~np.any([below, *alike], axis=0)).any()
      assert not is_crowd and not (shown & things_cover).any()
    else:
      # One annotation covers the segment.
      assert any(not (shown & ~mask).any() for mask in alike)
  stuff_shown = segments.category_ids[np.isin(segments.category_ids, [SKY, GRASS])].tolist()
  assert len(set(stuff_shown)) == len(stuff_shown)


# Semantic PNGs.


def sky_over_grass(sky=SKY, grass=GRASS, dtype=np.uint8):
  return grid('ssssss ssssss gggggg gggggg', s=sky, g=grass).astype(dtype)


@pytest.mark.parametrize('kind', ['grey', 'grey of 16 bits', 'palette'])
def test_stuff_of_semantic_pngs(export, kind):
  picture = Image.fromarray(sky_over_grass())
  if kind == 'palette':
    picture.putpalette([value for i in range(256) for value in (255 - i, 9, 9)])
  elif kind != 'grey':
    picture = Image.fromarray(sky_over_grass(dtype=np.uint16))
  export.semantic['7.png'] = picture
  export.add(PERSON, HIGH)
  shown, segments = export.panoptic(stuff=STUFF)
  assert shown == ids('111222 111222 111333 111333')
  assert segments == [(PERSON, 0), (SKY, 0), (GRASS, 0)]


def test_values_of_semantic_pngs(export):
  """0, 255 and things are void; annotations of stuff are left out for the PNGs."""
  values = sky_over_grass(sky=TIE, grass=0)
  values[0] = 255
  values[3] = 40
  export.semantic['sub/7.png'] = values
  export.add(PERSON, DOT).add(SKY, LOW)
  shown, segments = export.panoptic(stuff=['sky', 'road=40'])
  assert shown == ids('...... ..1... ...... 222222')
  assert segments == [(PERSON, 0), (40, 0)]
  content = json.loads((export.folder / 'out' / 'a.json').read_text())
  kinds = {
    category['name']: (category['id'], category['isthing']) for category in content['categories']
  }
  assert kinds['road'] == (40, 0) and kinds['sky'] == (SKY, 0) and kinds['grass'] == (GRASS, 1)


def test_void_values_may_be_stuff(export):
  export.semantic['7.png'] = sky_over_grass(grass=255)
  export.add(PERSON, DOT)
  shown, segments = export.panoptic(stuff=['sky', 'road=255'])
  assert shown == ids('222222 221222 333333 333333')
  assert segments[1:] == [(SKY, 0), (255, 0)]


def test_values_above_255(export):
  export.semantic['7.png'] = sky_over_grass(grass=30000, dtype=np.uint16)
  export.add(PERSON, DOT)
  assert export.panoptic(stuff=['sky', 'road=30000'])[1] == [(PERSON, 0), (SKY, 0), (30000, 0)]


def test_an_image_without_things_has_stuff(export):
  export.semantic['7.png'] = sky_over_grass()
  assert export.panoptic(stuff=STUFF)[1] == [(SKY, 0), (GRASS, 0)]


@pytest.mark.parametrize(
  ('picture', 'fact'),
  [
    (sky_over_grass(grass=77), r'sem/7\.png: .*\b77\b'),
    (sky_over_grass()[:3], r'sem/7\.png: .*6 × 3 .*6 × 4'),
    (np.zeros([4, 6, 3], np.uint8), r'sem/7\.png: .*PNG RGB'),
    # Of one bit; Pillow would give other numbers than the file's.
    (Image.fromarray(np.ones([4, 6], bool)), r'sem/7\.png: .*8 or 16 bits'),
  ],
)
def test_semantic_pngs_that_are_refused(export, picture, fact):
  export.semantic['7.png'] = picture
  with pytest.raises(InputError, match=fact):
    export.add(PERSON, DOT).panoptic(stuff=STUFF)
  assert names(export.folder / 'out') == []


def test_semantic_pngs_are_found_by_stem_or_path(export):
  export.images = [
    {'id': name, 'file_name': f'{name}.jpg', 'height': 4, 'width': 6} for name in ('a/1', 'b/1')
  ]
  export.semantic = {'a/1.png': sky_over_grass(SKY, SKY), 'b/1.png': sky_over_grass(GRASS, GRASS)}
  options = {**export.write(), 'stuff': STUFF, 'num_workers': 1}
  del options['image_dir']
  (export.folder / 'out').mkdir()
  write_panoptic(json_path=export.folder / 'out' / 'a.json', **options)
  content = json.loads((export.folder / 'out' / 'a.json').read_text())
  found = {a['file_name']: a['segments_info'][0]['category_id'] for a in content['annotations']}
  assert found == {'a/1.png': SKY, 'b/1.png': GRASS}
  for missing, fact in (
    ('a/1.png', r'sem/a/1\.png: '),
    ('b/1.png', r'sem/a/1\.png: '),
  ):
    (export.folder / 'sem' / missing).unlink()
    with pytest.raises(InputError, match=fact):
      write_panoptic(json_path=export.folder / 'out' / 'a.json', **options)


def test_semantic_pngs_of_one_name(export):
  export.semantic = {'a/7.png': sky_over_grass(), 'b/7.png': sky_over_grass()}
  with pytest.raises(InputError, match=r'sem: .*(a/7\.png .*b/7\.png|b/7\.png .*a/7\.png)'):
    export.add(PERSON, DOT).panoptic(stuff=STUFF)


def test_the_truth_of_scenes_is_made_again(tmp_path):
  """OccludedScenes lists what lies on top later; its truth is known without these masks."""
  scenes = tmp_path / 'scenes'
  generate(scenes, num_train=0, num_val=5, image_size=64)
  annotations = scenes / 'annotations'
  truth = json.loads((annotations / 'panoptic_val.json').read_text())
  (tmp_path / 'sem').mkdir()
  maps = {}
  for annotation in truth['annotations']:
    png = annotation['file_name']
    id_map = read_ids(annotations / 'panoptic_val' / png)
    table = {0: 0, **{one['id']: one['category_id'] for one in annotation['segments_info']}}
    values = np.vectorize(table.get)(id_map)
    Image.fromarray(values.astype(np.uint8)).save(tmp_path / 'sem' / png)
    maps[png] = id_map
  stuff = [f'{one["name"]}={one["id"]}' for one in truth['categories'] if not one['isthing']]
  folder, _ = write_panoptic(
    annotations / 'instances_val.json', tmp_path / 'made.json', stuff, 'later', tmp_path / 'sem', 1
  )
  made = json.loads((tmp_path / 'made.json').read_text())
  for one, other in zip(truth['annotations'], made['annotations'], strict=True):
    pairs = np.stack([maps[one['file_name']], read_ids(folder / other['file_name'])], axis=-1)
    pairs = np.unique(pairs.reshape(-1, 2), axis=0).tolist()
    of_truth, of_made = (
      {0: None, **{info['id']: (info['category_id'], info['iscrowd']) for info in infos}}
      for infos in (one['segments_info'], other['segments_info'])
    )
    # Each segment is exactly one of the other's.
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
    assert all(of_truth[a] == of_made[b] for a, b in pairs)


# What is wrong or missing in the JSON.


def test_annotations_without_a_mask_are_counted(export, capsys):
  export.add(PERSON, DOT).add(PERSON, [], bbox=[0, 0, 3, 3]).add(TIE, [])
  del export.annotations[2]['segmentation']
  summary = convert(
    panoptic_json=None, panoptic_dir=None, output_dir=export.folder / 'rec', split='t',
    num_workers=1, **export.write(),
  )  # fmt: skip
  assert (summary.objects, summary.segments, summary.empty_instances) == (1, 1, 2)
  assert 'inst.json: 2 annotations without a mask' in capsys.readouterr().err


@pytest.mark.parametrize('is_crowd', [[1, 1, 0], [1, 0, 0]])
def test_things_that_are_mostly_crowds_are_told(export, capsys, is_crowd):
  for one in is_crowd:
    export.add(PERSON, DOT, iscrowd=one)
  export.add(SKY, TOP, iscrowd=0).add(SKY, TOP, iscrowd=0).panoptic(stuff=['sky'])
  assert ('inst.json: 2 of 3 things are crowds' in capsys.readouterr().err) == (sum(is_crowd) == 2)


def test_ids_of_annotations_may_be_strings(export):
  export.add(PERSON, DOT, id='8b1f-a').add(PERSON, [[1, 2, 3]], id='8b1f-b')
  with pytest.raises(InputError, match='annotation 8b1f-b: malformed'):
    export.panoptic()


@pytest.mark.parametrize('segmentation', [None, []])
def test_annotations_none_of_which_has_a_mask(export, segmentation):
  with pytest.raises(InputError, match=r'inst\.json: .* 1 annotations has a mask'):
    export.add(PERSON, segmentation).panoptic()


def two_more_images(export):
  export.images += [{**export.images[0], 'id': i, 'file_name': f'{i}.jpg'} for i in (8, 9)]
  for image in export.images:
    export.add(PERSON, HIGH, image_id=image['id'])
  return export


@pytest.mark.parametrize('trouble', ['polygon', 'semantic PNG', 'missing PNG', 'size'])
def test_skip_leaves_out_the_image_with_an_error_alone(export, trouble, capsys):
  two_more_images(export)
  export.semantic = {f'{i}.png': sky_over_grass() for i in (7, 8, 9)}
  if trouble == 'polygon':
    export.add(PERSON, [[1, 2, 3]], image_id=8)
  elif trouble == 'size':
    export.images[1] |= {'height': 10**5, 'width': 10**5}
  elif trouble == 'missing PNG':
    del export.semantic['8.png']
  else:
    export.semantic['8.png'] = sky_over_grass()[:2]
  made = run(export, on_error='skip', stuff=STUFF)
  assert {name for name in made if name.startswith('t_panoptic/')} == {
    't_panoptic/7.png',
    't_panoptic/9.png',
  }
  summary = json.loads(made['t_summary.json'])
  assert (summary['images'], summary['skipped_images'], summary['unannotated_images']) == (2, 1, 0)
  (skipped,) = summary['skipped']
  assert (skipped['image_id'], skipped['file_name']) == (8, '8.jpg')
  assert 'inst.json: 1 images with an error' in capsys.readouterr().err
  # What is there stays, and is still counted; without `skip`, the error is told.
  assert run(export, on_error='skip', stuff=STUFF) == made
  place = re.escape(skipped['reason'].partition(': ')[0])
  with pytest.raises(InputError, match=place):
    run(export, stuff=STUFF)


def test_skip_goes_on_after_it_was_stopped(export, monkeypatch):
  two_more_images(export).add(PERSON, [[1, 2, 3]], image_id=8)
  wanted = run(export, 'whole', on_error='skip', num_shards=2)
  written = []

  def write_one(self, content):
    written.append(content)
    if len(written) > 1:
      raise KeyboardInterrupt
    return write(self, content)

  write = tf.io.TFRecordWriter.write
  monkeypatch.setattr(tf.io.TFRecordWriter, 'write', write_one)
  with pytest.raises(KeyboardInterrupt):
    run(export, on_error='skip', num_shards=2)
  monkeypatch.undo()
  assert run(export, on_error='skip', num_shards=2) == wanted


def test_skip_does_not_hide_that_nothing_is_left(export):
  export.add(PERSON, [[1, 2, 3]])
  with pytest.raises(InputError, match=r'inst\.json: no image is left'):
    run(export, on_error='skip')


def test_skip_does_not_take_a_full_disk_for_a_wrong_image(export, monkeypatch):
  def fail(path, segments):
    raise InputError(f'{path}: cannot be written (full)')

  monkeypatch.setattr(panoptic_of_instances, 'write_panoptic_png', fail)
  with pytest.raises(InputError, match='full'):
    run(two_more_images(export), on_error='skip')


def test_an_image_without_annotations_is_void(export):
  export.add(PERSON, DOT)
  export.images.append({'id': 8, 'file_name': '8.png', 'height': 1, 'width': 2})
  output = export.folder / 'out'
  output.mkdir(parents=True)
  export.write()
  folder, _ = write_panoptic(export.folder / 'inst.json', output / 'a.json', num_workers=1)
  content = json.loads((output / 'a.json').read_text())
  assert [len(a['segments_info']) for a in content['annotations']] == [1, 0]
  assert read_ids(folder / '8.png').tolist() == [[0, 0]]


def test_an_export_without_annotations(export):
  with pytest.raises(InputError, match=r'inst\.json: `annotations` is empty'):
    export.panoptic()


@pytest.mark.parametrize(
  ('change', 'fact'),
  [
    ({'segmentation': [[1, 2, 3]]}, 'annotation 101: malformed polygon'),
    ({'segmentation': {'counts': [7], 'size': [4, 6]}}, 'annotation 101: RLE of 7 pixels'),
    ({'segmentation': 'x'}, 'annotation 101: `segmentation`'),
    ({'category_id': 9}, 'annotation 101: category 9'),
    ({'image_id': 9}, 'image 9'),
    ({'iscrowd': 2}, 'annotation 101: `iscrowd` 2'),
  ],
)
def test_malformed_annotations(export, change, fact):
  export.add(PERSON, DOT).add(PERSON, DOT).annotations[1].update(change)
  with pytest.raises(InputError, match=rf'^[^\n]*inst\.json: [^\n]*{fact}'):
    export.panoptic()
  assert names(export.folder / 'out') == []


def renamed(export, file_name):
  """Converts the export with another name of its image in the JSON."""
  paths = export.write()
  content = json.loads(paths['instances_json'].read_text())
  content['images'][0]['file_name'] = file_name
  paths['instances_json'].write_text(json.dumps(content))
  return convert(
    panoptic_json=None, panoptic_dir=None, output_dir=export.folder / 'rec', split='t',
    num_workers=1, **paths,
  )  # fmt: skip


@pytest.mark.parametrize('file_name', ['../7.jpg', '/7.jpg', '..', '', '.', 'a\0b'])
def test_images_outside_their_folder(export, file_name):
  with pytest.raises(InputError, match=r'\.json: image 7: '):
    renamed(export.add(PERSON, DOT), file_name)
  assert not (export.folder / '7.png').exists()


def test_names_of_images_that_some_tools_write(export):
  export.images[0]['file_name'] = 'sub/7.jpg'
  export.add(PERSON, DOT)
  assert renamed(export, 'sub\\7.jpg').images == 1
  assert (export.folder / 'rec' / 't_panoptic' / 'sub' / '7.png').is_file()
  shutil.rmtree(export.folder / 'rec')
  assert renamed(export, str(export.folder / 'img' / 'sub' / '7.jpg')).images == 1


def test_images_whose_pngs_would_have_one_name(export):
  export.images.append({**export.images[0], 'id': 8, 'file_name': '7.png'})
  export.add(PERSON, DOT).add(TIE, LOW, image_id=8)
  files_made = run(export)
  assert {'t_panoptic/7.png', 't_panoptic/7_2.png'} < {*files_made}
  export.semantic['7.png'] = sky_over_grass()
  with pytest.raises(InputError, match=r'inst\.json: .*image file 7\.png '):
    run(export, 'other', stuff=STUFF)


def test_too_large_an_image(export):
  export.images[0] |= {'height': 10**5, 'width': 10**5}
  with pytest.raises(InputError, match=r'inst\.json: image 7: .*100000 × 100000'):
    export.add(PERSON, DOT).panoptic()


@pytest.mark.parametrize('categories', [None, {}, [], [3], [{'id': 1}], [{'name': 'a'}]])
def test_malformed_categories(export, categories):
  export.categories = categories
  with pytest.raises(InputError, match=r'inst\.json: '):
    export.add(PERSON, DOT).panoptic()


@pytest.mark.parametrize(
  ('stuff', 'fact'),
  [
    (['sky', 'gras'], "'gras'.*nearest: grass"),
    (['road=40'], "'road'.*no semantic PNGs"),
    ([*NAMES.values()], 'nothing is a thing'),
  ],
)
def test_stuff_that_is_refused(export, stuff, fact):
  with pytest.raises(InputError, match=rf'^[^\n]*inst\.json: [^\n]*{fact}[^\n]*$'):
    export.add(PERSON, DOT).panoptic(stuff=stuff)


@pytest.mark.parametrize('stuff', ['sky=40', f'road={PERSON}', 'road=x', 'road=70000', '=40'])
def test_stuff_of_semantic_pngs_that_is_refused(export, stuff):
  export.semantic['7.png'] = sky_over_grass()
  with pytest.raises(InputError, match=r'inst\.json: '):
    export.add(PERSON, DOT).panoptic(stuff=[stuff])


# The files.


def contents(folder):
  return {
    str(path.relative_to(folder)): path.read_bytes()
    for path in sorted(folder.rglob('*'))
    if path.is_file()
  }


def run(export, output='rec', **options):
  """Converts the export, and gives the content of all files."""
  output = export.folder / output
  defaults = {'panoptic_json': None, 'panoptic_dir': None, 'split': 't', 'num_workers': 1}
  convert(output_dir=output, **{**defaults, **export.write(), **options})
  return contents(output)


def test_the_command(export, capsys):
  export.add(PERSON, HIGH).add(TIE, DOT).add(SKY, TOP)
  command.main(flags(export.write(), export.folder / 'rec', 't', num_workers=1, stuff='sky'))
  assert '3 segments (0 crowds)' in capsys.readouterr().out
  assert names(export.folder / 'rec') == [
    'categories.json',
    't-00000-of-00001.tfrecord',
    't_panoptic',
    't_panoptic.json',
    't_summary.json',
  ]


def test_the_bytes_do_not_depend_on_the_number_of_processes(export):
  export.images = [
    {'id': f'{i}', 'file_name': f'{i}.jpg', 'height': 4, 'width': 6} for i in range(40)
  ]
  for i in range(40):
    export.add(PERSON, HIGH, image_id=f'{i}').add(TIE, DOT, image_id=f'{i}')
  assert run(export) == run(export, 'two', num_workers=2)


@pytest.mark.parametrize('has_pngs', [False, True])
def test_the_same_command_again_writes_nothing(export, has_pngs):
  if has_pngs:
    export.semantic['7.png'] = sky_over_grass()
  export.add(PERSON, HIGH)
  first = run(export, stuff=STUFF)
  # The summary is written again, as ever.
  paths = {*(export.folder / 'rec').rglob('t*')} - {export.folder / 'rec' / 't_summary.json'}
  times = {path: path.stat().st_mtime_ns for path in paths}
  assert len(times) == 3
  assert run(export, stuff=['grass', 'sky']) == first
  assert {path: path.stat().st_mtime_ns for path in paths} == times


def test_other_input_replaces_panoptic_files_until_there_are_shards(export):
  export.add(PERSON, HIGH)
  with pytest.raises(InputError, match='9 shards'):
    run(export, num_shards=9)
  assert names(export.folder / 'rec') == ['t_panoptic', 't_panoptic.json']
  export.add(PERSON, LOW)
  made = run(export)
  assert made == run(export, 'fresh')
  export.semantic['7.png'] = sky_over_grass()
  for options in ({'on_top': 'later', 'semantic_dir': None}, {'stuff': STUFF}):
    with pytest.raises(InputError, match=r't_panoptic\.json: .*another (on_top|stuff) '):
      run(export, **options)
  assert contents(export.folder / 'rec') == made


def test_a_changed_semantic_png_is_noticed(export):
  export.semantic['7.png'] = sky_over_grass()
  export.add(PERSON, HIGH)
  run(export, stuff=STUFF)
  export.semantic['7.png'] = sky_over_grass()[::-1]
  with pytest.raises(InputError, match=r't_panoptic\.json: .*another semantic_pngs '):
    run(export, stuff=STUFF)


def test_what_a_killed_run_left_does_not_matter(export):
  export.add(PERSON, HIGH)
  expected = run(export)
  output = export.folder / 'rec'
  # Between the JSON and the folder of the PNGs.
  (output / 't_panoptic').rename(output / '.t_panoptic.part')
  (output / '.t_panoptic.part' / '8.png').write_bytes(b'half')
  assert run(export) == expected


def test_an_interrupted_run_leaves_nothing(export, monkeypatch):
  def interrupt(path, text, durable=False):
    raise KeyboardInterrupt

  export.add(PERSON, HIGH)
  with monkeypatch.context() as patch:
    patch.setattr(files, 'write_text', interrupt)
    with pytest.raises(KeyboardInterrupt):
      run(export)
  assert not (export.folder / 'rec').exists()
  run(export)


def test_files_of_other_origin_are_not_replaced(export):
  export.add(PERSON, HIGH)
  output = export.folder / 'rec'
  (output / 't_panoptic').mkdir(parents=True)
  (output / 't_panoptic' / 'mine.png').write_bytes(b'mine')
  with pytest.raises(InputError, match='t_panoptic: '):
    run(export)
  (output / 't_panoptic.json').write_text('{"annotations": []}')
  with pytest.raises(InputError, match=r't_panoptic\.json: '):
    run(export)
  assert contents(output) == {
    't_panoptic.json': b'{"annotations": []}',
    't_panoptic/mine.png': b'mine',
  }


@pytest.mark.parametrize(
  'given',
  [
    {},
    {'panoptic_json': 'p'},
    {'panoptic_dir': 'p', 'instances_json': 'i'},
    {'panoptic_json': 'p', 'panoptic_dir': 'p', 'stuff': 'sky'},
    {'panoptic_json': 'p', 'panoptic_dir': 'p', 'on_top': 'later'},
    {'panoptic_json': 'p', 'panoptic_dir': 'p', 'semantic_dir': 's'},
    {'instances_json': 'i', 'semantic_dir': 's'},
    {'instances_json': 'i', 'things': 'person'},
  ],
)
def test_arguments_that_do_not_go_together(given, capsys, tmp_path):
  with pytest.raises(SystemExit) as caught:
    command.main(flags({'image_dir': 'img', **given}, tmp_path / 'o'))
  assert caught.value.code == 2
  assert 'usage: ' in capsys.readouterr().err
  arguments = {'panoptic_json': None, 'panoptic_dir': None, **given}
  with pytest.raises(InputError, match=r'panoptic_json|panoptic_dir|semantic_dir|things'):
    convert('img', output_dir=tmp_path / 'o', split='t', **arguments)


@pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')
def test_an_interrupt_of_several_processes_leaves_nothing(export):
  paths = export.add(PERSON, HIGH).write()
  content = json.loads(paths['instances_json'].read_text())
  # There are no such pictures; it is stopped before they are missed.
  content['images'] += [
    {**export.images[0], 'id': 1000 + i, 'file_name': f'{1000 + i}.jpg'} for i in range(10_000)
  ]
  paths['instances_json'].write_text(json.dumps(content))
  output = export.folder / 'rec'
  arguments = flags(paths, output, 't', num_workers=2)
  with conversions.started([conversions.SCRIPT, *arguments]) as process:
    wait_until(lambda: (output / '.t_panoptic.part' / '7.png').exists())
    workers = conversions.children(process)
    assert len(workers) == 2
    for pid in [*workers, process.pid]:  # As a terminal does.
      os.kill(pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
  assert process.returncode == 130 and 'Traceback' not in err
  assert not output.exists()
