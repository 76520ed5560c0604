import io
import json
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from oanet_tf.data import coco_json, coco_panoptic, pictures, tf_example
from oanet_tf.data.panoptic_map import ids_to_rgb
from oanet_tf.data.pictures import turned
from oanet_tf.errors import InputError
from tests.data.coco_files import GRASS, PERSON, SKY, TIE, encoded_picture, grid
from tests.segments import id_map


def records(paths):
  dataset = coco_json.load(**paths)
  return [coco_panoptic.read_record(entry, dataset.categories) for entry in dataset.entries]


def picture(height=5, width=8):
  return np.random.default_rng(1).integers(0, 256, [height, width, 3], np.uint8)


def fails(coco, *facts):
  """Reading the whole dataset is an InputError of one line that has all facts."""
  with pytest.raises(InputError) as caught:
    records(coco.write())
  message = str(caught.value)
  assert '\n' not in message
  for fact in facts:
    assert fact in message


def test_a_dataset_by_hand(coco):
  paths = coco.write()
  dataset = coco_json.load(**paths)
  assert [c.id for c in dataset.categories] == [PERSON, TIE, SKY, GRASS]
  assert [entry.image_id for entry in dataset.entries] == [42, 7]  # As in `annotations`.
  assert dataset.num_unannotated == 0

  record = coco_panoptic.read_record(dataset.entries[0], dataset.categories)
  assert (record.image_id, record.file_name) == (42, '42.jpg')
  assert (record.height, record.width, record.image_format) == (5, 8, 'jpeg')
  assert record.encoded_image == coco.pictures['42.jpg']
  np.testing.assert_array_equal(id_map(record.segments), coco.maps['42.png'])
  assert record.is_thing.tolist() == [True, False, True]
  assert record.segments.ids.tolist() == [70000, 300, 5]
  assert record.segments.category_ids.tolist() == [PERSON, SKY, TIE]
  assert record.segments.is_crowd.tolist() == [False, False, False]
  assert record.objects.boxes.tolist() == [[1, 1, 4, 6], [2, 2, 3, 4]]
  assert record.objects.category_ids.tolist() == [PERSON, TIE]
  person = grid('xxxxx xxx.x xxxxx', x=1) == 1
  np.testing.assert_array_equal(record.objects.masks[0], person)

  crowd = coco_panoptic.read_record(dataset.entries[1], dataset.categories)
  assert (crowd.image_id, crowd.file_name) == (7, 'sub/7.jpg')
  assert crowd.segments.ids.tolist() == [2**24 - 1, 9]
  assert crowd.objects.is_crowd.tolist() == [True]
  assert crowd.objects.masks[0].sum() == 8


def test_void_only_and_string_ids(coco):
  coco.maps['42.png'][:] = 0
  coco.segments.clear()
  coco.panoptic['images'][1]['id'] = coco.panoptic['annotations'][0]['image_id'] = 'frankfurt_1'
  record = records(coco.write())[0]
  assert record.image_id == 'frankfurt_1'
  assert record.segments.ids.shape == (0,)
  assert record.objects.boxes.shape == (0, 4)


def test_many_segments(coco):
  coco.maps['42.png'] = np.arange(1, 601, dtype=np.int32).reshape(20, 30) * 27000
  coco.pictures['42.jpg'] = encoded_picture(picture(20, 30))
  coco.panoptic['images'][1].update(height=20, width=30)
  coco.segments[:] = [{'id': 27000 * i, 'category_id': TIE} for i in range(600, 0, -1)]
  record = records(coco.write())[0]
  assert len(record.objects.masks) == 600
  assert record.objects.boxes[0].tolist() == [19, 29, 20, 30]


def test_images_without_annotation_are_counted(coco):
  del coco.panoptic['annotations'][0]
  dataset = coco_json.load(**coco.write())
  assert [entry.image_id for entry in dataset.entries] == [7]
  assert dataset.num_unannotated == 1


