"""Writes OccludedScenes: `oanet scenes --help`."""

import argparse

from oanet_tf import errors
from oanet_tf.arguments import ArgumentParser
from oanet_tf.data.occluded_scenes.dataset import generate
from oanet_tf.data.occluded_scenes.scenes import ORDERS


def main() -> None:
  parser = ArgumentParser(
    prog='oanet scenes',
    description='Writes OccludedScenes, a small panoptic dataset in the layout of COCO.',
    formatter_class=argparse.ArgumentDefaultsHelpFormatter,
  )
  parser.add_argument(
    '--output_dir',
    required=True,
    default=argparse.SUPPRESS,  # Keeps "default: None" out of the help.
    help='folder to make; must be empty if it exists',
  )
  parser.add_argument('--num_train', type=int, default=1500, help='images of the train split')
  parser.add_argument('--num_val', type=int, default=200, help='images of the val split')
  parser.add_argument('--image_size', type=int, default=128, help='longer side, in pixels')
  parser.add_argument('--seed', type=int, default=0, help='the same seed gives the same bytes')
  parser.add_argument(
    '--order',
    choices=list(ORDERS),
    default='category',
    help='what decides which thing lies on top: mostly the categories, or what the scene shows',
  )
  arguments = parser.parse_args()
  generate(**vars(arguments))
  print(f'wrote {arguments.output_dir}')


if __name__ == '__main__':
  errors.run(main)
