import numpy as np
import pytest
import tensorflow as tf
from pycocotools import mask as coco_mask

from oanet_tf.modeling.fusion import methods
from tests import references
from tests.modeling.fusion.given import (
  GRASS,
  NUM_STUFF,
  NUM_THINGS,
  SKY,
  TIE_ON_PERSON,
  batch,
  fuse,
  image_info,
  outputs,
)  # fmt: skip
from tests.segments import read_ids


def test_heuristic_covers_the_tie_and_srm_uncovers_it():
  given = outputs(**TIE_ON_PERSON)
  category, instance = fuse(given, method='heuristic')
  assert (category == 2).sum() == 0 and (instance == 1).sum() == 400
  category, instance = fuse(given, method='srm')
  assert (category == 2).sum() == 15 and (instance == 2).sum() == 15
  assert (category == 1).sum() == 400 - 15
  assert (category == GRASS).sum() == 32 * 32 - 400


def test_no_detection_gives_stuff_alone():
  category, instance = fuse(outputs([], [], []))
  assert (category == GRASS).all() and not instance.any()


def test_detections_under_the_threshold_are_dropped():
  given = outputs([[0, 0, 8, 8], [16, 16, 24, 24]], [1, 2], [0.9, 0.49])
  category, _ = fuse(given)
  assert set(np.unique(category)) == {1, GRASS}


def test_equal_rankings_keep_the_order_of_detection_scores():
  given = outputs([[0, 0, 10, 10], [0, 0, 10, 10]], [1, 2], [0.9, 0.8], ranking=[0.5, 0.5])
  category, _ = fuse(given, method='srm')
  assert (category == 1).sum() == 100 and (category == 2).sum() == 0


def test_overlap_threshold():
  boxes = [[0, 0, 10, 10], [0, 4, 10, 14]]  # 60 of 100 pixels covered.
  given = outputs(boxes, [1, 2], [0.9, 0.8])
  assert (fuse(given, overlap_threshold=0.59)[0] == 2).sum() == 0
  assert (fuse(given, overlap_threshold=0.61)[0] == 2).sum() == 40


def test_small_stuff_becomes_void():
  stuff = np.full((32, 32), GRASS)
  stuff[:5, :8] = SKY
  given = outputs([], [], [], stuff=stuff)
  assert (fuse(given, stuff_area_limit=40)[0] == SKY).sum() == 40
  assert (fuse(given, stuff_area_limit=41)[0] == 0).sum() == 40


def test_result_is_at_the_original_size_and_void_outside_of_it():
  # The original of 64 × 48 was halved; the batch's canvas is 70 × 80.
  given = outputs([[4, 4, 12, 20]], [1], [0.9])
  info = image_info((64, 48), scale=0.5)
  result = methods.fuse(batch(given, info=info, size=(70, 80)), 'srm')
  category = result.category_mask.numpy()[0]
  assert (category[8:24, 8:40] == 1).all() and (category == 1).sum() == 16 * 32
  assert not category[64:].any() and not category[:, 48:].any()
  assert (category[:64, :48] > 0).all()


def test_every_image_of_a_batch_is_fused_as_if_alone():
  first = outputs(**TIE_ON_PERSON)
  second = outputs([[8, 8, 30, 30], [0, 0, 0, 0]], [3, 1], [0.8, 0.0])
  both = {key: tf.concat([first[key], second[key]], axis=0) for key in first}
  info = image_info((32, 32), (20, 32))
  result = methods.fuse(batch(both, info=info, stuff_area_limit=100), 'srm')
  np.testing.assert_array_equal(
    result.category_mask[0], fuse(first, method='srm', stuff_area_limit=100)[0]
  )
  alone = fuse(second, info=image_info((20, 32)), method='srm', stuff_area_limit=100)[0]
  np.testing.assert_array_equal(result.category_mask[1], alone)


