"""Panoptic maps of one's own pictures: `python -m oanet_tf.predict --help`."""

import argparse
import itertools
import pathlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from oanet_tf import errors
from oanet_tf.arguments import add_fusion, add_params_override, positive
from oanet_tf.config import check as config_check
from oanet_tf.errors import InputError
from oanet_tf.model_folder import ModelFolder

if TYPE_CHECKING:
  import numpy as np

  # It brings TensorFlow, which takes seconds to load.
  from oanet_tf.serving.loading import Predictor

# Of a batch, its pictures padded to the largest: 64 of 640 × 480, or one of a good camera.
_MAX_BATCH_PIXELS = 2**25


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    prog='python -m oanet_tf.predict',
    description='Segments pictures and draws the result. Writes overlays/NAME.png, '
    "predictions/NAME.png (segment ids as RGB) and predictions.json (COCO's panoptic format). "
    'A picture that cannot be read is told and left out; the exit code is 1 then.',
  )
  parser.add_argument(
    '--model',
    required=True,
    type=pathlib.Path,
    help='folder of a training, SavedModel or .tflite file of python -m oanet_tf.export',
  )
  parser.add_argument(
    '--images', required=True, nargs='+', metavar='FILE_OR_DIR', help='pictures, or folders of them'
  )
  parser.add_argument(
    '--output_dir', required=True, type=pathlib.Path, help='folder for the results'
  )
  parser.add_argument(
    '--batch_size', type=positive, default=4, help='pictures at a time (default: %(default)s)'
  )
  parser.add_argument(
    '--testdev',
    metavar='ZIP',
    help="also pack the results for COCO's evaluation server, as in "
    'panoptic_test-dev2017_oanet_results.zip; pictures named by their ids, as COCO names them',
  )
  of_folder = parser.add_argument_group('for the folder of a training')
  add_fusion(of_folder)
  add_params_override(of_folder)
  return parser.parse_args(arguments)


def main() -> int:
  arguments = parse_arguments()
  from oanet_tf.data.pictures import find_pictures
  from oanet_tf.evaluation import coco_results

  if arguments.testdev:
    coco_results.check_testdev_name(arguments.testdev)
  kind, path = find_model(arguments.model)
  if kind == 'model_folder':
    folder = ModelFolder(path, arguments.params_override)
    method = folder.fusion(arguments.fusion)
  elif arguments.fusion or arguments.params_override:
    raise InputError(
      f'{path}: was exported with its settings; --fusion and --params_override are for the folder '
      'of a training'
    )
  pictures = find_pictures(arguments.images)
  # TensorFlow takes seconds to load; the arguments are good by now.
  from oanet_tf.serving import loading

  if kind == 'model_folder':
    predictor = loading.of_trained(folder.load(), method)
  else:
    predictor = {'saved_model': loading.of_saved_model, 'tflite': loading.of_tflite}[kind](path)
  output_dir = arguments.output_dir
  number = predict(predictor, pictures, output_dir, arguments.batch_size)
  print(f'{number} pictures: {output_dir / "overlays"}, {output_dir / "predictions.json"}')
  if arguments.testdev:
    coco_results.write_testdev_zip(
      output_dir / 'predictions.json', output_dir / 'predictions', arguments.testdev
    )
    print(arguments.testdev)
  return int(number < len(pictures))


def find_model(path: pathlib.Path) -> tuple[str, pathlib.Path]:
  """What a path holds: 'model_folder', 'saved_model' or 'tflite', and where it begins.

  Of a folder of a SavedModel's versions, the newest is taken.

  Raises:
    InputError: if it holds none of these.
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
  raise InputError(f'{path}: is no model folder, no SavedModel and no TFLite file')


def predict(
  predictor: 'Predictor',
  pictures: Sequence[pathlib.Path],
  output_dir: pathlib.Path,
  batch_size: int,
) -> int:
  """Segments pictures in batches and writes what the command line promises.

  Args:
    predictor: of `serving.predictors`.
    pictures: files of any size and colour mode; those that cannot be read are told and left out.
    output_dir: is made if need be.
    batch_size: pictures at a time, at most.

  Returns:
    How many were segmented.

  Raises:
    InputError: if that is none; nothing is written then.
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
  """Reads pictures; tells on standard error of those that cannot be read, or are too large."""
  import tqdm

  from oanet_tf.data.pictures import read_picture

  for path in paths:
    try:
      image = read_picture(path)
      height, width, _ = image.shape
      if max_pixels and height * width > max_pixels:
        raise InputError(f'{path}: has {height} x {width} pixels; the model takes {max_pixels}')
    except InputError as error:
      tqdm.tqdm.write(f'left out: {error}', file=sys.stderr)
      continue
    yield path, image


def batches_of(
  images: 'Iterable[tuple[pathlib.Path, np.ndarray]]', batch_size: int
) -> 'Iterator[list[tuple[pathlib.Path, np.ndarray]]]':
  """Neighbours, as many as are asked for and fit the memory when padded to the largest."""
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


if __name__ == '__main__':
  errors.run(main)
