"""Scores panoptic predictions: `python -m oanet_tf.pq --help`."""

import argparse
import functools
import json
import pathlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from oanet_tf import errors
from oanet_tf.arguments import positive
from oanet_tf.errors import InputError

if TYPE_CHECKING:
  # Loaded in the functions that use them, so that `--help` does without.
  import numpy as np

  from oanet_tf.data.categories import PanopticCategories
  from oanet_tf.evaluation.coco_results import Annotation

# Images that a process scores at a time; their sums are added in order, whatever the processes.
_IMAGES_AT_A_TIME = 16


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    prog='python -m oanet_tf.pq',
    description="Panoptic quality of predictions in COCO's panoptic format, equal to panopticapi's "
    'but for areas: a segment has as many pixels as its PNG shows, whatever `area` says.',
  )
  parser.add_argument('--gt_json', required=True, help='truth: COCO panoptic JSON')
  parser.add_argument('--gt_dir', help='its PNGs (default: the JSON without .json)')
  parser.add_argument('--pred_json', required=True, help='predictions: COCO panoptic JSON')
  parser.add_argument('--pred_dir', help='their PNGs (default: the JSON without .json)')
  parser.add_argument('--output', type=pathlib.Path, help="JSON file for panopticapi's result")
  parser.add_argument('--num_workers', type=positive, help='processes (default: one a core)')
  return parser.parse_args(arguments)


def main() -> None:
  arguments = parse_arguments()
  from oanet_tf.evaluation.panoptic_quality import format_table

  results, categories = score(
    arguments.gt_json,
    arguments.gt_dir or _folder_of(arguments.gt_json),
    arguments.pred_json,
    arguments.pred_dir or _folder_of(arguments.pred_json),
    arguments.num_workers,
  )
  print(format_table({pathlib.Path(arguments.pred_json).name: results}, categories))
  if arguments.output:
    write_json(arguments.output, results)


def _folder_of(json_path: str) -> str:
  return json_path.removesuffix('.json')


def score(
  gt_json: str, gt_dir: str, pred_json: str, pred_dir: str, num_workers: int | None = None
) -> tuple[dict, 'PanopticCategories']:
  """Panoptic quality of files, with a progress bar.

  Args:
    gt_json: truth, with `categories`.
    gt_dir: its PNGs.
    pred_json: predictions for the same images; only their `annotations` are read.
    pred_dir: their PNGs.
    num_workers: processes; default: the number of CPUs.

  Returns:
    What `panoptic_quality.summarize` gives, which is panopticapi's; and the truth's categories.

  Raises:
    InputError: if a file or folder is missing or malformed, the images are not the same, or what
      `PanopticQuality.update` refuses; with the file and the image's id.
  """
  import tqdm

  from oanet_tf.data.parallel import map_in_order
  from oanet_tf.evaluation.coco_results import read_annotations
  from oanet_tf.evaluation.panoptic_quality import PanopticQuality

  for folder in (gt_dir, pred_dir):
    if not pathlib.Path(folder).is_dir():
      raise InputError(f'{folder}: there is no such folder of PNGs')
  categories, truths = _read_truth(gt_json, gt_dir)
  predictions = read_annotations(pred_json, pred_dir)
  for json_path, annotations in ((gt_json, truths), (pred_json, predictions)):
    _check_categories(annotations, categories, json_path, gt_json)
  pairs = _pair(truths, predictions, gt_json, pred_json)
  chunks = [pairs[i : i + _IMAGES_AT_A_TIME] for i in range(0, len(pairs), _IMAGES_AT_A_TIME)]
  results = map_in_order(functools.partial(_score_pairs, categories), chunks, num_workers)
  quality = PanopticQuality(categories)
  with tqdm.tqdm(total=len(pairs), desc='scoring', unit='image', file=sys.stderr) as progress:
    for chunk, statistics in zip(chunks, results, strict=True):
      quality.statistics += statistics
      progress.update(len(chunk))
  return quality.result(), categories


def _read_truth(gt_json: str, gt_dir: str) -> tuple['PanopticCategories', list['Annotation']]:
  from oanet_tf.data.categories import PanopticCategories
  from oanet_tf.evaluation.coco_results import parse_annotations, read_panoptic_json

  content = read_panoptic_json(gt_json)
  categories = PanopticCategories.from_coco(content.get('categories'), gt_json)
  return categories, parse_annotations(content, gt_dir, gt_json)


def _score_pairs(
  categories: 'PanopticCategories', pairs: list[tuple['Annotation', 'Annotation']]
) -> 'np.ndarray':
  """`PanopticQuality.statistics` of some images."""
  from oanet_tf.evaluation.coco_results import read_segmentation
  from oanet_tf.evaluation.panoptic_quality import PanopticQuality

  quality = PanopticQuality(categories)
  for truth, prediction in pairs:
    quality.update(
      read_segmentation(truth), read_segmentation(prediction), truth.name, prediction.name
    )
  return quality.statistics


def _check_categories(
  annotations: list['Annotation'],
  categories: 'PanopticCategories',
  json_path: str,
  gt_json: str,
) -> None:
  for annotation in annotations:
    segments = zip(annotation.segment_ids, annotation.category_ids, strict=True)
    for segment_id, category_id in segments:
      if category_id not in categories:
        raise InputError(
          f'{json_path}: image {annotation.image_id}: segment {segment_id} is of category '
          f'{category_id}, which is not in `categories` of {gt_json}'
        )


def _pair(
  truths: list['Annotation'], predictions: list['Annotation'], gt_json: str, pred_json: str
) -> list[tuple['Annotation', 'Annotation']]:
  """Truth and prediction of each image, in the order of the truth."""
  if not truths:
    raise InputError(f'{gt_json}: `annotations` is empty')
  of_image = {prediction.image_id: prediction for prediction in predictions}
  for truth in truths:
    if truth.image_id not in of_image:
      raise InputError(f'{pred_json}: has no image {truth.image_id}, which {gt_json} has')
  known = {truth.image_id for truth in truths}
  for image_id in of_image:
    if image_id not in known:
      raise InputError(f'{pred_json}: has image {image_id}, which {gt_json} has not')
  return [(truth, of_image[truth.image_id]) for truth in truths]


def write_json(path: pathlib.Path, results: dict) -> None:
  """Writes results; whole or not at all.

  Raises:
    InputError: if there cannot be such a file.
  """
  from oanet_tf.files import replacing

  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
      temporary.write_text(json.dumps(results, indent=1) + '\n')
  except OSError as error:
    raise InputError(f'{path}: cannot be written ({error.strerror})') from None


if __name__ == '__main__':
  errors.run(main)
