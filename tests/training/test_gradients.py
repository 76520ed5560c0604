"""The gradients of one replica, with a ranking module alone, which is quick."""

import numpy as np
import pytest
import tensorflow as tf

from oanet_tf.config import experiments
from oanet_tf.modeling import build
from oanet_tf.training.optimizer import build_learning_rate, build_optimizer
from oanet_tf.training.step import gradients_of
from tests.categories import TIE_ON_PERSON as CATEGORIES
from tests.small_model import TIE_ON_PERSON, training_batch


def gradients(decay, weights=None, deterministic=False):
  config = experiments.load_experiment(
    'srm_only_synthetic',
    (),
    f'task.losses.l2_weight_decay={decay},task.train_data.output_size=[64,64],'
    'task.train_data.max_num_instances=5',
  )
  model = build.build_network(config.task, CATEGORIES, decay)
  if weights is not None:
    model.set_weights(weights)
  optimizer = build_optimizer(config, build_learning_rate(config))
  batch = training_batch(config.task, CATEGORIES, TIE_ON_PERSON)
  function = tf.function(
    lambda: gradients_of(config.task, model, optimizer, batch, deterministic=deterministic),
    autograph=False,
  )
  scalars, found = function()
  return model, {name: float(value) for name, value in scalars.items()}, found


@pytest.mark.parametrize('deterministic', [False, True])
def test_weight_decay_adds_its_part_to_kernels_alone(deterministic):
  model, plain, without = gradients(0.0)
  weights = model.get_weights()
  _, scalars, found = gradients(0.25, weights, deterministic)
  decay = sum(0.125 * np.square(kernel).sum() for kernel in weights if kernel.ndim == 4)
  assert decay > 0
  assert scalars['loss_weight_decay'] == pytest.approx(decay, rel=1e-5)
  assert scalars['loss'] == pytest.approx(plain['loss'] + decay, rel=1e-5)
  assert plain['loss_weight_decay'] == 0.0
  for variable, weight, one, other in zip(
    model.trainable_variables, weights, without, found, strict=True
  ):
    expected = one + 0.25 * weight if weight.ndim == 4 else one
    np.testing.assert_allclose(other, expected, rtol=1e-4, atol=1e-6, err_msg=variable.name)
