"""The small data sets that users of other tools had trouble with, each to its right end."""

import collections
import json
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf

from oanet_tf import pq
from oanet_tf.data import image_ids, pictures, tf_example
from oanet_tf.data.convert import convert
from oanet_tf.errors import InputError
from tests import end_to_end
from tests.commands import convert as convert_command
from tests.references import panopticapi_scores
from tests.segments import id_map, read_ids

CASES = pathlib.Path(__file__).resolve().parents[2] / 'shared' / 'cases'


@pytest.fixture
def case(tmp_path):
  """A copy of a case's folder."""
  if not CASES.is_dir():
    pytest.skip(f'the cases are not at {CASES}')

  def copy(name):
    return pathlib.Path(shutil.copytree(CASES / name, tmp_path / name))

  return copy


def converted(folder, **options):
  """The summary, and the records as `tf_example.decode` gives them."""
  data, output = folder / 'd', folder / 'records'
  summary = convert(
    data / 'img', data / 'pan.json', data / 'pan', output, 'val', num_workers=1, **options
  )
  shards = sorted(map(str, output.glob('*.tfrecord')))
  records = tf.data.TFRecordDataset(shards).map(tf_example.decode).as_numpy_iterator()
  return summary, list(records)


def ids_of(records):
  return [image_ids.decoded(record['source_id'].decode()) for record in records]


def assert_seen_as_predicted(records, image_dir):
  for record in records:
    path = image_dir / record['file_name'].decode()
    np.testing.assert_array_equal(record['image'], pictures.read_picture(path))


def test_instances_under_other_ids(case):
  folder = case('instances_other_ids')
  with pytest.raises(InputError, match=r'inst\.json: category .*pan\.json') as caught:
    converted(folder, instances_json=folder / 'd' / 'inst.json')
  assert '\n' not in str(caught.value)


def test_annotations_of_stored_pixels(case):
  folder = case('exif_180')
  summary, records = converted(folder, labels_are='as_stored')
  assert (summary.images, summary.turned_images, summary.images_of_unsure_turn) == (6, 6, 6)
  assert_seen_as_predicted(records, folder / 'd' / 'img')
  upright = folder / 'records' / 'val_upright'
  for record in records:
    segments = id_map(tf_example.decoded_segments(record))
    stem = record['file_name'].decode().removesuffix('.jpg')
    np.testing.assert_array_equal(
      segments, read_ids(folder / 'd' / 'pan' / f'{stem}.png')[::-1, ::-1]
    )
    (image_id,) = ids_of([record])
    np.testing.assert_array_equal(segments, read_ids(upright / f'{image_id}.png'))
  result = pq.panoptic_quality(upright.with_suffix('.json'), upright.with_suffix('.json'))
  assert result['All']['pq'] == 1.0
  # The order of the JSON and what it says of each segment stay.
  before, after = (
    json.loads(path.read_text())
    for path in (folder / 'd' / 'pan.json', upright.with_suffix('.json'))
  )
  for one, other in zip(before['annotations'], after['annotations'], strict=True):
    assert one['image_id'] == other['image_id']
    for first, second in zip(one['segments_info'], other['segments_info'], strict=True):
      assert [first[k] for k in ('id', 'category_id')] == [second[k] for k in ('id', 'category_id')]


def test_it_is_said_where_the_size_does_not_tell(case, monkeypatch, capsys):
  data = case('exif_180') / 'd'
  code, stdout, _ = end_to_end.run_command(
    monkeypatch, capsys, convert_command.main, '--image_dir', data / 'img', '--panoptic_json',
    data / 'pan.json', '--panoptic_dir', data / 'pan', '--output_dir', data / 'records',
    '--split', 'val',
  )  # fmt: skip
  assert code == 0
  assert '6 pictures are turned' in stdout and "taken as 'upright' (--labels_are)" in stdout
  assert not (data / 'records' / 'val_upright.json').exists()


def test_upright_annotations_of_turned_pictures(case):
  folder = case('exif_labels_upright')
  summary, records = converted(folder)
  assert summary.images == 2 and not summary.images_of_unsure_turn
  assert_seen_as_predicted(records, folder / 'd' / 'img')


def test_a_transparent_picture(case):
  folder = case('rgba_picture')
  _, records = converted(folder)
  assert_seen_as_predicted(records, folder / 'd' / 'img')


def test_string_ids(case):
  folder = case('string_ids')
  _, records = converted(folder)
  content = json.loads((folder / 'd' / 'pan.json').read_text())
  assert ids_of(records) == [image['id'] for image in content['images']]
  assert all(isinstance(one, str) for one in ids_of(records))


def test_the_category_0(case):
  folder = case('category_0')
  summary, records = converted(folder)
  assert summary.images == 2
  ids = np.concatenate([record['segment_category_ids'] for record in records])
  assert collections.Counter(ids.tolist()) == {0: 2, 1: 2, 2: 2, 3: 2}
  truth = folder / 'd' / 'pan.json'
  result = pq.panoptic_quality(truth, truth)
  assert result['All'] == {'pq': 1.0, 'sq': 1.0, 'rq': 1.0, 'n': 4}


@pytest.mark.parametrize('on_error', ['raise', 'skip'])
def test_a_segment_without_a_pixel(case, on_error):
  summary, records = converted(case('segment_without_pixel'), on_error=on_error)
  assert (summary.images, summary.empty_segments, summary.skipped_images) == (2, 1, 0)
  assert [len(record['segment_ids']) for record in records] == [4, 4]


def test_pictures_in_folders_of_cities(case, capsys):
  summary, records = converted(case('city_folders'))
  assert summary.images == 2
  assert ids_of(records) == ['aachen_000000_000019', 'bochum_000000_000313']
  assert '2 images are not where' in capsys.readouterr().err


def test_odd_pictures(case):
  read = []
  for path in sorted(case('odd_pictures').rglob('*.*')):
    try:
      read.append((path.name, pictures.read_picture(path).shape[2]))
    except InputError as error:
      assert str(path) in str(error) and '\n' not in str(error)
  assert ('h_exif_rational.jpg', 3) in read


def test_the_same_number(case):
  folder = case('same_number')
  names = pictures.named_pictures([folder / 'cam1', folder / 'cam2'])
  assert list(names) == ['1', '2', '0001']


@pytest.mark.parametrize('name', ['extra_predictions', 'rgba', 'segment_id_0', 'name_not_ascii'])
def test_pq_scores_what_panopticapi_scores(case, name):
  folder = case(f'pq_{name}')
  truth, prediction = folder / 'gt' / 'pan.json', folder / 'pr' / 'pan.json'
  result = pq.panoptic_quality(truth, prediction, num_workers=1)
  assert result['All'] == {'pq': 1.0, 'sq': 1.0, 'rq': 1.0, 'n': 4}
  assert panopticapi_scores(truth, prediction).result['All'] == result['All']


def test_a_truth_that_predicts_itself(case):
  """Whatever a data set of the cases is like, its truth is its own best prediction."""
  names = sorted(path.parents[1].name for path in CASES.glob('*/d/pan.json'))
  assert len(names) >= 8
  for name in names:
    folder = case(name)
    truth = folder / 'd' / 'pan.json'
    if name == 'segment_without_pixel':
      with pytest.raises(InputError, match='segment 77 is listed but has no pixel'):
        pq.panoptic_quality(truth, truth, num_workers=1)
    else:
      assert pq.panoptic_quality(truth, truth, num_workers=1)['All']['pq'] == 1.0
