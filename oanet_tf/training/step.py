"""One training step over all replicas."""

import contextlib
import functools
from collections.abc import Callable, Sequence

import tensorflow as tf
import tf_keras

from oanet_tf.config import definitions
from oanet_tf.modeling.oanet import OANet
from oanet_tf.modeling.srm_only import SRMOnly
from oanet_tf.modeling.tracing import garbage_kept
from oanet_tf.training import losses
from oanet_tf.training.optimizer import Optimizer, create_variables

Batch = dict[str, tf.Tensor]
Scalars = dict[str, tf.Tensor]


class TrainStep:
  """Updates the weights by one batch and returns its losses.

  The batch may come as several micro-batches, which saves memory. Their gradients are averaged
  (gradient accumulation).

  Args:
    task: has the settings of the losses.
    strategy: the replicas.
    model: the network.
    optimizer: sums gradients over replicas, clips them if so configured, and updates.
    num_micro_batches: of a step.
    with_gradient_norms: adds `gradient_norm/instance` and `gradient_norm/stuff` to the results,
      which only the whole network has. They take a second backward pass through the stuff branch.
    batch_spec: types of a micro-batch, if one graph is to serve all of its shapes.
    deterministic: whether gradients are summed in a fixed order; on one replica, in a graph.
  """

  def __init__(
    self,
    task: definitions.OANetTask,
    strategy: tf.distribute.Strategy,
    model: OANet | SRMOnly,
    optimizer: Optimizer,
    num_micro_batches: int = 1,
    with_gradient_norms: bool = False,
    batch_spec: dict[str, tf.TypeSpec] | None = None,
    deterministic: bool = False,
  ):
    self._strategy = strategy
    self._model = model
    self._optimizer = optimizer
    self._num_micro_batches = num_micro_batches
    self._gradients = functools.partial(
      gradients_of,
      task,
      model,
      optimizer,
      with_gradient_norms=with_gradient_norms,
      deterministic=deterministic,
    )
    # Nothing in the network needs AutoGraph, and tracing is twice as fast without it.
    options = {'autograph': False, 'input_signature': batch_spec and [batch_spec]}
    self._whole = tf.function(self._on_replicas(self._train), **options)
    self._accumulate = tf.function(self._on_replicas(self._add_gradients), **options)
    self._update = tf.function(lambda: strategy.run(self._apply_sums), autograph=False)
    with strategy.scope():
      create_variables(optimizer, model.trainable_variables)
    self._sums = _zeros_like(model.trainable_variables, strategy) if num_micro_batches > 1 else []

  @property
  def tracing_count(self) -> int:
    """How often the computation of gradients has been traced."""
    functions = (self._whole, self._accumulate)
    return sum(function.experimental_get_tracing_count() for function in functions)

  def __call__(self, micro_batches: Sequence[Batch]) -> Scalars:
    """Takes a step.

    Args:
      micro_batches: of the step, distributed over the replicas.

    Returns:
      Scalar losses, averaged over micro-batches and replicas; `loss` is their weighted sum with
      weight decay.
    """
    is_traced = self.tracing_count > 0
    with contextlib.nullcontext() if is_traced else garbage_kept():
      return self._take(micro_batches)

  def _take(self, micro_batches: Sequence[Batch]) -> Scalars:
    if self._num_micro_batches == 1:
      return self._whole(micro_batches[0])
    results = [self._accumulate(batch) for batch in micro_batches]
    self._update()
    return tf.nest.map_structure(
      lambda *values: tf.add_n(values) / self._num_micro_batches, *results
    )

  def _on_replicas(self, function: Callable[..., Scalars]) -> Callable[..., Scalars]:
    def run(batch: Batch) -> Scalars:
      scalars = self._strategy.run(function, args=(batch,))
      mean = tf.distribute.ReduceOp.MEAN
      return {
        name: self._strategy.reduce(mean, value, axis=None) for name, value in scalars.items()
      }

    return run

  def _train(self, batch: Batch) -> Scalars:
    scalars, gradients = self._gradients(batch)
    self._apply(gradients)
    return scalars

  def _add_gradients(self, batch: Batch) -> Scalars:
    scalars, gradients = self._gradients(batch)
    for total, gradient in zip(self._sums, gradients, strict=True):
      total.assign_add(gradient / self._num_micro_batches)
    return scalars

  def _apply_sums(self) -> None:
    self._apply([total.read_value() for total in self._sums])
    for total in self._sums:
      total.assign(tf.zeros_like(total))

  def _apply(self, gradients: Sequence[tf.Tensor]) -> None:
    self._optimizer.apply_gradients(zip(gradients, self._model.trainable_variables, strict=True))


