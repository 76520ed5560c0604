#!/usr/bin/env python3
"""Measures the fusions against panopticapi's merge on the same detections.

The detections are random, of COCO's 80 thing and 53 stuff categories, in a network input of the
image's size. A fusion starts from the network's boxes, masks, scores and stuff logits and ends with
the panoptic map; the time of srm includes the ranking module, that of pairwise the occlusion head
but for its first convolution, which is a layer of the network. panopticapi starts from run-length
encoded masks of the image's size and ends with a PNG; making its input is timed separately. All
take turns.
"""

import argparse
import contextlib
import io
import json
import os
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from benchmark_pq import check_panopticapi

from oanet_tf.errors import run

if TYPE_CHECKING:
  from oanet_tf.modeling.fusion.fuser import Fuser

NUM_THINGS, NUM_STUFF, STRIDE, MASK_SIDE = 80, 53, 4, 28
METHODS = ('heuristic', 'class_prior', 'srm', 'pairwise', 'upsnet')
OCCLUSION_FILTERS = 32
PARTS = ('stuff', 'ranking')


def main(arguments: list[str] | None = None) -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--height', type=int, default=480, help='(default: %(default)s)')
  parser.add_argument('--width', type=int, default=640, help='(default: %(default)s)')
  parser.add_argument('--instances', type=int, default=100, help='(default: %(default)s)')
  parser.add_argument(
    '--sides',
    type=float,
    nargs=2,
    default=(0.02, 0.6),
    metavar=('LEAST', 'GREATEST'),
    help="of boxes, as fractions of the image's; their logarithms are uniform (default: 0.02 0.6)",
  )
  parser.add_argument('--rounds', type=int, default=20, help='(default: %(default)s)')
  parser.add_argument('--output', type=pathlib.Path, help='JSON file for the milliseconds')
  parsed = parser.parse_args(arguments)
  check_panopticapi()
  times = measure((parsed.height, parsed.width), parsed.instances, parsed.sides, parsed.rounds)
  print(
    f'{parsed.instances} instances, {parsed.width} × {parsed.height}, {os.cpu_count()} cores, '
    f'{parsed.rounds} rounds'
  )
  print_table(times)
  if parsed.output:
    parsed.output.write_text(json.dumps(times, indent=1) + '\n')


def measure(
  size: tuple[int, int], number: int, sides: tuple[float, float], rounds: int
) -> dict[str, dict[str, float]]:
  """Milliseconds by contender: the `median` and the `least` of the rounds.

  Raises:
    AssertionError: if heuristic and panopticapi make different maps.
  """
  outputs = random_outputs(size, number, sides)
  functions = {name: fusion_of(name, size) for name in (*METHODS, *PARTS)}
  instances, stuff = reference_input(outputs, functions['stuff'], size)
  reference = run_reference(instances, stuff, size)
  assert same_map(functions['heuristic'](outputs), reference), 'panopticapi makes another map'
  contenders: dict[str, Callable[[], object]] = {
    **{name: lambda fuse=fuse: fuse(outputs) for name, fuse in functions.items()},
    'input of panopticapi': lambda: reference_input(outputs, functions['stuff'], size),
    'panopticapi': lambda: run_reference(instances, stuff, size),
  }
  seconds = {name: [] for name in contenders}
  for turn in range(rounds + 2):
    for name, contender in contenders.items():
      start = time.perf_counter()
      contender()
      # The first turns compile and warm up.
      if turn >= 2:
        seconds[name].append(time.perf_counter() - start)
  return {
    name: {'median': 1000 * statistics.median(times), 'least': 1000 * min(times)}
    for name, times in seconds.items()
  }


def print_table(times: dict[str, dict[str, float]]) -> None:
  reference = times['panopticapi']['median']
  with_input = reference + times['input of panopticapi']['median']
  print(f'{"ms":<20} {"median":>7} {"least":>7} | panopticapi takes × | with making its input ×')
  for name, of_name in times.items():
    median, least = of_name['median'], of_name['least']
    ratios = f'{reference / median:19.1f} | {with_input / median:.1f}' if name in METHODS else ''
    print(f'{name:<20} {median:7.1f} {least:7.1f} | {ratios}'.rstrip(' |'))
  print('stuff and ranking are parts of the fusions above')


