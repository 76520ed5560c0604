"""Segments picture files; writes overlays and COCO's panoptic format."""

import itertools
import pathlib
import sys
from collections.abc import Iterable, Iterator, Sequence

import tqdm

from oanet_tf.data.pictures import read_picture
from oanet_tf.errors import InputError
from oanet_tf.evaluation.coco_results import PanopticResultsWriter
from oanet_tf.prediction.inputs import NamedImage
from oanet_tf.prediction.model import Model


def segment_files(
  model: Model, pictures: Sequence[pathlib.Path], output_dir: pathlib.Path, batch_size: int
) -> int:
  """Segments pictures in batches; writes `overlays/`, `predictions/` and `predictions.json`.

  Args:
    model: segments them.
    pictures: files of any size and colour mode; those that cannot be read are reported and skipped.
    output_dir: is created if needed.
    batch_size: most pictures at a time.

  Returns:
    The number of segmented pictures.

  Raises:
    InputError: if no picture can be read. Nothing is written then.
  """
  number = 0
  bar = tqdm.tqdm(total=len(pictures), desc='predicting', unit='image', file=sys.stderr)
  with bar as progress:
    results = model.results(readable(pictures, model, progress), batch_size)
    first = next(results, None)
    if first is None:
      raise InputError(f'none of {len(pictures)} pictures can be read')
    overlays = output_dir / 'overlays'
    overlays.mkdir(parents=True, exist_ok=True)
    with PanopticResultsWriter(output_dir, 'predictions', model.categories) as writer:
      for result in itertools.chain([first], results):
        writer.write(result.name, f'{result.name}.png', result.segments)
        result.plot().save(overlays / f'{result.name}.png')
        number += 1
        progress.update()
  return number


def readable(
  paths: Iterable[pathlib.Path], model: Model, progress: tqdm.tqdm
) -> Iterator[NamedImage]:
  """Reads pictures; skips those that cannot be read or are too large, and says so on stderr."""
  for path in paths:
    try:
      image = read_picture(path)
      model.check_size(path, *image.shape[:2])
    except InputError as error:
      progress.write(f'left out: {error}', file=sys.stderr)
      progress.update()
      continue
    yield path.stem, image
