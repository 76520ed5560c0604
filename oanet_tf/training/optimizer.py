"""The Model Garden's optimizers, with the learning rate scaled to the batch."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf
import tf_keras
from official.core import config_definitions
from official.modeling import optimization, performance
from official.modeling.optimization import ema_optimizer

from oanet_tf import files

Optimizer = tf_keras.optimizers.Optimizer | tf_keras.optimizers.legacy.Optimizer


class ScaledLearningRate(tf_keras.optimizers.schedules.LearningRateSchedule):
  """A constant learning rate, or a schedule, times a factor."""

  def __init__(
    self, rate: tf_keras.optimizers.schedules.LearningRateSchedule | float, factor: float
  ):
    super().__init__()
    self._rate = rate
    self._factor = factor

  def __call__(self, step: tf.Tensor) -> tf.Tensor:
    rate = self._rate(step) if callable(self._rate) else self._rate
    return self._factor * tf.cast(rate, tf.float32)

  def get_config(self) -> dict[str, Any]:
    return {'rate': self._rate, 'factor': self._factor}


def build_learning_rate(config: config_definitions.ExperimentConfig) -> ScaledLearningRate:
  """Step -> learning rate, scaled linearly with the batch size.

  See Goyal et al., Accurate, Large Minibatch SGD, 2017, section 2.1.
  """
  factory = optimization.OptimizerFactory(config.trainer.optimizer_config)
  batch, reference = config.task.train_data.global_batch_size, config.task.reference_batch_size
  return ScaledLearningRate(factory.build_learning_rate(), batch / reference if reference else 1.0)


def build_optimizer(
  config: config_definitions.ExperimentConfig, learning_rate: ScaledLearningRate
) -> Optimizer:
  """As `official.core.base_task.Task.create_optimizer`; with float16, the loss is scaled."""
  factory = optimization.OptimizerFactory(config.trainer.optimizer_config)
  return performance.configure_optimizer(
    factory.build_optimizer(learning_rate),
    use_float16=config.runtime.mixed_precision_dtype == 'float16',
    loss_scale=config.runtime.loss_scale,
  )


def create_variables(optimizer: Optimizer, variables: Sequence[tf.Variable]) -> None:
  """Creates the optimizer's variables, as creating them in the first step would trace it twice.

  Args:
    optimizer: of `build_optimizer`; its strategy's scope is entered.
    variables: that it will update.
  """
  if isinstance(optimizer, ema_optimizer.ExponentialMovingAverage):
    optimizer = optimizer._optimizer
  # There is no public function for this.
  optimizer._create_all_weights(variables)


def describe_learning_rate(config: config_definitions.ExperimentConfig) -> str:
  """A line for the log: how the batch size scales the learning rates."""
  batch, reference = config.task.train_data.global_batch_size, config.task.reference_batch_size
  if not reference:
    return f'learning rates as given, for batches of {batch}'
  return (
    f'learning rates × {batch / reference:g}: batches of {batch}, given for {reference} '
    '(task.reference_batch_size=0 takes them as they are)'
  )


def load_averages(
  model: tf_keras.Model, config: config_definitions.ExperimentConfig, path: str
) -> None:
  """Loads the moving averages of a training's checkpoint, and the values of what has none."""
  optimizer = build_optimizer(config, build_learning_rate(config))
  optimizer.shadow_copy(model)
  checkpoint = tf.train.Checkpoint(model=model, optimizer=optimizer)
  status = checkpoint.restore(files.for_tensorflow(path))
  status.expect_partial().assert_existing_objects_matched()
  for variable in optimizer._model_weights:
    variable.assign(optimizer.get_slot(variable, 'average'))


@contextlib.contextmanager
def averaged_weights(optimizer: Optimizer) -> Iterator[None]:
  """Within, the variables have their moving averages, if the optimizer keeps them."""
  if not isinstance(optimizer, ema_optimizer.ExponentialMovingAverage):
    yield
    return
  variables = optimizer._model_weights
  # Its own `swap_weights` adds and subtracts, which does not restore the exact values.
  trained = [variable.numpy() for variable in variables]
  for variable in variables:
    variable.assign(optimizer.get_slot(variable, 'average').numpy())
  try:
    yield
  finally:
    for variable, value in zip(variables, trained, strict=True):
      variable.assign(value)
