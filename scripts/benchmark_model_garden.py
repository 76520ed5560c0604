"""What the Model Garden's wheel gives, for benchmark_model.py."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf
from benchmark_model_contenders import (
  COUNTS,
  NUM_OBJECTS,
  NUM_STUFF,
  NUM_THINGS,
  objects,
  picture,
)
from benchmark_model_tensorflow import Graph
from official.core import base_task, task_factory
from official.core.config_definitions import ExperimentConfig
from official.modeling import optimization
from official.vision.configs import maskrcnn
from official.vision.dataloaders import maskrcnn_input
from official.vision.losses import segmentation_losses
from official.vision.modeling.heads import segmentation_heads
from official.vision.ops import preprocess_ops


def contender(name: str, mode: str, size: list[int], batch: int) -> Graph:
  """Mask R-CNN or panoptic FPN: a training step, or an image to boxes, masks and logits."""
  maker = training if mode == 'train' else inference
  return Graph(maker(name, size, batch), batch)


def config_of(name: str, size: list[int]) -> ExperimentConfig:
  config = maskrcnn.maskrcnn_resnetfpn_coco()
  model = {'input_size': [*size, 3], 'num_classes': NUM_THINGS + 1}
  if name != 'mask_rcnn':
    model['roi_generator'] = {
      'num_proposals': COUNTS['proposals'],
      'test_num_proposals': COUNTS['proposals'],
      'use_batched_nms': True,
    }
    model['roi_sampler'] = {'num_sampled_rois': COUNTS['rois']}
    model['mask_sampler'] = {'num_sampled_masks': COUNTS['masks']}
    model['detection_generator'] = {
      'max_num_detections': COUNTS['detections'],
      'nms_version': 'batched',
      'pre_nms_score_threshold': 0.0,
    }
  config.task.override({'model': model})
  return config


def model_of(name: str, task: base_task.Task) -> tuple:
  """The Mask R-CNN that the task builds, and a segmentation head, or None."""
  model = task.build_model()
  if not name.startswith('panoptic_fpn'):
    return model, None
  lean = {'num_convs': 0, 'num_filters': 128} if name == 'panoptic_fpn_lean' else {}
  head = segmentation_heads.SegmentationHead(
    num_classes=NUM_THINGS + NUM_STUFF + 1,
    level=2,
    **lean,
    feature_fusion='panoptic_fpn_fusion',
    decoder_min_level=2,
    decoder_max_level=5,
    num_decoder_filters=256,
  )
  return model, head


def training(name: str, size: list[int], batch: int) -> Callable:
  config = config_of(name, size)
  anchors = config.task.model.anchor
  parser = maskrcnn_input.Parser(
    output_size=size,
    min_level=config.task.model.min_level,
    max_level=config.task.model.max_level,
    num_scales=anchors.num_scales,
    aspect_ratios=anchors.aspect_ratios,
    anchor_size=anchors.anchor_size,
    include_mask=True,
    dtype='float32',
  )
  boxes, classes = objects(size)
  masks = np.zeros((NUM_OBJECTS, *size), np.float32)
  semantic = np.full(size, NUM_THINGS + 1, np.float32)
  for number, (y1, x1, y2, x2) in enumerate(boxes.astype(int)):
    masks[number, y1:y2, x1:x2] = 1.0
    semantic[y1:y2, x1:x2] = classes[number]
  image, labels = parser.parse_fn(is_training=True)(
    {
      'source_id': tf.constant('1'),
      'image': tf.constant(picture(size)),
      'height': tf.constant(size[0]),
      'width': tf.constant(size[1]),
      'groundtruth_classes': tf.constant(classes, tf.int64),
      'groundtruth_is_crowd': tf.zeros([NUM_OBJECTS], tf.bool),
      'groundtruth_area': tf.reduce_sum(masks, axis=[1, 2]),
      'groundtruth_boxes': tf.constant(boxes / np.tile(size, 2), tf.float32),
      'groundtruth_instance_masks': tf.constant(masks),
    }
  )
  labels['semantic'] = tf.constant(semantic)[..., None]
  config = config_of(name, image.shape[:2])
  images, labels = tf.nest.map_structure(lambda value: tf.stack([value] * batch), (image, labels))

  def prepare() -> tuple:
    task = task_factory.get_task(config.task)
    model, head = model_of(name, task)
    factory = optimization.OptimizerFactory(config.trainer.optimizer_config)
    optimizer = factory.build_optimizer(factory.build_learning_rate())
    semantic_loss = segmentation_losses.SegmentationLoss(
      label_smoothing=0.0, class_weights=[], ignore_label=255, use_groundtruth_dimension=True
    )

    # As `MaskRCNNTask.train_step`, plus the semantic loss.
    def train_step(images: tf.Tensor, labels: dict) -> tf.Tensor:
      with tf.GradientTape() as tape:
        outputs = model(
          images,
          image_shape=labels['image_info'][:, 1, :],
          anchor_boxes=labels['anchor_boxes'],
          gt_boxes=labels['gt_boxes'],
          gt_classes=labels['gt_classes'],
          gt_masks=labels['gt_masks'],
          training=True,
        )
        loss = task.build_losses(outputs, labels, model.losses)['total_loss']
        if head is not None:
          logits = head((outputs['backbone_features'], outputs['decoder_features']))
          loss += 0.5 * semantic_loss(logits, labels['semantic'])
      variables = model.trainable_variables + (head.trainable_variables if head else [])
      gradients = tape.gradient(loss, variables)
      optimizer.apply_gradients(list(zip(gradients, variables, strict=True)))
      return loss

    # With AutoGraph, as in its trainer.
    return tf.function(train_step), (images, labels)

  return prepare


def inference(name: str, size: list[int], batch: int) -> Callable:
  config = config_of(name, size)
  images = preprocess_ops.normalize_image(tf.constant(picture(size)))
  images = tf.stack([images] * batch)
  shapes = tf.constant([size] * batch, tf.float32)

  def prepare() -> tuple:
    model, head = model_of(name, task_factory.get_task(config.task))

    def detect(images: tf.Tensor, shapes: tf.Tensor) -> dict:
      outputs = model(images, image_shape=shapes, training=False)
      found = {key: value for key, value in outputs.items() if key.startswith('detection_')}
      if head is not None:
        found['semantic'] = head((outputs['backbone_features'], outputs['decoder_features']))
      return found

    return tf.function(detect), (images, shapes)

  return prepare
