"""Plans scenes, that is which things lie where and which hides which, and renders them.

The occlusions are those that OANet's spatial ranking module is for (Liu et al., CVPR 2019, section
1): a tie lies on a person and a cup on a table; a table stands in front of a person; bag and
person, dog and car, ball and anything may be in either order.
"""

import dataclasses
import functools
from typing import NamedTuple

import numpy as np

from oanet_tf.data.occluded_scenes import shapes
from oanet_tf.data.occluded_scenes.shapes import Pose

# H, W image, in pixels. Lengths of a scene's plan are fractions of `image_size`, its longer side.

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
_MIN_VISIBLE_AREA = 20  # Pixels in an image of 128.
_ON_TOP = 1e-9  # So small a step of depth that nothing else comes between.


class Figure(NamedTuple):
  """One shape: its pose, and its [H, W] uint8 drawing, 0 outside the silhouette."""

  pose: Pose
  drawing: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Thing:
  """One thing of a scene.

  Attributes:
    name: its category.
    figures: one, or many for a crowd.
    depth: greater is nearer.
    host: the thing that it lies on, without which it is not drawn.
  """

  name: str
  figures: list[Figure]
  depth: float
  host: 'Thing | None' = None

  @functools.cached_property
  def mask(self) -> np.ndarray:
    """[H, W] bool: the whole silhouette within the image, hidden parts included."""
    return np.any([figure.drawing > 0 for figure in self.figures], axis=0)

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

  @property
  def image_size(self) -> int:
    """The longer side, in pixels."""
    return max(self.stuff_map.shape)


class _Stage:
  """Collects the things of a scene on [0, width] x [0, height], whose longer side is 1."""

  def __init__(self, rng: np.random.Generator, shape: tuple[int, int]):
    self.rng = rng
    self.shape = shape
    self.image_size = max(shape)
    self.height, self.width = np.array(shape) / self.image_size
    self.things: list[Thing] = []

  def figure(
    self, name: str, x: float, y: float, scale: float = 1.0, angle: float | None = None
  ) -> Figure:
    """Draws a shape of random size and form around (x, y)."""
    rng = self.rng
    height, aspect = (rng.uniform(*limits) for limits in _SIZES[name])
    box = np.array([x, y, height * aspect * scale, height * scale]) * self.image_size
    angle = rng.normal(0, 0.06) if angle is None else angle
    pose = Pose(*box.tolist(), angle, mirror=bool(rng.random() < 0.5))
    parts = shapes.SILHOUETTES[name](rng)
    return Figure(pose, shapes.draw(parts, pose, *self.shape))

  def add(
    self,
    name: str,
    x: float,
    y: float,
    depth: float,
    angle: float | None = None,
    host: Thing | None = None,
  ) -> Thing:
    thing = Thing(name, [self.figure(name, x, y, angle=angle)], depth, host)
    self.things.append(thing)
    return thing

  def add_on(self, host: Thing, name: str, x: float, y: float) -> None:
    """Adds a thing on top of its host; x, y in the host's frame."""
    center = self._place(host, x, y)
    self.add(name, *center, host.depth + _ON_TOP, angle=host.figures[0].pose.angle, host=host)

  def add_beside(self, neighbor: Thing, name: str, x: float, y: float) -> None:
    """Adds a thing just in front of or behind its neighbor; x, y in the neighbor's frame."""
    center = self._place(neighbor, x, y)
    self.add(name, *center, neighbor.depth + self.rng.choice([-0.02, 0.02]))

  def _place(self, thing: Thing, x: float, y: float) -> np.ndarray:
    """[2]: where a point of a thing's frame lies on the stage."""
    return thing.figures[0].pose.to_image(np.array([x, y])) / self.image_size


def _add_person(stage: _Stage, x: float, y: float) -> None:
  rng = stage.rng
  person = stage.add('person', x, y, depth=rng.uniform(0, 0.5))
  if rng.random() < 0.33:
    stage.add_on(person, 'tie', rng.uniform(-0.04, 0.04), rng.uniform(-0.09, -0.06))
  if rng.random() < 0.35:
    stage.add_beside(person, 'bag', rng.choice([-1, 1]) * rng.uniform(0.35, 0.6), 0.15)


def _add_table(stage: _Stage, x: float, y: float) -> None:
  """A table with up to two cups, in front of all persons."""
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
    offset = rng.choice([-1, 1]) * rng.uniform(0.2, 0.6)
    stage.add_beside(car, 'car', offset, rng.uniform(-0.6, 0.6))
  if rng.random() < 0.6:
    offset = rng.choice([-1, 1]) * rng.uniform(0.2, 0.6)
    stage.add_beside(car, 'dog', offset, rng.uniform(0, 0.45))


