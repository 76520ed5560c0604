"""Pictures and panoptic PNGs of a COCO dataset -> checked records.

H, W height and width of an image, S segments.
"""

import io
import pathlib
import warnings
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from oanet_tf.data.categories import PanopticCategories
from oanet_tf.data.coco_json import ImageEntry
from oanet_tf.data.objects import (
  Objects,
  Overlaps,
  objects_of_instances,
  objects_of_segments,
)
from oanet_tf.data.panoptic_map import (
  MAX_SEGMENT_ID,
  VOID_ID,
  IndexedSegments,
  check_segments_have_pixels,
  rgb_to_ids,
)
from oanet_tf.errors import InputError

# Pillow's format -> the record's. TensorFlow decodes these, exactly; all else is stored as PNG.
# MPO is a JPEG with further pictures after the first, as many cameras write.
_STORED_AS_IS = {'JPEG': 'jpeg', 'MPO': 'jpeg', 'PNG': 'png'}
_PNG_END = b'IEND\xae\x42\x60\x82'
# Up to here a process of the converter needs less than 1 GB.
_MAX_PIXELS = 10_000**2
_STRIP_PIXELS = 2**20
# The 16-bit index of the records holds as many.
_MAX_SEGMENTS = 2**16 - 1


class PanopticRecord(NamedTuple):
  """One image with its ground truth.

  Attributes:
    image_id: the dataset's.
    file_name: of the picture, relative to its folder.
    height: H, in pixels.
    width: W, in pixels.
    image_format: 'jpeg' or 'png'.
    encoded_image: the picture's file.
    segments: of [H, W].
    is_thing: [S] bool, which segments are things.
    objects: in the order of the instances JSON, or of the panoptic segments.
  """

  image_id: int | str
  file_name: str
  height: int
  width: int
  image_format: str
  encoded_image: bytes
  segments: IndexedSegments
  is_thing: np.ndarray
  objects: Objects


def read_record(
  entry: ImageEntry, categories: PanopticCategories, overlaps: Overlaps = 'fill_holes'
) -> PanopticRecord:
  """Reads the picture and the PNG of an entry, and checks them.

  A JPEG or PNG is kept byte for byte; its EXIF orientation is ignored, as COCO's annotations are
  of the pixels as stored. Instances whose mask has no pixel are left out.

  Args:
    entry: one of `load`.
    categories: of the dataset.
    overlaps: how objects are made of panoptic masks; see `objects_of_segments`.

  Raises:
    InputError: if a file is missing, damaged or contradicts the JSON, or if the image has more
      than 10^8 pixels or 65,535 segments.
  """
  _check_limits(entry)
  encoded, image_format = _read_image(entry)
  segments = _read_segments(entry)
  is_thing = np.isin(entry.category_ids, [c.id for c in categories if c.is_thing])
  if entry.instances is None:
    objects = objects_of_segments(segments, is_thing, overlaps)
  else:
    objects = _read_instances(entry)
  return PanopticRecord(
    entry.image_id,
    entry.file_name,
    entry.height,
    entry.width,
    image_format,
    encoded,
    segments,
    is_thing,
    objects,
  )


def _check_limits(entry: ImageEntry) -> None:
  if entry.height * entry.width > _MAX_PIXELS:
    raise InputError(
      f'{entry.image_path}: is said to have {entry.width} × {entry.height} pixels, more than '
      f'{_MAX_PIXELS:,}; make it smaller'
    )
  if len(entry.segment_ids) > _MAX_SEGMENTS:
    raise InputError(f'{entry.panoptic_path}: has more than {_MAX_SEGMENTS:,} segments')


def _open_picture(path: str) -> tuple[bytes, Image.Image]:
  """A file's bytes, and the picture that they decode to without loss or complaint.

  How large it may be is for `_check_limits` to say, not for Pillow's warning.
  """
  try:
    encoded = pathlib.Path(path).read_bytes()
  except FileNotFoundError:
    raise InputError(f'{path}: there is no such file') from None
  except OSError as error:
    raise InputError(f'{path}: cannot be read ({error.strerror})') from None
  try:
    with warnings.catch_warnings():
      warnings.simplefilter('ignore', Image.DecompressionBombWarning)
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


def _read_segments(entry: ImageEntry) -> IndexedSegments:
  path = entry.panoptic_path
  _, image = _open_picture(path)
  if image.format != 'PNG' or image.mode != 'RGB':
    raise InputError(
      f'{path}: is {image.format} {image.mode}, not PNG RGB, which codes segment ids'
    )
  _check_size(image, path, entry)
  count = len(entry.segment_ids)
  # 32 MB, of which the system only provides the few pages that are touched.
  position_of = np.zeros(MAX_SEGMENT_ID + 1, np.uint16)
  position_of[entry.segment_ids] = np.arange(1, count + 1)
  index = np.empty([entry.height, entry.width], np.uint16)
  areas = np.zeros(count + 1, np.int64)
  rows = max(1, _STRIP_PIXELS // entry.width)
  for top in range(0, entry.height, rows):
    bottom = min(top + rows, entry.height)
    ids = rgb_to_ids(np.asarray(image.crop((0, top, entry.width, bottom))))
    strip = index[top:bottom] = position_of[ids]
    unlisted = (strip == 0) & (ids != VOID_ID)
    if unlisted.any():
      raise InputError(
        f'{path}: segment {ids[unlisted][0]} is in the map but not in the list of segments'
      )
    areas += np.bincount(strip.ravel(), minlength=count + 1)
  segments = IndexedSegments(index, entry.segment_ids, entry.category_ids, entry.is_crowd)
  check_segments_have_pixels(segments, areas[1:], path)
  return segments


def _read_instances(entry: ImageEntry) -> Objects:
  try:
    return objects_of_instances(entry.instances, entry.height, entry.width)
  except ValueError as error:
    raise InputError(f'{entry.instances_json}: {error}') from None
