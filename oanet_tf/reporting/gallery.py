"""The report's images: ground truth, both fusions, ranking map, and the scores of instances."""

import html
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from oanet_tf.data.categories import PanopticCategories
from oanet_tf.data.panoptic_json import Annotation
from oanet_tf.data.panoptic_map import Segments
from oanet_tf.errors import InputError
from oanet_tf.evaluation.coco_results import read_segments
from oanet_tf.evaluation.details import Details, Detection
from oanet_tf.reporting import pictures
from oanet_tf.reporting.comparison import ImageComparison
from oanet_tf.reporting.html_table import Cell, Column, count, percent_difference, table, text
from oanet_tf.reporting.reading import Evaluation
from oanet_tf.reporting.tables import category_cell

_NOTABLE_CHANGE = 0.1


class Instance(NamedTuple):
  """A detection as the report shows it.

  Attributes:
    name: category and number; detections are numbered from 1 by descending score.
    detection: what was detected.
    pixels: how many of its pixels each compared fusion shows.
  """

  name: str
  detection: Detection
  pixels: tuple[int, ...]

  @property
  def change(self) -> float:
    """The fraction of its visible pixels that only one fusion shows, in [0, 1]."""
    return (max(self.pixels) - min(self.pixels)) / max(*self.pixels, 1)


def article(evaluation: Evaluation, index: int, comparison: ImageComparison) -> str:
  """Renders one image: the panels of the paper's Figure 8 and the scores of its Figure 7.

  Args:
    evaluation: with details.
    index: of the image.
    comparison: of the image.

  Raises:
    InputError: if a file of the image is missing or damaged.
  """
  details, categories = evaluation.details, evaluation.categories
  annotation = details.ground_truth[index]
  ground_truth = read_segments(annotation)
  fusions = {
    name: read_segments(one)
    for name, one in zip(evaluation.compared, evaluation.predictions[index], strict=True)
  }
  instances = instances_of(details.detections[annotation.image_id], fusions, categories)
  panels = [_panel('image'), _segments_panel('truth', ground_truth, categories)]
  for (name, prediction), pq in zip(fusions.items(), comparison.pq, strict=True):
    names = {
      one.detection.segment_ids[name]: one.name
      for one in sorted(instances, key=lambda one: -one.change)
      if name in one.detection.segment_ids
    }
    panels.append(_segments_panel(f'{name}: PQ {100 * pq:.1f}', prediction, categories, names))
  panels.append(_ranking_panel(details, annotation, list(fusions.values()), categories))
  gain = percent_difference(comparison.gain)
  height, width = ground_truth.index.shape
  return (
    f'<article style="--ratio:{width / height:.4f};--picture:url({_picture(details, annotation)})">'
    f'<h3>Image {html.escape(str(annotation.image_id))}: PQ '
    f'<span class="{gain.style}">{gain.content}</span></h3>\n'
    f'<div class="panels">{"".join(panels)}\n'
    f'<div class="instances">{_instances_table(instances, list(fusions), categories)}</div>'
    '</div></article>'
  )


def instances_of(
  detections: Sequence[Detection],
  fusions: dict[str, Segments],
  categories: PanopticCategories,
) -> list[Instance]:
  """Names the detections of an image and counts their visible pixels; keeps their order."""
  areas = {}
  for name, fusion in fusions.items():
    pixels = np.bincount(fusion.index.ravel(), minlength=1 + len(fusion.ids))[1:]
    areas[name] = dict(zip(fusion.ids.tolist(), pixels.tolist(), strict=True))
  return [
    Instance(
      f'{categories.of_id(one.category_id).name} {number}',
      one,
      tuple(areas[fusion].get(one.segment_ids.get(fusion), 0) for fusion in fusions),
    )
    for number, one in enumerate(detections, start=1)
  ]


def _picture(details: Details, annotation: Annotation) -> str:
  path = details.picture_path(annotation)
  try:
    return pictures.data_uri(path.read_bytes(), 'image/jpeg')
  except OSError as error:
    raise InputError(f'{path}: cannot be read ({error.strerror})') from None


def _panel(caption: str, layer: str = '', style: str = '') -> str:
  """A layer over the image, which the article's style provides."""
  return (
    f'<figure><div class="canvas{style}">{layer}</div>'
    f'<figcaption>{html.escape(caption)}</figcaption></figure>'
  )


def _image(png: bytes, description: str) -> str:
  source = pictures.data_uri(png, 'image/png')
  return f'<img src="{source}" alt="{html.escape(description)}">'


def _segments_panel(
  caption: str,
  segmentation: Segments,
  categories: PanopticCategories,
  names: dict[int, str] | None = None,
) -> str:
  """Segments with their categories' names, or those of `names` by id, most important first."""
  names = names or {}
  segments = zip(segmentation.ids.tolist(), segmentation.category_ids.tolist(), strict=True)
  texts = [names.get(segment_id) or categories.of_id(i).name for segment_id, i in segments]
  labels = pictures.place_labels(segmentation, texts, first=list(names))
  layer = _image(
    pictures.segment_layer(segmentation, categories), f'{caption}: {", ".join(texts) or "void"}'
  )
  layer += ''.join(
    f'<span class="label" style="left:{one.x}%;top:{one.y}%">{html.escape(one.text)}</span>'
    for one in labels
  )
  return _panel(caption, layer)


def _ranking_panel(
  details: Details,
  annotation: Annotation,
  fusions: Sequence[Segments],
  categories: PanopticCategories,
) -> str:
  has_instance = np.zeros(fusions[0].index.shape, bool)
  for one in fusions:
    has_instance |= np.concatenate([[False], one.is_thing(categories)])[one.index]
  ranking_map = details.ranking_map(annotation, categories.num_things)
  layer = pictures.ranking_layer(ranking_map, has_instance, categories)
  return _panel('ranking map', _image(layer, 'ranking map'), ' faded')


def _instances_table(
  instances: Sequence[Instance], compared: Sequence[str], categories: PanopticCategories
) -> str:
  if not instances:
    return '<p>No instance was detected.</p>'
  titles = ['Detection score', 'Ranking score', *(f'Pixels {name}' for name in compared)]
  columns = [Column('Instance', is_number=False), *map(Column, titles)]
  rows = []
  for one in instances:
    style = 'differs' if one.change > _NOTABLE_CHANGE else ''
    category = categories.of_id(one.detection.category_id)
    scores = (one.detection.detection_score, one.detection.ranking_score)
    rows.append(
      [
        category_cell(category, one.name, style),
        *(text(f'{score:.3f}', style) for score in scores),
        *(_pixels(number, style) for number in one.pixels),
      ]
    )
  return table('Detected instances', columns, rows)


def _pixels(number: int, style: str) -> Cell:
  return count(number)._replace(style=style) if number else text('hidden', style)
