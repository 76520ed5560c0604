"""Shards of a split and the summary beside them, so that a killed conversion can go on.

A shard is whole as soon as it has its name; until then it is a hidden `.part` file. Just before,
`<split>_summary.json` is written anew, which lists the whole shards and what they are made of.
When it says `"complete": true`, the split is whole.
"""

import contextlib
import fcntl
import hashlib
import json
import operator
import pathlib
import re
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from oanet_tf import files
from oanet_tf.data.json_file import read_json_object
from oanet_tf.errors import InputError

if TYPE_CHECKING:
  import tensorflow as tf


class Summary(NamedTuple):
  """What a conversion has written and left out, in numbers.

  Attributes:
    images: written.
    segments: of the panoptic maps.
    crowd_segments: those of them that are crowds.
    objects: instances of things, crowds among them.
    crowd_objects: those of them that are crowds.
    overlapping_objects: those whose mask shares a pixel with another object's mask.
    images_without_objects: images without one.
    images_from_panoptic: images whose objects come from the panoptic masks.
    pixels: of all images.
    void_pixels: those in no segment.
    empty_instances: annotations without a pixel, left out.
    skipped_images: left out because of an error.
    unannotated_images: in the panoptic JSON's `images` but not in its `annotations`, left out.
  """

  images: int = 0
  segments: int = 0
  crowd_segments: int = 0
  objects: int = 0
  crowd_objects: int = 0
  overlapping_objects: int = 0
  images_without_objects: int = 0
  images_from_panoptic: int = 0
  pixels: int = 0
  void_pixels: int = 0
  empty_instances: int = 0
  skipped_images: int = 0
  unannotated_images: int = 0

  @property
  def void_share(self) -> float:
    """Void pixels of all pixels, in [0, 1]."""
    return self.void_pixels / max(self.pixels, 1)

  def plus(self, other: 'Summary') -> 'Summary':
    return Summary(*map(operator.add, self, other))

  def __str__(self) -> str:
    return (
      f'{self.images} images, {self.segments} segments ({self.crowd_segments} crowds), '
      f'{self.void_share:.1%} void, {self.objects} objects ({self.crowd_objects} crowds, '
      f'{self.overlapping_objects} overlap another). '
      f'Images without an object: {self.images_without_objects}; '
      f'whose objects come from the panoptic masks: {self.images_from_panoptic}. '
      f'Left out: {self.empty_instances} instances without a pixel, '
      f'{self.unannotated_images} images without an annotation, '
      f'{self.skipped_images} images with an error.'
    )


class SkippedImage(NamedTuple):
  """An image that was left out, and why."""

  image_id: int | str
  file_name: str
  reason: str
  shard: str


class Progress(NamedTuple):
  """What of a split is on disk.

  Attributes:
    made_of: what the shards' bytes depend on, by name: hashes of the JSON files and settings.
    unannotated_images: of the dataset.
    shards: the summary of each whole shard, by its name.
    skipped: the images that those shards leave out.
  """

  made_of: dict[str, Any]
  unannotated_images: int
  shards: dict[str, Summary]
  skipped: list[SkippedImage]

  def total(self) -> Summary:
    total = Summary(unannotated_images=self.unannotated_images)
    for summary in self.shards.values():
      total = total.plus(summary)
    return total


def shard_names(split: str, count: int) -> list[str]:
  return [f'{split}-{i:05}-of-{count:05}.tfrecord' for i in range(count)]


def _shard_pattern(split: str) -> str:
  return rf'{re.escape(split)}-\d{{5}}-of-\d{{5}}\.tfrecord'


def summary_path(folder: pathlib.Path, split: str) -> pathlib.Path:
  return folder / f'{split}_summary.json'


def sha256(path: str | pathlib.Path) -> str:
  """Of a file's content, in hexadecimal digits."""
  digest = hashlib.sha256()
  with open(path, 'rb') as file:
    while block := file.read(2**20):
      digest.update(block)
  return digest.hexdigest()


def write_progress(path: pathlib.Path, progress: Progress, is_complete: bool) -> None:
  """Writes the summary file.

  Raises:
    InputError: if it cannot be written.
  """
  total = progress.total()
  content = {
    'complete': is_complete,
    **total._asdict(),
    'void_share': round(total.void_share, 6),
    'made_of': progress.made_of,
    'skipped': [s._asdict() for s in sorted(progress.skipped, key=lambda s: s.shard)],
    'shards': {name: progress.shards[name]._asdict() for name in sorted(progress.shards)},
  }
  files.write_text(path, json.dumps(content, indent=1) + '\n', durable=True)


