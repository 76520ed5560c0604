"""What contenders of benchmark_model.py in TensorFlow have in common, and the convolution."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf
from benchmark_model_contenders import COUNTS


class Graph:
  """A contender whose function is traced.

  Args:
    prepare: builds the network; returns a `tf.function` and its arguments.
    batch: images.
    detections: of an image. Here every slot is filled; our graph leaves their number open.
  """

  STAGES = ('build', 'trace')

  def __init__(self, prepare: Callable, batch: int, detections: int = COUNTS['detections']):
    self._prepare = prepare
    self._unknown = batch * detections

  def build(self) -> None:
    self._function, self._inputs = self._prepare()

  def trace(self) -> None:
    self._graph = self._function.get_concrete_function(*self._inputs).graph

  def run(self) -> None:
    tf.nest.map_structure(lambda tensor: tensor.numpy(), self._function(*self._inputs))

  def gflop(self) -> float:
    return gflop_of(self._graph, self._unknown)


def contender(name: str, mode: str, size: list[int], batch: int) -> Graph:
  """A 3 × 3 convolution."""

  def prepare() -> tuple:
    features = tf.random.normal([batch, size[0] // 4, size[1] // 4, 256])
    kernel = tf.random.normal([3, 3, 256, 256])
    return tf.function(lambda x, k: tf.nn.conv2d(x, k, 1, 'SAME'), autograph=False), (
      features,
      kernel,
    )

  return Graph(prepare, batch)


def gflop_of(graph: tf.Graph, unknown: int) -> float:
  """GFLOP of convolutions and matrix products, also in called functions, but not in loops.

  Only of those that a result or an effect needs. Gradients of frozen layers are traced too, but
  never computed.

  Args:
    graph: of a traced function.
    unknown: length of dimensions that are only known when it runs.
  """
  total = 0.0
  for operation in _needed(graph):
    total += _flop(operation, unknown)
    if operation.type in ('StatefulPartitionedCall', 'PartitionedCall'):
      total += 1e9 * gflop_of(graph._get_function(operation.get_attr('f').name).graph, unknown)
  return total / 1e9


def _needed(graph: tf.Graph) -> set[tf.Operation]:
  found, waiting = set(), [*(tensor.op for tensor in graph.outputs), *graph.control_outputs]
  while waiting:
    operation = waiting.pop()
    if operation not in found:
      found.add(operation)
      waiting += [tensor.op for tensor in operation.inputs] + operation.control_inputs
  return found


def _flop(operation: tf.Operation, unknown: int) -> float:
  """Two per multiplication of a convolution or a matrix product; 0 for anything else."""
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
