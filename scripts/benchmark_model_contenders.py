"""The contenders of benchmark_model.py: our network, the Model Garden's, and a convolution.

A maker takes a contender's name, size and batch and prepares its inputs. It returns a function that
builds the network and returns a `tf.function` with its arguments.
"""

from collections.abc import Callable

CONTENDERS = (
  'ours',
  'ours_unfused',
  'mask_rcnn',
  'mask_rcnn_equal',
  'panoptic_fpn',
  'panoptic_fpn_lean',
)
CONVOLUTION = 'convolution'
# Small, for a small machine. The defaults of both are 1,000 proposals, 512 RoIs, 100 detections.
COUNTS = {'proposals': 256, 'rois': 64, 'masks': 16, 'detections': 20}
NUM_THINGS, NUM_STUFF, NUM_OBJECTS = 80, 53, 12
INFERENCE_ALONE = 'ours_unfused'


def maker_of(name: str, mode: str) -> Callable:
  """The function below that makes a contender.

  Args:
    name: one of `CONTENDERS`, or `CONVOLUTION`.
    mode: 'train' or 'infer'.
  """
  if name == CONVOLUTION:
    return convolution
  if name in ('ours', INFERENCE_ALONE):
    return our_training if mode == 'train' else our_inference
  return model_garden_training if mode == 'train' else model_garden_inference


def convolution(name: str, size: list[int], batch: int) -> Callable:
  import tensorflow as tf

  def prepare() -> tuple:
    features = tf.random.normal([batch, size[0] // 4, size[1] // 4, 256])
    kernel = tf.random.normal([3, 3, 256, 256])
    return tf.function(lambda x, k: tf.nn.conv2d(x, k, 1, 'SAME'), autograph=False), (
      features,
      kernel,
    )

  return prepare


def our_setting(
  size: list[int],
  detections: int = COUNTS['detections'],
  things: int = NUM_THINGS,
  stuff: int = NUM_STUFF,
) -> tuple:
  """Experiment and categories; `detections` of an image, `things` and `stuff` categories."""
  from oanet_tf.config import experiments
  from oanet_tf.data.categories import Category, PanopticCategories

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
  config = experiments.load_experiment('oanet_r50fpn_coco', (), ','.join(overrides))
  categories = [
    Category(1 + n, f'category {n}', n < things, (n, n, 255 - n)) for n in range(things + stuff)
  ]
  return config, PanopticCategories(categories)


def objects(size: list[int], things: int = NUM_THINGS):  # noqa: ANN201
  """[N, 4] boxes of random rectangles in whole pixels, and their [N] categories in 1…`things`."""
  import numpy as np

  rng = np.random.default_rng(0)
  sides = np.array(size) * np.exp(rng.uniform(np.log(0.05), np.log(0.6), (NUM_OBJECTS, 2)))
  starts = rng.uniform(size=(NUM_OBJECTS, 2)) * (size - sides)
  boxes = np.concatenate([starts, starts + sides], axis=1).round()
  return boxes.astype(np.float32), 1 + rng.choice(things, NUM_OBJECTS)


def picture(size: list[int]):  # noqa: ANN201
  import numpy as np

  return np.random.default_rng(1).integers(0, 256, (*size, 3)).astype(np.uint8)


def our_training(name: str, size: list[int], batch: int, **changes: int) -> Callable:
  import numpy as np
  import tensorflow as tf

  from oanet_tf.data import preprocess
  from oanet_tf.modeling.build import build_oanet
  from oanet_tf.training.optimizer import build_learning_rate, build_optimizer
  from oanet_tf.training.step import TrainStep

  config, categories = our_setting(size, **changes)
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


def our_inference(
  name: str, size: list[int], batch: int, original: list[int] | None = None, **changes: int
) -> Callable:
  import tensorflow as tf

  from oanet_tf.modeling.build import build_fuser, build_oanet
  from oanet_tf.modeling.fusion.methods import fuse

  config, categories = our_setting(size, **changes)
  task = config.task
  images = tf.constant(picture(size)[None].repeat(batch, axis=0))
  original = original or size
  scale = min(side / its for side, its in zip(size, original, strict=True))
  scaled = [round(scale * its) for its in original]
  info = tf.constant([[original, scaled, [scale, scale], [0, 0]]] * batch, tf.float32)

  def prepare() -> tuple:
    model = build_oanet(task.model, categories)
    fuser = build_fuser(task, model)

    def segment(images: tf.Tensor, info: tf.Tensor) -> dict:
      outputs = model(images, info)
      if name == INFERENCE_ALONE:
        return {k: v for k, v in outputs.items() if k.startswith(('detection_', 'stuff_'))}
      return fuse(fuser.batch(outputs, info, original), 'srm')._asdict()

    return tf.function(segment, autograph=False), (images, info)

  return prepare


def model_garden_config(name: str, size: list[int]):  # noqa: ANN201
  from official.vision.configs import maskrcnn

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


def model_garden_model(name: str, task) -> tuple:  # noqa: ANN001
  """The Mask R-CNN that the task builds, and a segmentation head, or None."""
  from official.vision.modeling.heads import segmentation_heads

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


def model_garden_training(name: str, size: list[int], batch: int) -> Callable:
  import numpy as np
  import tensorflow as tf
  from official.core import task_factory
  from official.modeling import optimization
  from official.vision.dataloaders import maskrcnn_input
  from official.vision.losses import segmentation_losses

  config = model_garden_config(name, size)
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
  config = model_garden_config(name, image.shape[:2])
  images, labels = tf.nest.map_structure(lambda value: tf.stack([value] * batch), (image, labels))

  def prepare() -> tuple:
    task = task_factory.get_task(config.task)
    model, head = model_garden_model(name, task)
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


def model_garden_inference(name: str, size: list[int], batch: int) -> Callable:
  import tensorflow as tf
  from official.core import task_factory
  from official.vision.ops import preprocess_ops

  config = model_garden_config(name, size)
  images = preprocess_ops.normalize_image(tf.constant(picture(size)))
  images = tf.stack([images] * batch)
  shapes = tf.constant([size] * batch, tf.float32)

  def prepare() -> tuple:
    model, head = model_garden_model(name, task_factory.get_task(config.task))

    def detect(images: tf.Tensor, shapes: tf.Tensor) -> dict:
      outputs = model(images, image_shape=shapes, training=False)
      found = {key: value for key, value in outputs.items() if key.startswith('detection_')}
      if head is not None:
        found['semantic'] = head((outputs['backbone_features'], outputs['decoder_features']))
      return found

    return tf.function(detect), (images, shapes)

  return prepare
