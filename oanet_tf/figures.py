"""Draws the paper's Figures 4 to 8 of any model and image: `oanet figures --help`."""

import argparse
import pathlib
from collections.abc import Sequence

from oanet_tf import errors, files
from oanet_tf.arguments import ArgumentParser, add_overwrite, names
from oanet_tf.data.pictures import find_pictures, read_picture
from oanet_tf.errors import InputError
from oanet_tf.model_folder import ModelFolder
from oanet_tf.training import series

# Name -> what it shows, and how many images it takes.
_FIGURES = {
  'ranking_map': ('Figure 4: the ranking scores of each category', 'one'),
  'gradients': ("Figure 5: each branch's gradient at the backbone, over training", 'none'),
  'sharing': ('Figure 6: networks side by side, such as with and without sharing', 'many'),
  'scores': ('Figure 7: each instance with its detection and its ranking score', 'one'),
  'fusions': ('Figure 8: merged by detection score, and by ranking score, or otherwise', 'many'),
}
_SEVERAL_MODELS = ('gradients', 'sharing')
_COMPARED = ('heuristic', 'srm')


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
  parser = ArgumentParser(
    prog='oanet figures',
    description="Draws the paper's figures of trained models, as PNG.",
    epilog='Example: oanet figures fusions --model_dir runs/quickstart/model '
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
    if name == 'fusions':
      subparser.add_argument(
        '--fusions',
        type=names,
        default=','.join(_COMPARED),
        metavar='NAME,…',
        help='(default: %(default)s)',
      )
    subparser.add_argument('--output', required=True, type=pathlib.Path, help='PNG to write')
    add_overwrite(subparser)
  return parser.parse_args(arguments)


def main() -> None:
  arguments = parse_arguments()
  output, images = arguments.output, getattr(arguments, 'images', [])
  fusions = getattr(arguments, 'fusions', _COMPARED)
  if arguments.figure != 'gradients':
    for folder in arguments.model_dir:
      for method in fusions:
        ModelFolder(folder).fusion(method)
  pictures = find_pictures(images) if images else []
  if len(pictures) > 1 and _FIGURES[arguments.figure][1] == 'one':
    raise InputError(
      f'{images[0]}: has {len(pictures)} pictures; give one, as the figure is of one'
    )
  for path in pictures:
    read_picture(path)
  files.check_output_file(output, pictures, arguments.overwrite, ('.png',))
  with files.only_one(output.parent, f'drawing of {output.name}', output.name):
    if arguments.figure == 'gradients':
      _draw_gradients(arguments.model_dir, output)
    else:
      _draw_predictions(arguments.figure, arguments.model_dir, pictures, fusions, output)
  print(output)


def _draw_gradients(model_dirs: Sequence[pathlib.Path], output: pathlib.Path) -> None:
  """Draws Figure 5 from `gradient_norm/…` in the metrics of trainings."""
  remedy = 'train with --params_override trainer.gradient_norms=true'
  of_training = {
    str(folder): series.read_series(folder / series.METRICS_FILE, ('gradient_norm/',), remedy)
    for folder in model_dirs
  }
  from oanet_tf.paper import drawings

  with files.replacing(output) as temporary:
    drawings.gradients(of_training, temporary)


def _draw_predictions(
  figure: str,
  model_dirs: Sequence[pathlib.Path],
  pictures: Sequence[pathlib.Path],
  fusions: Sequence[str],
  output: pathlib.Path,
) -> None:
  """Draws a figure that needs networks; all but 'sharing' use the first."""
  of_network = network_names(model_dirs)
  # TensorFlow takes seconds to load, so arguments are checked before.
  from oanet_tf.paper import drawings
  from oanet_tf.paper.examples import predictions

  if figure == 'sharing':
    of_networks = [list(predictions(folder, pictures, ['srm'])) for folder in model_dirs]
  else:
    found = list(predictions(model_dirs[0], pictures, fusions))
  with files.replacing(output) as temporary:
    if figure == 'sharing':
      drawings.sharing(dict(zip(of_network, of_networks, strict=True)), temporary)
    elif figure == 'fusions':
      drawings.fusions(found, fusions, temporary)
    else:
      draw = {'ranking_map': drawings.ranking_map, 'scores': drawings.scores}[figure]
      draw(found[0], temporary)


def network_names(model_dirs: Sequence[pathlib.Path]) -> list[str]:
  """What the branches of each network share, with the folder where that is not unique."""
  names = [f'sharing: {ModelFolder(folder).values["task.model.sharing"]}' for folder in model_dirs]
  if len(set(names)) == len(names):
    return names
  return [f'{name} ({folder})' for name, folder in zip(names, model_dirs, strict=True)]


if __name__ == '__main__':
  errors.run(main)
