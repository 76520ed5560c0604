"""TFRecord shards -> batched tf.data.

Serialized records are shuffled and dealt into batches first, and decoded after that, so that a run
can start anywhere in the order of batches without decoding what comes before. An image lies in a
canvas of its own orientation, hence a batch has images of one orientation.
"""

from collections.abc import Callable

import tensorflow as tf

from oanet_tf.config.definitions import Data, OANet, OANetTask
from oanet_tf.data import preprocess, shard_files, tf_example
from oanet_tf.data.annotation_scores import category_frequencies
from oanet_tf.data.categories import PanopticCategories

# Shards that are read at the same time, to mix their records.
_INTERLEAVED_SHARDS = 8
_LAST_EPOCH = 2**31
# What does not fill a batch is left out at an epoch's end; a dataset of fewer batches than these is
# therefore gone through several times in one epoch.
_LEAST_BATCHES = 4

Example = preprocess.Example
Decode = Callable[[tf.Tensor], Example]
# Whether an image is a portrait -> what is done with its record.
StepsOf = Callable[[bool], list[preprocess.Step]]


def training_input(
  task: OANetTask,
  categories: PanopticCategories,
  context: tf.distribute.InputContext | None = None,
  start: tuple[int, int] = (0, 0),
) -> tf.data.Dataset:
  """What the task's mode trains on: `training_dataset`, or `srm_training_dataset`."""
  data, model, seed = task.train_data, task.model, task.seed
  if task.mode == 'srm_only':
    return srm_training_dataset(data, categories, seed, context, start)
  return training_dataset(data, model, categories, seed, context, start)


def evaluation_input(
  task: OANetTask,
  categories: PanopticCategories,
  context: tf.distribute.InputContext | None = None,
) -> tf.data.Dataset:
  """What the task's mode evaluates on: `evaluation_dataset`, or `srm_evaluation_dataset`."""
  data, stride = task.validation_data, 2**task.model.min_level
  if task.mode == 'srm_only':
    return srm_evaluation_dataset(data, categories, stride, context)
  return evaluation_dataset(data, context)


def training_dataset(
  data: Data,
  model: OANet,
  categories: PanopticCategories,
  seed: int,
  context: tf.distribute.InputContext | None = None,
  start: tuple[int, int] = (0, 0),
) -> tf.data.Dataset:
  """An endless, shuffled dataset of batches of `preprocess.training_steps`' examples.

  Each batch also has `position`, [B, 2] int64: its epoch, and its step's place therein. What comes
  depends on seed, shards and settings alone: a dataset that starts after the last position of
  another one goes on with what that one would have given.

  Args:
    data: the split.
    model: gives levels and anchors.
    categories: of the dataset.
    seed: of shuffling and augmentation.
    context: under a strategy, which part of the input and of the batch this pipeline gives.
    start: position of the first batch.

  Raises:
    InputError: if there is no shard.
  """

  def steps_of(portrait: bool) -> list[preprocess.Step]:
    return preprocess.training_steps(data, model, categories, portrait)

  return _endless(data, seed, context, start, tf_example.decode, steps_of)


def srm_training_dataset(
  data: Data,
  categories: PanopticCategories,
  seed: int,
  context: tf.distribute.InputContext | None = None,
  start: tuple[int, int] = (0, 0),
) -> tf.data.Dataset:
  """As `training_dataset`, of `preprocess.srm_training_steps`' examples; no image is decoded."""

  def steps_of(portrait: bool) -> list[preprocess.Step]:
    return preprocess.srm_training_steps(data, categories, portrait)

  return _endless(data, seed, context, start, tf_example.decode_annotations, steps_of)


