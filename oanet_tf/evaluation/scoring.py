"""Scores a network on a split: every fusion in one pass over the detections."""

import json
import pathlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from typing import NamedTuple

import numpy as np
import tensorflow as tf
import tqdm

from oanet_tf import files
from oanet_tf.cluster import Cluster
from oanet_tf.config import definitions
from oanet_tf.data import geometry, image_ids, input_pipeline, shard_files
from oanet_tf.data.categories import VOID_LABEL, PanopticCategories
from oanet_tf.data.interruptible import interruptible
from oanet_tf.data.panoptic_map import Scores, Segments, segments_of_masks
from oanet_tf.data.resizing import as_pixels
from oanet_tf.evaluation.coco_results import PanopticResultsWriter
from oanet_tf.evaluation.panoptic_quality import PanopticQuality
from oanet_tf.evaluation.ranking_map import RankingMap
from oanet_tf.modeling.fusion.fuser import Fuser, GroundTruth
from oanet_tf.modeling.fusion.methods import fuse
from oanet_tf.modeling.oanet import OANet
from oanet_tf.modeling.srm_only import SRMOnly

DETECTIONS = ('detection_boxes', 'detection_scores', 'detection_classes', 'detection_masks')
# What the networks take of a batch; the annotations are those that `SRMOnly` turns into detections.
INPUTS = (
  'image', 'image_info', 'gt_boxes', 'gt_classes', 'gt_masks', 'gt_scores', 'category_labels',
)  # fmt: skip


class EvaluatedImage(NamedTuple):
  """One image of the split, at its own size.

  Attributes:
    image_id: the dataset's.
    file_name: of the image; empty if its record has none.
    ground_truth: its segments.
    predictions: by fusion.
    image: [A, B, 3] uint8 network input, with padding.
    image_info: [4, 2] float32.
    ranking_map: at the ranking module's stride of the network input; None unless asked for.
    detections: `detection_boxes`, `detection_scores`, `detection_classes`, `detection_masks` and
      `ranking_scores` of the network's output.
    stuff_labels: [H, W] int32, what the stuff branch alone says.
    instance_masks: by fusion, [H, W] int32: 1 + index of the detection, 0 where there is none.
  """

  image_id: int | str
  file_name: str
  ground_truth: Segments
  predictions: dict[str, Segments]
  image: np.ndarray
  image_info: np.ndarray
  ranking_map: RankingMap | None
  detections: dict[str, np.ndarray]
  stuff_labels: np.ndarray
  instance_masks: dict[str, np.ndarray]


def evaluate(
  model: OANet | SRMOnly,
  fuser: Fuser,
  task: definitions.OANetTask,
  categories: PanopticCategories,
  methods: Sequence[str],
  cluster: Cluster,
  output_dir: pathlib.Path | None = None,
  observers: Sequence[Callable[[EvaluatedImage], None]] = (),
  *,
  with_ranking_maps: bool = False,
) -> dict[str, dict]:
  """Panoptic quality on the validation split, split over the workers.

  Writes `<output_dir>/results.json`, the returned scores; a single worker also writes
  `<output_dir>/<method>.json` and `<output_dir>/<method>/*.png`, predictions in COCO's panoptic
  format.

  Args:
    model: the network.
    fuser: of its outputs.
    task: gives the data.
    categories: of the dataset.
    methods: of fusion.
    cluster: all its workers must call this.
    output_dir: None writes nothing.
    observers: are called with each image of this worker.
    with_ranking_maps: whether the images have ranking maps, which observers may need.

  Returns:
    For each method what `PanopticQuality.result` gives, over the images of all workers.

  Raises:
    InputError: if the split has no shard, or its ground truth does not fit the categories.
  """
  scores = {method: PanopticQuality(categories) for method in methods}
  with ExitStack() as stack:
    writers = {}
    if output_dir and cluster.num_workers == 1:
      writers = {
        method: stack.enter_context(PanopticResultsWriter(output_dir, method, categories))
        for method in methods
      }
    images = evaluated_images(model, fuser, task, categories, methods, cluster, with_ranking_maps)
    # Its progress bar is closed before an error is printed, which would otherwise follow it.
    for image in stack.enter_context(closing(images)):
      for method, prediction in image.predictions.items():
        scores[method].update(image.ground_truth, prediction)
        if method in writers:
          writers[method].write(
            image.image_id,
            image.file_name,
            prediction,
            f'{image_ids.file_stem(image.image_id)}.png',
          )
      for observe in observers:
        observe(image)
  for score in scores.values():
    score.statistics = cluster.sum_over_workers(score.statistics)
  results = {method: score.result() for method, score in scores.items()}
  if output_dir and cluster.is_chief:
    files.write_text(output_dir / 'results.json', json.dumps(results, indent=1) + '\n')
  return results


