"""Our network for benchmark_model.py."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf
from benchmark_model_contenders import (
  BFLOAT16,
  COUNTS,
  INFERENCE_ALONE,
  NUM_OBJECTS,
  NUM_STUFF,
  NUM_THINGS,
  PAIRWISE,
  TRAINING_ALONE,
  objects,
  picture,
)
from benchmark_model_tensorflow import Graph
from official.core.config_definitions import ExperimentConfig

from oanet_tf.config import experiments
from oanet_tf.data import preprocess
from oanet_tf.data.categories import Category, PanopticCategories
from oanet_tf.modeling.build import build_fuser, build_oanet
from oanet_tf.modeling.fusion.methods import fuse
from oanet_tf.modeling.precision import computing_in
from oanet_tf.training.optimizer import build_learning_rate, build_optimizer
from oanet_tf.training.step import TrainStep

# Of what is not merged by the ranking module; None for what is not merged.
FUSIONS = {PAIRWISE: 'pairwise', INFERENCE_ALONE: None}


def contender(
  name: str,
  mode: str,
  size: list[int],
  batch: int,
  original: list[int] | None = None,
  detections: int = COUNTS['detections'],
  things: int = NUM_THINGS,
  stuff: int = NUM_STUFF,
) -> Graph:
  """A training step with all losses, or an image to its panoptic map.

  Args:
    name: 'ours'; 'ours_bfloat16', in mixed bfloat16; 'ours_pairwise', with an occlusion head, which
      orders the instances; 'ours_unfused', without ranking and fusion; or 'ours_unfrozen', which
      trains the stem and res2 too.
    mode: 'train' or 'infer'.
    size: [height, width] of images.
    batch: images.
    original: [height, width] of the map; `size` by default.
    detections: of an image.
    things, stuff: numbers of categories.
  """
  config = config_of(name, size, detections)
  categories = PanopticCategories(
    [Category(1 + n, f'category {n}', n < things, (n, n, 255 - n)) for n in range(things + stuff)]
  )
  if mode == 'train':
    prepare = training(config, categories, size, batch)
  else:
    prepare = inference(config, categories, size, batch, original or size, FUSIONS.get(name, 'srm'))
  dtype = 'bfloat16' if name == BFLOAT16 else 'float32'
  return Graph(computing_in(dtype)(prepare), batch, detections)


def config_of(name: str, size: list[int], detections: int) -> ExperimentConfig:
  """The experiment of a contender."""
  model = (
    f'roi_generator.num_proposals={COUNTS["proposals"]}',
    f'roi_generator.test_num_proposals={COUNTS["proposals"]}',
    f'roi_sampler.num_sampled_rois={COUNTS["rois"]}',
    f'mask_sampler.num_sampled_masks={COUNTS["masks"]}',
    f'detection_generator.max_num_detections={detections}',
    # Untrained, all scores are low; this gives detections all the same.
    'detection_generator.pre_nms_score_threshold=0.0',
    'fusion.score_threshold=0.0',
  )
  overrides = [f'task.model.{one}' for one in model]
  overrides.append(f'task.train_data.output_size=[{size[0]},{size[1]}]')
  if name in TRAINING_ALONE:
    overrides.append('task.model.frozen_level=0')
  if name == PAIRWISE:
    overrides.append('task.model.occlusion_head.enabled=true')
  return experiments.load_experiment('oanet_r50fpn_coco', (), ','.join(overrides))


def training(
  config: ExperimentConfig, categories: PanopticCategories, size: list[int], batch: int
) -> Callable:
  boxes, classes = objects(size, categories.num_things)
  index = np.ones(size, np.int32)
  for number, (y1, x1, y2, x2) in enumerate(boxes.astype(int), start=2):
    index[y1:y2, x1:x2] = number
  record = {
    'source_id': tf.constant('1'),
    'height': tf.constant(size[0]),
    'width': tf.constant(size[1]),
    'image': tf.constant(picture(size)),
    'segment_index': tf.constant(index),
    'segment_ids': tf.range(1, NUM_OBJECTS + 2),
    'segment_category_ids': tf.constant([categories.num_things + 1, *classes], tf.int32),
    'segment_is_crowd': tf.zeros([NUM_OBJECTS + 1], tf.bool),
    'object_boxes': tf.constant(boxes),
    'object_category_ids': tf.constant(classes, tf.int32),
    'object_is_crowd': tf.zeros([NUM_OBJECTS], tf.bool),
    'object_masks': tf.stack(
      [
        tf.io.encode_png(tf.ones([int(y2 - y1), int(x2 - x1), 1], tf.uint8))
        for y1, x1, y2, x2 in boxes
      ]
    ),
    'seed': tf.constant([0, 0], tf.int64),
  }
  steps = preprocess.training_steps(
    config.task.train_data, config.task.model, categories, portrait=False
  )
  example = preprocess.apply(steps, record)
  examples = {key: tf.stack([value] * batch) for key, value in example.items()}

  def prepare() -> tuple:
    strategy = tf.distribute.get_strategy()
    model = build_oanet(config.task.model, categories, config.task.losses.l2_weight_decay)
    optimizer = build_optimizer(config, build_learning_rate(config))
    step = TrainStep(config.task, strategy, model, optimizer)
    return tf.function(lambda inputs: step([inputs]), autograph=False), (examples,)

  return prepare


def inference(
  config: ExperimentConfig,
  categories: PanopticCategories,
  size: list[int],
  batch: int,
  original: list[int],
  fusion: str | None,
) -> Callable:
  task = config.task
  images = tf.constant(picture(size)[None].repeat(batch, axis=0))
  scale = min(side / its for side, its in zip(size, original, strict=True))
  scaled = [round(scale * its) for its in original]
  info = tf.constant([[original, scaled, [scale, scale], [0, 0]]] * batch, tf.float32)

  def prepare() -> tuple:
    model = build_oanet(task.model, categories)
    fuser = build_fuser(task, model)

    def segment(images: tf.Tensor, info: tf.Tensor) -> dict:
      outputs = model(images, info)
      if not fusion:
        return {k: v for k, v in outputs.items() if k.startswith(('detection_', 'stuff_'))}
      return fuse(fuser.batch(outputs, info, original), fusion)._asdict()

    return tf.function(segment, autograph=False), (images, info)

  return prepare
