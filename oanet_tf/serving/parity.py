"""What is exported, and how exports are compared with the network in memory."""

import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from oanet_tf.data import shard_files, tf_example
from oanet_tf.data.interruptible import interruptible
from oanet_tf.files import FilePath
from oanet_tf.model_folder import ModelFolder, Trained
from oanet_tf.serving.letterbox import letterbox
from oanet_tf.serving.panoptic_module import PanopticModule

NamedImage = tuple[str, np.ndarray]


class Source(NamedTuple):
  """A trained network and how it is to be exported.

  Attributes:
    folder: that it comes from, for formats that build it again.
    trained: the network in memory.
    method: of fusion.
    image_size: [height, width], for formats of a fixed size.
    images: [H, W, 3] uint8 RGB of any sizes, on which exports are compared with the network.
    image_names: what to call them in messages.
    calibration_images: [H, W, 3] uint8 RGB of `image_size`, for 8-bit formats.
    offline: where a page takes its copy of LiteRT.js from; see `litert_js.copy`.
  """

  folder: ModelFolder
  trained: Trained
  method: str
  image_size: tuple[int, int]
  images: Sequence[np.ndarray]
  image_names: Sequence[str]
  calibration_images: Sequence[np.ndarray] = ()
  offline: Sequence[FilePath] = ()

  @property
  def precision(self) -> str:
    """What the network in memory computes in."""
    return self.trained.model.backbone.compute_dtype

  def module(self) -> PanopticModule:
    """The function that is exported."""
    return PanopticModule(self.trained, self.method)


def load_source(
  folder: ModelFolder,
  method: str,
  image_size: Sequence[int],
  images: Iterable[NamedImage],
  calibration_images: Iterable[NamedImage] = (),
  *,
  precision: str = 'float32',
  offline: Sequence[FilePath] = (),
) -> Source:
  """Loads the network.

  Other arguments than these are the attributes of `Source`, with named images of any sizes.

  Args:
    precision: what the network in memory computes in; see `ModelFolder.precision`.

  Raises:
    InputError: if the folder has no checkpoint that fits.
  """
  trained, named = folder.load(precision), list(images)
  return Source(
    folder=folder,
    trained=trained,
    method=method,
    image_size=image_size,
    images=[image for _, image in named],
    image_names=[name for name, _ in named],
    calibration_images=[letterbox(image, image_size) for _, image in calibration_images],
    offline=offline,
  )


def shard_images(input_path: str, number: int) -> list[NamedImage]:
  """The first images of shards, [H, W, 3] uint8, with the names of their files.

  Args:
    input_path: files or globs, separated by commas.
    number: the most to read.

  Raises:
    InputError: if there is no shard, or one is damaged.
  """
  counts = shard_files.whole_records(shard_files.list_shards(input_path))
  dataset = shard_files.records(counts).take(number)
  with shard_files.named_errors(input_path):
    examples = map(tf_example.decode, interruptible(dataset))
    return [
      (one['file_name'].numpy().decode(errors='surrogateescape'), one['image'].numpy())
      for one in examples
    ]


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
    num_pixels: of all of them.
    different_pixels: how many have another category or another instance.
    image_of_pixels: the name of the image that has most of them.
    score_difference: the largest difference of a score.
    image_of_score: the name of the image with it.
  """

  num_images: int
  num_pixels: int
  different_pixels: int
  image_of_pixels: str
  score_difference: float
  image_of_score: str

  @property
  def same_pixels(self) -> float:
    """The fraction of pixels with the same category and the same instance."""
    return 1 - self.different_pixels / self.num_pixels


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

  def objection(self, parity: Parity) -> str | None:
    """What is not close enough, with numbers and the image; None if all is. NaN never is."""
    found = []
    if not parity.same_pixels >= self.least_same_pixels:
      found.append(
        f'{parity.different_pixels} of {parity.num_pixels} pixels differ, most of them in '
        f'{parity.image_of_pixels} (at most {1 - self.least_same_pixels:.2%} may)'
      )
    if not parity.score_difference <= self.largest_score_difference:
      found.append(
        f'a score differs by {parity.score_difference:.2g} in {parity.image_of_score} (at most '
        f'{self.largest_score_difference:.2g})'
      )
    return ', and '.join(found) or None


def parity_of(names: Sequence[str], pairs: Iterable[tuple[Results, Results]]) -> Parity:
  """Compares pairs of results for the same image: the network's in memory, and an export's.

  Args:
    names: of the images.
    pairs: in the same order, at least one.
  """
  sizes, different, differences = [], [], []
  for expected, found in pairs:
    equal = (expected.category_mask == found.category_mask) & (
      expected.instance_mask == found.instance_mask
    )
    sizes.append(equal.size)
    different.append(equal.size - np.count_nonzero(equal))
    differences.append(np.abs(expected.scores - found.scores).max())
  # Of NaN, argmax takes the first.
  worst_pixels, worst_score = np.argmax(different), np.argmax(differences)
  return Parity(
    num_images=len(sizes),
    num_pixels=sum(sizes),
    different_pixels=int(sum(different)),
    image_of_pixels=names[worst_pixels],
    score_difference=float(differences[worst_score]),
    image_of_score=names[worst_score],
  )
