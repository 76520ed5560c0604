"""Writes exports to EXPORT_DIR/FORMAT/VERSION, and records them in `export.json`."""

import json
import pathlib
import pkgutil
from collections.abc import Sequence
from typing import TYPE_CHECKING

from oanet_tf import files
from oanet_tf.data.json_file import read_json_object
from oanet_tf.errors import InputError

if TYPE_CHECKING:
  # This loads TensorFlow, which takes seconds.
  from oanet_tf.serving.parity import Source

# Name -> where its `serving.parity.Format` is.
FORMATS = {
  'savedmodel': 'oanet_tf.serving.saved_model:FORMAT',
  'tflite_float32': 'oanet_tf.serving.tflite:FLOAT32',
  'tflite_float16': 'oanet_tf.serving.tflite:FLOAT16',
  'tflite_dynamic': 'oanet_tf.serving.tflite:DYNAMIC',
  'tflite_int8': 'oanet_tf.serving.tflite:INT8',
  'web': 'oanet_tf.serving.web:FORMAT',
}
RECORD_FILE = 'export.json'
# Of pages: those that differ only in the order of instances, by the value of `by_ranking`.
PAGE_FUSIONS = ('heuristic', 'srm')
# Of TensorFlow Serving.
MAX_VERSION = 2**63 - 1


def version_folder(folder: pathlib.Path, version: int | None) -> pathlib.Path:
  """The folder of a version of a format; None takes 1 + the newest version.

  Raises:
    InputError: if it exists already, or the number is too large.
  """
  if version is None:
    versions = [int(path.name) for path in folder.glob('*') if path.name.isdecimal()]
    version = 1 + max(versions, default=0)
  if version > MAX_VERSION:
    raise InputError(f'--version {version} is above {MAX_VERSION}, the most that a server reads')
  path = folder / str(version)
  if path.exists():
    raise InputError(f'{path}: exists already; give another --version, or none')
  return path


def read_record(export_dir: pathlib.Path) -> dict[str, dict]:
  """The entries of earlier exports in `export.json`, by 'FORMAT/VERSION'.

  Raises:
    InputError: if it is no JSON object.
  """
  path = export_dir / RECORD_FILE
  return read_json_object(path) if path.exists() else {}


def export(name: str, source: 'Source', folder: pathlib.Path) -> dict:
  """Writes one format, compares it with the network in memory, and records the result.

  Args:
    name: of the format, a key of `FORMATS`.
    source: what is exported.
    folder: EXPORT_DIR/FORMAT/VERSION, which does not exist yet.

  Returns:
    The export's entry in `export.json`.

  Raises:
    InputError: if the results differ too much, or the files cannot be written. Nothing is left.
  """
  form = pkgutil.resolve_name(FORMATS[name])
  with files.making_folder(folder) as temporary:
    with files.writing(folder):
      form.write(source, temporary)
    parity = form.compare(source, temporary)
    if objection := form.objection(parity):
      raise InputError(
        f'{folder}: was not written, as its results differ from those of the network in memory: '
        f'{objection}'
      )
    entry = {
      'format': name,
      'version': int(folder.name),
      'bytes': sum(path.stat().st_size for path in temporary.rglob('*') if path.is_file()),
      'model_dir': str(source.folder.path),
      'fusion': source.method,
      'precision': source.precision,
      'num_images': parity.num_images,
      'num_pixels': parity.num_pixels,
      'different_pixels': parity.different_pixels,
      'same_pixels': parity.same_pixels,
      'score_difference': parity.score_difference,
    }
    # Before the folder gets its name, so that every export there is has an entry.
    export_dir = folder.parents[1]
    record = {**read_record(export_dir), f'{name}/{folder.name}': entry}
    files.write_text(export_dir / RECORD_FILE, json.dumps(record, indent=1) + '\n')
  return entry


def format_table(entries: Sequence[dict]) -> str:
  """The entries of exports as a table of text."""
  rows = [f'{"format":<20} | version |     MB | images |    pixels | different | score difference']
  rows += [
    f'{entry["format"]:<20} | {entry["version"]:>7} | {entry["bytes"] / 1e6:>6.1f} '
    f'| {entry["num_images"]:>6} | {entry["num_pixels"]:>9} | {entry["different_pixels"]:>9} '
    f'| {entry["score_difference"]:>16.2g}'
    for entry in entries
  ]
  return '\n'.join([rows[0], '-' * len(rows[0]), *rows[1:]])
