"""The state of a training, and its checkpoints."""

import dataclasses
import logging
import os
import pathlib
import tempfile

import numpy as np
import tensorflow as tf
from official.core import config_definitions
from official.modeling.optimization import ema_optimizer

from oanet_tf import files, model_folder
from oanet_tf.cluster import Cluster
from oanet_tf.config import definitions
from oanet_tf.data.categories import CATEGORIES_FILE, PanopticCategories
from oanet_tf.errors import InputError, first_line
from oanet_tf.modeling.build import build_network
from oanet_tf.modeling.oanet import OANet
from oanet_tf.modeling.precision import Precision, choose, computing_in
from oanet_tf.modeling.srm_only import SRMOnly
from oanet_tf.training import checkpoints
from oanet_tf.training.optimizer import (
  Optimizer,
  ScaledLearningRate,
  build_learning_rate,
  build_optimizer,
)
from oanet_tf.weights.initialization import load_initial_weights

log = logging.getLogger(__name__)


@dataclasses.dataclass
class State:
  """The state of a training.

  Attributes:
    config: of the experiment.
    categories: of the dataset.
    cluster: the workers.
    model: the network.
    optimizer: its `iterations` are the step.
    learning_rate: step -> learning rate.
    positions: [P, 2] int64, the epoch and the place in it of the next batch, for the input pipeline
      of each worker.
    checkpoint: of model, optimizer and positions.
    folder: the model folder; on workers other than the chief, a temporary one.
  """

  config: config_definitions.ExperimentConfig
  categories: PanopticCategories
  cluster: Cluster
  model: OANet | SRMOnly
  optimizer: Optimizer
  learning_rate: ScaledLearningRate
  positions: tf.Variable
  checkpoint: tf.train.Checkpoint
  folder: pathlib.Path

  @property
  def step(self) -> int:
    return int(self.optimizer.iterations.numpy())


def create_state(
  config: config_definitions.ExperimentConfig,
  categories: PanopticCategories,
  model_dir: pathlib.Path,
  cluster: Cluster,
) -> State:
  """Creates the state from the newest checkpoint, from `init_checkpoint`, or from scratch.

  Raises:
    InputError: if workers find different checkpoints, or `init_checkpoint` does not fit.
  """
  with cluster.strategy.scope():
    with computing_in(precision_of(config).dtype):
      model = build_network(config.task, categories, config.task.losses.l2_weight_decay)
    learning_rate = build_learning_rate(config)
    optimizer = build_optimizer(config, learning_rate)
    if isinstance(optimizer, ema_optimizer.ExponentialMovingAverage):
      optimizer.shadow_copy(model)
  positions = tf.Variable(
    np.zeros([cluster.num_workers, 2], np.int64), trainable=False, shape=[None, 2]
  )
  checkpoint = tf.train.Checkpoint(model=model, optimizer=optimizer, positions=positions)
  folder = model_dir if cluster.is_chief else pathlib.Path(tempfile.mkdtemp(prefix='oanet_tf_'))
  state = State(
    config, categories, cluster, model, optimizer, learning_rate, positions, checkpoint, folder
  )
  _restore(state, model_dir)
  return state


def precision_of(config: config_definitions.ExperimentConfig) -> Precision:
  """What the network computes in on this machine."""
  return choose(config.runtime.mixed_precision_dtype)


def find_categories(task: definitions.OANetTask, model_dir: pathlib.Path) -> PanopticCategories:
  """The categories that the config names; else those beside the shards or in the model folder."""
  input_path = task.train_data.input_path or task.validation_data.input_path
  return model_folder.find_categories(task.categories, input_path, model_dir)


def save_config(state: State) -> None:
  """Writes the files that `model_folder` reads besides the checkpoint."""
  model_folder.write_settings(state.folder, state.config, state.categories)


