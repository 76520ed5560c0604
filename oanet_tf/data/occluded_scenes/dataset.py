"""Annotates scenes as COCO's annotators would, and writes them in COCO's layout.

Image i of a split depends only on the seed, the split and i.
"""

import itertools
import json
import pathlib

import numpy as np
import tqdm
from PIL import Image
from pycocotools import mask as coco_mask

from oanet_tf import files
from oanet_tf.data import panoptic_map
from oanet_tf.data.occluded_scenes import scenes, shapes
from oanet_tf.data.occluded_scenes.scenes import Scene
from oanet_tf.data.occluded_scenes.stage import Thing
from oanet_tf.errors import InputError
from oanet_tf.files import FilePath

# H, W image, in pixels; `image_size` is its longer side.

SPLITS = ('train', 'val')
IMAGE_SIZES = (64, 4096)  # Smallest and largest; in smaller images a tie is a few pixels.
MAX_IMAGES = 2**19 - 1  # Segment ids have 24 bits, 5 of which number the segments of an image.

# The ids are COCO's, gaps included.
CATEGORIES = tuple(
  {'supercategory': group, 'color': color, 'isthing': isthing, 'id': category_id, 'name': name}
  for category_id, name, group, isthing, color in (
    (1, 'person', 'person', 1, [220, 20, 60]),
    (3, 'car', 'vehicle', 1, [0, 0, 230]),
    (18, 'dog', 'animal', 1, [255, 140, 0]),
    (31, 'bag', 'accessory', 1, [160, 32, 240]),
    (32, 'tie', 'accessory', 1, [255, 255, 0]),
    (37, 'ball', 'sports', 1, [255, 105, 180]),
    (47, 'cup', 'kitchen', 1, [0, 255, 255]),
    (67, 'table', 'furniture', 1, [150, 75, 0]),
    (149, 'road', 'ground', 0, [128, 64, 128]),
    (178, 'water', 'water', 0, [60, 100, 150]),
    (187, 'sky', 'sky', 0, [135, 206, 235]),
    (193, 'grass', 'plant', 0, [60, 160, 60]),
    (197, 'building', 'building', 0, [110, 110, 110]),
  )
)
CATEGORY_IDS = {category['name']: category['id'] for category in CATEGORIES}
BIG_THINGS = frozenset({'person', 'car', 'dog', 'table'})

_DATE = '2024-01-01 00:00:00'  # Fixed, so that the same seed gives the same bytes.
_LICENSE = {
  'url': 'http://www.apache.org/licenses/LICENSE-2.0',
  'id': 1,
  'name': 'Apache License 2.0',
}
_HIDING_FRACTION = 0.4


def instance_mask(
  thing: Thing, in_front: list[Thing], rng: np.random.Generator, image_size: int
) -> np.ndarray:
  """[H, W] bool: a thing as COCO's annotators outline it.

  The outline ignores small things that lie on it. Of a thing that hides it (a big one, or one that
  covers over 40 % of its bounding box) the pixels are cut out; but a third of the time nothing is
  cut out, and a third of the time a margin of 1 to 3 pixels (in an image of 128) is left.
  """
  rows, columns = np.nonzero(thing.mask)
  box_area = (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
  mask = thing.mask
  for other in in_front:
    overlap = np.count_nonzero(thing.mask & other.mask)
    hides = other.name in BIG_THINGS or overlap > _HIDING_FRACTION * box_area
    habit = ('whole', 'margin', 'exact')[rng.integers(3)]
    if overlap and hides and habit != 'whole':
      margin = rng.integers(1, 4) * image_size / shapes.REFERENCE_SIZE
      radius = max(1, round(margin)) if habit == 'margin' else 0
      mask = mask & ~shapes.erode(other.mask, radius)
  return mask


def segment_id(image_id: int, index: int) -> int:
  """The id of an image's `index`-th segment, in [1, 2^24 - 1] and unique in a split.

  The odd factor permutes the 24-bit numbers and spreads neighbours over all three bytes. So their
  colours differ, and a reader that widens a byte too late fails.
  """
  return (32 * image_id + index) * 0x9E3779 % 2**24


def _annotation(image_id: int, index: int, name: str, is_crowd: bool, mask: np.ndarray) -> dict:
  """COCO's annotation of an image's `index`-th segment; `bbox` is [x, y, w, h]."""
  rle = coco_mask.encode(np.asfortranarray(mask, np.uint8))
  return {
    'id': segment_id(image_id, index),
    'category_id': CATEGORY_IDS[name],
    'iscrowd': int(is_crowd),
    'segmentation': {'size': rle['size'], 'counts': rle['counts'].decode('ascii')},
    'area': int(coco_mask.area(rle)),
    'bbox': [int(value) for value in coco_mask.toBbox(rle)],
  }


def panoptic_annotation(scene: Scene, image_id: int) -> tuple[np.ndarray, list[dict]]:
  """The visible stuff and things: [H, W] int32 segment ids, and `segments_info`."""
  covered = np.any(scene.visible, axis=0)
  shown = [
    (name, False, (scene.stuff_map == index) & ~covered)
    for index, name in enumerate(scene.stuff_names)
  ]
  things = zip(scene.things, scene.visible, strict=True)
  shown += [(thing.name, thing.is_crowd, visible) for thing, visible in things]
  segment_map = np.zeros(scene.stuff_map.shape, np.int32)
  segments = []
  for index, (name, is_crowd, mask) in enumerate(shown):
    if mask.any():
      segment = _annotation(image_id, index, name, is_crowd, mask)
      del segment['segmentation']
      segment_map[mask] = segment['id']
      segments.append(segment)
  return segment_map, segments


def instance_annotations(
  scene: Scene, rng: np.random.Generator, image_id: int, order: str = 'category'
) -> list[dict]:
  """Annotates the things; each annotation has the id of its panoptic segment."""
  annotations = []
  for number, thing in enumerate(scene.things, start=1):
    if scenes.ORDERS[order].whole_outlines:
      mask = thing.mask
    else:
      mask = instance_mask(thing, scene.things[number:], rng, scene.image_size)
    index = len(scene.stuff_names) + number - 1
    annotation = _annotation(image_id, index, thing.name, thing.is_crowd, mask)
    annotations.append({**annotation, 'image_id': image_id})
  return annotations


def _write_image(
  folder: pathlib.Path, split: str, index: int, image_size: int, seed: int, order: str
) -> tuple[dict, dict, list[dict]]:
  """Writes an image and its PNG; returns its entries of `images` and of both `annotations`."""
  rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(SPLITS.index(split), index)))
  image_id = index + 1
  stem = f'{image_id:012d}'
  scene = scenes.plan_scene(rng, image_size, order)
  image = scenes.render(scene, rng)
  segment_map, segments = panoptic_annotation(scene, image_id)
  Image.fromarray(image).save(folder / split / f'{stem}.jpg', quality=95)
  png = Image.fromarray(panoptic_map.ids_to_rgb(segment_map))
  png.save(folder / 'annotations' / f'panoptic_{split}' / f'{stem}.png')
  record = {
    'license': _LICENSE['id'],
    'file_name': f'{stem}.jpg',
    'coco_url': '',
    'height': image.shape[0],
    'width': image.shape[1],
    'date_captured': _DATE,
    'flickr_url': '',
    'id': image_id,
  }
  panoptic = {'segments_info': segments, 'file_name': f'{stem}.png', 'image_id': image_id}
  return record, panoptic, instance_annotations(scene, rng, image_id, order)


