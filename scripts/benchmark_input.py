#!/usr/bin/env python3
"""Measures the training input pipeline against the Model Garden's Mask R-CNN parser.

Both read the same COCO panoptic images with the same objects, each from its own records. Ours have
masks cropped to their boxes, and panoptic labels; the Model Garden's have full-size masks and no
panoptic labels. Every measurement is a process of its own, pinned to its cores. The two pipelines
take turns.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

SIZES = {'512x512': ([512, 512], 8), '800x1344': ([800, 1344], 2)}
PIPELINES = ('ours', 'model_garden')


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--image_dir', required=True, help='folder of the images')
  parser.add_argument('--panoptic_json', required=True, help='COCO panoptic annotations')
  parser.add_argument('--panoptic_dir', required=True, help='folder of the panoptic PNGs')
  parser.add_argument('--rounds', type=int, default=3, help='(default: %(default)s)')
  parser.add_argument('--seconds', type=float, default=10, help='per measurement (%(default)s)')
  parser.add_argument('--output', help='JSON file for the measurements')
  parser.add_argument('--measure', help=argparse.SUPPRESS)
  arguments = parser.parse_args()
  if arguments.measure:
    print(json.dumps(measure(**json.loads(arguments.measure), seconds=arguments.seconds)))
    return
  with tempfile.TemporaryDirectory() as folder:
    write_records(arguments, pathlib.Path(folder))
    rows = [compare(arguments, folder, size, cores) for size in SIZES for cores in (1, 2)]
  print_table(rows)
  if arguments.output:
    pathlib.Path(arguments.output).write_text(json.dumps(rows, indent=1) + '\n')


def write_records(arguments: argparse.Namespace, folder: pathlib.Path) -> None:
  """`folder/ours-…` and `folder/model_garden.tfrecord`."""
  from oanet_tf.data import convert

  convert.convert(
    arguments.image_dir, arguments.panoptic_json, arguments.panoptic_dir, folder, 'ours'
  )
  import tensorflow as tf

  from oanet_tf.data import coco_json, coco_panoptic

  dataset = coco_json.load(arguments.panoptic_json, arguments.panoptic_dir, arguments.image_dir)
  with tf.io.TFRecordWriter(str(folder / 'model_garden.tfrecord')) as writer:
    for entry in dataset.entries:
      record = coco_panoptic.read_record(entry, dataset.categories)
      writer.write(model_garden_example(record, dataset.categories))


def model_garden_example(record, categories) -> bytes:  # noqa: ANN001
  """The record as the wheel's `create_coco_tf_record` writes it, with full-size masks."""
  import numpy as np
  import tensorflow as tf
  from official.vision.data import tfrecord_lib

  features = tfrecord_lib.image_info_to_feature_dict(
    record.height, record.width, record.file_name, record.image_id, record.encoded_image,
    record.image_format,
  )  # fmt: skip
  pngs = []
  for (y1, x1, y2, x2), mask in zip(
    record.objects.boxes.astype(int), record.objects.masks, strict=True
  ):
    full = np.zeros((record.height, record.width), np.uint8)
    full[y1:y2, x1:x2] = mask
    pngs.append(tfrecord_lib.encode_mask_as_png(full))
  if pngs:
    sides = record.objects.boxes / np.tile([record.height, record.width], 2)
    names = ('ymin', 'xmin', 'ymax', 'xmax')
    for name, side in zip(names, sides.T, strict=True):
      key = f'image/object/bbox/{name}'
      features[key] = tfrecord_lib.convert_to_feature(side.tolist())
    for key, values in {
      'class/label': record.objects.category_ids.tolist(),
      'is_crowd': record.objects.is_crowd.astype(int).tolist(),
      'area': [float(mask.sum()) for mask in record.objects.masks],
      'mask': pngs,
    }.items():
      kind = 'float_list' if key == 'area' else None
      features[f'image/object/{key}'] = tfrecord_lib.convert_to_feature(values, kind)
  example = tf.train.Example(features=tf.train.Features(feature=features))
  return example.SerializeToString()


