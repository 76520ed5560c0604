"""The groups of things of scenes in which only the scene tells what lies on top.

For each pair of categories, both orders are about equally frequent. What decides can be seen:

- of tie and person, or cup and table, the small one lies on top if the other contains it, and
  behind if it only touches the other;
- of persons, tables, cars and lone dogs, what stands lower lies on top;
- of a dog and a car beside each other, what the left or right edge of the image cuts off;
- bag and person, or a ball and anything, may be in either order, and only the picture shows whose
  outline runs through.

The hidden part of a thing is at most about half of it, so that no order hides the thing behind.
"""

from collections.abc import Callable

import numpy as np

from oanet_tf.data.occluded_scenes.stage import Stage, Thing

# The part of a thing that the one in front of it hides, [least, most].
_HIDDEN = (0.2, 0.45)
# Random positions that are tried before a thing is left out.
_TRIES = 40
_STEP = 1e-6  # So small a step of depth that nothing else comes between.

Propose = Callable[[], Thing]
Accept = Callable[[Thing], bool]


def add_people(stage: Stage, x: float) -> None:
  """One or two persons, and perhaps a table before or behind the first."""
  rng = stage.rng
  person = _add_person(stage, x, rng.uniform(0.72, 0.9) * stage.height)
  if rng.random() < 0.45:
    second = _add_standing(stage, person, 'person', reach=0.28, steps=(0.04, 0.14))
    if second:
      _add_what_is_worn(stage, second)
  if rng.random() < 0.55:
    table = _add_standing(stage, person, 'table', reach=0.2, steps=(0.05, 0.2))
    if table:
      _add_cups(stage, table)


def add_lone_table(stage: Stage, x: float) -> None:
  table = _stand(stage, 'table', x, stage.rng.uniform(0.7, 0.95) * stage.height)
  stage.things.append(table)
  _add_cups(stage, table)


def add_traffic(stage: Stage, x: float) -> None:
  """A car with another one, or with a dog at the edge of the image."""
  rng = stage.rng
  foot = rng.uniform(0.6, 0.9) * stage.height
  if rng.random() < 0.4:
    car = _stand(stage, 'car', x, foot)
    stage.things.append(car)
    _add_standing(stage, car, 'car', reach=0.4, steps=(0.03, 0.12))
  else:
    _add_car_and_dog(stage, foot)


def add_dog(stage: Stage, x: float) -> None:
  stage.things.append(_stand(stage, 'dog', x, stage.rng.uniform(0.6, 0.95) * stage.height))


def add_ball(stage: Stage) -> None:
  """A ball before or behind the rim of something."""
  neighbor = stage.things[stage.rng.integers(len(stage.things))]
  _add_at_rim(stage, neighbor, 'ball')


def _stand(stage: Stage, name: str, x: float, foot: float) -> Thing:
  """A thing that is the nearer, the lower it stands."""
  return stage.standing(name, x, foot, depth=foot)


def _add_person(stage: Stage, x: float, foot: float) -> Thing:
  person = _stand(stage, 'person', x, foot)
  stage.things.append(person)
  _add_what_is_worn(stage, person)
  return person


def _add_what_is_worn(stage: Stage, person: Thing) -> None:
  if stage.rng.random() < 0.4:
    _add_contained_or_touching(stage, person, 'tie', half_width=0.06, rows=(-0.12, -0.02))
  if stage.rng.random() < 0.4:
    _add_at_rim(stage, person, 'bag')


def _add_cups(stage: Stage, table: Thing) -> None:
  for _ in range(stage.rng.choice(3, p=[0.3, 0.45, 0.25])):
    _add_contained_or_touching(stage, table, 'cup', half_width=0.3, rows=(-0.3, -0.15))


