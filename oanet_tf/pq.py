"""Scores panoptic predictions: `python -m oanet_tf.pq --help`."""

import argparse
import functools
import json
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from oanet_tf import errors
from oanet_tf.arguments import positive
from oanet_tf.errors import InputError

if TYPE_CHECKING:
  # Loaded in the functions that use them, so that `--help` does without.
  import numpy as np

  from oanet_tf.data.categories import PanopticCategories
  from oanet_tf.data.panoptic_json import Annotation


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    prog='python -m oanet_tf.pq',
    description="Panoptic quality of predictions in COCO's panoptic format, equal to panopticapi's "
    'but for areas: a segment has as many pixels as its PNG shows, whatever `area` says.',
  )
  parser.add_argument('--gt_json', required=True, help='ground truth: COCO panoptic JSON')
  parser.add_argument('--gt_dir', help='its PNGs (default: the JSON without .json)')
  parser.add_argument('--pred_json', required=True, help='predictions: COCO panoptic JSON')
  parser.add_argument('--pred_dir', help='their PNGs (default: the JSON without .json)')
  parser.add_argument('--output', type=pathlib.Path, help="JSON file for panopticapi's result")
  parser.add_argument('--num_workers', type=positive, help='processes (default: one a core)')
  return parser.parse_args(arguments)


def main() -> None:
  arguments = parse_arguments()
  from oanet_tf.evaluation.panoptic_quality import format_table
  from oanet_tf.files import write_text

  results, categories = score(
    arguments.gt_json,
    arguments.gt_dir or arguments.gt_json.removesuffix('.json'),
    arguments.pred_json,
    arguments.pred_dir or arguments.pred_json.removesuffix('.json'),
    arguments.num_workers,
  )
  print(format_table({pathlib.Path(arguments.pred_json).name: results}, categories))
  if arguments.output:
    write_text(arguments.output, json.dumps(results, indent=1) + '\n')


def score(
  gt_json: str, gt_dir: str, pred_json: str, pred_dir: str, num_workers: int | None = None
) -> tuple[dict, 'PanopticCategories']:
  """Panoptic quality of files, with a progress bar.

  Args:
    gt_json: ground truth, with `categories`.
    gt_dir: its PNGs.
    pred_json: predictions for the same images; only their `annotations` are read.
    pred_dir: their PNGs.
    num_workers: processes; default: the number of CPUs.

  Returns:
    What `PanopticQuality.result` gives, which is panopticapi's; and the categories.

  Raises:
    InputError: if a file or folder is missing or malformed, the images are not the same, or what
      `PanopticQuality.update` refuses; with the file and the image's id.
  """
  from oanet_tf.data.categories import PanopticCategories
  from oanet_tf.data.panoptic_json import (
    check_categories,
    in_order_of,
    parse_annotations,
    read_annotations,
    read_panoptic_json,
  )
  from oanet_tf.data.parallel import map_chunks
  from oanet_tf.evaluation.panoptic_quality import PanopticQuality

  for folder in (gt_dir, pred_dir):
    if not pathlib.Path(folder).is_dir():
      raise InputError(f'{folder}: there is no such folder of PNGs')
  content = read_panoptic_json(gt_json)
  categories = PanopticCategories.from_coco(content.get('categories'), gt_json)
  ground_truth = parse_annotations(content, gt_dir, gt_json)
  predictions = read_annotations(pred_json, pred_dir)
  check_categories(ground_truth, categories, gt_json, gt_json)
  check_categories(predictions, categories, pred_json, gt_json)
  if not ground_truth:
    raise InputError(f'{gt_json}: `annotations` is empty')
  predictions = in_order_of(ground_truth, predictions, gt_json, pred_json)
  pairs = list(zip(ground_truth, predictions, strict=True))
  quality = PanopticQuality(categories)
  score_pairs = functools.partial(_score_pairs, categories)
  for statistics in map_chunks(score_pairs, pairs, 'scoring', num_workers):
    quality.statistics += statistics
  return quality.result(), categories


def _score_pairs(
  categories: 'PanopticCategories', pairs: list[tuple['Annotation', 'Annotation']]
) -> 'np.ndarray':
  """`PanopticQuality.statistics` of some images."""
  import numpy as np

  from oanet_tf.evaluation.coco_results import read_segments
  from oanet_tf.evaluation.panoptic_quality import PanopticQuality

  # After a block of this size was freed, glibc keeps the memory of one image for the next one.
  # Otherwise the system clears new pages for each, which takes a quarter of the time.
  np.empty(2**24, np.uint8)
  quality = PanopticQuality(categories)
  for pair in pairs:
    quality.update(*map(read_segments, pair), *(one.name for one in pair))
  return quality.statistics


if __name__ == '__main__':
  errors.run(main)