def test_more_segments_than_a_record_can_hold(coco):
  coco.segments[:] = [{'id': i, 'category_id': TIE} for i in range(1, 65537)]
  fails(coco, 'panoptic/42.png: has more than 65,535 segments')


@pytest.mark.parametrize(('height', 'width'), [(10_001, 10_000), (1, 10**8 + 1)])
def test_images_that_are_too_large(coco, height, width):
  coco.panoptic['images'][1].update(height=height, width=width)
  fails(coco, 'images/42.jpg', f'{width} × {height} pixels, more than 100,000,000; make it smaller')


# Pictures.


@pytest.mark.parametrize(
  ('format', 'mode', 'options', 'stored'),
  [
    ('JPEG', 'L', {}, 'jpeg'),
    ('JPEG', 'CMYK', {}, 'jpeg'),
    ('JPEG', 'RGB', {'progressive': True}, 'jpeg'),
    ('PNG', 'RGB', {}, 'png'),
    ('PNG', 'P', {}, 'png'),
    ('PNG', 'RGBA', {}, 'png'),
    ('MPO', 'RGB', {}, 'jpeg'),
  ],
)
def test_jpeg_and_png_are_kept_as_they_are(coco, format, mode, options, stored):
  if format == 'MPO':
    options = {'save_all': True, 'append_images': [Image.fromarray(picture())]}
  coco.pictures['42.jpg'] = encoded_picture(picture(), format, mode, **options)
  record = records(coco.write())[0]
  assert record.encoded_image == coco.pictures['42.jpg']
  assert record.image_format == stored


@pytest.mark.parametrize(
  ('format', 'mode', 'options'),
  [('BMP', 'RGB', {}), ('TIFF', 'RGB', {}), ('WEBP', 'RGB', {'lossless': True}), ('GIF', 'P', {})],
)
def test_other_formats_become_png_without_loss(coco, format, mode, options):
  coco.pictures['42.jpg'] = encoded_picture(picture(), format, mode, **options)
  record = records(coco.write())[0]
  assert record.image_format == 'png'
  before, after = (
    Image.open(io.BytesIO(encoded)) for encoded in (coco.pictures['42.jpg'], record.encoded_image)
  )
  assert (after.format, after.mode) == ('PNG', 'RGB')
  np.testing.assert_array_equal(np.array(after), np.array(before.convert('RGB')))


def turned_by_exif(coco, orientation, kind='JPEG'):
  exif = Image.Exif()
  exif[0x0112] = orientation
  coco.pictures['42.jpg'] = encoded_picture(picture(), kind, exif=exif.tobytes())
  return np.asarray(Image.open(io.BytesIO(coco.pictures['42.jpg'])))


@pytest.mark.parametrize('orientation', range(2, 9))
@pytest.mark.parametrize('with_instances', [False, True])
@pytest.mark.parametrize('kind', ['JPEG', 'TIFF'])
def test_annotations_of_stored_pixels_are_turned_with_them(coco, orientation, with_instances, kind):
  if with_instances:
    # The person's corner, and the tie.
    coco.add_instances([[1, 1, 4, 1, 4, 2, 1, 2]], [[2, 2, 4, 2, 4, 3, 2, 3]])
  stored = turned_by_exif(coco, orientation, kind)
  dataset = coco_json.load(**coco.write())
  record = coco_panoptic.read_record(dataset.entries[0], dataset.categories, labels_are='as_stored')
  # Pillow turns a TIFF by itself.
  upright = stored if kind == 'TIFF' else turned(stored, orientation)
  assert (record.height, record.width) == upright.shape[:2]
  assert record.is_turned and record.is_turn_unsure == (orientation < 5)
  np.testing.assert_array_equal(Image.open(io.BytesIO(record.encoded_image)), upright)
  np.testing.assert_array_equal(id_map(record.segments), turned(coco.maps['42.png'], orientation))
  # The objects as they were, drawn and turned.
  del coco.pictures['42.jpg']
  coco.pictures['42.jpg'] = encoded_picture(picture())
  before = records(coco.write())[0]
  for one, other in zip(drawn(before), drawn(record), strict=True):
    np.testing.assert_array_equal(turned(one, orientation), other)


