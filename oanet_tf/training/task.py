"""OANet for the Model Garden's own trainer: `official.core.train_lib.run_experiment`.

Importing this module registers the task. It is thin: network, data, losses, fusion and scores are
those of this package's own loop, `oanet_tf.training.loop`, which has more features.
"""

import pathlib
from collections.abc import Mapping, Sequence

import tensorflow as tf
import tf_keras
from official.core import base_task, config_definitions, task_factory

from oanet_tf.config import definitions
from oanet_tf.config import values as config_values
from oanet_tf.data import geometry, input_pipeline
from oanet_tf.data.categories import CATEGORIES_FILE
from oanet_tf.errors import InputError
from oanet_tf.evaluation.panoptic_quality import PanopticQuality
from oanet_tf.evaluation.scoring import ground_truth_of, named_scores, prediction_of, unbatch
from oanet_tf.modeling.build import build_fuser, build_oanet
from oanet_tf.modeling.fusion.methods import fuse
from oanet_tf.modeling.oanet import OANet
from oanet_tf.training import losses
from oanet_tf.training.optimizer import Optimizer, build_learning_rate, build_optimizer
from oanet_tf.training.state import find_categories
from oanet_tf.training.step import Batch, gradients_of
from oanet_tf.weights.initialization import load_initial_weights

LOSSES = (*losses.INSTANCE_LOSSES, 'loss_stuff', 'loss_srm')


@task_factory.register_task_cls(definitions.OANetTask)
class OANetPanopticTask(base_task.Task):
  """Implements the Model Garden's interface of a task."""

  def __init__(self, params: definitions.OANetTask, logging_dir: str | None = None, name: str = ''):
    """Finds the categories.

    Raises:
      InputError: if there are none, or the mode is not 'panoptic'.
    """
    super().__init__(params, logging_dir, name or 'oanet')
    if params.mode != 'panoptic':
      raise InputError(
        f"task.mode is {params.mode!r}; the Model Garden's trainer takes 'panoptic', and "
        'oanet train any'
      )
    self._categories = find_categories(params, pathlib.Path(self.logging_dir))

  def build_model(self) -> OANet:
    """Builds the network, and writes the categories beside its checkpoints, for prediction."""
    if self.logging_dir:
      self._categories.to_json(pathlib.Path(self.logging_dir) / CATEGORIES_FILE)
    task = self.task_config
    return build_oanet(task.model, self._categories, task.losses.l2_weight_decay)

  def initialize(self, model: OANet) -> None:
    """Loads `init_checkpoint`, if there is one."""
    task = self.task_config
    if task.init_checkpoint:
      load_initial_weights(model, task.init_checkpoint, task.init_checkpoint_modules)

  def create_optimizer(
    self,
    optimizer_config: config_definitions.OptimizationConfig,
    runtime_config: config_definitions.RuntimeConfig | None = None,
  ) -> Optimizer:
    """The Model Garden's optimizer, with the learning rate scaled to the batch."""
    config = config_definitions.ExperimentConfig(
      task=self.task_config,
      trainer=definitions.Trainer(optimizer_config=optimizer_config),
      runtime=runtime_config or config_definitions.RuntimeConfig(),
    )
    return build_optimizer(config, build_learning_rate(config))

  def build_inputs(
    self, params: definitions.Data, input_context: tf.distribute.InputContext | None = None
  ) -> tf.data.Dataset:
    """The examples of the training or the validation split.

    Raises:
      InputError: if portrait and landscape images would have canvases of different shapes, as the
        trainer's loop is one graph.
    """
    if params.output_size[0] != params.output_size[1]:
      raise InputError(
        f"output_size is {params.output_size}; the Model Garden's trainer needs a square one"
      )
    task = self.task_config
    if params is task.train_data:
      return input_pipeline.training_input(task, self._categories, input_context)
    return input_pipeline.evaluation_input(task, self._categories, input_context)

  def build_metrics(self, training: bool = True) -> list[tf_keras.metrics.Metric]:
    """The mean of each loss."""
    if not training:
      return []
    has_head = self.task_config.model.occlusion_head.enabled
    names = [*LOSSES, *(['loss_occlusion'] if has_head else []), 'loss_weight_decay']
    return [tf_keras.metrics.Mean(name) for name in names]

  @tf.autograph.experimental.do_not_convert
  def train_step(
    self,
    inputs: Batch,
    model: OANet,
    optimizer: Optimizer,
    metrics: Sequence[tf_keras.metrics.Metric] = (),
  ) -> dict[str, tf.Tensor]:
    """A step on one replica's part of the batch."""
    scalars, gradients = gradients_of(self.task_config, model, optimizer, inputs)
    optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
    for metric in metrics:
      metric.update_state(scalars[metric.name])
    return {self.loss: scalars['loss']}

  @tf.autograph.experimental.do_not_convert
  def validation_step(
    self, inputs: Batch, model: OANet, metrics: Sequence[tf_keras.metrics.Metric] = ()
  ) -> dict[str, tf.Tensor]:
    """The ground truth and panoptic maps of one replica's images."""
    del metrics
    inputs = dict(inputs)
    images, info = inputs.pop('image'), inputs['image_info']
    fuser = build_fuser(self.task_config, model)
    batch = fuser.batch(model(images, info), info, geometry.largest_original(info))
    masks = {
      f'{method}/{n}': mask
      for method in config_values.MONITORED_FUSIONS
      for n, mask in enumerate(fuse(batch, method))
    }
    return {**inputs, **masks}

  def aggregate_logs(
    self,
    state: dict[str, PanopticQuality] | None = None,
    step_outputs: Mapping[str, Sequence[tf.Tensor]] | None = None,
  ) -> dict[str, PanopticQuality]:
    """Adds the images of all replicas in one step to the scores by fusion."""
    state = state or {m: PanopticQuality(self._categories) for m in config_values.MONITORED_FUSIONS}
    for replica in range(len(step_outputs['image_info'])):
      for image in unbatch({key: values[replica] for key, values in step_outputs.items()}):
        if image['is_repeated']:
          continue
        truth = ground_truth_of(image)
        for method, quality in state.items():
          masks = [image[f'{method}/{n}'] for n in range(2)]
          quality.update(truth, prediction_of(masks, truth.index.shape, self._categories))
    return state

  def reduce_aggregated_logs(
    self, aggregated_logs: dict[str, PanopticQuality], global_step: tf.Tensor | None = None
  ) -> dict[str, float]:
    """Scores by name, such as `pq/srm`."""
    del global_step
    return named_scores({method: score.result() for method, score in aggregated_logs.items()})
