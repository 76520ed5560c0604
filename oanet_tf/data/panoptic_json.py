"""COCO's panoptic JSON files: what they say of each image's PNG.

Annotations and results have one format (cocodataset.org/#format-data, #format-results). The files'
`area` and `bbox` are not read.

H, W height and width of an image, S segments.
"""

import reprlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from oanet_tf.data.categories import MAX_CATEGORY_ID, PanopticCategories
from oanet_tf.data.json_file import check_unique, field, read_json_object, whole
from oanet_tf.data.listed_files import ListedFiles, stem
from oanet_tf.data.panoptic_map import MAX_SEGMENT_ID, Segments
from oanet_tf.errors import InputError
from oanet_tf.files import FilePath


class Annotation(NamedTuple):
  """What a JSON file says of one image's PNG.

  Attributes:
    image_id: the dataset's.
    png_path: of the PNG.
    segment_ids: [S] int32 in [1, 2^24 - 1], unique; from 0 on if that was allowed.
    category_ids: [S] int32, ids of the dataset.
    is_crowd: [S] bool; a segment without `iscrowd`, as in some results, is no crowd.
    file_name: of the image; empty if the JSON does not tell.
  """

  image_id: int | str
  png_path: str
  segment_ids: np.ndarray
  category_ids: np.ndarray
  is_crowd: np.ndarray
  file_name: str = ''

  @property
  def name(self) -> str:
    """For error messages."""
    return f'{self.png_path} (image {self.image_id})'

  def segments(self, index: np.ndarray) -> Segments:
    """The segments, given the [H, W] `index` that the PNG has."""
    return Segments(index, self.segment_ids, self.category_ids, self.is_crowd)


def read_annotations(json_path: FilePath, folder: FilePath) -> list[Annotation]:
  """Reads and checks a panoptic JSON; the PNGs, in `folder`, are left for later.

  Raises:
    InputError: if the file is missing or no COCO panoptic JSON, or an id is of the wrong kind or
      given twice.
  """
  return parse_annotations(read_panoptic_json(json_path), folder, json_path)


def read_panoptic_json(path: FilePath) -> dict:
  """The JSON without `area` and `bbox`.

  Raises:
    InputError: if the file is missing, or no COCO panoptic JSON.
  """

  def without_unread(entry: dict) -> dict:
    return {key: value for key, value in entry.items() if key not in ('area', 'bbox')}

  content = read_json_object(path, without_unread)
  if not isinstance(content.get('annotations'), list):
    raise InputError(f'{path}: has no list of `annotations`: is this a COCO panoptic file?')
  return content


def parse_annotations(
  content: dict, folder: FilePath, source: FilePath, lowest_id: int = 1
) -> list[Annotation]:
  """As `read_annotations`, given the content of the file `source`.

  Args:
    content: of the JSON.
    folder: of the PNGs.
    source: for errors.
    lowest_id: the lowest id of a segment: 1, as 0 codes void; some results use 0 all the same.
  """
  listed = content['annotations']
  png_names = (entry.get('file_name') for entry in listed if isinstance(entry, dict))
  files, names = ListedFiles(folder, png_names), _file_names(content)
  annotations = [
    _parse_annotation(entry, files, names, f'{source}: annotation {index}', lowest_id)
    for index, entry in enumerate(listed)
  ]
  check_unique((one.image_id for one in annotations), f'{source}: image')
  return annotations


def _file_names(content: dict) -> dict[int | str, str]:
  """The images' file names by their id, as far as there are any: results need not have them."""
  images = content.get('images')
  return {
    whole(image['id']): image['file_name']
    for image in (images if isinstance(images, list) else [])
    if isinstance(image, dict)
    and isinstance(image.get('id'), int | float | str)
    and isinstance(image.get('file_name'), str)
  }


def check_categories(
  annotations: Iterable[Annotation],
  categories: PanopticCategories,
  source: FilePath,
  categories_source: FilePath,
) -> None:
  """Raises `InputError` if a segment is of a category that is not in the file of categories."""
  for annotation in annotations:
    segments = zip(annotation.segment_ids, annotation.category_ids, strict=True)
    for segment_id, category_id in segments:
      if category_id not in categories:
        raise InputError(
          f'{source}: image {annotation.image_id}: segment {segment_id} is of category '
          f'{category_id}, which is not in `categories` of {categories_source}'
        )


