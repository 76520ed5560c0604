"""Finds TFRecord shards, counts their records and names those that are damaged."""

import collections
import contextlib
import glob
import itertools
import logging
import os
import pathlib
import re
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from oanet_tf.data import tf_example
from oanet_tf.data.categories import CATEGORIES_FILE, PanopticCategories
from oanet_tf.data.interruptible import interruptible
from oanet_tf.data.resume import Split, Summary
from oanet_tf.errors import InputError, first_line
from oanet_tf.files import FilePath

if TYPE_CHECKING:
  # Loaded in the functions that need it: it takes seconds, and arguments are checked before.
  import tensorflow as tf

log = logging.getLogger(__name__)

# A record: length (8 bytes), checksum (4), data, checksum (4).
_LENGTH, _CHECKSUM = struct.Struct('<Q'), 4


def find_shards(patterns: Sequence[str]) -> list[str]:
  """Files, and those that globs match, in order and without repetition.

  Raises:
    InputError: if one matches nothing, or is a folder.
  """
  found = []
  for pattern in patterns:
    matches = _matches(pattern)
    if not matches:
      raise InputError(f'{pattern}: no TFRecord file matches; oanet convert makes them')
    found.extend(matches)
  for path in found:
    if os.path.isdir(path):
      raise InputError(f"{path}: is a folder; give its shards, '{path}/*.tfrecord'")
  return list(dict.fromkeys(found))


def _matches(pattern: str) -> list[str]:
  if os.path.exists(pattern):
    return [pattern]
  # A folder's name may have brackets: runs/lr[0.01]/*.tfrecord.
  return sorted(glob.glob(pattern) or glob.glob(pattern.replace('[', '[[]')))


def list_shards(input_path: str) -> list[str]:
  """`find_shards` of the files and globs, separated by commas, of a config.

  A path that has a comma itself stands alone.

  Raises:
    InputError: if the list is empty, or one matches nothing or is a folder.
  """
  patterns = [part.strip() for part in input_path.split(',') if part.strip()]
  if len(patterns) > 1 and _matches(input_path):
    return find_shards([input_path])
  if not patterns:
    raise InputError('input_path is empty; set task.train_data.input_path (or validation_data)')
  return find_shards(patterns)


def check_shards(
  shards: Sequence[str], categories: PanopticCategories, skip_damaged: bool = False
) -> None:
  """Looks at shards before the work, and compares the categories beside them with a network's.

  Args:
    shards: TFRecord files.
    categories: of the network.
    skip_damaged: whether what `whole_records` refuses is a warning, if there is any record.

  Raises:
    InputError: as `whole_records`; or if there are other categories in a folder: it names both
      files and the first difference.
  """
  if skip_damaged:
    _warn_of_damage(shards)
  else:
    whole_records(shards)
  for folder in dict.fromkeys(pathlib.Path(shard).parent for shard in shards):
    if (beside := folder / CATEGORIES_FILE).is_file():
      PanopticCategories.from_json(beside).check_same(categories)


def _warn_of_damage(shards: Sequence[str]) -> None:
  if not count_records(shards, 1):
    raise InputError(f'{shards[0]}: holds no record, or is no TFRecord file; convert it again')
  for shard in shards:
    try:
      whole_records([shard])
    except InputError as error:
      log.warning('%s', error)


def whole_records(shards: Sequence[FilePath]) -> dict[str, int]:
  """Counts the records of each shard, and compares with what the converter says of them.

  Only headers are read, so that a million records take seconds. Their content has checksums, which
  TensorFlow compares when it reads it.

  Raises:
    InputError: if a shard is cut off, or has no record and no summary says that it has none; if the
      summary beside it says that it has another number of records or bytes, that another shard is
      missing, or that the conversion was not finished; or if there is no record at all.
  """
  counts = {os.fspath(shard): _count_whole(shard) for shard in shards}
  summaries = _summaries(counts)
  for shard, count in counts.items():
    summary = summaries.get(shard)
    if not count and (summary is None or summary.images):
      raise InputError(f'{shard}: holds no record; convert it again')
    if summary is not None:
      _compare(shard, count, summary)
  if not any(counts.values()):
    raise InputError(f'{", ".join(counts)}: hold no record; convert again')
  return counts


def _compare(shard: str, count: int, summary: Summary) -> None:
  """Refuses a shard that is not the one that was converted.

  Raises:
    InputError: if it has another number of records, or of bytes.
  """
  found, said = f'holds {count} records', f'{summary.images}'
  if count == summary.images:
    # Summaries of earlier versions do not have the size.
    size = os.path.getsize(shard)
    if summary.bytes in (0, size):
      return
    found, said = f'has {size} bytes', f'{summary.bytes}'
  raise InputError(
    f'{shard}: {found}, but the summary of its conversion says {said}; convert or copy it again'
  )


def _summaries(shards: Iterable[str]) -> dict[str, Summary]:
  """What summaries beside shards say of each."""
  found = {}
  for split, own in _shards_of_splits(shards):
    progress, summary = split.read(), split.summary_path
    if not progress.is_complete:
      raise InputError(f'{summary}: says that the conversion was not finished; run it again')
    listed = {str(split.folder / name): part for name, part in progress.shards.items()}
    for path in own:
      if path not in listed:
        raise InputError(f'{path}: is not listed in {summary.name}; convert or copy both again')
      found[path] = listed[path]
    if missing := [path for path in listed if not os.path.exists(path)]:
      raise InputError(
        f'{missing[0]}: is missing, but {summary.name} lists it; convert or copy it again'
      )
  return found


