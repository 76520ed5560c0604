"""What is exported, and how an export is compared with the network in memory."""

import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from oanet_tf.data import shard_files, tf_example
from oanet_tf.model_folder import ModelFolder, Trained
from oanet_tf.serving.letterbox import letterbox
from oanet_tf.serving.panoptic_module import PanopticModule


class Source(NamedTuple):
  """A trained network and how it is to be exported.

  Attributes:
    folder: where it comes from, for formats that build it again.
    trained: the network in memory.
    method: of fusion.
    image_size: [height, width], for formats of a fixed size.
    images: real ones, [H, W, 3] uint8 RGB of any sizes, on which exports are compared with it.
    calibration_images: others, of `image_size`, for formats of 8 bits.
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
  """Loads the network; arguments as the attributes of `Source`, but for images of any sizes.

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
    input_path: files or globs, with commas between.
    number: at most so many.

  Raises:
    InputError: if there is no shard, or one is damaged.
  """
  dataset = tf.data.TFRecordDataset(shard_files.list_shards(input_path)).take(number)
  with shard_files.named_errors(input_path):
    return [tf_example.decode(record)['image'].numpy() for record in dataset]


class Results(NamedTuple):
  """Of one image: category and instance of each pixel, [H, W] int; scores, [N] float."""

  category_mask: np.ndarray
  instance_mask: np.ndarray
  scores: np.ndarray


class Parity(NamedTuple):
  """How an export's results compare with those of the network in memory.

  Attributes:
    num_images: compared.
    same_pixels: fraction of all their pixels that have the same category and the same instance.
    score_difference: the largest.
  """

  num_images: int
  same_pixels: float
  score_difference: float


class Format(NamedTuple):
  """A way to export; an entry of `export.FORMATS`.

  Attributes:
    write: fills a folder, which is empty.
    compare: loads from the folder what was written, runs it on the source's images, and compares.
    least_same_pixels, largest_score_difference: what is accepted.
  """

  write: Callable[[Source, pathlib.Path], None]
  compare: Callable[[Source, pathlib.Path], Parity]
  least_same_pixels: float
  largest_score_difference: float

  def accepts(self, parity: Parity) -> bool:
    """Whether the results are near enough; not if a score is no number."""
    return (
      parity.same_pixels >= self.least_same_pixels
      and parity.score_difference <= self.largest_score_difference
    )


def parity_of(pairs: Iterable[tuple[Results, Results]]) -> Parity:
  """Compares, for each image, what the network in memory gives with what an export gives."""
  same, differences = [], []
  for expected, found in pairs:
    equal = (expected.category_mask == found.category_mask) & (
      expected.instance_mask == found.instance_mask
    )
    same.append([np.count_nonzero(equal), equal.size])
    differences.append(np.abs(expected.scores - found.scores).max())
  number, total = np.sum(same, axis=0)
  return Parity(len(same), float(number / total), float(np.max(differences)))
