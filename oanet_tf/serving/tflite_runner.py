"""Runs a TFLite file, for which LiteRT is enough."""

import pathlib

from ai_edge_litert.interpreter import Interpreter, SignatureRunner

SIGNATURE = 'serving_default'


def runner(path: pathlib.Path, num_threads: int = 2) -> SignatureRunner:
  """A file as a function of `image`, [1, H, W, 3] uint8, with the results of `PanopticModule`.

  One thread at a time may call it. A damaged file can end the process; `tflite_archive` tells one.
  """
  interpreter = Interpreter(str(path), num_threads=num_threads)
  return interpreter.get_signature_runner(SIGNATURE)
