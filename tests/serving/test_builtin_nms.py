"""The same boxes as the network in memory keeps."""

import numpy as np
import pytest
import tensorflow as tf
from official.vision.configs import maskrcnn
from official.vision.modeling.layers import detection_generator

from oanet_tf.modeling import model_garden_rois
from oanet_tf.modeling.oanet import BOX_WEIGHTS
from oanet_tf.modeling.proposals import Limits, ROIGenerator, best_boxes
from oanet_tf.serving.builtin_nms import Detections, Proposals, non_max_suppression
from tests.lite import run_in_litert

IMAGE_SHAPE = np.array([[90, 128]], np.float32)
NUM_ANCHORS, NUM_THINGS = 3, 4


def test_the_best_of_those_that_overlap_is_kept():
  # Overlaps: of the first two 80 / 120, of the last with any nothing.
  boxes = tf.constant([[0, 0, 10, 10], [0, 2, 10, 12], [0, 50, 10, 60]], tf.float32)
  scores = tf.constant([0.5, 0.9, 0.4])
  kept = non_max_suppression(boxes, scores, most=4, iou_threshold=0.6, score_threshold=0.0)
  assert kept.is_box.numpy().tolist() == [True, True, False, False]
  assert kept.of(scores).numpy().tolist() == pytest.approx([0.9, 0.4, 0, 0])
  assert kept.of(boxes).numpy()[:, 1].tolist() == [2, 50, 0, 0]
  kept = non_max_suppression(boxes, scores, most=4, iou_threshold=0.7, score_threshold=0.4)
  assert kept.of(scores).numpy().tolist() == pytest.approx([0.9, 0.5, 0, 0])
  none = non_max_suppression(boxes, scores, most=2, iou_threshold=0.5, score_threshold=0.9)
  assert not none.is_box.numpy().any() and not none.of(boxes).numpy().any()


@pytest.mark.slow
def test_boxes_without_area_are_kept_once_also_in_litert():
  """LiteRT's operation would repeat the second one up to the end."""
  boxes = np.float32([[0, 0, 9, 9], [5, 2, 9, 2], [0, 0, 9, 8], [5, 2, 9, 2], [3, 3, 3, 8]])
  scores = np.float32([0.9, 0.8, 0.7, 0.6, 0.5])

  def suppress(boxes, scores):
    kept = non_max_suppression(boxes, scores, most=6, iou_threshold=0.7, score_threshold=0.0)
    return {'scores': kept.of(scores)}

  expected = [0.9, 0.8, 0.6, 0.5, 0, 0]
  np.testing.assert_allclose(suppress(tf.constant(boxes), tf.constant(scores))['scores'], expected)
  found = run_in_litert(suppress, {'boxes': tf.constant(boxes), 'scores': tf.constant(scores)})
  np.testing.assert_allclose(found['scores'], expected)


