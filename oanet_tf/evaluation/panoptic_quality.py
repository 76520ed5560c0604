"""Panoptic quality (Kirillov et al., CVPR 2019), equal to panopticapi's official scorer.

Each pixel of both maps becomes the position of its segment in the list of segments. The counts of
the pairs of positions then hold all that the score needs: areas, intersections, overlap with void.
"""

# T truth segments, P predicted segments, K pairs of them that share pixels, L labels.

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from oanet_tf.data.categories import PanopticCategories
from oanet_tf.data.panoptic_map import (
  PanopticSegmentation,
  check_segments_have_pixels,
  segment_positions,
)
from oanet_tf.errors import InputError

# Pairs are counted in a table of at most so many cells (32 MB), beyond that by sorting.
_MAX_TABLE_CELLS = 2**22
_GROUPS = ('All', 'Things', 'Stuff')
_CELL_WIDTH = 6


class PanopticQuality:
  """Gathers what panoptic quality needs, image by image, in four numbers per category.

  Attributes:
    iou_sum: [L] float64, summed IoU of the matched pairs; L = 1 + T + S, 0 is void.
    true_positives, false_positives, false_negatives: [L] int64.
  """

  def __init__(self, categories: PanopticCategories):
    self._categories = categories
    self.iou_sum = np.zeros(categories.num_labels)
    self.true_positives = np.zeros(categories.num_labels, np.int64)
    self.false_positives = np.zeros(categories.num_labels, np.int64)
    self.false_negatives = np.zeros(categories.num_labels, np.int64)

  def update(self, truth: PanopticSegmentation, prediction: PanopticSegmentation) -> None:
    """Adds one image, by the rules of panopticapi's `pq_compute_single_core`.

    A pair matches if its categories agree and its IoU, without the prediction's void pixels in the
    union, is over 0.5. Crowds neither match nor are missed. A prediction that lies mostly on void
    and its category's crowd is ignored; of several crowds of one category only the last in the
    list counts. `prediction.is_crowd` plays no part. A truth segment's area is its number of
    pixels, whatever a JSON file says of it.

    Raises:
      InputError: if the maps' sizes differ; a map and its list of segments disagree (though truth
        may list segments without pixels: they are missed); or a category id is unknown.
    """
    truth_labels = self._labels(truth, 'truth')
    prediction_labels = self._labels(prediction, 'prediction')
    pairs = _count_pairs(truth, prediction)
    check_segments_have_pixels(prediction, pairs.prediction_area[1:], 'prediction')
    is_crowd = np.concatenate([[True], truth.is_crowd])

    iou = _intersection_over_union(pairs)
    matched = truth_labels[pairs.truth] == prediction_labels[pairs.prediction]
    matched &= ~is_crowd[pairs.truth] & (iou > 0.5)
    missed = ~is_crowd
    missed[pairs.truth[matched]] = False
    spurious = ~_mostly_unscored(pairs, truth_labels, is_crowd, prediction_labels)
    spurious[pairs.prediction[matched]] = False

    matched_labels = truth_labels[pairs.truth[matched]]
    self.iou_sum += self._per_label(matched_labels, weights=iou[matched])
    self.true_positives += self._per_label(matched_labels)
    self.false_positives += self._per_label(prediction_labels[spurious])
    self.false_negatives += self._per_label(truth_labels[missed])

  def merge(self, other: 'PanopticQuality') -> None:
    """Adds what another one has gathered, over the same categories, on other images."""
    if self._categories != other._categories:
      raise ValueError('cannot merge panoptic qualities over different categories')
    self.iou_sum += other.iou_sum
    self.true_positives += other.true_positives
    self.false_positives += other.false_positives
    self.false_negatives += other.false_negatives

  def result(self) -> dict:
    """Panopticapi's results, as plain Python numbers in [0, 1].

    Returns:
      {'All', 'Things', 'Stuff': {'pq', 'sq', 'rq', 'n'}, 'per_class': {dataset category id: {'pq',
      'sq', 'rq'}}}. The n categories that occur in truth or prediction are averaged; a group
      without any, where panopticapi divides by zero, gets 0.0.
    """
    errors = 0.5 * (self.false_positives + self.false_negatives)
    rq = _divide(self.true_positives, self.true_positives + errors)
    sq = _divide(self.iou_sum, self.true_positives)
    pq = _divide(self.iou_sum, self.true_positives + errors)
    scores = np.stack([pq, sq, rq], axis=1)
    occurs = self.true_positives + errors > 0
    is_thing = np.arange(self._categories.num_labels) <= self._categories.num_things
    return {
      'All': _average(scores[occurs]),
      'Things': _average(scores[occurs & is_thing]),
      'Stuff': _average(scores[occurs & ~is_thing]),
      'per_class': {c.id: _named(row) for c, row in zip(self._categories, scores[1:], strict=True)},
    }

  def _labels(self, segmentation: PanopticSegmentation, name: str) -> np.ndarray:
    """[1 + S] labels of the segments by position; void's is 0."""
    category_ids = segmentation.category_ids
    unknown = ~np.isin(category_ids, self._categories.id_of_label_table()[1:])
    if unknown.any():
      raise InputError(
        f'{name}: segment {segmentation.segment_ids[unknown][0]} has the category id '
        f'{category_ids[unknown][0]}, which the dataset does not have'
      )
    return np.concatenate([[0], self._categories.label_of_id_table()[category_ids]])

  def _per_label(self, labels: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    return np.bincount(labels, weights, minlength=self._categories.num_labels)


class _Pairs(NamedTuple):
  """The pairs of segments that share pixels, by position; 0 is void.

  Attributes:
    truth, prediction: [K] int64 positions.
    pixels: [K] int64, what they share.
    truth_area: [1 + T] float64, in pixels.
    prediction_area: [1 + P] float64.
  """

  truth: np.ndarray
  prediction: np.ndarray
  pixels: np.ndarray
  truth_area: np.ndarray
  prediction_area: np.ndarray

  def prediction_pixels(self, where: np.ndarray) -> np.ndarray:
    """[1 + P] float64: each prediction's pixels in the pairs that `where`, [K] bool, selects."""
    return _sum_at(self.prediction, self.pixels * where, len(self.prediction_area))


def _count_pairs(truth: PanopticSegmentation, prediction: PanopticSegmentation) -> _Pairs:
  sizes = [' × '.join(map(str, s.segment_map.shape[::-1])) for s in (truth, prediction)]
  if sizes[0] != sizes[1]:
    raise InputError(f'truth is {sizes[0]} pixels (width × height) but prediction is {sizes[1]}')
  rows, columns = len(truth.segment_ids) + 1, len(prediction.segment_ids) + 1
  codes = segment_positions(truth, 'truth').astype(np.int64) * columns
  codes += segment_positions(prediction, 'prediction')
  present, pixels = _count(codes.ravel(), rows * columns)
  t, p = np.divmod(present, columns)
  return _Pairs(t, p, pixels, _sum_at(t, pixels, rows), _sum_at(p, pixels, columns))


def _count(codes: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
  """The distinct values of codes in [0, size), and how often each occurs."""
  if size > _MAX_TABLE_CELLS:
    return np.unique(codes, return_counts=True)
  counts = np.bincount(codes, minlength=size)
  present = np.flatnonzero(counts)
  return present, counts[present]


def _intersection_over_union(pairs: _Pairs) -> np.ndarray:
  """[K] float64; a prediction's pixels on void are not part of the union."""
  scored_area = pairs.prediction_area - pairs.prediction_pixels(pairs.truth == 0)
  union = scored_area[pairs.prediction] + pairs.truth_area[pairs.truth] - pairs.pixels
  return _divide(pairs.pixels, union)


def _mostly_unscored(
  pairs: _Pairs, truth_labels: np.ndarray, is_crowd: np.ndarray, prediction_labels: np.ndarray
) -> np.ndarray:
  """[1 + P] bool: over half of the prediction is on void or its category's crowd; True for void."""
  crowd_of_label = np.full(max(truth_labels.max(), prediction_labels.max()) + 1, -1)
  # Assigned in order, so that the last crowd of a category stays.
  crowd_of_label[truth_labels[is_crowd]] = np.flatnonzero(is_crowd)
  on_crowd = pairs.truth == crowd_of_label[prediction_labels[pairs.prediction]]
  unscored = pairs.prediction_pixels((pairs.truth == 0) | on_crowd) > 0.5 * pairs.prediction_area
  unscored[0] = True
  return unscored


def _sum_at(positions: np.ndarray, values: np.ndarray, size: int) -> np.ndarray:
  return np.bincount(positions, values, minlength=size)


def _divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
  """0 where the denominator is."""
  return np.divide(numerator, denominator, out=np.zeros(len(denominator)), where=denominator != 0)


def _average(scores: np.ndarray) -> dict:
  mean = scores.mean(axis=0) if len(scores) else np.zeros(3)
  return _named(mean) | {'n': len(scores)}


def _named(scores: np.ndarray) -> dict[str, float]:
  return dict(zip(('pq', 'sq', 'rq'), scores.tolist(), strict=True))


def format_table(results: Mapping[str, dict], categories: PanopticCategories) -> str:
  """Lays results out for a terminal, in percent, as panopticapi does but side by side.

  Args:
    results: {name: what `PanopticQuality.result` returns}, for instance of two ways of merging.
    categories: theirs.

  Returns:
    Lines of equal columns: All, Things and Stuff with PQ, SQ, RQ and N of each named result, then
    each category with its PQ.
  """
  label_width = max(len(label) for label in [*_GROUPS, *(c.name for c in categories)])
  widths = [max(len(name), 4 * _CELL_WIDTH) for name in results]

  def row(label: str, groups: Sequence[str]) -> str:
    cells = [group.ljust(width) for group, width in zip(groups, widths, strict=True)]
    return ' | '.join([label.ljust(label_width), *cells]).rstrip()

  lines = [row('', list(results)), row('', [_cells('PQ', 'SQ', 'RQ', 'N')] * len(results))]
  rule = '-+-'.join('-' * width for width in [label_width, *widths])
  lines.append(rule)
  for group in _GROUPS:
    lines.append(row(group, [_summary_cells(result[group]) for result in results.values()]))
  lines.append(rule)
  for category in categories:
    scores = [result['per_class'][category.id] for result in results.values()]
    lines.append(row(category.name, [_cells(_percent(score['pq'])) for score in scores]))
  return '\n'.join(lines)


def _summary_cells(summary: dict) -> str:
  return _cells(*(_percent(summary[key]) for key in ('pq', 'sq', 'rq')), str(summary['n']))


def _cells(*texts: str) -> str:
  return ''.join(text.rjust(_CELL_WIDTH) for text in texts)


def _percent(fraction: float) -> str:
  return f'{100 * fraction:.1f}'
