"""Images and panoptic PNGs of a COCO dataset -> checked records.

H, W height and width of an upright image, S segments.
"""

import io
from typing import Literal, NamedTuple

import numpy as np

from oanet_tf.data import objects as objects_lib
from oanet_tf.data import pictures
from oanet_tf.data.categories import PanopticCategories
from oanet_tf.data.coco_json import ImageEntry
from oanet_tf.data.objects import Objects, Overlaps, objects_of_instances, objects_of_segments
from oanet_tf.data.panoptic_map import Segments, read_id_png, read_index
from oanet_tf.errors import InputError

LabelsAre = Literal['upright', 'as_stored']

# Pillow's format -> the record's. TensorFlow decodes these, exactly; all else is stored as PNG.
# MPO, which many cameras write, is a JPEG with further images after the first.
_STORED_AS_IS = {'JPEG': 'jpeg', 'MPO': 'jpeg', 'PNG': 'png'}
_STRIP_PIXELS = 2**20
# The most that the 16-bit index of a record can hold.
_MAX_SEGMENTS = 2**16 - 1


class PanopticRecord(NamedTuple):
  """One image with its ground truth.

  Attributes:
    image_id: the dataset's.
    file_name: of the image, relative to its folder.
    height: H, in pixels.
    width: W, in pixels.
    image_format: 'jpeg' or 'png'; '' without an image.
    encoded_image: content of the image file; empty if images are not read.
    segments: `index` is uint16.
    is_thing: [S] bool, which segments are things.
    objects: in the order of the instances JSON, or of the panoptic segments.
    num_empty_segments: how many segments are listed without having a pixel; they are left out.
    is_turned: whether the annotations were turned, as they are of the pixels as stored.
    is_turn_unsure: whether their size does not tell if they must be turned.
  """

  image_id: int | str
  file_name: str
  height: int
  width: int
  image_format: str
  encoded_image: bytes
  segments: Segments
  is_thing: np.ndarray
  objects: Objects
  num_empty_segments: int = 0
  is_turned: bool = False
  is_turn_unsure: bool = False


class _Image(NamedTuple):
  """The image of a record.

  Attributes:
    encoded: file content that TensorFlow decodes to the upright picture; empty if there is none.
    format: 'jpeg' or 'png', or ''.
    turn: EXIF's orientation of annotations that have to be turned, else 1.
    is_turn_unsure: as in `PanopticRecord`.
  """

  encoded: bytes = b''
  format: str = ''
  turn: int = 1
  is_turn_unsure: bool = False


def read_record(
  entry: ImageEntry,
  categories: PanopticCategories,
  overlaps: Overlaps = 'fill_holes',
  labels_are: LabelsAre = 'upright',
) -> PanopticRecord:
  """Reads the image and the panoptic PNG of an entry, and checks them.

  Image and annotations of the record are upright. A JPEG or PNG is kept byte for byte if that is
  how its pixels are stored; otherwise it becomes a PNG without loss. Annotations may be of the
  picture as a viewer shows it or of the pixels as stored; their size says which. Without a path of
  the image, only the PNG's size is compared with the JSON's.
  Instances and segments without a pixel are left out.

  Args:
    entry: one of `load`.
    categories: of the dataset.
    overlaps: how objects are made of panoptic masks; see `objects_of_segments`.
    labels_are: which picture the annotations are of, where the size fits both.

  Raises:
    InputError: if a file is missing, damaged or contradicts the JSON, or if the image has more
      than 10^8 pixels or 65,535 segments.
  """
  _check_limits(entry)
  image = _read_image(entry, labels_are) if entry.image_path is not None else _Image()
  segments, num_empty = _read_segments(entry)
  if entry.instances is None:
    segments = segments._replace(index=_upright(segments.index, image.turn))
    objects = objects_of_segments(segments, segments.is_thing(categories), overlaps)
  else:
    size = segments.index.shape
    segments = segments._replace(index=_upright(segments.index, image.turn))
    objects = objects_of_instances(entry.instances, *size, entry.instances_json)
    objects = objects_lib.turned(objects, image.turn, *size)
  height, width = segments.index.shape
  return PanopticRecord(
    entry.image_id,
    entry.file_name,
    height,
    width,
    image.format,
    image.encoded,
    segments,
    segments.is_thing(categories),
    objects,
    num_empty,
    image.turn != 1,
    image.is_turn_unsure,
  )


def _upright(index: np.ndarray, turn: int) -> np.ndarray:
  return np.ascontiguousarray(pictures.turned(index, turn))


def _check_limits(entry: ImageEntry) -> None:
  if entry.height * entry.width > pictures.MAX_PIXELS:
    raise InputError(
      f'{entry.image_path or entry.annotation.png_path}: is said to have {entry.width} × '
      f'{entry.height} pixels, more than {pictures.MAX_PIXELS:,}; make it smaller'
    )
  if len(entry.annotation.segment_ids) > _MAX_SEGMENTS:
    raise InputError(f'{entry.annotation.png_path}: has more than {_MAX_SEGMENTS:,} segments')


def _check_size(size: tuple[int, int], path: str, entry: ImageEntry) -> None:
  if size != (entry.width, entry.height):
    raise InputError(
      f'{path}: is {size[0]} × {size[1]} pixels, but the JSON says {entry.width} × {entry.height} '
      f'of image {entry.image_id}'
    )


def _read_image(entry: ImageEntry, labels_are: LabelsAre) -> _Image:
  path = str(entry.image_path)
  encoded = pictures.read_bytes(path)
  stored = pictures.decoded(encoded, path)
  turn = pictures.orientation(stored)
  upright_size = stored.size[::-1] if turn >= 5 else stored.size
  fits_stored, fits_upright = (
    size == (entry.width, entry.height) for size in (stored.size, upright_size)
  )
  if not fits_stored:
    _check_size(upright_size, path, entry)
  if turn == 1 and stored.format in _STORED_AS_IS:
    return _Image(encoded, _STORED_AS_IS[stored.format])
  is_unsure = turn != 1 and fits_stored and fits_upright
  are_stored = labels_are == 'as_stored' if is_unsure else fits_stored
  buffer = io.BytesIO()
  pictures.upright_rgb(stored, path).save(buffer, 'PNG')
  return _Image(buffer.getvalue(), 'png', turn if are_stored else 1, is_unsure)


def _read_segments(entry: ImageEntry) -> tuple[Segments, int]:
  """The segments with a pixel, as they are stored, and the number of those without one."""
  path, listed = entry.annotation.png_path, entry.annotation.segment_ids
  rgb = read_id_png(pictures.read_bytes(path), path)
  _check_size(rgb.shape[1::-1], path, entry)
  index = np.empty([entry.height, entry.width], np.uint16)
  areas = np.zeros(len(listed) + 1, np.int64)
  # In strips, since ids and the counting of areas take several times the memory of the index.
  rows = max(1, _STRIP_PIXELS // entry.width)
  for top in range(0, entry.height, rows):
    bottom = min(top + rows, entry.height)
    strip = read_index(rgb[top:bottom], listed, path)
    index[top:bottom] = strip
    areas += np.bincount(strip.ravel(), minlength=len(areas))
  segments, is_empty = entry.annotation.segments(index), areas[1:] == 0
  if is_empty.any():
    segments = segments.without(is_empty)
  return segments, int(is_empty.sum())
