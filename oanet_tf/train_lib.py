"""The training loop under `tf.distribute`: one story, top to bottom."""

import collections
import dataclasses
import logging
import pathlib
import time
from collections.abc import Callable

import numpy as np
import tensorflow as tf
import tf_keras
import tqdm
from official.core import config_definitions
from official.modeling import optimization

from oanet_tf import config as config_lib
from oanet_tf import inference, losses
from oanet_tf.data import input_pipeline, shard_files
from oanet_tf.data.categories import PanopticCategories
from oanet_tf.errors import InputError
from oanet_tf.evaluation.evaluator import evaluate
from oanet_tf.evaluation.panoptic_quality import format_table
from oanet_tf.modeling.build import build_oanet
from oanet_tf.modeling.oanet import OANet

log = logging.getLogger(__name__)


@dataclasses.dataclass
class State:
  """What is trained, and where it is kept.

  Attributes:
    model: the network.
    optimizer: its `iterations` are the step.
    position: [2] int64, of the next batch: epoch and place therein.
    manager: of the checkpoints that hold all three.
  """

  model: OANet
  optimizer: tf_keras.optimizers.Optimizer
  position: tf.Variable
  manager: tf.train.CheckpointManager

  @property
  def step(self) -> int:
    return int(self.optimizer.iterations.numpy())


def due(step: int, every: int) -> bool:
  """Whether something that happens every so many steps happens after this one."""
  return every > 0 and step % every == 0


def run(
  config: config_definitions.ExperimentConfig, model_dir: str | pathlib.Path, mode: str
) -> dict[str, dict] | None:
  """Trains, evaluates, or does both.

  Args:
    config: the resolved experiment.
    model_dir: for `params.yaml`, `categories.json`, checkpoints, TensorBoard's events and, under
      `evaluation/`, predictions and scores. A checkpoint there is resumed.
    mode: 'train', 'eval' or 'train_and_eval'.

  Returns:
    The last evaluation's scores by fusion; None in mode 'train'.

  Raises:
    InputError: if data, categories or checkpoint are missing or do not fit.
  """
  model_dir = pathlib.Path(model_dir)
  # Not 0: tf.data takes no tensor for a seed where TensorFlow's own is 0.
  tf_keras.utils.set_random_seed(config.task.seed + 1)
  strategy = tf.distribute.MirroredStrategy()
  categories = find_categories(config.task, model_dir)
  # What can be wrong is looked at before the network is built.
  if mode == 'eval':
    inference.latest_checkpoint(model_dir)
  else:
    shard_files.list_shards(config.task.train_data.input_path)
  if mode != 'train':
    shard_files.list_shards(config.task.validation_data.input_path)
  state = create_state(config, categories, model_dir, strategy)
  if mode == 'eval':
    return validate(config, categories, model_dir, strategy, state)
  inference.save_config(config, categories, model_dir)
  return train(config, categories, model_dir, strategy, state, mode == 'train_and_eval')


def find_categories(task: config_lib.OANetTask, model_dir: pathlib.Path) -> PanopticCategories:
  """The categories that the config names, or those beside the shards, or the model folder's."""
  if task.categories:
    return PanopticCategories.from_json(task.categories)
  first = (task.train_data.input_path or task.validation_data.input_path).split(',')[0].strip()
  beside = pathlib.Path(first).parent / inference.CATEGORIES_FILE
  if not beside.is_file() and (model_dir / inference.CATEGORIES_FILE).is_file():
    return PanopticCategories.from_json(model_dir / inference.CATEGORIES_FILE)
  if not beside.is_file():
    # A glob that matches nothing explains itself better than its missing neighbour.
    shard_files.list_shards(first)
  return PanopticCategories.from_json(beside)


def create_state(
  config: config_definitions.ExperimentConfig,
  categories: PanopticCategories,
  model_dir: pathlib.Path,
  strategy: tf.distribute.Strategy,
) -> State:
  """Network and optimizer: from the newest checkpoint, `init_checkpoint`, or scratch."""
  with strategy.scope():
    model = build_oanet(config.task.model, categories, config.task.losses.l2_weight_decay)
    factory = optimization.OptimizerFactory(config.trainer.optimizer_config)
    optimizer = factory.build_optimizer(factory.build_learning_rate())
  position = tf.Variable([0, 0], dtype=tf.int64, trainable=False)
  checkpoint = tf.train.Checkpoint(model=model, optimizer=optimizer, position=position)
  manager = tf.train.CheckpointManager(
    checkpoint, str(model_dir), max_to_keep=config.trainer.max_to_keep
  )
  if manager.latest_checkpoint:
    checkpoint.restore(manager.latest_checkpoint).expect_partial()
    log.info('resumed from %s', manager.latest_checkpoint)
  elif config.task.init_checkpoint:
    load_backbone(model, config.task.init_checkpoint)
  elif config.task.model.batch_norm == 'frozen':
    log.warning(
      'batch norm is frozen but there is no task.init_checkpoint: the backbone starts from random '
      'weights without normalisation; give a checkpoint, or task.model.batch_norm=plain'
    )
  return State(model, optimizer, position, manager)


def load_backbone(model: OANet, path: str) -> None:
  """Restores the backbone, and the stuff branch's own if any, from a Model Garden checkpoint.

  Raises:
    InputError: if there is no such checkpoint or the backbone is another.
  """
  if not tf.io.gfile.exists(f'{path}.index'):
    raise InputError(f'{path}: there is no such checkpoint (no {path}.index)')
  for backbone in filter(None, (model.backbone, model.stuff_backbone)):
    try:
      status = tf.train.Checkpoint(backbone=backbone).read(path)
      status.expect_partial().assert_existing_objects_matched()
    except (AssertionError, ValueError) as error:
      raise InputError(
        f'{path}: does not hold the backbone of task.model.backbone ({str(error).splitlines()[0]})'
      ) from None
  log.info('backbone loaded from %s', path)


