import json

import numpy as np
import pytest
import tensorflow as tf

from oanet_tf.data import convert as convert_module
from oanet_tf.data import pictures, tf_example
from oanet_tf.data.categories import PanopticCategories
from oanet_tf.data.convert import convert
from oanet_tf.data.resume import Split, Summary
from oanet_tf.errors import InputError
from tests.commands import convert as command
from tests.commands import run_without_tensorflow
from tests.data.conversions import flags, many_images, names, run
from tests.segments import id_map, read_ids


def decoded_records(folder, split):
  shards = sorted(map(str, folder.glob(f'{split}-*.tfrecord')))
  return list(tf.data.TFRecordDataset(shards).map(tf_example.decode).as_numpy_iterator())


def test_shards_categories_and_summary(coco, tmp_path, capsys):
  many_images(coco, 5)
  coco.panoptic['images'].append({'id': 3, 'file_name': '3.jpg', 'height': 2, 'width': 2})
  coco.add_instances([[1, 1, 4, 1, 4, 3, 1, 3]], [], [])
  paths, output = coco.write(), tmp_path / 'new' / 'records'
  command.main(flags(paths, output, num_shards=3, num_workers=1))
  shards = [f'val-0000{i}-of-00003.tfrecord' for i in range(3)]
  assert names(output) == ['categories.json', *shards, 'val_summary.json']
  records = decoded_records(output, 'val')
  assert [r['source_id'] for r in records] == [
    b'42', b'7', b'1000', b'1001', b'1002', b'1003', b'1004'
  ]  # fmt: skip
  sizes = [
    sum(1 for _ in tf.data.TFRecordDataset(str(p))) for p in sorted(output.glob('*.tfrecord'))
  ]
  assert sizes == [2, 2, 3]
  assert PanopticCategories.from_json(output / 'categories.json') == PanopticCategories.from_coco(
    coco.panoptic['categories']
  )
  out, err = capsys.readouterr()
  assert out == (
    f'{output}, split val: 7 images, 15 segments (6 crowds), 9.8% void, 7 objects '
    '(6 crowds, 0 overlap another). Images without an object: 0; whose objects come from the '
    'panoptic masks: 6. Left out: 2 instances without a pixel, 0 '
    'segments without a pixel, 1 images without an annotation, 0 '
    'images with an error, 0 images without a conflict.\n'
  )
  assert '7/7' in err


def test_numbers_of_images_without_objects(coco, tmp_path):
  coco.add_instances()
  summary = convert(**coco.write(), output_dir=tmp_path / 'o', split='a', num_workers=1)
  assert summary == Summary(
    images=2,
    segments=5,
    crowd_segments=1,
    objects=1,
    crowd_objects=1,
    images_without_objects=1,
    images_from_panoptic=1,
    pixels=5 * 8 + 4 * 6,
    void_pixels=18,
    bytes=(tmp_path / 'o' / 'a-00000-of-00001.tfrecord').stat().st_size,
  )


def test_bytes_do_not_depend_on_the_number_of_workers(coco, tmp_path):
  many_images(coco, 20)
  paths = coco.write()
  for workers in (1, 2):
    convert(
      **paths, output_dir=tmp_path / str(workers), split='t', num_shards=2, num_workers=workers
    )
  one, two = tmp_path / '1', tmp_path / '2'
  assert names(one) == names(two)
  for name in names(one):
    assert (one / name).read_bytes() == (two / name).read_bytes()


@pytest.mark.parametrize(
  ('images', 'shards'), [(1, 1), (749, 1), (751, 2), (118287, 237), (10**6, 256)]
)
def test_default_number_of_shards(images, shards, tmp_path):
  parts = list(convert_module._deal(list(range(images)), Split(tmp_path, 'val'), None).values())
  assert len(parts) == shards
  assert [entry for part in parts for entry in part] == list(range(images))
  assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_second_split_and_a_second_run(coco, tmp_path):
  paths, output = coco.write(), tmp_path / 'o'
  for split in ('val', 'train', 'val'):
    convert(**paths, output_dir=output, split=split, num_workers=1)
  assert names(output) == [
    'categories.json',
    'train-00000-of-00001.tfrecord',
    'train_summary.json',
    'val-00000-of-00001.tfrecord',
    'val_summary.json',
  ]