def save(state: State) -> None:
  """Writes a checkpoint of the current step; all workers must call it.

  Raises:
    InputError: if a weight is not finite, or the disk is full. Nothing is written then.
  """
  for variable in state.model.variables:
    if not np.isfinite(variable.numpy()).all():
      raise InputError(f'step {state.step}: weight {variable.name} is not finite; {advice(state)}')
  cluster = state.cluster
  positions = np.zeros([cluster.num_workers, 2], np.int64)
  positions[cluster.index] = state.positions.numpy()[cluster.index]
  state.positions.assign(cluster.sum_over_workers(positions))
  max_to_keep = state.config.trainer.max_to_keep
  checkpoints.save(state.checkpoint, state.folder, state.step, max_to_keep)


def share_statistics(state: State) -> None:
  """Sets the statistics that each replica gathers for itself to their means over all replicas."""
  if state.cluster.strategy.num_replicas_in_sync == 1:
    return
  for variable in state.model.non_trainable_variables:
    if variable.synchronization == tf.VariableSynchronization.ON_READ:
      variable.assign(variable.read_value())


def advice(state: State) -> str:
  """Advice for the error message of a training that has failed."""
  newest = checkpoints.newest_readable(state.folder)
  return (
    f'the last good checkpoint is {newest or "none"}; lower the learning rate or set '
    'trainer.optimizer_config.optimizer.sgd.global_clipnorm'
  )


def _restore(state: State, model_dir: pathlib.Path) -> None:
  model_folder.check_is_training(model_dir)
  path = checkpoints.newest_readable(model_dir)
  if path:
    try:
      # Some optimizers create variables only when first used.
      status = state.checkpoint.restore(files.for_tensorflow(path))
      status.expect_partial().assert_existing_objects_matched()
    except (AssertionError, ValueError) as error:
      raise InputError(
        f'{path}: does not fit the configuration ({first_line(error)}); use the settings it was '
        'trained with, or another model_dir'
      ) from None
    log.info('resumed from %s', path)
  else:
    _initialize(state.model, state.config.task, state.categories)
  _check_agreement(state, model_dir)
  _fit_positions(state)


def _initialize(
  model: OANet | SRMOnly, task: definitions.OANetTask, categories: PanopticCategories
) -> None:
  loaded = {}
  if task.init_checkpoint:
    if task.init_checkpoint_modules == 'all':
      _warn_of_other_categories(task.init_checkpoint, categories)
    loaded = load_initial_weights(model, task.init_checkpoint, task.init_checkpoint_modules)
  has_backbone = 'backbone' in loaded and loaded['backbone'].loaded
  if task.mode == 'panoptic' and task.model.batch_norm == 'frozen' and not has_backbone:
    log.warning(
      'batch norm is frozen but task.init_checkpoint gives no backbone: it starts from random '
      'weights without normalization; give a checkpoint, or set task.model.batch_norm=plain'
    )


def _warn_of_other_categories(path: str, categories: PanopticCategories) -> None:
  """Compares the categories beside initial weights, if there are any, with the training's."""
  folder = pathlib.Path(path) if os.path.isdir(path) else pathlib.Path(path).parent
  beside = folder / CATEGORIES_FILE
  if not beside.is_file():
    return
  theirs = PanopticCategories.from_json(beside)
  if difference := theirs.difference(categories):
    log.warning(
      '%s: has other categories than %s: %s; where their number is the same, each starts with the '
      'weights of the one in its place. If that is not wanted, set '
      'task.init_checkpoint_modules=backbone,decoder',
      beside,
      categories.source,
      difference,
    )


def _check_agreement(state: State, model_dir: pathlib.Path) -> None:
  cluster = state.cluster
  steps = np.zeros([cluster.num_workers], np.float32)
  steps[cluster.index] = state.step
  steps = cluster.sum_over_workers(steps)
  if np.ptp(steps):
    raise InputError(
      f'{model_dir}: workers found checkpoints of different steps ({steps.astype(int).tolist()}); '
      'it must be the same folder on all of them'
    )


def _fit_positions(state: State) -> None:
  """Lets all workers continue with a new epoch if their number has changed."""
  if len(positions := state.positions.numpy()) != (num_workers := state.cluster.num_workers):
    epoch = int(positions[:, 0].max()) + 1
    state.positions.assign(np.array([[epoch, 0]] * num_workers))
    log.warning('the number of workers has changed: the data continues with epoch %d', epoch)
