"""Runs a TFLite file, for which LiteRT is enough."""

import pathlib
from collections.abc import Callable

import numpy as np
from ai_edge_litert.interpreter import Interpreter

SIGNATURE = 'serving_default'
# Within the file; see `tflite_description`.
DESCRIPTION_FILE = 'model.json'


def runner(path: pathlib.Path, num_threads: int = 2) -> Callable[..., dict[str, np.ndarray]]:
  """A file as a function of `image`, [1, H, W, 3] uint8, with the results of `PanopticModule`."""
  interpreter = Interpreter(str(path), num_threads=num_threads)
  return interpreter.get_signature_runner(SIGNATURE)
