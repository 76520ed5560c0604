"""The groups of things of scenes in which mostly the categories decide what lies on top.

The occlusions are those that OANet's spatial ranking module is for (Liu et al., CVPR 2019, section
1): a tie lies on a person and a cup on a table; a table stands in front of a person; bag and
person, dog and car, ball and anything may be in either order.
"""

import numpy as np

from oanet_tf.data.occluded_scenes.stage import Stage, Thing

_ON_TOP = 1e-9  # So small a step of depth that nothing else comes between.


def _add_person(stage: Stage, x: float, y: float) -> None:
  rng = stage.rng
  person = stage.add('person', x, y, depth=rng.uniform(0, 0.5))
  if rng.random() < 0.33:
    _add_on(stage, person, 'tie', rng.uniform(-0.04, 0.04), rng.uniform(-0.09, -0.06))
  if rng.random() < 0.35:
    _add_beside(stage, person, 'bag', rng.choice([-1, 1]) * rng.uniform(0.35, 0.6), 0.15)


def _add_table(stage: Stage, x: float, y: float) -> None:
  """A table with up to two cups, in front of all persons."""
  rng = stage.rng
  table = stage.add('table', x, y, depth=rng.uniform(0.52, 1))
  for side in rng.permutation([-1, 1])[: rng.choice(3, p=[0.35, 0.45, 0.2])]:
    _add_on(stage, table, 'cup', side * rng.uniform(0.12, 0.26), rng.uniform(-0.28, -0.22))


def add_people(stage: Stage, x: float) -> None:
  rng = stage.rng
  y = rng.uniform(0.42, 0.56) * stage.height
  _add_person(stage, x, y)
  if rng.random() < 0.3:
    _add_person(stage, x + rng.choice([-1, 1]) * rng.uniform(0.12, 0.26), y)
  if rng.random() < 0.42:
    _add_table(stage, x + rng.uniform(-0.15, 0.15), y + rng.uniform(0.22, 0.34))


def add_lone_table(stage: Stage, x: float) -> None:
  _add_table(stage, x, stage.rng.uniform(0.55, 0.8) * stage.height)


def add_traffic(stage: Stage, x: float) -> None:
  rng = stage.rng
  y = rng.uniform(0.45, 0.75) * stage.height
  car = stage.add('car', x, y, depth=rng.uniform(0, 1))
  if rng.random() < 0.25:
    offset = rng.choice([-1, 1]) * rng.uniform(0.2, 0.6)
    _add_beside(stage, car, 'car', offset, rng.uniform(-0.6, 0.6))
  if rng.random() < 0.6:
    offset = rng.choice([-1, 1]) * rng.uniform(0.2, 0.6)
    _add_beside(stage, car, 'dog', offset, rng.uniform(0, 0.45))


def add_dog(stage: Stage, x: float) -> None:
  stage.add('dog', x, stage.rng.uniform(0.45, 0.8) * stage.height, depth=stage.rng.uniform(0, 1))


def add_ball(stage: Stage) -> None:
  """A ball at the rim of something."""
  angle = stage.rng.uniform(0, 2 * np.pi)
  neighbor = stage.things[stage.rng.integers(len(stage.things))]
  _add_beside(stage, neighbor, 'ball', 0.45 * np.cos(angle), 0.45 * np.sin(angle))


def _add_on(stage: Stage, host: Thing, name: str, x: float, y: float) -> None:
  """Adds a thing on top of its host; x, y in the host's frame."""
  center = stage.place(host, x, y)
  stage.add(name, *center, host.depth + _ON_TOP, angle=host.figures[0].pose.angle, host=host)


def _add_beside(stage: Stage, neighbor: Thing, name: str, x: float, y: float) -> None:
  """Adds a thing just in front of or behind its neighbor; x, y in the neighbor's frame."""
  center = stage.place(neighbor, x, y)
  stage.add(name, *center, neighbor.depth + stage.rng.choice([-0.02, 0.02]))
