"""Draws the paper's Figures 4 to 8 of any model and image: `python -m oanet_tf.figures --help`."""

import argparse
import pathlib
from collections.abc import Sequence

from oanet_tf import errors
from oanet_tf.errors import InputError
from oanet_tf.paper import figures

# Name -> what it shows, and how many images it takes.
_FIGURES = {
  'ranking_map': ('Figure 4: the ranking scores of each category', 'one'),
  'gradients': ("Figure 5: each branch's gradient at the backbone, over training", 'none'),
  'sharing': ('Figure 6: networks side by side, such as with and without sharing', 'many'),
  'scores': ('Figure 7: each instance with its detection and its ranking score', 'one'),
  'fusions': ('Figure 8: merged by detection score, and by ranking score', 'many'),
}
_SEVERAL_MODELS = ('gradients', 'sharing')


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    prog='python -m oanet_tf.figures',
    description="Draws the paper's figures of trained models, as PNG.",
    epilog='Example: python -m oanet_tf.figures fusions --model_dir runs/quickstart/model '
    '--images one.jpg two.jpg --output figure_8.png',
  )
  subparsers = parser.add_subparsers(dest='figure', required=True, metavar='FIGURE')
  for name, (about, images) in _FIGURES.items():
    subparser = subparsers.add_parser(name, help=about, description=f'{about}.')
    several = name in _SEVERAL_MODELS
    subparser.add_argument(
      '--model_dir',
      required=True,
      nargs='+' if several else 1,
      type=pathlib.Path,
      help='folders of trainings' if several else 'folder of a training',
    )
    if images == 'one':
      subparser.add_argument('--image', required=True, dest='images', nargs=1, metavar='FILE')
    elif images == 'many':
      subparser.add_argument('--images', required=True, nargs='+', metavar='FILE_OR_DIR')
    subparser.add_argument('--output', required=True, type=pathlib.Path, help='PNG to write')
  return parser.parse_args(arguments)


def main() -> None:
  arguments = parse_arguments()
  if not arguments.output.parent.is_dir():
    raise InputError(f'{arguments.output}: there is no folder {arguments.output.parent}')
  if arguments.figure == 'gradients':
    figures.draw_gradients(arguments.model_dir, arguments.output)
  else:
    figures.draw_predictions(
      arguments.figure, arguments.model_dir, arguments.images, arguments.output
    )
  print(arguments.output)


if __name__ == '__main__':
  errors.run(main)
