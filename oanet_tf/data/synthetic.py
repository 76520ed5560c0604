"""OccludedScenes: a panoptic dataset in COCO's layout, made on the spot.

Its occlusions are those that OANet's spatial ranking module is made for (Liu et al., CVPR 2019,
section 1): a tie lies on a person and a cup on a table, a table stands in front of a person, and
bag and person, dog and car, ball and anything may be in either order. Image i of a split depends
on the seed, the split and i only.

  python -m oanet_tf.data.synthetic --output_dir /tmp/occluded_scenes
"""

import argparse
import dataclasses
import json
import os
import pathlib
import shutil
from typing import NamedTuple

import numpy as np
import tqdm
from PIL import Image
from pycocotools import mask as coco_mask

from oanet_tf import errors
from oanet_tf.data import panoptic_map, synthetic_shapes
from oanet_tf.data.synthetic_shapes import Pose
from oanet_tf.errors import InputError

# H, W image, in pixels. Lengths of a scene's plan are fractions of `image_size`, its longer side.

SPLITS = ('train', 'val')
IMAGE_SIZES = (64, 4096)  # smallest, largest; below it, ties and cups are a few pixels
MAX_IMAGES = 2**19 - 1  # segment ids have 24 bits, of which 5 count an image's segments

# The ids are COCO's, with its gaps.
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

# Height over the image's longer side, and width over height: [low, high].
_SIZES = {
  'person': ((0.45, 0.65), (0.42, 0.5)),
  'car': ((0.2, 0.3), (1.9, 2.3)),
  'dog': ((0.26, 0.42), (1.05, 1.3)),
  'bag': ((0.14, 0.23), (0.9, 1.15)),
  'tie': ((0.11, 0.15), (0.38, 0.45)),
  'ball': ((0.12, 0.22), (1.0, 1.0)),
  'cup': ((0.1, 0.13), (0.95, 1.05)),
  'table': ((0.32, 0.42), (1.4, 1.6)),
}
_DATE = '2024-01-01 00:00:00'  # fixed, so that the same seed gives the same bytes
_MIN_VISIBLE_AREA = 20  # pixels of an image of 128
_HIDING_SHARE = 0.4
_ON_TOP = 1e-9  # a step of depth that nothing else comes between


@dataclasses.dataclass(frozen=True, eq=False)
class Thing:
  """One thing of a scene.

  Attributes:
    name: its category.
    figures: its drawings with their poses; one, or many for a crowd.
    mask: [H, W] bool, the whole silhouette inside the image, hidden or not.
    depth: the greater lies in front.
    host: the thing that it lies on and is not drawn without.
  """

  name: str
  figures: list[tuple[Pose, np.ndarray]]
  mask: np.ndarray
  depth: float
  host: 'Thing | None' = None

  @property
  def is_crowd(self) -> bool:
    return len(self.figures) > 1


class Scene(NamedTuple):
  """What an image shows.

  Attributes:
    stuff_names: categories of the background's regions.
    stuff_map: [H, W] int32, an index into `stuff_names`, or -1 where nothing is labelled.
    things: back to front.
    visible: [H, W] bool for each thing, disjoint.
  """

  stuff_names: tuple[str, ...]
  stuff_map: np.ndarray
  things: list[Thing]
  visible: list[np.ndarray]


