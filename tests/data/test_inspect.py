"""Numbers are worked by hand; for the pictures see test_inspect_pictures.py."""

import contextlib
import io
import itertools
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from oanet_tf import errors, files
from oanet_tf.data import inspect, inspect_pictures, tf_example
from oanet_tf.data.categories import Category, PanopticCategories
from oanet_tf.data.convert import convert
from oanet_tf.data.objects import Objects, overlapping
from tests.data.coco_files import grid

PERSON, TIE, GRASS, SKY = 7, 31, 200, 92
STATISTICS, HISTOGRAM, SHEET = 'statistics.json', 'categories.png', 'contact_sheet.png'


def png(array):
  buffer = io.BytesIO()
  Image.fromarray(array).save(buffer, 'PNG')
  return buffer.getvalue()


def features(index, segments=(), objects=(), source_id='1'):
  """Features of a record: segments are (category id, is crowd), objects (box, the same, mask)."""
  height, width = index.shape
  sides = np.array([box for box, *_ in objects], float).reshape(-1, 4)
  sides /= [height, width, height, width]
  return {
    tf_example.SCHEMA_VERSION: [tf_example.SCHEMA],
    tf_example.SOURCE_ID: [source_id.encode()],
    tf_example.HEIGHT: [height],
    tf_example.WIDTH: [width],
    tf_example.IMAGE: [png(np.full((height, width, 3), 200, np.uint8))],
    tf_example.SEGMENT_INDEX: [png(index.astype(np.uint16))],
    tf_example.SEGMENT_ID: [10 + k for k in range(len(segments))],
    tf_example.SEGMENT_CATEGORY_ID: [category_id for category_id, _ in segments],
    tf_example.SEGMENT_IS_CROWD: [int(is_crowd) for _, is_crowd in segments],
    **dict(zip(tf_example.OBJECT_BOX_SIDES, sides.T.tolist(), strict=True)),
    tf_example.OBJECT_CATEGORY_ID: [category_id for _, category_id, *_ in objects],
    tf_example.OBJECT_IS_CROWD: [int(is_crowd) for _, _, is_crowd, _ in objects],
    tf_example.OBJECT_MASK: [png(np.asarray(mask, np.uint8)) for *_, mask in objects],
  }


def write(path, *records):
  with tf.io.TFRecordWriter(str(path)) as writer:
    for record in records:
      writer.write(record if isinstance(record, bytes) else tf_example.serialize(record))
  return path


def scene(source_id='1'):
  """4 × 6: a tie on a person under a sky, beside a crowd; 2 void pixels.

  All boxes meet another, of the masks those of person and tie.
  """
  index = grid('ssssss pptpcc pptpcc ppppcc', s=1, p=2, t=3, c=4)
  index[0, :2] = 0
  whole, crowd = index[1:] < 4, index[1:, 3:] == 4
  return features(
    index,
    [(SKY, False), (PERSON, False), (TIE, False), (PERSON, True)],
    [
      ((1, 0, 4, 4), PERSON, False, whole[:, :4]),
      ((1, 2, 3, 3), TIE, False, np.ones((2, 1))),
      ((1, 3, 4, 6), PERSON, True, crowd),
    ],
    source_id,
  )


@pytest.fixture
def shards(tmp_path, categories):
  """Two shards of one scene and two of grass, and `categories.json`."""
  folder = tmp_path / 'shards'
  folder.mkdir()
  categories.to_json(folder / 'categories.json')
  write(folder / 'a-0.tfrecord', scene(), features(np.ones((2, 3), int), [(GRASS, False)]))
  write(folder / 'a-1.tfrecord', features(np.zeros((10, 1), int), source_id='void'))
  return folder


def run(*arguments, output):
  """(exit code, message) of the command line."""
  out, err = io.StringIO(), io.StringIO()
  with (
    contextlib.redirect_stdout(out),
    contextlib.redirect_stderr(err),
    pytest.raises(SystemExit) as end,
  ):
    errors.run(lambda: inspect.main([*map(str, arguments), '--output_dir', str(output)]))
  last = err.getvalue().strip('\n').splitlines()[-1] if err.getvalue() else ''
  return end.value.code, out.getvalue() if end.value.code == 0 else last.rpartition('\r')[2]


