"""The training loop under `tf.distribute`, to be read from top to bottom."""

import contextlib
import logging
import pathlib
import shutil
import signal
import sys
from collections.abc import Iterator

import numpy as np
import tensorflow as tf
import tf_keras
import tqdm
from official.core import config_definitions

from oanet_tf import cluster as cluster_lib
from oanet_tf import files
from oanet_tf.cluster import Cluster
from oanet_tf.config import definitions
from oanet_tf.config import values as config_values
from oanet_tf.data import input_pipeline, preprocess, shard_files
from oanet_tf.data.class_prior import load_table
from oanet_tf.data.interruptible import interruptible
from oanet_tf.errors import InputError
from oanet_tf.evaluation.panoptic_quality import format_table
from oanet_tf.evaluation.scoring import evaluate, named_scores
from oanet_tf.files import FilePath
from oanet_tf.modeling.build import build_fuser
from oanet_tf.training import checkpoints
from oanet_tf.training import state as state_lib
from oanet_tf.training.checkpoints import BestCheckpoint
from oanet_tf.training.cpu_time import warn_without_gpu
from oanet_tf.training.interruption import Interrupted, Interruption
from oanet_tf.training.monitoring import Stopwatch, TrainingLog
from oanet_tf.training.optimizer import averaged_weights, describe_learning_rate
from oanet_tf.training.panels import Panels
from oanet_tf.training.state import State
from oanet_tf.training.step import Batch, TrainStep

log = logging.getLogger(__name__)

# Number of validation images that TensorBoard shows.
NUM_PANELS = 4


def due(step: int, every: int) -> bool:
  """Whether something done every so many steps is due after this one; never for 0."""
  return every > 0 and step % every == 0


def run(
  config: config_definitions.ExperimentConfig, model_dir: FilePath, mode: str
) -> dict[str, dict] | None:
  """Trains, evaluates, or does both.

  Args:
    config: the resolved experiment.
    model_dir: folder for `params.yaml`, `categories.json`, checkpoints, TensorBoard's events,
      `metrics.jsonl`, the best weights in `best/`, and predictions and scores in `evaluation/`.
      Training resumes from a checkpoint there. Several workers need one folder that all can see.
    mode: 'train', 'eval' or 'train_and_eval'.

  Returns:
    The last evaluation's scores by fusion; None in mode 'train'.

  Raises:
    InputError: if data, categories or checkpoint are missing or do not fit, if a loss or weight is
      not finite, if a file cannot be written, if another process trains there, or if another worker
      is lost.
    SystemExit: after SIGTERM or SIGINT, when a checkpoint is written; the code is 128 + the signal.
  """
  model_dir = pathlib.Path(model_dir)
  # Not 0: if TensorFlow's seed is 0, tf.data takes no tensor as a seed.
  tf_keras.utils.set_random_seed(config.task.seed + 1)
  cluster_lib.configure(config.runtime)
  cluster = cluster_lib.make_cluster(config.runtime)
  doing = 'evaluating' if mode == 'eval' else 'training'
  log.info('%s on %s, in %s', doing, cluster.describe(), state_lib.precision_of(config))
  if mode != 'eval':
    warn_without_gpu(config, cluster)
  categories = state_lib.find_categories(config.task, model_dir)
  # Checked before the network is built, which takes seconds.
  if mode == 'eval':
    checkpoints.newest(model_dir)
  check_batch_sizes(config, mode, cluster)
  check_deterministic(config, cluster)
  with cluster.lost_workers_named(), contextlib.ExitStack() as stack:
    if cluster.is_chief and mode != 'eval':
      stack.enter_context(files.only_one(model_dir, 'training'))
    if cluster.is_chief and mode != 'train':
      stack.enter_context(files.only_one(model_dir / 'evaluation', 'evaluation'))
      files.remove_unfinished(model_dir / 'evaluation')
    state = state_lib.create_state(config, categories, model_dir, cluster)
    try:
      if mode == 'eval':
        return validate(state)
      if cluster.is_chief:
        state_lib.save_config(state)
      return train(state, mode == 'train_and_eval')
    finally:
      if not cluster.is_chief:
        shutil.rmtree(state.folder)


