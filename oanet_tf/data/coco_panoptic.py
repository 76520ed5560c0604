"""Images and panoptic PNGs of a COCO dataset -> checked records.

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
from oanet_tf.data.objects import Objects, Overlaps, objects_of_instances, objects_of_segments
from oanet_tf.data.panoptic_map import Segments, check_segments_have_pixels, read_index
from oanet_tf.errors import InputError

# Pillow's format -> the record's. TensorFlow decodes these, exactly; all else is stored as PNG.
# MPO, which many cameras write, is a JPEG with further images after the first.
_STORED_AS_IS = {'JPEG': 'jpeg', 'MPO': 'jpeg', 'PNG': 'png'}
_PNG_END = b'IEND\xae\x42\x60\x82'
# Up to this size a process of the converter needs less than 1 GB.
MAX_PIXELS = 10_000**2
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


def read_record(
  entry: ImageEntry, categories: PanopticCategories, overlaps: Overlaps = 'fill_holes'
) -> PanopticRecord:
  """Reads the image and the panoptic PNG of an entry, and checks them.

  A JPEG or PNG is kept byte for byte. Its EXIF orientation is ignored, since COCO annotates the
  pixels as stored. Without a path of the image, only the PNG's size is compared with the JSON's.
  Instances whose mask has no pixel are left out.

  Args:
    entry: one of `load`.
    categories: of the dataset.
    overlaps: how objects are made of panoptic masks; see `objects_of_segments`.

  Raises:
    InputError: if a file is missing, damaged or contradicts the JSON, or if the image has more
      than 10^8 pixels or 65,535 segments.
  """
  _check_limits(entry)
  encoded, image_format = _read_image(entry) if entry.image_path is not None else (b'', '')
  segments = _read_segments(entry)
  is_thing = segments.is_thing(categories)
  if entry.instances is None:
    objects = objects_of_segments(segments, is_thing, overlaps)
  else:
    objects = objects_of_instances(entry.instances, entry.height, entry.width, entry.instances_json)
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
  if entry.height * entry.width > MAX_PIXELS:
    raise InputError(
      f'{entry.image_path or entry.annotation.png_path}: is said to have {entry.width} × '
      f'{entry.height} pixels, more than {MAX_PIXELS:,}; make it smaller'
    )
  if len(entry.annotation.segment_ids) > _MAX_SEGMENTS:
    raise InputError(f'{entry.annotation.png_path}: has more than {_MAX_SEGMENTS:,} segments')


def open_image(path: str) -> tuple[bytes, Image.Image]:
  """A file's bytes, and the image decoded from them.

  Raises:
    InputError: if the file is missing or damaged.
  """
  try:
    encoded = pathlib.Path(path).read_bytes()
  except FileNotFoundError:
    raise InputError(f'{path}: there is no such file') from None
  except OSError as error:
    raise InputError(f'{path}: cannot be read ({error.strerror})') from None
  try:
    with warnings.catch_warnings():
      # `_check_limits` has the say on size.
      warnings.simplefilter('ignore', Image.DecompressionBombWarning)
      # TensorFlow refuses PNGs with wrong checksums or without an end, which `load` accepts.
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
  """Encoded image and its format, re-encoded if TensorFlow could not decode the file."""
  encoded, image = open_image(entry.image_path)
  _check_size(image, entry.image_path, entry)
  if image.format in _STORED_AS_IS:
    return encoded, _STORED_AS_IS[image.format]
  if image.mode.startswith(('I', 'F')):
    raise InputError(f'{entry.image_path}: has more than 8 bits a channel; convert it to PNG')
  buffer = io.BytesIO()
  image.convert('RGB').save(buffer, 'PNG')
  return buffer.getvalue(), 'png'


def _read_segments(entry: ImageEntry) -> Segments:
  path, segment_ids = entry.annotation.png_path, entry.annotation.segment_ids
  _, png = open_image(path)
  if png.format != 'PNG' or png.mode != 'RGB':
    raise InputError(f'{path}: is {png.format} {png.mode}, not PNG RGB, which codes segment ids')
  _check_size(png, path, entry)
  index = np.empty([entry.height, entry.width], np.uint16)
  areas = np.zeros(len(segment_ids) + 1, np.int64)
  # In strips, since ids and the counting of areas take several times the memory of the index.
  rows = max(1, _STRIP_PIXELS // entry.width)
  for top in range(0, entry.height, rows):
    bottom = min(top + rows, entry.height)
    strip = read_index(png.crop((0, top, entry.width, bottom)), segment_ids, path)
    index[top:bottom] = strip
    areas += np.bincount(strip.ravel(), minlength=len(areas))
  check_segments_have_pixels(segment_ids, areas[1:], path)
  return entry.annotation.segments(index)
