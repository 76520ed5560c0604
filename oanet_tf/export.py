"""Exports a trained network: `oanet export --help`."""

import argparse
import itertools
import math
import pathlib
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import tqdm

from oanet_tf import errors, files
from oanet_tf.arguments import (
  ArgumentParser,
  add_fusion,
  add_params_override,
  log_to_stderr,
  names,
  positive,
)
from oanet_tf.config import values as config_values
from oanet_tf.errors import InputError
from oanet_tf.files import FilePath, as_list
from oanet_tf.model_folder import ModelFolder
from oanet_tf.serving import formats as serving_formats
from oanet_tf.serving import litert_js, tflite_int8

if TYPE_CHECKING:
  # This loads TensorFlow, which takes seconds.
  from oanet_tf.serving.parity import NamedImage

CALIBRATED = 'tflite_int8'
PAGE = 'web'
PRECISIONS = ('float32', 'bfloat16', 'auto')
Reader = Callable[[], 'Iterable[NamedImage]']
# Default numbers of images from the validation shards, and from the training shards.
NUM_IMAGES = 8
NUM_CALIBRATION_IMAGES = 100


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
  parser = ArgumentParser(
    prog='oanet export',
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
    help=f'of {", ".join(serving_formats.FORMATS)} (default: %(default)s)',
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
  parser.add_argument(
    '--precision',
    choices=PRECISIONS,
    default='float32',
    help='what a SavedModel computes in; auto takes bfloat16 if this machine has it (default: '
    '%(default)s)',
  )
  parser.add_argument(
    '--offline',
    nargs='+',
    default=[],
    metavar='TGZ_OR_DIR',
    help=f'for {PAGE}: puts LiteRT.js beside the page, which otherwise loads it from a CDN; '
    f'archives that "npm pack {" ".join(litert_js.PACKAGES)}" wrote, or a node_modules',
  )
  add_params_override(parser)
  return parser.parse_args(arguments)


def _formats(text: str) -> list[str]:
  try:
    return check_formats(names(text))
  except InputError as error:
    raise argparse.ArgumentTypeError(str(error)) from None


def check_formats(formats: Sequence[str]) -> list[str]:
  """The names of formats; raises `InputError` if one is unknown."""
  for name in formats:
    if name not in serving_formats.FORMATS:
      raise InputError(
        f'there is no format {name!r}; known are {", ".join(serving_formats.FORMATS)}'
      )
  return list(formats)


def export(
  model_dir: FilePath,
  export_dir: FilePath,
  formats: str | Sequence[str] = ('savedmodel',),
  *,
  fusion: str | None = None,
  image_size: Sequence[int] | None = None,
  version: int | None = None,
  images: FilePath | Sequence[FilePath] | None = None,
  calibration_images: FilePath | Sequence[FilePath] | None = None,
  precision: str = 'float32',
  offline: FilePath | Sequence[FilePath] = (),
  params_override: str = '',
) -> list[dict[str, Any]]:
  """Writes a trained network to `EXPORT_DIR/FORMAT/VERSION` and compares it with that in memory.

  Args:
    model_dir: folder of a training.
    export_dir: is made if needed.
    formats: one or several of 'savedmodel', 'tflite_float32', 'tflite_float16', 'tflite_dynamic',
      'tflite_int8', 'web'.
    fusion: how segments are merged; None takes what the configuration says.
    image_size: [height, width] for formats of a fixed size; None takes
      `task.validation_data.output_size`.
    version: None takes 1 + the newest of the format.
    images: picture files or folders, on which exports are compared; None takes 8 of the validation
      shards.
    calibration_images: the same, on which `tflite_int8` measures activations; None takes 100 of the
      training shards.
    precision: what a SavedModel computes in, 'float32', 'bfloat16', or 'auto' for bfloat16 where
      this machine has it. TFLite files have formats of their own for this.
    offline: archives of npm, or a `node_modules`, with LiteRT.js for 'web'; none for a CDN.
    params_override: changes to the folder's `params.yaml`, as `a.b=1,c.d=[2,3]`.

  Returns:
    For each format its entry in `export.json`: format, version, bytes, and how it compares.

  Raises:
    InputError: if something given is wrong, a package is missing, or an export's results differ too
      much, which is then not written.
  """
  folder, export_dir = ModelFolder(model_dir, params_override), pathlib.Path(export_dir)
  method, values = folder.fusion(fusion), folder.values
  formats = check_formats(as_list(formats))
  _check_precision(precision, formats)
  offline = as_list(offline)
  _check_page(formats, method, offline)
  pictures = [as_list(paths) if paths else [] for paths in (images, calibration_images)]
  files.check_output_folder(export_dir, [model_dir, *itertools.chain(*pictures)])
  if image_size and (pixels := math.prod(image_size)) > config_values.MAX_IMAGE_PIXELS:
    raise InputError(
      f'--image_size {" ".join(map(str, image_size))} has {pixels} pixels; it may have '
      f'{config_values.MAX_IMAGE_PIXELS} at most'
    )
  with files.only_one(export_dir, 'export'):
    folders = {name: serving_formats.version_folder(export_dir / name, version) for name in formats}
    serving_formats.read_record(export_dir)
    for name in formats:
      files.remove_unfinished(export_dir / name)
    readers = _find_all_images(formats, images, calibration_images, values)
    # Loading TensorFlow takes seconds, so the arguments are checked first.
    from oanet_tf.serving import parity

    source = parity.load_source(
      folder,
      method,
      image_size or values['task.validation_data.output_size'],
      *(read() for read in readers),
      precision=precision,
      offline=offline,
    )
    # Closed before an error is printed, which would otherwise follow the bar on its line.
    with tqdm.tqdm(folders.items(), 'exporting', unit='format', file=sys.stderr) as progress:
      return [serving_formats.export(name, source, folder) for name, folder in progress]


def _check_precision(precision: str, formats: Sequence[str]) -> None:
  if precision not in PRECISIONS:
    raise InputError(f'precision is one of {", ".join(PRECISIONS)}, not {precision!r}')
  others = [name for name in formats if name != 'savedmodel']
  if others and precision != 'float32':
    raise InputError(
      f'precision {precision} is for a savedmodel; export {", ".join(others)} in another run'
    )


def _check_page(formats: Sequence[str], method: str, offline: Sequence[str]) -> None:
  if offline and PAGE not in formats:
    raise InputError(f'offline is for the format {PAGE}')
  if PAGE in formats and method not in serving_formats.PAGE_FUSIONS:
    raise InputError(
      f'a page fuses by {" or ".join(serving_formats.PAGE_FUSIONS)}, not by {method}; choose one '
      'with --fusion'
    )
  if offline:
    litert_js.check(offline)


def main() -> None:
  arguments = parse_arguments()
  log_to_stderr()
  print(serving_formats.format_table(export(**vars(arguments))))


def _find_all_images(
  formats: Sequence[str],
  images: FilePath | Sequence[FilePath] | None,
  calibration_images: FilePath | Sequence[FilePath] | None,
  values: Mapping[str, Any],
) -> list[Reader]:
  """The images for the comparison, and those for calibration, which most formats do not need."""
  compared = _find_images('images', images, values['task.validation_data.input_path'], NUM_IMAGES)
  if CALIBRATED not in formats:
    return [compared, tuple]
  tflite_int8.check_installed()
  calibration = _find_images(
    'calibration_images',
    calibration_images,
    values['task.train_data.input_path'],
    NUM_CALIBRATION_IMAGES,
  )
  return [compared, calibration]


def _find_images(
  option: str, paths: FilePath | Sequence[FilePath] | None, input_path: str, number: int
) -> Reader:
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
    found = pictures.find_pictures(as_list(paths))
    for path in found:
      pictures.read_picture(path)
    return lambda: ((str(path), pictures.read_picture(path)) for path in found)
  try:
    shard_files.whole_records(shard_files.list_shards(input_path))
  except InputError as error:
    raise InputError(f'{error}; or give --{option}') from None

  def of_shards() -> 'Iterable[NamedImage]':
    from oanet_tf.serving import parity

    return parity.shard_images(input_path, number)

  return of_shards


if __name__ == '__main__':
  errors.run(main)
