"""The smallest and the largest images, and many instances with large ids."""

import subprocess
import sys

import numpy as np
import pytest

from oanet_tf.data import coco_json, coco_panoptic, tf_example
from oanet_tf.errors import InputError
from tests.data.coco_files import GRASS, PERSON, SKY, TIE, encoded_picture
from tests.data.test_tf_example import decode, decoded_masks
from tests.segments import id_map

MEGABYTES_OF_A_WORKER = """
import pathlib, sys
from oanet_tf.data import coco_json, coco_panoptic, tf_example
dataset = coco_json.load(*sys.argv[1:])
for entry in dataset.entries:
  record = coco_panoptic.read_record(entry, dataset.categories)
  print(len(tf_example.features(record)['image/object/cropped_mask']))
status = pathlib.Path('/proc/self/status').read_text()
print(int(status.split('VmHWM:')[1].split()[0]) / 1000)
"""


def only_image(coco, ids_of_pixels, category_of):
  """Makes image 42 the only one, with these segments."""
  height, width = ids_of_pixels.shape
  coco.panoptic['images'] = [{'id': 42, 'file_name': '42.jpg', 'height': height, 'width': width}]
  coco.panoptic['annotations'] = coco.panoptic['annotations'][:1]
  coco.segments[:] = [
    {'id': int(i), 'category_id': category} for i, category in category_of.items()
  ]
  coco.maps = {'42.png': ids_of_pixels}
  coco.pictures = {'42.jpg': encoded_picture(np.full([height, width, 3], 90, np.uint8))}


def converted(coco, mask_encoding='cropped'):
  dataset = coco_json.load(**coco.write())
  record = coco_panoptic.read_record(dataset.entries[0], dataset.categories)
  return decode(tf_example.encode(record, mask_encoding))


@pytest.mark.parametrize('shape', [(1, 1), (1, 10_000), (10_000, 1)])
@pytest.mark.parametrize('category', [PERSON, SKY])
def test_one_pixel_wide(coco, shape, category):
  only_image(coco, np.full(shape, 2**24 - 1, np.int32), {2**24 - 1: category})
  decoded = converted(coco)
  assert decoded['image'].shape == (*shape, 3)
  assert decoded['segment_ids'].tolist() == [2**24 - 1]
  assert (decoded['segment_index'] == 1).all()
  assert decoded['object_boxes'].tolist() == ([[0, 0, *shape]] if category == PERSON else [])


def test_a_thousand_instances_with_ids_that_are_neither_contiguous_nor_sorted(coco):
  rng = np.random.default_rng(0)
  category_ids = [65535, 300, 7, 40000]
  for category, category_id in zip(coco.panoptic['categories'], category_ids, strict=True):
    category['id'] = category_id  # Things are 300 and 7.
  ids = rng.choice(2**24 - 1, 1200, replace=False) + 1
  ids_of_pixels = np.zeros([60, 80], np.int32)
  ids_of_pixels[1::2, ::2] = ids.reshape(30, 40)
  category_of = {i: category_ids[k % 4] for k, i in enumerate(ids)}
  only_image(coco, ids_of_pixels, category_of)
  decoded = converted(coco)
  restored = tf_example.decoded_segments(decoded)
  np.testing.assert_array_equal(id_map(restored), ids_of_pixels)
  assert dict(zip(restored.ids, restored.category_ids, strict=True)) == category_of
  things = [i for i in ids if category_of[i] in (7, 300)]
  assert decoded['object_category_ids'].tolist() == [category_of[i] for i in things]
  rows, columns = decoded['object_boxes'][:, :2].astype(int).T
  assert ids_of_pixels[rows, columns].tolist() == things
  assert all(mask.tolist() == [[1]] for mask in decoded_masks(decoded))
  with pytest.raises(InputError, match=r'42\.jpg: .* 65535\b.*cropped'):
    converted(coco, 'full_png')


def large(coco, side):
  """A person with 6,400 ties in holes of it, a sky, and grass with holes of void."""
  sky, person, grass = 100_000, 2**24 - 1, 70_000
  ids_of_pixels = np.full([side, side], sky, np.int32)
  ids_of_pixels[side // 20 :, : -side // 20] = person
  ties = ids_of_pixels[side // 10 :: side // 100, side // 10 :: side // 100][:80, :80]
  ties[:] = 1 + np.arange(6400).reshape(80, 80)
  ids_of_pixels[-side // 20 :] = grass
  ids_of_pixels[-side // 40 :: 3, ::2] = 0
  ids_of_ties = dict.fromkeys(range(1, 6401), TIE)
  only_image(coco, ids_of_pixels, {sky: SKY, person: PERSON, grass: GRASS, **ids_of_ties})


def peak_megabytes(coco, num_objects):
  result = subprocess.run(
    [sys.executable, '-c', MEGABYTES_OF_A_WORKER, *map(str, ordered(coco.write()))],
    capture_output=True,
    text=True,
  )
  assert result.returncode == 0, result.stderr
  count, megabytes = result.stdout.split()
  assert int(count) == num_objects
  return float(megabytes)


def ordered(paths):
  keys = ('panoptic_json', 'panoptic_dir', 'image_dir', 'instances_json')
  return [paths[key] for key in keys if key in paths]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')
def test_the_largest_images_take_less_than_a_gigabyte(coco):
  large(coco, 10_000)
  megabytes = peak_megabytes(coco, 6401)
  assert megabytes < 1000


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')
def test_the_largest_instances_take_less_than_a_gigabyte(coco):
  large(coco, 10_000)
  # Triangles that overlap, and an RLE of stripes.
  triangle = [[0, 0, 9999, 5000, 3, 9990]]
  rle = {'counts': [500] * 200_000, 'size': [10_000, 10_000]}
  coco.instances = {
    'images': coco.panoptic['images'],
    'annotations': [
      {'id': i, 'image_id': 42, 'category_id': PERSON, 'segmentation': segmentation}
      for i, segmentation in enumerate([triangle, rle, triangle])
    ],
  }
  megabytes = peak_megabytes(coco, 3)
  assert megabytes < 1000
