"""Where two fusions of the same detections differ, and which of them is right."""

# H, W image, K cases.

import collections
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from oanet_tf.data.categories import VOID_LABEL, PanopticCategories
from oanet_tf.data.panoptic_map import Segments
from oanet_tf.evaluation.panoptic_quality import PanopticQuality


class ImageComparison(NamedTuple):
  """Two fusions of one image.

  Where one fusion shows a thing and the other a thing of another category, both were detected there
  and only their order differs. A case is a pair of such segments, one of each fusion, that share
  pixels. Pixels do not count where the ground truth is void or a crowd, which the scorer ignores
  too. Two instances of one category are no case, nor is a thing that one fusion dropped for stuff
  or void.

  Attributes:
    pq: PQ in [0, 1] of each fusion on this image alone: the mean over the categories that occur in
      the ground truth or the prediction.
    cases: [K, 5] int64 rows: label of the first fusion, label of the second, and how many pixels
      have, in the ground truth, the second's category (right), the first's (wrong) and a third one
      (neither). At least one of the three counts is positive.
    differing_pixels: how many pixels with a category get different ones from the fusions.
  """

  pq: tuple[float, float]
  cases: np.ndarray
  differing_pixels: int

  @property
  def gain(self) -> float:
    """PQ of the second fusion minus that of the first, without rounding errors around 0."""
    return round(self.pq[1] - self.pq[0], 9)


class Order(NamedTuple):
  """Sums over the cases in which the second fusion puts one category on top, the first another.

  Attributes:
    top: label that the second fusion shows.
    bottom: label that the first shows.
    cases: how many have more right than wrong pixels, more wrong than right, and as many.
    pixels: how many are right, wrong and neither, as in `ImageComparison.cases`.
  """

  top: int
  bottom: int
  cases: tuple[int, int, int]
  pixels: tuple[int, int, int]


def compare_image(
  ground_truth: Segments,
  first: Segments,
  second: Segments,
  categories: PanopticCategories,
  names: tuple[str, str, str] = ('ground truth', 'first', 'second'),
) -> ImageComparison:
  """Compares two fusions of one image; `names` are for errors.

  Raises:
    InputError: as `PanopticQuality.update`.
  """
  pq = []
  for prediction, name in zip((first, second), names[1:], strict=True):
    quality = PanopticQuality(categories)
    quality.update(ground_truth, prediction, names[0], name)
    pq.append(quality.result()['All']['pq'])
  true_labels = _labels(ground_truth, categories, without_crowds=True)
  labels = [_labels(fusion, categories) for fusion in (first, second)]
  counted = (true_labels != VOID_LABEL) & (labels[0] != labels[1])
  differing_pixels = int(np.count_nonzero(counted))
  for of_fusion in labels:
    counted &= (of_fusion != VOID_LABEL) & (of_fusion <= categories.num_things)
  true_labels, *labels = (values[counted] for values in (true_labels, *labels))
  codes = first.index[counted].astype(np.int64) << 32 | second.index[counted]
  _, places, case_of_pixel = np.unique(codes, return_index=True, return_inverse=True)
  right, wrong = true_labels == labels[1], true_labels == labels[0]
  columns = [of_fusion[places] for of_fusion in labels]
  columns += [
    np.bincount(case_of_pixel[kind], minlength=len(places))
    for kind in (right, wrong, ~(right | wrong))
  ]
  return ImageComparison(tuple(pq), np.stack(columns, axis=1).astype(np.int64), differing_pixels)


def _labels(
  segmentation: Segments, categories: PanopticCategories, without_crowds: bool = False
) -> np.ndarray:
  """[H, W] int32 labels; 0 for void and, optionally, for crowds."""
  labels = segmentation.labels(categories)
  if without_crowds:
    labels[1:][segmentation.is_crowd] = VOID_LABEL
  return labels[segmentation.index]


def sum_orders(cases: Iterable[np.ndarray]) -> list[Order]:
  """Sums the cases of all images by their pair of categories; pairs with the most cases are first.

  Args:
    cases: `ImageComparison.cases` of each image.
  """
  sums = collections.defaultdict(lambda: [0] * 6)
  for of_image in cases:
    for bottom, top, right, wrong, neither in of_image.tolist():
      more = (right > wrong, right < wrong, right == wrong, right, wrong, neither)
      sums[top, bottom] = [a + b for a, b in zip(sums[top, bottom], more, strict=True)]
  orders = [Order(*pair, tuple(both[:3]), tuple(both[3:])) for pair, both in sums.items()]
  return sorted(orders, key=lambda one: (-sum(one.cases), one.bottom, one.top))