def drawn(record):
  for (y1, x1, y2, x2), mask in zip(
    record.objects.boxes.astype(int), record.objects.masks, strict=True
  ):
    whole = np.zeros([record.height, record.width], bool)
    whole[y1:y2, x1:x2] = mask
    yield whole


@pytest.mark.parametrize('orientation', [2, 3, 4])
def test_where_the_size_does_not_tell_annotations_are_upright(coco, orientation):
  stored = turned_by_exif(coco, orientation)
  record = records(coco.write())[0]
  assert record.is_turn_unsure and not record.is_turned
  np.testing.assert_array_equal(
    Image.open(io.BytesIO(record.encoded_image)), turned(stored, orientation)
  )
  np.testing.assert_array_equal(id_map(record.segments), coco.maps['42.png'])


@pytest.mark.parametrize('orientation', [5, 6, 7, 8])
def test_upright_annotations_are_recognized_by_their_size(coco, orientation):
  coco.pictures['42.jpg'] = encoded_picture(picture(8, 5))
  exif = Image.Exif()
  exif[0x0112] = orientation
  coco.pictures['42.jpg'] = encoded_picture(picture(8, 5), exif=exif.tobytes())
  dataset = coco_json.load(**coco.write())
  # What would turn them where the size does not tell.
  record = coco_panoptic.read_record(dataset.entries[0], dataset.categories, labels_are='as_stored')
  assert (record.height, record.width) == (5, 8)
  assert not record.is_turned and not record.is_turn_unsure
  np.testing.assert_array_equal(id_map(record.segments), coco.maps['42.png'])