def train(state: State, with_evaluation: bool) -> dict[str, dict] | None:
  """Trains up to `train_steps`, saving, logging and evaluating as the trainer's intervals say."""
  config, cluster = state.config, state.cluster
  trainer, batch_size = config.trainer, config.task.train_data.global_batch_size
  num_micro_batches = trainer.gradient_accumulation_steps
  dataset = training_dataset(state)
  batches = interruptible(dataset)
  train_step = make_train_step(state, dataset)
  training_log = TrainingLog(state.folder if cluster.is_chief else None, state.step)
  best = best_checkpoint(state)
  log.info(describe_learning_rate(config))
  results = resumed_evaluation(state, training_log, best) if with_evaluation else None
  watch = Stopwatch()
  with (
    Interruption() as interruption,
    tqdm.tqdm(
      total=trainer.train_steps,
      initial=state.step,
      desc='training',
      unit='step',
      disable=not cluster.is_chief,
    ) as progress,
  ):
    while (step := state.step + 1) <= trainer.train_steps:
      try:
        with waiting_for_data(state, interruption):
          micro_batches = [next(batches) for _ in range(num_micro_batches)]
      except Interrupted:
        state_lib.save(state)
        leave(interruption, state.step)
      input_seconds = watch.lap()
      losses = train_step(micro_batches)
      losses = {name: float(value) for name, value in losses.items()}
      check_finite(losses, micro_batches, state)
      advance(state, micro_batches)
      training_log.add(losses, input_seconds, compute_seconds=watch.lap())
      progress.update()

      if due(step, trainer.summary_interval):
        learning_rate = float(state.learning_rate(state.optimizer.iterations))
        training_log.write_interval(step, trainer.train_steps, batch_size, learning_rate)

      stop = cluster.any_worker(interruption.received is not None)
      last = step == trainer.train_steps
      evaluate_now = with_evaluation and evaluation_due(step, trainer)
      if due(step, trainer.checkpoint_interval) or evaluate_now or last or stop:
        state_lib.save(state)
      if stop:
        leave(interruption, step)
      if evaluate_now:
        try:
          with interruption.at_once():
            results = validate(state, training_log, best)
        except Interrupted:
          leave(interruption, step)
      watch.lap()
  return results


def evaluation_due(step: int, trainer: definitions.Trainer) -> bool:
  """Whether the weights of this step are evaluated."""
  return due(step, trainer.validation_interval) or step >= trainer.train_steps


def resumed_evaluation(
  state: State, training_log: TrainingLog, best: BestCheckpoint | None
) -> dict[str, dict] | None:
  """Evaluates first where a process was stopped after a checkpoint, but before its scores.

  Where there is no step left to train, it only gives the scores.
  """
  trainer, step = state.config.trainer, state.step
  if step == 0 or not evaluation_due(step, trainer):
    return None
  is_logged = state.cluster.any_worker(training_log.has_scores(step))
  if is_logged and step < trainer.train_steps:
    return None
  return validate(state, None if is_logged else training_log, best)


@contextlib.contextmanager
def waiting_for_data(state: State, interruption: Interruption) -> Iterator[None]:
  """Within, a signal raises `Interrupted`, except where other workers wait for this one's step.

  Raises:
    InputError: if a shard is damaged; it names it.
  """
  task, is_alone = state.config.task, state.cluster.num_workers == 1
  with (
    shard_files.named_errors(task.train_data.input_path, task.mode == 'panoptic'),
    interruption.at_once() if is_alone else contextlib.nullcontext(),
  ):
    yield


def scored_fusions(task: definitions.OANetTask) -> tuple[str, ...]:
  """The fusions that an evaluation compares; in mode 'srm_only', the oracle is among them."""
  methods = config_values.MONITORED_FUSIONS
  if task.mode == 'srm_only':
    methods += ('class_prior', 'oracle') if task.model.fusion.class_prior else ('oracle',)
  return methods


def check_batch_sizes(
  config: config_definitions.ExperimentConfig, mode: str, cluster: Cluster
) -> None:
  """Raises an InputError if a batch cannot be split evenly over replicas and micro-batches."""
  replicas, task = cluster.strategy.num_replicas_in_sync, config.task
  micro_batches = config.trainer.gradient_accumulation_steps
  for split, divisor in (('train_data', replicas * micro_batches), ('validation_data', replicas)):
    used = mode != 'train' if split == 'validation_data' else mode != 'eval'
    if used and (size := getattr(task, split).global_batch_size) % divisor:
      raise InputError(
        f'task.{split}.global_batch_size is {size}; {replicas} replicas need a multiple of '
        f'{divisor}'
      )