class _Stage:
  """Collects the things of a scene, in [0, width] x [0, height] with the longer side 1."""

  def __init__(self, rng: np.random.Generator, shape: tuple[int, int], image_size: int):
    self.rng = rng
    self.shape = shape
    self.image_size = image_size
    self.height, self.width = np.array(shape) / image_size
    self.things: list[Thing] = []

  def figure(self, name: str, x: float, y: float, scale: float = 1.0, angle: float | None = None):
    """Draws a shape of random size and form around (x, y)."""
    rng = self.rng
    height, aspect = (rng.uniform(*limits) for limits in _SIZES[name])
    box = np.array([x, y, height * aspect * scale, height * scale]) * self.image_size
    angle = rng.normal(0, 0.06) if angle is None else angle
    pose = Pose(*box.tolist(), angle, mirror=bool(rng.random() < 0.5))
    return pose, synthetic_shapes.draw(synthetic_shapes.SILHOUETTES[name](rng), pose, *self.shape)

  def add(self, name: str, x: float, y: float, depth: float) -> Thing:
    figure = self.figure(name, x, y)
    self.things.append(Thing(name, [figure], figure[1] > 0, depth))
    return self.things[-1]

  def add_on(self, host: Thing, name: str, x: float, y: float) -> None:
    """Adds a thing on top of its host; x, y in the host's frame."""
    pose = host.figures[0][0]
    center = pose.to_image(np.array([x, y])) / self.image_size
    figure = self.figure(name, *center, angle=pose.angle)
    self.things.append(Thing(name, [figure], figure[1] > 0, host.depth + _ON_TOP, host))

  def add_beside(self, neighbor: Thing, name: str, x: float, y: float) -> None:
    """Adds a thing just before or just behind its neighbor; x, y in the neighbor's frame."""
    center = neighbor.figures[0][0].to_image(np.array([x, y])) / self.image_size
    self.add(name, *center, neighbor.depth + self.rng.choice([-0.02, 0.02]))


def _add_person(stage: _Stage, x: float, y: float) -> None:
  rng = stage.rng
  person = stage.add('person', x, y, depth=rng.uniform(0, 0.5))
  if rng.random() < 0.33:
    stage.add_on(person, 'tie', rng.uniform(-0.04, 0.04), rng.uniform(-0.09, -0.06))
  if rng.random() < 0.35:
    stage.add_beside(person, 'bag', rng.choice([-1, 1]) * rng.uniform(0.35, 0.6), 0.15)


def _add_table(stage: _Stage, x: float, y: float) -> None:
  """A table with up to two cups; no person comes before it."""
  rng = stage.rng
  table = stage.add('table', x, y, depth=rng.uniform(0.52, 1))
  for side in rng.permutation([-1, 1])[: rng.choice(3, p=[0.35, 0.45, 0.2])]:
    stage.add_on(table, 'cup', side * rng.uniform(0.12, 0.26), rng.uniform(-0.28, -0.22))


def _add_people(stage: _Stage, x: float) -> None:
  rng = stage.rng
  y = rng.uniform(0.42, 0.56) * stage.height
  _add_person(stage, x, y)
  if rng.random() < 0.3:
    _add_person(stage, x + rng.choice([-1, 1]) * rng.uniform(0.12, 0.26), y)
  if rng.random() < 0.42:
    _add_table(stage, x + rng.uniform(-0.15, 0.15), y + rng.uniform(0.22, 0.34))


def _add_lone_table(stage: _Stage, x: float) -> None:
  _add_table(stage, x, stage.rng.uniform(0.55, 0.8) * stage.height)


def _add_traffic(stage: _Stage, x: float) -> None:
  rng = stage.rng
  y = rng.uniform(0.45, 0.75) * stage.height
  car = stage.add('car', x, y, depth=rng.uniform(0, 1))
  if rng.random() < 0.25:
    stage.add_beside(
      car, 'car', rng.choice([-1, 1]) * rng.uniform(0.2, 0.6), rng.uniform(-0.6, 0.6)
    )
  if rng.random() < 0.6:
    stage.add_beside(car, 'dog', rng.choice([-1, 1]) * rng.uniform(0.2, 0.6), rng.uniform(0, 0.45))


def _add_dog(stage: _Stage, x: float) -> None:
  stage.add('dog', x, stage.rng.uniform(0.45, 0.8) * stage.height, depth=stage.rng.uniform(0, 1))


def _add_ball(stage: _Stage) -> None:
  """A ball at the rim of something."""
  angle = stage.rng.uniform(0, 2 * np.pi)
  neighbor = stage.things[stage.rng.integers(len(stage.things))]
  stage.add_beside(neighbor, 'ball', 0.45 * np.cos(angle), 0.45 * np.sin(angle))