def _shards_of_splits(shards: Iterable[FilePath]) -> list[tuple[Split, list[str]]]:
  """The splits of which there is a summary, each with its own of the shards."""
  own = collections.defaultdict(list)
  for shard in map(pathlib.Path, shards):
    name = re.sub(r'-\d{5}-of-\d{5}\.tfrecord$', '', shard.name)
    own[Split(shard.parent, name)].append(str(shard))
  return [(split, paths) for split, paths in own.items() if split.summary_path.is_file()]


def check_not_turned(shards: Sequence[str], instances_json: str) -> None:
  """Refuses an instances JSON for shards whose annotations were turned upright by the converter.

  Its masks would lie on other pixels; half a turn cannot be told by the size.

  Raises:
    InputError: if the summary beside shards says so; it names both files.
  """
  for split, _ in _shards_of_splits(shards):
    if count := split.read().total().turned_images:
      raise InputError(
        f'{instances_json}: is of pictures as stored, but {split.summary_path} says that '
        f'annotations of {count} of them were turned upright; leave it out, and objects are the '
        'panoptic segments'
      )


def record_lengths(path: FilePath) -> Iterator[int]:
  """Yields the lengths in bytes of a shard's records, up to one that is cut off, from headers."""
  size = os.path.getsize(path)
  with open(path, 'rb') as file:
    while file.tell() + _LENGTH.size + 2 * _CHECKSUM <= size:
      (length,) = _LENGTH.unpack(file.read(_LENGTH.size))
      if file.tell() + length + 2 * _CHECKSUM > size:
        return
      file.seek(length + 2 * _CHECKSUM, os.SEEK_CUR)
      yield length


def _count_whole(shard: FilePath) -> int:
  """Raises `InputError` if the lengths of records do not add up to the file's size."""
  lengths = list(record_lengths(shard))
  if sum(lengths) + len(lengths) * (_LENGTH.size + 2 * _CHECKSUM) != os.path.getsize(shard):
    raise InputError(
      f'{shard}: record {len(lengths)} is truncated or damaged, or this is no TFRecord file; '
      'convert or copy it again'
    )
  return len(lengths)


def records(counts: Mapping[str, int]) -> 'tf.data.Dataset':
  """The serialized records of shards, one shard after the other.

  Args:
    counts: how many to read of each shard, as `whole_records` gives it.
  """
  import tensorflow as tf

  numbers = tf.constant(list(counts.values()), tf.int64)
  dataset = tf.data.Dataset.from_tensor_slices((list(counts), numbers))
  return dataset.flat_map(tf.autograph.experimental.do_not_convert(records_of))


def records_of(shard: 'str | tf.Tensor', count: 'int | tf.Tensor') -> 'tf.data.Dataset':
  """The first `count` records of a shard; to read on fails if it has become shorter meanwhile."""
  import tensorflow as tf

  dataset = tf.data.TFRecordDataset(shard).take(count)
  return dataset.apply(tf.data.experimental.assert_cardinality(count))


def count_records(shards: Sequence[str], most: int | None = None) -> int:
  """Counts the records of shards, perhaps cut off, up to `most`."""
  lengths = itertools.chain.from_iterable(map(record_lengths, shards))
  return sum(1 for _ in itertools.islice(lengths, most))


def readable_records(shards: list[str]) -> dict[str, int]:
  """Reads all shards and counts, for each, the records before the first damaged one.

  Logs a warning for each damaged shard with the number of records that are lost.

  Raises:
    InputError: if there is no record that can be read.
  """
  import tensorflow as tf

  readable = {}
  for shard in shards:
    readable[shard], damage = _read(shard, tf.data.TFRecordDataset(shard))
    if damage is not None:
      lost = max(1, sum(1 for _ in record_lengths(shard)) - readable[shard])
      log.warning(
        '%s: is damaged after record %d; %d records skipped', shard, readable[shard], lost
      )
  if not any(readable.values()):
    raise InputError(f'{", ".join(readable)}: hold no record that can be read; convert again')
  return readable


@contextlib.contextmanager
def named_errors(input_path: str | Sequence[str], with_images: bool = True) -> Iterator[None]:
  """Turns an error in reading a dataset into an `InputError` that names the damaged shard.

  Args:
    input_path: files and globs, separated by commas, or a list of files.
    with_images: whether images are decoded; if not, they may be damaged or empty.
  """
  import tensorflow as tf

  try:
    yield
  except (
    tf.errors.DataLossError,
    tf.errors.InvalidArgumentError,
    # Where a shard was cut, removed or forbidden after it was counted.
    tf.errors.FailedPreconditionError,
    tf.errors.NotFoundError,
    tf.errors.PermissionDeniedError,
  ) as error:
    decode = tf_example.traced(tf_example.decode if with_images else tf_example.decode_annotations)
    shards = list_shards(input_path) if isinstance(input_path, str) else input_path
    for shard in shards:
      dataset = tf.data.TFRecordDataset(shard).map(decode)
      count, damage = _read(shard, dataset)
      if isinstance(damage, tf.errors.DataLossError):
        raise InputError(
          f'{shard}: is damaged after record {count}; convert it again, or set skip_damaged=true'
        ) from None
      if damage is not None:
        raise InputError(f'{shard}: record {count + 1}: {fact(damage)}') from None
    whole_records(shards)
    raise InputError(f'{", ".join(shards)}: {fact(error)}') from None


def fact(error: 'tf.errors.OpError') -> str:
  """The first line of an error's message, without the frame of a failed assertion."""
  return re.sub(r'assertion failed: | \[Condition.*|[\[\]]', '', first_line(error))


def _read(shard: str, dataset: 'tf.data.Dataset') -> 'tuple[int, tf.errors.OpError | None]':
  """Counts elements up to an error, and returns that too."""
  import tensorflow as tf

  count = 0
  try:
    for _ in interruptible(dataset):
      count += 1
  except tf.errors.OpError as error:
    return count, error
  return count, None
