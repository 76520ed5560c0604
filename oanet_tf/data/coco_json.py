"""COCO panoptic JSON files, optionally with an instances JSON -> one checked entry per image.

Format: https://cocodataset.org/#format-data. The files' own `area` and `bbox` are not read.

S segments of an image.
"""

import array
import pathlib
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from oanet_tf.data.categories import PanopticCategories
from oanet_tf.data.json_file import read_json_object
from oanet_tf.data.objects import Instance
from oanet_tf.data.panoptic_map import MAX_SEGMENT_ID
from oanet_tf.errors import InputError

FilePath = str | pathlib.Path

# All keys that are read here; the JSON files' others would take several GB for COCO.
_KEYS = {
  *('annotations', 'categories', 'category_id', 'color', 'counts', 'file_name', 'height', 'id'),
  *('image_id', 'images', 'iscrowd', 'isthing', 'name', 'segmentation', 'segments_info', 'size'),
  'width',
}
# What only the annotations of each kind of JSON have.
_MARKS = {'panoptic': 'segments_info', 'instances': 'segmentation'}


class ImageEntry(NamedTuple):
  """What the JSON files say of one image.

  Attributes:
    image_id: the dataset's.
    file_name: of the picture, relative to its folder.
    image_path: of the picture.
    panoptic_path: of the PNG.
    height: in pixels.
    width: in pixels.
    segment_ids: [S] int32 in [1, 2^24 - 1], unique.
    category_ids: [S] int32.
    is_crowd: [S] bool.
    instances: of the instances JSON; None if there is none, or it does not list this image.
    instances_json: its path, for error messages.
  """

  image_id: int | str
  file_name: str
  image_path: str
  panoptic_path: str
  height: int
  width: int
  segment_ids: np.ndarray
  category_ids: np.ndarray
  is_crowd: np.ndarray
  instances: list[Instance] | None
  instances_json: str


class CocoPanoptic(NamedTuple):
  """A dataset.

  Attributes:
    categories: of the panoptic JSON.
    entries: in the order of its `annotations`.
    num_unannotated: how many of its `images` have no annotation, hence no entry.
  """

  categories: PanopticCategories
  entries: list[ImageEntry]
  num_unannotated: int


def load(
  panoptic_json: FilePath,
  panoptic_dir: FilePath,
  image_dir: FilePath,
  instances_json: FilePath | None = None,
) -> CocoPanoptic:
  """Reads and checks the JSON files; pictures and PNGs are left to `read_record`.

  An image that the instances JSON lists has exactly the instances that it gives, be they none.

  Raises:
    InputError: if a file or folder is missing or not what it should be, or files contradict.
  """
  for folder in (panoptic_dir, image_dir):
    if not pathlib.Path(folder).is_dir():
      raise InputError(f'{folder}: there is no such folder')
  source = str(panoptic_json)
  content = read_json_object(source, _compact)
  annotations = _annotations(content, 'panoptic', source)
  if not annotations:
    raise InputError(f'{source}: `annotations` is empty')
  categories = PanopticCategories.from_coco(content.get('categories'), source)
  images = _images(content, source)
  num_unannotated = len(images) - len(annotations)
  entries = []
  for annotation in annotations:
    image_id, image = _annotated_image(annotation, images, source)
    where = f'{source}: image {image_id}'
    infos = _field(annotation, 'segments_info', list, where)
    entries.append(
      ImageEntry(
        image_id,
        image['file_name'],
        _path_inside(image_dir, image['file_name'], where),
        _path_inside(panoptic_dir, _field(annotation, 'file_name', str, where), where),
        image['height'],
        image['width'],
        *_segments(infos, categories, where),
        None,
        '',
      )
    )
  _check_unique([entry.image_id for entry in entries], f'{source}: the annotation of image')
  if instances_json:
    sizes = {image_id: (image['height'], image['width']) for image_id, image in images.items()}
    # Before the other large JSON is read.
    del content, annotations, images
    entries = _with_instances(entries, str(instances_json), sizes, categories)
  return CocoPanoptic(categories, entries, num_unannotated)


def _compact(entry: dict) -> dict:
  """A JSON object without what is not read, and 8 bytes a coordinate in place of 32."""
  kept = {key: value for key, value in entry.items() if key in _KEYS}
  polygons = kept.get('segmentation')
  if isinstance(polygons, list):
    kept['segmentation'] = [_packed(polygon) for polygon in polygons]
  return kept


def _packed(polygon: Any) -> Any:
  """A list of numbers as an array; anything else is left for `instance_mask` to refuse."""
  try:
    return array.array('d', polygon) if isinstance(polygon, list) else polygon
  except (TypeError, OverflowError):
    return polygon


def _field(entry: Any, key: str, kind: type | tuple[type, ...], where: str) -> Any:
  """`entry[key]`, checked to be there and of a kind."""
  if not isinstance(entry, dict) or key not in entry:
    raise InputError(f'{where}: has no `{key}`')
  value = entry[key]
  if not isinstance(value, kind) or isinstance(value, bool):
    raise InputError(f'{where}: `{key}` cannot be {reprlib.repr(value)}')
  return value