def _add_crowd(stage: _Stage) -> None:
  """Many small persons behind everything."""
  rng = stage.rng
  center, reach = rng.uniform([[0.3, 0.3], [0.2, 0.05]], [[0.6, 0.45], [0.35, 0.1]])
  places = center + reach * rng.uniform(-1, 1, size=(rng.integers(25, 50), 2))
  places = places[places[:, 1].argsort()]
  figures = [stage.figure('person', x, y, scale=0.22) for x, y in places]
  mask = np.any([drawing > 0 for _, drawing in figures], axis=0)
  stage.things.append(Thing('person', figures, mask, depth=-1.0))


def _plan_things(stage: _Stage) -> list[Thing]:
  """Things back to front: none in 5 % of the scenes, with a crowd in 3 %."""
  rng = stage.rng
  if rng.random() < 0.05:
    return []
  if rng.random() < 0.03:
    _add_crowd(stage)
  count = rng.choice([1, 2], p=[0.4, 0.6])
  for slot in rng.permutation(count):
    add_group = (_add_people, _add_lone_table, _add_traffic, _add_dog)[
      rng.choice(4, p=[0.54, 0.14, 0.22, 0.1])
    ]
    if len(stage.things) < 4:
      add_group(stage, (slot + rng.uniform(0.25, 0.75)) / count * stage.width)
  if rng.random() < 0.4:
    _add_ball(stage)
  return sorted(stage.things, key=lambda thing: thing.depth)


def _visible_masks(things: list[Thing]) -> list[np.ndarray]:
  """[H, W] bool for each thing, back to front: what those in front of it leave."""
  visible = []
  covered = np.False_
  for thing in reversed(things):
    visible.append(thing.mask & ~covered)
    covered = covered | thing.mask
  return visible[::-1]


def _drop_hidden(things: list[Thing], min_area: float) -> tuple[list[Thing], list[np.ndarray]]:
  """Removes what hardly shows, one by one since each may uncover others, and what lies on it."""
  while True:
    visible = _visible_masks(things)
    hidden = next((t for t, m in zip(things, visible, strict=True) if m.sum() < min_area), None)
    if hidden is None:
      return things, visible
    things = [thing for thing in things if thing is not hidden and thing.host is not hidden]


def plan_scene(rng: np.random.Generator, image_size: int) -> Scene:
  """Draws a scene; a quarter of the scenes are 4:3 or 3:4, the others square."""
  short = round(0.75 * image_size)
  shapes = [(image_size, image_size), (short, image_size), (image_size, short)]
  shape = shapes[rng.choice(3, p=[0.75, 0.125, 0.125])]
  stuff_names, stuff_map = synthetic_shapes.background(rng, *shape)
  things = _plan_things(_Stage(rng, shape, image_size))
  min_area = _MIN_VISIBLE_AREA * (image_size / synthetic_shapes.REFERENCE_SIZE) ** 2
  return Scene(stuff_names, stuff_map, *_drop_hidden(things, min_area))


def render(scene: Scene, rng: np.random.Generator, image_size: int) -> np.ndarray:
  """[H, W, 3] uint8 picture of a scene."""
  height, width = scene.stuff_map.shape
  image = np.zeros((height, width, 3), np.float32)
  center = Pose(width / 2, height / 2, width, height, angle=0.0)
  frame = synthetic_shapes.frame(height, width, image_size, center)
  for index, name in [*enumerate(scene.stuff_names), (-1, 'void')]:
    drawing = (scene.stuff_map == index) * np.uint8(synthetic_shapes.FLAT)
    synthetic_shapes.paint(image, name, drawing, frame, rng, outline=False)
  for thing in scene.things:
    for pose, drawing in thing.figures:
      frame = synthetic_shapes.frame(height, width, image_size, pose)
      synthetic_shapes.paint(image, thing.name, drawing, frame, rng)
  return synthetic_shapes.light_and_noise(image, rng)


