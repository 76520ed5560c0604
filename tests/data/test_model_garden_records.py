"""Records that the Model Garden reads, and records that it writes."""

import json

import numpy as np
import pytest
import tensorflow as tf
from pycocotools import mask as coco_mask

from oanet_tf.data import coco_json, coco_panoptic, encoded_picture, tf_example
from oanet_tf.errors import InputError
from tests.data.test_tf_example import decode, decoded_masks, record
from tests.scripts import benchmark_convert

ONE = np.ones([1, 1], bool)


def full(mask, box, height, width):
  canvas = np.zeros([height, width], bool)
  y1, x1, y2, x2 = box.astype(int)
  canvas[y1:y2, x1:x2] = mask
  return canvas


def check_the_model_garden_reads(original, mask_encoding):
  from official.vision.dataloaders.tf_example_decoder import TfExampleDecoder

  serialized = tf.constant(tf_example.encode(original, mask_encoding))
  read = TfExampleDecoder(include_mask=mask_encoding == 'full_png').decode(serialized)
  height, width, objects = original.height, original.width, original.objects
  assert read['source_id'] == str(original.image_id).encode()
  assert (read['height'], read['width']) == (height, width)
  assert read['image'].shape == (height, width, 3)
  np.testing.assert_allclose(
    read['groundtruth_boxes'] * [height, width, height, width], objects.boxes, atol=1e-4
  )
  np.testing.assert_array_equal(read['groundtruth_classes'], objects.category_ids)
  np.testing.assert_array_equal(read['groundtruth_is_crowd'], objects.is_crowd)
  np.testing.assert_array_equal(read['groundtruth_area'], [mask.sum() for mask in objects.masks])
  if mask_encoding == 'full_png':
    masks = [
      full(mask, box, height, width) for mask, box in zip(objects.masks, objects.boxes, strict=True)
    ]
    np.testing.assert_array_equal(
      read['groundtruth_instance_masks'], np.reshape(masks, [-1, height, width])
    )


def by_hand():
  return record(
    np.array([[0, 9, 9, 9, 4], [0, 9, 5, 9, 4], [0, 9, 9, 9, 4]]),
    [(9, 17, False), (4, 90, False), (5, 200, True)],
    [((0, 1, 3, 4), 17, False, np.ones([3, 3], bool)), ((1, 2, 2, 3), 200, True, ONE)],
  )


@pytest.mark.parametrize('mask_encoding', ['cropped', 'full_png'])
def test_the_model_gardens_decoder(mask_encoding):
  check_the_model_garden_reads(by_hand(), mask_encoding)
  check_the_model_garden_reads(record(np.zeros([2, 3], int)), mask_encoding)


def test_panoptic_maps_by_hand():
  features = tf_example.features(by_hand(), 'full_png')
  maps = [
    tf.io.decode_png(features[f'image/panoptic/{kind}_mask'][0])[..., 0].numpy().tolist()
    for kind in ('category', 'instance')
  ]
  assert maps[0] == [[0, 17, 17, 17, 90], [0, 17, 200, 17, 90], [0, 17, 17, 17, 90]]
  assert maps[1] == [[0, 1, 1, 1, 0], [0, 1, 2, 1, 0], [0, 1, 1, 1, 0]]


def test_category_ids_that_do_not_fit():
  for original in (
    record(np.array([[4]]), [(4, 256, False)]),
    record(np.array([[0]]), (), [((0, 0, 1, 1), 256, False, ONE)]),
  ):
    with pytest.raises(InputError, match=r'^139\.png: .* 256\b.*cropped'):
      tf_example.features(original, 'full_png')
    tf_example.features(original)


def things(count):
  ids = np.arange(1, count + 1)
  objects = [((0, i - 1, 1, i), 1, False, ONE) for i in ids]
  return record(ids[None], [(i, 1, False) for i in ids], objects)


def test_as_many_things_as_fit():
  decoded = decode(tf_example.encode(things(255), 'full_png'))
  assert decoded['segment_index'].tolist() == [list(range(1, 256))]
  with pytest.raises(InputError, match=r'things .* 256\b.*cropped'):
    tf_example.features(things(256), 'full_png')


# Records of the Model Garden.


@pytest.fixture(scope='module')
def model_garden():
  return benchmark_convert.load_model_garden()


def as_annotation(objects, index, height, width):
  """An object as one of COCO's instance annotations."""
  mask = full(objects.masks[index], objects.boxes[index], height, width)
  rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
  starts = np.flatnonzero(np.diff(mask.T.ravel(), prepend=False))
  uncompressed = {
    'counts': np.diff([0, *starts, mask.size]).tolist(), 'size': [height, width]
  }  # fmt: skip
  is_crowd = int(objects.is_crowd[index])
  return {
    'bbox': coco_mask.toBbox(rle).tolist(),
    'area': float(mask.sum()),
    'iscrowd': is_crowd,
    'category_id': int(objects.category_ids[index]),
    # It takes the RLE of a crowd as such, and polygons or RLEs of others in a list.
    'segmentation': uncompressed if is_crowd else [uncompressed],
  }


def model_garden_record(module, entry, original, annotation, folder, categories):
  example, skipped = module.create_tf_example(
    {
      'height': entry.height, 'width': entry.width, 'file_name': entry.file_name,
      'id': entry.image_id,
    },
    [str(folder / 'val2017')],
    str(folder / 'annotations' / 'panoptic_val2017'),
    [
      as_annotation(original.objects, i, entry.height, entry.width)
      for i in range(len(original.objects.masks))
    ],
    {category.id: category.name for category in categories},
    panoptic_annotation=annotation,
    is_category_thing={category.id: category.is_thing for category in categories},
    include_panoptic_masks=True,
    include_masks=True,
  )  # fmt: skip
  assert skipped == 0
  return example.SerializeToString()


