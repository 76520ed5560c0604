"""Semantic PNGs: one for each image, whose pixel values are category ids.

H, W height and width of an image.
"""

import hashlib
import pathlib
from collections.abc import Collection, Sequence

import numpy as np
import tqdm

from oanet_tf.data import pictures
from oanet_tf.data.coco_json import check_folder
from oanet_tf.data.listed_files import ListedFiles
from oanet_tf.data.resume import sha256
from oanet_tf.errors import InputError
from oanet_tf.files import FilePath

# What tools write where nothing is labelled.
VOID_VALUES = (0, 255)
# PNG's numbers of a picture's kinds.
_GREY, _PALETTE = 0, 3


def find_semantic_pngs(folder: FilePath, names: Sequence[str], may_miss: bool = False) -> list[str]:
  """The paths of the images' PNGs, which may be in subfolders.

  Args:
    folder: of the PNGs.
    names: the images', with the suffix .png.
    may_miss: whether the path of a missing PNG is given all the same.

  Raises:
    InputError: if the folder or, unless `may_miss`, a PNG is missing, or it is not clear which PNG
      is an image's.
  """
  check_folder(folder)
  files = ListedFiles(folder, names)
  paths = [files.path(name, f'{folder}: a semantic PNG') for name in names]
  for path in paths:
    if not may_miss and not pathlib.Path(path).is_file():
      raise InputError(
        f'{path}: there is no such file, which is to be the semantic PNG of an image'
      )
  return paths


def digest(paths: Sequence[str]) -> str:
  """One hash of the content of all files, in hexadecimal digits; of a missing one, as if empty.

  Raises:
    InputError: if one cannot be read.
  """
  total = hashlib.sha256()
  with tqdm.tqdm(paths, 'semantic PNGs', unit='file') as bar:
    for path in bar:
      try:
        total.update(sha256(path).encode())
      except FileNotFoundError:
        total.update(hashlib.sha256().hexdigest().encode())
      except OSError as error:
        raise InputError(f'{path}: cannot be read ({error.strerror})') from None
  return total.hexdigest()


def read_stuff(
  path: str, height: int, width: int, stuff_ids: Sequence[int], thing_ids: Collection[int]
) -> np.ndarray:
  """Which stuff a PNG shows.

  Args:
    path: of a grey PNG of 8 or 16 bits, or one with a palette.
    height: of the image, in pixels.
    width: likewise.
    stuff_ids: the pixel values of the stuff categories.
    thing_ids: pixel values that are void, as are 0 and 255 if no stuff has them.

  Returns:
    [H, W] int32: k for the k-th of `stuff_ids`, counted from 1; 0 is void.

  Raises:
    InputError: if the file is missing, damaged, of another kind or size, or has another value.
  """
  encoded = pictures.read_bytes(path)
  image = pictures.decoded(encoded, path)
  # Byte 24 of a PNG is its depth in bits, 25 its kind. Pillow scales values of fewer than 8 bits.
  if image.format != 'PNG' or (encoded[25], encoded[24]) not in (
    *((_GREY, bits) for bits in (8, 16)),
    *((_PALETTE, bits) for bits in (1, 2, 4, 8)),
  ):
    raise InputError(
      f'{path}: is no semantic PNG, which is grey with 8 or 16 bits or has a palette, but '
      f'{image.format} {image.mode}'
    )
  if image.size != (width, height):
    raise InputError(
      f'{path}: is {image.width} × {image.height} pixels, but the image is {width} × {height}'
    )
  table = np.full(2**16, -1, np.int32)
  table[[*VOID_VALUES, *thing_ids]] = 0
  table[list(stuff_ids)] = np.arange(1, len(stuff_ids) + 1)
  values = np.asarray(image)
  stuff = table[values]
  if (stuff < 0).any():
    raise InputError(
      f'{path}: has the value {values[stuff < 0][0]}, which is the id of no category; name it as '
      'stuff with NAME=VALUE'
    )
  return stuff
