"""Exports a trained network: `python -m oanet_tf.export --help`."""

import argparse
import json
import pathlib
import pkgutil
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import tqdm

from oanet_tf import errors, files
from oanet_tf.arguments import add_fusion, add_params_override, log_to_stderr, names, positive
from oanet_tf.data.json_file import read_json_object
from oanet_tf.errors import InputError
from oanet_tf.model_folder import ModelFolder
from oanet_tf.serving import tflite_int8

if TYPE_CHECKING:
  import numpy as np

  # It brings TensorFlow, which takes seconds to load.
  from oanet_tf.serving.parity import Source

# Name -> a `serving.exports.Format`.
FORMATS = {
  'savedmodel': 'oanet_tf.serving.saved_model:FORMAT',
  'tflite_float32': 'oanet_tf.serving.tflite:FLOAT32',
  'tflite_float16': 'oanet_tf.serving.tflite:FLOAT16',
  'tflite_dynamic': 'oanet_tf.serving.tflite:DYNAMIC',
  'tflite_int8': 'oanet_tf.serving.tflite:INT8',
}
CALIBRATED = 'tflite_int8'
Reader = Callable[[], 'Iterable[np.ndarray]']
RECORD_FILE = 'export.json'
# Of the validation shards, compared if the user names none.
NUM_IMAGES = 8
# Of the training shards.
NUM_CALIBRATION_IMAGES = 100


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    prog='python -m oanet_tf.export',
    description='Exports a trained network to EXPORT_DIR/FORMAT/VERSION. Each export is loaded '
    'again and must give the results of the network in memory, on real images; else nothing is '
    'left. export.json keeps the figures.',
  )
  parser.add_argument('--model_dir', required=True, type=pathlib.Path, help='folder of a training')
  parser.add_argument('--export_dir', required=True, type=pathlib.Path, help='is made if need be')
  parser.add_argument(
    '--formats',
    type=_formats,
    default='savedmodel',
    metavar='NAME,…',
    help=f'of {", ".join(FORMATS)} (default: %(default)s)',
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
    help=f'pictures on which exports are compared (default: {NUM_IMAGES} of the validation shards)',
  )
  parser.add_argument(
    '--calibration_images',
    nargs='+',
    metavar='FILE_OR_DIR',
    help=f'pictures that show {CALIBRATED} how large activations are (default: '
    f'{NUM_CALIBRATION_IMAGES} of the training shards)',
  )
  add_params_override(parser)
  return parser.parse_args(arguments)


def _formats(text: str) -> list[str]:
  for name in (found := names(text)):
    if name not in FORMATS:
      raise argparse.ArgumentTypeError(
        f'there is no format {name!r}; known are {", ".join(FORMATS)}'
      )
  return found


def main() -> None:
  arguments = parse_arguments()
  folder = ModelFolder(arguments.model_dir, arguments.params_override)
  method, values = folder.fusion(arguments.fusion), folder.values
  folders = {
    name: version_folder(arguments.export_dir / name, arguments.version)
    for name in arguments.formats
  }
  read_record(arguments.export_dir)
  images, calibration_images = _find_all_images(arguments, values)
  # TensorFlow takes seconds to load; all that was given is good by now.
  from oanet_tf.serving import parity

  log_to_stderr()
  source = parity.load_source(
    folder,
    method,
    arguments.image_size or values['task.validation_data.output_size'],
    images(),
    calibration_images(),
  )
  # Closed before an error is told, which would else stand in the bar's line.
  with tqdm.tqdm(folders.items(), 'exporting', unit='format', file=sys.stderr) as progress:
    entries = [export(name, source, folder) for name, folder in progress]
  print(format_table(entries))


def _find_all_images(arguments: argparse.Namespace, values: dict[str, object]) -> list[Reader]:
  """The images to compare on, and those to calibrate with, which not all formats need."""
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
  """Real images: pictures, or the first of shards.

  Args:
    option: that gives pictures.
    paths: of these, or of folders of them; none takes shards.
    input_path: of shards.
    number: so many of the shards' images.

  Returns:
    What reads them, [H, W, 3] uint8 each.

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


def version_folder(folder: pathlib.Path, version: int | None) -> pathlib.Path:
  """Where a version of a format goes; without one, 1 + the newest that is there.

  Raises:
    InputError: if it is there already.
  """
  if version is None:
    there = [int(path.name) for path in folder.glob('*') if path.name.isdecimal()]
    version = 1 + max(there, default=0)
  path = folder / str(version)
  if path.exists():
    raise InputError(f'{path}: is there already; give another --version, or none')
  return path


def read_record(export_dir: pathlib.Path) -> dict[str, dict]:
  """What `export.json` says of earlier exports, by their folder.

  Raises:
    InputError: if it is no JSON object.
  """
  path = export_dir / RECORD_FILE
  return read_json_object(path) if path.exists() else {}


def export(name: str, source: 'Source', folder: pathlib.Path) -> dict:
  """Writes one format, holds it against the network in memory, and keeps the figures.

  Args:
    name: of the format, a key of `FORMATS`.
    source: what is exported.
    folder: EXPORT_DIR/FORMAT/VERSION, which is not there yet.

  Returns:
    The format's entry of `export.json`.

  Raises:
    InputError: if the results are not the same, or the system refuses; nothing is left then.
  """
  form = pkgutil.resolve_name(FORMATS[name])
  with files.making_folder(folder) as temporary:
    with files.writing(temporary):
      form.write(source, temporary)
    parity = form.compare(source, temporary)
    if not form.accepts(parity):
      raise InputError(
        f'{folder}: was not written, as its results are not those of the network in memory: '
        f'{parity.same_pixels:.2%} of the pixels are the same (at least '
        f'{form.least_same_pixels:.2%}), and scores differ by {parity.score_difference:.2g} (at '
        f'most {form.largest_score_difference:.2g})'
      )
    size = sum(path.stat().st_size for path in temporary.rglob('*') if path.is_file())
  export_dir = folder.parents[1]
  entry = {
    'format': name,
    'version': int(folder.name),
    'bytes': size,
    'model_dir': str(source.folder.path),
    'fusion': source.method,
    **parity._asdict(),
  }
  record = {**read_record(export_dir), f'{name}/{folder.name}': entry}
  files.write_text(export_dir / RECORD_FILE, json.dumps(record, indent=1) + '\n')
  return entry


def format_table(entries: Sequence[dict]) -> str:
  """Figures of exports as lines of text."""
  rows = [f'{"format":<20} | version |     MB | images | same pixels | score difference']
  rows += [
    f'{entry["format"]:<20} | {entry["version"]:>7} | {entry["bytes"] / 1e6:>6.1f} '
    f'| {entry["num_images"]:>6} | {entry["same_pixels"]:>11.2%} '
    f'| {entry["score_difference"]:>16.2g}'
    for entry in entries
  ]
  return '\n'.join([rows[0], '-' * len(rows[0]), *rows[1:]])


if __name__ == '__main__':
  errors.run(main)
