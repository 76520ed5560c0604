"""Exports the whole network to TFLite, for one image of a fixed size, with built-in operations."""

# H, W canvas.

import functools
import json
import pathlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from oanet_tf import files
from oanet_tf.errors import InputError
from oanet_tf.modeling.oanet import OANet
from oanet_tf.serving import tflite_int8, tflite_metadata
from oanet_tf.serving.builtin_nms import use_builtin_nms
from oanet_tf.serving.letterbox import letterbox
from oanet_tf.serving.panoptic_module import PanopticModule
from oanet_tf.serving.parity import Format, Parity, Results, Source, first_results, parity_of
from oanet_tf.serving.tflite_archive import (
  CHECKSUM,
  DESCRIPTION_FILE,
  MODEL_FILE,
  checksum,
  with_files,
)
from oanet_tf.serving.tflite_description import LABELS_FILE, describe, labels_text
from oanet_tf.serving.tflite_file import check_builtins, with_metadata
from oanet_tf.serving.tflite_runner import SIGNATURE, runner


class _Graph(NamedTuple):
  """The function from an image to its segments, the module with its weights, and the network."""

  function: tf.types.experimental.ConcreteFunction
  module: PanopticModule
  network: OANet


def _float32(graph: _Graph, source: Source) -> bytes:
  return _convert(graph)


def _float16(graph: _Graph, source: Source) -> bytes:
  """16-bit weights."""
  return _convert(graph, [tf.lite.Optimize.DEFAULT], [tf.float16])


def _dynamic(graph: _Graph, source: Source) -> bytes:
  """8-bit weights; the activations that they are multiplied with are quantized on the fly."""
  return _convert(graph, [tf.lite.Optimize.DEFAULT])


def _int8(graph: _Graph, source: Source) -> bytes:
  """8-bit backbone and heads; everything else is float."""
  return tflite_int8.quantize(_convert(graph), graph.network, source.calibration_images)


def _convert(
  graph: _Graph, optimizations: Sequence[tf.lite.Optimize] = (), types: Sequence[tf.DType] = ()
) -> bytes:
  return convert(graph.function, graph.module, optimizations, types)


def convert(
  function: tf.types.experimental.ConcreteFunction,
  module: tf.Module,
  optimizations: Sequence[tf.lite.Optimize] = (),
  types: Sequence[tf.DType] = (),
) -> bytes:
  """A function as a TFLite file, whose signature is `SIGNATURE`.

  Args:
    function: to convert.
    module: with its weights.
    optimizations, types: of the converter.

  Raises:
    InputError: if there is no room for the converter's own files.
  """
  converter = tf.lite.TFLiteConverter.from_concrete_functions([function], module)
  converter.optimizations = list(optimizations)
  converter.target_spec.supported_types = list(types)
  model = converter.convert()
  # Without room, the converter leaves the signature out and says nothing.
  if SIGNATURE.encode() not in model:
    folder = tempfile.gettempdir()
    raise InputError(
      f'{folder}: the TFLite converter cannot write there; make room, or set TMPDIR to a folder '
      'that has some'
    )
  return model


def write(
  name: str, convert: Callable[[_Graph, Source], bytes], source: Source, folder: pathlib.Path
) -> None:
  """Writes `model.tflite`, which contains labels and metadata, and `model.json` beside it.

  Args:
    name: of the format.
    convert: graph and source -> TFLite file.
    source: what is exported.
    folder: an empty folder.

  Raises:
    InputError: if the network has an operation that TFLite does not have, or too many categories.
  """
  model = convert(_graph(source), source)
  check_builtins(model)
  description = describe(model, name, source)
  model = with_metadata(model, tflite_metadata.serialize(description, DESCRIPTION_FILE))
  text = json.dumps({CHECKSUM: checksum(model), **description}, indent=1) + '\n'
  associated = {LABELS_FILE: labels_text(source.trained.categories), DESCRIPTION_FILE: text}
  model = with_files(model, {k: v.encode() for k, v in associated.items()})
  files.write_bytes(folder / MODEL_FILE, model)
  files.write_text(folder / DESCRIPTION_FILE, text)


def _graph(source: Source) -> _Graph:
  # The network is built again, since parts of it are replaced.
  trained = source.folder.load('float32')
  use_builtin_nms(trained.model, trained.config.task.model)
  module = PanopticModule(trained, source.method)
  spec = tf.TensorSpec([1, *source.image_size, 3], tf.uint8, name='image')
  function = tf.function(module.segment_fixed, [spec], autograph=False)
  return _Graph(function.get_concrete_function(), module, trained.model)


def compare(source: Source, folder: pathlib.Path) -> Parity:
  """Compares the file with the network in memory, on images of the file's input size."""
  expected_of = tf.function(source.module().segment_fixed, autograph=False)
  description = json.loads((folder / DESCRIPTION_FILE).read_text())
  found_of = runner(folder / MODEL_FILE, description)

  def pairs() -> Iterator[tuple[Results, Results]]:
    for image in source.images:
      image = letterbox(image, source.image_size)[np.newaxis]
      expected, found = first_results(expected_of(image)), first_results(found_of(image=image))
      same = same_numbers(found.instance_mask, expected.instance_mask)
      yield expected, found._replace(instance_mask=same)

  return parity_of(source.image_names, pairs())


def same_numbers(mask: np.ndarray, reference: np.ndarray) -> np.ndarray:
  """Renumbers instances like the same instances of a reference.

  Detections with almost the same score may come in a different order. Two instances are the same if
  each shares more pixels with the other than with any else.

  Args:
    mask, reference: [H, W] int, 0 where there is no instance.

  Returns:
    `mask` with the reference's numbers, and -1 for instances that it does not have.
  """
  size = 1 + max(mask.max(), reference.max())
  shared = np.bincount((mask * size + reference).ravel(), minlength=size**2)
  shared = shared.reshape(size, size)[1:, 1:]
  if not shared.size:
    return mask
  nearest = shared.argmax(axis=1)
  is_mutual = shared.argmax(axis=0)[nearest] == np.arange(size - 1)
  numbers = np.where(is_mutual & shared.any(axis=1), 1 + nearest, -1)
  return np.concatenate([[0], numbers])[mask]


def _format(name: str, convert: Callable[[_Graph, Source], bytes], **accepted: float) -> Format:
  return Format(functools.partial(write, name, convert), compare, **accepted)


FLOAT32 = _format('tflite_float32', _float32, least_same_pixels=0.99, largest_score_difference=0.01)
FLOAT16 = _format('tflite_float16', _float16, least_same_pixels=0.97, largest_score_difference=0.05)
# One detection more or less shifts the scores of all that follow.
DYNAMIC = _format('tflite_dynamic', _dynamic, least_same_pixels=0.95, largest_score_difference=0.3)
INT8 = _format('tflite_int8', _int8, least_same_pixels=0.9, largest_score_difference=0.5)
