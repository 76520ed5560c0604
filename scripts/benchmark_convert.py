#!/usr/bin/env python3
"""Measures the converter on COCO: its speed next to the TensorFlow Model Garden's, or its memory.

Speed is images/s of one core and bytes per image. Our converter and the Model Garden's
create_coco_tf_record, with masks and panoptic masks, take turns in one process. Objects are the
panoptic segments of things for both.

Memory (--memory_images 118287) is the peak of each of the converter's processes while it converts
the first thousands of so many images, whose annotations repeat those given.
"""

import argparse
import json
import pathlib
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any

from oanet_tf.errors import InputError, run

METHODS = ('model_garden', 'cropped', 'full_png')


def main(arguments: Sequence[str] | None = None) -> None:
  """The command line; `arguments` are `sys.argv[1:]` unless given."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--image_dir', required=True, help='folder of the images')
  parser.add_argument('--panoptic_json', required=True, help='COCO panoptic annotations')
  parser.add_argument('--panoptic_dir', required=True, help='folder of the panoptic PNGs')
  parser.add_argument('--rounds', type=int, default=5, help='turns of each (default: %(default)s)')
  parser.add_argument('--memory_images', type=int, help='measure memory with this many images')
  parser.add_argument(
    '--instances_json', help='its polygons are repeated by --memory_images, seven to an image'
  )
  parser.add_argument('--num_workers', type=int, default=2, help='for --memory_images')
  parser.add_argument('--output', type=pathlib.Path, help='JSON file to write')
  arguments = parser.parse_args(arguments)
  results = measure_memory(arguments) if arguments.memory_images else measure_speed(arguments)
  if arguments.output:
    arguments.output.write_text(json.dumps(results, indent=1) + '\n')


# Speed.


def measure_speed(arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
  """Prints a table; returns the medians of each method."""
  encoders, num_images = _encoders(arguments)
  seconds = {method: [] for method in METHODS}
  sizes = {}
  for _ in range(arguments.rounds):
    for method, encode_all in encoders.items():
      start = time.process_time()
      sizes[method] = sum(map(len, encode_all())) / num_images
      seconds[method].append(time.process_time() - start)
  results = {
    method: {
      'images_per_second_and_core': num_images / statistics.median(seconds[method]),
      'bytes_per_image': sizes[method],
    }
    for method in METHODS
  }
  _print_table(results, num_images, arguments.rounds)
  return results


def _print_table(results: dict[str, dict[str, float]], num_images: int, rounds: int) -> None:
  print(f'{num_images} images, medians of {rounds} rounds')
  print(f'{"":14}{"images/s/core":>14}{"ratio":>8}{"bytes/image":>14}{"ratio":>8}')
  reference = results['model_garden']
  for method, result in results.items():
    cells = [method.ljust(14)]
    for key, width in (('images_per_second_and_core', 14), ('bytes_per_image', 14)):
      digits = 1 if key.startswith('images') else 0
      cells += [f'{result[key]:{width},.{digits}f}', f'{result[key] / reference[key]:8.2f}']
    print(''.join(cells))


def _encoders(
  arguments: argparse.Namespace,
) -> tuple[dict[str, Callable[[], Iterator[bytes]]], int]:
  """A function by method that encodes all images, and the number of images."""
  from oanet_tf.data import coco_json, coco_panoptic, tf_example

  dataset = coco_json.load(arguments.panoptic_json, arguments.panoptic_dir, arguments.image_dir)
  categories = dataset.categories
  objects = [
    coco_panoptic.read_record(entry, categories, overlaps='none').objects
    for entry in dataset.entries
  ]
  annotations = [
    _annotations(one, entry.height, entry.width)
    for one, entry in zip(objects, dataset.entries, strict=True)
  ]
  entries = [
    entry._replace(instances=_instances(one))
    for one, entry in zip(annotations, dataset.entries, strict=True)
  ]

  def ours(mask_encoding: str) -> Iterator[bytes]:
    for entry in entries:
      yield tf_example.encode(coco_panoptic.read_record(entry, categories), mask_encoding)

  encoders = {
    'model_garden': _model_garden_encoder(arguments, annotations),
    'cropped': lambda: ours('cropped'),
    'full_png': lambda: ours('full_png'),
  }
  return encoders, len(entries)


def _annotations(objects: Any, height: int, width: int) -> list[dict]:
  """Objects as COCO's instance annotations, with uncompressed RLE."""
  import numpy as np

  annotations = []
  for i, ((y1, x1, y2, x2), mask) in enumerate(
    zip(objects.boxes.astype(int), objects.masks, strict=True)
  ):
    full = np.zeros([width, height], bool)
    full[x1:x2, y1:y2] = mask.T
    starts = np.flatnonzero(np.diff(full.ravel(), prepend=False))
    annotations.append(
      {
        'id': i,
        'category_id': int(objects.category_ids[i]),
        'iscrowd': int(objects.is_crowd[i]),
        'bbox': [int(x1), int(y1), int(x2 - x1), int(y2 - y1)],
        'area': int(mask.sum()),
        'segmentation': {
          'counts': np.diff([0, *starts, full.size]).tolist(),
          'size': [height, width],
        },
      }
    )
  return annotations


def _instances(annotations: list[dict]) -> list:
  from oanet_tf.data.objects import Instance

  return [
    Instance(a['id'], a['category_id'], bool(a['iscrowd']), a['segmentation']) for a in annotations
  ]


