import importlib.util
import json

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import prediction_log_pb2

from oanet_tf.errors import InputError
from oanet_tf.serving import saved_model, warmup
from tests.serving import requests

SIZES = [(64, 64), (30, 70), (70, 30), (1, 1), (5, 300), (200, 3)]
# Of the small network: detections, and rows of a segment table.
NUM_DETECTIONS, NUM_ROWS = 6, 11


def in_memory(served, image):
  """What `predict` shows of an image, and the detections' scores."""
  outputs, maps = served.predict(image)
  ids = served.source.trained.categories.id_of_label_table()
  return ids[maps.category_mask[0]], maps.instance_mask[0], outputs['detection_scores'][0]


def of_image(outputs, index):
  height, width = outputs['image_shape'][index]
  masks = [outputs[name][index] for name in ('panoptic_category_mask', 'panoptic_instance_mask')]
  assert not any(np.any(mask[height:]) or np.any(mask[:, width:]) for mask in masks)
  return *(mask[:height, :width] for mask in masks), outputs['detection_scores'][index]


@pytest.mark.parametrize('size', SIZES)
def test_an_image_gives_bit_for_bit_what_predict_gives(served, size):
  image = requests.rectangles(*size)
  expected = in_memory(served, image)
  pixels = served.signatures['serving_default'](image=tf.constant(image[None]))
  encoded = served.signatures['serving_bytes'](image_bytes=tf.constant([requests.encode(image)]))
  for name, value in pixels.items():
    np.testing.assert_array_equal(value, encoded[name], name)
  for a, b in zip(of_image(pixels, 0), expected, strict=True):
    np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_real_images_give_bit_for_bit_what_predict_gives(served):
  parity = saved_model.compare(served.source, served.folder)
  assert (parity.num_images, parity.different_pixels, parity.score_difference) == (3, 0, 0.0)


def test_the_comparisons_are_not_of_nothing(served):
  shown = [in_memory(served, requests.rectangles(*size))[:2] for size in SIZES]
  shown += [in_memory(served, image)[:2] for image in served.source.images]
  assert sum(np.any(instances) for _, instances in shown) > 3
  assert sum(len(np.unique(categories)) > 2 for categories, _ in shown) > 3


def test_a_batch_of_both_orientations(served):
  """One result for each image, in their order, on the canvas of the largest."""
  images = [requests.rectangles(*size, seed) for seed, size in enumerate(SIZES)]
  encoded = tf.constant([requests.encode(image) for image in images])
  outputs = served.signatures['serving_bytes'](image_bytes=encoded)
  assert outputs['image_shape'].numpy().tolist() == [list(size) for size in SIZES]
  assert outputs['panoptic_category_mask'].shape == (len(SIZES), 200, 300)
  for index, image in enumerate(images):
    *masks, scores = of_image(outputs, index)
    *expected, expected_scores = in_memory(served, image)
    # In the last bit, a batch's sums may not be those of a single image.
    np.testing.assert_allclose(scores, expected_scores, rtol=1e-4, atol=1e-5)
    for mask, other in zip(masks, expected, strict=True):
      assert np.mean(np.equal(mask, other)) > 0.99


@pytest.mark.parametrize('size', [(30, 70), (70, 30)])
def test_a_batch_of_one_orientation(served, size):
  images = np.stack([requests.rectangles(*size, seed) for seed in range(3)])
  outputs = served.signatures['serving_default'](image=tf.constant(images))
  for index, image in enumerate(images):
    *_, scores = of_image(outputs, index)
    np.testing.assert_allclose(scores, in_memory(served, image)[2], rtol=1e-4, atol=1e-5)


def test_signatures_name_types_and_shapes(served):
  for name, spec in saved_model.INPUTS.items():
    signature = served.signatures[name]
    assert list(signature.structured_input_signature[1].values()) == [spec]
    outputs = signature.structured_outputs
    assert {key: (value.dtype.name, *value.shape) for key, value in outputs.items()} == {
      'panoptic_category_mask': ('int32', None, None, None),
      'panoptic_instance_mask': ('int32', None, None, None),
      'image_shape': ('int32', None, 2),
      'num_segments': ('int32', None),
      'segment_category_id': ('int32', None, NUM_ROWS),
      'segment_label_id': ('int32', None, NUM_ROWS),
      'segment_label': ('string', None, NUM_ROWS),
      'segment_instance_id': ('int32', None, NUM_ROWS),
      'segment_is_thing': ('bool', None, NUM_ROWS),
      'segment_score': ('float32', None, NUM_ROWS),
      'segment_area': ('int32', None, NUM_ROWS),
      'segment_box': ('int32', None, NUM_ROWS, 4),
      'num_detections': ('int32', None),
      'detection_boxes': ('float32', None, NUM_DETECTIONS, 4),
      'detection_scores': ('float32', None, NUM_DETECTIONS),
      'detection_classes': ('int32', None, NUM_DETECTIONS),
      'detection_masks': ('float32', None, NUM_DETECTIONS, 28, 28),
      'ranking_scores': ('float32', None, NUM_DETECTIONS),
    }