def levels(seed):
  """Of an RPN head, and anchors twice the stride wide, at strides of 8 and 16."""
  rng = np.random.default_rng(seed)
  scores, boxes, anchors = {}, {}, {}
  for level, stride in (('2', 8), ('3', 16)):
    size = (96 // stride, 128 // stride)
    scores[level] = tf.constant(rng.normal(size=(1, *size, NUM_ANCHORS)), tf.float32)
    boxes[level] = tf.constant(0.3 * rng.normal(size=(1, *size, 4 * NUM_ANCHORS)), tf.float32)
    corners = np.stack(np.meshgrid(*(np.arange(n) * stride for n in size), indexing='ij'), -1)
    corners = np.repeat(corners[:, :, None], NUM_ANCHORS, 2)
    anchor = np.concatenate([corners, corners + 2 * stride], -1).reshape(*size, -1)
    anchors[level] = tf.constant(anchor, tf.float32)
  return boxes, scores, anchors


PROPOSALS = [
  {},
  {'test_nms_iou_threshold': 0.3},
  {'test_num_proposals': 1000},
  {'test_num_proposals': 7, 'test_pre_nms_top_k': 5},
  {'test_pre_nms_score_threshold': 0.8},
  {'test_pre_nms_min_size_threshold': 12.0},
  # Suppresses none.
  {'test_nms_iou_threshold': 0.0},
]


@pytest.mark.parametrize('changes', PROPOSALS)
def test_proposals_are_those_in_memory(changes):
  settings = maskrcnn.ROIGenerator(**{'test_num_proposals': 30, **changes})
  inputs = levels(seed=1)
  expected = ROIGenerator(settings)(*inputs, tf.constant(IMAGE_SHAPE), False).numpy()
  limits = Limits.of(settings, training=False)
  boxes = Proposals(limits, best_boxes)(*inputs, tf.constant(IMAGE_SHAPE), False)
  number = boxes.shape[1]
  assert np.count_nonzero(expected.any(-1)) > 3
  np.testing.assert_allclose(boxes, expected[:, :number], rtol=1e-6)
  assert not expected[:, number:].any()


@pytest.mark.parametrize('scale', [1.0, 200.0])
@pytest.mark.parametrize('number', [30, 600])
def test_proposals_are_the_model_gardens(scale, number):
  """With many probabilities of 0 and 1, boxes without area, and boxes at the origin."""
  settings = maskrcnn.ROIGenerator(test_num_proposals=number, use_batched_nms=False)
  boxes, scores, anchors = levels(seed=2)
  scores = {level: scale * score for level, score in scores.items()}
  anchors = {level: anchor - 24.0 for level, anchor in anchors.items()}
  shape = tf.constant(IMAGE_SHAPE)
  generator = model_garden_rois.ModelGardenROIGenerator(settings)
  expected = generator(boxes, scores, anchors, shape, False).numpy()
  limits = Limits.of(settings, training=False)._replace(score_threshold=-1.0)
  proposals = Proposals(limits, model_garden_rois.best_boxes)
  found = proposals(boxes, scores, anchors, shape, False).numpy()
  sides = found[0, :, 2:] - found[0, :, :2]
  assert number == 30 or (sides.min(axis=1) == 0).sum() > 3
  np.testing.assert_allclose(found, expected[:, : found.shape[1]], rtol=1e-6)
  assert not expected[:, found.shape[1] :].any()


def rois(seed, number):
  """Proposals, and what a detection head says of them."""
  rng = np.random.default_rng(seed)
  corners = rng.uniform(0, 80, (1, number, 2))
  boxes = np.concatenate([corners, corners + rng.uniform(5, 40, (1, number, 2))], -1)
  raw_boxes = rng.normal(size=(1, number, 4 * (1 + NUM_THINGS)))
  raw_scores = 2 * rng.normal(size=(1, number, 1 + NUM_THINGS))
  return [tf.constant(x, tf.float32) for x in (raw_boxes, raw_scores, boxes)]


@pytest.mark.parametrize(
  ('number', 'changes'),
  [
    (60, {}),
    (60, {'max_num_detections': 5}),
    (60, {'nms_iou_threshold': 0.2}),
    (60, {'pre_nms_score_threshold': 0.7}),
    (3, {'max_num_detections': 100}),
    (1, {'pre_nms_score_threshold': 1.0}),
  ],
)
def test_detections_are_the_model_gardens(number, changes):
  settings = maskrcnn.DetectionGenerator(
    nms_version='batched', **{'max_num_detections': 20, **changes}
  )
  inputs = rois(3, number)
  layer = detection_generator.DetectionGenerator(**settings.as_dict())
  expected = layer(*inputs, IMAGE_SHAPE, BOX_WEIGHTS)
  found = Detections(settings)(*inputs, tf.constant(IMAGE_SHAPE), BOX_WEIGHTS)
  for name in found:
    np.testing.assert_array_equal(found[name], expected[name], name)
  assert found.keys() == {'detection_boxes', 'detection_scores', 'detection_classes',
                          'num_detections'}  # fmt: skip
