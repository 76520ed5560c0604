"""What a conversion has written so far, so that it can go on after it was killed.

A shard has its name only when it is complete; until then it is a hidden `.part` file, which nothing
reads. Just before the renaming, `<split>_summary.json` is rewritten: it lists the complete shards
and what they were made of. Once it says `"complete": true`, so is the split.

A conversion is the same as an earlier one if the bytes of the JSON files, `num_shards`,
`mask_encoding`, `overlaps`, the schema and what is left out are; changes of images or PNGs are not
noticed.
"""

import contextlib
import functools
import hashlib
import json
import operator
import pathlib
import re
from collections.abc import Collection, Iterator
from typing import Any, Literal, NamedTuple

from oanet_tf import files
from oanet_tf.data.json_file import read_json_object
from oanet_tf.errors import InputError
from oanet_tf.files import FilePath

OnError = Literal['raise', 'skip']


class Summary(NamedTuple):
  """How much a conversion has written and left out.

  Attributes:
    images: written.
    segments: of the panoptic maps.
    crowd_segments: segments that are crowds.
    objects: instances of things, including crowds.
    crowd_objects: objects that are crowds.
    overlapping_objects: objects whose mask shares a pixel with another's.
    images_without_objects: images that have none.
    images_from_panoptic: images whose objects come from the panoptic masks.
    pixels: of all images.
    void_pixels: pixels in no segment.
    empty_instances: annotations without a pixel, left out.
    skipped_images: left out because of an error.
    unannotated_images: in the panoptic JSON's `images` but not in its `annotations`, left out.
    images_without_conflict: left out because the ranking loss counts none of their pixels.
    empty_segments: listed segments without a pixel, left out.
    turned_images: images whose annotations were of the pixels as stored, and were turned upright.
    images_of_unsure_turn: images that EXIF turns and whose size does not tell if their annotations
      are upright.
    bytes: of the shards.
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
  images_without_conflict: int = 0
  empty_segments: int = 0
  turned_images: int = 0
  images_of_unsure_turn: int = 0
  bytes: int = 0

  @property
  def void_fraction(self) -> float:
    """In [0, 1], of all pixels."""
    return self.void_pixels / max(self.pixels, 1)

  def plus(self, other: 'Summary') -> 'Summary':
    return Summary(*map(operator.add, self, other))

  def __str__(self) -> str:
    return (
      f'{self.images} images, {self.segments} segments ({self.crowd_segments} crowds), '
      f'{self.void_fraction:.1%} void, {self.objects} objects ({self.crowd_objects} crowds, '
      f'{self.overlapping_objects} overlap another). '
      f'Images without an object: {self.images_without_objects}; '
      f'whose objects come from the panoptic masks: {self.images_from_panoptic}. '
      f'Left out: {self.empty_instances} instances without a pixel, '
      f'{self.empty_segments} segments without a pixel, '
      f'{self.unannotated_images} images without an annotation, '
      f'{self.skipped_images} images with an error, '
      f'{self.images_without_conflict} images without a conflict.'
    )


class SkippedImage(NamedTuple):
  """An image that was left out, why, and of which shard; '' if no panoptic PNG could be made."""

  image_id: int | str
  file_name: str
  reason: str
  shard: str = ''


class Progress(NamedTuple):
  """What of a split is on disk.

  Attributes:
    made_of: what the shards' bytes depend on, by name: hashes of the JSON files and settings.
    unannotated_images: of the dataset.
    shards: the summary of each complete shard, by its name.
    skipped: the images that those shards leave out, or that have no panoptic PNG.
    is_complete: whether there are no other shards to come.
  """

  made_of: dict[str, Any]
  unannotated_images: int
  shards: dict[str, Summary]
  skipped: list[SkippedImage]
  is_complete: bool = False

  def total(self) -> Summary:
    start = Summary(
      unannotated_images=self.unannotated_images,
      skipped_images=sum(not image.shard for image in self.skipped),
    )
    return functools.reduce(Summary.plus, self.shards.values(), start)


class Split(NamedTuple):
  """Where the shards and the summary of a split are.

  Attributes:
    folder: of the shards.
    name: how the names of its files begin.
  """

  folder: pathlib.Path
  name: str

  @property
  def summary_path(self) -> pathlib.Path:
    return self.folder / f'{self.name}_summary.json'

  @property
  def upright_path(self) -> pathlib.Path:
    """Of the JSON of `panoptic_of_records`."""
    return self.folder / f'{self.name}_upright.json'

  def shard_names(self, count: int) -> list[str]:
    return [f'{self.name}-{i:05}-of-{count:05}.tfrecord' for i in range(count)]

  def _has_shard(self, file_name: str) -> bool:
    pattern = rf'{re.escape(self.name)}-\d{{5}}-of-\d{{5}}\.tfrecord'
    return re.fullmatch(pattern, file_name) is not None

  def write(self, progress: Progress) -> None:
    """Writes the summary; raises `InputError` if it cannot be written."""
    total = progress.total()
    content = {
      'complete': progress.is_complete,
      **total._asdict(),
      'void_share': round(total.void_fraction, 6),
      'made_of': progress.made_of,
      'skipped': [s._asdict() for s in sorted(progress.skipped, key=lambda s: s.shard)],
      'shards': {name: progress.shards[name]._asdict() for name in sorted(progress.shards)},
    }
    files.write_text(self.summary_path, json.dumps(content, indent=1) + '\n', durable=True)

  def read(self) -> Progress:
    """Reads what `write` wrote; raises `InputError` if the file is missing or malformed."""
    path = self.summary_path
    content = read_json_object(path)
    try:
      return Progress(
        dict(content['made_of']),
        content['unannotated_images'],
        {name: Summary(**summary) for name, summary in content['shards'].items()},
        [SkippedImage(**image) for image in content['skipped']],
        content['complete'],
      )
    except (KeyError, TypeError, ValueError, AttributeError):
      raise InputError(f'{path}: is no summary of a conversion; remove it and its shards') from None

  def resume(self, names: Collection[str], start: Progress, keep_skipped: bool) -> Progress:
    """The progress of an earlier run of the same conversion; `start` if there was none.

    Args:
      names: of all shards.
      start: progress of a new conversion.
      keep_skipped: whether shards that leave out images with errors count as complete.

    Raises:
      InputError: if there are shards of the split from another conversion.
    """
    found = sorted(p.name for p in self.folder.glob('*.tfrecord') if self._has_shard(p.name))
    if not found:
      return start
    folder, path = self.folder, self.summary_path
    remedy = f'remove the shards of {self.name!r} and {path.name}, or use another output folder'
    if not path.exists():
      raise InputError(f'{folder / found[0]}: there is no {path.name} that lists it; {remedy}')
    before = self.read()
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
    skipped = [image for image in before.skipped if image.shard in whole]
    return start._replace(shards=whole, skipped=start.skipped + skipped)

  @contextlib.contextmanager
  def only_run(self) -> Iterator[None]:
    """Makes the folder, locks it against other conversions of the split, and removes half shards.

    A new folder that is still empty after an error is removed.

    Raises:
      InputError: if the folder cannot be made, or another conversion of the split is running.
    """
    with files.only_one(self.folder, f'conversion of {self.name!r}', self.name):
      for path in self.folder.glob('.*.part'):
        if self._has_shard(path.name[1:].removesuffix('.part')):
          path.unlink()
      yield


def sha256(path: FilePath) -> str:
  """The hash of a file's content, in hexadecimal digits."""
  digest = hashlib.sha256()  # Python 3.10 has no `hashlib.file_digest`.
  with open(path, 'rb') as file:
    while block := file.read(2**20):
      digest.update(block)
  return digest.hexdigest()