def evaluated_images(
  model: OANet | SRMOnly,
  fuser: Fuser,
  task: definitions.OANetTask,
  categories: PanopticCategories,
  methods: Sequence[str],
  cluster: Cluster,
  with_ranking_maps: bool,
) -> Generator[EvaluatedImage, None, None]:
  """This worker's images of the validation split, one by one."""
  stride = fuser.ranking_module.stride

  def inputs_of(batch: dict[str, tf.Tensor]) -> dict:
    inputs = {key: batch[key] for key in INPUTS if key in batch}
    if 'oracle' in methods:
      size = [side // stride for side in batch['image'].shape[1:3]]
      inputs['ground_truth'] = sample_ground_truth(batch, size, stride, categories)
    return inputs

  any_size = task.validation_data.tight_padding
  step = evaluation_step(model, fuser, methods, cluster.strategy, with_ranking_maps, any_size)
  with tqdm.tqdm(desc='evaluating', unit='image', leave=False) as progress:
    for batches in _batches_of_replicas(task, categories, cluster):
      results = step(_distribute(cluster, [inputs_of(batch) for batch in batches]))
      for batch, result in zip(batches, _local(cluster.strategy, results), strict=True):
        for image in unbatch({**batch, **result}):
          if not image['is_repeated']:
            progress.update()
            yield _evaluated(image, categories)


def evaluation_step(
  model: OANet | SRMOnly,
  fuser: Fuser,
  methods: Sequence[str],
  strategy: tf.distribute.Strategy,
  with_ranking_maps: bool,
  any_size: bool = False,
) -> Callable[[dict], dict]:
  """The compiled function from each replica's `INPUTS` and `ground_truth` to what is evaluated.

  Args:
    model, fuser, methods, with_ranking_maps: of `evaluate`.
    strategy: the replicas.
    any_size: whether images of many sizes come.
  """

  def replica_step(inputs: dict) -> dict:
    image_info = inputs['image_info']
    outputs = model(inputs['image'], image_info, labels=inputs)
    canvas_size = geometry.largest_original(image_info)
    batch = fuser.batch(outputs, image_info, canvas_size, inputs.get('ground_truth'))
    maps = {method: fuse(batch, method) for method in methods}
    results = {
      'maps': maps,
      'stuff_scores': {method: batch.stuff_scores(maps[method]) for method in methods},
      'stuff_labels': batch.stuff,
      'ranking_scores': batch.ranking.scores,
      **{key: outputs[key] for key in DETECTIONS},
    }
    if with_ranking_maps:
      probabilities = batch.ranking.map
      labels = 1 + tf.argmax(probabilities, axis=-1, output_type=tf.int32)
      results['ranking_map'] = RankingMap(labels, tf.reduce_max(probabilities, axis=-1))
    return results

  # Nothing that varies from batch to batch is a Python argument, so there is one trace for each
  # orientation of the images, or one for all sizes of those with tight padding.
  return tf.function(
    lambda inputs: strategy.run(replica_step, args=(inputs,)),
    autograph=False,
    reduce_retracing=any_size,
  )


def sample_ground_truth(
  batch: Mapping[str, tf.Tensor],
  size: Sequence[int],
  stride: int,
  categories: PanopticCategories,
) -> GroundTruth:
  """Samples the segments at the centre of each cell of a canvas; void in the padding.

  The fusion 'oracle' orders instances by them.

  Args:
    batch: of `input_pipeline.evaluation_input`: `image_info` [B, 4, 2], `segment_index`
      [B, H, W], `segment_ids` and `segment_category_ids` [B, K].
    size: [h, w] of the canvas.
    stride: the canvas's, relative to the network input.
    categories: of the dataset.
  """
  (rows, row_inside), (columns, column_inside) = (
    geometry.pixels_of_cells(tf.convert_to_tensor(batch['image_info']), axis, size[axis], stride)
    for axis in (0, 1)
  )
  segments = tf.gather(batch['segment_index'], rows, axis=1, batch_dims=1)
  segments = tf.gather(segments, columns, axis=2, batch_dims=1)
  inside = row_inside[:, :, None] & column_inside[:, None]
  segments = tf.cast(segments, tf.int32) * tf.cast(inside, tf.int32)
  labels = tf.gather(categories.label_of_id_table(), batch['segment_category_ids'])
  # The lists of segments are padded with 0, which is no segment's id but may be a category's.
  labels = tf.where(batch['segment_ids'] > 0, labels, VOID_LABEL)
  labels = tf.pad(labels, [[0, 0], [1, 0]], constant_values=VOID_LABEL)
  return GroundTruth(segments, tf.gather(labels, segments, batch_dims=1))


def _batches_of_replicas(
  task: definitions.OANetTask, categories: PanopticCategories, cluster: Cluster
) -> Iterator[list[dict[str, tf.Tensor]]]:
  """For each step, the batches of this worker's replicas.

  The strategy's own iterators would make workers wait for each other at every step, although one
  may have more images than another.
  """
  context = tf.distribute.InputContext(
    cluster.num_workers, cluster.index, cluster.strategy.num_replicas_in_sync
  )
  batches = interruptible(input_pipeline.evaluation_input(task, categories, context))
  while True:
    with shard_files.named_errors(task.validation_data.input_path, task.mode == 'panoptic'):
      step = [batch for _ in range(cluster.num_local_replicas) if (batch := next(batches, None))]
    if not step:
      return
    yield step


def _distribute(cluster: Cluster, values: Sequence[dict]) -> dict:
  """Gives each local replica its dict, as one dict of distributed tensors."""

  def distribute(*of_replicas: tf.Tensor) -> tf.distribute.DistributedValues:
    return cluster.strategy.experimental_distribute_values_from_function(
      lambda context: of_replicas[context.replica_id_in_sync_group % len(of_replicas)]
    )

  return tf.nest.map_structure(distribute, *values)


def _local(strategy: tf.distribute.Strategy, results: dict) -> list[dict]:
  """Each local replica's results."""
  flat = [strategy.experimental_local_results(value) for value in tf.nest.flatten(results)]
  return [tf.nest.pack_sequence_as(results, values) for values in zip(*flat, strict=True)]


def unbatch(batch: dict) -> Iterator[dict]:
  """Each image of a batch of tensors, as numpy values."""
  arrays = tf.nest.map_structure(lambda tensor: tensor.numpy(), batch)
  for index in range(len(arrays['source_id'])):
    yield tf.nest.map_structure(lambda array, index=index: array[index], arrays)


def named_scores(results: Mapping[str, dict]) -> dict[str, float]:
  """`evaluate`'s results as percentages by name: `pq/srm`, `sq_things/heuristic` and the like."""
  return {
    f'{quality}{group}/{method}': 100.0 * result[key][quality]
    for method, result in results.items()
    for key, group in (('All', ''), ('Things', '_things'), ('Stuff', '_stuff'))
    for quality in ('pq', 'sq', 'rq')
  }


def _evaluated(image: dict, categories: PanopticCategories) -> EvaluatedImage:
  ground_truth = ground_truth_of(image)
  height, width = ground_truth.index.shape
  return EvaluatedImage(
    image_id=image_ids.decoded(image['source_id'].decode(errors='surrogatepass')),
    file_name=image['file_name'].decode(errors='surrogateescape'),
    ground_truth=ground_truth,
    predictions={
      method: prediction_of(
        masks,
        ground_truth.index.shape,
        categories,
        Scores(image['detection_scores'], image['stuff_scores'][method]),
      )
      for method, masks in image['maps'].items()
    },
    image=as_pixels(image['image']),
    image_info=image['image_info'],
    ranking_map=image.get('ranking_map'),
    detections={key: image[key] for key in (*DETECTIONS, 'ranking_scores')},
    stuff_labels=image['stuff_labels'][:height, :width],
    instance_masks={method: masks[1][:height, :width] for method, masks in image['maps'].items()},
  )


def prediction_of(
  masks: Sequence[np.ndarray],
  size: tuple[int, int],
  categories: PanopticCategories,
  scores: Scores | None = None,
) -> Segments:
  """A fusion's category and instance mask of one image, without the batch's padding."""
  height, width = size
  return segments_of_masks(*(mask[:height, :width] for mask in masks), categories, scores)


def ground_truth_of(image: dict) -> Segments:
  """The ground truth of one image, without the batch's padding."""
  height, width = (int(side) for side in image['image_info'][0])
  real = image['segment_ids'] > 0
  return Segments(
    index=image['segment_index'][:height, :width],
    ids=image['segment_ids'][real],
    category_ids=image['segment_category_ids'][real],
    is_crowd=image['segment_is_crowd'][real],
  )