def check_deterministic(config: config_definitions.ExperimentConfig, cluster: Cluster) -> None:
  """Raises an InputError if several replicas are to be deterministic."""
  if config.runtime.deterministic and (replicas := cluster.strategy.num_replicas_in_sync) > 1:
    raise InputError(
      f'runtime.deterministic is true, which only one replica can be; these are {replicas}'
    )


def best_checkpoint(state: State) -> BestCheckpoint | None:
  """Where the best weights are kept; None if the config says that they are not."""
  trainer = state.config.trainer
  if not trainer.best_checkpoint_export_subdir:
    return None
  return BestCheckpoint(
    state.folder / trainer.best_checkpoint_export_subdir,
    trainer.best_checkpoint_eval_metric,
    trainer.best_checkpoint_metric_comp,
  )


def training_dataset(state: State) -> tf.distribute.DistributedDataset:
  """Endless micro-batches on the replicas, from the state's position onwards."""
  config, cluster = state.config, state.cluster
  data = config.task.train_data
  micro_batch = data.replace(
    global_batch_size=data.global_batch_size // config.trainer.gradient_accumulation_steps
  )
  task = config.task.replace(train_data=micro_batch)
  start = tuple(state.positions.numpy()[cluster.index].tolist())
  return cluster.strategy.distribute_datasets_from_function(
    lambda context: input_pipeline.training_input(task, state.categories, context, start)
  )


def make_train_step(state: State, dataset: tf.distribute.DistributedDataset) -> TrainStep:
  """The step for micro-batches of the dataset, in one graph for landscape and portrait images."""
  config = state.config
  return TrainStep(
    config.task,
    state.cluster.strategy,
    state.model,
    state.optimizer,
    config.trainer.gradient_accumulation_steps,
    config.trainer.gradient_norms and config.task.mode == 'panoptic',
    dataset.element_spec,
    config.runtime.deterministic,
  )


def check_finite(losses: dict[str, float], micro_batches: list[Batch], state: State) -> None:
  """Stops a training that has diverged.

  Raises:
    InputError: if a loss is not finite. It names the loss, the images and the last good checkpoint.
  """
  wrong = [f'{name} ({value})' for name, value in losses.items() if not np.isfinite(value)]
  if not wrong:
    return
  images = [
    source_id
    for batch in micro_batches
    for encoded in state.cluster.strategy.experimental_local_results(batch['source_id'])
    for source_id in preprocess.source_ids(encoded.numpy())
  ]
  raise InputError(
    f'step {state.step}: non-finite {", ".join(wrong)} in the batch of images {", ".join(images)}; '
    f'{state_lib.advice(state)}'
  )


def advance(state: State, micro_batches: list[Batch]) -> None:
  """Records where this worker's data continues."""
  cluster = state.cluster
  positions = cluster.strategy.experimental_local_results(micro_batches[-1]['position'])
  epoch, place = positions[0][0].numpy()
  state.positions[cluster.index].assign([epoch, place + 1])


def leave(interruption: Interruption, step: int) -> None:
  """Ends the process after this or another worker received a signal."""
  received = interruption.received or signal.SIGTERM
  tqdm.tqdm.write(
    f'stopped by {received.name} after step {step}, with a checkpoint; run the same command to '
    'continue'
  )
  sys.exit(128 + received)


def validate(
  state: State, training_log: TrainingLog | None = None, best: BestCheckpoint | None = None
) -> dict[str, dict]:
  """Evaluates all fusions and prints the scores; in training, also logs and keeps the best."""
  task, categories, cluster = state.config.task, state.categories, state.cluster
  methods = scored_fusions(task)
  fuser = build_fuser(
    task, state.model, load_table(task.model.fusion.class_prior, categories, methods)
  )
  panels = Panels(categories, NUM_PANELS if task.allow_image_summary else 0)
  state_lib.share_statistics(state)
  with averaged_weights(state.optimizer):
    results = evaluate(
      state.model, fuser, task, categories, methods, cluster, state.folder / 'evaluation',
      [panels.add], with_ranking_maps=task.allow_image_summary,
    )  # fmt: skip
    scalars = named_scores(results)
    # The chief decides: only its folder has the best so far.
    if best and cluster.any_worker(cluster.is_chief and best.is_better(scalars)):
      best.save(state.model, scalars, state.step)
  if training_log:
    training_log.write('validation', state.step, scalars, panels.images)
  if cluster.is_chief:
    tqdm.tqdm.write(f'step {state.step}\n{format_table(results, categories)}')
  return results