def test_numbers_worked_by_hand(shards, tmp_path):
  code, table = run(shards / '*.tfrecord', output=tmp_path / 'new' / 'out')
  assert code == 0
  found = json.loads((tmp_path / 'new' / 'out' / STATISTICS).read_text())
  by_category = {entry.pop('id'): entry for entry in found.pop('categories')}
  assert found == {
    'records': 3,
    'segments': 5,
    'crowd_segments': 1,
    'objects': 3,
    'crowd_objects': 1,
    'objects_with_overlapping_box': 3,
    'objects_with_overlapping_mask': 2,
    'images_without_things': 2,
    'void_share': 12 / 40,
    'image_height': {'min': 2, 'median': 4, 'max': 10},
    'image_width': {'min': 1, 'median': 3, 'max': 6},
    'objects_per_image': {'min': 0, 'median': 0, 'max': 3},
  }
  assert list(by_category) == [PERSON, TIE, SKY, GRASS]  # the order of the labels

  def numbers(category_id):
    entry = by_category[category_id]
    return [entry[key] for key in ('segments', 'objects', 'images', 'pixel_share')]

  assert numbers(PERSON) == [2, 2, 1, (10 + 6) / 40]
  assert numbers(TIE) == [1, 1, 1, 2 / 40]
  assert numbers(SKY) == [1, 0, 1, 4 / 40]
  assert numbers(GRASS) == [1, 0, 1, 6 / 40]
  assert 'objects              3, of which crowds: 1' in table
  assert '30.00 % of the pixels' in table
  assert 'whose mask overlaps  2' in table
  row = next(line for line in table.splitlines() if 'person' in line)
  assert row.split() == ['7', 'person', 'thing', '2', '2', '1', '40.00', '%']


def test_the_same_input_gives_the_same_files_and_nothing_else(shards, tmp_path):
  folders = [tmp_path / name for name in ('one', 'two')]
  for folder in folders:
    assert run(shards / '*.tfrecord', output=folder)[0] == 0
    assert sorted(p.name for p in folder.iterdir()) == sorted([STATISTICS, HISTOGRAM, SHEET])
  for name in (STATISTICS, HISTOGRAM, SHEET):
    assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()


def test_shards_and_globs_that_meet_are_read_once(shards, tmp_path):
  assert run(shards / 'a-1.tfrecord', shards / '*.tfrecord', output=tmp_path / 'o')[0] == 0
  assert json.loads((tmp_path / 'o' / STATISTICS).read_text())['records'] == 3


@pytest.mark.parametrize(
  ('num_images', 'expected'),
  [
    (1, ['4']),
    (2, ['2', '6']),
    (3, ['1', '4', '6']),
    (8, list('01234567')),
    (99, list('01234567')),
  ],
)
def test_drawn_images_are_spread_evenly(
  tmp_path, categories, monkeypatch, num_images, expected
):  # 8 records in shards of 5, 1, 2
  grass = [features(np.ones((2, 2), int), [(GRASS, False)], source_id=str(i)) for i in range(8)]
  paths = [
    write(tmp_path / f'{i}', *grass[start:stop])
    for i, (start, stop) in enumerate(itertools.pairwise([0, 5, 6, 8]))
  ]
  drawn = []

  def draw_record(record, *_):
    drawn.append(record['source_id'].decode())
    return np.zeros((3, 3, 3), np.uint8)

  monkeypatch.setattr(inspect_pictures, 'draw_record', draw_record)
  inspect.inspect(paths, categories, tmp_path / 'out', num_images)
  assert drawn == expected


@st.composite
def random_objects(draw):
  count, shape = draw(st.integers(0, 5)), (7, 8)
  boxes, masks = [], []
  for _ in range(count):
    y1, x1 = (draw(st.integers(0, side - 1)) for side in shape)
    y2, x2 = draw(st.integers(y1 + 1, shape[0])), draw(st.integers(x1 + 1, shape[1]))
    boxes.append((y1, x1, y2, x2))
    masks.append(draw(hnp.arrays(bool, (y2 - y1, x2 - x1))))
  return Objects(
    np.array(boxes, np.float32).reshape(-1, 4), np.ones(count), np.zeros(count, bool), masks
  )


@given(random_objects())
@settings(deadline=None)
def test_overlaps_equal_a_comparison_of_all_pairs(objects):
  count = len(objects.masks)
  masks, boxes = np.zeros((2, count, 7, 8), bool)
  for k, (y1, x1, y2, x2) in enumerate(objects.boxes.astype(int)):
    masks[k, y1:y2, x1:x2] = objects.masks[k]
    boxes[k, y1:y2, x1:x2] = True
  found = overlapping(objects, 7, 8), inspect.overlapping_boxes(objects.boxes)
  for areas, flags in zip((masks, boxes), found, strict=True):
    expected = [
      any((areas[k] & areas[j]).any() for j in range(count) if j != k) for k in range(count)
    ]
    assert flags.tolist() == expected


