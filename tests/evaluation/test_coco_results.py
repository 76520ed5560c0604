"""The results writer and reader as inverses, and their files in other people's tools."""

import json
import os
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as np_st
from PIL import Image
from pycocotools.coco import COCO

from oanet_tf.data.panoptic_map import MAX_SEGMENT_ID, write_panoptic_png
from oanet_tf.errors import InputError
from oanet_tf.evaluation.coco_results import (
  PanopticResultsWriter,
  read_results,
  write_testdev_zip,
)
from tests.categories import CATEGORIES, PERSON, SKY
from tests.segments import id_map, segments_of_ids
from tests.small_files import small_files

TWO_SEGMENTS = segments_of_ids([[0, 5, 5], [0, 5, 70000]], {70000: SKY, 5: PERSON})


def assert_same(one, other):
  for field, other_field in zip(one, other, strict=True):
    np.testing.assert_array_equal(field, other_field)
    assert field is None or field.dtype == other_field.dtype


def written(folder):
  return sorted(str(path.relative_to(folder)) for path in folder.rglob('*'))


def test_the_files_by_hand(tmp_path):
  with PanopticResultsWriter(tmp_path / 'new', 'val', CATEGORIES) as writer:
    writer.write('000139', 'some/where/000139.jpg', TWO_SEGMENTS)
  assert written(tmp_path / 'new') == ['val', 'val.json', 'val/000139.png']
  content = json.loads((tmp_path / 'new' / 'val.json').read_text())
  assert content == {
    'images': [{'id': '000139', 'file_name': 'some/where/000139.jpg', 'height': 2, 'width': 3}],
    'annotations': [
      {
        'image_id': '000139',
        'file_name': '000139.png',
        'segments_info': [
          {'id': 70000, 'category_id': SKY, 'area': 1, 'bbox': [2, 1, 1, 1], 'iscrowd': 0},
          {'id': 5, 'category_id': PERSON, 'area': 3, 'bbox': [1, 0, 2, 2], 'iscrowd': 0},
        ],
      }
    ],
    'categories': CATEGORIES.to_coco(),
  }
  pixels = np.asarray(Image.open(tmp_path / 'new' / 'val' / '000139.png'))
  assert pixels[1].tolist() == [[0, 0, 0], [5, 0, 0], [112, 17, 1]]  # 112 + 17·256 + 1·65536


def test_no_image_at_all(tmp_path):
  leftover = tmp_path / '.val.part'  # Of a process that was killed.
  leftover.mkdir()
  (leftover / 'old.png').write_text('')
  with PanopticResultsWriter(tmp_path, 'val', CATEGORIES):
    pass
  assert list(read_results(tmp_path / 'val.json', tmp_path / 'val')) == []
  assert sorted(path.name for path in tmp_path.iterdir()) == ['val', 'val.json']


@pytest.mark.parametrize(
  ('given_id', 'expected'),
  [('000139', '000139'), (139, 139), (np.int64(139), 139), ('a/1', 'a/1'), ('²', '²'), ('', '')],
)
def test_image_ids(tmp_path, given_id, expected):
  with PanopticResultsWriter(tmp_path, 'val', CATEGORIES) as writer:
    writer.write(given_id, 'a.jpg', TWO_SEGMENTS)
  [(image_id, _)] = read_results(tmp_path / 'val.json', tmp_path / 'val')
  assert image_id == expected and type(image_id) is type(expected)


@st.composite
def segmentations(draw):
  shape = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
  ids = st.just(0) | st.integers(1, MAX_SEGMENT_ID)
  segment_map = draw(np_st.arrays(np.int32, shape, elements=ids, fill=ids))
  present = draw(st.permutations(np.setdiff1d(segment_map, [0]).tolist()))
  return segments_of_ids(segment_map, {i: draw(st.sampled_from([PERSON, SKY])) for i in present})


@settings(max_examples=50, deadline=None)
@given(contents=st.lists(segmentations(), max_size=3))
def test_reader_inverts_writer(tmp_path_factory, contents):
  folder = tmp_path_factory.mktemp('results')
  with PanopticResultsWriter(folder, 'val', CATEGORIES) as writer:
    for index, content in enumerate(contents):
      writer.write(index, f'{index}.jpg', content)
  results = list(read_results(folder / 'val.json', folder / 'val'))
  assert [image_id for image_id, _ in results] == list(range(len(contents)))
  for content, (_, result) in zip(contents, results, strict=True):
    assert_same(content, result)