def in_order_of(
  lead: list[Annotation], annotations: list[Annotation], lead_source: str, source: str
) -> list[Annotation]:
  """The annotations of the same images, in the order of `lead`.

  Raises:
    InputError: if the images are not the same; it names both files.
  """
  of_image = {one.image_id: one for one in annotations}
  ordered = []
  for one in lead:
    if one.image_id not in of_image:
      raise InputError(f'{source}: has no image {one.image_id!r}, which {lead_source} has')
    ordered.append(of_image.pop(one.image_id))
  if of_image:
    raise InputError(f'{source}: has image {next(iter(of_image))}, which {lead_source} has not')
  return ordered


def paired(
  truth: list[Annotation], predictions: list[Annotation], truth_source: str, source: str
) -> tuple[list[Annotation], str | None]:
  """The predictions of the images of a truth, in its order, and a note on how they were found.

  They belong together by image id, as panopticapi has it; or by the name of the image's file,
  without folder and suffix, if ids do not fit or are of images with other names.

  Raises:
    InputError: if an image has no prediction; it names both files.
  """
  by_id = {one.image_id: one for one in predictions}
  by_name = {stem(one.file_name): one for one in predictions}
  names = [stem(one.file_name) for one in truth]
  names_fit = (
    len(set(names)) == len(names)
    and len(by_name) == len(predictions)
    and all(name in by_name for name in names)
    and all(names)
  )
  ids = [one.image_id for one in truth]
  missing = [image_id for image_id in ids if image_id not in by_id]
  if names_fit and (missing or ids != [by_name[name].image_id for name in names]):
    found = [by_name[name] for name in names]
    note = f'{source}: has other image ids than {truth_source}; images are found by file name'
  elif missing:
    raise InputError(
      f'{source}: has no image {missing[0]!r}, which {truth_source} has, nor are all images '
      'found by their file names'
    )
  else:
    found, note = [by_id[image_id] for image_id in ids], _other_name(truth, by_id, source)
  if extra := len(predictions) - len(found):
    note += '; ' if note else f'{source}: '
    note += f'{extra} images that {truth_source} has not are left out'
  return found, note or None


def _other_name(truth: list[Annotation], by_id: dict[int | str, Annotation], source: str) -> str:
  """A note on the first image whose file has another name in the predictions; '' if none has."""
  for one in truth:
    name, known = by_id[one.image_id].file_name, one.file_name
    if name and known and stem(name) != stem(known):
      return f'{source}: image {one.image_id} is {name!r}, not {known!r}; scored by id all the same'
  return ''


def is_crowd(entry: dict, where: str) -> bool:
  """`iscrowd` of a segment or an instance; False if it has none, or null.

  Raises:
    InputError: if it is neither 0 nor 1.
  """
  value = entry.get('iscrowd')
  if value not in (None, 0, 1):
    raise InputError(f'{where}: `iscrowd` {reprlib.repr(value)} is neither 0 nor 1')
  return bool(value)


def _parse_annotation(
  entry: Any, files: ListedFiles, names: dict[int | str, str], where: str, lowest_id: int
) -> Annotation:
  image_id = field(entry, 'image_id', (int, str), where)
  where = f'{where} (image {image_id})'
  png_path = files.path(field(entry, 'file_name', str, where), where)
  rows = [
    _parse_segment(one, where, lowest_id) for one in field(entry, 'segments_info', list, where)
  ]
  rows = list(dict.fromkeys(rows))  # Some tools list a segment twice, alike.
  check_unique((row[0] for row in rows), f'{where}: segment')
  ids, category_ids, crowds = zip(*rows, strict=True) if rows else ((), (), ())
  return Annotation(
    image_id,
    png_path,
    np.array(ids, np.int32),
    np.array(category_ids, np.int32),
    np.array(crowds, bool),
    names.get(image_id, ''),
  )


def _parse_segment(info: Any, where: str, lowest_id: int) -> tuple[int, int, bool]:
  """Segment id, category id, whether it is a crowd."""
  segment_id = field(info, 'id', int, f'{where}: a segment')
  where = f'{where}: segment {segment_id}'
  category_id = field(info, 'category_id', int, where)
  for key, value, lowest, highest in (
    ('id', segment_id, lowest_id, MAX_SEGMENT_ID),
    ('category_id', category_id, 0, MAX_CATEGORY_ID),
  ):
    if not lowest <= value <= highest:
      raise InputError(f'{where}: `{key}` {reprlib.repr(value)} is not in [{lowest}, {highest}]')
  return segment_id, category_id, is_crowd(info, where)
