"""The numbers are of PyTorch's layers, put together as in Detectron2's `SemSegFPNHead`."""

import zlib

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from oanet_tf.modeling.semantic_fpn_head import ModelGardenSemanticHead, SemanticFPNHead
from oanet_tf.weights.stored import object_paths

LEVELS, CHANNELS, FILTERS, LABELS = [2, 3, 4, 5], 2, 64, 3
# Stages of each level, and the smallest map: a level is as often doubled as it is coarser.
STAGES = {2: 1, 3: 1, 4: 2, 5: 3}
SIZES = {2: (16, 24), 3: (8, 12), 4: (4, 6), 5: (2, 3)}
# Of the logits, rows and columns 0, 5, 10, ….
TORCH = [
  [[-3.6168, 1.1848, -3.7728], [-7.472, 4.091, -10.7912], [-5.6131, 1.7546, -10.2178],
   [-3.1608, 3.2288, -5.6594], [-4.4183, 4.9007, -7.3894]],
  [[-8.3971, 5.7197, -3.7898], [-6.1676, 9.5062, -4.392], [-2.2026, 10.4717, -8.5306],
   [-4.1701, 4.3863, -3.6641], [-0.5232, 11.1079, -5.4799]],
  [[-9.6188, 2.7068, -3.8207], [-7.0761, 0.4362, -9.918], [-7.4114, 3.406, -5.6465],
   [-8.9604, 5.1822, -5.0106], [-5.8865, 7.0383, -2.4476]],
  [[-8.0855, 5.4503, -9.4405], [-3.6606, 2.4972, -4.5712], [-3.811, 3.5346, -6.0776],
   [-4.0617, 4.5033, -5.0222], [-2.9631, 1.1635, -5.0003]],
]  # fmt: skip


def values(name, shape):
  """Numbers that depend on nothing but the name."""
  return np.random.default_rng(zlib.crc32(name.encode())).normal(size=shape).astype(np.float32)


def features(batch=1):
  return {
    str(level): tf.constant(values(f'p{level}', (batch, *size, CHANNELS)))
    for level, size in SIZES.items()
  }


def with_values(head):
  """Called once, and then filled; its kernels are [K, K, I, O]."""
  head(features())
  for name, variable in object_paths(head).items():
    value = values(name, variable.shape)
    variable.assign(1.0 + 0.5 * value if name.endswith('gamma') else 0.3 * value)
  return head


@pytest.fixture(scope='module')
def head():
  return with_values(SemanticFPNHead(levels=LEVELS, num_labels=LABELS, num_filters=FILTERS))


def test_logits_equal_torchs(head):
  logits = head(features())
  assert logits.shape == (1, 16, 24, LABELS) and logits.dtype == tf.float32
  np.testing.assert_allclose(logits[0, ::5, ::5], TORCH, atol=2e-4)


def test_each_image_is_normalized_alone(head):
  both = {
    level: tf.concat([value, 10.0 * value[:, ::-1]], axis=0) for level, value in features().items()
  }
  np.testing.assert_allclose(head(both)[:1], head(features()), atol=1e-4)


def test_sizes_may_be_unknown_when_traced(head):
  spec = {str(level): tf.TensorSpec([None, None, None, CHANNELS]) for level in LEVELS}
  function = tf.function(lambda maps: head(maps), [spec], autograph=False)
  assert function.get_concrete_function().output_shapes.as_list() == [None, None, None, LABELS]
  for batch in (1, 2):
    np.testing.assert_allclose(function(features(batch)), head(features(batch)), atol=1e-4)


@pytest.mark.parametrize('level', LEVELS)
def test_every_level_counts_and_no_other(head, level):
  given = {**features(), '6': tf.fill([1, 1, 2, CHANNELS], np.nan)}
  logits = head(given)
  np.testing.assert_allclose(logits, head(features()), atol=1e-4)
  given[str(level)] = tf.reverse(given[str(level)], [2])
  assert float(tf.reduce_max(tf.abs(head(given) - logits))) > 0.5


def test_kernels_by_level(head):
  for level, number in STAGES.items():
    kernels = [
      variable.shape.as_list()
      for name, variable in object_paths(head).items()
      if name.startswith(f'_stages/{level}/') and name.endswith('kernel')
    ]
    assert kernels == [
      [3, 3, CHANNELS if not place else FILTERS, FILTERS] for place in range(number)
    ]
  # A kernel, scale and offset for each stage, and a kernel and bias for the logits.
  assert len(head.trainable_variables) == 3 * sum(STAGES.values()) + 2


def test_weight_decay_is_on_the_kernels_alone():
  regularizer = tf_keras.regularizers.l2(0.5)
  head = SemanticFPNHead(
    levels=LEVELS, num_labels=LABELS, num_filters=FILTERS, kernel_regularizer=regularizer
  )
  with_values(head)
  kernels = [variable for variable in head.weights if 'kernel' in variable.name]
  assert len(kernels) == len(head.losses) == sum(STAGES.values()) + 1
  expected = sum(0.5 * np.sum(kernel.numpy() ** 2) for kernel in kernels)
  assert float(tf.add_n(head.losses)) == pytest.approx(expected, rel=1e-5)


@pytest.fixture
def mixed_precision():
  tf_keras.mixed_precision.set_global_policy('mixed_bfloat16')
  yield
  tf_keras.mixed_precision.set_global_policy('float32')


def test_logits_of_half_precision_are_float32(head, mixed_precision):
  half = with_values(SemanticFPNHead(levels=LEVELS, num_labels=LABELS, num_filters=FILTERS))
  logits = half(features())
  assert logits.dtype == tf.float32
  difference = np.abs(logits - head(features()))
  assert 0.0 < difference.mean() < 0.1


def test_the_model_gardens_head_has_the_interface_of_the_others():
  head = ModelGardenSemanticHead(
    levels=[2, 3, 4, 5], num_labels=LABELS, num_filters=FILTERS, num_fpn_filters=CHANNELS
  )
  logits = head(features(batch=2))
  assert logits.shape == (2, 16, 24, LABELS) and logits.dtype == tf.float32
  kernels = sorted(tuple(v.shape) for v in head.trainable_variables if len(v.shape) == 4)
  first, further = (3, 3, CHANNELS, FILTERS), (3, 3, FILTERS, FILTERS)
  assert kernels == sorted([first] * 4 + [further] * (1 + 2) + [(1, 1, FILTERS, LABELS)])
  np.testing.assert_allclose(head(features(batch=1)), logits[:1], atol=1e-5)