def _add_dog(stage: _Stage, x: float) -> None:
  stage.add('dog', x, stage.rng.uniform(0.45, 0.8) * stage.height, depth=stage.rng.uniform(0, 1))


def _add_ball(stage: _Stage) -> None:
  """A ball at the rim of something."""
  angle = stage.rng.uniform(0, 2 * np.pi)
  neighbor = stage.things[stage.rng.integers(len(stage.things))]
  stage.add_beside(neighbor, 'ball', 0.45 * np.cos(angle), 0.45 * np.sin(angle))


def _add_crowd(stage: _Stage) -> None:
  """Many small persons behind everything else."""
  rng = stage.rng
  center, reach = rng.uniform([[0.3, 0.3], [0.2, 0.05]], [[0.6, 0.45], [0.35, 0.1]])
  places = center + reach * rng.uniform(-1, 1, size=(rng.integers(25, 50), 2))
  places = places[places[:, 1].argsort()]
  figures = [stage.figure('person', x, y, scale=0.22) for x, y in places]
  stage.things.append(Thing('person', figures, depth=-1.0))


def _plan_things(stage: _Stage) -> list[Thing]:
  """Things back to front: none in 5 % of the scenes, with a crowd in 3 %."""
  rng = stage.rng
  if rng.random() < 0.05:
    return []
  if rng.random() < 0.03:
    _add_crowd(stage)
  count = rng.choice([1, 2], p=[0.4, 0.6])
  groups = (_add_people, _add_lone_table, _add_traffic, _add_dog)
  for slot in rng.permutation(count):
    add_group = groups[rng.choice(4, p=[0.54, 0.14, 0.22, 0.1])]
    if len(stage.things) < 4:
      add_group(stage, (slot + rng.uniform(0.25, 0.75)) / count * stage.width)
  if rng.random() < 0.4:
    _add_ball(stage)
  return sorted(stage.things, key=lambda thing: thing.depth)


def _visible_masks(things: list[Thing]) -> list[np.ndarray]:
  """[H, W] bool for each thing, back to front: its pixels that no nearer thing covers."""
  visible = []
  covered = np.False_
  for thing in reversed(things):
    visible.append(thing.mask & ~covered)
    covered = covered | thing.mask
  return visible[::-1]


def _drop_hidden(things: list[Thing], min_area: float) -> tuple[list[Thing], list[np.ndarray]]:
  """Removes what hardly shows, and what lies on it, one by one since each may uncover others."""
  while True:
    visible = _visible_masks(things)
    hidden = next((t for t, m in zip(things, visible, strict=True) if m.sum() < min_area), None)
    if hidden is None:
      return things, visible
    things = [thing for thing in things if thing is not hidden and thing.host is not hidden]


def plan_scene(rng: np.random.Generator, image_size: int) -> Scene:
  """Plans a random scene; a quarter of the scenes are 4:3 or 3:4, the others square."""
  short = round(0.75 * image_size)
  sizes = [(image_size, image_size), (short, image_size), (image_size, short)]
  shape = sizes[rng.choice(3, p=[0.75, 0.125, 0.125])]
  stuff_names, stuff_map = shapes.background(rng, *shape)
  things = _plan_things(_Stage(rng, shape))
  min_area = _MIN_VISIBLE_AREA * (image_size / shapes.REFERENCE_SIZE) ** 2
  return Scene(stuff_names, stuff_map, *_drop_hidden(things, min_area))


def render(scene: Scene, rng: np.random.Generator) -> np.ndarray:
  """[H, W, 3] uint8 image of a scene."""
  height, width = scene.stuff_map.shape
  frame_of = functools.partial(shapes.frame, height, width, scene.image_size)
  image = np.zeros((height, width, 3), np.float32)
  frame = frame_of(Pose(width / 2, height / 2, width, height, angle=0.0))
  for index, name in [*enumerate(scene.stuff_names), (-1, 'void')]:
    drawing = (scene.stuff_map == index) * np.uint8(shapes.FLAT)
    shapes.paint(image, name, drawing, frame, rng, outline=False)
  for thing in scene.things:
    for pose, drawing in thing.figures:
      shapes.paint(image, thing.name, drawing, frame_of(pose), rng)
  return shapes.light_and_noise(image, rng)
