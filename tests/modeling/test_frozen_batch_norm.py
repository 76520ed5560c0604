"""Batch normalization that is not trained: the same results and gradients, and less is kept."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from oanet_tf.modeling.frozen_batch_norm import FrozenBatchNormalization


def layers():
  """Keras' layer and ours, frozen, with the same random statistics and scales."""
  pair = [tf_keras.layers.BatchNormalization(epsilon=1e-3) for _ in range(2)]
  rng = np.random.default_rng(0)
  values = [
    rng.uniform(0.5, 2.0, 5),
    rng.normal(size=5),
    rng.normal(size=5),
    rng.uniform(0.1, 3, 5),
  ]
  for layer in pair:
    layer.build([None, None, None, 5])
    layer.set_weights(values)
    layer.trainable = False
  FrozenBatchNormalization.freeze(pair[1])
  assert isinstance(pair[1], FrozenBatchNormalization)
  return pair


def maps():
  return tf.constant(np.random.default_rng(1).normal(size=(2, 3, 4, 5)), tf.float32)


def test_a_hand_worked_value():
  layer = tf_keras.layers.BatchNormalization(epsilon=0.0)
  layer.build([None, 1, 1, 1])
  layer.set_weights([np.array([value]) for value in (3.0, 0.5, 1.0, 4.0)])
  FrozenBatchNormalization.freeze(layer)
  # (5 − 1) / √4 · 3 + 0.5
  for training in (False, True):
    assert float(layer(tf.constant([[[[5.0]]]]), training=training)) == pytest.approx(6.5)


@pytest.mark.parametrize('training', [False, True])
def test_results_and_gradients_are_those_of_keras(training):
  expected, found = [], []
  for layer, results in zip(layers(), (expected, found), strict=True):
    images = maps()
    with tf.GradientTape() as tape:
      tape.watch(images)
      output = layer(images, training=training)
      loss = tf.reduce_sum(output**2)
    results += [output.numpy(), tape.gradient(loss, images).numpy()]
    results += [weight.numpy() for weight in layer.weights]
  for one, other in zip(expected, found, strict=True):
    np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-5)


def test_the_gradient_needs_no_input():
  """In the optimized graph of the gradient alone, no convolution's result has two users."""
  _, layer = layers()

  @tf.function(autograph=False)
  def gradient(images, upstream):
    with tf.GradientTape() as tape:
      tape.watch(images)
      output = layer(images, training=True)
    return tape.gradient(output, images, upstream)

  graph = gradient.get_concrete_function(maps(), maps()).graph
  [images, _] = graph.inputs[:2]
  needed, waiting = set(), [graph.outputs[0].op]
  while waiting:
    operation = waiting.pop()
    # Shapes tell nothing of values, and are known beforehand.
    if operation not in needed and operation.type not in ('Shape', 'ShapeN'):
      needed.add(operation)
      waiting += [tensor.op for tensor in operation.inputs]
  assert images.op not in needed


def test_in_bfloat16_it_is_keras_own():
  policy = tf_keras.mixed_precision.Policy('mixed_bfloat16')
  layer = tf_keras.layers.BatchNormalization(dtype=policy)
  layer.build([None, None, None, 5])
  layer.trainable = False
  expected = layer(maps(), training=True)
  FrozenBatchNormalization.freeze(layer)
  assert expected.dtype == tf.bfloat16
  assert (layer(maps(), training=True) == expected).numpy().all()


def test_other_kinds_are_frozen_too():
  layer = tf_keras.layers.experimental.SyncBatchNormalization()
  FrozenBatchNormalization.freeze(layer)
  assert not layer.trainable
  assert not isinstance(layer, FrozenBatchNormalization)
