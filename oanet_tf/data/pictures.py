"""Reads users' own pictures, of any kind, as RGB."""

import io
import itertools
import os
import pathlib
import warnings
from collections.abc import Sequence

import numpy as np
from PIL import ExifTags, Image, TiffImagePlugin, UnidentifiedImageError

from oanet_tf.data import exif
from oanet_tf.errors import InputError, first_line
from oanet_tf.files import FilePath

SUFFIXES = ('.jpg', '.jpeg', '.png', '.webp', '.bmp', '.gif', '.tif', '.tiff')

# A converter's process needs less than 1 GB up to this size.
MAX_PIXELS = 10_000**2
# Bytes; most file systems take 255, and numbers and suffixes are added.
_LONGEST_NAME = 200
_PNG_END = b'IEND\xae\x42\x60\x82'
# What undoes each of EXIF's orientations.
_TURNED_BACK = {
  2: Image.Transpose.FLIP_LEFT_RIGHT,
  3: Image.Transpose.ROTATE_180,
  4: Image.Transpose.FLIP_TOP_BOTTOM,
  5: Image.Transpose.TRANSPOSE,
  6: Image.Transpose.ROTATE_90,
  7: Image.Transpose.TRANSVERSE,
  8: Image.Transpose.ROTATE_270,
}


def pictures_at(path: pathlib.Path) -> list[pathlib.Path]:
  """A file itself, or the pictures (by suffix, without hidden ones) in a folder, sorted by name.

  Raises:
    InputError: if there is nothing at the path, or the folder holds no picture.
  """
  try:
    if path.is_dir():
      inside = sorted(
        p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith('.')
      )
      if not inside:
        raise InputError(f'{path}: holds no picture ({", ".join(SUFFIXES)})')
      return inside
    if path.exists():
      return [path]
  except OSError as error:
    raise InputError(f'{path}: cannot be read ({error.strerror})') from None
  raise InputError(f'{path}: there is no such file or folder')


def find_pictures(paths: Sequence[FilePath]) -> list[pathlib.Path]:
  """Lists the given files, and the pictures in the given folders; each file once.

  Raises:
    InputError: as `pictures_at`.
  """
  found = itertools.chain.from_iterable(pictures_at(pathlib.Path(one)) for one in paths)
  return list({path.absolute(): path for path in found}.values())


def named_pictures(paths: Sequence[FilePath]) -> dict[str, pathlib.Path]:
  """`find_pictures` by the names that results are to have: file names without suffix, made unique.

  Raises:
    InputError: as `pictures_at`.
  """
  taken: set[str] = set()
  return {unique_name(path.stem, taken): path for path in find_pictures(paths)}


def unique_name(name: str, taken: set[str]) -> str:
  """The name, or `name_2`, `name_3`, … if it is taken; adds it to those taken.

  A and a are one name, as they are on some file systems. A name that is too long for a file with a
  suffix loses its end.
  """
  encoded = os.fsencode(name)
  if len(encoded) > _LONGEST_NAME:
    name = encoded[:_LONGEST_NAME].decode(errors='ignore')
  unique, number = name, 1
  while unique.casefold() in taken:
    number += 1
    unique = f'{name}_{number}'
  taken.add(unique.casefold())
  return unique


def read_picture(path: FilePath) -> np.ndarray:
  """[H, W, 3] uint8 RGB, upright, as `upright_rgb` makes it.

  Raises:
    InputError: if the file cannot be read, or is no picture, or a damaged one.
  """
  return np.asarray(upright_rgb(decoded(read_bytes(path), str(path)), str(path)))


def read_bytes(path: FilePath, name: str | None = None) -> bytes:
  """A file's content.

  Raises:
    InputError: if it cannot be read; it names the path, or `name`.
  """
  name = name or str(path)
  try:
    return pathlib.Path(path).read_bytes()
  except FileNotFoundError:
    raise InputError(f'{name}: there is no such file') from None
  except (OSError, ValueError) as error:
    fact = getattr(error, 'strerror', None) or error
    raise InputError(f'{name}: cannot be read ({fact})') from None


