"""What is exported, and how exports are compared with the network in memory."""

import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from oanet_tf.data import shard_files, tf_example
from oanet_tf.data.interruptible import interruptible
from oanet_tf.model_folder import ModelFolder, Trained
from oanet_tf.serving.letterbox import letterbox
from oanet_tf.serving.panoptic_module import PanopticModule


class Source(NamedTuple):
  """A trained network and how it is to be exported.

  Attributes:
    folder: that it comes from, for formats that build it again.
    trained: the network in memory.
    method: of fusion.
    image_size: [height, width], for formats of a fixed size.
    images: [H, W, 3] uint8 RGB of any sizes, on which exports are compared with the network.
    calibration_images: [H, W, 3] uint8 RGB of `image_size`, for 8-bit formats.
  """

  folder: ModelFolder
  trained: Trained
  method: str
  image_size: tuple[int, int]
  images: Sequence[np.ndarray]
  calibration_images: Sequence[np.ndarray] = ()

  def module(self) -> PanopticModule:
    """The function that is exported."""
    return PanopticModule(self.trained, self.method)


def load_source(
  folder: ModelFolder,
  method: str,
  image_size: Sequence[int],
  images: Iterable[np.ndarray],
  calibration_images: Iterable[np.ndarray] = (),
) -> Source:
  """Loads the network. Arguments are the attributes of `Source`, with images of any sizes.

  Raises:
    InputError: if the folder has no checkpoint that fits.
  """
  return Source(
    folder=folder,
    trained=folder.load(),
    method=method,
    image_size=image_size,
    images=list(images),
    calibration_images=[letterbox(image, image_size) for image in calibration_images],
  )


def shard_images(input_path: str, number: int) -> list[np.ndarray]:
  """The first images of shards, [H, W, 3] uint8.

  Args:
    input_path: files or globs, separated by commas.
    number: the most to read.

  Raises:
    InputError: if there is no shard, or one is damaged.
  """
  dataset = tf.data.TFRecordDataset(shard_files.list_shards(input_path)).take(number)
  with shard_files.named_errors(input_path):
    return [tf_example.decode(record)['image'].numpy() for record in interruptible(dataset)]


class Results(NamedTuple):
  """The results for one image: [H, W] int masks, and [N] float scores of detections."""

  category_mask: np.ndarray
  instance_mask: np.ndarray
  scores: np.ndarray


def first_results(outputs: Mapping[str, np.ndarray | tf.Tensor]) -> Results:
  """The results for the first image, from outputs of `PanopticModule`."""
  names = ('panoptic_category_mask', 'panoptic_instance_mask', 'detection_scores')
  return Results(*(np.asarray(outputs[name][0]) for name in names))


class Parity(NamedTuple):
  """How an export's results compare with those of the network in memory.

  Attributes:
    num_images: how many were compared.
    same_pixels: fraction of all their pixels with the same category and the same instance.
    score_difference: the largest difference of a score.
  """

  num_images: int
  same_pixels: float
  score_difference: float


class Format(NamedTuple):
  """A format of exports.

  Attributes:
    write: writes into an empty folder.
    compare: loads what was written to the folder and compares its results for the source's images.
    least_same_pixels, largest_score_difference: the limits of what is accepted.
  """

  write: Callable[[Source, pathlib.Path], None]
  compare: Callable[[Source, pathlib.Path], Parity]
  least_same_pixels: float
  largest_score_difference: float

  def accepts(self, parity: Parity) -> bool:
    """Whether the results are close enough; false if a score is NaN."""
    return (
      parity.same_pixels >= self.least_same_pixels
      and parity.score_difference <= self.largest_score_difference
    )


def parity_of(pairs: Iterable[tuple[Results, Results]]) -> Parity:
  """Compares pairs of results for the same image: the network's in memory, and an export's."""
  same, differences = [], []
  for expected, found in pairs:
    equal = (expected.category_mask == found.category_mask) & (
      expected.instance_mask == found.instance_mask
    )
    same.append([np.count_nonzero(equal), equal.size])
    differences.append(np.abs(expected.scores - found.scores).max())
  number, total = np.sum(same, axis=0)
  return Parity(len(same), float(number / total), float(np.max(differences)))