def read_progress(path: pathlib.Path) -> Progress:
  """The inverse of `write_progress`.

  Raises:
    InputError: if there is no such file, or it is not one of `write_progress`.
  """
  content = read_json_object(path)
  try:
    return Progress(
      dict(content['made_of']),
      content['unannotated_images'],
      {name: Summary(**summary) for name, summary in content['shards'].items()},
      [SkippedImage(**image) for image in content['skipped']],
    )
  except (KeyError, TypeError, ValueError, AttributeError):
    raise InputError(f'{path}: is no summary of a conversion; remove it and its shards') from None


def resume(
  folder: pathlib.Path, split: str, names: Sequence[str], start: Progress, keep_skipped: bool
) -> Progress:
  """What an earlier run has left of the same conversion; `start` if nothing.

  Args:
    folder: of the shards.
    split: how the shards' names begin.
    names: of all shards.
    start: of a run from the beginning.
    keep_skipped: whether shards that leave images out because of errors count as whole.

  Raises:
    InputError: if there are shards of the split that this conversion has not made.
  """
  pattern = _shard_pattern(split)
  found = sorted(p.name for p in folder.glob('*.tfrecord') if re.fullmatch(pattern, p.name))
  if not found:
    return start
  path = summary_path(folder, split)
  remedy = f'remove the shards of {split!r} and {path.name}, or use another output folder'
  if not path.exists():
    raise InputError(f'{folder / found[0]}: there is no {path.name} that lists it; {remedy}')
  before = read_progress(path)
  for key in {**start.made_of, **before.made_of}:
    then, now = before.made_of.get(key), start.made_of.get(key)
    if then != now:
      raise InputError(
        f'{path}: is of a conversion with another {key} ({then}, now {now}); {remedy}'
      )
  for name in found:
    if name not in names or name not in before.shards:
      raise InputError(f'{folder / name}: is not listed in {path.name}; {remedy}')
  whole = {
    name: summary
    for name, summary in before.shards.items()
    if name in found and (keep_skipped or not summary.skipped_images)
  }
  return start._replace(shards=whole, skipped=[s for s in before.skipped if s.shard in whole])


@contextlib.contextmanager
def only_run(folder: pathlib.Path, split: str) -> Iterator[None]:
  """Makes a folder, and keeps it from other conversions of the split for the time inside.

  The system lifts the lock when the process ends, however it does. If an error leaves a new folder
  empty, it is removed.

  Raises:
    InputError: if the folder cannot be made, or another conversion of the split is running.
  """
  is_new = not folder.exists()
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise InputError(f'{folder}: cannot be made ({error.strerror})') from None
  try:
    with _lock(folder / f'.{split}.lock', f'{folder}: another conversion of {split!r} is running'):
      for path in folder.glob('.*.part'):
        if re.fullmatch(rf'\.{_shard_pattern(split)}\.part', path.name):
          path.unlink()
      yield
  finally:
    if is_new and not any(folder.iterdir()):
      folder.rmdir()


@contextlib.contextmanager
def _lock(path: pathlib.Path, refusal: str) -> Iterator[None]:
  with contextlib.ExitStack() as stack:
    with files.writing(path):
      file = stack.enter_context(open(path, 'w'))
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise InputError(refusal) from None
    except OSError as error:
      # Some network file systems have no locks; there the user must see to it.
      print(f'{path}: cannot be locked ({error.strerror})', file=sys.stderr)
    try:
      yield
    finally:
      path.unlink(missing_ok=True)


@contextlib.contextmanager
def record_writer(path: pathlib.Path, temporary: pathlib.Path) -> 'Iterator[tf.io.TFRecordWriter]':
  """Writes records to `temporary`; what goes wrong is an `InputError` that names `path`."""
  import tensorflow as tf

  try:
    with tf.io.TFRecordWriter(str(temporary)) as writer:
      yield writer
  except tf.errors.OpError as error:
    raise InputError(f'{path}: cannot be written ({error.message})') from None