def decoded(encoded: bytes, name: str, *, verify: bool = True) -> Image.Image:
  """The picture in a file of any kind that Pillow reads, with its pixels loaded.

  Args:
    encoded: the file's content.
    name: what to call it in an error.
    verify: whether to refuse what TensorFlow refuses: PNGs with wrong checksums or without an end.

  Raises:
    InputError: if it is no picture, or a damaged one, or has more than 10^8 pixels.
  """
  try:
    with warnings.catch_warnings():
      # Pillow warns of large pictures, which have a limit of our own here, and of odd metadata.
      warnings.simplefilter('ignore')
      if verify:
        Image.open(io.BytesIO(encoded)).verify()
      picture: Image.Image = Image.open(io.BytesIO(encoded))
      if picture.width * picture.height > MAX_PIXELS:
        raise Image.DecompressionBombError
      if isinstance(picture, TiffImagePlugin.TiffImageFile):
        picture = _as_stored(picture)
      picture.load()
    if verify and picture.format == 'PNG' and _PNG_END not in encoded:
      raise OSError('it ends too early')
    _scale_transparent_color(picture, encoded)
  except Image.DecompressionBombError:
    raise InputError(f'{name}: has more than {MAX_PIXELS:,} pixels; make it smaller') from None
  except UnidentifiedImageError:
    raise InputError(f'{name}: is no picture, or a damaged one ({len(encoded)} bytes)') from None
  except Exception as error:  # Pillow's decoders raise nearly anything on damaged files.
    raise InputError(f'{name}: is damaged or not readable ({first_line(error)})') from None
  return picture


def _scale_transparent_color(picture: Image.Image, encoded: bytes) -> None:
  """Makes the one transparent colour of a PNG fit the 8 bits to which Pillow scales its pixels.

  Raises:
    OSError: if the PNG has 16 bits, as the lower ones are gone.
  """
  color = picture.info.get('transparency')
  if picture.format != 'PNG' or picture.mode == 'P' or color is None:
    return
  bits = encoded[24]  # A PNG's first chunk says it.
  if bits == 16:
    raise OSError('it has 16 bits and one transparent colour; save it with an alpha channel')
  if bits in (2, 4):
    picture.info['transparency'] = color * 255 // (2**bits - 1)


def _as_stored(tiff: TiffImagePlugin.TiffImageFile) -> Image.Image:
  """A TIFF as pictures of other kinds are loaded; Pillow turns it as it loads it."""
  orientation, turned_by = ExifTags.Base.Orientation, tiff.getexif()
  block = Image.Exif()
  block[orientation] = tiff.tag_v2.get(orientation, 1)
  # Pillow goes by XMP too, which is no EXIF.
  back = _TURNED_BACK.get(turned_by.get(orientation, 1))
  tiff.load()
  stored = tiff.copy() if back is None else tiff.transpose(back)
  stored.format, stored.info['exif'] = tiff.format, block.tobytes()
  return stored


def orientation(picture: Image.Image) -> int:
  """How the stored pixels are to be turned for the picture to be upright: `exif.orientation`."""
  return exif.orientation(picture.info.get('exif', b''))


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
  """[h, w, …] as stored -> upright: [h, w, …], or [w, h, …] for the orientations from 5 on.

  https://cipa.jp/std/documents/e/DC-008-2012_E.pdf, section 4.6.4.
  """
  if orientation >= 5:
    pixels = pixels.swapaxes(0, 1)
  return pixels[:: flip(orientation, 0), :: flip(orientation, 1)]


def flip(orientation: int, axis: int) -> int:
  """-1 if the axis runs backwards once those of a transposed picture are exchanged, else 1."""
  return -1 if orientation in ((3, 4, 7, 8), (2, 3, 6, 7))[axis] else 1


def upright_rgb(picture: Image.Image, name: str) -> Image.Image:
  """The picture as RGB of 8 bits. All that reads a picture gets these pixels.

  Turns it as its EXIF orientation says, converts gray, palette and CMYK pictures, takes the upper 8
  of 16 bits, lays transparent pixels on white, and takes the first frame of an animation.

  Raises:
    InputError: if its file is damaged; it names `name`.
  """
  if picture.mode == 'F':
    raise InputError(f'{name}: has floating-point pixels, whose range is not known; convert it')
  try:
    if picture.mode.startswith('I'):
      upper = np.clip(np.asarray(picture).astype(np.int64) >> 8, 0, 255)
      picture, how = Image.fromarray(upper.astype(np.uint8)), orientation(picture)
    else:
      how = orientation(picture)
    if picture.has_transparency_data:
      picture = picture.convert('RGBA')
      white = Image.new('RGBA', picture.size, 'white')
      picture = Image.alpha_composite(white, picture)
    rgb = picture.convert('RGB')
    return rgb if how == 1 else Image.fromarray(turned(np.asarray(rgb), how))
  except Exception as error:  # As in `decoded`; a picture may be loaded only now.
    raise InputError(f'{name}: cannot be read as a picture ({first_line(error)})') from None
