"""COCO's panoptic result files: a PNG of segment ids per image and one JSON for all of them.

The format is cocodataset.org/#format-results, which is also that of the annotations.

H, W height and width of an image, S segments.
"""

import json
import operator
import os
import pathlib
import re
import reprlib
import tempfile
import zipfile
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from oanet_tf.data.categories import MAX_CATEGORY_ID, PanopticCategories
from oanet_tf.data.json_file import read_json_object
from oanet_tf.data.panoptic_map import (
  MAX_SEGMENT_ID,
  PanopticSegmentation,
  check_segments_have_pixels,
  ids_to_rgb,
  segment_positions,
)
from oanet_tf.errors import InputError
from oanet_tf.files import replacing

_TESTDEV_NAME = re.compile(r'panoptic_[^_]+_.+_results')
# The zip format's first day: equal results make equal zips.
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)


class Annotation(NamedTuple):
  """What a JSON file says of one image's PNG.

  Attributes:
    image_id: the dataset's.
    png_path: of the PNG.
    segment_ids: [S] int32 in [1, 2^24 - 1], unique.
    category_ids: [S] int32, ids of the dataset.
    is_crowd: [S] bool; without `iscrowd`, as some results are, a segment is no crowd.
  """

  image_id: int | str
  png_path: str
  segment_ids: np.ndarray
  category_ids: np.ndarray
  is_crowd: np.ndarray

  @property
  def name(self) -> str:
    """For error messages."""
    return f'{self.png_path} (image {self.image_id})'


class PanopticResultsWriter:
  """Writes `<output_dir>/<name>/<stem>.png` for each image and, at the end, `<name>.json`.

  PNGs are written at once but stay in a hidden folder until `close`, so that results appear whole:
  after an exception in the `with` block there are no new files, and older ones are as they were.

    with PanopticResultsWriter(output_dir, 'val2017', categories) as writer:
      writer.write(139, '000000000139.jpg', segmentation)
  """

  def __init__(
    self,
    output_dir: str | pathlib.Path,
    name: str,
    categories: PanopticCategories,
    keep_crowds: bool = False,
  ):
    """Makes the hidden folder.

    Args:
      output_dir: is made if need be.
      name: of JSON and folder.
      categories: of the dataset.
      keep_crowds: for annotations; results have no crowds, and `iscrowd` is 0.
    """
    self._keep_crowds = keep_crowds
    self._folder = pathlib.Path(output_dir) / name
    self._json_path = pathlib.Path(output_dir) / f'{name}.json'
    self._categories = categories
    self._images = {}
    self._annotations = {}
    self._json_path.parent.mkdir(parents=True, exist_ok=True)
    self._staging = tempfile.TemporaryDirectory(prefix='.panoptic-', dir=self._json_path.parent)

  def write(self, image_id: int | str, file_name: str, segmentation: PanopticSegmentation) -> None:
    """Adds one image.

    Args:
      image_id: the dataset's. A string of digits becomes an integer, as COCO's ids are.
      file_name: the image's; its stem names the PNG.
      segmentation: [H, W], H, W ≥ 1.

    Raises:
      InputError: if the image id or the stem was written before, or the map and its list of
        segments disagree.
    """
    image_id = coco_image_id(image_id)
    png_name = f'{pathlib.PurePath(file_name).stem}.png'
    if image_id in self._images:
      raise InputError(f'{file_name}: image id {image_id} was given before, for another image')
    if png_name in self._annotations:
      raise InputError(f'{file_name}: another image of this run is written to {png_name} too')
    is_crowd = segmentation.is_crowd & self._keep_crowds
    info = _segments_info(segmentation._replace(is_crowd=is_crowd), file_name)
    write_panoptic_png(pathlib.Path(self._staging.name) / png_name, segmentation)
    height, width = segmentation.segment_map.shape
    self._images[image_id] = {
      'id': image_id,
      'file_name': file_name,
      'height': height,
      'width': width,
    }
    self._annotations[png_name] = {
      'image_id': image_id,
      'file_name': png_name,
      'segments_info': info,
    }

  def close(self) -> None:
    """Puts the PNGs in their folder, then writes the JSON. To be called once."""
    with self._staging:
      self._folder.mkdir(exist_ok=True)
      for png_name in self._annotations:
        os.replace(pathlib.Path(self._staging.name) / png_name, self._folder / png_name)
      content = {
        'images': list(self._images.values()),
        'annotations': list(self._annotations.values()),
        'categories': self._categories.to_coco(),
      }
      with replacing(self._json_path) as temporary:
        temporary.write_text(json.dumps(content))

  def __enter__(self) -> 'PanopticResultsWriter':
    return self

  def __exit__(self, exception_type: type | None, *_: object) -> None:
    if exception_type is None:
      self.close()
    else:
      self._staging.cleanup()


