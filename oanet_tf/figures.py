"""The paper's Figures 4 to 8 of any model and picture: `python -m oanet_tf.figures --help`."""

import argparse
import pathlib
from collections.abc import Sequence

from oanet_tf import errors, files
from oanet_tf.errors import InputError
from oanet_tf.model_folder import ModelFolder
from oanet_tf.training import series as series_lib

_FIGURES = {
  'ranking_map': ('Figure 4: the ranking scores of each category', 'one'),
  'gradients': ("Figure 5: each branch's gradient at the backbone, over training", 'none'),
  'sharing': ('Figure 6: networks side by side, such as with and without sharing', 'many'),
  'scores': ('Figure 7: each instance with its detection and its ranking score', 'one'),
  'fusions': ('Figure 8: merged by detection score, and by ranking score', 'many'),
}
_SEVERAL_MODELS = ('gradients', 'sharing')
_COMPARED = ('heuristic', 'srm')


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    prog='python -m oanet_tf.figures',
    description="Draws the paper's figures of trained models, as PNG.",
    epilog='Example: python -m oanet_tf.figures fusions --model_dir runs/quickstart/model '
    '--images one.jpg two.jpg --output figure_8.png',
  )
  subparsers = parser.add_subparsers(dest='figure', required=True, metavar='FIGURE')
  for name, (about, pictures) in _FIGURES.items():
    subparser = subparsers.add_parser(name, help=about, description=f'{about}.')
    several = name in _SEVERAL_MODELS
    subparser.add_argument(
      '--model_dir',
      required=True,
      nargs='+' if several else 1,
      type=pathlib.Path,
      help='folders of trainings' if several else 'folder of a training',
    )
    if pictures == 'one':
      subparser.add_argument('--image', required=True, dest='images', nargs=1, metavar='FILE')
    elif pictures == 'many':
      subparser.add_argument('--images', required=True, nargs='+', metavar='FILE_OR_DIR')
    subparser.add_argument('--output', required=True, type=pathlib.Path, help='PNG to write')
  return parser.parse_args(arguments)


def main() -> None:
  arguments = parse_arguments()
  if not arguments.output.parent.is_dir():
    raise InputError(f'{arguments.output}: there is no folder {arguments.output.parent}')
  if arguments.figure == 'gradients':
    draw_gradients(arguments.model_dir, arguments.output)
  else:
    draw_predictions(arguments)
  print(arguments.output)


def draw_gradients(model_dirs: Sequence[pathlib.Path], output: pathlib.Path) -> None:
  """Figure 5, of `gradient_norm/…` in the trainings' metrics."""
  series = {
    str(folder): series_lib.read_series(folder / series_lib.METRICS_FILE, ('gradient_norm/',))
    for folder in model_dirs
  }
  from oanet_tf.paper import drawings

  with files.replacing(output) as temporary:
    drawings.gradients(series, temporary)


def draw_predictions(arguments: argparse.Namespace) -> None:
  """The figures that need a network."""
  from oanet_tf.data.pictures import find_pictures

  model_dirs = arguments.model_dir
  for folder in model_dirs:
    ModelFolder(folder).fusion('srm')
  names = {name: folder for folder, name in zip(model_dirs, _names(model_dirs), strict=True)}
  pictures = find_pictures(arguments.images)
  # TensorFlow takes seconds to load; the arguments are good by now.
  from oanet_tf.paper import drawings
  from oanet_tf.paper.examples import predictions

  with files.replacing(arguments.output) as temporary:
    if arguments.figure == 'sharing':
      found = {name: list(predictions(one, pictures, ['srm'])) for name, one in names.items()}
      drawings.sharing(found, temporary)
      return
    of_pictures = list(predictions(model_dirs[0], pictures, _COMPARED))
    if arguments.figure == 'fusions':
      drawings.fusions(of_pictures, _COMPARED, temporary)
    else:
      draw = {'ranking_map': drawings.ranking_map, 'scores': drawings.scores}
      draw[arguments.figure](of_pictures[0], temporary)


def _names(model_dirs: Sequence[pathlib.Path]) -> list[str]:
  """What networks share, and their folders where that does not tell them apart."""
  modes = [ModelFolder(folder).values['task.model.sharing'] for folder in model_dirs]
  names = [f'sharing: {mode}' for mode in modes]
  if len(set(names)) == len(names):
    return names
  return [f'{name} ({folder})' for name, folder in zip(names, model_dirs, strict=True)]


if __name__ == '__main__':
  errors.run(main)
