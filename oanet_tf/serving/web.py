"""Exports a page that segments pictures in a browser."""

import json
import pathlib

import tensorflow as tf

from oanet_tf import files
from oanet_tf.errors import InputError
from oanet_tf.serving import page
from oanet_tf.serving.builtin_nms import use_builtin_nms
from oanet_tf.serving.formats import PAGE_FUSIONS
from oanet_tf.serving.parity import Format, Source
from oanet_tf.serving.tflite import MODEL_FILE, compare, convert
from oanet_tf.serving.tflite_archive import (
  CHECKSUM,
  DESCRIPTION_FILE,
  MERGE_CHECKSUM,
  MERGE_FILE,
  checksum,
  with_files,
)
from oanet_tf.serving.tflite_description import describe_two_steps
from oanet_tf.serving.tflite_file import check_builtins
from oanet_tf.serving.two_steps import TwoSteps


def write(source: Source, folder: pathlib.Path) -> None:
  """Writes the page, `model.tflite`, and what that contains: `merge.tflite` and `model.json`.

  The network has 16-bit weights, as `tflite_float16`: with 8 bits, LiteRT in browsers differs from
  LiteRT elsewhere. It is a file of its own, since a GPU runs a file as a whole or not at all, and
  cannot run the fusion.

  Args:
    source: what is exported, with one of `PAGE_FUSIONS`.
    folder: an empty folder.

  Raises:
    InputError: if the network has an operation that TFLite does not have.
  """
  network, merge = _convert(source)
  description = describe_two_steps(network, merge, 'web', source, _methods(source))
  checksums = {CHECKSUM: checksum(network), MERGE_CHECKSUM: checksum(merge)}
  text = json.dumps({**checksums, **description}, indent=1) + '\n'
  parts = {DESCRIPTION_FILE: text.encode(), MERGE_FILE: merge}
  files.write_bytes(folder / MODEL_FILE, with_files(network, parts))
  for name, content in parts.items():
    files.write_bytes(folder / name, content)
  page.write(folder, offline=source.offline)


def _methods(source: Source) -> list[str]:
  """The fusions that the network is good for."""
  try:
    source.folder.check_ranking_module(['srm'])
  except InputError:
    return ['heuristic']
  return list(PAGE_FUSIONS)


def _convert(source: Source) -> tuple[bytes, bytes]:
  """The network and the fusion, as TFLite files."""
  # The network is built again, since parts of it are replaced.
  trained = source.folder.load('float32')
  use_builtin_nms(trained.model, trained.config.task.model)
  steps = TwoSteps(trained, source.image_size)
  network = convert(steps.network, steps, [tf.lite.Optimize.DEFAULT], [tf.float16])
  merge = convert(steps.merge, steps)
  for model in (network, merge):
    check_builtins(model)
  return network, merge


FORMAT = Format(write, compare, least_same_pixels=0.97, largest_score_difference=0.05)
