import numpy as np
import pytest
import tensorflow as tf
from official.vision.losses import maskrcnn_losses

from oanet_tf.modeling.stuff_channels import StuffChannels
from oanet_tf.training import losses

T, S = 3, 2
ALL = StuffChannels.of_all(T, S)


def logits_for(labels, channels, right=2.0):
  """`right` on the label's channel, else 0."""
  return right * np.eye(channels, dtype=np.float32)[np.asarray(labels)]


def cross_entropy(channels, right=2.0):
  return -np.log(np.exp(right) / (np.exp(right) + channels - 1))


def test_stuff_loss_is_the_mean_over_pixels_that_are_not_void():
  labels = tf.constant([[[1, 2], [0, 5]]])
  logits = logits_for(
    [[[0, 1], [3, 0]]], T + S
  )  # Right, right, void, wrong (label 5 is channel 4).
  wrong = -np.log(1 / (np.exp(2.0) + T + S - 1))
  expected = (2 * cross_entropy(T + S) + wrong) / 3
  loss = losses.stuff_loss(tf.constant(logits), labels, ALL)
  assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_stuff_loss_without_object_context_ignores_things():
  labels = tf.constant([[[1, 3], [4, 5]]])
  logits = logits_for([[[1, 1], [0, 1]]], S)
  loss = losses.stuff_loss(tf.constant(logits), labels, StuffChannels(0, 0, logits.shape[-1], T))
  assert float(loss) == pytest.approx(cross_entropy(S), rel=1e-5)


def test_stuff_loss_of_nothing_but_void_is_zero_with_zero_gradient():
  logits = tf.Variable(tf.random.normal([1, 2, 2, T + S]))
  with tf.GradientTape() as tape:
    loss = losses.stuff_loss(logits, tf.zeros([1, 2, 2], tf.int32), ALL)
  assert float(loss) == 0.0
  assert not tape.gradient(loss, logits).numpy().any()


def test_stuff_loss_resamples_logits_to_finer_labels():
  labels = tf.fill([1, 4, 4], 2)
  logits = logits_for(np.ones((1, 2, 2), int), T + S)
  loss = losses.stuff_loss(tf.constant(logits), labels, ALL, resample=True)
  assert float(loss) == pytest.approx(cross_entropy(T + S), rel=1e-5)


def instances(*active):
  """A 1 × n row of pixels with these sets of active channels."""
  tensor = np.zeros((1, 1, len(active), T), np.float32)
  for index, channels in enumerate(active):
    tensor[0, 0, index, list(channels)] = 1
  return tensor


def test_srm_loss_counts_conflicting_pixels_alone():
  # Pixel 0 conflicts and is labelled rightly; 1 has one class; 2 conflicts, but its label is stuff;
  # 3 conflicts and is void; 4 conflicts, but its label is a class that is not there.
  tensor = instances({0, 1}, {0}, {0, 2}, {0, 1}, {0, 1})
  labels = tf.constant([[[2, 1, T + 1, 0, 3]]])
  ranking = np.zeros((1, 1, 5, T), np.float32)
  ranking[0, 0, 0, 1] = 2.0
  ranking[0, 0, 1:] = 50.0 * np.eye(T)[2]  # Very wrong wherever it should not count.
  loss = losses.srm_loss(tf.constant(ranking), tf.constant(tensor), labels)
  assert float(loss) == pytest.approx(cross_entropy(T), rel=1e-5)


def test_srm_loss_without_conflict_is_zero_with_zero_gradient():
  ranking = tf.Variable(tf.random.normal([1, 1, 2, T]))
  with tf.GradientTape() as tape:
    loss = losses.srm_loss(ranking, tf.constant(instances({0}, set())), tf.constant([[[1, 0]]]))
  assert float(loss) == 0.0
  assert not tape.gradient(loss, ranking).numpy().any()


def test_srm_loss_takes_the_label_at_the_middle_of_each_cell():
  tensor = instances({0, 1})
  labels = np.zeros((1, 4, 4), np.int32)
  labels[0, 2, 2] = 2
  ranking = logits_for([[[1]]], T)
  loss = losses.srm_loss(tf.constant(ranking), tf.constant(tensor), tf.constant(labels), step=4)
  assert float(loss) == pytest.approx(cross_entropy(T), rel=1e-5)


def test_box_losses_equal_the_model_gardens_but_for_its_0_01():
  rng = np.random.default_rng(0)
  shapes = {'2': (2, 4, 5, 12), '3': (2, 2, 3, 12)}
  outputs = {
    level: tf.constant(rng.normal(size=shape), tf.float32) for level, shape in shapes.items()
  }
  matched = {level: rng.random((*shape[:3], 3)) < 0.3 for level, shape in shapes.items()}
  targets = {
    level: tf.constant(rng.normal(size=shape) * matched[level].repeat(4, -1), tf.float32)
    for level, shape in shapes.items()
  }
  theirs = 0.0
  for level in shapes:
    count = 4 * matched[level].sum()
    one = maskrcnn_losses.RpnBoxLoss(0.3)({level: outputs[level]}, {level: targets[level]})
    theirs += float(one) * (count + 0.01) / count
  assert float(losses.rpn_box_loss(outputs, targets, 0.3)) == pytest.approx(theirs, rel=1e-5)

  outputs = tf.constant(rng.normal(size=(2, 6, 4 * 5)), tf.float32)
  classes = tf.constant(rng.integers(0, 5, (2, 6)))
  boxes = tf.constant(rng.normal(size=(2, 6, 4)), tf.float32)
  count = 4 * np.count_nonzero(classes)
  theirs = float(maskrcnn_losses.FastrcnnBoxLoss(1.0)(outputs, classes, boxes))
  ours = float(losses.box_loss(outputs, classes, boxes, 1.0))
  assert ours == pytest.approx(theirs * (count + 0.01) / count, rel=1e-5)


