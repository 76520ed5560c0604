"""Converts a COCO panoptic dataset to TFRecord shards; the schema is in tfrecords/README.md."""

import argparse
import collections
import contextlib
import functools
import itertools
import multiprocessing
import operator
import os
import pathlib
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, Any, NamedTuple

import tqdm

from oanet_tf.data import coco_panoptic, tf_example
from oanet_tf.data.categories import PanopticCategories
from oanet_tf.data.coco_panoptic import FilePath, ImageEntry
from oanet_tf.errors import InputError, run

if TYPE_CHECKING:
  import tensorflow as tf

CATEGORIES_FILE = 'categories.json'
# About 100 MB of COCO.
IMAGES_PER_SHARD = 500
MAX_DEFAULT_SHARDS = 256


class Summary(NamedTuple):
  """What a conversion has written and left out, in numbers."""

  images: int = 0
  segments: int = 0
  crowd_segments: int = 0
  objects: int = 0
  crowd_objects: int = 0
  images_without_objects: int = 0
  images_from_panoptic: int = 0
  empty_instances: int = 0
  unannotated_images: int = 0

  def __str__(self) -> str:
    return (
      f'{self.images} images, {self.segments} segments ({self.crowd_segments} crowds), '
      f'{self.objects} objects ({self.crowd_objects} crowds). '
      f'Images without an object: {self.images_without_objects}; '
      f'whose objects come from the panoptic masks: {self.images_from_panoptic}. '
      f'Left out: {self.empty_instances} instances without a pixel, '
      f'{self.unannotated_images} images without an annotation.'
    )


def convert(
  image_dir: FilePath,
  panoptic_json: FilePath,
  panoptic_dir: FilePath,
  output_dir: FilePath,
  split: str,
  instances_json: FilePath | None = None,
  num_shards: int | None = None,
  num_workers: int | None = None,
) -> Summary:
  """Writes `<split>-00000-of-000NN.tfrecord` and `categories.json` to `output_dir`.

  Images stay in the order of the panoptic JSON, shard after shard; the bytes do not depend on
  `num_workers`. Shards of the same names are replaced. On an error, no file of this run stays.

  Args:
    image_dir: folder of the pictures.
    panoptic_json: COCO panoptic annotations.
    panoptic_dir: folder of the panoptic PNGs.
    output_dir: made if it is missing.
    split: how the shards' names begin, e.g. 'train'.
    instances_json: COCO instance annotations, whose masks may overlap.
    num_shards: default: one per 500 images, at most 256.
    num_workers: processes; default: the number of CPUs. 1 starts none.

  Raises:
    InputError: if the dataset or an argument is wrong; see `coco_panoptic`.
  """
  if not re.fullmatch(r'[\w.-]+', split):
    raise InputError(f'split {split!r} is not made of letters, digits, _, - and . only')
  print(f'reading {panoptic_json}', file=sys.stderr)
  dataset = coco_panoptic.load(panoptic_json, panoptic_dir, image_dir, instances_json)
  output_dir = pathlib.Path(output_dir)
  parts = _deal(dataset.entries, num_shards)
  names = [f'{split}-{i:05}-of-{len(parts):05}.tfrecord' for i in range(len(parts))]
  _check_output(output_dir, split, names, dataset.categories)

  summary = Summary(unannotated_images=dataset.num_unannotated)
  encode = functools.partial(_encode_image, categories=dataset.categories)
  with (
    _removed_on_error(output_dir) as files,
    tqdm.tqdm(total=len(dataset.entries), desc=split, unit='image') as bar,
    contextlib.closing(_map_in_order(encode, dataset.entries, num_workers)) as encoded,
  ):
    for name, part in zip(names, parts, strict=True):
      with _shard_writer(output_dir / name, files) as writer:
        for features, counts in itertools.islice(encoded, len(part)):
          writer.write(tf_example.serialize(features))
          summary = Summary(*map(operator.add, summary, counts))
          bar.update()
    with _replacing(output_dir / CATEGORIES_FILE, files) as temporary:
      dataset.categories.to_json(temporary)
  return summary


