"""Runs a TFLite file, for which LiteRT is enough."""

import pathlib
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from oanet_tf.serving.tflite_archive import (
  MERGE_CHECKSUM,
  MERGE_FILE,
  checksum,
  read_file,
)

SIGNATURE = 'serving_default'
# Inputs of the second of two steps that are no outputs of the first; see `serving.two_steps`.
SCORE_THRESHOLD, BY_RANKING = 'score_threshold', 'by_ranking'


class Runner(Protocol):
  """A function of `image`, [1, H, W, 3] uint8, and what LiteRT says of its inputs and outputs."""

  def __call__(self, *, image: np.ndarray) -> dict[str, np.ndarray]: ...

  def get_input_details(self) -> dict[str, Any]: ...

  def get_output_details(self) -> dict[str, Any]: ...


class TwoStepRunner:
  """The network and its fusion, one after the other; the outputs are those of both.

  Args:
    network, merge: the steps of `serving.two_steps`.
    score_threshold: of detections.
    by_ranking: whether the ranking module orders instances, and not the detection score.
  """

  def __init__(
    self, network: Interpreter, merge: Interpreter, score_threshold: float, by_ranking: bool
  ):
    self._network, self._merge = (step.get_signature_runner(SIGNATURE) for step in (network, merge))
    settings = {SCORE_THRESHOLD: score_threshold, BY_RANKING: by_ranking}
    self._settings = {name: np.float32([value]) for name, value in settings.items()}

  def __call__(self, *, image: np.ndarray) -> dict[str, np.ndarray]:
    outputs = self._network(image=image)
    return {**outputs, **self._merge(**outputs, **self._settings)}

  def get_input_details(self) -> dict[str, Any]:
    return self._network.get_input_details()

  def get_output_details(self) -> dict[str, Any]:
    return {**self._network.get_output_details(), **self._merge.get_output_details()}


def runner(
  path: pathlib.Path, description: Mapping[str, Any] | None = None, num_threads: int = 2
) -> Runner:
  """A file as a function of `image`, [1, H, W, 3] uint8, with the results of `PanopticModule`.

  One thread at a time may call it. A damaged file can end the process; `tflite_archive` tells one.

  Args:
    path: of the file.
    description: of `tflite_archive.read_description`; None if it has one step.
    num_threads: of LiteRT.

  Raises:
    ValueError: if LiteRT does not take it, or it is not as described.
    RuntimeError: if LiteRT does not take it.
  """
  network = Interpreter(str(path), num_threads=num_threads)
  if description is None or 'fusions' not in description:
    return network.get_signature_runner(SIGNATURE)
  content = read_file(path, MERGE_FILE)
  if checksum(content) != description.get(MERGE_CHECKSUM):
    raise ValueError(f'its {MERGE_FILE} is that of another file')
  merge = Interpreter(model_content=content, num_threads=num_threads)
  threshold = description.get('score_threshold')
  if not isinstance(threshold, int | float):
    raise ValueError(f'its score_threshold is {threshold!r}')
  return TwoStepRunner(network, merge, threshold, description.get('fusion') == 'srm')
