"""TFRecord shards -> batched tf.data."""

import glob

import tensorflow as tf

from oanet_tf.config import Data, OANet
from oanet_tf.data import preprocess, tf_example
from oanet_tf.data.categories import PanopticCategories
from oanet_tf.errors import InputError


def list_shards(input_path: str) -> list[str]:
  """Files that a glob, or several with commas between, match, in order.

  Raises:
    InputError: if a glob matches none.
  """
  shards = []
  for pattern in filter(None, (part.strip() for part in input_path.split(','))):
    found = sorted(glob.glob(pattern))
    if not found:
      raise InputError(
        f'{pattern}: no TFRecord file matches; scripts/convert_coco_tfrecord.py makes them'
      )
    shards.extend(found)
  if not shards:
    raise InputError('input_path is empty; set task.train_data.input_path (or validation_data)')
  return shards


def training_dataset(
  data: Data,
  model: OANet,
  categories: PanopticCategories,
  seed: int,
  context: tf.distribute.InputContext | None = None,
) -> tf.data.Dataset:
  """An endless, shuffled dataset of batches of `preprocess.training_steps`' examples.

  Args:
    data: the split.
    model: gives levels and anchors.
    categories: of the dataset.
    seed: of shuffling and augmentation.
    context: under a strategy, which part of the input and of the batch this pipeline gives.
  """
  shards = list_shards(data.input_path)
  dataset = _records(shards, context, shuffle_seed=seed, buffer=data.shuffle_buffer_size)
  dataset = tf.data.Dataset.zip((dataset.repeat(), tf.data.Dataset.counter()))
  steps = preprocess.training_steps(data, model, categories)

  def parse(serialized: tf.Tensor, index: tf.Tensor) -> preprocess.Example:
    example = tf_example.decode(serialized)
    pipeline = context.input_pipeline_id if context else 0
    return preprocess.apply(steps, {**example, 'seed': tf.stack([seed + 1000 * pipeline, index])})

  dataset = dataset.map(parse, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
  dataset = dataset.batch(_per_replica(data, context), drop_remainder=True)
  return dataset.prefetch(tf.data.AUTOTUNE)


def evaluation_dataset(
  data: Data, context: tf.distribute.InputContext | None = None
) -> tf.data.Dataset:
  """Every record once, in order: batches of `preprocess.evaluation_steps`' examples.

  Truth maps and segment lists are padded with 0 to the batch's largest.
  """
  steps = preprocess.evaluation_steps(data)
  dataset = _records(list_shards(data.input_path), context)
  dataset = dataset.map(
    lambda serialized: preprocess.apply(steps, tf_example.decode(serialized)),
    num_parallel_calls=tf.data.AUTOTUNE,
    deterministic=True,
  )
  dataset = dataset.padded_batch(_per_replica(data, context))
  return dataset.prefetch(tf.data.AUTOTUNE)


def _per_replica(data: Data, context: tf.distribute.InputContext | None) -> int:
  size = data.global_batch_size
  return context.get_per_replica_batch_size(size) if context else size


def _records(
  shards: list[str],
  context: tf.distribute.InputContext | None,
  shuffle_seed: int | None = None,
  buffer: int = 0,
) -> tf.data.Dataset:
  """Serialized records of this pipeline's part of the shards."""
  files = tf.data.Dataset.from_tensor_slices(shards)
  if context and len(shards) >= context.num_input_pipelines > 1:
    files = files.shard(context.num_input_pipelines, context.input_pipeline_id)
  if shuffle_seed is not None:
    files = files.shuffle(len(shards), seed=shuffle_seed)
  dataset = files.interleave(
    tf.data.TFRecordDataset,
    cycle_length=8 if shuffle_seed is not None else 1,
    num_parallel_calls=tf.data.AUTOTUNE,
    deterministic=True,
  )
  if context and len(shards) < context.num_input_pipelines:
    dataset = dataset.shard(context.num_input_pipelines, context.input_pipeline_id)
  if shuffle_seed is not None:
    dataset = dataset.shuffle(buffer, seed=shuffle_seed)
  return dataset