def test_other_packages_score_what_is_written(tmp_path, other_scores):
  for name in ('truth', 'prediction'):
    with PanopticResultsWriter(tmp_path, name, CATEGORIES) as writer:
      writer.write(139, '000139.jpg', TWO_SEGMENTS)
      writer.write(140, '140.jpg', segments_of_ids([[1]], {1: SKY}))
  result = other_scores(tmp_path / 'truth.json', tmp_path / 'prediction.json').result
  assert result['All'] == {'pq': 1.0, 'sq': 1.0, 'rq': 1.0, 'n': 2}


def test_pycocotools_indexes_the_segments(tmp_path):
  """It reads one segment as one annotation, so each gets its image's id."""
  with PanopticResultsWriter(tmp_path, 'val', CATEGORIES) as writer:
    writer.write(139, '139.jpg', TWO_SEGMENTS)
  coco = COCO()
  coco.dataset = json.loads((tmp_path / 'val.json').read_text())
  coco.dataset['annotations'] = [
    info | {'image_id': annotation['image_id']}
    for annotation in coco.dataset['annotations']
    for info in annotation['segments_info']
  ]
  coco.createIndex()
  assert coco.getCatIds(catNms=['sky']) == [SKY]
  assert coco.getAnnIds(imgIds=[139], catIds=[SKY]) == [70000]
  assert coco.getAnnIds(areaRng=[2, 10]) == [5]
  assert coco.loadImgs(139)[0]['width'] == 3


def test_an_exception_leaves_nothing_new_and_the_old_as_it_was(tmp_path):
  def write(value, fail):
    with PanopticResultsWriter(tmp_path, 'val', CATEGORIES) as writer:
      writer.write(1, 'a.jpg', segments_of_ids([[value]], {value: SKY}))
      if fail:
        raise RuntimeError('stop')

  with pytest.raises(RuntimeError, match='stop'):
    write(3, fail=True)
  assert written(tmp_path) == []
  write(4, fail=False)
  with pytest.raises(RuntimeError, match='stop'):
    write(5, fail=True)
  assert written(tmp_path) == ['val', 'val.json', 'val/a.png']
  [(_, content)] = read_results(tmp_path / 'val.json', tmp_path / 'val')
  assert content.ids.tolist() == [4]


def test_without_room_for_the_json_all_is_as_it_was(tmp_path):
  def write(value):
    with PanopticResultsWriter(tmp_path, 'val', CATEGORIES) as writer:
      writer.write(1, 'a.jpg', segments_of_ids([[value]], {value: SKY}))

  # Enough for the PNG.
  with small_files(200), pytest.raises(InputError, match=r'val\.json: .*too large'):
    write(3)
  assert written(tmp_path) == []
  write(4)
  with small_files(200), pytest.raises(InputError, match=r'val\.json: .*too large'):
    write(5)
  assert written(tmp_path) == ['val', 'val.json', 'val/a.png']
  [(_, content)] = read_results(tmp_path / 'val.json', tmp_path / 'val')
  assert content.ids.tolist() == [4]


def test_a_second_run_replaces_the_first(tmp_path):
  for value in (3, 4):
    with PanopticResultsWriter(tmp_path, 'val', CATEGORIES) as writer:
      writer.write(1, 'a.jpg', segments_of_ids([[value]], {value: SKY}))
  [(_, content)] = read_results(tmp_path / 'val.json', tmp_path / 'val')
  assert id_map(content).tolist() == [[4]]


def test_two_images_must_not_share_a_png_or_an_id(tmp_path):
  with PanopticResultsWriter(tmp_path, 'val', CATEGORIES) as writer:
    writer.write(1, 'a/x.jpg', TWO_SEGMENTS)
    with pytest.raises(InputError, match=r'b/x\.png: .* x\.png'):
      writer.write(2, 'b/x.png', TWO_SEGMENTS)
    with pytest.raises(InputError, match=r'y\.jpg: image id 1 '):
      writer.write(1, 'y.jpg', TWO_SEGMENTS)
    writer.write('1', 'y.jpg', TWO_SEGMENTS)
    writer.write('x', 'b/x.png', TWO_SEGMENTS, 'b.png')
  assert written(tmp_path / 'val') == ['b.png', 'x.png', 'y.png']


