"""The images that a user gives, in any of the usual forms, as named RGB arrays."""

import os
import pathlib
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
from PIL import Image

from oanet_tf.config.values import MAX_BATCH_IMAGES, MAX_IMAGE_PIXELS
from oanet_tf.data.pictures import pictures_at, read_picture, unique_name, upright_rgb
from oanet_tf.errors import InputError
from oanet_tf.files import FilePath

ImageLike = FilePath | npt.NDArray[np.uint8] | Image.Image
NamedImage = tuple[str, npt.NDArray[np.uint8]]

_WANTED = 'an image is a path, a folder, an RGB array [height, width, 3] of uint8, or a PIL image'


def named_images(images: ImageLike | Iterable[ImageLike]) -> Iterator[NamedImage]:
  """Reads images one by one.

  Args:
    images: a file, a folder, an array or a PIL image, or many of them, which may be a generator.

  Yields:
    A name, and the image as [H, W, 3] uint8 RGB. A file's name is its own without the suffix, any
    other image is called `image_N`, where N is its place among those given, from 0. A name that was
    there before gets a number: `a`, `a_2`, `a_3`.

  Raises:
    InputError: if something is no image; it says which, and what was expected.
  """
  taken: set[str] = set()
  for name, image in _unnumbered(images):
    yield unique_name(name, taken), image


def _unnumbered(images: ImageLike | Iterable[ImageLike]) -> Iterator[NamedImage]:
  for index, image in enumerate(_each(images)):
    if isinstance(image, str | os.PathLike):
      for path in pictures_at(pathlib.Path(image)):
        yield path.stem, read_picture(path)
    elif isinstance(image, Image.Image):
      yield f'image_{index}', np.asarray(upright_rgb(image, f'image {index}'))
    else:
      yield f'image_{index}', _checked(image, f'image {index}')


def _each(images: ImageLike | Iterable[ImageLike]) -> Iterable[ImageLike]:
  if isinstance(images, str | os.PathLike | Image.Image):
    return [images]
  # A batch of images is an array of one axis more. TensorFlow's tensors are arrays too.
  if hasattr(images, '__array__'):
    array = np.asarray(images)
    return array if array.ndim == 4 else [array]
  if not isinstance(images, Iterable):
    raise InputError(f'{_WANTED}; or an iterable of these; not {_described(images)}')
  return images


def _checked(image: object, name: str) -> np.ndarray:
  if not hasattr(image, '__array__'):
    raise InputError(f'{name}: {_WANTED}; not {_described(image)}')
  array = np.asarray(image)
  if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or not array.size:
    raise InputError(f'{name}: {_WANTED}; not an array {list(array.shape)} of {array.dtype}')
  return array


def _described(value: object) -> str:
  return f'{type(value).__name__} {value!r}'[:60]


def batches_of(images: Iterable[NamedImage], batch_size: int) -> Iterator[list[NamedImage]]:
  """Groups neighbours into batches that fit the memory when padded to the largest image.

  A batch has `MAX_BATCH_IMAGES` and `MAX_IMAGE_PIXELS` of `config.values` at most; a larger image
  is alone.
  """
  batch: list[NamedImage] = []
  batch_size = min(batch_size, MAX_BATCH_IMAGES)
  for name, image in images:
    sides = [one.shape[:2] for _, one in batch] + [image.shape[:2]]
    height, width = (max(side) for side in zip(*sides, strict=True))
    if batch and (len(batch) == batch_size or len(sides) * height * width > MAX_IMAGE_PIXELS):
      yield batch
      batch = []
    batch.append((name, image))
    if len(batch) == batch_size:
      yield batch
      batch = []
  if batch:
    yield batch
