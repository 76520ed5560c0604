"""Other packages that ours is compared with."""

import json
from typing import NamedTuple

import pytest
from hotcoco import panoptic

_GROUPS = {'All': None, 'Things': True, 'Stuff': False}
_NOTHING = {'pq': 0.0, 'sq': 0.0, 'rq': 0.0}


class Scores(NamedTuple):
  """Of the predictions in a JSON file.

  Attributes:
    statistics: {category id: (summed IoU, true positives, false positives, false negatives)}.
    result: as that of `PanopticQuality`, also in what is without any segment: zeros.
  """

  statistics: dict
  result: dict


def panopticapi(name):
  """A module of panopticapi; skips the test if it is not installed, as with Python 3.13."""
  reason = 'panopticapi is not installed (pip install --no-deps panopticapi-lite)'
  return pytest.importorskip(f'panopticapi.{name}', reason=reason)


def panopticapi_scores(truth, prediction):
  """`Scores` of two JSON files, whose PNGs are in the folders beside them."""
  evaluation = panopticapi('evaluation')
  content, predicted = (json.loads(path.read_text()) for path in (truth, prediction))
  categories = {category['id']: category for category in content['categories']}
  of_image = {annotation['image_id']: annotation for annotation in predicted['annotations']}
  pairs = [(annotation, of_image[annotation['image_id']]) for annotation in content['annotations']]
  folders = [str(path.with_suffix('')) for path in (truth, prediction)]
  counted = evaluation.pq_compute_single_core(0, pairs, *folders, categories)
  statistics = {
    i: (counted[i].iou, counted[i].tp, counted[i].fp, counted[i].fn) for i in categories
  }
  result = {'per_class': dict.fromkeys(categories, _NOTHING)}
  for group, is_thing in _GROUPS.items():
    try:
      result[group], per_class = counted.pq_average(categories, is_thing)
    except ZeroDivisionError:
      result[group], per_class = {**_NOTHING, 'n': 0}, {}
    result['per_class'] |= per_class
  return Scores(statistics, result)


def hotcoco_scores(truth, prediction):
  """Likewise; it has −1 where there is nothing to score."""
  found = panoptic.pq_compute(truth, prediction)
  per_class = found['per_class']
  result = {group: found[group] if found[group]['n'] else {**_NOTHING, 'n': 0} for group in _GROUPS}
  result['per_class'] = {
    i: {key: max(of_class[key], 0.0) for key in _NOTHING} for i, of_class in per_class.items()
  }
  statistics = {i: tuple(c[key] for key in ('iou', 'tp', 'fp', 'fn')) for i, c in per_class.items()}
  return Scores(statistics, result)


def approx(result):
  """Up to rounding, as sums are taken in another order."""
  return {
    key: {i: pytest.approx(scores, abs=1e-12) for i, scores in value.items()}
    if key == 'per_class'
    else pytest.approx(value, abs=1e-12)
    for key, value in result.items()
  }
