"""COCO panoptic JSON files, optionally with an instances JSON -> one checked entry per image.

Format: https://cocodataset.org/#format-data.
"""

import array
import itertools
import pathlib
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from oanet_tf.data.categories import PanopticCategories
from oanet_tf.data.json_file import check_unique, field, read_json_object
from oanet_tf.data.listed_files import ListedFiles, check_encodable, stem
from oanet_tf.data.objects import Instance
from oanet_tf.data.panoptic_json import Annotation, check_categories, is_crowd, parse_annotations
from oanet_tf.errors import InputError
from oanet_tf.files import FilePath

# All keys that are read; to keep the others would take several GB for COCO.
_KEYS = {
  *('annotations', 'categories', 'category_id', 'color', 'counts', 'file_name', 'height', 'id'),
  *('image_id', 'images', 'iscrowd', 'isthing', 'name', 'segmentation', 'segments_info', 'size'),
  *('supercategory', 'width'),
}
# What only the annotations of each kind of JSON have.
_MARKS = {'panoptic': 'segments_info', 'instances': 'segmentation'}


class ImageEntry(NamedTuple):
  """What the JSON files say of one image.

  Attributes:
    annotation: of its panoptic PNG.
    file_name: of the image, relative to its folder.
    image_path: of the image; None if images are not read.
    height: in pixels.
    width: in pixels.
    instances: of the instances JSON; None if there is none, or it does not list this image.
    instances_json: its path, for error messages.
  """

  annotation: Annotation
  file_name: str
  image_path: str | None
  height: int
  width: int
  instances: list[Instance] | None = None
  instances_json: str = ''

  @property
  def image_id(self) -> int | str:
    """The dataset's."""
    return self.annotation.image_id


class InstancesFile(NamedTuple):
  """An instances JSON.

  Attributes:
    images: its `images`, by id.
    instances: of each image, in the order of its `annotations`.
    categories: its `categories`, unchecked; None if it has none.
  """

  images: dict[int | str, dict]
  instances: dict[int | str, list[Instance]]
  categories: Any


class CocoPanoptic(NamedTuple):
  """A dataset.

  Attributes:
    categories: of the panoptic JSON.
    entries: in the order of its `annotations`.
    num_unannotated: how many of its `images` have no annotation, hence no entry.
    notes: what the user should know of how the files were read, in sentences.
  """

  categories: PanopticCategories
  entries: list[ImageEntry]
  num_unannotated: int
  notes: tuple[str, ...] = ()


def load(
  panoptic_json: FilePath,
  panoptic_dir: FilePath,
  image_dir: FilePath | None,
  instances_json: FilePath | None = None,
  things: Sequence[str] | None = None,
) -> CocoPanoptic:
  """Reads and checks the JSON files; images and PNGs are left to `read_record`.

  An image that the instances JSON lists has exactly the instances given there, even if none.
  Its annotations of stuff, and those with a box but no mask, are left out.
  Without `image_dir`, the entries have no path of an image.

  Args:
    panoptic_json: COCO panoptic annotations.
    panoptic_dir: folder of the panoptic PNGs.
    image_dir: folder of the images, or None.
    instances_json: COCO instance annotations; its categories must be those of the panoptic JSON.
    things: names of the thing categories; None takes what `isthing` says.

  Raises:
    InputError: if a file or folder is missing or not what it should be, if files contradict, or if
      no category is a thing.
  """
  check_folder(panoptic_dir)
  check_folder(image_dir)
  source = str(panoptic_json)
  content = read_json_object(source, _compact)
  if not _annotations(content, 'panoptic', source):
    raise InputError(f'{source}: `annotations` is empty')
  categories = PanopticCategories.from_coco(content.get('categories'), source, things)
  _check_things(categories, source)
  images = _images(content, source)
  annotations = parse_annotations(content, panoptic_dir, source)
  check_categories(annotations, categories, source, source)
  files = None
  if image_dir is not None:
    files = ListedFiles(image_dir, (image['file_name'] for image in images.values()))
  entries = []
  for annotation in annotations:
    image = _image_of(annotation.image_id, images, source)
    where = f'{source}: image {annotation.image_id}'
    path = None if files is None else files.path(image['file_name'], where)
    entries.append(
      ImageEntry(annotation, image['file_name'], path, image['height'], image['width'])
    )
  notes = []
  if files is not None and files.num_in_subfolders:
    notes.append(
      f'{image_dir}: {files.num_in_subfolders} images are not where {source} says; found by name'
    )
  if instances_json:
    # Frees memory before the other large JSON is read.
    del content
    entries, more = _with_instances(entries, str(instances_json), images, categories, source)
    notes += more
  return CocoPanoptic(categories, entries, len(images) - len(entries), tuple(notes))


def check_folder(folder: FilePath | None) -> None:
  """Raises `InputError` if there is no such folder; None is fine."""
  if folder is not None and not pathlib.Path(folder).is_dir():
    raise InputError(f'{folder}: there is no such folder')


