import io

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from oanet_tf.data import image_ids, tf_example
from oanet_tf.data.coco_json import load
from oanet_tf.data.coco_panoptic import PanopticRecord, read_record
from oanet_tf.data.objects import Objects
from oanet_tf.data.panoptic_map import MAX_SEGMENT_ID
from tests.data.coco_files import encoded_picture
from tests.segments import segments_of_ids


def objects(*items):
  """Items are (box, category id, is crowd, mask)."""
  boxes, category_ids, is_crowd, masks = zip(*items, strict=True) if items else ((),) * 4
  return Objects(
    np.array(boxes, np.float32).reshape(-1, 4),
    np.array(category_ids, np.int32),
    np.array(is_crowd, bool),
    list(masks),
  )


def record(id_map, segments=(), things=(), encoded=None, format='png'):
  """Segments are (id, category id, is crowd); a category is a thing if an object has it."""
  height, width = id_map.shape
  if encoded is None:
    rgb = np.arange(height * width * 3).reshape(height, width, 3) % 251
    encoded = encoded_picture(rgb.astype(np.uint8), 'PNG')
  segments = segments_of_ids(id_map, {i: tuple(rest) for i, *rest in segments})
  segments = segments._replace(index=segments.index.astype(np.uint16))
  is_thing = np.isin(segments.category_ids, [category_id for _, category_id, _, _ in things])
  return PanopticRecord(
    139, '139.png', height, width, format, encoded, segments, is_thing, objects(*things)
  )


def decode(example):
  return {key: value.numpy() for key, value in tf_example.decode(example).items()}


def decoded_masks(decoded):
  return [np.array(Image.open(io.BytesIO(png))) for png in decoded['object_masks']]


def check_round_trip(original, mask_encoding='cropped'):
  decoded = decode(tf_example.encode(original, mask_encoding))
  assert image_ids.decoded(decoded['source_id'].decode()) == original.image_id
  assert decoded['file_name'].decode() == original.file_name
  assert (decoded['height'], decoded['width']) == (original.height, original.width)
  restored = tf_example.decoded_segments(decoded)
  expected = original.segments._replace(index=original.segments.index.astype(np.int32))
  assert restored.scores is None
  for name in ('index', 'ids', 'category_ids', 'is_crowd'):
    before, after = getattr(expected, name), getattr(restored, name)
    np.testing.assert_array_equal(before, after, err_msg=name)
    assert before.dtype == after.dtype
  for name in ('boxes', 'category_ids', 'is_crowd'):
    before, after = getattr(original.objects, name), decoded[f'object_{name}']
    np.testing.assert_array_equal(before, after, err_msg=name)
    assert before.dtype == after.dtype
  for before, after in zip(original.objects.masks, decoded_masks(decoded), strict=True):
    assert after.dtype == np.uint8
    np.testing.assert_array_equal(before, after)
  return decoded


DTYPES = {
  'source_id': tf.string,
  'file_name': tf.string,
  'height': tf.int32,
  'width': tf.int32,
  'image': tf.uint8,
  'segment_index': tf.int32,
  'segment_ids': tf.int32,
  'segment_category_ids': tf.int32,
  'segment_is_crowd': tf.bool,
  'object_boxes': tf.float32,
  'object_category_ids': tf.int32,
  'object_is_crowd': tf.bool,
  'object_masks': tf.string,
}


def test_by_hand():
  mask = np.array([[True, False, True], [True, True, True]])
  decoded = check_round_trip(
    record(
      np.array([[0, 9, 9, 9], [0, 9, 5, 9], [0, 9, 9, 9]]),
      [(9, 65535, False), (5, 1, True)],
      [((1, 1, 3, 4), 65535, False, mask), ((1, 2, 2, 3), 1, True, np.ones([1, 1], bool))],
    )
  )
  assert set(decoded) == set(DTYPES)
  assert decoded['segment_index'].tolist() == [[0, 1, 1, 1], [0, 1, 2, 1], [0, 1, 1, 1]]
  assert decoded['segment_ids'].tolist() == [9, 5]
  assert decoded['segment_category_ids'].tolist() == [65535, 1]
  assert decoded['segment_is_crowd'].tolist() == [False, True]
  assert decoded['image'].shape == (3, 4, 3)
  assert decoded['image'][0, :2].tolist() == [[0, 1, 2], [3, 4, 5]]
  first = tf.io.decode_png(decoded['object_masks'][0], channels=1).numpy()[..., 0]
  assert first.tolist() == [[1, 0, 1], [1, 1, 1]]


