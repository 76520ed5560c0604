"""Where two fusions of the same detections differ, and which of them is right."""

# H, W height and width of an image, K cases, L = 1 + T + S labels.

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from oanet_tf.data.categories import VOID_LABEL, PanopticCategories
from oanet_tf.data.panoptic_map import Segments
from oanet_tf.evaluation.panoptic_quality import PanopticQuality


class ImageComparison(NamedTuple):
  """Two fusions on one image.

  Attributes:
    pq: PQ in [0, 1] of each on this image alone: the mean over the categories that the truth or the
      prediction has there.
    cases: [K, 5] int64, see `order_cases`.
    differing_pixels: how many pixels with a true category get two different ones.
  """

  pq: tuple[float, float]
  cases: np.ndarray
  differing_pixels: int

  @property
  def gain(self) -> float:
    """PQ of the second fusion minus that of the first; equal scores give 0, rounding aside."""
    return round(self.pq[1] - self.pq[0], 9)


class Order(NamedTuple):
  """How the second fusion fares where it puts one category on top and the first another.

  Attributes:
    top: label that the second fusion shows.
    bottom: label that the first shows.
    cases_right: cases of which more pixels were put right than wrong.
    cases_wrong: cases of which more were put wrong than right.
    cases_undecided: the other cases.
    pixels_right: pixels whose true category is the one that the second shows.
    pixels_wrong: pixels whose true category is the one that the first shows.
    pixels_neither: pixels of a third category.
  """

  top: int
  bottom: int
  cases_right: int
  cases_wrong: int
  cases_undecided: int
  pixels_right: int
  pixels_wrong: int
  pixels_neither: int


def compare_image(
  truth: Segments,
  first: Segments,
  second: Segments,
  categories: PanopticCategories,
  names: tuple[str, str, str] = ('truth', 'first', 'second'),
) -> ImageComparison:
  """Compares two fusions of one image; `names` are for errors.

  Raises:
    InputError: as `PanopticQuality.update`.
  """
  pq = tuple(
    _image_pq(truth, prediction, categories, (names[0], name))
    for prediction, name in zip((first, second), names[1:], strict=True)
  )
  scored = _labels(truth, categories, without_crowds=True) != VOID_LABEL
  differs = _labels(first, categories) != _labels(second, categories)
  return ImageComparison(
    pq, order_cases(truth, first, second, categories), int(np.count_nonzero(scored & differs))
  )


def _image_pq(
  truth: Segments,
  prediction: Segments,
  categories: PanopticCategories,
  names: tuple[str, str],
) -> float:
  quality = PanopticQuality(categories)
  quality.update(truth, prediction, *names)
  return quality.result()['All']['pq']


def order_cases(
  truth: Segments,
  first: Segments,
  second: Segments,
  categories: PanopticCategories,
) -> np.ndarray:
  """The pairs of instances that two fusions order differently, and who agrees with the truth.

  A fusion gives a pixel to one of the instances whose masks cover it. So where one fusion shows a
  thing and the other a thing of another category, both masks cover the pixel and the fusions differ
  in their order. A case is a segment of the first fusion and one of the second, both things and of
  different categories, that share pixels. Not counted are pixels where the truth is void or crowd,
  which the scorer leaves out too; two instances of the same category; and what one fusion leaves to
  stuff or void since it dropped an instance.

  Args:
    truth: [H, W].
    first: [H, W].
    second: [H, W].
    categories: theirs.

  Returns:
    [K, 5] int64 rows: label by the first, label by the second, pixels put right by the second (the
    truth is its category), pixels put wrong (the truth is the first's category), pixels where the
    truth is a third category. At least one of the last three is not 0.
  """
  true_labels = _labels(truth, categories, without_crowds=True)
  labels = [_labels(fusion, categories) for fusion in (first, second)]
  counted = (true_labels != VOID_LABEL) & (labels[0] != labels[1])
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
  return np.stack(columns, axis=1).astype(np.int64)


def _labels(
  segmentation: Segments, categories: PanopticCategories, without_crowds: bool = False
) -> np.ndarray:
  """[H, W] int32 labels; 0 for void and, if so wished, for crowds."""
  labels = segmentation.labels(categories)
  if without_crowds:
    labels[1:][segmentation.is_crowd] = VOID_LABEL
  return labels[segmentation.index]


def sum_orders(cases: Iterable[np.ndarray], categories: PanopticCategories) -> list[Order]:
  """Adds the cases of all images up by their pair of categories.

  Args:
    cases: [K, 5] of each image, of `order_cases`.
    categories: theirs.

  Returns:
    The pairs that occur, those with the most cases first.
  """
  rows = np.concatenate([np.zeros([0, 5], np.int64), *cases])
  first, second, right, wrong, neither = rows.T
  codes = first * categories.num_labels + second
  present, pair_of_row = np.unique(codes, return_inverse=True)
  sums = [
    np.bincount(pair_of_row, values, minlength=len(present)).astype(np.int64).tolist()
    for values in (right > wrong, right < wrong, right == wrong, right, wrong, neither)
  ]
  orders = [
    Order(code % categories.num_labels, code // categories.num_labels, *values)
    for code, *values in zip(present.tolist(), *sums, strict=True)
  ]
  return sorted(orders, key=lambda one: -sum(one[2:5]))
