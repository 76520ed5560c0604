"""Segments picture files; writes overlays and COCO's panoptic format."""

import collections
import itertools
import pathlib
import sys
from collections.abc import Iterable, Iterator, Mapping

import tqdm

from oanet_tf import files
from oanet_tf.data.pictures import read_picture
from oanet_tf.errors import InputError
from oanet_tf.evaluation.coco_results import PanopticResultsWriter
from oanet_tf.prediction.inputs import NamedImage
from oanet_tf.prediction.model import Model

OVERLAYS, PREDICTIONS = 'overlays', 'predictions'


def segment_files(
  model: Model, pictures: Mapping[str, pathlib.Path], output_dir: pathlib.Path, batch_size: int
) -> int:
  """Segments pictures in batches; writes `overlays/`, `predictions/` and `predictions.json`.

  What is done stays, and is listed, if something ends the work.

  Args:
    model: segments them.
    pictures: files of any size and colour mode, by the names that results are to have; those that
      cannot be read are reported and skipped.
    output_dir: is created if needed.
    batch_size: most pictures at a time.

  Returns:
    The number of segmented pictures.

  Raises:
    InputError: if no picture can be read, and nothing is written then; or if a file cannot be
      written.
  """
  number = 0
  bar = tqdm.tqdm(total=len(pictures), desc='predicting', unit='image', file=sys.stderr)
  with bar as progress:
    results = model.results(readable(pictures, model, progress), batch_size)
    first = next(results, None)
    if first is None:
      raise InputError(f'none of {len(pictures)} pictures can be read')
    overlays, ids = output_dir / OVERLAYS, image_ids_of(pictures)
    with (
      files.only_one(output_dir, 'prediction'),
      PanopticResultsWriter(
        output_dir, PREDICTIONS, model.categories, keep_unfinished=True
      ) as writer,
    ):
      files.make_folder(overlays)
      for folder in (overlays, output_dir / PREDICTIONS):
        files.remove_unfinished(folder)
      for result in itertools.chain([first], results):
        file_name, png_name = pictures[result.name].name, f'{result.name}.png'
        with files.replacing(overlays / png_name) as temporary:
          result.plot().save(temporary, 'PNG')
        writer.write(ids[result.name], file_name, result.segments, png_name)
        number += 1
        progress.update()
  return number


def image_ids_of(names: Iterable[str]) -> dict[str, int | str]:
  """The image id of each name: a number if it is one, as COCO's are, and no other is the same."""
  numbers = {name: int(name) for name in names if name.isascii() and name.isdecimal()}
  times = collections.Counter(numbers.values())
  return {
    name: numbers[name] if name in numbers and times[numbers[name]] == 1 else name for name in names
  }


def check_output_dir(
  output_dir: pathlib.Path, pictures: Iterable[pathlib.Path], overwrite: bool
) -> None:
  """Checks that results would replace neither pictures nor, unless `overwrite`, older results.

  Raises:
    InputError: if they would, or the folder cannot be written.
  """
  files.check_output_folder(output_dir, list(pictures))
  for folder in (output_dir / OVERLAYS, output_dir / PREDICTIONS):
    files.check_output_folder(folder, list(pictures))
  if not overwrite:
    for path in (output_dir / OVERLAYS, output_dir / f'{PREDICTIONS}.json'):
      if path.exists():
        raise InputError(f'{path}: exists already; give another --output_dir, or --overwrite')


def free_folder(folder: pathlib.Path) -> pathlib.Path:
  """The folder, or `folder_2`, `folder_3`, … if it exists."""
  free, number = folder, 1
  while free.exists():
    number += 1
    free = folder.with_name(f'{folder.name}_{number}')
  return free


def readable(
  pictures: Mapping[str, pathlib.Path], model: Model, progress: tqdm.tqdm
) -> Iterator[NamedImage]:
  """Reads pictures; skips those that cannot be read or are too large, and says so on stderr."""
  for name, path in pictures.items():
    try:
      image = read_picture(path)
      model.check_size(path, *image.shape[:2])
    except InputError as error:
      progress.write(f'left out: {error}', file=sys.stderr)
      progress.update()
      continue
    yield name, image
