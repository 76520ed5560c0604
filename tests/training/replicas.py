"""Steps of a small network on one or two replicas."""

from oanet_tf.modeling import build
from oanet_tf.modeling.precision import computing_in
from oanet_tf.training.optimizer import build_learning_rate, build_optimizer
from oanet_tf.training.state import precision_of
from oanet_tf.training.step import TrainStep
from tests import small_model
from tests.devices import mirrored


class Trained:
  """A network in the making, with the steps that it takes."""

  def __init__(self, config, categories, devices, weights=None, batch_spec=None):
    """Builds it, with these weights if given; `batch_spec` is that of `TrainStep`."""
    self.task = config.task
    self.categories = categories
    self.strategy = mirrored(devices)
    with self.strategy.scope(), computing_in(precision_of(config).dtype):
      self.model = build.build_oanet(
        config.task.model, categories, config.task.losses.l2_weight_decay
      )
      self.optimizer = build_optimizer(config, build_learning_rate(config))
      if hasattr(self.optimizer, 'shadow_copy'):
        self.optimizer.shadow_copy(self.model)
    if weights is not None:
      self.model.set_weights(weights)
    self.step = TrainStep(
      config.task,
      self.strategy,
      self.model,
      self.optimizer,
      config.trainer.gradient_accumulation_steps,
      config.trainer.gradient_norms,
      batch_spec,
    )

  def batch(self, *records):
    """The records, dealt out to the replicas in order."""
    share = len(records) // self.strategy.num_replicas_in_sync
    parts = [
      small_model.training_batch(self.task, self.categories, *records[first : first + share])
      for first in range(0, len(records), share)
    ]
    return {
      key: self.strategy.experimental_distribute_values_from_function(
        lambda context, key=key: parts[context.replica_id_in_sync_group][key]
      )
      for key in parts[0]
    }
