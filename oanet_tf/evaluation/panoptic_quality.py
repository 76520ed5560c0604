"""Panoptic quality (Kirillov et al., CVPR 2019), equal to panopticapi's official scorer.

The two maps of an image are read as one sequence of runs: neighbouring pixels with the same pair of
segments. There are some fifty times fewer of them than pixels. Summed over each pair, their lengths
hold all that the score needs: areas, intersections, overlap with void.
"""

# T truth segments, P predicted segments, R runs, K pairs that share pixels, L = 1 + T + S labels.

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

_GROUPS = ('All', 'Things', 'Stuff')
_CELL_WIDTH = 6


class PanopticQuality:
  """Gathers what panoptic quality needs, image by image, in four numbers per label.

  Attributes:
    statistics: [L, 4] float64 by label, void's row is 0: summed IoU of the matched pairs, and how
      many true positives, false positives and false negatives. Those of several processes are
      added to give that of all their images.
  """

  def __init__(self, categories: PanopticCategories):
    self._categories = categories
    self.statistics = np.zeros([categories.num_labels, 4])

  def update(
    self,
    truth: PanopticSegmentation,
    prediction: PanopticSegmentation,
    truth_name: str = 'truth',
    prediction_name: str = 'prediction',
  ) -> None:
    """Adds one image, by the rules of panopticapi's `pq_compute_single_core`.

    A pair matches if its categories agree and its IoU, without the prediction's void pixels in the
    union, is over 0.5. Crowds neither match nor are missed. A prediction that lies mostly on void
    and its category's crowd is ignored; of several crowds of one category only the last in the
    list counts. `prediction.is_crowd` plays no part. A truth segment's area is its number of
    pixels, whatever a JSON file says of it.

    Args:
      truth: [H, W].
      prediction: [H, W].
      truth_name: what to call it in an error.
      prediction_name: likewise.

    Raises:
      InputError: if the maps' sizes differ; a map and its list of segments disagree (though truth
        may list segments without pixels: they are missed); or a category id is unknown.
    """
    truth_labels = self._labels(truth, truth_name)
    prediction_labels = self._labels(prediction, prediction_name)
    pairs = _count_pairs(truth, prediction, truth_name, prediction_name)
    check_segments_have_pixels(prediction, pairs.prediction_area[1:], prediction_name)
    is_crowd = np.concatenate([[True], truth.is_crowd])

    iou = _intersection_over_union(pairs)
    matched = truth_labels[pairs.truth] == prediction_labels[pairs.prediction]
    matched &= ~is_crowd[pairs.truth] & (iou > 0.5)
    missed = ~is_crowd
    missed[pairs.truth[matched]] = False
    spurious = ~_mostly_unscored(pairs, truth_labels, is_crowd, prediction_labels)
    spurious[pairs.prediction[matched]] = False

    matched_labels = truth_labels[pairs.truth[matched]]
    columns = (
      self._per_label(matched_labels, weights=iou[matched]),
      self._per_label(matched_labels),
      self._per_label(prediction_labels[spurious]),
      self._per_label(truth_labels[missed]),
    )
    self.statistics += np.stack(columns, axis=1)

  def result(self) -> dict:
    """Panopticapi's results; see `summarize`."""
    return summarize(self.statistics, self._categories)

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


def summarize(statistics: np.ndarray, categories: PanopticCategories) -> dict:
  """Panopticapi's results, as plain Python numbers in [0, 1].

  Args:
    statistics: [L, 4] as in `PanopticQuality`.
    categories: theirs.

  Returns:
    {'All', 'Things', 'Stuff': {'pq', 'sq', 'rq', 'n'}, 'per_class': {dataset category id: {'pq',
    'sq', 'rq'}}}. The n categories that occur in truth or prediction are averaged; a group
    without any, where panopticapi divides by zero, gets 0.0.
  """
  iou_sum, true_positives, false_positives, false_negatives = statistics.T
  segments = true_positives + 0.5 * false_positives + 0.5 * false_negatives
  pq = _divide(iou_sum, segments)
  sq = _divide(iou_sum, true_positives)
  rq = _divide(true_positives, segments)
  scores = np.stack([pq, sq, rq], axis=1)
  occurs = segments > 0
  is_thing = np.arange(categories.num_labels) <= categories.num_things
  return {
    'All': _average(scores[occurs]),
    'Things': _average(scores[occurs & is_thing]),
    'Stuff': _average(scores[occurs & ~is_thing]),
    'per_class': {c.id: _named(row) for c, row in zip(categories, scores[1:], strict=True)},
  }


class _Pairs(NamedTuple):
  """The pairs of segments that share pixels, by position; 0 is void.

  Attributes:
    truth, prediction: [K] int32 positions.
    pixels: [K] float64, what they share.
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


def _count_pairs(
  truth: PanopticSegmentation,
  prediction: PanopticSegmentation,
  truth_name: str,
  prediction_name: str,
) -> _Pairs:
  sizes = [' × '.join(map(str, s.segment_map.shape[::-1])) for s in (truth, prediction)]
  if sizes[0] != sizes[1]:
    raise InputError(
      f'{prediction_name}: is {sizes[1]} pixels (width × height), but {truth_name} is {sizes[0]}'
    )
  truth_ids, prediction_ids, pixels = _count_pairs_of_ids(truth.segment_map, prediction.segment_map)
  t = segment_positions(truth._replace(segment_map=truth_ids), truth_name)
  p = segment_positions(prediction._replace(segment_map=prediction_ids), prediction_name)
  truth_area = _sum_at(t, pixels, 1 + len(truth.segment_ids))
  return _Pairs(t, p, pixels, truth_area, _sum_at(p, pixels, 1 + len(prediction.segment_ids)))


def _count_pairs_of_ids(
  truth_map: np.ndarray, prediction_map: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """[K] int32 and [K] int32 values of two [H, W] int32 maps; [K] float64 pixels that have both."""
  truth_ids, prediction_ids, lengths = _runs(truth_map, prediction_map)
  codes = truth_ids.astype(np.int64) << 32 | prediction_ids.astype(np.uint32)
  present, pair_of_run = np.unique(codes, return_inverse=True)
  pixels = _sum_at(pair_of_run, lengths, len(present))
  return (present >> 32).astype(np.int32), present.astype(np.int32), pixels


def _runs(
  truth_map: np.ndarray, prediction_map: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Runs of pixels, row after row, in which neither of two [H, W] maps changes.

  Returns:
    [R] value of the first map, [R] of the second, [R] int64 lengths in pixels.
  """
  truth_map, prediction_map = truth_map.ravel(), prediction_map.ravel()
  changes = truth_map[1:] != truth_map[:-1]
  changes |= prediction_map[1:] != prediction_map[:-1]
  starts = np.flatnonzero(changes) + 1
  if truth_map.size:
    starts = np.concatenate([[0], starts])
  lengths = np.diff(starts, append=truth_map.size)
  return truth_map[starts], prediction_map[starts], lengths


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