def _write_split(
  folder: pathlib.Path, split: str, count: int, image_size: int, seed: int, order: str
) -> None:
  name = 'OccludedScenes' if order == 'category' else f'OccludedScenes, order by {order}'
  (folder / split).mkdir()
  (folder / 'annotations' / f'panoptic_{split}').mkdir(parents=True)
  written = [
    _write_image(folder, split, index, image_size, seed, order)
    for index in tqdm.trange(count, desc=split, unit='image')
  ]
  images, panoptic, instances = zip(*written, strict=True) if written else ((), (), ())
  things = [
    {key: c[key] for key in ('supercategory', 'id', 'name')} for c in CATEGORIES if c['isthing']
  ]
  for kind, annotations, categories in (
    ('panoptic', panoptic, CATEGORIES),
    ('instances', list(itertools.chain.from_iterable(instances)), things),
  ):
    content = {
      'info': {
        'description': f'{name}, made with seed {seed}',
        'url': '',
        'version': '1.0',
        'year': int(_DATE[:4]),
        'contributor': 'oanet_tf',
        'date_created': _DATE,
      },
      'licenses': [_LICENSE],
      'images': images,
      'annotations': annotations,
      'categories': categories,
    }
    (folder / 'annotations' / f'{kind}_{split}.json').write_text(json.dumps(content))


def generate(
  output_dir: FilePath,
  num_train: int = 1500,
  num_val: int = 200,
  image_size: int = 128,
  seed: int = 0,
  order: str = 'category',
) -> None:
  """Writes the dataset: a folder of JPEGs for each split, and `annotations`.

  The same arguments, with the same NumPy and Pillow, give the same bytes. `output_dir` appears only
  when it is complete.

  Args:
    output_dir: a folder that is empty or does not exist yet.
    num_train: images of the train split, in [0, 2^19 - 1].
    num_val: images of the val split, in [0, 2^19 - 1].
    image_size: longer side of the images in pixels, in [64, 4096].
    seed: at least 0.
    order: what decides which thing lies on top, a key of `scenes.ORDERS`.

  Raises:
    InputError: if an argument is out of range, or the folder is not empty or cannot be made.
  """
  for name, value, low, high in (
    ('num_train', num_train, 0, MAX_IMAGES),
    ('num_val', num_val, 0, MAX_IMAGES),
    ('image_size', image_size, *IMAGE_SIZES),
    ('seed', seed, 0, 2**63 - 1),
  ):
    if not low <= value <= high:
      raise InputError(f'{name} {value} is not in [{low}, {high}]')
  if order not in scenes.ORDERS:
    raise InputError(f'order {order!r} is not one of {", ".join(scenes.ORDERS)}')
  folder = pathlib.Path(output_dir).resolve()
  with files.writing(folder):
    if folder.exists() and next(folder.iterdir(), None):
      raise InputError(f'{folder}: is not empty; remove it or choose another folder')
  with files.making_folder(folder) as partial:
    for split, count in zip(SPLITS, (num_train, num_val), strict=True):
      with files.writing(folder):
        _write_split(partial, split, count, image_size, seed, order)