def main(arguments: Sequence[str] | None = None) -> None:
  """The command line; `arguments` are `sys.argv[1:]` unless given."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--image_dir', required=True, help='folder of the pictures')
  parser.add_argument('--panoptic_json', required=True, help='COCO panoptic annotations')
  parser.add_argument('--panoptic_dir', required=True, help='folder of the panoptic PNGs')
  parser.add_argument(
    '--instances_json',
    help='COCO instance annotations, whose masks may overlap; without them, and for images that '
    'they do not list, objects come from the panoptic masks, with holes that other things occupy '
    'filled in',
  )
  parser.add_argument('--output_dir', required=True, help='folder of the shards')
  parser.add_argument('--split', required=True, help="how the shards' names begin, e.g. train")
  parser.add_argument(
    '--num_shards',
    type=_positive,
    help=f'default: one per {IMAGES_PER_SHARD} images, at most {MAX_DEFAULT_SHARDS}',
  )
  parser.add_argument(
    '--num_workers', type=_positive, help='processes; default: the number of CPUs'
  )
  arguments = parser.parse_args(arguments)
  summary = convert(**vars(arguments))
  print(f'{arguments.output_dir}, split {arguments.split}: {summary}')


def _positive(text: str) -> int:
  value = int(text)
  if value < 1:
    raise argparse.ArgumentTypeError(f'{value} is not positive')
  return value


def _deal(entries: list[ImageEntry], num_shards: int | None) -> list[list[ImageEntry]]:
  """Runs of entries, one for each shard."""
  count = len(entries)
  num_shards = num_shards or min(max(1, round(count / IMAGES_PER_SHARD)), MAX_DEFAULT_SHARDS)
  if num_shards > count:
    raise InputError(f'{num_shards} shards are too many for {count} images')
  bounds = [count * i // num_shards for i in range(num_shards + 1)]
  return [entries[start:stop] for start, stop in itertools.pairwise(bounds)]


def _check_output(
  folder: pathlib.Path, split: str, names: list[str], categories: PanopticCategories
) -> None:
  """Refuses a folder with what this run would not replace but readers would take for its own."""
  path = folder / CATEGORIES_FILE
  if path.exists() and PanopticCategories.from_json(path) != categories:
    raise InputError(f'{path}: has other categories than this dataset; use another output folder')
  pattern = re.compile(rf'{re.escape(split)}-\d{{5}}-of-\d{{5}}\.tfrecord')
  others = [p for p in sorted(folder.glob('*.tfrecord')) if pattern.fullmatch(p.name)]
  for other in others:
    if other.name not in names:
      raise InputError(
        f'{other}: is of a conversion of {split!r} to another number of shards than {len(names)}; '
        'remove its shards first'
      )


def _encode_image(
  entry: ImageEntry, categories: PanopticCategories
) -> tuple[tf_example.Features, Summary]:
  record = coco_panoptic.read_record(entry, categories)
  num_objects = len(record.objects.masks)
  from_panoptic = entry.instances is None
  return tf_example.features(record), Summary(
    images=1,
    segments=len(entry.segment_ids),
    crowd_segments=int(entry.is_crowd.sum()),
    objects=num_objects,
    crowd_objects=int(record.objects.is_crowd.sum()),
    images_without_objects=int(num_objects == 0),
    images_from_panoptic=int(from_panoptic),
    empty_instances=0 if from_panoptic else len(entry.instances) - num_objects,
  )


def _map_in_order(
  function: Callable[[Any], Any], items: Sequence, num_workers: int | None
) -> Iterator:
  """`map(function, items)` by processes that are a few items ahead, never all."""
  num_workers = min(num_workers or os.cpu_count() or 1, len(items))
  if num_workers == 1:
    yield from map(function, items)
    return
  pool = ProcessPoolExecutor(num_workers, multiprocessing.get_context('spawn'), _start_worker)
  try:
    pending = collections.deque()
    for item in items:
      with _interrupts_blocked():
        pending.append(pool.submit(function, item))
      if len(pending) > 4 * num_workers:
        yield pending.popleft().result()
    while pending:
      yield pending.popleft().result()
  except BrokenProcessPool:
    raise InputError(
      f'one of {num_workers} processes was killed, perhaps for want of memory; '
      'try a smaller num_workers'
    ) from None
  finally:
    pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _interrupts_blocked() -> Iterator[None]:
  """Processes that are started inside never see Ctrl-C: it is for their parent to end them."""
  before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
  try:
    yield
  finally:
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker() -> None:
  """Lets this process end with its parent, even if that is killed."""

  def end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)

  threading.Thread(target=end_with_parent, daemon=True).start()


@contextlib.contextmanager
def _removed_on_error(folder: pathlib.Path) -> Iterator[list[pathlib.Path]]:
  """Makes a folder; on an error, removes the files that were listed, and the folder if new."""
  is_new = not folder.exists()
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise InputError(f'{folder}: cannot be made ({error.strerror})') from None
  files = []
  try:
    yield files
  except BaseException:
    for file in files:
      file.unlink(missing_ok=True)
    if is_new and not any(folder.iterdir()):
      folder.rmdir()
    raise


@contextlib.contextmanager
def _replacing(path: pathlib.Path, files: list[pathlib.Path]) -> Iterator[pathlib.Path]:
  """A temporary name to write to, which becomes `path` at the end; lists both in `files`."""
  temporary = path.with_name(f'.{path.name}.part')
  files.append(temporary)
  yield temporary
  os.replace(temporary, path)
  files.append(path)


@contextlib.contextmanager
def _shard_writer(
  path: pathlib.Path, files: list[pathlib.Path]
) -> 'Iterator[tf.io.TFRecordWriter]':
  import tensorflow as tf

  with _replacing(path, files) as temporary:
    try:
      with tf.io.TFRecordWriter(str(temporary)) as writer:
        yield writer
    except tf.errors.OpError as error:
      raise InputError(f'{path}: cannot be written ({error.message})') from None


if __name__ == '__main__':
  run(main)