def train(
  config: config_definitions.ExperimentConfig,
  categories: PanopticCategories,
  model_dir: pathlib.Path,
  strategy: tf.distribute.Strategy,
  state: State,
  with_evaluation: bool,
) -> dict[str, dict] | None:
  """Trains up to `train_steps`, saving, logging and evaluating as the trainer's intervals say."""
  trainer = config.trainer
  data, start = config.task.train_data, tuple(state.position.numpy().tolist())
  dataset = strategy.distribute_datasets_from_function(
    lambda context: input_pipeline.training_dataset(
      data, config.task.model, categories, config.task.seed, context, start
    )
  )
  batches = iter(dataset)
  train_step = make_train_step(config.task, strategy, state)
  writer = tf.summary.create_file_writer(str(model_dir / 'train'))
  recent = collections.defaultdict(list)
  results, since = None, time.perf_counter()
  with tqdm.tqdm(
    total=trainer.train_steps, initial=state.step, desc='training', unit='step'
  ) as progress:
    while (step := state.step + 1) <= trainer.train_steps:
      with shard_files.named_errors(data.input_path):
        batch = next(batches)
      for name, value in train_step(batch).items():
        recent[name].append(value)
      epoch, place = strategy.experimental_local_results(batch['position'])[0][0]
      state.position.assign([epoch, place + 1])
      progress.update()

      if due(step, trainer.summary_interval):
        scalars = {name: float(np.mean(values)) for name, values in recent.items()}
        images = data.global_batch_size * len(recent['loss'])
        scalars['images_per_second'] = images / (time.perf_counter() - since)
        scalars['learning_rate'] = learning_rate(state.optimizer)
        write_scalars(writer, scalars, step)
        progress.set_postfix_str(f'loss {scalars["loss"]:.3f}')
        recent.clear()
        since = time.perf_counter()

      if due(step, trainer.checkpoint_interval) or step == trainer.train_steps:
        state.manager.save(checkpoint_number=step)

      last = step == trainer.train_steps
      if with_evaluation and (due(step, trainer.validation_interval) or last):
        results = validate(config, categories, model_dir, strategy, state)
        since = time.perf_counter()
  if results is None and with_evaluation:
    results = validate(config, categories, model_dir, strategy, state)
  return results


def make_train_step(
  task: config_lib.OANetTask, strategy: tf.distribute.Strategy, state: State
) -> Callable[[dict[str, tf.Tensor]], dict[str, tf.Tensor]]:
  """One step over all replicas as a graph: a batch -> a dict of scalar losses."""
  model, optimizer = state.model, state.optimizer

  def replica_step(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    with tf.GradientTape() as tape:
      outputs = model(batch['image'], batch['image_info'], labels=batch, training=True)
      scalars = losses.oanet_losses(
        outputs,
        batch,
        task.losses,
        num_things=model.num_things,
        object_context=task.model.stuff_head.object_context,
        rpn_batch_size_per_im=task.train_data.rpn_batch_size_per_im,
      )
      scalars['loss_weight_decay'] = tf.add_n(model.losses) if model.losses else tf.constant(0.0)
      scalars['loss'] += scalars['loss_weight_decay']
      # Gradients are summed over replicas, so each gives its share.
      share = scalars['loss'] / strategy.num_replicas_in_sync
    variables = model.trainable_variables
    optimizer.apply_gradients(zip(tape.gradient(share, variables), variables, strict=True))
    return scalars

  # Nothing in the network needs AutoGraph, and tracing takes half the time without.
  @tf.function(autograph=False)
  def train_step(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    scalars = strategy.run(replica_step, args=(batch,))
    mean = tf.distribute.ReduceOp.MEAN
    return {name: strategy.reduce(mean, value, axis=None) for name, value in scalars.items()}

  return train_step


def learning_rate(optimizer: tf_keras.optimizers.Optimizer) -> float:
  """The rate of the next step."""
  rate = optimizer.learning_rate
  return float(rate(optimizer.iterations) if callable(rate) else rate)


def write_scalars(writer: tf.summary.SummaryWriter, scalars: dict[str, float], step: int) -> None:
  """For TensorBoard."""
  with writer.as_default(step=step):
    for name, value in scalars.items():
      tf.summary.scalar(name, value)
  writer.flush()


def validate(
  config: config_definitions.ExperimentConfig,
  categories: PanopticCategories,
  model_dir: pathlib.Path,
  strategy: tf.distribute.Strategy,
  state: State,
) -> dict[str, dict]:
  """Evaluates with every fusion, writes the scores for TensorBoard and prints them as a table."""
  results = evaluate(
    state.model,
    config.task,
    categories,
    config_lib.FUSION_METHODS,
    model_dir / 'evaluation',
    strategy,
  )
  scalars = {
    f'{quality}_{group.lower()}/{method}': 100.0 * result[group][quality]
    for method, result in results.items()
    for group in ('All', 'Things', 'Stuff')
    for quality in ('pq', 'sq', 'rq')
  }
  writer = tf.summary.create_file_writer(str(model_dir / 'validation'))
  write_scalars(writer, scalars, state.step)
  tqdm.tqdm.write(f'step {state.step}\n{format_table(results, categories)}')
  return results