def _annotations(content: dict, kind: str, source: str) -> list[dict]:
  """The `annotations`, if they are those of a 'panoptic' or an 'instances' JSON."""
  annotations = _field(content, 'annotations', list, source)
  for index, annotation in enumerate(annotations):
    if not isinstance(annotation, dict) or _MARKS[kind] not in annotation:
      other = [
        k for k, mark in _MARKS.items() if isinstance(annotation, dict) and mark in annotation
      ]
      verdict = f'this is a COCO {other[0]} JSON' if other else f'this is no COCO {kind} JSON'
      raise InputError(f'{source}: annotation {index} has no `{_MARKS[kind]}`; {verdict}')
  return annotations


def _images(content: dict, source: str) -> dict[int | str, dict]:
  """The `images` by their id."""
  images = _field(content, 'images', list, source)
  for index, image in enumerate(images):
    image_id = _field(image, 'id', (int, str), f'{source}: images[{index}]')
    where = f'{source}: image {image_id}'
    _field(image, 'file_name', str, where)
    for side in ('height', 'width'):
      if _field(image, side, int, where) < 1:
        raise InputError(f'{where}: `{side}` is {image[side]}, not positive')
  _check_unique([image['id'] for image in images], f'{source}: image id')
  return {image['id']: image for image in images}


def _annotated_image(annotation: dict, images: Mapping, source: str) -> tuple[int | str, dict]:
  image_id = _field(annotation, 'image_id', (int, str), f'{source}: an annotation')
  if image_id not in images:
    raise InputError(f'{source}: an annotation is of image {image_id}, which is not in `images`')
  return image_id, images[image_id]


def _segments(
  infos: list[dict], categories: PanopticCategories, where: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """`segments_info` as ids, category ids and crowd flags."""
  rows = []
  for info in infos:
    segment_id = _field(info, 'id', int, f'{where}: a segment')
    what = f'{where}: segment {segment_id}'
    if not 1 <= segment_id <= MAX_SEGMENT_ID:
      raise InputError(f'{what}: the id is not in [1, {MAX_SEGMENT_ID}]')
    category_id = _field(info, 'category_id', int, what)
    if category_id not in categories:
      raise InputError(f'{what}: category {category_id} is not in `categories`')
    rows.append((segment_id, category_id, _is_crowd(info, what)))
  _check_unique([row[0] for row in rows], f'{where}: segment id')
  ids, category_ids, is_crowd = zip(*rows, strict=True) if rows else ((), (), ())
  return np.array(ids, np.int32), np.array(category_ids, np.int32), np.array(is_crowd, bool)


def _with_instances(
  entries: list[ImageEntry],
  source: str,
  panoptic_sizes: Mapping[int | str, tuple[int, int]],
  categories: PanopticCategories,
) -> list[ImageEntry]:
  """Entries with the instances of every image that an instances JSON lists."""
  content = read_json_object(source, _compact)
  annotations = _annotations(content, 'instances', source)
  images = _images(content, source)
  shared = images.keys() & panoptic_sizes.keys()
  if not shared:
    raise InputError(f'{source}: has none of the images of the panoptic JSON; is it of that split?')
  for image_id in shared:
    for side, there in zip(('height', 'width'), panoptic_sizes[image_id], strict=True):
      here = images[image_id][side]
      if here != there:
        raise InputError(
          f'{source}: image {image_id}: `{side}` {here}, but {there} in the panoptic JSON'
        )
  instances = {image_id: [] for image_id in images}
  for annotation in annotations:
    image_id, _ = _annotated_image(annotation, images, source)
    instances[image_id].append(_instance(annotation, categories, source))
  return [
    entry._replace(instances=instances.get(entry.image_id), instances_json=source)
    for entry in entries
  ]


def _instance(annotation: dict, categories: PanopticCategories, source: str) -> Instance:
  annotation_id = _field(annotation, 'id', int, f'{source}: an annotation')
  where = f'{source}: annotation {annotation_id}'
  category_id = _field(annotation, 'category_id', int, where)
  if category_id not in categories or not categories.is_thing(categories.label(category_id)):
    raise InputError(f'{where}: category {category_id} is no thing category of the panoptic JSON')
  segmentation = _field(annotation, 'segmentation', (list, dict), where)
  return Instance(annotation_id, category_id, _is_crowd(annotation, where), segmentation)


def _is_crowd(entry: dict, where: str) -> bool:
  is_crowd = entry.get('iscrowd', 0)
  if is_crowd not in (0, 1):
    raise InputError(f'{where}: `iscrowd` is {reprlib.repr(is_crowd)}, neither 0 nor 1')
  return bool(is_crowd)


def _check_unique(values: Sequence, what: str) -> None:
  seen = set()
  for value in values:
    if value in seen:
      raise InputError(f'{what} {value} is given twice')
    seen.add(value)


def _path_inside(folder: FilePath, name: str, where: str) -> str:
  path = pathlib.PurePath(name)
  if not path.parts or path.is_absolute() or '..' in path.parts or '\0' in name:
    raise InputError(f'{where}: file name {name!r} is not one inside {folder}')
  return str(pathlib.Path(folder, path))
