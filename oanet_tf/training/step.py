"""One training step over all replicas."""

import functools
from collections.abc import Callable, Sequence

import tensorflow as tf
import tf_keras

from oanet_tf.config import definitions
from oanet_tf.modeling.oanet import OANet
from oanet_tf.modeling.srm_only import SRMOnly
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
  """

  def __init__(
    self,
    task: definitions.OANetTask,
    strategy: tf.distribute.Strategy,
    model: OANet | SRMOnly,
    optimizer: Optimizer,
    num_micro_batches: int = 1,
  ):
    self._strategy = strategy
    self._model = model
    self._optimizer = optimizer
    self._num_micro_batches = num_micro_batches
    self._gradients = functools.partial(gradients_of, task, model, optimizer)
    # Nothing in the network needs AutoGraph, and tracing is twice as fast without it.
    self._whole = tf.function(self._on_replicas(self._train), autograph=False)
    self._accumulate = tf.function(self._on_replicas(self._add_gradients), autograph=False)
    self._update = tf.function(lambda: strategy.run(self._apply_sums), autograph=False)
    with strategy.scope():
      create_variables(optimizer, model.trainable_variables)
    self._sums = _zeros_like(model.trainable_variables, strategy) if num_micro_batches > 1 else []

  @property
  def tracing_count(self) -> int:
    """How often the computation of gradients has been traced."""
    functions = (self._whole, self._accumulate)
    return sum(function.experimental_get_tracing_count() for function in functions)

  def __call__(self, micro_batches: Sequence[Batch], with_gradient_norms: bool = False) -> Scalars:
    """Takes a step.

    Args:
      micro_batches: of the step, distributed over the replicas.
      with_gradient_norms: adds `gradient_norm/instance` and `gradient_norm/stuff`, which only the
        whole network has.

    Returns:
      Scalar losses, averaged over micro-batches and replicas; `loss` is their weighted sum with
      weight decay.
    """
    if self._num_micro_batches == 1:
      return self._whole(micro_batches[0], with_gradient_norms)
    results = [self._accumulate(batch, with_gradient_norms) for batch in micro_batches]
    self._update()
    return tf.nest.map_structure(
      lambda *values: tf.add_n(values) / self._num_micro_batches, *results
    )

  def _on_replicas(self, function: Callable[..., Scalars]) -> Callable[..., Scalars]:
    def run(batch: Batch, with_gradient_norms: bool) -> Scalars:
      scalars = self._strategy.run(function, args=(batch, with_gradient_norms))
      mean = tf.distribute.ReduceOp.MEAN
      return {
        name: self._strategy.reduce(mean, value, axis=None) for name, value in scalars.items()
      }

    return run

  def _train(self, batch: Batch, with_gradient_norms: bool) -> Scalars:
    scalars, gradients = self._gradients(batch, with_gradient_norms)
    self._apply(gradients)
    return scalars

  def _add_gradients(self, batch: Batch, with_gradient_norms: bool) -> Scalars:
    scalars, gradients = self._gradients(batch, with_gradient_norms)
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
) -> tuple[Scalars, list[tf.Tensor]]:
  """One replica's losses, and its gradients, which are to be summed over replicas.

  Args:
    task, model, optimizer, with_gradient_norms: of `TrainStep`.
    batch: the replica's part of it.
  """
  scaled = isinstance(optimizer, tf_keras.mixed_precision.LossScaleOptimizer)
  with tf.GradientTape(persistent=with_gradient_norms) as tape:
    outputs = model(batch['image'], batch['image_info'], labels=batch, training=True)
    scalars = _losses_of(task, model, outputs, batch)
    objective = scalars['loss'] / tf.distribute.get_strategy().num_replicas_in_sync
    if scaled:
      objective = optimizer.get_scaled_loss(objective)
    if with_gradient_norms:
      instance_loss = tf.add_n([scalars[name] for name in losses.INSTANCE_LOSSES])
  gradients = tape.gradient(
    objective, model.trainable_variables, unconnected_gradients=tf.UnconnectedGradients.ZERO
  )
  if with_gradient_norms:
    # As in the paper's Figure 5, "where λ is set to 1 for fairness" (section 4.3).
    for branch, loss in (('instance', instance_loss), ('stuff', scalars['loss_stuff'])):
      scalars[f'gradient_norm/{branch}'] = _norm(tape, loss, outputs['last_feature'])
  return scalars, optimizer.get_unscaled_gradients(gradients) if scaled else gradients


def _losses_of(
  task: definitions.OANetTask, model: OANet | SRMOnly, outputs: dict[str, tf.Tensor], batch: Batch
) -> Scalars:
  if task.mode == 'srm_only':
    scalars = losses.srm_only_losses(outputs, batch)
  else:
    scalars = losses.oanet_losses(
      outputs,
      batch,
      task.losses,
      num_things=model.num_things,
      object_context=task.model.stuff_head.object_context,
      rpn_batch_size_per_im=task.train_data.rpn_batch_size_per_im,
    )
  decay = tf.add_n(model.losses) if model.losses else tf.constant(0.0)
  return {'loss': scalars.pop('loss') + decay, **scalars, 'loss_weight_decay': decay}


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


def _norm(tape: tf.GradientTape, loss: tf.Tensor, feature: tf.Tensor) -> tf.Tensor:
  gradient = tape.gradient(loss, feature, unconnected_gradients=tf.UnconnectedGradients.ZERO)
  return tf.norm(tf.cast(gradient, tf.float32))