def gradients_of(
  task: definitions.OANetTask,
  model: OANet | SRMOnly,
  optimizer: Optimizer,
  batch: Batch,
  with_gradient_norms: bool = False,
  deterministic: bool = False,
) -> tuple[Scalars, list[tf.Tensor]]:
  """One replica's losses, and its gradients, which are to be summed over replicas.

  Args:
    task, model, optimizer, with_gradient_norms, deterministic: of `TrainStep`.
    batch: the replica's part of it.
  """
  scaled = isinstance(optimizer, tf_keras.mixed_precision.LossScaleOptimizer)
  replicas = tf.distribute.get_strategy().num_replicas_in_sync
  recording = None if deterministic else tf.GradientTape(persistent=True)
  with recording or contextlib.nullcontext():
    outputs = model(batch['image'], batch['image_info'], labels=batch, training=True)
    scalars, decay = _losses_of(task, model, outputs, batch)
    objective, decay_objective = scalars['loss'] / replicas, decay / replicas
    if scaled:
      objective = optimizer.get_scaled_loss(objective)
  sources, of_stuff = list(model.trainable_variables), []
  if with_gradient_norms:
    of_stuff = _gradients(scalars['loss_stuff'], [outputs['last_feature']], recording)
    sources.append(outputs['last_feature'])
  # One backward pass after the other, so that they do not need their memory at the same time.
  with tf.control_dependencies(of_stuff):
    gradients = _gradients(objective, sources, recording)
  if scaled:
    gradients = optimizer.get_unscaled_gradients(gradients)
  if with_gradient_norms:
    of_all = gradients.pop() * tf.cast(replicas, of_stuff[0].dtype)
    scalars.update(_gradient_norms(of_all, of_stuff[0], task.losses.stuff_weight))
  if model.losses:
    # The decay's need only the weights: left alone, all are computed first and kept all along.
    with tf.control_dependencies(gradients):
      of_decay = _gradients(decay_objective, model.trainable_variables, recording)
      gradients = [one + other for one, other in zip(gradients, of_decay, strict=True)]
  total = scalars.pop('loss') + decay
  return {'loss': total, **scalars, 'loss_weight_decay': decay}, gradients


def _gradients(
  objective: tf.Tensor,
  sources: list[tf.Tensor | tf.Variable],
  recording: tf.GradientTape | None,
) -> list[tf.Tensor]:
  """The gradients; 0 where there is no way from a source to the objective.

  Without a recording, those of a tensor that is used several times are added two by two. `AddN`,
  which a `GradientTape` uses, begins with whichever of them nothing else needs any more, so its
  rounding depends on which operation ends first.
  """
  zeros = tf.UnconnectedGradients.ZERO
  if recording:
    return recording.gradient(objective, sources, unconnected_gradients=zeros)
  two_by_two = tf.compat.v1.AggregationMethod.EXPERIMENTAL_TREE
  return tf.gradients(
    objective, sources, aggregation_method=two_by_two, unconnected_gradients=zeros
  )


def _gradient_norms(of_all: tf.Tensor, of_stuff: tf.Tensor, stuff_weight: float) -> Scalars:
  """The norms of each branch's gradient at the backbone's last feature (Figure 5).

  That of the stuff loss is before λ: "λ is set to 1 for fairness" (section 4.3).

  Args:
    of_all: gradient of the weighted sum of losses; the ranking module gives none.
    of_stuff: gradient of the stuff loss.
    stuff_weight: λ.
  """
  of_all, of_stuff = (tf.cast(gradient, tf.float32) for gradient in (of_all, of_stuff))
  return {
    'gradient_norm/instance': tf.norm(of_all - stuff_weight * of_stuff),
    'gradient_norm/stuff': tf.norm(of_stuff),
  }


def _losses_of(
  task: definitions.OANetTask, model: OANet | SRMOnly, outputs: dict[str, tf.Tensor], batch: Batch
) -> tuple[Scalars, tf.Tensor]:
  """The losses of the task, and that of weight decay, which `loss` is without."""
  decay = tf.add_n(model.losses) if model.losses else tf.constant(0.0)
  if task.mode == 'srm_only':
    return losses.srm_only_losses(outputs, batch, task), decay
  return losses.oanet_losses(outputs, batch, task, model.stuff_channels), decay


def _zeros_like(
  variables: Sequence[tf.Variable], strategy: tf.distribute.Strategy
) -> list[tf.Variable]:
  """Variables of which each replica has its own values."""
  with strategy.scope():
    return [
      tf.Variable(
        tf.zeros_like(variable),
        trainable=False,
        synchronization=tf.VariableSynchronization.ON_READ,
        aggregation=tf.VariableAggregation.SUM,
      )
      for variable in variables
    ]
