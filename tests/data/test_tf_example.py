import io

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from oanet_tf.data import tf_example
from oanet_tf.data.coco_panoptic import PanopticRecord, load, read_record
from oanet_tf.data.objects import Objects
from oanet_tf.data.panoptic_map import MAX_SEGMENT_ID, PanopticSegmentation
from oanet_tf.errors import InputError
from tests.data.coco_files import encoded_picture


def objects(*items):
  """Items are (box, category id, is crowd, mask)."""
  boxes, category_ids, is_crowd, masks = zip(*items, strict=True) if items else ((),) * 4
  return Objects(
    np.array(boxes, np.float32).reshape(-1, 4),
    np.array(category_ids, np.int32),
    np.array(is_crowd, bool),
    list(masks),
  )


def record(segment_map, segments=(), things=(), encoded=None, format='png'):
  """Segments are (id, category id, is crowd)."""
  ids, category_ids, is_crowd = zip(*segments, strict=True) if segments else ((),) * 3
  height, width = segment_map.shape
  if encoded is None:
    rgb = np.arange(height * width * 3).reshape(height, width, 3) % 251
    encoded = encoded_picture(rgb.astype(np.uint8), 'PNG')
  segmentation = PanopticSegmentation(
    segment_map.astype(np.int32),
    np.array(ids, np.int32),
    np.array(category_ids, np.int32),
    np.array(is_crowd, bool),
  )
  return PanopticRecord(
    139, '139.png', height, width, format, encoded, segmentation, objects(*things)
  )


def decode(example):
  return {key: value.numpy() for key, value in tf_example.decode(example).items()}


def decoded_masks(decoded):
  return [np.array(Image.open(io.BytesIO(png))) for png in decoded['object_masks']]


def check_round_trip(original):
  decoded = decode(tf_example.encode(original))
  assert decoded['source_id'] == str(original.image_id).encode()
  assert (decoded['height'], decoded['width']) == (original.height, original.width)
  restored = tf_example.segmentation_from_decoded(decoded)
  for name, before, after in zip(
    PanopticSegmentation._fields, original.segmentation, restored, strict=True
  ):
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
  segment_map = np.zeros(300 * 300, int)
  segment_map[:count] = MAX_SEGMENT_ID - np.arange(count)
  segments = [(MAX_SEGMENT_ID - i, 1 + i % 65535, i % 2 == 1) for i in range(count)]
  check_round_trip(record(segment_map.reshape(300, 300), segments))


def test_more_segments_than_the_index_can_hold():
  with pytest.raises(InputError, match=r'139\.png: has more than 65535 segments'):
    tf_example.encode(record(np.zeros([2, 2], int), [(i, 1, False) for i in range(1, 65537)]))


def test_map_with_an_unlisted_id():
  with pytest.raises(InputError, match='segment 4 is in the map'):
    tf_example.encode(record(np.array([[4]]), [(5, 1, False)]))


@st.composite
def random_records(draw):
  shape = draw(hnp.array_shapes(min_dims=2, max_dims=2, max_side=9))
  flags = st.booleans()
  ids = draw(st.lists(st.integers(1, MAX_SEGMENT_ID), max_size=6, unique=True))
  segment_map = draw(hnp.arrays(np.int32, shape, elements=st.sampled_from([0, *ids])))
  segments = [(i, draw(st.integers(1, 65535)), draw(flags)) for i in ids]
  things = []
  for _ in range(draw(st.integers(0, 4))):
    y1, x1 = (draw(st.integers(0, side - 1)) for side in shape)
    y2, x2 = draw(st.integers(y1 + 1, shape[0])), draw(st.integers(x1 + 1, shape[1]))
    mask = draw(hnp.arrays(bool, (y2 - y1, x2 - x1)))
    things.append(((y1, x1, y2, x2), draw(st.integers(1, 65535)), draw(flags), mask))
  return record(segment_map, segments, things)


@given(random_records())
@settings(deadline=None)
def test_decode_is_the_inverse_of_encode(original):
  check_round_trip(original)


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
  with pytest.raises(tf.errors.InvalidArgumentError, match='another schema; convert'):
    next(iter(dataset))


@pytest.mark.parametrize('damaged', [b'', b'no example', b'\x0a\x05'])
def test_damaged_examples(damaged):
  with pytest.raises(tf.errors.InvalidArgumentError):
    tf_example.decode(damaged)


def test_the_model_gardens_decoder_reads_boxes_and_classes():
  from official.vision.dataloaders.tf_example_decoder import TfExampleDecoder

  masks = [np.array([[True, False], [True, True]]), np.ones([1, 3], bool)]
  original = record(
    np.zeros([5, 7], int),
    (),
    [((1, 2, 3, 4), 17, False, masks[0]), ((4, 4, 5, 7), 90, True, masks[1])],
  )
  read = TfExampleDecoder().decode(tf.constant(tf_example.encode(original)))
  assert read['source_id'] == b'139'
  assert (read['height'], read['width']) == (5, 7)
  np.testing.assert_allclose(
    read['groundtruth_boxes'] * [5, 7, 5, 7], original.objects.boxes, atol=1e-5
  )
  assert read['groundtruth_classes'].numpy().tolist() == [17, 90]
  assert read['groundtruth_is_crowd'].numpy().tolist() == [False, True]
  assert read['groundtruth_area'].numpy().tolist() == [3, 3]
  assert read['image'].shape == (5, 7, 3)
