#!/usr/bin/env python3
"""The processes of `check_gpu.py`: each does one thing with TensorFlow and answers with JSON."""

# H, W height and width of an image, S segments.

import argparse
import collections
import contextlib
import functools
import io
import json
import os
import pathlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from oanet_tf import errors

if TYPE_CHECKING:
  import tensorflow as tf

  from oanet_tf.data.coco_panoptic import PanopticRecord
  from oanet_tf.data.objects import Objects

NUM_THINGS, NUM_STUFF = 80, 53
# [height, width] of typical images of COCO.
SIZES = ((480, 640), (640, 480), (427, 640), (640, 427), (375, 500), (500, 375))
NUM_IMAGES = 36
_NUM_SHARDS = 2
# The input and output of graphs, constants and the flow between them, which do no work.
_NO_WORK = {
  '_Arg', '_HostRecv', '_HostSend', '_Recv', '_Retval', '_Send', 'Assert', 'Const', 'Enter', 'Exit',
  'Identity', 'IdentityN', 'If', 'LoopCond', 'Merge', 'NextIteration', 'NoOp', 'PartitionedCall',
  'Rank', 'ReadVariableOp', 'Shape', 'ShapeN', 'Size', 'StatefulPartitionedCall', 'StatelessIf',
  'StatelessWhile', 'Switch', 'VarHandleOp', 'While',
}  # fmt: skip

Answer = Callable[..., None]


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  commands = parser.add_subparsers(dest='command', required=True)
  commands.add_parser('prepare').add_argument('folder', nargs='?', type=pathlib.Path)
  trainer = commands.add_parser('train')
  trainer.add_argument('params', type=pathlib.Path)
  trainer.add_argument('steps', type=int)
  parsed = parser.parse_args()
  # Keeps what libraries print out of the answers.
  answers = os.fdopen(os.dup(1), 'w')
  os.dup2(2, 1)

  def answer(**values: object) -> None:
    answers.write(json.dumps(values) + '\n')
    answers.flush()

  if parsed.command == 'prepare':
    answer(**devices())
    if parsed.folder:
      write_shards(parsed.folder)
  else:
    with named_failure(answer):
      train(parsed.params, parsed.steps, answer)


@contextlib.contextmanager
def named_failure(answer: Answer) -> Iterator[None]:
  """Answers with `failure`, one line, before an exception ends the process."""
  try:
    yield
  except errors.InputError:
    raise
  except Exception as error:
    # TensorFlow's messages begin with where they come from.
    lines = [line for line in str(error).splitlines() if 'OOM' in line]
    answer(failure=f'{type(error).__name__}: {lines[0] if lines else errors.first_line(error)}')
    raise


def devices() -> dict:
  """The `version` of TensorFlow, whether it is `built_with_cuda`, and the names of the `gpus`."""
  import oanet_tf  # noqa: F401  Sets TensorFlow's environment.

  # isort: split
  import tensorflow as tf

  names = [
    tf.config.experimental.get_device_details(gpu).get('device_name', gpu.name)
    for gpu in tf.config.list_physical_devices('GPU')
  ]
  cuda = tf.test.is_built_with_cuda()
  return {'version': tf.__version__, 'built_with_cuda': cuda, 'gpus': names}


def write_shards(folder: pathlib.Path) -> None:
  """Writes made-up images of COCO's sizes and numbers of categories, with `categories.json`."""
  from oanet_tf.data import tf_example
  from oanet_tf.data.categories import CATEGORIES_FILE, Category, PanopticCategories

  # isort: split
  import tensorflow as tf

  categories = PanopticCategories(
    [
      Category(n, f'category {n}', n <= NUM_THINGS, (n, 255 - n, n))
      for n in range(1, NUM_THINGS + NUM_STUFF + 1)
    ]
  )
  categories.to_json(folder / CATEGORIES_FILE)
  rng = np.random.default_rng(0)
  for shard in range(_NUM_SHARDS):
    path = folder / f'train-{shard:05}-of-{_NUM_SHARDS:05}.tfrecord'
    with tf.io.TFRecordWriter(str(path)) as writer:
      for number in range(shard, NUM_IMAGES, _NUM_SHARDS):
        writer.write(tf_example.encode(made_up_record(rng, number)))


