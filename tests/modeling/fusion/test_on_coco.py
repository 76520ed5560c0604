"""Truth-made detections of the real sample, merged by us and by panopticapi."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from oanet_tf.config.definitions import Fusion
from oanet_tf.data import coco_json, coco_panoptic
from oanet_tf.modeling.fusion import methods
from tests import references
from tests.scripts import benchmark_fusion as benchmark

# More objects than any image of the sample has; its images are at most so large.
MAX_OBJECTS, SIDE = 64, 640


def detections(record, categories, rng):
  """Its objects at 28 × 28 within their boxes, scored at random, and its stuff as logits."""
  objects = record.objects
  chosen = np.flatnonzero(~objects.is_crowd)[:MAX_OBJECTS]
  boxes = np.zeros((MAX_OBJECTS, 4), np.float32)
  masks = np.zeros((MAX_OBJECTS, benchmark.MASK_SIDE, benchmark.MASK_SIDE), np.float32)
  classes = np.zeros(MAX_OBJECTS, np.int32)
  scores = np.zeros(MAX_OBJECTS, np.float32)
  scores[: len(chosen)] = np.sort(rng.uniform(0.3, 1.0, len(chosen)))[::-1]
  for place, index in enumerate(chosen):
    boxes[place] = objects.boxes[index]
    mask = Image.fromarray(255 * objects.masks[index].astype(np.uint8))
    masks[place] = np.asarray(mask.resize(masks.shape[1:], Image.Resampling.BILINEAR)) / 255
    classes[place] = categories.label(int(objects.category_ids[index]))
  label_of = np.append(0, categories.label_of_id_table()[record.segments.category_ids])
  labels = np.zeros((SIDE, SIDE), int)
  labels[: record.height, : record.width] = label_of[record.segments.index]
  labels = labels[:: benchmark.STRIDE, :: benchmark.STRIDE]
  logits = np.eye(1 + benchmark.NUM_THINGS + benchmark.NUM_STUFF, dtype=np.float32)[labels]
  outputs = {
    'detection_boxes': boxes,
    'detection_masks': masks,
    'detection_classes': classes,
    'detection_scores': scores,
    'stuff_logits': logits[..., 1:],
  }
  return {name: tf.constant(value[None]) for name, value in outputs.items()}


@tf.function(autograph=False)
def fuse(outputs, size):
  info = tf.stack([size, size, [1, 1], [0, 0]])[None]
  batch = benchmark.build_fuser().batch(outputs, tf.cast(info, tf.float32), size)
  return batch.stuff, methods.fuse(batch, 'heuristic')


@pytest.mark.slow
def test_heuristic_equals_panopticapi_pixel_for_pixel(coco_sample):
  references.panopticapi('combine_semantic_and_instance_predictions')
  annotations = coco_sample / 'annotations'
  dataset = coco_json.load(
    annotations / 'panoptic_val2017.json',
    annotations / 'panoptic_val2017',
    coco_sample / 'val2017',
    annotations / 'instances_val2017.json',
  )
  rng, overlaps = np.random.default_rng(0), 0
  for entry in dataset.entries:
    record = coco_panoptic.read_record(entry, dataset.categories)
    outputs = detections(record, dataset.categories, rng)
    size = (record.height, record.width)
    stuff, masks = fuse(outputs, tf.constant(size))
    number = np.sum(outputs['detection_scores'] >= Fusion().score_threshold)
    kept = {name: value[:, :number] for name, value in outputs.items()}
    given = benchmark.reference_input(kept, lambda _, stuff=stuff: stuff.numpy(), size)
    assert benchmark.same_map(
      [mask.numpy() for mask in masks], benchmark.run_reference(*given, size)
    ), entry
    overlaps += len(given[0]) > 1
  assert len(dataset.entries) == 37 and overlaps > 15
