"""Plans scenes, that is which things lie where and which hides which, and renders them."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from oanet_tf.data.occluded_scenes import by_category, by_context, shapes
from oanet_tf.data.occluded_scenes.shapes import Pose
from oanet_tf.data.occluded_scenes.stage import Stage, Thing, add_crowd

# H, W image, in pixels.

_MIN_VISIBLE_AREA = 20  # Pixels in an image of 128.
# How often a group is of people, a lone table, traffic or a dog.
_GROUP_SHARES = (0.54, 0.14, 0.22, 0.1)


class Order(NamedTuple):
  """What decides which thing lies on top.

  Attributes:
    groups: add people, a lone table, traffic and a dog around x.
    add_ball: adds a ball beside one of the things.
    whole_outlines: whether annotators outline hidden parts too.
    min_visible_share: the part of a thing that must be visible, or it is left out.
  """

  groups: tuple[Callable[[Stage, float], None], ...]
  add_ball: Callable[[Stage], None]
  whole_outlines: bool
  min_visible_share: float


ORDERS = {
  'category': Order(
    (by_category.add_people, by_category.add_lone_table, by_category.add_traffic,
     by_category.add_dog),
    by_category.add_ball,
    whole_outlines=False,
    min_visible_share=0.0,
  ),
  'context': Order(
    (by_context.add_people, by_context.add_lone_table, by_context.add_traffic, by_context.add_dog),
    by_context.add_ball,
    whole_outlines=True,
    min_visible_share=0.5,
  ),
}  # fmt: skip


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


def _plan_things(stage: Stage, order: Order) -> list[Thing]:
  """Things back to front: none in 5 % of the scenes, with a crowd in 3 %."""
  rng = stage.rng
  if rng.random() < 0.05:
    return []
  if rng.random() < 0.03:
    add_crowd(stage)
  count = rng.choice([1, 2], p=[0.4, 0.6])
  for slot in rng.permutation(count):
    add_group = order.groups[rng.choice(4, p=_GROUP_SHARES)]
    if len(stage.things) < 4:
      add_group(stage, (slot + rng.uniform(0.25, 0.75)) / count * stage.width)
  if rng.random() < 0.4:
    order.add_ball(stage)
  return sorted(stage.things, key=lambda thing: thing.depth)


def _visible_masks(things: list[Thing]) -> list[np.ndarray]:
  """[H, W] bool for each thing, back to front: its pixels that no nearer thing covers."""
  visible = []
  covered = np.False_
  for thing in reversed(things):
    visible.append(thing.mask & ~covered)
    covered = covered | thing.mask
  return visible[::-1]


def _drop_hidden(
  things: list[Thing], min_area: float, min_share: float = 0.0
) -> tuple[list[Thing], list[np.ndarray]]:
  """Removes what hardly shows, and what belongs to it, one by one since each may uncover others."""

  def is_hidden(thing: Thing, visible: np.ndarray) -> bool:
    return visible.sum() < max(min_area, min_share * thing.mask.sum())

  while True:
    visible = _visible_masks(things)
    pairs = zip(things, visible, strict=True)
    hidden = next((thing for thing, mask in pairs if is_hidden(thing, mask)), None)
    if hidden is None:
      return things, visible
    dropped = [hidden]
    for thing in dropped:  # It grows on the way.
      dropped += [other for other in things if other.host is thing]
    things = [thing for thing in things if thing not in dropped]


def plan_scene(rng: np.random.Generator, image_size: int, order: str = 'category') -> Scene:
  """Plans a random scene; a quarter of the scenes are 4:3 or 3:4, the others square.

  Args:
    rng: for all that is random.
    image_size: longer side, in pixels.
    order: a key of `ORDERS`.
  """
  short = round(0.75 * image_size)
  sizes = [(image_size, image_size), (short, image_size), (image_size, short)]
  shape = sizes[rng.choice(3, p=[0.75, 0.125, 0.125])]
  stuff_names, stuff_map = shapes.background(rng, *shape)
  things = _plan_things(Stage(rng, shape), ORDERS[order])
  min_area = _MIN_VISIBLE_AREA * (image_size / shapes.REFERENCE_SIZE) ** 2
  return Scene(
    stuff_names, stuff_map, *_drop_hidden(things, min_area, ORDERS[order].min_visible_share)
  )


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