def made_up_record(rng: np.random.Generator, number: int) -> 'PanopticRecord':
  """An image of coloured blocks: two categories of stuff, and up to eight ellipses on them.

  The ellipses are objects that overlap. In every third image the last one is a crowd; every ninth
  has none.
  """
  from PIL import Image

  from oanet_tf.data.coco_panoptic import PanopticRecord
  from oanet_tf.data.panoptic_map import Segments

  height, width = SIZES[number % len(SIZES)]
  blocks = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8))
  encoded = io.BytesIO()
  blocks.resize((width, height), Image.Resampling.BICUBIC).save(encoded, 'JPEG')
  num_things = 0 if number % 9 == 8 else int(rng.integers(1, 9))
  masks = [ellipse(rng, height, width) for _ in range(num_things)]
  layers = np.ones([height, width], np.uint16)
  layers[height // 2 :] = 2
  for k, mask in enumerate(masks):
    layers[mask] = 3 + k
  category_ids = rng.integers(1, NUM_THINGS + 1, 2 + num_things)
  category_ids[:2] += NUM_THINGS
  category_ids[:2] = np.minimum(category_ids[:2], NUM_THINGS + NUM_STUFF)
  is_crowd = np.arange(2 + num_things) == (1 + num_things if number % 3 == 0 else -1)
  is_crowd[:2] = False
  # What is hidden is an object, but no segment.
  shown, index = np.unique(layers, return_inverse=True)
  segments = Segments(
    (1 + index.reshape(layers.shape)).astype(np.uint16),
    np.arange(1, len(shown) + 1, dtype=np.int32),
    category_ids[shown - 1].astype(np.int32),
    is_crowd[shown - 1],
  )
  return PanopticRecord(
    number + 1,
    f'{number + 1}.jpg',
    height,
    width,
    'jpeg',
    encoded.getvalue(),
    segments,
    shown > 2,
    objects_of(masks, category_ids[2:], is_crowd[2:]),
  )


def objects_of(
  masks: Sequence[np.ndarray], category_ids: np.ndarray, is_crowd: np.ndarray
) -> 'Objects':
  """[H, W] bool masks, each with a pixel -> objects."""
  from oanet_tf.data.objects import Objects

  boxes, crops = [], []
  for mask in masks:
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    box = rows[0], columns[0], rows[-1] + 1, columns[-1] + 1
    boxes.append(box)
    crops.append(mask[box[0] : box[2], box[1] : box[3]])
  boxes = np.array(boxes, np.float32).reshape(-1, 4)
  return Objects(boxes, category_ids.astype(np.int32), is_crowd, crops)


def ellipse(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
  """[H, W] bool: an ellipse around a pixel; its axes are 4 % to 40 % of the shorter side."""
  y, x = rng.integers([height, width])
  a, b = np.exp(rng.uniform(-3.2, -0.9, 2)) * min(height, width) / 2
  rows, columns = np.ogrid[:height, :width]
  return ((rows - y) / a) ** 2 + ((columns - x) / b) ** 2 <= 1


def train(params: pathlib.Path, steps: int, answer: Answer) -> None:
  """Takes the first steps of a training, and answers after each, and at the end with the rest.

  Args:
    params: a `params.yaml` with the resolved configuration.
    steps: how many.
    answer: called with `step`, `losses`, `input_seconds`, `seconds`; then with `images` of a step,
      `replicas`, `peak_bytes` of the fullest GPU (of the process without one), `gpus`, `on_host`
      and `in_host_memory` of `host_operations`.
  """
  import tf_keras

  from oanet_tf import cluster as cluster_lib
  from oanet_tf.config import check as config_check
  from oanet_tf.config import experiments
  from oanet_tf.training import loop, state

  config = experiments.load_experiment(config_check.BASE_EXPERIMENT, [str(params)])
  tf_keras.utils.set_random_seed(config.task.seed + 1)
  cluster_lib.configure(config.runtime)
  cluster = cluster_lib.make_cluster(config.runtime)
  loop.check_batch_sizes(config, 'train', cluster)
  categories = state.find_categories(config.task, params.parent)
  training = state.create_state(config, categories, params.parent / 'no_model', cluster)
  dataset = loop.training_dataset(training)
  batches, step = iter(dataset), loop.make_train_step(training, dataset)
  num_micro_batches = config.trainer.gradient_accumulation_steps
  answer(built=True)
  graphs = []
  for number in range(1, steps + 1):
    begin = time.perf_counter()
    micro_batches = [next(batches) for _ in range(num_micro_batches)]
    ready = time.perf_counter()
    with recorded_graphs() if number == 1 else contextlib.nullcontext([]) as recorded:
      losses = {name: float(value) for name, value in step(micro_batches).items()}
    end = time.perf_counter()
    graphs += recorded
    answer(step=number, losses=losses, input_seconds=ready - begin, seconds=end - begin)
  answer(
    images=config.task.train_data.global_batch_size,
    replicas=cluster.strategy.num_replicas_in_sync,
    **memory(),
    **host_operations(graphs),
  )


def memory() -> dict:
  """The number of `gpus`, and `peak_bytes`: of the fullest of them, or of the process."""
  import resource

  import tensorflow as tf

  gpus = tf.config.list_logical_devices('GPU')
  peaks = [
    tf.config.experimental.get_memory_info(gpu.name.removeprefix('/device:'))['peak']
    for gpu in gpus
  ]
  of_process = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return {'gpus': len(gpus), 'peak_bytes': max(peaks, default=of_process)}


@contextlib.contextmanager
def recorded_graphs() -> Iterator[list]:
  """Yields a list that has, at the end, the functions that were first run within, as they ran.

  Each is a `RunMetadata.FunctionGraphs`. Its partition graphs are what is left after placement and
  optimization, one for each device.
  """
  # `tf.summary.trace_on` records the same, but only writes it into a file.
  from tensorflow.python.eager import context as eager_context

  context, graphs = eager_context.context(), []
  context.enable_run_metadata()
  try:
    yield graphs
    graphs += context.export_run_metadata().function_graphs
  finally:
    context.disable_run_metadata()


def host_operations(graphs: Iterable) -> dict[str, dict[str, int]]:
  """Which types of operations of a training step run on the host, and how many of each.

  Args:
    graphs: of `recorded_graphs`.

  Returns:
    on_host: what was placed on the host. If nothing is on a GPU, what TensorFlow would have to
      place on the host, as it has no GPU kernel for it.
    in_host_memory: what was placed on a GPU but computes on the host, as it does with int32.
  """
  graphs = list(graphs)
  placed = [node for one in graphs for graph in one.partition_graphs for node in graph.node]
  on_gpu = [node for node in placed if 'device:GPU' in node.device]
  if on_gpu:
    on_host = [node for node in placed if 'device:GPU' not in node.device]
  else:
    # Later, the optimizer puts in fused operations that are made for CPUs.
    unplaced = [node for one in graphs for node in nodes_of(one.pre_optimization_graph)]
    on_host = [node for node in unplaced if gpu_kernel(node) is None]
  in_host_memory = filter(computes_in_host_memory, on_gpu)
  return {'on_host': count_types(on_host), 'in_host_memory': count_types(in_host_memory)}


def nodes_of(graph: 'tf.compat.v1.GraphDef') -> Iterator['tf.compat.v1.NodeDef']:
  """The nodes of a graph and of the functions that it calls."""
  yield from graph.node
  for function in graph.library.function:
    yield from function.node_def


def count_types(nodes: Iterable['tf.compat.v1.NodeDef']) -> dict[str, int]:
  """{operation, with the type of its first result: number}, the most frequent first."""
  counted = collections.Counter(map(named, (node for node in nodes if node.op not in _NO_WORK)))
  return dict(counted.most_common())


def named(node: 'tf.compat.v1.NodeDef') -> str:
  """'AddV2 int32' or, where an operation has no choice of types, only its name."""
  import tensorflow as tf
  from tensorflow.python.framework import op_def_registry

  definition = op_def_registry.get(node.op)
  attribute = definition.output_arg[0].type_attr if definition and definition.output_arg else ''
  return f'{node.op} {tf.DType(node.attr[attribute].type).name}' if attribute else node.op


# A `KernelDef`, which TensorFlow does not export.
Kernel = Any


@functools.cache
def gpu_kernels(operation: str) -> tuple[Kernel, ...]:
  """The kernels that TensorFlow has for an operation on GPUs, whether there is one or not."""
  from tensorflow.python.framework import kernels

  found = kernels.get_registered_kernels_for_op(operation).kernel
  return tuple(kernel for kernel in found if kernel.device_type in ('GPU', 'DEFAULT'))


def gpu_kernel(node: 'tf.compat.v1.NodeDef') -> Kernel | None:
  """The kernel for an operation and its types; None if it can only run on the host."""

  def takes(kernel: Kernel) -> bool:
    for constraint in kernel.constraint:
      attribute, allowed = node.attr[constraint.name], constraint.allowed_values.list.type
      types = attribute.list.type or [attribute.type]
      # Some constraints are on strings.
      if allowed and not set(types) <= set(allowed):
        return False
    return True

  return next(filter(takes, gpu_kernels(node.op)), None)


def computes_in_host_memory(node: 'tf.compat.v1.NodeDef') -> bool:
  """Whether all results of an operation that is placed on a GPU are in the host's memory."""
  from tensorflow.python.framework import op_def_registry

  kernel, definition = gpu_kernel(node), op_def_registry.get(node.op)
  if kernel is None or definition is None:
    return False
  results = {result.name for result in definition.output_arg}
  return bool(results) and results <= set(kernel.host_memory_arg)


if __name__ == '__main__':
  errors.run(main)
