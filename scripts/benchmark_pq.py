#!/usr/bin/env python3
"""Measures the scorer of files next to others: images of a second of CPU time, and peak memory.

The others are panopticapi and, if it is installed, hotcoco. All take turns on the same files, each
time in a new process, from reading the JSON files to the result, without imports. Without
--gt_json, OccludedScenes is generated. Without --pred_json, the predictions are the ground truth
moved by a few pixels.
"""

import argparse
import contextlib
import importlib.util
import json
import multiprocessing
import os
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple

from oanet_tf.errors import InputError, run

REFERENCE = 'panopticapi'


class Files(NamedTuple):
  """The files that all score."""

  gt_json: str
  gt_dir: str
  pred_json: str
  pred_dir: str


class Measurement(NamedTuple):
  """One turn: CPU time, peak resident memory, and the result."""

  seconds: float
  megabytes: float
  result: dict


def main(arguments: Sequence[str] | None = None) -> None:
  """The command line; `arguments` are `sys.argv[1:]` unless given."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--gt_json', help='ground truth: COCO panoptic JSON')
  parser.add_argument('--gt_dir', help='its PNGs (default: the JSON without .json)')
  parser.add_argument('--pred_json', help='predictions: COCO panoptic JSON')
  parser.add_argument('--pred_dir', help='their PNGs (default: the JSON without .json)')
  parser.add_argument(
    '--num_images', type=int, help='repeat the images under new ids until there are this many'
  )
  parser.add_argument('--rounds', type=int, default=5, help='turns of each (default: %(default)s)')
  parser.add_argument('--output', type=pathlib.Path, help='JSON file to write')
  arguments = parser.parse_args(arguments)
  if arguments.pred_json and not arguments.gt_json:
    raise InputError('--pred_json needs --gt_json')
  check_panopticapi()
  with tempfile.TemporaryDirectory() as folder:
    results = measure(_files(arguments, pathlib.Path(folder)), arguments.rounds)
  if arguments.output:
    arguments.output.write_text(json.dumps(results, indent=1) + '\n')


def check_panopticapi() -> None:
  """Raises `InputError` if panopticapi is not installed."""
  # It asks for numpy 1 but works with numpy 2, and all else that it asks for is here.
  if importlib.util.find_spec('panopticapi') is None:
    raise InputError('panopticapi is missing: pip install --no-deps panopticapi-lite')


def methods() -> list[str]:
  """Of those that are installed."""
  return [REFERENCE, 'oanet_tf', *(['hotcoco'] if importlib.util.find_spec('hotcoco') else [])]


def measure(files: Files, rounds: int) -> dict[str, dict[str, float]]:
  """Prints a table; returns the medians of each method."""
  num_images = len(json.loads(pathlib.Path(files.gt_json).read_bytes())['annotations'])
  turns = {method: [] for method in methods()}
  for _ in range(rounds):
    for method in turns:
      turns[method].append(_in_new_process(_measure, method, files))
  results = {
    method: {
      'images_per_second_and_core': num_images / statistics.median(turn.seconds for turn in of_it),
      'peak_megabytes': statistics.median(turn.megabytes for turn in of_it),
    }
    for method, of_it in turns.items()
  }
  _print_table(results, num_images, rounds)
  reference, *others = (of_it[0].result for of_it in turns.values())
  difference = max(_largest_difference(reference, other) for other in others)
  print(f'largest difference of a score: {difference:.1e}')
  return results


def _print_table(results: dict[str, dict[str, float]], num_images: int, rounds: int) -> None:
  print(f'{num_images} images, medians of {rounds} rounds')
  print(f'{"":14}{"images/s/core":>14}{"ratio":>8}{"peak MB":>10}')
  reference = results[REFERENCE]['images_per_second_and_core']
  for method, result in results.items():
    speed = result['images_per_second_and_core']
    print(
      f'{method:14}{speed:14.1f}{speed / reference:8.2f}{result["peak_megabytes"]:10.0f}',
    )


def _largest_difference(one: dict, other: dict) -> float:
  pairs = [(one[group], other[group]) for group in ('All', 'Things', 'Stuff')]
  pairs += [(one['per_class'][i], other['per_class'][i]) for i in one['per_class']]
  return max(abs(a[key] - b[key]) for a, b in pairs for key in ('pq', 'sq', 'rq'))


def _in_new_process(function: Callable, *arguments: Any) -> Any:
  with ProcessPoolExecutor(1, multiprocessing.get_context('spawn')) as pool:
    return pool.submit(function, *arguments).result()


def _measure(method: str, files: Files) -> Measurement:
  # Imports are not timed.
  scorers = {REFERENCE: _panopticapi_scorer, 'oanet_tf': _our_scorer, 'hotcoco': _hotcoco_scorer}
  score = scorers[method]()
  with (
    open(os.devnull, 'w') as nothing,
    contextlib.redirect_stdout(nothing),
    contextlib.redirect_stderr(nothing),
  ):
    start = time.process_time()
    result = score(files)
    seconds = time.process_time() - start
  return Measurement(seconds, _peak_megabytes(), result)


def _peak_megabytes() -> float:
  lines = pathlib.Path('/proc/self/status').read_text().splitlines()
  [peak] = [line for line in lines if line.startswith('VmHWM:')]
  return int(peak.split()[1]) / 1000


def _our_scorer() -> Callable[[Files], dict]:
  import kornia_rs  # noqa: F401  Loaded by `pq.score`, as the next one.
  import tqdm  # noqa: F401

  from oanet_tf import pq
  from oanet_tf.evaluation import coco_results, panoptic_quality  # noqa: F401  Likewise.

  return lambda files: pq.score(*files, num_workers=1)[0]


def _panopticapi_scorer() -> Callable[[Files], dict]:
  """`panopticapi.evaluation.pq_compute` in this process only."""
  from panopticapi.evaluation import pq_compute_single_core

  def score(files: Files) -> dict:
    ground_truth, predictions = (
      json.loads(pathlib.Path(path).read_bytes()) for path in (files.gt_json, files.pred_json)
    )
    categories = {category['id']: category for category in ground_truth['categories']}
    of_image = {one['image_id']: one for one in predictions['annotations']}
    pairs = [(one, of_image[one['image_id']]) for one in ground_truth['annotations']]
    counts = pq_compute_single_core(0, pairs, files.gt_dir, files.pred_dir, categories)
    results = {}
    for group, is_thing in (('All', None), ('Things', True), ('Stuff', False)):
      results[group], per_class = counts.pq_average(categories, is_thing)
      if group == 'All':
        results['per_class'] = per_class
    return results

  return score


def _hotcoco_scorer() -> Callable[[Files], dict]:
  from hotcoco.panoptic import pq_compute

  def score(files: Files) -> dict:
    results = pq_compute(files.gt_json, files.pred_json, files.gt_dir, files.pred_dir)
    for scores in results['per_class'].values():
      # It has -1 where there is nothing to score.
      scores |= {key: max(scores[key], 0.0) for key in ('pq', 'sq', 'rq')}
    return results

  return score


# Files.


def _files(arguments: argparse.Namespace, folder: pathlib.Path) -> Files:
  gt_json = arguments.gt_json or _in_new_process(_write_scenes, folder)
  gt_dir = arguments.gt_dir or gt_json.removesuffix('.json')
  pred_json = arguments.pred_json or _in_new_process(_write_moved, gt_json, gt_dir, folder)
  pred_dir = arguments.pred_dir or pred_json.removesuffix('.json')
  if arguments.num_images:
    gt_json, pred_json = (
      _repeated(path, arguments.num_images, folder / f'{name}_repeated.json')
      for name, path in (('ground_truth', gt_json), ('prediction', pred_json))
    )
  return Files(gt_json, gt_dir, pred_json, pred_dir)


def _write_scenes(folder: pathlib.Path) -> str:
  """Generates OccludedScenes of a size like COCO's; returns the panoptic JSON."""
  from oanet_tf.data.occluded_scenes import dataset as occluded_scenes

  occluded_scenes.generate(folder / 'scenes', num_train=1, num_val=50, image_size=512)
  return str(folder / 'scenes' / 'annotations' / 'panoptic_val.json')


def _write_moved(gt_json: str, gt_dir: str, folder: pathlib.Path) -> str:
  """Writes the ground truth, moved, as predictions; returns their JSON."""
  import numpy as np

  from oanet_tf.data.categories import PanopticCategories
  from oanet_tf.evaluation.coco_results import PanopticResultsWriter, read_results

  categories = PanopticCategories.from_json(gt_json)
  with PanopticResultsWriter(folder, 'moved', categories) as writer:
    for image_id, ground_truth in read_results(gt_json, gt_dir):
      moved = np.roll(ground_truth.index, (7, 11), axis=(0, 1))
      writer.write(image_id, f'{image_id}.png', ground_truth._replace(index=moved))
  return str(folder / 'moved.json')


def _repeated(json_path: str, num_images: int, path: pathlib.Path) -> str:
  """The annotations, in the order of their images, again and again under new ids."""
  content = json.loads(pathlib.Path(json_path).read_bytes())
  annotations = sorted(content['annotations'], key=lambda one: str(one['image_id']))
  repeated = [{**annotations[i % len(annotations)], 'image_id': i} for i in range(num_images)]
  path.write_text(json.dumps({**content, 'images': [], 'annotations': repeated}))
  return str(path)


if __name__ == '__main__':
  run(main)
