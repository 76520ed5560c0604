"""What an evaluation keeps of the ranking module's map: the most probable category of each cell.

All T probabilities of an image of COCO are 21.5 MB, these two numbers a cell are 0.5 MB.
"""

# h, w cells of the ranking module's canvas, T thing categories.

from typing import NamedTuple

import numpy as np

from oanet_tf.errors import InputError


class RankingMap(NamedTuple):
  """The category that the ranking module puts on top.

  Attributes:
    labels: [h, w] int, the most probable category, in [1, T].
    probability: [h, w] float, its probability.
  """

  labels: np.ndarray
  probability: np.ndarray


def most_probable(probabilities: np.ndarray) -> RankingMap:
  """[h, w, T] probabilities -> the map of the largest."""
  return RankingMap(probabilities.argmax(axis=-1) + 1, probabilities.max(axis=-1))


def encode(ranking_map: RankingMap) -> np.ndarray:
  """A map as [h, w, 3] uint8: label mod 256, label / 256, 255 × probability."""
  labels, probability = ranking_map
  scaled = np.rint(255 * probability)
  return np.stack([labels % 256, labels // 256, scaled], axis=-1).astype(np.uint8)


def decode(coded: np.ndarray, num_things: int, name: str) -> RankingMap:
  """The inverse of `encode`, but for rounding.

  Args:
    coded: [h, w, 3] uint8.
    num_things: T.
    name: what to call it in an error.

  Raises:
    InputError: if a label is not in [1, T].
  """
  labels = coded[..., 0] + 256 * coded[..., 1].astype(np.int32)
  if labels.min(initial=1) < 1 or labels.max(initial=1) > num_things:
    raise InputError(f'{name}: has a label that is not in [1, {num_things}]')
  return RankingMap(labels, coded[..., 2] / np.float32(255))
