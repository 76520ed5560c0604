"""Exports a trained network: `python -m oanet_tf.export --help`."""

import argparse
import pathlib
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import tqdm

from oanet_tf import errors
from oanet_tf.arguments import add_fusion, add_params_override, log_to_stderr, names, positive
from oanet_tf.errors import InputError
from oanet_tf.model_folder import ModelFolder
from oanet_tf.serving import formats, tflite_int8

if TYPE_CHECKING:
  import numpy as np

CALIBRATED = 'tflite_int8'
Reader = Callable[[], 'Iterable[np.ndarray]']
# Default numbers of images from the validation shards, and from the training shards.
NUM_IMAGES = 8
NUM_CALIBRATION_IMAGES = 100


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    prog='python -m oanet_tf.export',
    description='Exports a trained network to EXPORT_DIR/FORMAT/VERSION. Each export is loaded '
    'again and must give the results of the network in memory on real images; otherwise it is '
    'deleted. The comparison is recorded in export.json.',
  )
  parser.add_argument('--model_dir', required=True, type=pathlib.Path, help='folder of a training')
  parser.add_argument('--export_dir', required=True, type=pathlib.Path, help='is created if needed')
  parser.add_argument(
    '--formats',
    type=_formats,
    default='savedmodel',
    metavar='NAME,…',
    help=f'of {", ".join(formats.FORMATS)} (default: %(default)s)',
  )
  add_fusion(parser)
  parser.add_argument(
    '--image_size',
    type=positive,
    nargs=2,
    metavar=('HEIGHT', 'WIDTH'),
    help='for formats of a fixed size (default: task.validation_data.output_size)',
  )
  parser.add_argument(
    '--version', type=positive, help='(default: 1 + the newest of the format in EXPORT_DIR)'
  )
  parser.add_argument(
    '--images',
    nargs='+',
    metavar='FILE_OR_DIR',
    help='pictures on which exports are compared with the network in memory (default: '
    f'{NUM_IMAGES} of the validation shards)',
  )
  parser.add_argument(
    '--calibration_images',
    nargs='+',
    metavar='FILE_OR_DIR',
    help=f'pictures on which {CALIBRATED} measures the ranges of activations (default: '
    f'{NUM_CALIBRATION_IMAGES} of the training shards)',
  )
  add_params_override(parser)
  return parser.parse_args(arguments)


def _formats(text: str) -> list[str]:
  for name in (found := names(text)):
    if name not in formats.FORMATS:
      raise argparse.ArgumentTypeError(
        f'there is no format {name!r}; known are {", ".join(formats.FORMATS)}'
      )
  return found


def main() -> None:
  arguments = parse_arguments()
  folder = ModelFolder(arguments.model_dir, arguments.params_override)
  method, values = folder.fusion(arguments.fusion), folder.values
  folders = {
    name: formats.version_folder(arguments.export_dir / name, arguments.version)
    for name in arguments.formats
  }
  formats.read_record(arguments.export_dir)
  images, calibration_images = _find_all_images(arguments, values)
  # Loading TensorFlow takes seconds, so the arguments are checked first.
  from oanet_tf.serving import parity

  log_to_stderr()
  source = parity.load_source(
    folder,
    method,
    arguments.image_size or values['task.validation_data.output_size'],
    images(),
    calibration_images(),
  )
  # Closed before an error is printed, which would otherwise follow the bar on its line.
  with tqdm.tqdm(folders.items(), 'exporting', unit='format', file=sys.stderr) as progress:
    entries = [formats.export(name, source, folder) for name, folder in progress]
  print(formats.format_table(entries))


def _find_all_images(arguments: argparse.Namespace, values: dict[str, object]) -> list[Reader]:
  """The images for the comparison, and those for calibration, which most formats do not need."""
  images = _find_images(
    '--images', arguments.images, values['task.validation_data.input_path'], NUM_IMAGES
  )
  if CALIBRATED not in arguments.formats:
    return [images, tuple]
  tflite_int8.check_installed()
  calibration_images = _find_images(
    '--calibration_images',
    arguments.calibration_images,
    values['task.train_data.input_path'],
    NUM_CALIBRATION_IMAGES,
  )
  return [images, calibration_images]


def _find_images(option: str, paths: Sequence[str] | None, input_path: str, number: int) -> Reader:
  """Returns a function that reads images, [H, W, 3] uint8: pictures, or the first of shards.

  Args:
    option: the command-line option for pictures.
    paths: of pictures or of folders with pictures; None for shards.
    input_path: of the shards.
    number: of images to read from the shards.

  Raises:
    InputError: if there are none, or a picture cannot be read.
  """
  from oanet_tf.data import pictures, shard_files

  if paths:
    found = pictures.find_pictures(paths)
    for path in found:
      pictures.read_picture(path)
    return lambda: map(pictures.read_picture, found)
  try:
    shard_files.count_whole_records(shard_files.list_shards(input_path)[0])
  except InputError as error:
    raise InputError(f'{error}; or give {option}') from None

  def of_shards() -> 'Iterable[np.ndarray]':
    from oanet_tf.serving import parity

    return parity.shard_images(input_path, number)

  return of_shards


if __name__ == '__main__':
  errors.run(main)