def instance_mask(
  thing: Thing, in_front: list[Thing], rng: np.random.Generator, image_size: int
) -> np.ndarray:
  """[H, W] bool: a thing as COCO's annotators outline it, its visible pixels and more.

  They outline through the small things that lie on it. What hides it - a big thing, or one that
  covers over 40 % of its bounding box - is cut off, but a third of the time nothing is, and a
  third of the time a margin of 1 to 3 pixels (of an image of 128) is left.
  """
  rows, columns = np.nonzero(thing.mask)
  box_area = (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
  mask = thing.mask
  for other in in_front:
    overlap = np.count_nonzero(thing.mask & other.mask)
    hides = other.name in BIG_THINGS or overlap > _HIDING_SHARE * box_area
    habit = ('whole', 'margin', 'exact')[rng.integers(3)]
    if overlap and hides and habit != 'whole':
      margin = rng.integers(1, 4) * image_size / synthetic_shapes.REFERENCE_SIZE
      radius = max(1, round(margin)) if habit == 'margin' else 0
      mask = mask & ~synthetic_shapes.erode(other.mask, radius)
  return mask


def segment_id(image_id: int, index: int) -> int:
  """The id of an image's `index`-th segment, in [1, 2^24 - 1], unique in a split.

  The odd factor permutes the 24-bit numbers and spreads neighbors over all three bytes, so that
  their colours differ, and a reader that widens a byte too late fails.
  """
  return (32 * image_id + index) * 0x9E3779 % 2**24


def _region(mask: np.ndarray) -> dict:
  """COCO's fields of a mask: `segmentation`, `area`, `bbox` [x, y, w, h]."""
  rle = coco_mask.encode(np.asfortranarray(mask, np.uint8))
  return {
    'segmentation': {'size': rle['size'], 'counts': rle['counts'].decode('ascii')},
    'area': int(coco_mask.area(rle)),
    'bbox': [int(value) for value in coco_mask.toBbox(rle)],
  }


def annotate(
  scene: Scene, rng: np.random.Generator, image_id: int, image_size: int
) -> tuple[np.ndarray, list[dict], list[dict]]:
  """COCO's annotations of a scene.

  Returns:
    [H, W] int32 map of segment ids, `segments_info`, and the instances' annotations.
  """
  masks = [scene.stuff_map == index for index in range(len(scene.stuff_names))] + scene.visible
  labels = [(name, False) for name in scene.stuff_names]
  labels += [(thing.name, thing.is_crowd) for thing in scene.things]
  segment_map = np.zeros(scene.stuff_map.shape, np.int32)
  for index, mask in enumerate(masks):
    segment_map[mask] = segment_id(image_id, index)
  segments, instances = [], []
  for index, (name, is_crowd) in enumerate(labels):
    segment = {
      'id': segment_id(image_id, index),
      'category_id': CATEGORY_IDS[name],
      'iscrowd': int(is_crowd),
    }
    shown = _region(segment_map == segment['id'])
    if shown['area']:
      segments.append({**segment, 'area': shown['area'], 'bbox': shown['bbox']})
    thing = index - len(scene.stuff_names)
    if thing >= 0:
      mask = instance_mask(scene.things[thing], scene.things[thing + 1 :], rng, image_size)
      instances.append({**segment, **_region(mask), 'image_id': image_id})
  return segment_map, segments, instances


def _write_image(folder: pathlib.Path, split: str, index: int, image_size: int, seed: int):
  """Writes an image and its PNG; returns its entries of `images` and of both `annotations`."""
  rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(SPLITS.index(split), index)))
  image_id = index + 1
  stem = f'{image_id:012d}'
  scene = plan_scene(rng, image_size)
  image = render(scene, rng, image_size)
  segment_map, segments, instances = annotate(scene, rng, image_id, image_size)
  Image.fromarray(image).save(folder / split / f'{stem}.jpg', quality=95)
  png = Image.fromarray(panoptic_map.ids_to_rgb(segment_map))
  png.save(folder / 'annotations' / f'panoptic_{split}' / f'{stem}.png')
  record = {
    'license': 1,
    'file_name': f'{stem}.jpg',
    'coco_url': '',
    'height': image.shape[0],
    'width': image.shape[1],
    'date_captured': _DATE,
    'flickr_url': '',
    'id': image_id,
  }
  panoptic = {'segments_info': segments, 'file_name': f'{stem}.png', 'image_id': image_id}
  return record, panoptic, instances