def test_a_segment_without_pixels_is_not_written(tmp_path):
  with (
    pytest.raises(InputError, match=r'a\.jpg: segment 2 is listed but has no pixel'),
    PanopticResultsWriter(tmp_path, 'val', CATEGORIES) as writer,
  ):
    writer.write(1, 'a.jpg', segments_of_ids([[1]], {1: SKY, 2: SKY}))
  assert written(tmp_path) == []


def test_write_panoptic_png_is_whole_or_not_at_all(tmp_path, monkeypatch):
  def save_half(image, path, format):
    path.write_bytes(b'half')
    raise OSError('the disk is full')

  path = tmp_path / 'a.png'
  write_panoptic_png(str(path), TWO_SEGMENTS)
  before = path.read_bytes()
  monkeypatch.setattr(Image.Image, 'save', save_half)
  with pytest.raises(InputError, match=r'a\.png: .*the disk is full'):
    write_panoptic_png(path, TWO_SEGMENTS)
  assert path.read_bytes() == before
  assert written(tmp_path) == ['a.png']


@pytest.fixture
def results(tmp_path):
  with PanopticResultsWriter(tmp_path, 'val', CATEGORIES) as writer:
    writer.write(1, 'a.jpg', TWO_SEGMENTS)
  return tmp_path


def assert_unreadable(results, message):
  with pytest.raises(InputError, match=message) as caught:
    list(read_results(results / 'val.json', results / 'val'))
  assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('', 'cannot be read as JSON'),
    ('[]', 'is not an object'),
    ('{"annotations": 3}', 'no list of `annotations`'),
    ('{"annotations": [3]}', 'annotation 0: has no `image_id`'),
    ('{"annotations": [{"image_id": 1, "bbox": []}]}', 'annotation 0 .*file_name'),
    (
      '{"annotations": [{"image_id": 1, "file_name": "a.png", "segments_info": [{"id": 5}]}]}',
      'annotation 0 .*category_id',
    ),
  ],
)
def test_malformed_json(results, text, message):
  (results / 'val.json').write_text(text)
  assert_unreadable(results, message)


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'image_id': 1.5}, r'annotation 0: `image_id` cannot be 1\.5'),
    ({'image_id': [1]}, r'`image_id` cannot be \[1\]'),
    ({'image_id': True}, '`image_id` cannot be True'),
    ({'file_name': 3}, '`file_name` cannot be 3'),
    ({'file_name': '../a.png'}, r"'\.\./a\.png' is not one inside"),
    ({'file_name': ''}, "'' is not one inside"),
    ({'segments_info': 3}, 'annotation 0 .*`segments_info` cannot be 3'),
  ],
)
def test_malformed_annotations(results, change, message):
  content = json.loads((results / 'val.json').read_text())
  content['annotations'][0].update(change)
  (results / 'val.json').write_text(json.dumps(content))
  assert_unreadable(results, message)


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'id': 0}, r'\(image 1\): segment 0: `id` 0 is not in \[1, 16777215\]'),
    ({'id': 2**40}, '`id` 1099511627776 is not in'),
    ({'id': 5.5}, r'`id` cannot be 5\.5'),
    ({'id': '5'}, "`id` cannot be '5'"),
    ({'category_id': 2**40}, '`category_id` 1099511627776 is not in'),
    ({'category_id': None}, '`category_id` cannot be None'),
    ({'iscrowd': 2}, '`iscrowd` 2 is neither 0 nor 1'),
    ({'id': 5}, r'\(image 1\): segment 5 is listed twice'),
  ],
)
def test_malformed_segments(results, change, message):
  content = json.loads((results / 'val.json').read_text())
  content['annotations'][0]['segments_info'][0].update(change)
  (results / 'val.json').write_text(json.dumps(content))
  assert_unreadable(results, message)


def test_an_image_is_listed_once(results):
  content = json.loads((results / 'val.json').read_text())
  content['annotations'] *= 2
  (results / 'val.json').write_text(json.dumps(content))
  assert_unreadable(results, r'val\.json: image 1 is listed twice')


