"""Counts from shards which thing category lies on which."""

# T thing categories.

import dataclasses
import io
import json
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
import tqdm
from PIL import Image

from oanet_tf import files
from oanet_tf.data import shard_files, tf_example
from oanet_tf.data.categories import Category, PanopticCategories
from oanet_tf.data.interruptible import interruptible
from oanet_tf.data.json_file import read_json_object
from oanet_tf.errors import InputError
from oanet_tf.files import FilePath

# Pixels that are added to the counts of both categories, so that rare pairs stay near 1/2.
PRIOR_PIXELS = 100


@dataclasses.dataclass(frozen=True)
class ClassPrior:
  """Counts of the pixels that objects of two categories both cover.

  Attributes:
    categories: of the dataset.
    pixels: [T, T] int64: of the pixels that objects of both a and b cover, those that are a in the
      panoptic ground truth. Objects of one category do not count.
  """

  categories: PanopticCategories
  pixels: np.ndarray

  def table(self) -> np.ndarray:
    """[T, T] float32: the probability that a pixel that a and b cover is a, rather than b."""
    pixels = self.pixels + PRIOR_PIXELS
    return (pixels / (pixels + pixels.T)).astype(np.float32)

  def to_json(self, path: pathlib.Path) -> None:
    """Writes all thing categories, and the pairs that have pixels, those with the most first.

    Raises:
      InputError: if the file cannot be written.
    """
    things = [category for category in self.categories if category.is_thing]
    total = np.triu(self.pixels + self.pixels.T)
    pairs = [
      {
        'ids': [things[a].id, things[b].id],
        'names': [things[a].name, things[b].name],
        'pixels': [int(self.pixels[a, b]), int(self.pixels[b, a])],
      }
      for a, b in sorted(np.argwhere(total).tolist(), key=lambda pair: -total[tuple(pair)])
    ]
    rows = ',\n'.join(json.dumps(pair, ensure_ascii=False) for pair in pairs)
    ids, names = [thing.id for thing in things], [thing.name for thing in things]
    head = f'"thing_ids": {ids},\n"thing_names": {json.dumps(names, ensure_ascii=False)},\n'
    files.write_text(path, f'{{{head}"pairs": [\n{rows}\n]}}\n')

  @classmethod
  def from_json(cls, path: FilePath, categories: PanopticCategories) -> 'ClassPrior':
    """Reads what `to_json` wrote.

    Raises:
      InputError: if the file is missing or malformed, or was counted for other categories.
    """
    content = read_json_object(path)
    things = [category for category in categories if category.is_thing]
    ids = [category.id for category in things]
    if difference := _difference(content, things):
      raise InputError(
        f'{path}: is not of the things of {categories.source}: {difference}; count it from its '
        'shards with oanet class_prior'
      )
    pixels = np.zeros([len(ids)] * 2, np.int64)
    try:
      for pair in content['pairs']:
        (a, b), (of_a, of_b) = map(ids.index, pair['ids']), pair['pixels']
        pixels[a, b], pixels[b, a] = of_a, of_b
    except (KeyError, TypeError, ValueError, OverflowError):
      raise InputError(f'{path}: is no file of oanet class_prior') from None
    if (pixels < 0).any():
      raise InputError(f'{path}: has a number of pixels below 0')
    return cls(categories, pixels)


def _difference(content: Mapping, things: Sequence[Category]) -> str | None:
  """The first difference of the things of a file to others, in words; None if there is none."""
  ids, names = content.get('thing_ids'), content.get('thing_names')
  if not isinstance(ids, list):
    return 'it has no `thing_ids`'
  if not isinstance(names, list):
    # In files of earlier versions, only pairs have names.
    names = _names_of_pairs(content, ids)
  for (thing_id, name), thing in zip(zip(ids, names), things):  # noqa: B905
    if thing_id != thing.id or name not in (None, thing.name):
      return f'{thing_id} {name or ""!r}, not {thing.id} {thing.name!r}'
  return f'{len(ids)} things, not {len(things)}' if len(ids) != len(things) else None


def _names_of_pairs(content: Mapping, ids: Sequence[int]) -> list[str | None]:
  """The names of ids as the pairs give them; None for one that is in no pair."""
  try:
    names = {
      thing_id: name
      for pair in content['pairs']
      for thing_id, name in zip(pair['ids'], pair['names'], strict=True)
    }
    return [names.get(thing_id) for thing_id in ids]
  except (KeyError, TypeError, ValueError):
    return [None] * len(ids)


def load_table(
  path: str, categories: PanopticCategories, methods: Sequence[str]
) -> np.ndarray | None:
  """Reads the table of the fusion 'class_prior'; None if that is not among the methods.

  Raises:
    InputError: if the file cannot be read, or was counted for other categories.
  """
  return ClassPrior.from_json(path, categories).table() if 'class_prior' in methods else None


def count(shards: Sequence[str], categories: PanopticCategories) -> ClassPrior:
  """Reads all shards once, with a progress bar.

  Args:
    shards: TFRecord files with objects and panoptic maps.
    categories: of the shards.

  Raises:
    InputError: if a shard is damaged or has an unknown category.
  """
  counts = shard_files.whole_records(shards)
  # Loading TensorFlow takes seconds, so the files are looked at first.
  import tensorflow as tf

  pixels = np.zeros([categories.num_things] * 2, np.int64)
  dataset = (
    shard_files.records(counts).map(tf_example.decode_annotations, tf.data.AUTOTUNE).prefetch(2)
  )
  records = interruptible(dataset.as_numpy_iterator())
  bar = tqdm.tqdm(records, 'counting', sum(counts.values()), unit='image')
  with shard_files.named_errors(shards, with_images=False), bar:
    for record in bar:
      pixels += conflicts(record, categories)
  return ClassPrior(categories, pixels)


def conflicts(record: Mapping[str, np.ndarray], categories: PanopticCategories) -> np.ndarray:
  """`ClassPrior.pixels` of one record, [T, T] int64.

  Args:
    record: of `tf_example.decode_annotations`; crowds are ignored.
    categories: of the dataset.

  Raises:
    InputError: if an object's category is not a known thing.
  """
  single = np.flatnonzero(~record['object_is_crowd'])
  labels = [
    _label(record, category_id, categories) for category_id in record['object_category_ids']
  ]
  present, channels = np.unique(np.array(labels, int)[single], return_inverse=True)
  pixels = np.zeros([categories.num_things] * 2, np.int64)
  covered = np.zeros([len(present), *record['segment_index'].shape], bool)
  for index, channel in zip(single, channels, strict=True):
    mask = np.asarray(Image.open(io.BytesIO(record['object_masks'][index]))) > 0
    y1, x1, y2, x2 = record['object_boxes'][index].astype(int)
    covered[channel, y1:y2, x1:x2] |= mask
  conflict = covered.sum(axis=0) >= 2
  if conflict.any():
    of_segment = np.append(0, categories.label_of_id_table()[record['segment_category_ids']])
    visible = of_segment[record['segment_index'][conflict]]
    covered = covered[:, conflict].astype(np.float64)
    shown = covered * (present[:, np.newaxis] == visible)
    pixels[np.ix_(present - 1, present - 1)] = shown @ covered.T
    np.fill_diagonal(pixels, 0)
  return pixels


def _label(record: Mapping, category_id: int, categories: PanopticCategories) -> int:
  label = categories.label(category_id) if category_id in categories else 0
  if not categories.is_thing(label):
    raise InputError(
      f'image {record["source_id"].decode(errors="replace")} has an object of category '
      f'{category_id}, which is no thing; is categories.json of another dataset?'
    )
  return label
