"""Reads users' own pictures, of any kind, as RGB."""

import pathlib
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from oanet_tf.errors import InputError

SUFFIXES = ('.jpg', '.jpeg', '.png', '.webp', '.bmp', '.gif', '.tif', '.tiff')


def find_pictures(paths: Sequence[str]) -> list[pathlib.Path]:
  """Lists the given files, and the pictures (by suffix) in the given folders, sorted by name.

  Raises:
    InputError: if a path does not exist, a folder holds no picture, or two names differ only in
      their suffix, so that their results would have the same name.
  """
  found = []
  for path in map(pathlib.Path, paths):
    if path.is_dir():
      inside = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES)
      if not inside:
        raise InputError(f'{path}: holds no picture ({", ".join(SUFFIXES)})')
      found.extend(inside)
    elif path.exists():
      found.append(path)
    else:
      raise InputError(f'{path}: there is no such file or folder')
  by_stem = {}
  for path in found:
    if by_stem.setdefault(path.stem, path) is not path:
      raise InputError(
        f'{path}: its results would have the same names as those of {by_stem[path.stem]}'
      )
  return found


def read_picture(path: str | pathlib.Path) -> np.ndarray:
  """[H, W, 3] uint8 RGB, upright.

  Applies EXIF rotation, converts gray, palette and CMYK pictures, scales 16 bits to 8, makes
  transparent pixels white, and takes the first frame of an animation.

  Raises:
    InputError: if the file is no picture, or is truncated.
  """
  try:
    with Image.open(path) as picture:
      picture.load()
      return np.asarray(_to_rgb(ImageOps.exif_transpose(picture)))
  except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
    raise InputError(f'{path}: cannot be read as a picture ({error})') from None


def _to_rgb(picture: Image.Image) -> Image.Image:
  if picture.mode.startswith('I'):
    scaled = np.asarray(picture).astype(np.int64) // 257
    picture = Image.fromarray(np.clip(scaled, 0, 255).astype(np.uint8))
  if picture.has_transparency_data:
    picture = picture.convert('RGBA')
    white = Image.new('RGBA', picture.size, 'white')
    picture = Image.alpha_composite(white, picture)
  return picture.convert('RGB')