def test_results_need_no_iscrowd(results):
  content = json.loads((results / 'val.json').read_text())
  for info in content['annotations'][0]['segments_info']:
    del info['iscrowd']
  (results / 'val.json').write_text(json.dumps(content))
  [(_, segments)] = read_results(results / 'val.json', results / 'val')
  assert_same(segments, TWO_SEGMENTS)


def test_a_truncated_png_is_refused(results):
  png = results / 'val' / 'a.png'
  Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 50, 3), np.uint8)).save(png)
  png.write_bytes(png.read_bytes()[:4000])
  assert_unreadable(results, r'a\.png \(image 1\): .*damaged')


ZIP_NAME = 'panoptic_test-dev2017_oanet_results'


@settings(max_examples=20, deadline=None)
@given(contents=st.lists(segmentations(), max_size=3))
def test_an_unpacked_testdev_zip_is_what_was_written(tmp_path_factory, contents):
  folder = tmp_path_factory.mktemp('testdev')
  with PanopticResultsWriter(folder, 'srm', CATEGORIES) as writer:
    for index, content in enumerate(contents):
      writer.write(index, f'{index}.jpg', content)
  (folder / 'srm' / 'of_another_run.png').write_bytes(b'')
  zip_path = folder / 'new' / f'{ZIP_NAME}.zip'
  write_testdev_zip(folder / 'srm.json', folder / 'srm', zip_path)
  with zipfile.ZipFile(zip_path) as archive:
    names = [f'{ZIP_NAME}.json', *(f'{ZIP_NAME}/{i}.png' for i in range(len(contents)))]
    assert archive.namelist() == names
    archive.extractall(folder / 'unpacked')
  unpacked = folder / 'unpacked' / ZIP_NAME
  results = list(read_results(unpacked.with_suffix('.json'), unpacked))
  assert [image_id for image_id, _ in results] == list(range(len(contents)))
  for content, (_, result) in zip(contents, results, strict=True):
    assert_same(content, result)


def test_equal_results_make_equal_zips(results):
  first, second = (results / folder / f'{ZIP_NAME}.zip' for folder in ('1', '2'))
  write_testdev_zip(results / 'val.json', results / 'val', first)
  os.utime(results / 'val.json', (0, 0))
  os.utime(results / 'val' / 'a.png', (10**9, 10**9))
  write_testdev_zip(str(results / 'val.json'), str(results / 'val'), str(second))
  assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize('name', ['srm.zip', f'{ZIP_NAME}.tar', 'panoptic_oanet_results.zip'])
def test_the_server_wants_a_name_for_the_zip(results, name):
  with pytest.raises(InputError, match='panoptic_test-dev2017_oanet_results'):
    write_testdev_zip(results / 'val.json', results / 'val', results / name)


def test_a_zip_is_whole_or_not_at_all(results):
  zip_path = results / f'{ZIP_NAME}.zip'
  zip_path.write_bytes(b'before')
  (results / 'val' / 'a.png').unlink()
  with pytest.raises(InputError, match=r'a\.png: .*No such file'):
    write_testdev_zip(results / 'val.json', results / 'val', zip_path)
  assert zip_path.read_bytes() == b'before'
  assert written(results) == [zip_path.name, 'val', 'val.json']


def test_missing_and_malformed_files(results):
  png = results / 'val' / 'a.png'
  Image.fromarray(np.zeros((2, 3), np.uint8)).save(png)
  assert_unreadable(results, r'a\.png \(image 1\): is PNG L, not PNG RGB')
  Image.fromarray(np.full((2, 3, 3), 9, np.uint8)).save(png)
  assert_unreadable(results, r'a\.png \(image 1\): segment 592137 is in the map but not')
  Image.fromarray(np.full((2, 3, 3), 9, np.uint8)).save(png, format='JPEG')
  assert_unreadable(results, r'a\.png \(image 1\): is JPEG RGB, not PNG RGB')
  png.write_bytes(b'not a picture')
  assert_unreadable(results, r'a\.png \(image 1\): .*damaged')
  png.unlink()
  assert_unreadable(results, r'a\.png \(image 1\): there is no such file')
  (results / 'val.json').unlink()
  assert_unreadable(results, r'val\.json: there is no such file')