@pytest.mark.parametrize('method', ['heuristic', 'srm', 'class_prior', 'upsnet'])
def test_the_batch_may_be_known_when_run_alone(method):
  given = outputs(**TIE_ON_PERSON)
  prior = np.array([[0.5, 0.1, 0.5], [0.9, 0.5, 0.5], [0.5, 0.5, 0.5]], np.float32)
  prior = prior[:NUM_THINGS, :NUM_THINGS]

  @tf.function(
    autograph=False,
    input_signature=[
      {key: tf.TensorSpec([None, *value.shape[1:]], value.dtype) for key, value in given.items()}
    ],
  )
  def run(given):
    info = image_info((32, 32), (32, 32))
    return methods.fuse(batch(given, info=info, class_prior=prior), method)

  twice = {key: tf.concat([value, value], axis=0) for key, value in given.items()}
  for results, expected in zip(
    run(twice), fuse(given, method=method, class_prior=prior), strict=True
  ):
    np.testing.assert_array_equal(results[0], expected)
    np.testing.assert_array_equal(results[1], expected)


def random_case(rng):
  """Overlapping rectangles with distinct scores, and a blocky stuff map."""
  side, count = 40, int(rng.integers(0, 12))
  corners = np.sort(rng.integers(0, side + 1, (count, 2, 2)), axis=1).reshape(count, 4)
  boxes = corners.astype(np.float32)
  scores = np.sort(rng.permutation(20)[:count] / 20 + 0.01)[::-1]
  classes = rng.integers(1, GRASS, count)
  blocks = rng.integers(NUM_THINGS + 1, NUM_THINGS + NUM_STUFF + 1, (4, 4))
  return boxes, classes, scores, np.kron(blocks, np.ones((10, 10), int))


def run_reference(case, folder, settings):
  """The same input through panopticapi's own script; -> category and 'is thing' maps."""
  boxes, classes, scores, stuff = case
  side = stuff.shape[0]

  def encode(mask):
    return coco_mask.encode(np.asfortranarray(mask, np.uint8))

  instances = []
  for box, label, score in zip(boxes.astype(int), classes, scores, strict=True):
    mask = np.zeros((side, side))
    mask[box[0] : box[2], box[1] : box[3]] = 1
    if score >= settings['score_threshold']:
      instances.append({'category_id': int(label), 'segmentation': encode(mask)})
  semantic = [
    {'category_id': int(label), 'segmentation': encode(stuff == label)}
    for label in np.unique(stuff)
  ]
  categories = {
    label: {'id': label, 'isthing': int(label <= NUM_THINGS), 'color': [40 * label, 10, 10]}
    for label in range(1, NUM_THINGS + NUM_STUFF + 1)
  }
  image = {'id': 1, 'file_name': 'a.jpg', 'height': side, 'width': side}
  merge = references.panopticapi('combine_semantic_and_instance_predictions')
  (annotation,) = merge.combine_to_panoptic_single_core(
    0, [1], {1: image}, {1: instances}, {1: semantic}, str(folder),
    settings['overlap_threshold'], settings['stuff_area_limit'], categories,
  )  # fmt: skip
  ids = read_ids(folder / 'a.png')
  category = np.zeros_like(ids)
  for segment in annotation['segments_info']:
    category[ids == segment['id']] = segment['category_id']
  return category, ids


@pytest.mark.parametrize('seed', range(50))
def test_heuristic_equals_panopticapi_pixel_for_pixel(seed, tmp_path):
  case = random_case(np.random.default_rng(seed))
  settings = {'score_threshold': 0.4, 'overlap_threshold': 0.5, 'stuff_area_limit': 150}
  boxes, classes, scores, stuff = case
  given = outputs(boxes, classes, scores, stuff=stuff)
  category, instance = fuse(given, size=(40, 40), **settings)
  expected_category, expected_ids = run_reference(case, tmp_path, settings)
  np.testing.assert_array_equal(category, expected_category)
  # The same partition into instances, whatever their numbers.
  things = instance > 0
  pairs = set(zip(instance[things].tolist(), expected_ids[things].tolist(), strict=True))
  assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