def test_no_segment_and_no_object():
  decoded = check_round_trip(record(np.zeros([2, 3], int)))
  assert decoded['object_boxes'].shape == (0, 4)
  assert decoded['object_masks'].shape == decoded['segment_ids'].shape == (0,)
  assert decoded['segment_index'].tolist() == [[0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize('count', [255, 256, 257, 65535])
def test_many_segments(count):
  id_map = np.zeros(300 * 300, int)
  id_map[:count] = MAX_SEGMENT_ID - np.arange(count)
  segments = [(MAX_SEGMENT_ID - i, 1 + i % 65535, i % 2 == 1) for i in range(count)]
  check_round_trip(record(id_map.reshape(300, 300), segments))


@st.composite
def random_records(draw, highest_category_id=65535):
  category_ids = st.integers(1, highest_category_id)
  shape = draw(hnp.array_shapes(min_dims=2, max_dims=2, max_side=9))
  flags = st.booleans()
  ids = draw(st.lists(st.integers(1, MAX_SEGMENT_ID), max_size=6, unique=True))
  id_map = draw(hnp.arrays(np.int32, shape, elements=st.sampled_from([0, *ids])))
  segments = [(i, draw(category_ids), draw(flags)) for i in ids]
  things = []
  for _ in range(draw(st.integers(0, 4))):
    y1, x1 = (draw(st.integers(0, side - 1)) for side in shape)
    y2, x2 = draw(st.integers(y1 + 1, shape[0])), draw(st.integers(x1 + 1, shape[1]))
    mask = draw(hnp.arrays(bool, (y2 - y1, x2 - x1)))
    things.append(((y1, x1, y2, x2), draw(category_ids), draw(flags), mask))
  return record(id_map, segments, things)


@given(random_records())
@settings(deadline=None)
def test_decode_is_the_inverse_of_encode(original):
  check_round_trip(original)


@given(random_records(highest_category_id=255))
@settings(deadline=None)
def test_decode_is_the_inverse_of_encode_with_full_masks(original):
  check_round_trip(original, 'full_png')


@given(st.data())
@settings(deadline=None, max_examples=30)
def test_boxes_of_large_images_come_back_exactly(data):
  height, width = (data.draw(st.integers(1000, 30000)) for _ in range(2))
  box = sorted(data.draw(st.tuples(*2 * [st.integers(0, height)])))
  box += sorted(data.draw(st.tuples(*2 * [st.integers(0, width)])))
  box = [box[0], box[2], box[1], box[3]]
  large = record(np.zeros([1, 1], int), (), [(box, 1, False, np.ones([1, 1], bool))])
  features = tf_example.features(large._replace(height=height, width=width))
  assert decode(tf_example.serialize(features))['object_boxes'].tolist() == [box]


def test_equal_records_give_equal_bytes():
  original = record(np.array([[3, 0]]), [(3, 8, False)])
  assert tf_example.encode(original) == tf_example.encode(original)


@pytest.mark.parametrize('mode', ['RGB', 'L', 'CMYK'])
def test_jpeg(mode):
  smooth = np.tile(np.linspace(0, 255, 32, dtype=np.uint8)[:, None, None], [1, 48, 3])
  encoded = encoded_picture(smooth, 'JPEG', mode)
  decoded = decode(tf_example.encode(record(np.zeros([32, 48], int), (), (), encoded, 'jpeg')))
  difference = np.abs(decoded['image'].astype(int) - smooth)
  assert difference.max() <= 6


@pytest.mark.parametrize(
  ('format', 'mode'), [('PNG', 'P'), ('PNG', 'RGBA'), ('PNG', 'L'), ('PNG', '1'), ('BMP', 'RGB')]
)
def test_pictures_that_the_reader_takes_are_decoded_as_pillow_does(coco, format, mode):
  rgb = np.random.default_rng(0).integers(0, 256, [5, 8, 3], np.uint8)
  coco.pictures['42.jpg'] = encoded_picture(rgb, format, mode)
  dataset = load(**coco.write())
  decoded = decode(tf_example.encode(read_record(dataset.entries[0], dataset.categories)))
  expected = Image.open(io.BytesIO(coco.pictures['42.jpg'])).convert('RGB')
  np.testing.assert_array_equal(decoded['image'], np.array(expected))


def test_inside_tf_data():
  examples = [
    tf_example.encode(record(np.zeros([2, 3], int))),
    tf_example.encode(
      record(np.array([[7, 7]]), [(7, 2, False)], [((0, 0, 1, 2), 2, False, np.ones([1, 2], bool))])
    ),
  ]
  dataset = tf.data.Dataset.from_tensor_slices(examples).map(tf_example.decode)
  shapes = {key: spec.shape.as_list() for key, spec in dataset.element_spec.items()}
  assert {key: spec.dtype for key, spec in dataset.element_spec.items()} == DTYPES
  assert shapes['image'] == [None, None, 3]
  assert shapes['segment_index'] == [None, None]
  assert shapes['object_boxes'] == [None, 4]
  assert shapes['height'] == [] and shapes['segment_ids'] == shapes['object_masks'] == [None]
  empty, full = dataset.as_numpy_iterator()
  assert empty['object_boxes'].shape == (0, 4)
  assert full['object_boxes'].tolist() == [[0, 0, 1, 2]]


@pytest.mark.parametrize('schema', [None, 0, 2])
def test_another_schema(schema):
  features = tf_example.features(record(np.zeros([2, 3], int)))
  features[tf_example.SCHEMA_VERSION] = [schema] if schema is not None else []
  dataset = tf.data.Dataset.from_tensors(tf_example.serialize(features)).map(tf_example.decode)
  with pytest.raises(
    tf.errors.InvalidArgumentError, match=r'another schema than 1 .*convert the dataset again'
  ):
    next(iter(dataset))


@pytest.mark.parametrize('damaged', [b'', b'no example', b'\x0a\x05'])
def test_damaged_examples(damaged):
  with pytest.raises(tf.errors.InvalidArgumentError):
    tf_example.decode(damaged)