def test_mask_loss_equals_the_model_gardens_but_for_its_0_01():
  rng = np.random.default_rng(1)
  logits = tf.constant(rng.normal(size=(2, 3, 4, 4)), tf.float32)
  targets = tf.constant(rng.integers(0, 2, (2, 3, 4, 4)), tf.float32)
  classes = tf.constant([[1, 0, 2], [0, 0, 3]])
  theirs = float(maskrcnn_losses.MaskrcnnLoss()(logits, targets, classes))
  ours = float(losses.mask_loss(logits, targets, classes))
  assert ours == pytest.approx(theirs * (3 * 16 + 0.01) / (3 * 16), rel=1e-5)


def test_losses_of_no_object_are_zero_with_zero_gradient():
  outputs = tf.Variable(tf.random.normal([2, 3, 8]))
  with tf.GradientTape() as tape:
    loss = losses.box_loss(outputs, tf.zeros([2, 3], tf.int32), tf.zeros([2, 3, 4]), 1.0)
  assert float(loss) == 0.0 and not tape.gradient(loss, outputs).numpy().any()


def test_huber_by_hand():
  np.testing.assert_allclose(losses.huber(tf.constant([0.5, -1.0, 3.0]), 1.0), [0.125, 0.5, 2.5])


def test_huber_of_0_is_the_absolute_error():
  errors = [0.5, -2.0, 0.0, 0.05]
  np.testing.assert_allclose(losses.huber(tf.constant(errors), 0.0), np.abs(errors))
  # Detectron2's smooth L1 by torch 2.14 with β = 1/9, which is a Huber loss over its δ.
  np.testing.assert_allclose(
    9 * losses.huber(tf.constant(errors), 1 / 9), [0.444444, 1.944444, 0.0, 0.01125], rtol=1e-5
  )


def test_box_loss_over_samples_by_hand():
  """Detectron2 divides the sum over the objects' coordinates by all sampled RoIs."""
  classes = tf.constant([[1, 0, 0, -1], [2, 0, 0, 1]])
  targets = np.zeros((2, 4, 4), np.float32)
  targets[0, 0], targets[1, 0] = [1, 0, 0, -0.5], [0, 2, 0, 0]
  samples = classes >= 0
  outputs = tf.zeros([2, 4, 12])
  loss = losses.box_loss(outputs, classes, tf.constant(targets), 0.0, samples)
  assert float(loss) == pytest.approx((1.5 + 2.0) / 7)
  of_objects = losses.box_loss(outputs, classes, tf.constant(targets), 0.0)
  assert float(of_objects) == pytest.approx((1.5 + 2.0) / 12)


def test_rpn_box_loss_over_samples_by_hand():
  """Only the sampled anchors count, and 256 for each of two images divide the sum."""
  targets = {'2': np.zeros((2, 1, 2, 8), np.float32), '3': np.ones((2, 1, 1, 8), np.float32)}
  targets['2'][0, 0, 0, :4] = [1, 0, 0, -3]
  targets['2'][1, 0, 1, 4:] = 5
  samples = {'2': np.zeros((2, 1, 2, 2), np.int32), '3': np.zeros((2, 1, 1, 2), np.int32)}
  samples['2'][0, 0, 0, 0] = samples['3'][1, 0, 0, 1] = 1
  samples['2'][0, 0, 1, 1] = -1
  outputs = {level: tf.zeros_like(value) for level, value in targets.items()}
  loss = losses.sampled_rpn_box_loss(outputs, targets, samples, 0.0, 256)
  assert float(loss) == pytest.approx((4 + 4) / 512)


def test_class_loss_equals_the_model_gardens_where_all_slots_hold_a_roi():
  rng = np.random.default_rng(2)
  logits = tf.constant(rng.normal(size=(2, 6, 5)), tf.float32)
  classes = rng.integers(0, 5, (2, 6))
  theirs = float(maskrcnn_losses.FastrcnnClassLoss()(logits, tf.constant(classes)))
  assert float(losses.class_loss(logits, tf.constant(classes))) == pytest.approx(theirs, rel=1e-5)
  # Empty slots change nothing.
  more_logits = tf.concat([logits, tf.fill([2, 3, 5], 7.0)], axis=1)
  more = tf.constant(np.concatenate([classes, np.full((2, 3), -1)], axis=1))
  assert float(losses.class_loss(more_logits, more)) == pytest.approx(theirs, rel=1e-5)


def test_class_loss_without_any_roi_is_zero():
  logits = tf.Variable(tf.random.normal([1, 3, 4]))
  with tf.GradientTape() as tape:
    loss = losses.class_loss(logits, tf.fill([1, 3], -1))
  assert float(loss) == 0.0 and not tape.gradient(loss, logits).numpy().any()
