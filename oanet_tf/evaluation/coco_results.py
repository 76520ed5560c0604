"""COCO's panoptic result files: a PNG of segment ids per image and one JSON for all of them.

The format is cocodataset.org/#format-results, which is also that of the annotations.
"""

import contextlib
import json
import operator
import os
import pathlib
import tempfile
from collections.abc import Iterator, Mapping

import numpy as np
import scipy.ndimage
from PIL import Image

from oanet_tf.data.categories import PanopticCategories
from oanet_tf.data.json_file import read_json_object
from oanet_tf.data.panoptic_map import (
  PanopticSegmentation,
  check_segments_have_pixels,
  ids_to_rgb,
  rgb_to_ids,
  segment_positions,
)
from oanet_tf.errors import InputError


class PanopticResultsWriter:
  """Writes `<output_dir>/<name>/<stem>.png` for each image and, at the end, `<name>.json`.

  PNGs are written at once but stay in a hidden folder until `close`, so that results appear whole:
  after an exception in the `with` block there are no new files, and older ones are as they were.

    with PanopticResultsWriter(output_dir, 'val2017', categories) as writer:
      writer.write(139, '000000000139.jpg', segmentation)
  """

  def __init__(self, output_dir: str | pathlib.Path, name: str, categories: PanopticCategories):
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
      segmentation: [H, W], H, W ≥ 1. `is_crowd` is written as 0, as results have no crowds.

    Raises:
      InputError: if the image id or the stem was written before, or the map and its list of
        segments disagree.
    """
    image_id = _coco_image_id(image_id)
    png_name = f'{pathlib.PurePath(file_name).stem}.png'
    if image_id in self._images:
      raise InputError(f'{file_name}: image id {image_id} was given before, for another image')
    if png_name in self._annotations:
      raise InputError(f'{file_name}: another image of this run is written to {png_name} too')
    info = _segments_info(segmentation, file_name)
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
      with _replacing(self._json_path) as temporary:
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
  with _replacing(pathlib.Path(path)) as temporary:
    Image.fromarray(ids_to_rgb(segmentation.segment_map)).save(temporary, format='PNG')


def read_results(
  json_path: str | pathlib.Path, folder: str | pathlib.Path
) -> Iterator[tuple[int | str, PanopticSegmentation]]:
  """Reads results, or annotations, one image after the other in the order of the JSON.

  Args:
    json_path: has `annotations`, as `PanopticResultsWriter` or COCO writes them.
    folder: where their PNGs are.

  Yields:
    Image id and segmentation. Without `iscrowd`, as some results are, a segment is no crowd.

  Raises:
    InputError: if a file is missing or of another kind, or a PNG's ids are not the JSON's.
  """
  for index, annotation in enumerate(_read_annotations(pathlib.Path(json_path))):
    try:
      image_id, png_name = annotation['image_id'], annotation['file_name']
      listed = _parse_segments_info(annotation['segments_info'])
    except (AttributeError, KeyError, TypeError) as error:
      raise InputError(
        f'{json_path}: annotation {index} is not one of COCO panoptic ({error!r})'
      ) from None
    png_path = pathlib.Path(folder) / png_name
    segmentation = PanopticSegmentation(_read_panoptic_png(png_path), *listed)
    segment_positions(segmentation, str(png_path))
    yield image_id, segmentation


def _parse_segments_info(infos: list[Mapping]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """[S] int32 segment ids, [S] int32 category ids, [S] bool crowds."""
  return (
    np.array([info['id'] for info in infos], np.int32),
    np.array([info['category_id'] for info in infos], np.int32),
    np.array([info.get('iscrowd', 0) for info in infos], bool),
  )


def _coco_image_id(image_id: int | str) -> int | str:
  if isinstance(image_id, str):
    return int(image_id) if image_id.isascii() and image_id.isdigit() else image_id
  return operator.index(image_id)


def _segments_info(segmentation: PanopticSegmentation, name: str) -> list[dict]:
  """COCO's `segments_info`, in plain integers: a numpy integer would stop `json.dump`."""
  positions = segment_positions(segmentation, name)
  count = len(segmentation.segment_ids)
  areas = np.bincount(positions.ravel(), minlength=count + 1)[1:]
  check_segments_have_pixels(segmentation, areas, name)
  windows = scipy.ndimage.find_objects(positions, max_label=count)
  columns = (segmentation.segment_ids, segmentation.category_ids, areas, windows)
  return [
    {
      'id': int(segment_id),
      'category_id': int(category_id),
      'area': int(area),
      'bbox': [x.start, y.start, x.stop - x.start, y.stop - y.start],
      'iscrowd': 0,
    }
    for segment_id, category_id, area, (y, x) in zip(*columns, strict=True)
  ]


def _read_annotations(path: pathlib.Path) -> list[Mapping]:
  content = read_json_object(path)
  if not isinstance(content.get('annotations'), list):
    raise InputError(f'{path}: has no list of `annotations`: is this a COCO panoptic file?')
  return content['annotations']


def _read_panoptic_png(path: pathlib.Path) -> np.ndarray:
  """[H, W] int32 segment ids."""
  try:
    with Image.open(path) as png:
      if png.mode != 'RGB':
        raise InputError(f'{path}: its mode is {png.mode}, but segment ids are coded in RGB')
      return rgb_to_ids(np.asarray(png))
  except FileNotFoundError:
    raise InputError(f'{path}: there is no such file') from None
  except OSError as error:
    raise InputError(f'{path}: cannot be read as a PNG ({error})') from None


@contextlib.contextmanager
def _replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """A name to write to, which becomes `path` if all goes well and disappears if not."""
  temporary = path.with_name(f'.{path.name}.{os.getpid()}')
  try:
    yield temporary
    os.replace(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)