@pytest.mark.parametrize('size', [(1, 1), (1, 700), (700, 1), (31, 40), (480, 640), (900, 2000)])
def test_images_of_any_size_are_drawn(tmp_path, categories, size):
  box = (0, 0, 1, 1)
  record = features(
    np.ones(size, int), [(GRASS, False)], [(box, TIE, False, [[1]]), (box, TIE, True, [[1]])]
  )
  path = write(tmp_path / 'a', record)
  inspect.inspect([path], categories, tmp_path / 'out')
  width, height = Image.open(tmp_path / 'out' / SHEET).size
  assert 384 < width < 2000 and 384 < height < 1000


def damaged(folder, change):
  path = folder / 'a-0.tfrecord'
  content = bytearray(path.read_bytes())
  path.write_bytes(change(content))
  return path


def flipped(position):
  def flip(content):
    content[position] ^= 4
    return content

  return flip


@pytest.mark.parametrize(
  'change',
  [
    lambda content: content[:-1],
    lambda content: content[:5],
    lambda content: content[: len(content) // 2],
    lambda content: b'',
    lambda content: b'{"categories": []}' * 9,
    flipped(0),
    flipped(7),
    flipped(200),
    flipped(-1),
  ],
  ids=['end', 'length', 'half', 'empty', 'text', 'low length', 'high length', 'data', 'checksum'],
)
def test_damaged_shards_are_named_and_nothing_is_written(shards, tmp_path, change):
  path = damaged(shards, change)
  code, message = run(shards / '*.tfrecord', output=tmp_path / 'out')
  assert (code, message.startswith(f'error: {path}: ')) == (2, True)
  assert 'again' in message and '{{' not in message
  assert not (tmp_path / 'out').exists()


@pytest.mark.slow
def test_each_bit_flip_of_a_small_shard_is_found(tmp_path, categories):
  content = write(tmp_path / 'a', features(np.ones((1, 1), int), [(GRASS, False)])).read_bytes()
  for position in range(0, len(content), 41):
    path = tmp_path / 'b'
    path.write_bytes(flipped(position)(bytearray(content)))
    with pytest.raises(errors.InputError, match='b: '):
      inspect.inspect([path], categories, tmp_path / 'out')


def without(key):
  record = scene()
  return {**record, key: []}


@pytest.mark.parametrize(
  ('record', 'fact'),
  [
    ({**scene(), tf_example.SCHEMA_VERSION: [99]}, 'record 1 is no panoptic record'),
    (without(tf_example.SEGMENT_INDEX), 'record 1 is no panoptic record'),
    (b'no example', 'record 1 is no panoptic record'),
    (b'', 'record 1 is no panoptic record'),
    ({**scene(), tf_example.IMAGE: [b'no picture']}, 'record 1 is no panoptic record'),
    ({**scene(), tf_example.IMAGE: [b'']}, '(it has no image, '),
    ({**scene(), tf_example.HEIGHT: [9]}, 'image 1 is not of the size'),
    ({**scene(), tf_example.IMAGE: [png(np.zeros((4, 7, 3), np.uint8))]}, 'not of the size'),
    (features(np.full((2, 2), 3), [(GRASS, False)]), 'segment that is not listed'),
    (
      features(np.zeros((9, 9)), (), [((1, 1, 3, 3), TIE, False, np.ones((1, 2)))]),
      'box and mask do not fit',
    ),
    (
      features(np.zeros((9, 9)), (), [((8, 1, 10, 3), TIE, False, np.ones((2, 2)))]),
      'box and mask do not fit',
    ),
    (features(np.ones((2, 2)), [(8, False)]), 'has category 8, which is unknown'),
    (features(np.ones((2, 2)), [(65535, False)]), 'has category 65535, which is unknown'),
    (features(np.ones((2, 2)), (), [((0, 0, 1, 1), 8, False, [[1]])]), 'has category 8'),
    (
      features(np.zeros((2, 2)), (), [((0, 0, 1, 1), SKY, False, [[1]])]),
      'has an object of category 92, stuff',
    ),
  ],
)  # fmt: skip
def test_records_that_are_wrong(shards, tmp_path, record, fact):
  path = write(shards / 'b', scene(), record)
  code, message = run(path, output=tmp_path / 'out')
  assert (code, message.startswith(f'error: {path}: ')) == (2, True)
  assert fact in message and '{{' not in message and 'Iterator::' not in message
  assert not (tmp_path / 'out').exists()


def test_no_shard_and_no_categories(shards, tmp_path, categories):
  output = tmp_path / 'out'
  assert f'{tmp_path}/x-*' in run(tmp_path / 'x-*', output=output)[1]
  assert f'{shards}: ' in run(shards, output=output)[1]
  (shards / 'categories.json').rename(tmp_path / 'other.json')
  code, message = run(shards / '*.tfrecord', output=output)
  assert code == 2 and f'{shards / "categories.json"}: there is no such file' in message
  assert not output.exists()
  named = ('--categories', tmp_path / 'other.json')
  assert run(shards / '*.tfrecord', *named, output=output)[0] == 0
  other = tmp_path / 'second'
  other.mkdir()
  write(other / 'a', scene())
  PanopticCategories([Category(1, 'x', True, (0, 0, 0))]).to_json(other / 'categories.json')
  categories.to_json(shards / 'categories.json')
  message = run(shards / '*.tfrecord', other / 'a', output=output)[1]
  assert f'{other / "categories.json"}: has other categories than' in message


def test_output_that_cannot_be_written(shards, tmp_path):
  (tmp_path / 'file').write_text('mine')
  (tmp_path / 'out' / SHEET).mkdir(parents=True)
  for wrong, named in (('file', 'file'), ('file/below', 'file/below'), ('out', f'out/{SHEET}')):
    code, message = run(shards / '*.tfrecord', output=tmp_path / wrong)
    assert code == 2 and f'{tmp_path}/{named}: ' in message
  assert [path.name for path in (tmp_path / 'out').iterdir()] == [SHEET]


def test_only_earlier_results_are_replaced_and_only_if_asked(shards, tmp_path):
  before = sorted(shards.iterdir())
  link = tmp_path / 'link'
  link.symlink_to(shards)
  for output in (shards, link):
    code, message = run(shards / '*.tfrecord', '--overwrite', output=output)
    assert code == 2 and f'{output}: ' in message
  assert sorted(shards.iterdir()) == before
  output = tmp_path / 'out'
  output.mkdir()
  (output / STATISTICS).write_text('mine')
  code, message = run(shards / '*.tfrecord', output=output)
  assert code == 2 and f'{output / STATISTICS}: ' in message and '--overwrite' in message
  assert (output / STATISTICS).read_text() == 'mine'
  assert run(shards / '*.tfrecord', '--overwrite', output=output)[0] == 0
  assert json.loads((output / STATISTICS).read_text())['records'] == 3


def test_a_second_inspection_into_a_folder_is_refused(shards, tmp_path):
  with files.only_one(tmp_path / 'out', 'inspection'):
    code, message = run(shards / '*.tfrecord', output=tmp_path / 'out')
  assert code == 2 and f'{tmp_path}/out: another inspection' in message
  assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('num_images', ['0', '-1', '101', 'x'])
def test_wrong_numbers_of_images(tmp_path, num_images):
  assert run('x', '--num_images', num_images, output=tmp_path)[0] == 2


def test_help_and_missing_shards_answer_without_tensorflow(tmp_path):
  code = (
    'import sys, runpy; sys.argv = ["inspect", *sys.argv[1:]]\n'
    'try: runpy.run_module("oanet_tf.data.inspect", run_name="__main__")\n'
    'finally: assert "tensorflow" not in sys.modules'
  )
  for arguments, exit_code in ((['--help'], 0), (['nothing', '--output_dir', 'out'], 2)):
    done = subprocess.run(
      [sys.executable, '-c', code, *arguments], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == exit_code, done.stderr


def test_real_images(coco_sample, tmp_path):
  annotations = coco_sample / 'annotations'
  written = convert(
    image_dir=coco_sample / 'val2017',
    panoptic_json=annotations / 'panoptic_val2017.json',
    panoptic_dir=annotations / 'panoptic_val2017',
    instances_json=annotations / 'instances_val2017.json',
    output_dir=tmp_path / 'shards',
    split='val',
    num_shards=2,
    num_workers=1,
  )
  assert run(tmp_path / 'shards' / '*.tfrecord', '--num_images', 3, output=tmp_path / 'out')[0] == 0
  found = json.loads((tmp_path / 'out' / STATISTICS).read_text())
  truth = json.loads(pathlib.Path(annotations / 'panoptic_val2017.json').read_text())
  segments = [s for entry in truth['annotations'] for s in entry['segments_info']]
  assert found['records'] == len(truth['images']) == written.images
  assert found['segments'] == len(segments)
  assert found['crowd_segments'] == sum(s['iscrowd'] for s in segments)
  assert (found['objects'], found['crowd_objects']) == (written.objects, written.crowd_objects)
  pixels = sum(image['height'] * image['width'] for image in truth['images'])
  assert found['void_share'] == pytest.approx(1 - sum(s['area'] for s in segments) / pixels)
  for entry in found['categories']:
    own = [s for s in segments if s['category_id'] == entry['id']]
    assert entry['segments'] == len(own)
    assert entry['pixel_share'] == pytest.approx(sum(s['area'] for s in own) / pixels)