def check_same(decoded, original):
  """All but segment ids, crowd segments and the order of segments."""
  assert decoded['source_id'] == str(original.image_id).encode()
  assert (decoded['height'], decoded['width']) == (original.height, original.width)
  np.testing.assert_array_equal(
    decoded['image'], encoded_picture.decode_stored(original.encoded_image)
  )
  pairs = np.stack([decoded['segment_index'], original.segments.index], axis=-1).reshape(-1, 2)
  position, original_position = np.unique(pairs, axis=0).T
  count = len(original.segments.ids)
  assert position.tolist() == list(range(position[0], count + 1))  # One to one, and 0 is void.
  assert (position == 0).tolist() == (original_position == 0).tolist()
  assert sorted(original_position) == list(range(position[0], count + 1))
  category_ids = np.concatenate([[0], original.segments.category_ids])[original_position]
  np.testing.assert_array_equal(
    np.concatenate([[0], decoded['segment_category_ids']])[position], category_ids
  )
  assert len(set(decoded['segment_ids'])) == count
  assert not decoded['segment_is_crowd'].any()
  np.testing.assert_array_equal(decoded['object_boxes'], original.objects.boxes)
  np.testing.assert_array_equal(decoded['object_category_ids'], original.objects.category_ids)
  np.testing.assert_array_equal(decoded['object_is_crowd'], original.objects.is_crowd)
  for before, after in zip(original.objects.masks, decoded_masks(decoded), strict=True):
    np.testing.assert_array_equal(before, after)


@pytest.mark.slow
def test_the_sample(coco_sample, model_garden):
  annotations = coco_sample / 'annotations'
  panoptic_json = annotations / 'panoptic_val2017.json'
  dataset = coco_json.load(panoptic_json, annotations / 'panoptic_val2017', coco_sample / 'val2017')
  listed = json.loads(panoptic_json.read_text())['annotations']
  crowds = 0
  originals, serialized = [], []
  for entry, annotation in zip(dataset.entries, listed, strict=True):
    original = coco_panoptic.read_record(entry, dataset.categories, overlaps='none')
    crowds += original.objects.is_crowd.sum()
    originals.append(original)
    serialized.append(
      model_garden_record(
        model_garden, entry, original, annotation, coco_sample, dataset.categories
      )
    )
  assert len(originals) == 37 and crowds > 0
  decoded = tf.data.Dataset.from_tensor_slices(serialized).map(tf_example.decode)
  for one, original in zip(decoded.as_numpy_iterator(), originals, strict=True):
    assert set(one) == set(decode(tf_example.encode(by_hand())))
    check_same(one, original)


def model_garden_like(boxes, mask, **features):
  """A record of the Model Garden's features, with one category, 5, everywhere."""
  height, width = mask.shape
  png = tf.io.encode_png(np.full([height, width, 1], 5, np.uint8)).numpy()
  sides = {
    f'image/object/bbox/{name}': [float(box[i]) for box in boxes]
    for i, name in enumerate(('ymin', 'xmin', 'ymax', 'xmax'))
  }
  return tf_example.serialize(
    {
      'image/encoded': [tf.io.encode_png(np.zeros([height, width, 3], np.uint8)).numpy()],
      'image/height': [height],
      'image/width': [width],
      'image/source_id': [b'7'],
      'image/panoptic/category_mask': [png],
      'image/panoptic/instance_mask': [png],
      **sides,
      'image/object/class/label': [5] * len(boxes),
      'image/object/is_crowd': [0] * len(boxes),
      'image/object/mask': len(boxes)
      * [tf.io.encode_png(mask.astype(np.uint8)[..., None]).numpy()],
      **features,
    }
  )


@pytest.mark.parametrize(
  ('box', 'pixels'),
  [
    ((1.2, 2.5, 2.1, 4.4), (1, 2, 3, 5)),
    ((1, 2, 3, 5), (1, 2, 3, 5)),
    ((-3, -0.4, 99, 7.2), (0, 0, 5, 7)),
    ((5, 7, 5, 7), (4, 6, 5, 7)),
    ((2.5, 2.5, 2.5, 2.5), (2, 2, 3, 3)),
  ],
)
def test_boxes_are_rounded_outward_and_inside_the_image(box, pixels):
  mask = np.arange(35).reshape(5, 7) % 3 == 0
  decoded = decode(model_garden_like([np.divide(box, [5, 7, 5, 7])], mask))
  assert decoded['object_boxes'].tolist() == [list(pixels)]
  y1, x1, y2, x2 = pixels
  np.testing.assert_array_equal(decoded_masks(decoded)[0], mask[y1:y2, x1:x2])
  assert decoded['segment_ids'].tolist() == [5 * 256 + 5]
  assert decoded['segment_index'].tolist() == [[1] * 7] * 5


def test_void_only_and_masks_of_255():
  zeros = tf.io.encode_png(np.zeros([1, 1, 1], np.uint8)).numpy()
  mask = tf.io.encode_png(np.full([1, 1, 1], 255, np.uint8)).numpy()
  decoded = decode(
    model_garden_like(
      [(0, 0, 1, 1)], ONE, **{'image/object/mask': [mask], 'image/panoptic/category_mask': [zeros]}
    )
  )
  assert decoded['segment_ids'].shape == (0,) and decoded['segment_index'].tolist() == [[0]]
  assert decoded_masks(decoded)[0].tolist() == [[1]]


def test_records_without_panoptic_masks():
  serialized = model_garden_like([], ONE, **{'image/panoptic/category_mask': []})
  with pytest.raises(tf.errors.InvalidArgumentError, match='not of the Model Garden with panoptic'):
    decode(serialized)
