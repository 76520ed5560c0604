"""A network small enough for tests, and batches for it."""

import copy
import functools

import numpy as np
import tensorflow as tf

from oanet_tf.config import experiments
from oanet_tf.data import preprocess

SIZE = 64
SMALL_PARTS = (
  'task.model.decoder.fpn.num_filters=16,'
  'task.model.rpn_head.num_filters=16,task.model.detection_head.fc_dims=32,'
  'task.model.mask_head.num_filters=16,task.model.mask_head.num_convs=1,'
  'task.model.stuff_head.num_filters=16,task.model.roi_generator.num_proposals=20,'
  'task.model.roi_generator.test_num_proposals=20,task.model.roi_sampler.num_sampled_rois=8,'
  'task.model.mask_sampler.num_sampled_masks=4,'
  'task.model.detection_generator.max_num_detections=6,'
  'task.train_data.output_size=[64,64],task.validation_data.output_size=[64,64],'
  'task.train_data.max_num_instances=5,task.train_data.global_batch_size=2,'
  'task.validation_data.global_batch_size=2,task.model.fusion.stuff_area_limit=20,'
  # Tests compare exactly, on any machine.
  'runtime.mixed_precision_dtype=float32'
)
OVERRIDES = f'task.model.backbone.resnet.depth_multiplier=0.25,{SMALL_PARTS}'
MOBILE_OVERRIDES = f'task.model.backbone.mobilenet.filter_size_scale=0.35,{SMALL_PARTS}'


def small_experiment(*overrides):
  """One that the caller may change; to read it takes 40 times as long as to copy it."""
  return copy.deepcopy(_read_experiment(','.join((OVERRIDES, *overrides))))


@functools.cache
def _read_experiment(overrides):
  return experiments.load_experiment('oanet_synthetic', (), overrides)


def small_mobile_experiment():
  return experiments.load_experiment('oanet_mobilenetv2', (), MOBILE_OVERRIDES)


def decoded_record(objects, label_ids, seed=0, crowd=False):
  """A record of random pixels, rectangles `(category id, y1, x1, y2, x2)` over a stuff map."""
  rng = np.random.default_rng(seed)
  index = np.ones((SIZE, SIZE), np.int32)
  for number, (_, y1, x1, y2, x2) in enumerate(objects, start=2):
    index[y1:y2, x1:x2] = number
  boxes = np.array([box for _, *box in objects], np.float32).reshape(-1, 4)
  masks = [
    tf.io.encode_png(np.ones((y2 - y1, x2 - x1, 1), np.uint8)).numpy()
    for _, y1, x1, y2, x2 in objects
  ]
  return {
    'source_id': tf.constant(str(seed)),
    'file_name': tf.constant(f'{seed}.jpg'),
    'height': tf.constant(SIZE),
    'width': tf.constant(SIZE),
    'image': tf.constant(rng.integers(0, 256, (SIZE, SIZE, 3)), tf.uint8),
    'segment_index': tf.constant(index * bool(label_ids)),
    'segment_ids': tf.range(1, len(objects) + 2),
    'segment_category_ids': tf.constant([label_ids or 92, *(o[0] for o in objects)], tf.int32),
    'segment_is_crowd': tf.zeros([len(objects) + 1], tf.bool),
    'object_boxes': tf.constant(boxes),
    'object_category_ids': tf.constant([o[0] for o in objects], tf.int32),
    'object_is_crowd': tf.fill([len(objects)], crowd),
    'object_masks': tf.constant(masks, tf.string),
    'seed': tf.constant([0, seed], tf.int64),
  }


# A tie (31) on a person (7); a person alone; nothing but stuff (92); nothing but void; a crowd.
TIE_ON_PERSON = decoded_record([(7, 4, 4, 60, 40), (31, 20, 16, 40, 24)], 92, seed=1)
PERSON = decoded_record([(7, 10, 30, 50, 60)], 200, seed=2)
STUFF = decoded_record([], 92, seed=3)
VOID = decoded_record([], 0, seed=4)
CROWD = decoded_record([(7, 0, 0, 64, 64)], 92, seed=5, crowd=True)


def training_batch(task, categories, *records):
  steps = preprocess.training_steps(task.train_data, task.model, categories, portrait=False)
  examples = [preprocess.apply(steps, record) for record in records]
  return tf.nest.map_structure(lambda *values: tf.stack(values), *examples)