def compare(arguments: argparse.Namespace, folder: str, size: str, cores: int) -> dict:
  """Rounds of both pipelines, taking turns -> medians and their ratio."""
  measured = {name: [] for name in PIPELINES}
  for _ in range(arguments.rounds):
    for name in PIPELINES:
      options = json.dumps({'pipeline': name, 'folder': folder, 'size': size, 'cores': cores})
      flags = ['--image_dir', '-', '--panoptic_json', '-', '--panoptic_dir', '-']
      command = [sys.executable, __file__, *flags, '--measure', options]
      command += ['--seconds', str(arguments.seconds)]
      done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
      measured[name].append(json.loads(done.stdout.splitlines()[-1]))
  median = {
    name: {
      key: sorted(run[key] for run in runs)[len(runs) // 2]
      for key in ('images_per_second', 'peak_mb')
    }
    for name, runs in measured.items()
  }
  rates = [median[name]['images_per_second'] for name in PIPELINES]
  return {'size': size, 'cores': cores, **median, 'ratio': rates[0] / rates[1]}


def measure(pipeline: str, folder: str, size: str, cores: int, seconds: float) -> dict:
  """Images per second of one pipeline after its first batches, and peak memory of the process."""
  os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
  import resource

  output_size, batch_size = SIZES[size]
  make = {'ours': our_dataset, 'model_garden': model_garden_dataset}[pipeline]
  batches = iter(make(folder, output_size, batch_size))
  for _ in range(3):
    next(batches)
  count, start = 0, time.perf_counter()
  while (elapsed := time.perf_counter() - start) < seconds:
    next(batches)
    count += batch_size
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
  return {'images_per_second': count / elapsed, 'peak_mb': peak}


def our_dataset(folder: str, output_size: list[int], batch_size: int):  # noqa: ANN201
  from oanet_tf.config import experiments
  from oanet_tf.data import input_pipeline
  from oanet_tf.data.categories import PanopticCategories

  task = experiments.load_experiment('oanet_r50fpn_coco').task
  task.train_data.override(
    {'input_path': f'{folder}/ours-*', 'output_size': output_size, 'global_batch_size': batch_size,
     'shuffle_buffer_size': 50}
  )  # fmt: skip
  categories = PanopticCategories.from_json(f'{folder}/categories.json')
  return input_pipeline.training_input(task.replace(seed=0), categories)


def model_garden_dataset(folder: str, output_size: list[int], batch_size: int):  # noqa: ANN201
  import tensorflow as tf
  from official.core import input_reader
  from official.vision.configs import maskrcnn
  from official.vision.dataloaders import maskrcnn_input, tf_example_decoder

  config = maskrcnn.DataConfig(
    input_path=f'{folder}/model_garden.tfrecord',
    global_batch_size=batch_size,
    is_training=True,
    shuffle_buffer_size=50,
  )
  decoder = tf_example_decoder.TfExampleDecoder(include_mask=True)
  anchors = maskrcnn.Anchor()
  parser = maskrcnn_input.Parser(
    output_size=output_size,
    min_level=2,
    max_level=6,
    num_scales=anchors.num_scales,
    aspect_ratios=anchors.aspect_ratios,
    anchor_size=anchors.anchor_size,
    aug_rand_hflip=True,
    include_mask=True,
    dtype='float32',
  )
  reader = input_reader.InputReader(
    config,
    dataset_fn=tf.data.TFRecordDataset,
    decoder_fn=decoder.decode,
    parser_fn=parser.parse_fn(is_training=True),
  )
  return reader.read()


def print_table(rows: list[dict]) -> None:
  print(f'{"size":>9} {"cores":>5} | {"ours":>16} | {"Model Garden":>16} | ratio')
  for row in rows:
    cells = [
      f'{row[name]["images_per_second"]:6.1f}/s {row[name]["peak_mb"]:5.0f} MB'
      for name in PIPELINES
    ]
    print(f'{row["size"]:>9} {row["cores"]:>5} | {cells[0]} | {cells[1]} | {row["ratio"]:.2f}')


if __name__ == '__main__':
  from oanet_tf import errors

  errors.run(main)
