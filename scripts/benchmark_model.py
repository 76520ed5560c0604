#!/usr/bin/env python3
"""Measures the network against what the Model Garden's wheel gives, ResNet-50 and FPN.

  ours              oanet_tf: a training step with all losses, or a picture to its panoptic map
  ours_unfused      the same without ranking and fusion, as far as panoptic_fpn; inference alone
  mask_rcnn         official.vision's Mask R-CNN with its defaults: to boxes and masks
  mask_rcnn_equal   the same with our numbers of proposals, ROIs, masks and detections, batched NMS
  panoptic_fpn      mask_rcnn_equal with its SegmentationHead (panoptic_fpn_fusion, the head's own
                    defaults) on the shared decoder, as far as semantic logits
  panoptic_fpn_lean the same with 128 filters and no further convolutions in that head

Each is a process of its own; they take turns, and so does a 3×3 convolution whose rate is what the
machine can do. The picture and its rectangles are made up. The Model Garden's training input pads
both sides to multiples of 64, to 832 × 1344 for example. `build` is the network, `trace` the graph,
`first` the first result after it; `total` is all three, without imports.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time
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
# Those of a small machine; the defaults of both are 1,000 proposals, 512 ROIs and 100 detections.
COUNTS = {'proposals': 256, 'rois': 64, 'masks': 16, 'detections': 20}
NUM_THINGS, NUM_STUFF, NUM_OBJECTS = 80, 53, 12
INFERENCE_ALONE = 'ours_unfused'


def main(arguments: list[str] | None = None) -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument(
    '--sizes', nargs='+', default=['512x512', '800x1344'], help='(default: %(default)s)'
  )
  parser.add_argument(
    '--original',
    type=sides_of,
    help='of the picture that is scaled to the size, and of our map (default: the size)',
  )
  parser.add_argument('--batch', type=int, default=1, help='images (default: %(default)s)')
  parser.add_argument('--rounds', type=int, default=5, help='(default: %(default)s)')
  parser.add_argument(
    '--contenders', nargs='+', choices=CONTENDERS, default=CONTENDERS, help='(default: all)'
  )
  parser.add_argument(
    '--modes', nargs='+', choices=('train', 'infer'), default=('train', 'infer'), help='(both)'
  )
  parser.add_argument('--output', type=pathlib.Path, help='JSON file for the measurements')
  parser.add_argument('--worker', help=argparse.SUPPRESS)
  parsed = parser.parse_args(arguments)
  if parsed.worker:
    work(**json.loads(parsed.worker))
    return
  rows = []
  for size in parsed.sizes:
    for mode in parsed.modes:
      contenders = {
        name: {'name': name, 'mode': mode, 'size': sides_of(size), 'batch': parsed.batch}
        for name in (CONVOLUTION, *parsed.contenders)
        if mode == 'infer' or name != INFERENCE_ALONE
      }
      if parsed.original and mode == 'infer':
        for name in contenders.keys() & {'ours', INFERENCE_ALONE}:
          contenders[name]['original'] = parsed.original
      measured = compare(contenders, parsed.rounds)
      add_rates(measured)
      print_table(mode, size, parsed.batch, measured)
      rows.append({'mode': mode, 'size': size, 'batch': parsed.batch, 'measured': measured})
  if parsed.output:
    parsed.output.write_text(json.dumps(rows, indent=1) + '\n')


def sides_of(size: str) -> list[int]:
  return [int(side) for side in size.split('x')]


def compare(contenders: dict[str, dict], rounds: int) -> dict[str, dict[str, float]]:
  """Starts a process for each contender, then lets them take turns.

  Args:
    contenders: name -> arguments of `work`.
    rounds: of turns.

  Returns:
    Measurements by name: seconds, peak MB and GFLOP.
  """
  workers = {}
  for name, options in contenders.items():
    workers[name] = subprocess.Popen(
      [sys.executable, __file__, '--worker', json.dumps(options)],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=subprocess.DEVNULL,
      text=True,
    )
    # One starts after the other: its first seconds are measured too.
    workers[name].start = _answer(workers[name])
  runs = {name: [] for name in workers}
  for _ in range(rounds):
    for name, worker in workers.items():
      worker.stdin.write('run\n')
      worker.stdin.flush()
      runs[name].append(_answer(worker)['seconds'])
  measured = {}
  for name, worker in workers.items():
    worker.stdin.close()
    end = _answer(worker)
    worker.wait()
    step = {'step': statistics.median(runs[name]), 'least': min(runs[name])}
    measured[name] = {**worker.start, **step, **end}
  return measured


def add_rates(measured: dict[str, dict[str, float]]) -> None:
  """Adds each one's GFLOP a second, and the share of that of the convolution."""
  rate = measured[CONVOLUTION]['gflop'] / measured[CONVOLUTION]['step']
  for row in measured.values():
    row['gflop_per_second'] = row['gflop'] / row['step']
    row['share'] = row['gflop_per_second'] / rate


