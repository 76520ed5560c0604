"""TFRecord shards -> batched tf.data.

Serialized records are shuffled and grouped into batches before they are decoded, so that a run can
start anywhere in the order of batches without decoding what comes before. The canvas of an image
has the image's orientation, so all images of a batch have one orientation.
"""

import functools
from collections.abc import Callable

import tensorflow as tf

from oanet_tf.config.definitions import Data, OANetTask
from oanet_tf.data import preprocess, shard_files, tf_example
from oanet_tf.data.annotation_scores import category_frequencies
from oanet_tf.data.categories import PanopticCategories

# Shards that are read at the same time, to mix their records.
_INTERLEAVED_SHARDS = 8
_LAST_EPOCH = 2**31
# What TensorFlow takes where a program has set none.
_GRAPH_SEED = 87654321
# An epoch drops the images that do not fill a batch, so a dataset of fewer batches than this is
# repeated within an epoch.
_LEAST_BATCHES = 4

Example = preprocess.Example
Context = tf.distribute.InputContext | None


# AutoGraph writes files for each function that it converts, and none here needs it.
@tf.autograph.experimental.do_not_convert
def training_input(
  task: OANetTask,
  categories: PanopticCategories,
  context: Context = None,
  start: tuple[int, int] = (0, 0),
) -> tf.data.Dataset:
  """An endless, shuffled dataset of batches for the task's mode.

  Examples are those of `preprocess.training_steps`, or of `preprocess.srm_training_steps` in mode
  'srm_only', which decodes no image. Each batch also has `position`, [B, 2] int64: its epoch and
  its step therein. Batches depend only on the seed, the shards and the settings: a dataset that
  starts after the last position of another one goes on where that one stopped.

  Args:
    task: gives split, seed, levels and anchors.
    categories: of the dataset.
    context: under a strategy, the part of input and batch that this pipeline provides.
    start: position of the first batch.

  Raises:
    InputError: if there is no shard.
  """
  data = task.train_data
  source = _Source(data, context)
  if task.mode == 'srm_only':
    read = tf_example.decode_annotations
    steps_of = functools.partial(preprocess.srm_training_steps, data, categories)
  else:
    read = tf_example.decode
    steps_of = functools.partial(preprocess.training_steps, data, task.model, categories)
  least = _LEAST_BATCHES * source.step_size
  repeats = -(-least // source.num_records)
  pipeline = context.input_pipeline_id if context else 0

  def epoch(number: tf.Tensor) -> tf.data.Dataset:
    # Of this function's graph. That of the program would change the order, and 0 be an error.
    tf.random.set_seed(_GRAPH_SEED)
    epoch_seed = (task.seed + 2**32 * pipeline) * 1_000_003 + number
    examples = (
      source.shuffled(repeats, epoch_seed)
      .enumerate()
      .map(lambda index, record: {'record': record, 'seed': tf.stack([epoch_seed, index])})
    )
    steps = _by_orientation(examples, data, source.step_size, _without_rest)
    return steps.enumerate().map(
      lambda index, step: {
        **step,
        'position': tf.repeat(tf.stack([number, index])[None], source.step_size, axis=0),
      }
    )

  dataset = tf.data.Dataset.range(start[0], _LAST_EPOCH).flat_map(epoch).skip(start[1]).unbatch()
  dataset = _decoded(dataset, data, read, steps_of, kept='position')
  return dataset.batch(source.batch_size, drop_remainder=True).prefetch(tf.data.AUTOTUNE)


@tf.autograph.experimental.do_not_convert
def evaluation_input(
  task: OANetTask, categories: PanopticCategories, context: Context = None
) -> tf.data.Dataset:
  """Batches with every record of the validation split once, for the task's mode.

  Examples are those of `preprocess.evaluation_steps`, or of `preprocess.srm_evaluation_steps` in
  mode 'srm_only', which decodes no image. Ground-truth maps and segment lists are padded with 0 to
  the batch's largest. All batches are full: the last ones repeat records, where `is_repeated`, [B]
  bool, is set.

  Args:
    task: gives split and levels.
    categories: of the dataset.
    context: under a strategy, the part of input and batch that this pipeline provides.

  Raises:
    InputError: if there is no shard, or, in mode 'srm_only', one is damaged.
  """
  data = task.validation_data
  source = _Source(data, context)
  if task.mode == 'srm_only':
    read = tf_example.decode_annotations
    stride, frequencies = 2**task.model.min_level, category_frequencies(data, categories)
    steps_of = functools.partial(
      preprocess.srm_evaluation_steps, data, categories, stride, frequencies
    )
  else:
    read = tf_example.decode
    steps_of = functools.partial(preprocess.evaluation_steps, data, task.model)
  examples = source.in_order().map(lambda record: {'record': record, 'is_repeated': False})
  dataset = _by_orientation(examples, data, source.step_size, _filled_up).unbatch()
  dataset = _decoded(dataset, data, read, steps_of, kept='is_repeated')
  return dataset.padded_batch(source.batch_size, drop_remainder=True).prefetch(tf.data.AUTOTUNE)


class _Source:
  """The serialized records that one pipeline reads.

  Attributes:
    shards: number of records to read of each file.
    num_records: of all these files, at least 1.
    batch_size: images of one replica in a step.
    step_size: images of all replicas that the pipeline feeds.
  """

  def __init__(self, data: Data, context: Context):
    self._data, self._context = data, context
    self.batch_size = self.step_size = data.global_batch_size
    shards = shard_files.list_shards(data.input_path)
    # With fewer shards than pipelines, each pipeline takes every n-th record.
    self._splits_records = bool(context) and len(shards) < context.num_input_pipelines
    if context:
      self.batch_size = context.get_per_replica_batch_size(data.global_batch_size)
      images = self.batch_size * context.num_replicas_in_sync
      self.step_size = images // context.num_input_pipelines
      if not self._splits_records:
        shards = shards[context.input_pipeline_id :: context.num_input_pipelines]
    count = shard_files.readable_records if data.skip_damaged else shard_files.whole_records
    self.shards = count(shards)
    self.num_records = sum(self.shards.values())

  def in_order(self) -> tf.data.Dataset:
    """All records, one shard after the other."""
    return self._own(shard_files.records(self.shards))

  def shuffled(self, repeats: int, seed: tf.Tensor) -> tf.data.Dataset:
    """All records, `repeats` times, in the order that a [] int64 seed gives."""
    order = tf.random.experimental.stateless_shuffle(
      tf.range(len(self.shards)), tf.stack([seed, 0])
    )
    counts = tf.constant(list(self.shards.values()), tf.int64)
    files = tf.gather(list(self.shards), order), tf.gather(counts, order)
    records = tf.data.Dataset.from_tensor_slices(files).interleave(
      shard_files.records_of, cycle_length=_INTERLEAVED_SHARDS
    )
    records = self._own(records).repeat(repeats)
    return records.shuffle(self._data.shuffle_buffer_size, seed, reshuffle_each_iteration=False)

  def _own(self, records: tf.data.Dataset) -> tf.data.Dataset:
    if self._splits_records:
      return records.shard(self._context.num_input_pipelines, self._context.input_pipeline_id)
    return records


def _decoded(
  examples: tf.data.Dataset,
  data: Data,
  read: Callable[[tf.Tensor], Example],
  steps_of: Callable[[bool], list[preprocess.Step]],
  kept: str,
) -> tf.data.Dataset:
  """Decodes records and applies the steps of their orientation; `kept` is passed through."""
  steps = {portrait: steps_of(portrait) for portrait in (False, True)}

  def decode(example: Example) -> Example:
    decoded = read(example['record'])
    if 'seed' in example:
      decoded['seed'] = example['seed']

    def result_of(portrait: bool) -> Example:
      return preprocess.apply(steps[portrait], decoded)

    if _is_square(data):
      result = result_of(False)
    else:
      result = tf.cond(example['portrait'], lambda: result_of(True), lambda: result_of(False))
    return {**result, kept: example[kept]}

  return examples.map(decode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)


def _is_square(data: Data) -> bool:
  """Whether both orientations have the same canvas."""
  return data.output_size[0] == data.output_size[1]


def _is_portrait(record: tf.Tensor) -> tf.Tensor:
  keys = (tf_example.HEIGHT, tf_example.WIDTH)
  size = tf.io.parse_single_example(
    record, {key: tf.io.FixedLenFeature([], tf.int64) for key in keys}
  )
  return size[keys[0]] > size[keys[1]]


def _by_orientation(
  examples: tf.data.Dataset,
  data: Data,
  size: int,
  collect: Callable[[tf.data.Dataset, int], tf.data.Dataset],
) -> tf.data.Dataset:
  """Groups of `size` examples of one orientation, in the order in which they are complete."""
  examples = examples.map(
    lambda example: {
      **example,
      'portrait': not _is_square(data) and _is_portrait(example['record']),
    }
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
