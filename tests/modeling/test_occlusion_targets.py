import numpy as np
import tensorflow as tf

from oanet_tf.config.definitions import Fusion
from oanet_tf.modeling import occlusion_targets
from oanet_tf.modeling.fusion.instances import Instances
from oanet_tf.modeling.occlusion_targets import NO_PAIR

EMPTY = -1


def labels(segment_map, segments=(), classes=(), boxes=None, crowds=(), slots=3):
  """Of one image; `boxes` are [y1, x1, y2, x2], each wholly covered by its object."""

  def padded(values, shape):
    rows = np.full([slots, *shape], EMPTY, np.float32)
    rows[: len(values)] = np.reshape(values, [len(values), *shape])
    return rows[None]

  boxes = np.zeros([len(segments), 4]) if boxes is None else boxes
  return {
    'gt_boxes': tf.constant(padded(boxes, [4])),
    'gt_masks': tf.constant(padded(np.ones([len(boxes), 4, 4]), [4, 4])),
    'gt_classes': tf.constant(padded(classes or [1] * len(segments), []), tf.int32),
    'gt_segments': tf.constant(padded(segments, []), tf.int32),
    'crowd_boxes': tf.constant(padded(crowds, [4])),
    'segment_map': tf.constant([segment_map], tf.int32),
  }


def row(*masks):
  """Masks of one row of pixels, [1, 3, 1, w], with padding."""
  found = np.zeros([3, len(masks[0])], np.float32)
  found[: len(masks)] = masks
  return tf.constant(found[None, :, None])


def targets_of_objects(masks, given, number=3):
  return occlusion_targets.true_pairs(masks, given, number, side=2).targets.numpy().tolist()


def detections(boxes, classes, scores=None, height=8, width=8):
  number = len(boxes)
  outputs = {
    'detection_boxes': tf.constant([boxes], tf.float32),
    'detection_scores': tf.constant([scores or [0.9] * number], tf.float32),
    'detection_classes': tf.constant([classes], tf.int32),
    'detection_masks': tf.ones([1, number, 2, 2]),
  }
  return Instances(outputs, Fusion(), 0.5, [height, width], stride=1)


def targets_of_detections(found, given, number=3):
  return occlusion_targets.detected_pairs(found, given, number, side=2).targets.numpy().tolist()


# Of annotated objects


def test_the_target_is_the_share_of_the_conflict():
  # Of four shared pixels the first has one, the second two.
  masks = row([1, 1, 1, 1, 1, 0], [0, 1, 1, 1, 1, 1])
  given = labels([[7, 7, 2, 2, 9, 2]], [7, 2])
  assert targets_of_objects(masks, given) == [[np.float32(1 / 3), NO_PAIR, NO_PAIR]]


def test_the_largest_conflicts_come_first():
  masks = row([1, 1, 1, 1], [0, 0, 0, 1], [1, 1, 0, 0])
  given = labels([[3, 3, 1, 2]], [1, 2, 3])
  assert targets_of_objects(masks, given) == [[0, 0, NO_PAIR]]
  given = labels([[1, 3, 1, 2]], [1, 2, 3])
  assert targets_of_objects(masks, given, number=1) == [[0.5]]


def test_an_object_without_a_segment_lies_below():
  masks = row([1, 1, 1], [0, 1, 1])
  assert targets_of_objects(masks, labels([[7, 7, 7]], [0, 7])) == [[0, NO_PAIR, NO_PAIR]]


def test_objects_of_one_segment_are_no_pair():
  masks = row([1, 1, 1], [0, 1, 1])
  assert targets_of_objects(masks, labels([[3, 3, 3]], [3, 3])) == [[NO_PAIR] * 3]


def test_a_finer_map_is_sampled_at_the_centres_of_the_canvas_cells():
  segment_map = np.zeros((4, 8), np.int32)
  segment_map[2::4, 2::4] = [[1, 1]]
  given = labels(segment_map, [1, 2])
  assert targets_of_objects(row([1, 1], [1, 1]), given) == [[1, NO_PAIR, NO_PAIR]]


def test_views_of_objects():
  given = labels([[7, 2]], [7, 2], [5, 6], [[0, 0, 8, 8], [4, 4, 12, 12]])
  views = occlusion_targets.true_pairs(row([1, 1], [1, 1]), given, 1, side=3).views
  assert views.boxes.numpy().tolist() == [[[0, 0, 12, 12]]]
  assert [classes.numpy().tolist() for classes in views.classes] == [[[5]], [[6]]]
  assert views.masks[0].numpy().tolist() == [[[[1, 1, 0], [1, 1, 0], [0, 0, 0]]]]


