"""COCO panoptic files (JSON + PNG folder, optionally an instances JSON) -> checked records.

Format: https://cocodataset.org/#format-data. The files' own `area` and `bbox` are not read.

H, W height and width of an image, S segments.
"""

import io
import pathlib
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from oanet_tf.data.categories import PanopticCategories
from oanet_tf.data.json_file import read_json_object
from oanet_tf.data.objects import (
  Instance,
  Objects,
  objects_of_instances,
  objects_of_segments,
)
from oanet_tf.data.panoptic_map import (
  MAX_SEGMENT_ID,
  PanopticSegmentation,
  check_segments_have_pixels,
  rgb_to_ids,
  segment_positions,
)
from oanet_tf.errors import InputError

FilePath = str | pathlib.Path

# Pillow's format -> the record's. TensorFlow decodes these, exactly; all else is stored as PNG.
# MPO is a JPEG with further pictures after the first, as many cameras write.
_STORED_AS_IS = {'JPEG': 'jpeg', 'MPO': 'jpeg', 'PNG': 'png'}
_PNG_END = b'IEND\xae\x42\x60\x82'
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


class PanopticRecord(NamedTuple):
  """One image with its ground truth.

  Attributes:
    image_id: the dataset's.
    file_name: of the picture, relative to its folder.
    height: H, in pixels.
    width: W, in pixels.
    image_format: 'jpeg' or 'png'.
    encoded_image: the picture's file.
    segmentation: of [H, W].
    objects: in the order of the instances JSON, or of the panoptic segments.
  """

  image_id: int | str
  file_name: str
  height: int
  width: int
  image_format: str
  encoded_image: bytes
  segmentation: PanopticSegmentation
  objects: Objects


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
  content = read_json_object(source)
  annotations = _annotations(content, 'panoptic', source)
  if not annotations:
    raise InputError(f'{source}: `annotations` is empty')
  categories = PanopticCategories.from_coco(content.get('categories'), source)
  images = _images(content, source)
  instances = _instances(str(instances_json), images, categories) if instances_json else {}
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
        instances.get(image_id),
        str(instances_json),
      )
    )
  _check_unique([entry.image_id for entry in entries], f'{source}: the annotation of image')
  return CocoPanoptic(categories, entries, len(images) - len(entries))


def read_record(entry: ImageEntry, categories: PanopticCategories) -> PanopticRecord:
  """Reads the picture and the PNG of an entry, and checks them.

  A JPEG or PNG is kept byte for byte; its EXIF orientation is ignored, as COCO's annotations are
  of the pixels as stored. Instances whose mask has no pixel are left out.

  Raises:
    InputError: if a file is missing, damaged or contradicts the JSON.
  """
  encoded, image_format = _read_image(entry)
  segmentation = _read_segmentation(entry)
  if entry.instances is None:
    objects = objects_of_segments(segmentation, categories)
  else:
    objects = _read_instances(entry)
  return PanopticRecord(
    entry.image_id,
    entry.file_name,
    entry.height,
    entry.width,
    image_format,
    encoded,
    segmentation,
    objects,
  )


# JSON files.


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


def _instances(
  source: str, panoptic_images: Mapping[int | str, dict], categories: PanopticCategories
) -> dict[int | str, list[Instance]]:
  """The instances of every image that an instances JSON lists."""
  content = read_json_object(source)
  annotations = _annotations(content, 'instances', source)
  images = _images(content, source)
  shared = images.keys() & panoptic_images.keys()
  if not shared:
    raise InputError(f'{source}: has none of the images of the panoptic JSON; is it of that split?')
  for image_id in shared:
    for side in ('height', 'width'):
      here, there = images[image_id][side], panoptic_images[image_id][side]
      if here != there:
        raise InputError(
          f'{source}: image {image_id}: `{side}` {here}, but {there} in the panoptic JSON'
        )
  instances = {image_id: [] for image_id in images}
  for annotation in annotations:
    image_id, _ = _annotated_image(annotation, images, source)
    instances[image_id].append(_instance(annotation, categories, source))
  return instances


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


# Pictures.


def _open_picture(path: str) -> tuple[bytes, Image.Image]:
  """A file's bytes, and the picture that they decode to without loss or complaint."""
  try:
    encoded = pathlib.Path(path).read_bytes()
  except FileNotFoundError:
    raise InputError(f'{path}: there is no such file') from None
  except OSError as error:
    raise InputError(f'{path}: cannot be read ({error.strerror})') from None
  try:
    # TensorFlow refuses PNGs with wrong checksums, which `load` accepts, or without their end.
    Image.open(io.BytesIO(encoded)).verify()
    image = Image.open(io.BytesIO(encoded))
    image.load()
    if image.format == 'PNG' and _PNG_END not in encoded:
      raise OSError('it ends too early')
  except UnidentifiedImageError:
    raise InputError(f'{path}: is no picture, or a damaged one ({len(encoded)} bytes)') from None
  except Exception as error:  # Pillow's decoders raise nearly anything on damaged files.
    raise InputError(f'{path}: is damaged or not readable ({error})') from None
  return encoded, image


def _check_size(image: Image.Image, path: str, entry: ImageEntry) -> None:
  if image.size != (entry.width, entry.height):
    raise InputError(
      f'{path}: is {image.width} × {image.height} pixels, but the JSON says '
      f'{entry.width} × {entry.height} of image {entry.image_id}'
    )


def _read_image(entry: ImageEntry) -> tuple[bytes, str]:
  """Encoded picture and its format, re-encoded if TensorFlow could not decode the file."""
  encoded, image = _open_picture(entry.image_path)
  _check_size(image, entry.image_path, entry)
  if image.format in _STORED_AS_IS:
    return encoded, _STORED_AS_IS[image.format]
  if image.mode.startswith(('I', 'F')):
    raise InputError(f'{entry.image_path}: has more than 8 bits a channel; convert it to PNG')
  buffer = io.BytesIO()
  image.convert('RGB').save(buffer, 'PNG')
  return buffer.getvalue(), 'png'


def _read_segmentation(entry: ImageEntry) -> PanopticSegmentation:
  path = entry.panoptic_path
  _, image = _open_picture(path)
  if image.format != 'PNG' or image.mode != 'RGB':
    raise InputError(
      f'{path}: is {image.format} {image.mode}, not PNG RGB, which codes segment ids'
    )
  _check_size(image, path, entry)
  segmentation = PanopticSegmentation(
    rgb_to_ids(np.asarray(image)), entry.segment_ids, entry.category_ids, entry.is_crowd
  )
  index = segment_positions(segmentation, path)
  areas = np.bincount(index.ravel(), minlength=len(entry.segment_ids) + 1)
  check_segments_have_pixels(segmentation, areas[1:], path)
  return segmentation


def _read_instances(entry: ImageEntry) -> Objects:
  try:
    return objects_of_instances(entry.instances, entry.height, entry.width)
  except ValueError as error:
    raise InputError(f'{entry.instances_json}: {error}') from None
