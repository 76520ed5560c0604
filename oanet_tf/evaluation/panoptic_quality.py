"""Panoptic quality (Kirillov et al., CVPR 2019), equal to panopticapi's official scorer.

The two maps of an image are read as one sequence of runs: neighbouring pixels with the same pair of
segments. There are some fifty times fewer of them than pixels. Summed over each pair, their lengths
hold all that the score needs: areas, intersections, overlap with void.
"""

# T ground-truth segments, P predicted segments, K pairs that share pixels, L = 1 + T + S labels.

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from oanet_tf.data.categories import PanopticCategories
from oanet_tf.data.panoptic_map import (
  Segments,
  check_segments_have_pixels,
  check_sizes,
  runs,
  summed,
)
from oanet_tf.printing import shown

_GROUPS = ('All', 'Things', 'Stuff')
_CELL_WIDTH = 6


class PanopticQuality:
  """Gathers what panoptic quality needs, image by image, in four numbers per label.

  Attributes:
    statistics: [L, 4] float64 by label, void's row is 0: summed IoU of the matched pairs, and the
      numbers of true positives, false positives and false negatives. The sum of several processes'
      statistics is that of all their images.
  """

  def __init__(self, categories: PanopticCategories):
    self._categories = categories
    self.statistics = np.zeros([categories.num_labels, 4])

  def update(
    self,
    ground_truth: Segments,
    prediction: Segments,
    ground_truth_name: str = 'ground truth',
    prediction_name: str = 'prediction',
  ) -> None:
    """Adds one image, by the rules of panopticapi's `pq_compute_single_core`.

    A pair matches if its categories agree and its IoU, without the prediction's void pixels in the
    union, is over 0.5. Crowds neither match nor are missed. A prediction that lies mostly on void
    and its category's crowd is ignored; of several crowds of one category only the last in the
    list counts. `prediction.is_crowd` plays no part. The area of a segment is its number of
    pixels, whatever a JSON file says of it.

    Args:
      ground_truth: [H, W].
      prediction: [H, W].
      ground_truth_name: what to call it in an error.
      prediction_name: likewise.

    Raises:
      InputError: if the maps' sizes differ, a predicted segment has no pixel (one of the ground
        truth without pixels is missed), or a category id is unknown.
    """
    check_sizes(
      ground_truth.index.shape, prediction.index.shape, ground_truth_name, prediction_name
    )
    starts, lengths = runs(ground_truth.index, prediction.index)
    of_runs = (one._replace(index=one.index.ravel()[starts]) for one in (ground_truth, prediction))
    self.update_pairs(*of_runs, lengths, ground_truth_name, prediction_name)

  def update_pairs(
    self,
    ground_truth: Segments,
    prediction: Segments,
    pixels: np.ndarray,
    ground_truth_name: str = 'ground truth',
    prediction_name: str = 'prediction',
  ) -> None:
    """As `update`, for an image whose alike pixels are counted, wherever they are.

    Args:
      ground_truth: its `index` is [R].
      prediction: likewise.
      pixels: [R] whole numbers.
      ground_truth_name: what to call it in an error.
      prediction_name: likewise.

    Raises:
      InputError: as `update`.
    """
    true_labels = ground_truth.labels(self._categories, ground_truth_name)
    prediction_labels = prediction.labels(self._categories, prediction_name)
    pairs = _count_pairs(ground_truth, prediction, pixels)
    check_segments_have_pixels(prediction.ids, pairs.prediction_area[1:], prediction_name)
    is_crowd = np.concatenate([[True], ground_truth.is_crowd])

    iou = _intersection_over_union(pairs)
    matched = true_labels[pairs.ground_truth] == prediction_labels[pairs.prediction]
    matched &= ~is_crowd[pairs.ground_truth] & (iou > 0.5)
    missed = ~is_crowd
    missed[pairs.ground_truth[matched]] = False
    spurious = ~_mostly_unscored(pairs, true_labels, is_crowd, prediction_labels)
    spurious[pairs.prediction[matched]] = False

    matched_labels = true_labels[pairs.ground_truth[matched]]
    columns = (
      self._per_label(matched_labels, weights=iou[matched]),
      self._per_label(matched_labels),
      self._per_label(prediction_labels[spurious]),
      self._per_label(true_labels[missed]),
    )
    self.statistics += np.stack(columns, axis=1)

  def result(self) -> dict:
    """Panopticapi's results, as plain Python numbers in [0, 1].

    Returns:
      {'All', 'Things', 'Stuff': {'pq', 'sq', 'rq', 'n'}, 'per_class': {dataset category id: {'pq',
      'sq', 'rq'}}}. Means are over the n categories that occur in ground truth or prediction. A
      group without any, where panopticapi divides by zero, gets 0.0.
    """
    categories = self._categories
    iou_sum, true_positives, false_positives, false_negatives = self.statistics.T
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

  def _per_label(self, labels: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    return np.bincount(labels, weights, minlength=self._categories.num_labels)


class _Pairs(NamedTuple):
  """The pairs of segments that share pixels, by index; 0 is void.

  Attributes:
    ground_truth, prediction: [K] int64, in the order of the ground truth's segment ids.
    pixels: [K] float64, what they share.
    ground_truth_area: [1 + T] float64, in pixels.
    prediction_area: [1 + P] float64.
  """

  ground_truth: np.ndarray
  prediction: np.ndarray
  pixels: np.ndarray
  ground_truth_area: np.ndarray
  prediction_area: np.ndarray

  def prediction_pixels(self, where: np.ndarray) -> np.ndarray:
    """[1 + P] float64: each prediction's pixels in the pairs that `where`, [K] bool, selects."""
    return np.bincount(self.prediction, self.pixels * where, len(self.prediction_area))


def _count_pairs(ground_truth: Segments, prediction: Segments, pixels: np.ndarray) -> _Pairs:
  num_true, num_predicted = 1 + len(ground_truth.ids), 1 + len(prediction.ids)
  codes = ground_truth.index.astype(np.int64) * num_predicted + prediction.index
  present, pixels = summed(codes, pixels)
  t, p = np.divmod(present, num_predicted)
  # Panopticapi adds up IoUs in the order of the segment ids.
  order = np.argsort(np.concatenate([[0], ground_truth.ids])[t])
  t, p, pixels = t[order], p[order], pixels[order]
  true_area = np.bincount(t, pixels, num_true)
  return _Pairs(t, p, pixels, true_area, np.bincount(p, pixels, num_predicted))


def _intersection_over_union(pairs: _Pairs) -> np.ndarray:
  """[K] float64; a prediction's pixels on void are not part of the union."""
  scored_area = pairs.prediction_area - pairs.prediction_pixels(pairs.ground_truth == 0)
  union = scored_area[pairs.prediction] + pairs.ground_truth_area[pairs.ground_truth] - pairs.pixels
  return _divide(pairs.pixels, union)


def _mostly_unscored(
  pairs: _Pairs, true_labels: np.ndarray, is_crowd: np.ndarray, prediction_labels: np.ndarray
) -> np.ndarray:
  """[1 + P] bool: over half of the prediction is on void or its category's crowd; True for void."""
  crowd_of_label = np.full(max(true_labels.max(), prediction_labels.max()) + 1, -1)
  # Assigned in order, so that the last crowd of a category stays.
  crowd_of_label[true_labels[is_crowd]] = np.flatnonzero(is_crowd)
  on_crowd = pairs.ground_truth == crowd_of_label[prediction_labels[pairs.prediction]]
  unscored = pairs.prediction_pixels((pairs.ground_truth == 0) | on_crowd)
  is_mostly = unscored > 0.5 * pairs.prediction_area
  is_mostly[0] = True
  return is_mostly


def _divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
  """0 where the denominator is."""
  return np.divide(numerator, denominator, out=np.zeros(len(denominator)), where=denominator != 0)


def _average(scores: np.ndarray) -> dict:
  mean = scores.mean(axis=0) if len(scores) else np.zeros(3)
  return _named(mean) | {'n': len(scores)}


def _named(scores: np.ndarray) -> dict[str, float]:
  return dict(zip(('pq', 'sq', 'rq'), scores.tolist(), strict=True))


def format_table(results: Mapping[str, dict], categories: PanopticCategories) -> str:
  """Formats results for a terminal, in percent, as panopticapi does but side by side.

  Args:
    results: {name: what `PanopticQuality.result` returns}, for instance of two fusions.
    categories: theirs.

  Returns:
    Lines of equal columns: All, Things and Stuff with PQ, SQ, RQ and N of each named result, then
    each category with its PQ.
  """
  names = {category.id: shown(category.name) for category in categories}
  label_width = max(map(len, [*_GROUPS, *names.values()]))
  headings = [shown(name) for name in results]
  widths = [max(len(heading), 4 * _CELL_WIDTH) for heading in headings]

  def row(label: str, groups: Sequence[str]) -> str:
    cells = [group.ljust(width) for group, width in zip(groups, widths, strict=True)]
    return ' | '.join([label.ljust(label_width), *cells]).rstrip()

  lines = [row('', headings), row('', [_cells('PQ', 'SQ', 'RQ', 'N')] * len(results))]
  rule = '-+-'.join('-' * width for width in [label_width, *widths])
  lines.append(rule)
  for group in _GROUPS:
    lines.append(row(group, [_summary_cells(result[group]) for result in results.values()]))
  lines.append(rule)
  for category in categories:
    scores = [result['per_class'][category.id] for result in results.values()]
    lines.append(row(names[category.id], [_cells(_percent(score['pq'])) for score in scores]))
  return '\n'.join(lines)


def _summary_cells(summary: dict) -> str:
  return _cells(*(_percent(summary[key]) for key in ('pq', 'sq', 'rq')), str(summary['n']))


def _cells(*texts: str) -> str:
  return ''.join(text.rjust(_CELL_WIDTH) for text in texts)


def _percent(fraction: float) -> str:
  return f'{100 * fraction:.1f}'
