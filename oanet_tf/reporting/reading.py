"""Reads and checks what an evaluation wrote."""

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

from oanet_tf.data.categories import PanopticCategories
from oanet_tf.data.json_file import read_json_object
from oanet_tf.data.panoptic_json import (
  Annotation,
  in_order_of,
  parse_annotations,
  read_panoptic_json,
)
from oanet_tf.errors import InputError
from oanet_tf.evaluation.details import Details, read_details

GROUPS = ('All', 'Things', 'Stuff')
_QUALITIES = ('pq', 'sq', 'rq')


class Evaluation(NamedTuple):
  """An evaluation and the two fusions to compare.

  Attributes:
    name: of its folder and the folder above.
    results: `PanopticQuality.result` of each fusion, with category ids as strings.
    compared: names of the first and the second fusion.
    categories: of the dataset.
    predictions: of both fusions for each image; in the order of `details.ground_truth`, if any.
    details: None if the evaluation wrote none.
  """

  name: str
  results: dict[str, dict]
  compared: tuple[str, str]
  categories: PanopticCategories
  predictions: list[tuple[Annotation, Annotation]]
  details: Details | None


def read_evaluation(folder: pathlib.Path, compared: Sequence[str]) -> Evaluation:
  """Reads the JSON files of an evaluation, but no images.

  Raises:
    InputError: if a file is missing or malformed, a fusion was not evaluated, or files disagree
      about the images.
  """
  if not folder.is_dir():
    raise InputError(f'{folder}: there is no such folder')
  results = read_json_object(folder / 'results.json')
  for fusion in compared:
    if fusion not in results:
      raise InputError(
        f'{folder / "results.json"}: has no fusion {fusion!r} but {", ".join(results) or "none"}; '
        '--compare takes two that it has'
      )
  sources = [f'{folder / fusion}.json' for fusion in compared]
  contents = [_read_predictions(source) for source in sources]
  categories = PanopticCategories.from_coco(contents[0].get('categories'), sources[0])
  for content, source in zip(contents[1:], sources[1:], strict=True):
    PanopticCategories.from_coco(content.get('categories'), source).check_same(categories)
  _check_results(results, categories, folder / 'results.json')
  annotations = [
    parse_annotations(content, folder / fusion, source)
    for content, fusion, source in zip(contents, compared, sources, strict=True)
  ]
  details = read_details(folder)
  lead, lead_source = annotations[0], sources[0]
  if details is not None:
    PanopticCategories.from_json(details.folder / 'truth.json').check_same(categories)
    lead, lead_source = details.ground_truth, str(details.folder / 'truth.json')
  first, second = (
    in_order_of(lead, of_fusion, lead_source, source)
    for of_fusion, source in zip(annotations, sources, strict=True)
  )
  predictions = list(zip(first, second, strict=True))
  # The folder is mostly called `evaluation`, so the model's name before it is needed too.
  name = '/'.join(folder.resolve().parts[-2:])
  evaluation = Evaluation(name, results, tuple(compared), categories, predictions, details)
  if details is not None:
    _check_detections(evaluation)
  return evaluation


def _read_predictions(path: str) -> dict:
  if not pathlib.Path(path).exists():
    raise InputError(f'{path}: there is no such file; only evaluation on one machine writes it')
  return read_panoptic_json(path)


def _check_results(results: dict, categories: PanopticCategories, path: pathlib.Path) -> None:
  try:
    for of_fusion in results.values():
      scores = [of_fusion[group] for group in GROUPS]
      scores += [of_fusion['per_class'][str(category.id)] for category in categories]
      for score in scores:
        for quality in _QUALITIES:
          float(score[quality])
  except (KeyError, TypeError, ValueError) as error:
    raise InputError(f'{path}: is not of an evaluation of these categories ({error!r})') from None


def _check_detections(evaluation: Evaluation) -> None:
  """Checks that details and predictions have the same instances, so are of one evaluation."""
  details, categories = evaluation.details, evaluation.categories
  thing_ids = {category.id for category in categories if category.is_thing}
  for pair in evaluation.predictions:
    for fusion, prediction in zip(evaluation.compared, pair, strict=True):
      segments = zip(prediction.segment_ids.tolist(), prediction.category_ids.tolist(), strict=True)
      detections = details.detections[prediction.image_id]
      shown = [one for one in detections if fusion in one.segment_ids]
      if {i: category_id for i, category_id in segments if category_id in thing_ids} != {
        one.segment_ids[fusion]: one.category_id for one in shown
      } or not {one.category_id for one in detections} <= thing_ids:
        raise InputError(
          f'{details.folder}: its instances of image {prediction.image_id} are not those of '
          f'{fusion}.json, so it is of another evaluation; evaluate again'
        )