def all_kinds():
  rgb = Image.fromarray(picture())
  rgba = np.dstack([picture(), np.arange(0, 240, 6).reshape(5, 8)]).astype(np.uint8)

  def file_of(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()

  exif = Image.Exif()
  exif[0x0112] = 2
  return {
    'RGBA PNG': file_of(Image.fromarray(rgba), 'PNG'),
    'RGBA PNG, mirrored': file_of(Image.fromarray(rgba), 'PNG', exif=exif.tobytes()),
    'palette PNG with alpha': file_of(rgb.convert('P'), 'PNG', transparency=bytes(range(256))),
    'PNG with a transparent colour': file_of(rgb, 'PNG', transparency=rgb.getpixel((3, 3))),
    'grey and alpha PNG': file_of(rgb.convert('LA'), 'PNG'),
    '16-bit PNG': file_of(
      Image.fromarray(np.arange(40, dtype=np.uint16).reshape(5, 8) * 999), 'PNG'
    ),
    '16-bit TIFF': file_of(
      Image.fromarray(np.arange(40, dtype=np.uint16).reshape(5, 8) * 999), 'TIFF'
    ),
    'RGBA WEBP': file_of(Image.fromarray(rgba), 'WEBP', lossless=True),
    'transparent GIF': file_of(rgb.convert('P'), 'GIF', transparency=3),
    'JPEG': file_of(rgb, 'JPEG', quality=30),
    'subsampled JPEG': file_of(rgb, 'JPEG', quality=80, subsampling=2),
    'grey JPEG': file_of(rgb.convert('L'), 'JPEG'),
    'CMYK JPEG': file_of(rgb.convert('CMYK'), 'JPEG'),
    'mirrored JPEG': file_of(rgb, 'JPEG', exif=exif.tobytes()),
  }


@pytest.mark.parametrize('kind', all_kinds())
def test_training_sees_the_pixels_that_prediction_sees(coco, kind):
  coco.pictures['42.jpg'] = all_kinds()[kind]
  paths = coco.write()
  record = records(paths)[0]
  image = tf_example.decode(tf_example.encode(record))['image'].numpy()
  np.testing.assert_array_equal(image, pictures.read_picture(paths['image_dir'] / '42.jpg'))


def test_missing_picture(coco):
  del coco.pictures['42.jpg']
  fails(coco, 'images/42.jpg', 'no such file')


@pytest.mark.parametrize('format', ['JPEG', 'PNG', 'BMP', 'TIFF', 'WEBP', 'GIF'])
def test_truncated_pictures(coco, format):
  whole = encoded_picture(picture(60, 80), format)
  coco.panoptic['images'][1].update(height=60, width=80)
  for length in {0, 1, 10, len(whole) // 2, len(whole) - 20}:
    coco.pictures['42.jpg'] = whole[:length]
    fails(coco, 'images/42.jpg: is ', 'damaged')


@pytest.mark.parametrize('missing', range(1, 13))
def test_a_png_without_its_last_bytes(coco, missing):
  # Pillow takes it; TensorFlow would not.
  coco.pictures['42.jpg'] = encoded_picture(picture(), 'PNG')[:-missing]
  fails(coco, 'images/42.jpg', 'damaged')


def test_a_png_with_a_wrong_checksum(coco):
  # Pillow's `load` takes it; TensorFlow would not.
  content = bytearray(encoded_picture(picture(), 'PNG'))
  content[-13] ^= 1  # Before the 12 bytes of the last chunk: the checksum of the pixels.
  coco.pictures['42.jpg'] = bytes(content)
  fails(coco, 'images/42.jpg', 'damaged')


@pytest.mark.parametrize('content', [b'no picture', b'<html></html>', b'\x89PNG\r\n\x1a\n'])
def test_no_picture_at_all(coco, content):
  coco.pictures['42.jpg'] = content
  fails(coco, 'images/42.jpg', 'no picture')


def test_a_folder_in_place_of_a_picture(coco):
  del coco.pictures['42.jpg']
  paths = coco.write()
  (paths['image_dir'] / '42.jpg').mkdir()
  with pytest.raises(InputError, match=r'42\.jpg: .*Is a directory'):
    records(paths)


def test_an_enormous_size_in_a_damaged_header(coco):
  png = bytearray(encoded_picture(picture(), 'PNG'))
  png[16:24] = b'\x00\x00\xff\xff' * 2
  coco.pictures['42.jpg'] = bytes(png)
  fails(coco, 'images/42.jpg', 'damaged')


@pytest.mark.parametrize(('height', 'width'), [(8, 5), (5, 9), (1, 1)])
def test_picture_of_another_size(coco, height, width):
  coco.pictures['42.jpg'] = encoded_picture(picture(height, width))
  fails(coco, 'images/42.jpg', f'{width} × {height} pixels', '8 × 5 of image 42')


# Panoptic PNGs.


def test_missing_png(coco):
  del coco.maps['42.png']
  fails(coco, 'panoptic/42.png', 'no such file')


def write_png(coco, content):
  paths = coco.write()
  (paths['panoptic_dir'] / '42.png').write_bytes(content)
  return paths


@pytest.mark.parametrize('keep', [0, 7, 30, -30, -12, -1])
def test_truncated_png(coco, keep):
  whole = encoded_picture(picture(), 'PNG')
  with pytest.raises(InputError, match=r'panoptic/42\.png: .*damaged'):
    records(write_png(coco, whole[:keep]))


def test_png_with_a_flipped_byte(coco):
  content = bytearray(encoded_picture(picture(), 'PNG'))
  content[len(content) // 2] ^= 1
  with pytest.raises(InputError, match=r'panoptic/42\.png: .*damaged'):
    records(write_png(coco, bytes(content)))


@pytest.mark.parametrize(('format', 'mode'), [('PNG', 'L'), ('JPEG', 'RGB'), ('BMP', 'RGB')])
def test_png_of_another_kind(coco, format, mode):
  with pytest.raises(InputError, match=rf'panoptic/42\.png: .*{format} {mode}, .*PNG RGB'):
    records(write_png(coco, encoded_picture(picture(), format, mode)))


def test_a_png_of_16_bits_is_not_cut_to_8(coco):
  ids = ids_to_rgb(coco.maps['42.png']).astype('>u2')
  height, width = ids.shape[:2]
  parts = {
    b'IHDR': struct.pack('>IIBBBBB', width, height, 16, 2, 0, 0, 0),
    b'IDAT': zlib.compress(b''.join(b'\0' + row.tobytes() for row in ids)),
    b'IEND': b'',
  }
  chunks = (
    struct.pack('>I', len(content)) + name + content + struct.pack('>I', zlib.crc32(name + content))
    for name, content in parts.items()
  )
  with pytest.raises(InputError, match=r'panoptic/42\.png: .*16 bits'):
    records(write_png(coco, b'\x89PNG\r\n\x1a\n' + b''.join(chunks)))


@pytest.mark.parametrize('mode', ['P', 'RGBA'])
def test_a_palette_or_an_alpha_channel_loses_no_ids(coco, mode):
  ids = Image.fromarray(ids_to_rgb(coco.maps['42.png']))
  png = ids.quantize(16, dither=Image.Dither.NONE) if mode == 'P' else ids.convert('RGBA')
  if mode == 'RGBA':
    png.putalpha(Image.fromarray(np.arange(40, dtype=np.uint8).reshape(5, 8)))
  buffer = io.BytesIO()
  png.save(buffer, 'PNG')
  record = records(write_png(coco, buffer.getvalue()))[0]
  np.testing.assert_array_equal(id_map(record.segments), coco.maps['42.png'])


def test_png_of_another_size(coco):
  coco.maps['42.png'] = coco.maps['42.png'][:, :-1]
  fails(coco, 'panoptic/42.png', '7 × 5 pixels', '8 × 5 of image 42')


def test_segments_in_the_png_only(coco):
  coco.maps['42.png'][4, 1:3] = [6, 299]
  fails(coco, 'panoptic/42.png', 'segment 6 is in the map but not in the list')


def test_segments_without_a_pixel_are_left_out_and_counted(coco):
  coco.segments.insert(1, {'id': 12, 'category_id': PERSON, 'iscrowd': 0})
  coco.segments.append({'id': 13, 'category_id': SKY, 'iscrowd': 0})
  record = records(coco.write())[0]
  assert record.num_empty_segments == 2
  assert record.segments.ids.tolist() == [70000, 300, 5]
  assert record.is_thing.tolist() == [True, False, True]
  assert len(record.objects.masks) == 2
  np.testing.assert_array_equal(id_map(record.segments), coco.maps['42.png'])


# The real thing.


@pytest.mark.parametrize('file_stem', ['000000000139', '000000000802'])
def test_instances_of_the_sample_are_those_of_pycocotools(coco_sample, file_stem):
  annotations = coco_sample / 'annotations'
  dataset = coco_json.load(
    annotations / 'panoptic_val2017.json',
    annotations / 'panoptic_val2017',
    coco_sample / 'val2017',
    annotations / 'instances_val2017.json',
  )
  entry = next(e for e in dataset.entries if e.image_id == int(file_stem))
  objects = coco_panoptic.read_record(entry, dataset.categories).objects
  content = json.loads((annotations / 'instances_val2017.json').read_text())
  expected = [a for a in content['annotations'] if a['image_id'] == entry.image_id]
  assert objects.category_ids.tolist() == [a['category_id'] for a in expected]
  for box, mask, annotation in zip(objects.boxes, objects.masks, expected, strict=True):
    rle = coco_mask.merge(
      coco_mask.frPyObjects(annotation['segmentation'], entry.height, entry.width)
    )
    x, y, width, height = coco_mask.toBbox(rle)
    assert box.tolist() == [y, x, y + height, x + width]
    assert mask.sum() == coco_mask.area(rle)