def _add_standing(
  stage: Stage, neighbor: Thing, name: str, reach: float, steps: tuple[float, float]
) -> Thing | None:
  """A thing that stands lower and before its neighbor, or higher and behind it.

  Args:
    stage: gets the thing.
    neighbor: stands already.
    name: of the thing.
    reach: how far to the left or right of the neighbor it may be.
    steps: [least, most] difference of their feet.
  """
  rng = stage.rng
  x, foot = _foot(stage, neighbor)
  side = rng.choice([-1, 1])

  def propose() -> Thing:
    step = side * rng.uniform(*steps)
    return _stand(stage, name, x + rng.uniform(-reach, reach), foot + step)

  def accept(thing: Thing) -> bool:
    back, front = sorted((thing, neighbor), key=lambda one: one.depth)
    return _foot(stage, thing)[1] < stage.height and _is_partly_hidden(back, front)

  return _add_first(stage, propose, accept)


def _add_car_and_dog(stage: Stage, foot: float) -> None:
  """The image's edge cuts one of the two off, which is in front."""
  rng = stage.rng
  names = rng.permutation(['car', 'dog'])
  edge = rng.choice([0.0, stage.width])
  inwards = 1.0 if edge == 0.0 else -1.0
  front = stage.standing(names[0], edge + inwards * rng.uniform(0.0, 0.08), foot, depth=foot)

  def propose() -> Thing:
    x = edge + inwards * rng.uniform(0.15, 0.6)
    # It stands no higher or lower, so that nothing else tells.
    return stage.standing(names[1], x, foot, depth=foot - _STEP)

  def accept(back: Thing) -> bool:
    return not _is_cut_off(back) and _is_partly_hidden(back, front)

  stage.things.append(front)
  if _is_cut_off(front):
    _add_first(stage, propose, accept)


def _add_contained_or_touching(
  stage: Stage, host: Thing, name: str, half_width: float, rows: tuple[float, float]
) -> None:
  """A small thing on top of its host, which contains it, or behind the host's outline.

  Args:
    stage: gets the thing.
    host: what it belongs to.
    name: of the thing.
    half_width, rows: where its centre is when it lies on top, in the host's frame: how far from the
      middle at most, and [top, bottom].
  """
  rng = stage.rng
  contained = rng.random() < 0.5

  def propose() -> Thing:
    if contained:
      x, y = rng.uniform(-half_width, half_width), rng.uniform(*rows)
    else:
      x, y = rng.uniform(-0.65, 0.65), rng.uniform(-0.65, 0.3)
    depth = host.depth + (_STEP if contained else -_STEP)
    # So about as many pixels are hidden in one case as in the other.
    scale = 0.9 if contained else 1.3
    return Thing(name, [stage.figure(name, *stage.place(host, x, y), scale)], depth, host)

  def accept(thing: Thing) -> bool:
    return _share(thing, host) == 1.0 if contained else _is_partly_hidden(thing, host)

  _add_first(stage, propose, accept)


def _add_at_rim(stage: Stage, host: Thing, name: str) -> None:
  """A thing at its host's outline, before or behind it; nothing but the picture tells which."""
  rng = stage.rng
  depth = host.depth + rng.choice([-_STEP, _STEP])

  def propose() -> Thing:
    center = stage.place(host, *rng.uniform(-0.6, 0.6, size=2))
    return Thing(name, [stage.figure(name, *center)], depth, host)

  _add_first(stage, propose, lambda thing: _is_partly_hidden(thing, host))


def _add_first(stage: Stage, propose: Propose, accept: Accept) -> Thing | None:
  """Adds the first thing that is accepted; none if too many are not."""
  for _ in range(_TRIES):
    thing = propose()
    if thing.mask.any() and accept(thing):
      stage.things.append(thing)
      return thing
  return None


def _foot(stage: Stage, thing: Thing) -> tuple[float, float]:
  """Where a thing stands: x and y on the stage."""
  pose = thing.figures[0].pose
  return pose.x / stage.image_size, (pose.y + pose.height / 2) / stage.image_size


def _share(thing: Thing, other: Thing) -> float:
  """The part of a thing that the other covers or that covers the other."""
  return np.count_nonzero(thing.mask & other.mask) / np.count_nonzero(thing.mask)


def _is_partly_hidden(thing: Thing, other: Thing) -> bool:
  least, most = _HIDDEN
  return least <= _share(thing, other) <= most


def _is_cut_off(thing: Thing) -> bool:
  """Whether the left or right edge of the image cuts a thing off."""
  return bool(thing.mask[:, [0, -1]].any())
