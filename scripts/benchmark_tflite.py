#!/usr/bin/env python3
"""Measures what a trained network loses and gains as a TFLite file.

Exports all variants. They and the network in memory take turns on each image of the validation
shards. The figures are size, milliseconds from image to panoptic map, and panoptic quality. Scaling
and decoding, which a phone does outside of the file, do not count; the network in memory scales the
image itself.
"""

import argparse
import json
import os
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from oanet_tf import errors
from oanet_tf.export import NUM_CALIBRATION_IMAGES, NUM_IMAGES
from oanet_tf.model_folder import ModelFolder
from oanet_tf.serving import formats

if TYPE_CHECKING:
  import numpy as np

  from oanet_tf.data.panoptic_map import Segments
  from oanet_tf.serving.parity import Source

FORMATS = [name for name in formats.FORMATS if name.startswith('tflite_')]
IN_MEMORY, REFERENCE = 'in memory', 'tflite_float32'


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--model_dir', required=True, type=pathlib.Path, help='model folder')
  parser.add_argument('--output', type=pathlib.Path, help='JSON file for the figures')
  parsed = parser.parse_args()
  figures = measure(parsed.model_dir)
  print(f'{parsed.model_dir}, {os.cpu_count()} cores')
  print_table(figures)
  if parsed.output:
    parsed.output.write_text(json.dumps(figures, indent=1) + '\n')


def measure(model_dir: pathlib.Path) -> dict[str, dict[str, float]]:
  """`bytes`, milliseconds (`median`, `least`), `pq`, `pq_things`, `pq_stuff` of each contender.

  Raises:
    InputError: if the model folder or a shard cannot be read, or an export fails.
  """
  import tqdm

  from oanet_tf.evaluation.panoptic_quality import PanopticQuality

  folder = ModelFolder(model_dir)
  shards = folder.values['task.validation_data.input_path']
  source = load_source(folder)
  seconds, qualities = {}, {}
  with tempfile.TemporaryDirectory() as folder:
    sizes = {
      name: formats.export(name, source, pathlib.Path(folder, name, '1'))['bytes']
      for name in FORMATS
    }
    contenders = {IN_MEMORY: in_memory(source)}
    contenders |= {name: of_file(source, pathlib.Path(folder, name, '1')) for name in FORMATS}
    for turn, (picture, truth) in enumerate(tqdm.tqdm(examples(shards), unit='image')):
      for name, run in contenders.items():
        if not turn:
          # Compiles and warms up.
          run(picture)
        prediction, time_taken = run(picture)
        quality = qualities.setdefault(name, PanopticQuality(source.trained.categories))
        quality.update(truth, prediction)
        seconds.setdefault(name, []).append(time_taken)
  return {
    name: {
      'bytes': sizes.get(name, 0),
      'median': 1000 * statistics.median(seconds[name]),
      'least': 1000 * min(seconds[name]),
      **scores(quality.result()),
    }
    for name, quality in qualities.items()
  }


def scores(result: Mapping[str, dict]) -> dict[str, float]:
  groups = {'pq': 'All', 'pq_things': 'Things', 'pq_stuff': 'Stuff'}
  return {name: 100 * result[group]['pq'] for name, group in groups.items()}


def load_source(folder: ModelFolder) -> 'Source':
  """Loads the network as `oanet export` does by default."""
  from oanet_tf.serving import parity

  values = folder.values
  return parity.load_source(
    folder,
    values['task.model.fusion.method'],
    values['task.validation_data.output_size'],
    parity.shard_images(values['task.validation_data.input_path'], NUM_IMAGES),
    parity.shard_images(values['task.train_data.input_path'], NUM_CALIBRATION_IMAGES),
  )


def examples(input_path: str) -> 'Iterator[tuple[np.ndarray, Segments]]':
  """Images, [H, W, 3] uint8, and their ground truth."""
  import tensorflow as tf

  from oanet_tf.data import shard_files, tf_example

  for record in tf.data.TFRecordDataset(shard_files.list_shards(input_path)):
    decoded = {key: value.numpy() for key, value in tf_example.decode(record).items()}
    yield decoded['image'], tf_example.decoded_segments(decoded)


Contender = Callable[['np.ndarray'], tuple['Segments', float]]


def in_memory(source: 'Source') -> Contender:
  """Picture -> its segments, and the seconds to its map, as `oanet_tf.predict` runs the network."""
  import tensorflow as tf

  from oanet_tf.data.panoptic_map import segments_of_masks
  from oanet_tf.serving.panoptic_module import SEGMENT_INPUTS, PanopticModule

  module = PanopticModule(source.trained, source.method, segments_only=True)
  segment = tf.function(module.segment, SEGMENT_INPUTS, autograph=False)
  labels = source.trained.categories.label_of_id_table()

  def run(picture: 'np.ndarray') -> tuple['Segments', float]:
    start = time.perf_counter()
    outputs = segment(picture[None], [picture.shape[:2]])
    category, instance = (
      outputs[f'panoptic_{name}_mask'][0].numpy() for name in ('category', 'instance')
    )
    time_taken = time.perf_counter() - start
    return segments_of_masks(labels[category], instance, source.trained.categories), time_taken

  return run


def of_file(source: 'Source', folder: pathlib.Path) -> Contender:
  """The same with a TFLite file, from the letterboxed image to the map on its canvas."""
  from oanet_tf.data.panoptic_map import segments_of_masks
  from oanet_tf.serving import tflite
  from oanet_tf.serving.letterbox import from_canvas, letterbox

  segment = tflite.runner(folder / tflite.MODEL_FILE, num_threads=os.cpu_count())
  labels = source.trained.categories.label_of_id_table()

  def run(picture: 'np.ndarray') -> tuple['Segments', float]:
    canvas = letterbox(picture, source.image_size)[None]
    start = time.perf_counter()
    outputs = segment(image=canvas)
    time_taken = time.perf_counter() - start
    category, instance = (
      from_canvas(outputs[f'panoptic_{name}_mask'][0], picture.shape)
      for name in ('category', 'instance')
    )
    return segments_of_masks(labels[category], instance, source.trained.categories), time_taken

  return run


def print_table(figures: Mapping[str, Mapping[str, float]]) -> None:
  """Prints ratios to the float32 file, and losses to the network in memory."""
  reference, memory = figures[REFERENCE], figures[IN_MEMORY]
  print(
    f'{"":<14} |   size MB  share |  median ms  least ms  quicker × |    PQ   loss  things  stuff'
  )
  for name, of_name in figures.items():
    print(
      f'{name:<14} | {of_name["bytes"] / 1e6:9.1f} {of_name["bytes"] / reference["bytes"]:6.2f} '
      f'| {of_name["median"]:10.1f} {of_name["least"]:9.1f} '
      f'{reference["median"] / of_name["median"]:10.2f} '
      f'| {of_name["pq"]:5.2f} {memory["pq"] - of_name["pq"]:6.2f} '
      f'{of_name["pq_things"]:7.2f} {of_name["pq_stuff"]:6.2f}'
    )


if __name__ == '__main__':
  errors.run(main)
