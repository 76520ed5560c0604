"""Categories of a panoptic dataset, and their contiguous labels.

Label 0 is void, 1…T are the T thing categories and T+1…T+S the S stuff categories, both in the
order of the dataset's ids. A thing's label is also its detection class (0 is background).
"""

import colorsys
import dataclasses
import difflib
import itertools
import json
import pathlib
import re
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import ImageColor

from oanet_tf import files
from oanet_tf.data.json_file import field, read_json_object, whole
from oanet_tf.errors import InputError
from oanet_tf.files import FilePath

CATEGORIES_FILE = 'categories.json'
# COCO's 133, as in its `panoptic_val2017.json`.
COCO_FILE = pathlib.Path(__file__).with_name('coco_categories.json')
VOID_LABEL = 0
# The largest id that fits the 16-bit maps of the records.
MAX_CATEGORY_ID = 2**16 - 1
MAX_NAME_LENGTH = 1000


@dataclasses.dataclass(frozen=True)
class Category:
  """One category: `id` is the dataset's own, `color` is RGB in [0, 255]."""

  id: int
  name: str
  is_thing: bool
  color: tuple[int, int, int]


class PanopticCategories:
  """Dataset ids <-> contiguous labels, things first.

  Attributes:
    source: where they come from, for errors.
  """

  def __init__(self, categories: Sequence[Category], source: str = 'categories'):
    """Orders the categories.

    Raises:
      InputError: if there are none, or two have the same id.
    """
    if not categories:
      raise InputError('there is no category')
    self._ordered = tuple(sorted(categories, key=lambda c: (not c.is_thing, c.id)))
    self.source = source
    self._num_things = sum(c.is_thing for c in categories)
    self._label_of = {c.id: label for label, c in enumerate(self._ordered, start=1)}
    if len(self._label_of) != len(self._ordered):
      ids = [c.id for c in self._ordered]
      raise InputError(f'category id {next(i for i in ids if ids.count(i) > 1)} is given twice')

  @classmethod
  def from_coco(
    cls, entries: object, source: str = 'categories', things: Sequence[str] | None = None
  ) -> 'PanopticCategories':
    """Reads COCO's `categories` list: `id`, `name`, `isthing` and, optionally, `color`.

    Args:
      entries: the list of objects, as `json.load` gives it.
      source: its name in errors, usually the file's.
      things: names of the thing categories; None takes what `isthing` says.

    Raises:
      InputError: if a field is missing or of the wrong kind, or an id is out of [0, 65535] or
        given twice; or if one of `things` is no category.
    """
    if not isinstance(entries, list) or not entries:
      raise InputError(f'{source}: `categories` is not a list of categories')
    parsed = [_parse_entry(*one, len(entries), source, things) for one in enumerate(entries)]
    names = [category.name for category in parsed]
    if unknown := [name for name in things or () if name not in names]:
      nearest = ', '.join(difflib.get_close_matches(unknown[0], names) or names[:3])
      raise InputError(
        f'{source}: has no category {unknown[0]!r}; there are, for example, {nearest}'
      )
    try:
      return cls(parsed, source)
    except InputError as error:
      raise InputError(f'{source}: {error}') from None

  @classmethod
  def from_json(cls, path: FilePath) -> 'PanopticCategories':
    """Reads a file of `to_json`, or any JSON file with COCO's `categories`."""
    content = read_json_object(path)
    if 'categories' not in content:
      raise InputError(f'{path}: has no `categories`')
    return cls.from_coco(content['categories'], source=str(path))

  def to_coco(self) -> list[dict]:
    """COCO's `categories` list, in the order of the labels."""
    return [
      {'id': c.id, 'name': c.name, 'isthing': int(c.is_thing), 'color': list(c.color)}
      for c in self._ordered
    ]

  def to_json(self, path: FilePath) -> None:
    """Writes `{"categories": [...]}`.

    Raises:
      InputError: if the file cannot be written.
    """
    text = json.dumps({'categories': self.to_coco()}, indent=1) + '\n'
    files.write_text(pathlib.Path(path), text, durable=True)

  def difference(self, other: 'PanopticCategories') -> str | None:
    """The first difference to other categories but for colours, in words; None if there is none."""
    for one, another in itertools.zip_longest(self, other):
      if one is None or another is None:
        return f'{len(self)} categories, not {len(other)}'
      if (one.id, one.name, one.is_thing) != (another.id, another.name, another.is_thing):
        first, second = (
          f'{"thing" if category.is_thing else "stuff"} {category.id} {category.name!r}'
          for category in (one, another)
        )
        return f'{first}, not {second}'
    return None

  def check_same(self, other: 'PanopticCategories') -> None:
    """Raises `InputError`, which names both sources, if these are not the same but for colours."""
    if difference := self.difference(other):
      raise InputError(f'{self.source}: has other categories than {other.source}: {difference}')

  def check_numbering(self, listed: object, source: str) -> None:
    """Checks that another file, which may list fewer or more categories, has the same ids.

    Args:
      listed: its `categories`, as `json.load` gives them.
      source: the other file's name, for errors.

    Raises:
      InputError: if it is no such list, an id has another name, or a name another id.
    """
    ids = {category.name: category.id for category in self}
    for entry in field({'categories': listed}, 'categories', list, source):
      category_id = field(entry, 'id', int, f'{source}: a category')
      name = field(entry, 'name', str, f'{source}: category {category_id}')
      known = self.of_id(category_id).name if category_id in self else name
      if known != name or (category_id not in self and name in ids):
        there = repr(known) if known != name else f'{name!r} is {ids[name]}'
        raise InputError(
          f'{source}: category {category_id} is {name!r}, but {there} in {self.source}; both files '
          'must number the categories alike'
        )

  @property
  def num_things(self) -> int:
    return self._num_things

  @property
  def num_stuff(self) -> int:
    return len(self._ordered) - self._num_things

  @property
  def num_labels(self) -> int:
    """1 + T + S, including void."""
    return len(self._ordered) + 1

  def __len__(self) -> int:
    return len(self._ordered)

  def __iter__(self) -> Iterator[Category]:
    """Categories in the order of their labels, 1 first."""
    return iter(self._ordered)

  def __contains__(self, category_id: int) -> bool:
    return category_id in self._label_of

  def __eq__(self, other: object) -> bool:
    return isinstance(other, PanopticCategories) and self._ordered == other._ordered

  def __hash__(self) -> int:
    return hash(self._ordered)

  def label(self, category_id: int) -> int:
    """The label of a dataset's id; raises `KeyError` for an unknown one."""
    return self._label_of[category_id]

  def category(self, label: int) -> Category:
    """The category of a label in [1, T+S]."""
    if not 1 <= label <= len(self._ordered):
      raise IndexError(f'label {label} is not in [1, {len(self._ordered)}]')
    return self._ordered[label - 1]

  def of_id(self, category_id: int) -> Category:
    """The category of a dataset's id; raises `KeyError` for an unknown one."""
    return self._ordered[self._label_of[category_id] - 1]

  def is_thing(self, label: int) -> bool:
    return 1 <= label <= self._num_things

  @property
  def void_id(self) -> int:
    """What stands for void in a map of category ids: 0, or -1 if a category has the id 0."""
    return -1 if 0 in self._label_of else 0

  def label_of_id_table(self) -> np.ndarray:
    """[largest id + 1] int32: the label of each dataset id, 0 where there is none."""
    table = np.zeros(max(self._label_of) + 1, np.int32)
    table[list(self._label_of)] = list(self._label_of.values())
    return table

  def labels_of_ids(self, ids: np.ndarray) -> np.ndarray:
    """Integers -> int32 labels; 0 for void and for ids that are no category's."""
    table = self.label_of_id_table()
    known = (ids >= 0) & (ids < len(table))
    return np.where(known, table[np.where(known, ids, 0)], VOID_LABEL)

  def id_of_label_table(self) -> np.ndarray:
    """[1 + T + S] int32: the dataset id of each label, `void_id` for void."""
    return np.array([self.void_id] + [c.id for c in self._ordered], np.int32)


