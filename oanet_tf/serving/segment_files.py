"""Segments picture files in batches; writes overlays and COCO's panoptic format."""

import itertools
import pathlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from oanet_tf.config import check as config_check
from oanet_tf.errors import InputError

if TYPE_CHECKING:
  import numpy as np

  # This loads TensorFlow, which takes seconds.
  from oanet_tf.serving.loading import Predictor

# For a batch with its pictures padded to the largest: 64 of 640 × 480, or one of a good camera.
_MAX_BATCH_PIXELS = 2**25


def find_model(path: pathlib.Path) -> tuple[str, pathlib.Path]:
  """The kind of model at a path: 'model_folder', 'saved_model' or 'tflite', and its own path.

  In a folder with versions of a SavedModel, this is the newest.

  Raises:
    InputError: if there is none of these.
  """
  if path.is_file():
    with path.open('rb') as file:
      if file.read(8)[4:] == b'TFL3':
        return 'tflite', path
  versions = [part for part in path.glob('*/saved_model.pb') if part.parent.name.isdecimal()]
  if (path / config_check.PARAMS_FILE).exists():
    return 'model_folder', path
  if (path / 'saved_model.pb').exists():
    return 'saved_model', path
  if versions:
    return 'saved_model', max((part.parent for part in versions), key=lambda part: int(part.name))
  raise InputError(
    f'{path}: is no model folder, no SavedModel and no TFLite file; weights of other packages are '
    'first made a model folder by python -m oanet_tf.import_weights'
  )


def segment_files(
  predictor: 'Predictor',
  pictures: Sequence[pathlib.Path],
  output_dir: pathlib.Path,
  batch_size: int,
) -> int:
  """Segments pictures in batches; writes `overlays/`, `predictions/` and `predictions.json`.

  Args:
    predictor: of `serving.loading`.
    pictures: files of any size and colour mode; those that cannot be read are reported and skipped.
    output_dir: is created if needed.
    batch_size: most pictures at a time.

  Returns:
    The number of segmented pictures.

  Raises:
    InputError: if no picture can be read. Nothing is written then.
  """
  import tqdm
  from PIL import Image

  from oanet_tf import visualize
  from oanet_tf.evaluation.coco_results import PanopticResultsWriter

  number = 0
  with tqdm.tqdm(pictures, 'predicting', unit='image', file=sys.stderr) as progress:
    batches = batches_of(readable(progress, predictor.max_pixels), batch_size)
    first = next(batches, None)
    if first is None:
      raise InputError(f'none of {len(pictures)} pictures can be read')
    overlays = output_dir / 'overlays'
    overlays.mkdir(parents=True, exist_ok=True)
    with PanopticResultsWriter(output_dir, 'predictions', predictor.categories) as writer:
      for batch in itertools.chain([first], batches):
        segmentations = predictor.segment([image for _, image in batch])
        for (path, image), segmentation in zip(batch, segmentations, strict=True):
          writer.write(path.stem, f'{path.stem}.png', segmentation)
          overlay = visualize.draw_panoptic(image, segmentation, predictor.categories)
          Image.fromarray(overlay).save(overlays / f'{path.stem}.png')
          number += 1
  return number


def readable(
  paths: Iterable[pathlib.Path], max_pixels: int | None
) -> 'Iterator[tuple[pathlib.Path, np.ndarray]]':
  """Reads pictures; skips those that cannot be read or are too large, and says so on stderr."""
  import tqdm

  from oanet_tf.data.pictures import read_picture

  for path in paths:
    try:
      image = read_picture(path)
      height, width, _ = image.shape
      if max_pixels and height * width > max_pixels:
        raise InputError(
          f'{path}: has {height} x {width} pixels; the model takes at most {max_pixels}'
        )
    except InputError as error:
      tqdm.tqdm.write(f'left out: {error}', file=sys.stderr)
      continue
    yield path, image


def batches_of(
  images: 'Iterable[tuple[pathlib.Path, np.ndarray]]', batch_size: int
) -> 'Iterator[list[tuple[pathlib.Path, np.ndarray]]]':
  """Groups neighbours into batches that fit the memory when padded to the largest picture."""
  batch = []
  for path, image in images:
    sides = [one.shape[:2] for _, one in batch] + [image.shape[:2]]
    height, width = (max(side) for side in zip(*sides, strict=True))
    if batch and (len(batch) == batch_size or len(sides) * height * width > _MAX_BATCH_PIXELS):
      yield batch
      batch = []
    batch.append((path, image))
  if batch:
    yield batch