def load_model_garden() -> ModuleType:
  """The Model Garden's converter, ready to be called."""
  import numpy as np
  from absl import flags
  from official.vision.data import create_coco_tf_record
  from PIL import Image

  flags.FLAGS.mark_as_parsed()
  # It multiplies the uint8 of a PNG by 256: numpy 1 widens them, and numpy 2 raises an error.
  create_coco_tf_record.tfrecord_lib.read_image = lambda path: np.array(Image.open(path), np.uint32)
  return create_coco_tf_record


def _model_garden_encoder(
  arguments: argparse.Namespace, annotations: list[list[dict]]
) -> Callable[[], Iterator[bytes]]:
  model_garden = load_model_garden()
  content = json.loads(pathlib.Path(arguments.panoptic_json).read_bytes())
  images = {image['id']: image for image in content['images']}
  names = {category['id']: category['name'] for category in content['categories']}
  is_thing = {category['id']: category['isthing'] == 1 for category in content['categories']}
  # It takes the RLE of a crowd as it is, and any other RLE in a list.
  theirs = [
    [one if one['iscrowd'] else {**one, 'segmentation': [one['segmentation']]} for one in of_image]
    for of_image in annotations
  ]

  def encode_all() -> Iterator[bytes]:
    for panoptic, boxes in zip(content['annotations'], theirs, strict=True):
      example, _ = model_garden.create_tf_example(
        images[panoptic['image_id']],
        [arguments.image_dir],
        arguments.panoptic_dir,
        boxes,
        names,
        panoptic_annotation=panoptic,
        is_category_thing=is_thing,
        include_panoptic_masks=True,
        include_masks=True,
      )
      yield example.SerializeToString()

  return encode_all


# Memory.


def measure_memory(arguments: argparse.Namespace) -> dict[str, float]:
  """Prints and returns the peak resident memory of the converter's processes, in MB."""
  with tempfile.TemporaryDirectory() as folder:
    paths = _write_large_annotations(arguments, pathlib.Path(folder))
    output = pathlib.Path(folder, 'records')
    script = pathlib.Path(__file__).with_name('convert_coco_tfrecord.py')
    command = [sys.executable, str(script), '--output_dir', str(output), '--split', 'train']
    for key, value in paths.items():
      command += [f'--{key}', str(value)]
    process = subprocess.Popen([*command, '--num_workers', str(arguments.num_workers)])
    try:
      results = _watch(process, output)
    finally:
      process.send_signal(signal.SIGTERM)
      process.wait()
  print(' '.join(f'{key} {value:,.0f}' for key, value in results.items()))
  return results


def _write_large_annotations(
  arguments: argparse.Namespace, folder: pathlib.Path
) -> dict[str, str | pathlib.Path]:
  """Writes JSON files of --memory_images images; returns the converter's arguments."""
  if not arguments.instances_json:
    raise InputError('--memory_images needs --instances_json')
  panoptic = json.loads(pathlib.Path(arguments.panoptic_json).read_bytes())
  instances = json.loads(pathlib.Path(arguments.instances_json).read_bytes())
  image_of = {image['id']: image for image in panoptic['images']}
  images, annotations, objects = [], [], []
  for i in range(arguments.memory_images):
    annotation = panoptic['annotations'][i % len(panoptic['annotations'])]
    annotations.append({**annotation, 'image_id': i})
    images.append({**image_of[annotation['image_id']], 'id': i})
    for k in range(7 * i, 7 * i + 7):
      polygons = instances['annotations'][k % len(instances['annotations'])]
      if not polygons['iscrowd']:
        objects.append({**polygons, 'image_id': i, 'id': k})
  paths = {'panoptic_json': folder / 'panoptic.json', 'instances_json': folder / 'instances.json'}
  for path, listed, categories in (
    (paths['panoptic_json'], annotations, panoptic['categories']),
    (paths['instances_json'], objects, instances['categories']),
  ):
    with open(path, 'w') as file:
      json.dump({'images': images, 'annotations': listed, 'categories': categories}, file)
    print(f'{path.name}: {path.stat().st_size / 1e6:,.0f} MB, {len(listed):,} annotations')
  return {**paths, 'image_dir': arguments.image_dir, 'panoptic_dir': arguments.panoptic_dir}


def _watch(process: subprocess.Popen, output: pathlib.Path) -> dict[str, float]:
  """Peaks until six shards are written, some 3,000 images of COCO's size."""
  start, peaks = time.monotonic(), {}
  loaded_after = None
  while process.poll() is None and len(list(output.glob('*.tfrecord'))) < 6:
    for pid in (process.pid, *_children(process.pid)):
      peaks[pid] = max(peaks.get(pid, 0), _peak_megabytes(pid))
    if loaded_after is None and output.exists():
      loaded_after, after_loading = time.monotonic() - start, peaks[process.pid]
    time.sleep(0.2)
  if process.poll() is not None:
    raise InputError(f'the converter ended with code {process.returncode}')
  parent = peaks.pop(process.pid)
  return {
    'seconds_to_load': loaded_after,
    'parent_megabytes_after_loading': after_loading,
    'parent_megabytes': parent,
    'largest_worker_megabytes': max(peaks.values()),
  }


def _children(pid: int) -> list[int]:
  path = pathlib.Path(f'/proc/{pid}/task/{pid}/children')
  return [int(child) for child in path.read_text().split()]


def _peak_megabytes(pid: int) -> float:
  try:
    status = pathlib.Path(f'/proc/{pid}/status').read_text()
  except FileNotFoundError:  # The process has just ended.
    return 0
  lines = [line for line in status.splitlines() if line.startswith('VmHWM:')]
  return int(lines[0].split()[1]) / 1000 if lines else 0


if __name__ == '__main__':
  run(main)
