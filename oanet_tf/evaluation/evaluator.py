"""Scores a network on a split: every fusion in one pass over the detections."""

import json
import pathlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import numpy as np
import tensorflow as tf
import tqdm

from oanet_tf import config as config_lib
from oanet_tf import inference
from oanet_tf.data import input_pipeline, shard_files
from oanet_tf.data.categories import PanopticCategories
from oanet_tf.data.panoptic_map import PanopticSegmentation
from oanet_tf.evaluation.coco_results import PanopticResultsWriter
from oanet_tf.evaluation.panoptic_quality import PanopticQuality
from oanet_tf.modeling.fusion import Panoptic
from oanet_tf.modeling.oanet import OANet


def evaluate(
  model: OANet,
  task: config_lib.OANetTask,
  categories: PanopticCategories,
  methods: Sequence[str],
  output_dir: pathlib.Path,
  strategy: tf.distribute.Strategy,
) -> dict[str, dict]:
  """Panoptic quality on the validation split.

  Writes `<output_dir>/<method>.json` and `<output_dir>/<method>/*.png`, predictions in COCO's
  panoptic format, and `<output_dir>/results.json`, the returned scores.

  Returns:
    For each method what `PanopticQuality.result` gives.

  Raises:
    InputError: if the split has no shard, or its truth does not fit the categories.
  """
  scores = {method: PanopticQuality(categories) for method in methods}
  with ExitStack() as stack:
    writers = {
      method: stack.enter_context(PanopticResultsWriter(output_dir, method, categories))
      for method in methods
    }
    for image in _predictions(model, task, methods, strategy):
      truth = _truth(image)
      height, width = truth.segment_map.shape
      for method in methods:
        masks = (mask[:height, :width] for mask in image[method])
        prediction = inference.to_segmentation(*masks, categories)
        scores[method].update(truth, prediction)
        source_id = image['source_id'].decode()
        writers[method].write(source_id, f'{source_id}.png', prediction)
  results = {method: score.result() for method, score in scores.items()}
  (output_dir / 'results.json').write_text(json.dumps(results, indent=1) + '\n')
  return results


def _predictions(
  model: OANet,
  task: config_lib.OANetTask,
  methods: Sequence[str],
  strategy: tf.distribute.Strategy,
) -> Iterator[dict]:
  """One dict of numpy values an image: truth, `image_info`, and a `Panoptic` for each method."""

  def replica_step(images: tf.Tensor, image_info: tf.Tensor) -> dict[str, Panoptic]:
    canvas_size = tf.cast(tf.reduce_max(image_info[:, 0], axis=0), tf.int32)
    return inference.predict_panoptic(model, task.model, methods, images, image_info, canvas_size)[
      1
    ]

  # Of what varies from batch to batch nothing is an argument, so there is one trace for each
  # orientation of the images.
  @tf.function(autograph=False)
  def step(images: tf.Tensor, image_info: tf.Tensor) -> dict[str, Panoptic]:
    return strategy.run(replica_step, args=(images, image_info))

  data = task.validation_data
  dataset = strategy.distribute_datasets_from_function(
    lambda context: input_pipeline.evaluation_dataset(data, context)
  )
  batches = iter(dataset)
  with tqdm.tqdm(desc='evaluating', unit='image', leave=False) as progress:
    while True:
      with shard_files.named_errors(data.input_path):
        batch = next(batches, None)
      if batch is None:
        return
      maps = step(batch.pop('image'), batch['image_info'])
      for replica in _local(strategy, {**batch, **maps}):
        for image in _unbatch(replica):
          if not image['is_repeated']:
            progress.update()
            yield image


def _local(strategy: tf.distribute.Strategy, results: dict) -> list[dict]:
  """Each local replica's results."""
  flat = [strategy.experimental_local_results(value) for value in tf.nest.flatten(results)]
  return [tf.nest.pack_sequence_as(results, values) for values in zip(*flat, strict=True)]


def _unbatch(batch: dict) -> Iterator[dict]:
  arrays = tf.nest.map_structure(lambda tensor: tensor.numpy(), batch)
  for index in range(len(arrays['source_id'])):
    yield tf.nest.map_structure(lambda array, index=index: array[index], arrays)


def _truth(image: dict) -> PanopticSegmentation:
  """The truth of one image, without the batch's padding."""
  height, width = (int(side) for side in image['image_info'][0])
  real = image['segment_ids'] > 0
  ids = np.concatenate([[0], image['segment_ids'][real]]).astype(np.int32)
  return PanopticSegmentation(
    segment_map=ids[image['segment_index'][:height, :width]],
    segment_ids=ids[1:],
    category_ids=image['segment_category_ids'][real],
    is_crowd=image['segment_is_crowd'][real],
  )