def test_without_any_conflict_there_is_no_pair():
  given = labels([[7, 2]], [7, 2])
  pairs = occlusion_targets.true_pairs(row([1, 0], [0, 1]), given, number=8, side=2)
  assert (pairs.targets.numpy() == NO_PAIR).all()
  assert all(np.isfinite(masks).all() for masks in pairs.views.masks)


# Of detections

# The left half is a person, 4, and the right one a tie, 9.
HALVES = [[4] * 4 + [9] * 4] * 8


def test_a_detection_stands_for_the_segment_of_its_category_that_it_covers_most_of():
  given = labels(HALVES, [4, 9], [1, 2])
  # The person reaches two columns into the tie, which has them.
  found = detections([[0, 0, 8, 6], [0, 4, 8, 8]], [1, 2])
  assert targets_of_detections(found, given) == [[0]]
  # The other way round: the larger part of each lies on the other's segment.
  found = detections([[0, 3, 8, 8], [0, 0, 8, 5]], [1, 2])
  assert targets_of_detections(found, given) == [[0.5]]


def test_a_detection_that_covers_nothing_of_its_category_lies_below():
  given = labels(HALVES, [4, 9], [1, 2])
  found = detections([[0, 0, 8, 3], [0, 0, 8, 2]], [1, 2])
  assert targets_of_detections(found, given) == [[1]]
  # Of two such ones nobody knows.
  found = detections([[0, 0, 8, 3], [0, 0, 8, 2]], [2, 3])
  assert targets_of_detections(found, given) == [[NO_PAIR]]


def test_two_detections_of_one_object_are_no_pair():
  given = labels(HALVES, [4, 9], [1, 2])
  found = detections([[0, 0, 8, 4], [0, 0, 8, 2]], [1, 1])
  assert targets_of_detections(found, given) == [[NO_PAIR]]


def test_what_lies_in_a_crowd_may_be_right():
  boxes, classes = [[0, 0, 8, 3], [0, 0, 8, 2]], [1, 3]
  for crowd, target in (([0, 0, 8, 1], NO_PAIR), ([0, 0, 7, 1], 1)):
    given = labels(HALVES, [4, 9], [1, 2], crowds=[crowd])
    assert targets_of_detections(detections(boxes, classes), given) == [[target]]


def test_of_detections_that_the_fusion_drops_there_is_no_pair():
  given = labels(HALVES, [4, 9], [1, 2])
  found = detections([[0, 0, 8, 6], [0, 4, 8, 8]], [1, 2], [0.9, 0.4])
  assert targets_of_detections(found, given) == [[NO_PAIR]]


def test_no_object_at_all():
  """Only stuff, and padding for objects, which is no category either."""
  found = detections([[0, 0, 8, 6], [0, 4, 8, 8]], [1, 0])
  assert targets_of_detections(found, labels(HALVES)) == [[NO_PAIR]]


def test_sizes_need_not_be_known_when_it_is_traced():
  specs = {
    name: tf.TensorSpec([None] * value.shape.rank, value.dtype)
    if name == 'segment_map'
    else tf.TensorSpec([None, *value.shape[1:]], value.dtype)
    for name, value in labels([[1]]).items()
  }
  function = tf.function(
    lambda masks, given: occlusion_targets.true_pairs(masks, given, 3, side=2).targets,
    [tf.TensorSpec([None, 3, None, None]), specs],
    autograph=False,
  )
  targets = function(row([1, 1], [0, 1]), labels([[1, 2]], [1, 2]))
  assert targets.numpy().tolist() == [[0, NO_PAIR, NO_PAIR]]


def test_joined_pairs_come_one_after_the_other():
  given = labels(HALVES, [4, 9], [1, 2])
  found = detections([[0, 0, 8, 6], [0, 4, 8, 8]], [1, 2])
  part = occlusion_targets.detected_pairs(found, given, number=8, side=2)
  both = occlusion_targets.joined([part, part])
  assert both.targets.numpy().tolist() == [[0, 0]]
  assert both.views.boxes.shape == (1, 2, 4) and both.views.masks[1].shape == (1, 2, 2, 2)
