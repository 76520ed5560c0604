import numpy as np
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from official.vision.configs import maskrcnn
from official.vision.modeling.layers import roi_generator

from oanet_tf.config.definitions import OANet
from oanet_tf.data.anchors import Anchors
from oanet_tf.modeling.proposals import Limits, ROIGenerator, best_boxes

CANVAS = (64, 96)
MODEL = OANet(min_level=2, max_level=5)


def predictions(rng, images=2):
  """Random boxes with scores that all differ, and anchors, by level."""
  anchors = Anchors(MODEL)(CANVAS)
  shapes = {level: grid.shape for level, grid in anchors.items()}
  count = sum(int(np.prod(shape)) // 4 for shape in shapes.values())
  distinct = iter(np.linspace(-6, 6, count * images)[rng.permutation(count * images)])
  scores, boxes = {}, {}
  for level, (h, w, channels) in shapes.items():
    scores[level] = np.fromiter(distinct, np.float32, images * h * w * channels // 4)
    scores[level] = tf.constant(scores[level].reshape(images, h, w, channels // 4))
    boxes[level] = tf.constant(rng.normal(0, 0.03, (images, h, w, channels)), tf.float32)
  return boxes, scores, anchors


SHAPES = tf.constant([[64.0, 96.0], [64.0, 96.0]])


@given(st.integers(0, 2**31), st.sampled_from([50, 200, 5000]), st.booleans())
@settings(max_examples=12, deadline=None)
def test_equals_the_model_garden_where_scores_differ(seed, top_k, training):
  options = {
    'pre_nms_top_k': top_k, 'test_pre_nms_top_k': top_k, 'num_proposals': 100,
    'test_num_proposals': 60, 'nms_iou_threshold': 0.7, 'test_nms_iou_threshold': 0.5,
  }  # fmt: skip
  inputs = predictions(np.random.default_rng(seed))
  found = ROIGenerator(maskrcnn.ROIGenerator(**options))(*inputs, SHAPES, training).numpy()
  expected, _ = roi_generator.MultilevelROIGenerator(**options)(*inputs, SHAPES, training)
  number = expected.shape[1]
  np.testing.assert_allclose(found[:, :number], expected, atol=1e-3)


def test_no_more_boxes_are_compared_than_asked_for():
  """The suppression, which no GPU computes, sees the best boxes of each level only."""
  settings = maskrcnn.ROIGenerator(pre_nms_top_k=30)
  generate = ROIGenerator(settings)
  inputs = predictions(np.random.default_rng(0))
  function = tf.function(lambda: generate(*inputs, SHAPES, True), autograph=False)
  graph = function.get_concrete_function().graph
  (suppression,) = (o for o in graph.get_operations() if o.type == 'CombinedNonMaxSuppression')
  assert suppression.inputs[0].shape == (2, 30, 4, 4)


def constant_predictions(offset):
  anchors = Anchors(MODEL)(CANVAS)
  boxes = {level: tf.fill([1, *grid.shape], offset) for level, grid in anchors.items()}
  scores = {
    level: tf.zeros([1, *grid.shape[:2], grid.shape[2] // 4]) for level, grid in anchors.items()
  }
  return boxes, scores, anchors


def test_equal_scores_give_as_many_proposals():
  generate = ROIGenerator(maskrcnn.ROIGenerator(num_proposals=40))
  found = generate(*constant_predictions(0.0), SHAPES[:1], True).numpy()
  assert found.shape == (1, 40, 4)
  assert (found[..., 2:] > found[..., :2]).all()
  assert found.min() >= 0 and found[..., ::2].max() <= 64 and found[..., 1::2].max() <= 96


def test_boxes_outside_the_image_are_no_proposals():
  generate = ROIGenerator(maskrcnn.ROIGenerator(num_proposals=40))
  found = generate(*constant_predictions(100.0), SHAPES[:1], True).numpy()
  assert found.shape == (1, 40, 4) and not found.any()


def test_boxes_below_the_least_size_are_dropped():
  anchors = Anchors(MODEL)(CANVAS)
  # All boxes shrink to a hundredth of their anchor, at most 5 px.
  boxes = {
    level: tf.constant(np.tile([0, 0, -4.6, -4.6], [1, *grid.shape[:2], grid.shape[2] // 4]))
    for level, grid in anchors.items()
  }
  boxes = {level: tf.cast(value, tf.float32) for level, value in boxes.items()}
  _, scores, _ = predictions(np.random.default_rng(0), images=1)
  for least, some in ((0.0, True), (8.0, False)):
    settings = maskrcnn.ROIGenerator(pre_nms_min_size_threshold=least, num_proposals=40)
    found = ROIGenerator(settings)(boxes, scores, anchors, SHAPES[:1], True).numpy()
    assert found.any() == some


def test_the_size_of_the_image_may_be_unknown_when_traced():
  generate = ROIGenerator(maskrcnn.ROIGenerator(num_proposals=40, pre_nms_top_k=100))
  boxes, scores, anchors = predictions(np.random.default_rng(0))

  def any_size(values):
    return {k: tf.TensorSpec([*v.shape[:-3], None, None, v.shape[-1]]) for k, v in values.items()}

  function = tf.function(lambda b, s, a: generate(b, s, a, SHAPES, True), autograph=False)
  function = function.get_concrete_function(*map(any_size, (boxes, scores, anchors)))
  assert function.output_shapes == (2, 40, 4)
  np.testing.assert_allclose(
    function(boxes, scores, anchors), generate(boxes, scores, anchors, SHAPES, True)
  )


def test_every_graph_rounds_alike():
  """TensorFlow changes the order of sums where it knows shapes; an exported graph knows fewer."""
  boxes, scores, anchors = predictions(np.random.default_rng(1), images=1)
  limits = Limits.of(maskrcnn.ROIGenerator(), training=False)

  def of_graph(batch):
    spec = [tf.TensorSpec([batch, *v['2'].shape[1:]]) for v in (boxes, scores)]
    function = tf.function(
      lambda b, s: best_boxes(b, s, anchors['2'], SHAPES[:1], limits), spec, autograph=False
    )
    return function(boxes['2'], scores['2'])

  for known, unknown in zip(of_graph(1), of_graph(None), strict=True):
    np.testing.assert_array_equal(known, unknown)