def test_the_table_the_masks_and_the_detections_tell_the_same(served):
  image = requests.rectangles(70, 30)
  outputs = served.signatures['serving_default'](image=tf.constant(image[None]))
  outputs = {name: value[0].numpy() for name, value in outputs.items()}
  categories, instances = (outputs[f'panoptic_{name}_mask'] for name in ('category', 'instance'))
  number, covered = outputs['num_segments'], 0
  assert number > 2
  for row in range(number):
    category_id, instance = (outputs[f'segment_{n}'][row] for n in ('category_id', 'instance_id'))
    of_segment = (categories == category_id) & (instances == instance)
    covered += of_segment.sum()
    assert outputs['segment_area'][row] == of_segment.sum()
    label = served.source.trained.categories.label(category_id)
    assert outputs['segment_label_id'][row] == label
    name = served.source.trained.categories.category(label).name
    assert outputs['segment_label'][row].decode() == name
    assert outputs['segment_is_thing'][row] == served.source.trained.categories.is_thing(label)
    if instance:
      assert outputs['detection_classes'][instance - 1] == category_id
      assert outputs['detection_scores'][instance - 1] == outputs['segment_score'][row]
  assert not any(outputs['segment_label'][number:])
  assert covered == np.count_nonzero(categories)


def test_boxes_are_in_pixels_of_the_image(served):
  """Of an image twice as large, they are twice as large but for the resampling."""
  image = requests.rectangles(48, 80)
  twice = np.repeat(np.repeat(image, 2, axis=0), 2, axis=1)
  boxes, larger = (
    served.signatures['serving_default'](image=tf.constant(x[None]))['detection_boxes'][0]
    for x in (image, twice)
  )
  assert np.all(boxes <= [48, 80, 48, 80]) and np.max(boxes) > 40
  assert np.median(np.abs(larger - 2 * boxes)) < 8


def test_has_neither_python_nor_custom_operations(served):
  content = (served.folder / 'saved_model.pb').read_bytes()
  (meta_graph,) = saved_model_pb2.SavedModel.FromString(content).meta_graphs
  functions = meta_graph.graph_def.library.function
  names = {node.op for node in meta_graph.graph_def.node}
  names |= {node.op for function in functions for node in function.node_def}
  names -= {function.signature.name for function in functions}
  assert len(names) > 100 and not any('Py' in name for name in names)
  assert all(hasattr(tf.raw_ops, name) for name in names)


def test_holds_the_categories(served):
  content = json.loads((served.folder / 'assets' / 'categories.json').read_text())
  assert content == {'categories': served.source.trained.categories.to_coco()}


def warmup_requests(folder):
  for record in tf.data.TFRecordDataset(str(folder / warmup.WARMUP_FILE)).as_numpy_iterator():
    yield prediction_log_pb2.PredictionLog.FromString(record).predict_log.request


def test_warms_up_each_signature_in_both_orientations(served):
  shown = []
  for request in warmup_requests(served.folder):
    inputs = {
      name: tf.constant(tf.make_ndarray(proto), proto.dtype)
      for name, proto in request.inputs.items()
    }
    outputs = served.signatures[request.model_spec.signature_name](**inputs)
    shown.append((request.model_spec.signature_name, *outputs['image_shape'][0].numpy()))
  height, width = served.source.images[0].shape[:2]
  assert shown == [
    (signature, *size)
    for size in ((height, width), (width, height))
    for signature in saved_model.INPUTS
  ]


@pytest.mark.parametrize('case', requests.BAD_BYTES)
def test_bad_bytes_are_named(served, case):
  encoded, message = requests.BAD_BYTES[case]
  with pytest.raises(tf.errors.InvalidArgumentError, match=message):
    served.signatures['serving_bytes'](image_bytes=tf.constant(encoded, tf.string))


@pytest.mark.parametrize(
  ('shape', 'message'),
  [
    ((0, 30, 40, 3), 'the batch holds no image'),
    ((2, 0, 40, 3), 'image 0 of the batch has 0 x 40 pixels'),
    ((2, 30, 0, 3), 'image 0 of the batch has 30 x 0 pixels'),
    ((1, 8192, 4097, 3), 'image 0 of the batch has 8192 x 4097 pixels; from 1 x 1 to 33554432'),
    ((1, 1, 2**16 + 1, 3), 'image 0 of the batch has 1 x 65537 pixels'),
    ((2, 4096, 4097, 3), '2 images on canvases of 4096 x 4097 are more than 33554432 pixels'),
    ((17, 1, 1, 3), 'the batch holds 17 images; send 16 at most'),
  ],
)
def test_bad_sizes_are_named(served, shape, message):
  with pytest.raises(tf.errors.InvalidArgumentError, match=message):
    served.signatures['serving_default'](image=tf.zeros(shape, tf.uint8))


def test_what_tensorflow_cannot_write_is_told(served, tmp_path, monkeypatch):
  def save(*_):
    raise tf.errors.ResourceExhaustedError(None, None, '/e/1; No space left on device [[save]]')

  monkeypatch.setattr(tf.saved_model, 'save', save)
  # To trace them takes seconds.
  monkeypatch.setattr(saved_model, 'INPUTS', {})
  with pytest.raises(InputError, match=r'/e/1; No space left on device\)'):
    saved_model.write(served.source, tmp_path)


def test_a_missing_package_is_named(served, tmp_path, monkeypatch):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(InputError, match=r"pip install 'oanet_tf\[serving\]'"):
    saved_model.write(served.source, tmp_path)


def test_an_image_that_is_too_large(served, tmp_path):
  for shape, message in [
    ((8192, 4097, 3), r'^a\.png: has 8192 x 4097 .*33554432'),
    ((1, 2**16 + 1, 3), 'has 1 x 65537 .* 65536 along a side'),
  ]:
    image = np.zeros(shape, np.uint8)
    with pytest.raises(InputError, match=message):
      saved_model.write(served.source._replace(images=[image], image_names=['a.png']), tmp_path)