def write_panoptic_png(path: str | pathlib.Path, segmentation: PanopticSegmentation) -> None:
  """Writes the segment ids of [H, W], H, W ≥ 1, as COCO's RGB; whole or not at all."""
  with replacing(pathlib.Path(path)) as temporary:
    Image.fromarray(ids_to_rgb(segmentation.segment_map)).save(temporary, format='PNG')


def read_results(
  json_path: str | pathlib.Path, folder: str | pathlib.Path
) -> Iterator[tuple[int | str, PanopticSegmentation]]:
  """Reads results, or annotations, one image after the other in the order of the JSON.

  Args:
    json_path: has `annotations`, as `PanopticResultsWriter` or COCO writes them.
    folder: where their PNGs are.

  Yields:
    Image id and segmentation.

  Raises:
    InputError: as `read_annotations` and `read_segmentation`, or if a PNG's ids are not the JSON's.
  """
  for annotation in read_annotations(json_path, folder):
    segmentation = read_segmentation(annotation)
    segment_positions(segmentation, annotation.name)
    yield annotation.image_id, segmentation


def read_annotations(json_path: str | pathlib.Path, folder: str | pathlib.Path) -> list[Annotation]:
  """Reads and checks a panoptic JSON; the PNGs, in `folder`, are left to `read_segmentation`.

  Raises:
    InputError: if the file is missing or no COCO panoptic JSON, or an id is of the wrong kind or
      given twice.
  """
  return parse_annotations(read_panoptic_json(json_path), folder, json_path)


def read_panoptic_json(path: str | pathlib.Path) -> dict:
  """The JSON, its segments without `area` and `bbox`, which nothing here reads.

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
  content: dict, folder: str | pathlib.Path, source: str | pathlib.Path
) -> list[Annotation]:
  """As `read_annotations`, of what `read_panoptic_json` gives of the file `source`."""
  annotations = [
    _parse_annotation(entry, folder, f'{source}: annotation {index}')
    for index, entry in enumerate(content['annotations'])
  ]
  _check_unique([one.image_id for one in annotations], f'{source}: image')
  return annotations


def read_segmentation(annotation: Annotation) -> PanopticSegmentation:
  """Reads an annotation's PNG; that its ids are those listed is not checked.

  Raises:
    InputError: if the file is missing, damaged, or no RGB PNG.
  """
  return PanopticSegmentation(_read_panoptic_png(annotation), *annotation[2:])


def write_testdev_zip(
  json_path: str | pathlib.Path, folder: str | pathlib.Path, zip_path: str | pathlib.Path
) -> None:
  """Packs results for COCO's evaluation server (cocodataset.org/#upload, steps 3 and 4).

  `panoptic_test-dev2017_NAME_results.zip` holds `panoptic_test-dev2017_NAME_results.json` and a
  folder `panoptic_test-dev2017_NAME_results` with the PNGs, and nothing else. Whatever the results'
  own names, these are made of that of the zip. Equal results give equal bytes.

  Args:
    json_path: of the results.
    folder: where their PNGs are; others in it are left out.
    zip_path: `panoptic_<test set>_<algorithm>_results.zip`; is replaced if it exists.

  Raises:
    InputError: as `read_annotations`; if the zip's name is another; or a PNG is missing.
  """
  zip_path = pathlib.Path(zip_path)
  check_testdev_name(zip_path)
  name = zip_path.stem
  png_paths = [one.png_path for one in read_annotations(json_path, folder)]
  _check_unique(png_paths, f'{json_path}:')
  zip_path.parent.mkdir(parents=True, exist_ok=True)
  with replacing(zip_path) as temporary, zipfile.ZipFile(temporary, 'w') as archive:
    # PNGs are compressed already.
    _add(archive, f'{name}.json', json_path, zipfile.ZIP_DEFLATED)
    for path in png_paths:
      _add(archive, os.path.join(name, os.path.relpath(path, folder)), path, zipfile.ZIP_STORED)


def check_testdev_name(zip_path: str | pathlib.Path) -> None:
  """Raises InputError if COCO's evaluation server would not take a zip of this name."""
  path = pathlib.Path(zip_path)
  if path.suffix != '.zip' or not _TESTDEV_NAME.fullmatch(path.stem):
    raise InputError(
      f"{path}: COCO's server takes names such as panoptic_test-dev2017_oanet_results.zip"
    )


def _add(archive: zipfile.ZipFile, name: str, path: str | pathlib.Path, compression: int) -> None:
  info = zipfile.ZipInfo(name, _ZIP_DATE)
  info.compress_type = compression
  info.external_attr = 0o644 << 16
  try:
    content = pathlib.Path(path).read_bytes()
  except OSError as error:
    raise InputError(f'{path}: cannot be read ({error.strerror})') from None
  archive.writestr(info, content)


