"""Scores panoptic predictions: `oanet pq --help`."""

import argparse
import functools
import json
import os
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from oanet_tf import errors, files
from oanet_tf.arguments import ArgumentParser, add_overwrite, positive
from oanet_tf.errors import InputError
from oanet_tf.files import FilePath
from oanet_tf.printing import note

if TYPE_CHECKING:
  # Loaded in the functions that use them, so that `--help` does without.
  import numpy as np

  from oanet_tf.data.categories import PanopticCategories
  from oanet_tf.data.panoptic_json import Annotation


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
  parser = ArgumentParser(
    prog='oanet pq',
    description="Panoptic quality of predictions in COCO's panoptic format, equal to panopticapi's "
    'but for areas: a segment has as many pixels as its PNG shows, whatever `area` says.',
  )
  parser.add_argument('--gt_json', required=True, help='ground truth: COCO panoptic JSON')
  parser.add_argument('--gt_dir', help='its PNGs (default: the JSON without .json)')
  parser.add_argument('--pred_json', required=True, help='predictions: COCO panoptic JSON')
  parser.add_argument('--pred_dir', help='their PNGs (default: the JSON without .json)')
  parser.add_argument('--output', type=pathlib.Path, help="JSON file for panopticapi's result")
  add_overwrite(parser)
  parser.add_argument('--num_workers', type=positive, help='processes (default: one a core)')
  return parser.parse_args(arguments)


def main() -> None:
  arguments = parse_arguments()
  if arguments.output:
    inputs = [arguments.gt_json, arguments.pred_json]
    files.check_output_file(arguments.output, inputs, arguments.overwrite)
  from oanet_tf.evaluation.panoptic_quality import format_table

  results, categories = score(
    arguments.gt_json,
    arguments.gt_dir,
    arguments.pred_json,
    arguments.pred_dir,
    arguments.num_workers,
  )
  try:
    if arguments.output:
      files.write_text(arguments.output, json.dumps(results, indent=1) + '\n')
  finally:
    # Neither is lost if the other fails.
    print(format_table({pathlib.Path(arguments.pred_json).name: results}, categories))


def panoptic_quality(
  gt_json: FilePath,
  pred_json: FilePath,
  *,
  gt_dir: FilePath | None = None,
  pred_dir: FilePath | None = None,
  num_workers: int | None = None,
) -> dict[str, Any]:
  """Panoptic quality of predictions in COCO's panoptic format, with a progress bar.

  Args:
    gt_json: ground truth, with `categories`.
    pred_json: predictions for the same images, and perhaps others, which are left out. They belong
      together by image id or, if ids differ, by `file_name`.
    gt_dir, pred_dir: their PNGs; None takes the JSON's path without `.json`.
    num_workers: processes; None takes the number of CPUs.

  Returns:
    panopticapi's result: 'All', 'Things' and 'Stuff', each with 'pq', 'sq' and 'rq' from 0 to 1 and
    'n', the number of categories; and 'per_class', by category id.

  Raises:
    InputError: if a file or folder is missing or malformed, an image has no prediction, or a
      segment cannot be scored; it names the file and the image.
  """
  return score(gt_json, gt_dir, pred_json, pred_dir, num_workers)[0]


def score(
  gt_json: FilePath,
  gt_dir: FilePath | None,
  pred_json: FilePath,
  pred_dir: FilePath | None,
  num_workers: int | None = None,
) -> tuple[dict[str, Any], 'PanopticCategories']:
  """As `panoptic_quality`, with the categories of the ground truth."""
  from oanet_tf.data.categories import PanopticCategories
  from oanet_tf.data.panoptic_json import (
    check_categories,
    paired,
    parse_annotations,
    read_panoptic_json,
  )
  from oanet_tf.data.parallel import map_chunks
  from oanet_tf.evaluation.panoptic_quality import PanopticQuality

  gt_json, pred_json = os.fspath(gt_json), os.fspath(pred_json)
  gt_dir, pred_dir = (
    os.fspath(folder or json_path.removesuffix('.json'))
    for folder, json_path in ((gt_dir, gt_json), (pred_dir, pred_json))
  )
  for folder in (gt_dir, pred_dir):
    if not pathlib.Path(folder).is_dir():
      raise InputError(f'{folder}: there is no such folder of PNGs')
  content = read_panoptic_json(gt_json)
  categories = PanopticCategories.from_coco(content.get('categories'), gt_json)
  ground_truth = parse_annotations(content, gt_dir, gt_json)
  pred_content = read_panoptic_json(pred_json)
  predictions = parse_annotations(pred_content, pred_dir, pred_json, lowest_id=0)
  check_categories(ground_truth, categories, gt_json, gt_json)
  if not ground_truth:
    raise InputError(f'{gt_json}: `annotations` is empty')
  predictions, unpaired = paired(ground_truth, predictions, gt_json, pred_json)
  check_categories(predictions, categories, pred_json, gt_json)
  for line in (unpaired, _difference(pred_content, pred_json, categories, gt_json)):
    if line:
      note(line)
  pairs = list(zip(ground_truth, predictions, strict=True))
  quality = PanopticQuality(categories)
  score_pairs = functools.partial(_score_pairs, categories)
  for statistics in map_chunks(score_pairs, pairs, 'scoring', num_workers):
    quality.statistics += statistics
  return quality.result(), categories


def _difference(
  content: dict, source: str, categories: 'PanopticCategories', truth_source: str
) -> str | None:
  """The first category that has another name in the predictions' file; panopticapi reads none."""
  entries = content.get('categories')
  for entry in entries if isinstance(entries, list) else []:
    if isinstance(entry, dict) and isinstance(entry.get('id'), int) and entry['id'] in categories:
      name, known = entry.get('name'), categories.of_id(entry['id']).name
      if name is not None and name != known:
        return (
          f'{source}: category {entry["id"]} is {name!r}, but {known!r} in {truth_source}; scored '
          'by id all the same'
        )
  return None


def _score_pairs(
  categories: 'PanopticCategories', pairs: list[tuple['Annotation', 'Annotation']]
) -> 'np.ndarray':
  """`PanopticQuality.statistics` of some images."""
  import numpy as np

  from oanet_tf.evaluation.coco_results import read_pairs
  from oanet_tf.evaluation.panoptic_quality import PanopticQuality

  # After a block of this size was freed, glibc keeps the memory of one image for the next one.
  # Otherwise the system clears new pages for each, which takes a quarter of the time.
  np.empty(2**24, np.uint8)
  quality = PanopticQuality(categories)
  for ground_truth, prediction in pairs:
    found = read_pairs(ground_truth, prediction)
    quality.update_pairs(*found, ground_truth.name, prediction.name)
  return quality.statistics


if __name__ == '__main__':
  errors.run(main)