def test_another_number_of_shards_is_refused(coco, tmp_path):
  paths, output = coco.write(), tmp_path / 'o'
  convert(**paths, output_dir=output, split='val', num_shards=2, num_workers=1)
  before = names(output)
  with pytest.raises(InputError, match=r'val_summary\.json: .*num_shards \(2, now 1\)'):
    convert(**paths, output_dir=output, split='val', num_shards=1, num_workers=1)
  assert names(output) == before
  # A split whose name begins alike is another one.
  convert(**paths, output_dir=output, split='val-2', num_shards=1, num_workers=1)


def test_other_categories_are_refused(coco, tmp_path):
  output = tmp_path / 'o'
  convert(**coco.write(), output_dir=output, split='val', num_workers=1)
  before = names(output)
  coco.panoptic['categories'].append({'id': 500, 'name': 'new', 'isthing': 1})
  with pytest.raises(InputError, match=r'categories\.json: '):
    convert(**coco.write(), output_dir=output, split='train', num_workers=1)
  assert names(output) == before


# For the ranking module alone.


def test_without_images_no_image_is_looked_for(coco, tmp_path):
  paths = coco.write()
  with_images = convert(**paths, output_dir=tmp_path / 'with', split='v', num_workers=1)
  for name in coco.pictures:
    (paths['image_dir'] / name).unlink()
  paths['image_dir'] = None
  without = convert(**paths, output_dir=tmp_path / 'o', split='v', num_workers=1)
  assert without.bytes < with_images.bytes
  assert without._replace(bytes=0) == with_images._replace(bytes=0)
  shard = tmp_path / 'o' / 'v-00000-of-00001.tfrecord'
  expected = tf.data.TFRecordDataset(str(tmp_path / 'with' / shard.name))
  for record, other in zip(tf.data.TFRecordDataset(str(shard)), expected, strict=True):
    features = tf.train.Example.FromString(record.numpy()).features.feature
    for key in (tf_example.IMAGE, tf_example.FORMAT):
      assert features[key].bytes_list.value == [b'']
    left_out = {key: features.pop(key) for key in (tf_example.IMAGE, tf_example.FORMAT)}
    complete = tf.train.Example.FromString(other.numpy()).features.feature
    assert all(complete.pop(key) for key in left_out) and complete == features
    decoded = tf_example.decode_annotations(record)
    assert decoded['segment_index'].shape == (decoded['height'], decoded['width'])
    with pytest.raises(tf.errors.InvalidArgumentError, match='it has no image'):
      tf_example.decode(record)


def test_without_images_sizes_are_still_compared(coco, tmp_path):
  coco.panoptic['images'][1]['width'] = 9
  paths = {**coco.write(), 'image_dir': None}
  with pytest.raises(InputError, match=r'panoptic/42\.png: is 8 × 5 .* says 9 × 5'):
    convert(**paths, output_dir=tmp_path / 'o', split='v', num_workers=1)
  coco.panoptic['images'][1].update(height=10**5, width=10**5)
  coco.write()
  with pytest.raises(InputError, match=r'panoptic/42\.png: is said to have'):
    convert(**paths, output_dir=tmp_path / 'o', split='v', num_workers=1)


def test_only_images_with_a_conflict(coco, tmp_path, capsys):
  """The person of image 42 wears a tie; image 7 has a crowd on grass."""
  many_images(coco, 3)
  output = tmp_path / 'o'
  command.main([*flags(coco.write(), output, num_workers=1, num_shards=2), '--conflicts_only'])
  assert [record['source_id'] for record in decoded_records(output, 'val')] == [b'42']
  out = capsys.readouterr().out
  assert 'o, split val: 1 images' in out and '4 images without a conflict' in out
  summary = json.loads((output / 'val_summary.json').read_text())
  assert summary['images_without_conflict'] == 4 and summary['images'] == 1
  assert summary['pixels'] == 40 and summary['skipped'] == []


def test_no_image_with_a_conflict(coco, tmp_path):
  paths = coco.write()
  with pytest.raises(InputError, match=r'no image .*val.* is left\..* 2 images without a conflict'):
    convert(
      **paths, output_dir=tmp_path / 'o', split='val', overlaps='none', conflicts_only=True,
      num_workers=1,
    )  # fmt: skip


def test_options_for_images_exclude_each_other(coco, tmp_path):
  paths = coco.write()
  both = run([*flags(paths, tmp_path / 'o'), '--without_images'])
  del paths['image_dir']
  neither = run(flags(paths, tmp_path / 'o'))
  assert both.returncode == neither.returncode == 2
  assert 'not allowed with argument' in both.stderr
  assert '--image_dir --without_images is required' in neither.stderr


