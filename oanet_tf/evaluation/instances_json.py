"""Reads ground-truth objects in COCO's format, and checks them before an evaluation starts."""

from typing import NamedTuple

import numpy as np
import tqdm
from pycocotools import mask as coco_mask

from oanet_tf.data.categories import PanopticCategories
from oanet_tf.data.json_file import check_unique, field, read_json_object, whole
from oanet_tf.data.objects import instance_mask
from oanet_tf.data.panoptic_json import is_crowd
from oanet_tf.errors import InputError
from oanet_tf.files import FilePath

_NUMBER = (int, float)


class Instances(NamedTuple):
  """The objects of a dataset.

  Attributes:
    path: of their file, for errors.
    sizes: (height, width) of each image, by its id.
    annotations: of each image, by its id; they have what pycocotools reads.
  """

  path: str
  sizes: dict[int | str, tuple[int, int]]
  annotations: dict[int | str, list[dict]]

  def check_count(self, num_images: int) -> None:
    """Raises `InputError`, before the work, if there are fewer images than are to be scored."""
    if len(self.sizes) < num_images:
      raise InputError(
        f'{self.path}: has {len(self.sizes)} images, but the shards have {num_images}; is it of '
        'another split?'
      )

  def of_image(self, image_id: int | str, size: tuple[int, int]) -> list[dict]:
    """The annotations of an image of a size.

    Raises:
      InputError: if the file has no such image, or it is of another size.
    """
    if image_id not in self.sizes:
      raise InputError(f'{self.path}: has no image {image_id}; is it of another split?')
    if self.sizes[image_id] != size:
      raise InputError(
        f'{self.path}: image {image_id} is of {" x ".join(map(str, self.sizes[image_id]))} pixels, '
        f'but of {" x ".join(map(str, size))} in the shards; is it of another dataset?'
      )
    return self.annotations[image_id]


def read_instances(path: FilePath, categories: PanopticCategories) -> Instances:
  """Reads a COCO instances JSON, with a progress bar.

  Where an annotation has no `area` or `bbox`, these are its mask's. Annotations of stuff, and those
  whose mask has no pixel, such as boxes, are left out, as the converter does.

  Args:
    path: of the file.
    categories: of the network.

  Raises:
    InputError: if the file is missing, no COCO instances JSON, or numbers the categories otherwise;
      or if it has things, but none with a mask.
  """
  path = str(path)
  content = read_json_object(path)
  categories.check_numbering(content.get('categories'), path)
  sizes: dict[int | str, tuple[int, int]] = {}
  images = field(content, 'images', list, path)
  check_unique((field(one, 'id', (int, str), f'{path}: image') for one in images), f'{path}: image')
  for one in images:
    where = f'{path}: image {one["id"]}'
    size = (field(one, 'height', int, where), field(one, 'width', int, where))
    sizes[whole(one['id'])] = size
  annotations: dict[int | str, list[dict]] = {image_id: [] for image_id in sizes}
  listed = field(content, 'annotations', list, path)
  num_things = 0
  for index, one in enumerate(tqdm.tqdm(listed, 'checking instances', leave=False)):
    where = f'{path}: annotation {index}'
    image_id = field(one, 'image_id', (int, str), where)
    if image_id not in sizes:
      raise InputError(f'{where}: is of image {image_id}, which is not in `images`')
    category_id = field(one, 'category_id', int, where)
    if category_id not in categories:
      raise InputError(f'{where}: category {category_id} is not in {categories.source}')
    is_thing = categories.of_id(category_id).is_thing
    num_things += is_thing
    if is_thing and one.get('segmentation') is not None:
      annotations[image_id] += _annotation(one, category_id, sizes[image_id], where)
  if num_things and not any(annotations.values()):
    raise InputError(f'{path}: none of its {num_things} things has a mask; export these')
  return Instances(path, sizes, annotations)


def _annotation(one: dict, category_id: int, size: tuple[int, int], where: str) -> list[dict]:
  """The annotation; none if its mask has no pixel."""
  segmentation = field(one, 'segmentation', (list, dict), where)
  try:
    mask = instance_mask(segmentation, *size)
  except ValueError as error:
    raise InputError(f'{where}: {error}') from None
  if not mask.any():
    return []
  encoded = coco_mask.encode(np.asfortranarray(mask, np.uint8))
  given = {key: value for key, value in one.items() if value is not None}
  box = field(given, 'bbox', list, where) if 'bbox' in given else coco_mask.toBbox(encoded).tolist()
  if len(box) != 4 or not all(isinstance(side, _NUMBER) for side in box):
    raise InputError(f'{where}: `bbox` is not [x, y, width, height]')
  return [
    {
      'category_id': category_id,
      'bbox': box,
      'area': field(given, 'area', _NUMBER, where) if 'area' in given else int(mask.sum()),
      'iscrowd': int(is_crowd(one, where)),
      'segmentation': encoded,
    }
  ]
