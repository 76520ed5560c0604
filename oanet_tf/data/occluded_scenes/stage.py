"""What a scene is made of: things, and the stage on which they are placed."""

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
    host: the thing that it belongs to, without which it is not drawn.
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


class Stage:
  """Collects the things of a scene on [0, width] x [0, height], whose longer side is 1.

  Attributes:
    rng: for all that is random.
    shape: height and width of the image, in pixels.
    height, width: of the stage.
    things: added so far.
  """

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
    return self._draw(name, x, y, height * scale, aspect, angle)

  def standing(self, name: str, x: float, foot: float, depth: float) -> Thing:
    """A thing of random size and form that stands at (x, foot); not added yet."""
    height, aspect = (self.rng.uniform(*limits) for limits in _SIZES[name])
    return Thing(name, [self._draw(name, x, foot - height / 2, height, aspect, None)], depth)

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

  def place(self, thing: Thing, x: float, y: float) -> np.ndarray:
    """[2]: where a point of a thing's frame lies on the stage."""
    return thing.figures[0].pose.to_image(np.array([x, y])) / self.image_size

  def _draw(
    self, name: str, x: float, y: float, height: float, aspect: float, angle: float | None
  ) -> Figure:
    rng = self.rng
    box = np.array([x, y, height * aspect, height]) * self.image_size
    angle = rng.normal(0, 0.06) if angle is None else angle
    pose = Pose(*box.tolist(), angle, mirror=bool(rng.random() < 0.5))
    parts = shapes.SILHOUETTES[name](rng)
    return Figure(pose, shapes.draw(parts, pose, *self.shape))


def add_crowd(stage: Stage) -> None:
  """Many small persons behind everything else."""
  rng = stage.rng
  center, reach = rng.uniform([[0.3, 0.3], [0.2, 0.05]], [[0.6, 0.45], [0.35, 0.1]])
  places = center + reach * rng.uniform(-1, 1, size=(rng.integers(25, 50), 2))
  places = places[places[:, 1].argsort()]
  figures = [stage.figure('person', x, y, scale=0.22) for x, y in places]
  stage.things.append(Thing('person', figures, depth=-1.0))