def random_outputs(size: tuple[int, int], number: int, sides: tuple[float, float]) -> dict:
  """Random outputs of a network: discs of ten thing categories over blocks of ten stuff categories.

  Returns:
    `OANet`'s detections, stuff logits and reduced features for one image, as tensors.
  """
  import numpy as np
  import tensorflow as tf

  rng = np.random.default_rng(0)
  shares = np.exp(rng.uniform(*np.log(sides), (number, 2)))
  centres = rng.uniform(size=(number, 2))
  boxes = np.concatenate([centres - shares / 2, centres + shares / 2], axis=1).clip(0, 1)
  rows, columns = np.mgrid[:MASK_SIDE, :MASK_SIDE] + 0.5 - MASK_SIDE / 2
  radii = MASK_SIDE / 2 * rng.uniform(0.8, 1.2, (number, 1, 1))
  blocks = rng.choice(rng.choice(NUM_STUFF, 10, replace=False), (6, 8))
  logits = 5.0 * tf.one_hot(NUM_THINGS + blocks, NUM_THINGS + NUM_STUFF)[None]
  logits = tf.image.resize(logits, [side // STRIDE for side in size])
  classes = rng.choice(1 + rng.permutation(NUM_THINGS)[:10], (1, number))
  features = {
    f'occlusion_features_{level}': tf.constant(
      rng.uniform(size=(1, *(-(-side // 2**level) for side in size), OCCLUSION_FILTERS)), tf.float32
    )
    for level in range(2, 6)
  }
  return {
    **features,
    'detection_boxes': tf.constant(boxes[None] * np.tile(size, 2), tf.float32),
    'detection_masks': tf.sigmoid(tf.constant(radii - np.hypot(rows, columns), tf.float32))[None],
    'detection_scores': tf.constant(np.sort(rng.uniform(0.5, 1, (1, number)))[:, ::-1], tf.float32),
    'detection_classes': tf.constant(classes, tf.int32),
    'stuff_logits': logits + tf.constant(0.3 * rng.normal(size=logits.shape), tf.float32),
  }


def fusion_of(name: str, size: tuple[int, int]) -> Callable[[dict], object]:
  """A compiled fusion, or the part of it of that name: outputs -> arrays."""
  import tensorflow as tf

  from oanet_tf.modeling.fusion.methods import fuse

  fuser, info = build_fuser(), tf.constant([[size, size, [1, 1], [0, 0]]], tf.float32)

  @tf.function(autograph=False)
  def run(outputs: dict) -> object:
    batch = fuser.batch(outputs, info, size)
    parts = {'stuff': lambda: batch.stuff, 'ranking': lambda: batch.ranking.scores}
    return parts[name]() if name in PARTS else fuse(batch, name)

  return lambda outputs: tf.nest.map_structure(lambda tensor: tensor.numpy(), run(outputs))


def build_fuser() -> 'Fuser':
  import numpy as np

  from oanet_tf.config.definitions import Fusion
  from oanet_tf.modeling.fusion.fuser import Fuser
  from oanet_tf.modeling.occlusion_head import OcclusionHead
  from oanet_tf.modeling.spatial_ranking import SpatialRankingModule
  from oanet_tf.modeling.stuff_channels import StuffChannels

  class_prior = np.random.default_rng(0).uniform(size=(NUM_THINGS, NUM_THINGS))
  return Fuser(
    settings=Fusion(),
    num_things=NUM_THINGS,
    stuff_channels=StuffChannels.of_all(NUM_THINGS, NUM_STUFF),
    stuff_stride=STRIDE,
    ranking_module=SpatialRankingModule(num_things=NUM_THINGS, stride=STRIDE),
    occlusion_head=OcclusionHead(num_things=NUM_THINGS, num_filters=OCCLUSION_FILTERS),
    class_prior=class_prior.astype(np.float32),
  )


def reference_input(
  outputs: dict, stuff_of: Callable[[dict], object], size: tuple[int, int]
) -> tuple[list[dict], list[dict]]:
  """The same detections and stuff labels as panopticapi takes them: run-length encoded masks."""
  import numpy as np
  from pycocotools import mask as coco_mask

  from oanet_tf.modeling.mask_paste import paste_masks

  def annotation(label: int, mask: np.ndarray) -> dict:
    encoded = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    return {'category_id': int(label), 'segmentation': encoded}

  masks = paste_masks(outputs['detection_masks'], outputs['detection_boxes'], *size)[0] >= 0.5
  classes = outputs['detection_classes'].numpy()[0]
  labels = stuff_of(outputs)[0]
  return (
    [annotation(*pair) for pair in zip(classes, masks.numpy(), strict=True)],
    [annotation(label, labels == label) for label in np.unique(labels)],
  )


def run_reference(
  instances: list[dict], stuff: list[dict], size: tuple[int, int]
) -> tuple[bytes, list[dict]]:
  """panopticapi's merge -> its PNG, and the segments in it."""
  from panopticapi import combine_semantic_and_instance_predictions as reference

  from oanet_tf.config.definitions import Fusion

  # panopticapi varies the colours at random; near black, an instance may get 0, the id of void.
  categories = {
    label: {'id': label, 'isthing': int(label <= NUM_THINGS), 'color': [label + 50, 100, 150]}
    for label in range(1, 1 + NUM_THINGS + NUM_STUFF)
  }
  image = {'id': 1, 'file_name': 'picture.png', 'height': size[0], 'width': size[1]}
  settings = Fusion()
  with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
    (annotation,) = reference.combine_to_panoptic_single_core(
      0, [1], {1: image}, {1: instances}, {1: stuff}, folder, settings.overlap_threshold,
      settings.stuff_area_limit, categories,
    )  # fmt: skip
    return (pathlib.Path(folder) / 'picture.png').read_bytes(), annotation['segments_info']


def same_map(masks: tuple, reference: tuple[bytes, list[dict]]) -> bool:
  """Whether category and instance mask agree with panopticapi's result at every pixel."""
  import numpy as np
  from panopticapi.utils import rgb2id
  from PIL import Image

  png, segments = reference
  category, instance = (mask[0] for mask in masks)
  ids = rgb2id(np.array(Image.open(io.BytesIO(png))))
  expected = np.zeros_like(ids)
  for segment in segments:
    expected[ids == segment['id']] = segment['category_id']
  things = instance > 0
  pairs = np.unique([instance[things], ids[things]], axis=1)
  one_to_one = len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1]
  return bool((category == expected).all() and one_to_one)


if __name__ == '__main__':
  run(main)