def _endless(
  data: Data,
  seed: int,
  context: tf.distribute.InputContext | None,
  start: tuple[int, int],
  decode_record: Decode,
  steps_of: StepsOf,
) -> tf.data.Dataset:
  shards = _own_shards(data, context)
  batch_size, step_size = _batch_sizes(data, context)
  least = _LEAST_BATCHES * step_size
  repeats = -(-least // max(1, shard_files.count_records(list(shards), most=least)))
  pipeline = context.input_pipeline_id if context else 0

  @tf.autograph.experimental.do_not_convert
  def epoch(number: tf.Tensor) -> tf.data.Dataset:
    epoch_seed = (seed + 2**32 * pipeline) * 1_000_003 + number
    records = _shuffled(shards, data, context, repeats, epoch_seed)
    examples = records.enumerate().map(
      lambda index, record: {'record': record, 'seed': tf.stack([epoch_seed, index])}
    )
    steps = _by_orientation(examples, data, step_size, _without_rest)
    return steps.enumerate().map(
      lambda index, step: {
        **step,
        'position': tf.repeat(tf.stack([number, index])[None], step_size, axis=0),
      }
    )

  steps = {portrait: steps_of(portrait) for portrait in (False, True)}

  @tf.autograph.experimental.do_not_convert
  def decode(example: Example) -> Example:
    decoded = {**decode_record(example['record']), 'seed': example['seed']}
    result = _by_case(data, example, lambda portrait: preprocess.apply(steps[portrait], decoded))
    return {**result, 'position': example['position']}

  dataset = tf.data.Dataset.range(start[0], _LAST_EPOCH).flat_map(epoch).skip(start[1]).unbatch()
  dataset = dataset.map(decode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
  return dataset.batch(batch_size, drop_remainder=True).prefetch(tf.data.AUTOTUNE)


def evaluation_dataset(
  data: Data, context: tf.distribute.InputContext | None = None
) -> tf.data.Dataset:
  """Every record once: batches of `preprocess.evaluation_steps`' examples.

  Truth maps and segment lists are padded with 0 to the batch's largest. All batches are full: the
  last ones repeat records, where `is_repeated`, [B] bool, is set.

  Raises:
    InputError: if there is no shard.
  """

  def steps_of(portrait: bool) -> list[preprocess.Step]:
    return preprocess.evaluation_steps(data, portrait)

  return _every_record(data, context, tf_example.decode, steps_of)


def srm_evaluation_dataset(
  data: Data,
  categories: PanopticCategories,
  label_stride: int,
  context: tf.distribute.InputContext | None = None,
) -> tf.data.Dataset:
  """As `evaluation_dataset`, of `preprocess.srm_evaluation_steps`' examples.

  No image is decoded. The categories' frequencies are those of the whole split.

  Raises:
    InputError: if there is no shard, or one is damaged.
  """
  frequencies = category_frequencies(data, categories)

  def steps_of(portrait: bool) -> list[preprocess.Step]:
    return preprocess.srm_evaluation_steps(data, categories, label_stride, frequencies, portrait)

  return _every_record(data, context, tf_example.decode_annotations, steps_of)


def _every_record(
  data: Data,
  context: tf.distribute.InputContext | None,
  decode_record: Decode,
  steps_of: StepsOf,
) -> tf.data.Dataset:
  shards = _own_shards(data, context)
  batch_size, step_size = _batch_sizes(data, context)
  files = list(shards), tf.constant(list(shards.values()), tf.int64)
  records = tf.data.Dataset.from_tensor_slices(files).flat_map(_read)
  examples = _own_records(records, data, context).map(
    lambda record: {'record': record, 'is_repeated': False}
  )
  steps = {portrait: steps_of(portrait) for portrait in (False, True)}

  @tf.autograph.experimental.do_not_convert
  def decode(example: Example) -> Example:
    decoded = decode_record(example['record'])
    result = _by_case(data, example, lambda portrait: preprocess.apply(steps[portrait], decoded))
    return {**result, 'is_repeated': example['is_repeated']}

  dataset = _by_orientation(examples, data, step_size, _filled_up).unbatch()
  dataset = dataset.map(decode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
  return dataset.padded_batch(batch_size, drop_remainder=True).prefetch(tf.data.AUTOTUNE)


def _batch_sizes(data: Data, context: tf.distribute.InputContext | None) -> tuple[int, int]:
  """Images of one replica, and of all replicas that this pipeline feeds, in one step."""
  if context is None:
    return data.global_batch_size, data.global_batch_size
  size = context.get_per_replica_batch_size(data.global_batch_size)
  return size, size * context.num_replicas_in_sync // context.num_input_pipelines


def _own_shards(data: Data, context: tf.distribute.InputContext | None) -> dict[str, int]:
  """This pipeline's shards -> how many of their records to read; -1 is all."""
  shards = shard_files.list_shards(data.input_path)
  if context and len(shards) >= context.num_input_pipelines:
    shards = shards[context.input_pipeline_id :: context.num_input_pipelines]
  return shard_files.readable_records(shards) if data.skip_damaged else dict.fromkeys(shards, -1)


def _own_records(
  records: tf.data.Dataset, data: Data, context: tf.distribute.InputContext | None
) -> tf.data.Dataset:
  """Where there are fewer shards than pipelines, each takes every so manyth record."""
  shards = shard_files.list_shards(data.input_path)
  if context and len(shards) < context.num_input_pipelines:
    return records.shard(context.num_input_pipelines, context.input_pipeline_id)
  return records


def _shuffled(
  shards: dict[str, int],
  data: Data,
  context: tf.distribute.InputContext | None,
  repeats: int,
  seed: tf.Tensor,
) -> tf.data.Dataset:
  """One epoch's records, in the order that a [] int64 seed gives."""
  order = tf.random.experimental.stateless_shuffle(tf.range(len(shards)), tf.stack([seed, 0]))
  counts = tf.constant(list(shards.values()), tf.int64)
  files = tf.gather(list(shards), order), tf.gather(counts, order)
  records = tf.data.Dataset.from_tensor_slices(files).interleave(
    _read, cycle_length=_INTERLEAVED_SHARDS
  )
  records = _own_records(records, data, context).repeat(repeats)
  return records.shuffle(data.shuffle_buffer_size, seed=seed, reshuffle_each_iteration=False)


def _read(shard: tf.Tensor, count: tf.Tensor) -> tf.data.Dataset:
  return tf.data.TFRecordDataset(shard).take(count)


def _is_portrait(record: tf.Tensor) -> tf.Tensor:
  keys = (tf_example.HEIGHT, tf_example.WIDTH)
  size = tf.io.parse_single_example(
    record, {key: tf.io.FixedLenFeature([], tf.int64) for key in keys}
  )
  return size[keys[0]] > size[keys[1]]


def _by_orientation(examples: tf.data.Dataset, data: Data, size: int, collect) -> tf.data.Dataset:  # noqa: ANN001
  """Groups of `size` examples of one orientation, in the order in which they get full."""
  square = data.output_size[0] == data.output_size[1]
  examples = examples.map(
    lambda example: {**example, 'portrait': not square and _is_portrait(example['record'])}
  )
  return examples.group_by_window(
    key_func=lambda example: tf.cast(example['portrait'], tf.int64),
    reduce_func=lambda _, window: collect(window, size),
    window_size=size,
  )


def _without_rest(window: tf.data.Dataset, size: int) -> tf.data.Dataset:
  return window.batch(size, drop_remainder=True)


def _filled_up(window: tf.data.Dataset, size: int) -> tf.data.Dataset:
  again = window.repeat().map(lambda example: {**example, 'is_repeated': True})
  return window.concatenate(again).take(size).batch(size, drop_remainder=True)


def _by_case(data: Data, example: Example, result_of) -> Example:  # noqa: ANN001
  """What an image of the example's orientation gives; a square canvas has but one case."""
  if data.output_size[0] == data.output_size[1]:
    return result_of(False)
  return tf.cond(example['portrait'], lambda: result_of(True), lambda: result_of(False))