def _parse_entry(
  index: int, entry: Mapping, count: int, source: str, things: Sequence[str] | None
) -> Category:
  where = f'{source}: category {index}'
  if not isinstance(entry, dict):
    raise InputError(f'{where} is not an object')
  for key in ('id', 'name') if things is not None else ('id', 'name', 'isthing'):
    if key not in entry:
      remedy = ' Write 1 or 0, or give oanet convert --things' if key == 'isthing' else ''
      raise InputError(f'{where} has no `{key}`: is this a COCO panoptic file?{remedy}')
  category_id, name = whole(entry['id']), str(entry['name'])
  if not _is_int(category_id) or not 0 <= category_id <= MAX_CATEGORY_ID:
    raise InputError(f'{where}: id {entry["id"]!r} is not an integer in [0, {MAX_CATEGORY_ID}]')
  if not _is_text(name) or len(name) > MAX_NAME_LENGTH:
    raise InputError(
      f'{where}: name {reprlib.repr(name)} is not text that can be written as UTF-8, of '
      f'{MAX_NAME_LENGTH} characters at most'
    )
  is_thing = entry['isthing'] if things is None else name in things
  if is_thing not in (0, 1):
    raise InputError(
      f'{where}: isthing {is_thing!r} is neither 0 nor 1; write these, or give oanet '
      'convert --things'
    )
  color = _parse_color(entry.get('color'), where) or _default_color(index, count)
  return Category(category_id, name, bool(is_thing), color)


def _is_int(value: object) -> bool:
  return isinstance(value, int) and not isinstance(value, bool)


def _is_text(name: str) -> bool:
  try:
    name.encode()
  except UnicodeEncodeError:
    return False
  return True


def _parse_color(color: Any, where: str) -> tuple[int, int, int] | None:
  """RGB of [r, g, b], [r, g, b, alpha], '#rrggbb' or another of CSS's names; None if there is none.

  Raises:
    InputError: if it is none of these.
  """
  if not color:
    return None
  try:
    if isinstance(color, str):
      color = ImageColor.getrgb(f'#{color}' if re.fullmatch('[0-9a-fA-F]{6}', color) else color)
    values = [whole(v) for v in color]
  except (ValueError, TypeError):
    values = []
  if len(values) not in (3, 4) or not all(_is_int(v) and 0 <= v <= 255 for v in values):
    raise InputError(f"{where}: color {color!r} is not three integers in [0, 255], nor '#rrggbb'")
  red, green, blue = values[:3]
  return red, green, blue


def _default_color(index: int, count: int) -> tuple[int, int, int]:
  """A different hue for each category of a dataset without colours."""
  r, g, b = colorsys.hsv_to_rgb(
    index / count, 0.55 + 0.35 * (index % 2), 0.9 - 0.3 * (index % 3 == 1)
  )
  return round(255 * r), round(255 * g), round(255 * b)