def _answer(worker: subprocess.Popen) -> dict:
  line = worker.stdout.readline()
  if not line:
    raise SystemExit(f'{worker.args[-1]}: stopped with code {worker.wait()}')
  return json.loads(line)


def print_table(mode: str, size: str, batch: int, measured: dict) -> None:
  print(f'{mode} {size}, batch {batch}, {os.cpu_count()} cores; seconds')
  print(
    f'{"":<16} {"build":>6} {"trace":>6} {"first":>6} {"total":>6} {"step":>7} {"least":>7} | '
    f'{"peak MB":>7} {"GFLOP":>6} {"GFLOP/s":>7} {"share":>5} | ours is of its total, step, memory'
  )
  ours = measured.get('ours')
  for name, row in measured.items():
    cells = ' '.join(f'{row[key]:6.1f}' for key in ('build', 'trace', 'first', 'total'))
    line = f'{name:<16} {cells} {row["step"]:7.2f} {row["least"]:7.2f} | {row["peak_mb"]:7.0f} '
    line += f'{row["gflop"]:6.0f} {row["gflop_per_second"]:7.0f} {row["share"]:5.0%} |'
    if ours and name not in ('ours', CONVOLUTION):
      line += ''.join(f' {ours[key] / row[key]:5.2f}' for key in ('total', 'step', 'peak_mb'))
    print(line)
  if ours and INFERENCE_ALONE in measured:
    share = 1 - measured[INFERENCE_ALONE]['step'] / ours['step']
    print(f'ranking and fusion are {share:.1%} of ours')


def work(name: str, mode: str, size: list[int], batch: int, **changes: object) -> None:
  """A contender's process: answers how it started, how long each run takes, and its memory.

  Args:
    name: of the contender.
    mode: 'train' or 'infer'.
    size: [height, width] of images.
    batch: images.
    changes: of ours, arguments of `our_setting`, and `original` of `our_inference`.
  """
  import resource

  # What libraries print must not get between the answers.
  answers = os.fdopen(os.dup(1), 'w')
  os.dup2(2, 1)

  def answer(**values: float) -> None:
    answers.write(json.dumps(values) + '\n')
    answers.flush()

  maker = {
    CONVOLUTION: convolution,
    'ours': our_training if mode == 'train' else our_inference,
    INFERENCE_ALONE: our_inference,
  }.get(name, model_garden_training if mode == 'train' else model_garden_inference)
  prepare = maker(name, size, batch, **changes)
  begin = time.perf_counter()
  function, inputs = prepare()
  built = time.perf_counter()
  concrete = function.get_concrete_function(*inputs)
  traced = time.perf_counter()
  run(function, inputs)
  end = time.perf_counter()
  answer(
    build=built - begin,
    trace=traced - built,
    first=end - traced,
    total=end - begin,
    # All slots of detections are filled here, which a graph of ours does not know.
    gflop=gflop_of(concrete.graph, batch * changes.get('detections', COUNTS['detections'])),
  )
  for _ in sys.stdin:
    begin = time.perf_counter()
    run(function, inputs)
    answer(seconds=time.perf_counter() - begin)
  answer(peak_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def run(function: Callable, inputs: tuple) -> None:
  import tensorflow as tf

  tf.nest.map_structure(lambda tensor: tensor.numpy(), function(*inputs))


def gflop_of(graph, unknown: int) -> float:  # noqa: ANN001
  """Of the convolutions and matrix products, also in called functions, but for loops.

  Args:
    graph: of a traced function.
    unknown: length of dimensions that are not known before it runs.
  """
  total = 0.0
  for operation in graph.get_operations():
    total += _flop(operation, unknown)
    if operation.type in ('StatefulPartitionedCall', 'PartitionedCall'):
      total += 1e9 * gflop_of(graph._get_function(operation.get_attr('f').name).graph, unknown)
  return total / 1e9


def _flop(operation, unknown: int) -> float:  # noqa: ANN001
  """Two for each multiplication of a convolution or a matrix product; 0 for anything else."""
  import numpy as np

  kind = operation.type
  if kind not in ('Conv2D', 'Conv2DBackpropInput', 'Conv2DBackpropFilter', 'MatMul'):
    return 0.0
  *inputs, output = (
    [length or unknown for length in tensor.shape]
    for tensor in (*operation.inputs, operation.outputs[0])
  )
  if kind == 'MatMul':
    inner = inputs[0][0 if operation.get_attr('transpose_a') else 1]
    return 2.0 * np.prod(output) * inner
  kernel, result = {
    'Conv2D': (inputs[1], output),
    'Conv2DBackpropInput': (inputs[1], inputs[-1]),
    'Conv2DBackpropFilter': (output, inputs[-1]),
  }[kind]
  return 2.0 * np.prod(result[:3]) * np.prod(kernel)


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
    # Without training all scores are low; so there are detections all the same.
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
  """[N, 4] whole-numbered boxes of rectangles, and their [N] categories, from 1 to `things`."""
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

    # As `MaskRCNNTask.train_step`, with the semantic loss besides.
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

    # With AutoGraph, as its trainer has it.
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


if __name__ == '__main__':
  main()
