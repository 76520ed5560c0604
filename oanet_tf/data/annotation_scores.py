"""Annotated objects as detections, with scores that imitate a detector's bias.

A detector is most confident of large and frequent objects, so merging by its scores hides small and
rare ones (section 3.2). With such scores for ground-truth masks, one can measure how much a ranking
improves on this, without any detector.
"""

# M objects, S mask side, T thing categories.

import numpy as np
import tensorflow as tf

from oanet_tf.config.definitions import Data
from oanet_tf.data import shard_files, tf_example
from oanet_tf.data.categories import PanopticCategories
from oanet_tf.data.interruptible import interruptible

# Number of records parsed at a time.
_BATCH = 64


def annotation_scores(areas: tf.Tensor, frequencies: tf.Tensor) -> tf.Tensor:
  """1/2 + 1/4 · the square root of the area + 1/4 · the frequency.

  Args:
    areas: [M] float in [0, 1], fractions of the image.
    frequencies: [M] float in [0, 1], of the objects' categories relative to the most frequent one.

  Returns:
    [M] float in [0.5, 1].
  """
  return 0.5 + 0.25 * tf.sqrt(areas) + 0.25 * frequencies


def score_instances(example: dict[str, tf.Tensor], frequencies: np.ndarray) -> dict[str, tf.Tensor]:
  """Scores the instances and sorts them by descending score.

  Args:
    example: with `gt_boxes` [M, 4] in the network input, `gt_classes` [M], `gt_masks` [M, S, S] in
      the boxes, and `image_info` [4, 2].
    frequencies: of `category_frequencies`.

  Returns:
    `gt_scores` [M] float32, and `gt_boxes`, `gt_classes` and `gt_masks` in the same order.
  """
  boxes, classes, masks = (example[key] for key in ('gt_boxes', 'gt_classes', 'gt_masks'))
  pixels = tf.reduce_prod(boxes[:, 2:] - boxes[:, :2], axis=1) * tf.reduce_mean(masks, axis=[1, 2])
  areas = tf.minimum(pixels / tf.reduce_prod(example['image_info'][1]), 1.0)
  scores = annotation_scores(areas, tf.gather(tf.constant(frequencies), classes))
  order = tf.argsort(scores, direction='DESCENDING', stable=True)
  unordered = {'gt_scores': scores, 'gt_boxes': boxes, 'gt_classes': classes, 'gt_masks': masks}
  return {key: tf.gather(value, order) for key, value in unordered.items()}


def category_frequencies(data: Data, categories: PanopticCategories) -> np.ndarray:
  """Counts the objects of each thing category, without crowds, relative to the most frequent one.

  Args:
    data: the split.
    categories: of the dataset.

  Returns:
    [T + 1] float32 in [0, 1] by label; all 0 if there is no object.

  Raises:
    InputError: if there is no shard, or one is damaged.
  """
  shards = shard_files.list_shards(data.input_path)
  count = shard_files.readable_records if data.skip_damaged else shard_files.whole_records
  label_of_id = categories.label_of_id_table()
  objects = np.zeros([categories.num_things + 1], np.int64)
  with shard_files.named_errors(data.input_path, with_images=False):
    dataset = shard_files.records(count(shards)).batch(_BATCH).map(_single_objects)
    for ids in interruptible(dataset):
      objects += np.bincount(label_of_id[ids.numpy()], minlength=len(objects))
  return (objects / max(1, objects.max())).astype(np.float32)


def _single_objects(records: tf.Tensor) -> tf.Tensor:
  """Category ids of all objects except crowds."""
  keys = (tf_example.OBJECT_CATEGORY_ID, tf_example.OBJECT_IS_CROWD)
  parsed = tf.io.parse_example(records, {key: tf.io.RaggedFeature(tf.int64) for key in keys})
  category_ids, is_crowd = (parsed[key].flat_values for key in keys)
  return tf.boolean_mask(category_ids, is_crowd == 0)
