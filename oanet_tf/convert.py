"""Converts a COCO panoptic dataset to TFRecord shards: `oanet convert --help`."""

import argparse
import pathlib
from collections.abc import Sequence
from typing import get_args

from oanet_tf import errors
from oanet_tf.arguments import ArgumentParser, names, positive
from oanet_tf.data.coco_panoptic import LabelsAre
from oanet_tf.data.convert import (
  IMAGES_PER_SHARD,
  MAX_DEFAULT_SHARDS,
  OnError,
  check_inputs,
  convert,
)
from oanet_tf.data.objects import Overlaps
from oanet_tf.data.panoptic_of_instances import OnTop
from oanet_tf.data.resume import Split
from oanet_tf.data.tf_example import MaskEncoding
from oanet_tf.printing import shown


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
  parser = ArgumentParser(
    prog='oanet convert',
    description='Converts a COCO panoptic dataset, or the COCO export of a labelling tool, to '
    'TFRecord shards. If it is interrupted, the same command goes on where it stopped.',
  )
  images = parser.add_mutually_exclusive_group(required=True)
  images.add_argument('--image_dir', help='folder of the images')
  images.add_argument(
    '--without_images',
    dest='image_dir',
    action='store_const',
    const=None,
    help='images are not read, and are empty in the shards: enough for the ranking module alone',
  )
  parser.add_argument('--panoptic_json', help='COCO panoptic annotations, with --panoptic_dir')
  parser.add_argument('--panoptic_dir', help='folder of the panoptic PNGs')
  parser.add_argument(
    '--instances_json',
    help='COCO instance annotations, whose masks may overlap; objects of images that are not in '
    'them come from the panoptic masks. Without --panoptic_json, the panoptic masks are made of '
    'them',
  )
  parser.add_argument('--output_dir', required=True, help='folder of the shards')
  parser.add_argument('--split', required=True, help="how the shards' names begin, e.g. train")
  parser.add_argument(
    '--num_shards',
    type=positive,
    help=f'default: one per {IMAGES_PER_SHARD} images, at most {MAX_DEFAULT_SHARDS}',
  )
  parser.add_argument('--num_workers', type=positive, help='processes; default: the number of CPUs')
  parser.add_argument(
    '--on_error',
    choices=get_args(OnError),
    default='raise',
    help='raise: stop at the first image with an error (default); skip: leave such images out and '
    'list them in <split>_summary.json',
  )
  parser.add_argument(
    '--mask_encoding',
    choices=get_args(MaskEncoding),
    default='cropped',
    help='cropped: small and fast to decode (default); full_png: for the decoder of the '
    'TensorFlow Model Garden',
  )
  parser.add_argument(
    '--overlaps',
    choices=get_args(Overlaps),
    default='fill_holes',
    help='of objects that come from panoptic masks. fill_holes: fill holes that other things '
    'occupy (default); none: leave masks as they are',
  )
  parser.add_argument(
    '--conflicts_only',
    action='store_true',
    help='leave out images in which no objects of two categories share a pixel; the ranking module '
    'learns nothing from them',
  )
  parser.add_argument(
    '--things',
    type=names,
    metavar='NAME,…',
    help='the thing categories, where `isthing` of the JSON does not say so (some tools write 0 '
    'for all)',
  )
  parser.add_argument(
    '--labels_are',
    choices=get_args(LabelsAre),
    default='upright',
    help='of pictures that their EXIF data turns, where the size does not tell (half a turn, or '
    'square): whether annotations are of the picture as viewers show it (upright, default) or of '
    'the pixels as stored',
  )
  made = parser.add_argument_group('without --panoptic_json')
  made.add_argument(
    '--stuff',
    type=names,
    default=[],
    metavar='NAME,…',
    help='the stuff categories of --instances_json; all others are things. With --semantic_dir, '
    'also NAME=VALUE, the pixel value of a category that the JSON lacks',
  )
  made.add_argument(
    '--on_top',
    choices=get_args(OnTop),
    default='smaller',
    help='which of two masks lies on top. smaller: that of smaller area (default); later: that '
    'which comes later in the JSON',
  )
  made.add_argument(
    '--semantic_dir',
    help='folder of PNGs, named as the images, whose pixels are category ids: the stuff',
  )
  parsed = parser.parse_args(arguments)
  try:
    check_inputs(
      parsed.panoptic_json,
      parsed.panoptic_dir,
      parsed.instances_json,
      parsed.stuff,
      parsed.on_top,
      parsed.semantic_dir,
      parsed.things,
    )
  except errors.InputError as error:
    parser.error(str(error))
  return parsed


def main(arguments: Sequence[str] | None = None) -> None:
  """The command line; `arguments` are `sys.argv[1:]` unless given."""
  arguments = parse_arguments(arguments)
  summary = convert(**vars(arguments))
  print(shown(f'{arguments.output_dir}, split {arguments.split}: {summary}'))
  if summary.images_of_unsure_turn:
    print(
      f'{summary.images_of_unsure_turn} pictures are turned by their EXIF data, and their size '
      'does not tell whether their annotations are: these are taken as '
      f'{arguments.labels_are!r} (--labels_are)'
    )
  split = Split(pathlib.Path(arguments.output_dir), arguments.split)
  if summary.turned_images:
    print(
      f'The annotations of {summary.turned_images} pictures were turned upright with them; score '
      f'predictions against {split.upright_path}'
    )
  if summary.skipped_images:
    path = split.summary_path
    print(
      f'{path} lists the {summary.skipped_images} images with an error. Once they are repaired, '
      'the same command with --on_error=raise makes their shards again; if a JSON or a semantic '
      'PNG was changed, remove the shards and this summary before.'
    )


if __name__ == '__main__':
  errors.run(main)