def read_instances(source: str) -> InstancesFile:
  """Reads an instances JSON; annotations of a box alone are kept, with an empty `segmentation`.

  Raises:
    InputError: if the file is missing or not what it should be, or no annotation has a mask.
  """
  content = read_json_object(source, _compact)
  annotations = _annotations(content, 'instances', source)
  images = _images(content, source)
  instances: dict[int | str, list[Instance]] = {image_id: [] for image_id in images}
  for annotation in annotations:
    image_id = field(annotation, 'image_id', (int, str), f'{source}: an annotation')
    _image_of(image_id, images, source)
    instances[image_id].append(_instance(annotation, source))
  of_all = itertools.chain.from_iterable(instances.values())
  if annotations and not any(one.segmentation for one in of_all):
    raise InputError(
      f'{source}: none of its {len(annotations)} annotations has a mask; export these'
    )
  return InstancesFile(images, instances, content.get('categories'))


def _check_things(categories: PanopticCategories, source: str) -> None:
  if not categories.num_things:
    names = ', '.join(category.name for category in categories)
    raise InputError(
      f'{source}: no category is a thing (`isthing` is 0 for all, as some tools write); name the '
      f'things with --things NAME,…, of {reprlib.repr(names)[1:-1]}'
    )


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


def _annotations(content: dict, kind: str, source: str) -> list[dict]:
  """The `annotations`, if they are those of a 'panoptic' or an 'instances' JSON."""
  annotations = field(content, 'annotations', list, source)
  marks = [
    [k for k, mark in _MARKS.items() if isinstance(annotation, dict) and mark in annotation]
    for annotation in annotations
  ]
  for index, kinds in enumerate(marks):
    # Of instances, some may have a box alone.
    has_kind = kind in kinds or (kind == 'instances' and not kinds and [kind] in marks)
    if not has_kind:
      verdict = f'this is a COCO {kinds[0]} JSON' if kinds else f'this is no COCO {kind} JSON'
      raise InputError(f'{source}: annotation {index} has no `{_MARKS[kind]}`; {verdict}')
  return annotations


def _images(content: dict, source: str) -> dict[int | str, dict]:
  """The `images` by their id."""
  found = []
  for index, image in enumerate(field(content, 'images', list, source)):
    image_id = field(image, 'id', (int, str), f'{source}: images[{index}]')
    where = f'{source}: image {image_id}'
    file_name = field(image, 'file_name', str, where)
    check_encodable(file_name, where)
    height, width = (field(image, side, int, where) for side in ('height', 'width'))
    for side, value in (('height', height), ('width', width)):
      if value < 1:
        raise InputError(f'{where}: `{side}` is {value}, not positive')
    found.append({'id': image_id, 'file_name': file_name, 'height': height, 'width': width})
  check_unique((image['id'] for image in found), f'{source}: image id')
  return {image['id']: image for image in found}


def _image_of(image_id: int | str, images: Mapping, source: str) -> dict:
  if image_id not in images:
    raise InputError(f'{source}: an annotation is of image {image_id!r}, which is not in `images`')
  return images[image_id]


def _with_instances(
  entries: list[ImageEntry],
  source: str,
  panoptic_images: Mapping[int | str, dict],
  categories: PanopticCategories,
  panoptic_source: str,
) -> tuple[list[ImageEntry], list[str]]:
  """Entries with the instances of every image that an instances JSON lists; and notes."""
  images, instances, named = read_instances(source)
  notes = _compare_categories(named, source, categories, panoptic_source)
  shared = images.keys() & panoptic_images.keys()
  if not shared:
    raise InputError(f'{source}: has none of the images of the panoptic JSON; is it of that split?')
  for image_id in shared:
    here, there = images[image_id], panoptic_images[image_id]
    for key in ('height', 'width', 'file_name'):
      same = here[key] == there[key]
      if not same and (key != 'file_name' or stem(here[key]) != stem(there[key])):
        raise InputError(
          f'{source}: image {image_id}: `{key}` {here[key]}, but {there[key]} in {panoptic_source}'
        )
  for instance in itertools.chain.from_iterable(instances.values()):
    if instance.category_id not in categories:
      raise InputError(
        f'{source}: annotation {instance.annotation_id}: category {instance.category_id} is not in '
        'the panoptic JSON'
      )
  things = {category.id for category in categories if category.is_thing}
  instances = {
    image_id: [instance for instance in of_image if instance.category_id in things]
    for image_id, of_image in instances.items()
  }
  return [
    entry._replace(instances=instances.get(entry.image_id), instances_json=source)
    for entry in entries
  ], notes


def _compare_categories(
  named: Any, source: str, categories: PanopticCategories, panoptic_source: str
) -> list[str]:
  """Notes on the categories of an instances JSON.

  Raises:
    InputError: if an id has another name there than in the panoptic JSON.
  """
  if named is None:
    return [f"{source}: has no `categories` to compare; its ids are taken for {panoptic_source}'s"]
  categories.check_numbering(named, source)
  return []


def _instance(annotation: dict, source: str) -> Instance:
  annotation_id = field(annotation, 'id', (int, str), f'{source}: an annotation')
  where = f'{source}: annotation {annotation_id}'
  category_id = field(annotation, 'category_id', int, where)
  if annotation.get('segmentation') is None:
    # A box alone; an instance without a pixel is left out and counted.
    return Instance(annotation_id, category_id, is_crowd(annotation, where), [])
  segmentation = field(annotation, 'segmentation', (list, dict), where)
  return Instance(annotation_id, category_id, is_crowd(annotation, where), segmentation)