def _write_split(folder: pathlib.Path, split: str, count: int, image_size: int, seed: int) -> None:
  (folder / split).mkdir()
  (folder / 'annotations' / f'panoptic_{split}').mkdir(parents=True)
  content = {
    'info': {
      'description': f'OccludedScenes, made with seed {seed}',
      'url': '',
      'version': '1.0',
      'year': int(_DATE[:4]),
      'contributor': 'oanet_tf',
      'date_created': _DATE,
    },
    'licenses': [
      {'url': 'http://www.apache.org/licenses/LICENSE-2.0', 'id': 1, 'name': 'Apache License 2.0'}
    ],
    'images': [],
  }
  panoptic, instances = [], []
  for index in tqdm.trange(count, desc=split, unit='image'):
    record, panoptic_entry, instance_entries = _write_image(folder, split, index, image_size, seed)
    content['images'].append(record)
    panoptic.append(panoptic_entry)
    instances += instance_entries
  things = [
    {key: c[key] for key in ('supercategory', 'id', 'name')} for c in CATEGORIES if c['isthing']
  ]
  for kind, annotations, categories in (
    ('panoptic', panoptic, CATEGORIES),
    ('instances', instances, things),
  ):
    path = folder / 'annotations' / f'{kind}_{split}.json'
    path.write_text(json.dumps({**content, 'annotations': annotations, 'categories': categories}))


def generate(
  output_dir: str | pathlib.Path,
  num_train: int = 1500,
  num_val: int = 200,
  image_size: int = 128,
  seed: int = 0,
) -> None:
  """Writes the dataset: a folder of JPEGs for each split, and `annotations`.

  The same arguments, with the same NumPy and Pillow, give the same bytes. Nothing is in
  `output_dir` until everything is.

  Args:
    output_dir: a folder that is empty or does not exist yet.
    num_train: images of the train split, in [0, 2^19 - 1].
    num_val: images of the val split, likewise.
    image_size: longer side of the images in pixels, in [64, 4096].
    seed: at least 0.

  Raises:
    InputError: if an argument is out of its range, or the folder holds something or cannot be made.
  """
  _check_arguments(num_train, num_val, image_size, seed)
  folder = pathlib.Path(output_dir).resolve()
  try:
    if folder.exists() and next(folder.iterdir(), None):
      raise InputError(f'{folder}: is not empty; remove it or choose another folder')
    partial = folder.with_name(f'.{folder.name}.partial-{os.getpid()}')
    partial.mkdir(parents=True)
  except OSError as error:
    raise InputError(f'{folder}: cannot be made ({error})') from None
  try:
    for split, count in zip(SPLITS, (num_train, num_val), strict=True):
      _write_split(partial, split, count, image_size, seed)
    partial.replace(folder)
  finally:
    shutil.rmtree(partial, ignore_errors=True)


def _check_arguments(num_train: int, num_val: int, image_size: int, seed: int) -> None:
  for name, value, low, high in (
    ('num_train', num_train, 0, MAX_IMAGES),
    ('num_val', num_val, 0, MAX_IMAGES),
    ('image_size', image_size, *IMAGE_SIZES),
    ('seed', seed, 0, 2**63 - 1),
  ):
    if not low <= value <= high:
      raise InputError(f'{name} {value} is not in [{low}, {high}]')


def main() -> None:
  parser = argparse.ArgumentParser(
    prog='python -m oanet_tf.data.synthetic',
    description='Writes OccludedScenes, a small panoptic dataset in the layout of COCO.',
    formatter_class=argparse.ArgumentDefaultsHelpFormatter,
  )
  parser.add_argument(
    '--output_dir',
    required=True,
    default=argparse.SUPPRESS,  # keeps "default: None" out of the help
    help='folder to make; must not hold anything',
  )
  parser.add_argument('--num_train', type=int, default=1500, help='images of the train split')
  parser.add_argument('--num_val', type=int, default=200, help='images of the val split')
  parser.add_argument('--image_size', type=int, default=128, help='longer side, in pixels')
  parser.add_argument('--seed', type=int, default=0, help='the same seed gives the same bytes')
  arguments = parser.parse_args()
  generate(**vars(arguments))
  print(f'wrote {arguments.output_dir}')


if __name__ == '__main__':
  errors.run(main)
