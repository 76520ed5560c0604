"""Reads users' own pictures, of any kind, as RGB."""

import itertools
import pathlib
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from oanet_tf.errors import InputError
from oanet_tf.files import FilePath

SUFFIXES = ('.jpg', '.jpeg', '.png', '.webp', '.bmp', '.gif', '.tif', '.tiff')


def pictures_at(path: pathlib.Path) -> list[pathlib.Path]:
  """A file itself, or the pictures (by suffix) in a folder, sorted by name.

  Raises:
    InputError: if there is nothing at the path, or the folder holds no picture.
  """
  if path.is_dir():
    inside = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES)
    if not inside:
      raise InputError(f'{path}: holds no picture ({", ".join(SUFFIXES)})')
    return inside
  if path.exists():
    return [path]
  raise InputError(f'{path}: there is no such file or folder')


def find_pictures(paths: Sequence[FilePath]) -> list[pathlib.Path]:
  """Lists the given files, and the pictures in the given folders, sorted by name.

  Raises:
    InputError: as `pictures_at`; or if two names differ only in their suffix, so that their results
      would have the same name.
  """
  by_stem: dict[str, pathlib.Path] = {}
  for path in itertools.chain.from_iterable(pictures_at(pathlib.Path(one)) for one in paths):
    if by_stem.setdefault(path.stem, path) is not path:
      raise InputError(
        f'{path}: its results would have the same names as those of {by_stem[path.stem]}'
      )
  return list(by_stem.values())


def read_picture(path: FilePath) -> np.ndarray:
  """[H, W, 3] uint8 RGB, upright, as `upright_rgb` makes it.

  Raises:
    InputError: if the file is no picture, or is truncated.
  """
  try:
    with Image.open(path) as picture:
      picture.load()
      return np.asarray(_upright_rgb(picture))
  except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
    raise InputError(f'{path}: cannot be read as a picture ({error})') from None


def upright_rgb(picture: Image.Image, name: str) -> Image.Image:
  """The picture as RGB of 8 bits.

  Applies EXIF rotation, converts gray, palette and CMYK pictures, scales 16 bits to 8, makes
  transparent pixels white, and takes the first frame of an animation.

  Raises:
    InputError: if its file is truncated; it names `name`.
  """
  try:
    return _upright_rgb(picture)
  except (OSError, SyntaxError, Image.DecompressionBombError) as error:
    raise InputError(f'{name}: cannot be read as a picture ({error})') from None


def _upright_rgb(picture: Image.Image) -> Image.Image:
  picture = ImageOps.exif_transpose(picture)
  if picture.mode.startswith('I'):
    scaled = np.asarray(picture).astype(np.int64) // 257
    picture = Image.fromarray(np.clip(scaled, 0, 255).astype(np.uint8))
  if picture.has_transparency_data:
    picture = picture.convert('RGBA')
    white = Image.new('RGBA', picture.size, 'white')
    picture = Image.alpha_composite(white, picture)
  return picture.convert('RGB')