@pytest.mark.parametrize('split', ['', 'a/b', '../a', 'a b', 'a*'])
def test_split_that_is_no_file_name(coco, tmp_path, split):
  with pytest.raises(InputError, match='split'):
    convert(**coco.write(), output_dir=tmp_path / 'o', split=split)
  assert not (tmp_path / 'o').exists()


def test_more_shards_than_images(coco, tmp_path):
  with pytest.raises(InputError, match=r'3 shards .*2 images'):
    convert(**coco.write(), output_dir=tmp_path / 'o', split='val', num_shards=3)
  assert not (tmp_path / 'o').exists()


def test_output_dir_that_is_a_file(coco, tmp_path):
  (tmp_path / 'o').write_text('')
  with pytest.raises(InputError, match='o: '):
    convert(**coco.write(), output_dir=tmp_path / 'o', split='val')


@pytest.mark.parametrize('workers', [1, 2])
def test_an_error_in_the_first_shard_leaves_nothing(coco, tmp_path, workers):
  many_images(coco, 10)
  coco.pictures['42.jpg'] = b'damaged'
  with pytest.raises(InputError, match=r'^[^\n]*42\.jpg: [^\n]*$'):
    convert(**coco.write(), output_dir=tmp_path / 'o', split='v', num_shards=6, num_workers=workers)
  assert not (tmp_path / 'o').exists()


def test_an_error_leaves_what_others_wrote(coco, tmp_path):
  output = tmp_path / 'o'
  convert(**coco.write(), output_dir=output, split='train', num_workers=1)
  before = {name: (output / name).read_bytes() for name in names(output)}
  coco.pictures['42.jpg'] = b'damaged'
  with pytest.raises(InputError):
    convert(**coco.write(), output_dir=output, split='val', num_workers=1)
  assert {name: (output / name).read_bytes() for name in names(output)} == before


# The command line.


def test_help_and_argument_errors_need_no_tensorflow():
  module = 'oanet_tf.convert'
  assert '--instances_json' in run_without_tensorflow(module, '--help').stdout
  missing = run_without_tensorflow(module)
  negative = run_without_tensorflow(module, '--num_shards', '0')
  assert missing.returncode == negative.returncode == 2
  assert '--panoptic_json' in missing.stderr
  assert "--num_shards: '0'" in negative.stderr


def test_errors_are_one_line_and_exit_code_2(coco, tmp_path):
  paths = coco.write()
  result = run(flags({**paths, 'panoptic_json': tmp_path / 'absent.json'}, tmp_path / 'o'))
  assert result.returncode == 2
  assert result.stdout == ''
  *_, last = result.stderr.splitlines()
  assert last.startswith(f'error: {tmp_path}/absent.json: ')
  assert 'Traceback' not in result.stderr


# The real thing.


def test_the_sample_pixel_by_pixel(coco_sample, tmp_path):
  """A few of the sample's images: records equal the files that they are made of."""
  annotations = coco_sample / 'annotations'
  content = json.loads((annotations / 'panoptic_val2017.json').read_text())
  content['annotations'] = content['annotations'][:6]
  (tmp_path / 'panoptic.json').write_text(json.dumps(content))
  summary = convert(
    coco_sample / 'val2017',
    tmp_path / 'panoptic.json',
    annotations / 'panoptic_val2017',
    tmp_path / 'o',
    'val',
    annotations / 'instances_val2017.json',
    num_workers=1,
  )
  assert (summary.images, summary.images_from_panoptic, summary.unannotated_images) == (6, 4, 31)
  records = decoded_records(tmp_path / 'o', 'val')
  for record, annotation in zip(records, content['annotations'], strict=True):
    assert record['source_id'] == str(annotation['image_id']).encode()
    segments = tf_example.decoded_segments(record)
    png = annotations / 'panoptic_val2017' / annotation['file_name']
    np.testing.assert_array_equal(id_map(segments), read_ids(png))
    infos = annotation['segments_info']
    assert segments.ids.tolist() == [info['id'] for info in infos]
    assert segments.category_ids.tolist() == [info['category_id'] for info in infos]
    path = coco_sample / 'val2017' / annotation['file_name'].replace('png', 'jpg')
    np.testing.assert_array_equal(record['image'], pictures.read_picture(path))
