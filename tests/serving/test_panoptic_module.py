import numpy as np
import pytest
import tensorflow as tf

from oanet_tf.model_folder import Trained
from oanet_tf.modeling.spatial_ranking import SpatialRankingModule
from oanet_tf.modeling.stuff_channels import StuffChannels
from oanet_tf.serving.letterbox import letterbox
from oanet_tf.serving.panoptic_module import PanopticModule
from tests import small_model
from tests.lite import run_in_litert

# Of the fixture `categories`: things 7, label 1, and 31, label 2; stuff 92, label 3, and 200.
PERSON, TIE, SKY = 7, 31, 92


class HalfNetwork:
  """Sees, in the left half of each picture, a person if it is landscape, or else a tie, over sky.

  How sure it is shows how bright the picture is.
  """

  num_things, stuff_channels, variables = 2, StuffChannels.of_all(2, 2), ()
  spatial_ranking = SpatialRankingModule(num_things=2)
  occlusion_head = None

  def __call__(self, images, image_info):
    batch, (height, width) = tf.shape(images)[0], images.shape[1:3]
    bottom, right = tf.unstack(image_info[:, 1], axis=1)
    rows, columns = (
      tf.cast(tf.range(float(side)) < end[:, None], tf.float32)
      for side, end in ((height, bottom), (width, right))
    )
    # As the real network, which makes 0 of what is beside the picture.
    inside = tf.einsum('bhwc,bh,bw->b', tf.cast(images, tf.float32), rows, columns)
    brightness = inside / (255 * bottom * right * 3)
    boxes = tf.stack([tf.zeros_like(right), tf.zeros_like(right), bottom, right / 2], axis=1)
    sky = tf.one_hot(tf.fill([batch, height // 4, width // 4], 2), 4)
    return {
      'num_detections': tf.ones([batch], tf.int32),
      'detection_boxes': boxes[:, None],
      'detection_scores': brightness[:, None],
      'detection_classes': tf.fill([batch, 1], 1 if height < width else 2),
      'detection_masks': tf.ones([batch, 1, 4, 4]),
      'stuff_logits': sky,
    }


def module_of(categories, output_size):
  config = small_model.small_experiment(
    f'task.validation_data.output_size={list(output_size)},task.model.fusion.stuff_area_limit=0'
  )
  return PanopticModule(Trained(HalfNetwork(), config, categories), 'heuristic')


@pytest.fixture(scope='module')
def oblong(categories):
  module = module_of(categories, (32, 64))
  specs = [tf.TensorSpec([None, None, None, 3], tf.uint8), tf.TensorSpec([None, 2], tf.int32)]
  return tf.function(module.segment, specs, autograph=False)


def batch_of(sizes):
  """Pictures, each brighter than the one before, on a canvas of noise; their shapes."""
  canvas = np.max(sizes, axis=0) + [3, 2]
  images = np.random.default_rng(0).integers(0, 256, (len(sizes), *canvas, 3)).astype(np.uint8)
  for index, (height, width) in enumerate(sizes):
    images[index, :height, :width] = 153 + 17 * index
  return images, np.array(sizes, np.int32)


@pytest.mark.parametrize(
  'sizes',
  [
    [(40, 20), (10, 60), (20, 20), (60, 2)],
    [(10, 60)],
    [(40, 20), (60, 30)],
    [(1, 1)],
  ],
)
def test_each_picture_is_seen_in_its_orientation_and_comes_in_its_place(oblong, sizes):
  images, shapes = batch_of(sizes)
  outputs = {name: value.numpy() for name, value in oblong(images, shapes).items()}
  assert outputs['panoptic_category_mask'].shape == images.shape[:3]
  for index, (height, width) in enumerate(sizes):
    thing = TIE if height > width else PERSON
    expected = np.zeros(images.shape[1:3], int)
    expected[:height, :width] = SKY
    expected[:height, : width // 2] = thing
    np.testing.assert_array_equal(outputs['panoptic_category_mask'][index], expected)
    np.testing.assert_array_equal(outputs['panoptic_instance_mask'][index], expected == thing)
    np.testing.assert_allclose(outputs['detection_scores'][index], [0.6 + index / 15], rtol=1e-5)
    np.testing.assert_allclose(outputs['detection_boxes'][index], [[0, 0, height, width / 2]])
    assert outputs['detection_classes'][index] == thing
  assert outputs['image_shape'].tolist() == [list(size) for size in sizes]


def test_of_a_fixed_size_all_shapes_are_static(categories):
  module = module_of(categories, (32, 64))
  specs = [tf.TensorSpec([1, 40, 20, 3], tf.uint8)]
  fixed = tf.function(module.segment_fixed, specs, autograph=False)
  function = fixed.get_concrete_function()
  assert all(spec.shape.is_fully_defined() for spec in function.structured_outputs.values())
  image = np.full((1, 40, 20, 3), 153, np.uint8)
  found, expected = function(tf.constant(image)), module.segment(image, tf.constant([[40, 20]]))
  assert found.keys() == expected.keys()
  for name, value in expected.items():
    if name == 'segment_score':
      # Sums of probabilities.
      np.testing.assert_allclose(found[name], value, 1e-6, err_msg=name)
    else:
      np.testing.assert_array_equal(found[name], value, name)


@pytest.mark.parametrize('resizing', ['bilinear', 'pillow', 'normalized'])
@pytest.mark.parametrize('size', [(20, 30), (90, 130)])
def test_resizing_and_padding_run_in_litert(categories, resizing, size):
  """LiteRT can neither resize nor pad uint8."""
  module = module_of(categories, (48, 64))
  module._task.model.resizing = resizing
  module._results = lambda images, *_, **__: {'seen': tf.cast(images, tf.float32)}
  image = np.random.default_rng(0).integers(0, 256, (1, *size, 3), np.uint8)
  expected = module.segment_fixed(tf.constant(image))['seen']
  assert expected.shape == (1, 64, 64, 3)
  found = run_in_litert(module.segment_fixed, {'image': tf.constant(image)})['seen']
  # LiteRT may round half a grey level the other way.
  np.testing.assert_allclose(found, expected, atol=1.0 if resizing == 'bilinear' else 1e-4)


def test_beside_padding_a_picture_gives_what_it_gives_alone(categories):
  module = module_of(categories, (32, 64))
  picture = np.full((20, 30, 3), 153, np.uint8)
  alone = module.segment(picture[None], tf.constant([[20, 30]]))
  beside = module.segment_fixed(tf.constant(letterbox(picture, (20, 40))[None]))
  for name, value in alone.items():
    if name.startswith('panoptic_'):
      value = np.pad(value, [[0, 0], [0, 0], [0, 10]])
    # A little of the padding is scaled into the picture's last column.
    np.testing.assert_allclose(beside[name], value, 2e-3, err_msg=name)


def test_categories_are_the_datasets_and_things_come_first(categories):
  image = tf.fill([1, 20, 30, 3], tf.constant(153, tf.uint8))
  outputs = module_of(categories, (32, 32)).segment(image, tf.constant([[20, 30]]))
  assert outputs['num_segments'].numpy().tolist() == [2]
  assert outputs['segment_category_id'].numpy().tolist() == [[TIE, SKY, 0]]
  assert outputs['segment_area'].numpy().tolist() == [[300, 300, 0]]