def _parse_annotation(entry: Any, folder: str | pathlib.Path, where: str) -> Annotation:
  try:
    image_id, png_name, infos = (entry[k] for k in ('image_id', 'file_name', 'segments_info'))
    rows = [(info['id'], info['category_id'], info.get('iscrowd', 0)) for info in infos]
  except (AttributeError, KeyError, TypeError) as error:
    raise InputError(f'{where} is not one of COCO panoptic ({error!r})') from None
  for key, value, kind in (('image_id', image_id, int | str), ('file_name', png_name, str)):
    if not isinstance(value, kind) or isinstance(value, bool):
      raise InputError(f'{where}: `{key}` cannot be {reprlib.repr(value)}')
  path = pathlib.PurePath(png_name)
  if not path.parts or path.is_absolute() or '..' in path.parts or '\0' in png_name:
    raise InputError(f'{where}: `file_name` {png_name!r} is not one inside {folder}')
  where = f'{where} (image {image_id})'
  for row in rows:
    _check_segment(*row, where)
  _check_unique([row[0] for row in rows], f'{where}: segment')
  ids, category_ids, is_crowd = zip(*rows, strict=True) if rows else ((), (), ())
  return Annotation(
    image_id,
    os.path.join(folder, png_name),
    np.array(ids, np.int32),
    np.array(category_ids, np.int32),
    np.array(is_crowd, bool),
  )


def _check_segment(segment_id: Any, category_id: Any, is_crowd: Any, where: str) -> None:
  for key, value, highest in (
    ('id', segment_id, MAX_SEGMENT_ID),
    ('category_id', category_id, MAX_CATEGORY_ID),
  ):
    if type(value) is not int or not 1 <= value <= highest:
      raise InputError(
        f'{where}: segment {reprlib.repr(segment_id)}: `{key}` {reprlib.repr(value)} is no integer '
        f'in [1, {highest}]'
      )
  if is_crowd not in (0, 1):
    raise InputError(
      f'{where}: segment {segment_id}: `iscrowd` {reprlib.repr(is_crowd)} is neither 0 nor 1'
    )


def _check_unique(values: list, what: str) -> None:
  seen = set()
  for value in values:
    if value in seen:
      raise InputError(f'{what} {value} is listed twice')
    seen.add(value)


def coco_image_id(image_id: int | str) -> int | str:
  """An image id as JSON takes it: plain, and a string of digits as the integer of COCO's files."""
  if isinstance(image_id, str):
    return int(image_id) if image_id.isascii() and image_id.isdigit() else image_id
  return operator.index(image_id)


def _segments_info(segmentation: PanopticSegmentation, name: str) -> list[dict]:
  """COCO's `segments_info`, in plain integers: a numpy integer would stop `json.dump`."""
  # Here, since it takes as long to load as 20 images to score, by processes that only read.
  import scipy.ndimage

  positions = segment_positions(segmentation, name)
  count = len(segmentation.segment_ids)
  areas = np.bincount(positions.ravel(), minlength=count + 1)[1:]
  check_segments_have_pixels(segmentation, areas, name)
  windows = scipy.ndimage.find_objects(positions, max_label=count)
  columns = (*segmentation[1:3], areas, windows, segmentation.is_crowd)
  return [
    {
      'id': int(segment_id),
      'category_id': int(category_id),
      'area': int(area),
      'bbox': [x.start, y.start, x.stop - x.start, y.stop - y.start],
      'iscrowd': int(is_crowd),
    }
    for segment_id, category_id, area, (y, x), is_crowd in zip(*columns, strict=True)
  ]


def _read_panoptic_png(annotation: Annotation) -> np.ndarray:
  """[H, W] int32 segment ids, as `panoptic_map.rgb_to_ids` would make of the RGB."""
  try:
    with Image.open(annotation.png_path) as png:
      kind = f'{png.format} {png.mode}'
      # Four bytes a pixel, whose lower three are the id: a fifth of the time of arithmetic.
      words = np.frombuffer(png.tobytes('raw', 'RGBX'), '<i4') if kind == 'PNG RGB' else None
      width, height = png.size
  except FileNotFoundError:
    raise InputError(f'{annotation.name}: there is no such file') from None
  except Exception as error:  # Pillow's decoders raise nearly anything on damaged files.
    raise InputError(f'{annotation.name}: cannot be read as a PNG ({error})') from None
  if words is None:
    raise InputError(f'{annotation.name}: is {kind}, not PNG RGB, which codes segment ids')
  return (words & MAX_SEGMENT_ID).reshape(height, width)
