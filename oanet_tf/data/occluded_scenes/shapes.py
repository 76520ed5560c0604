"""Silhouettes, textures and colours of the categories.

A silhouette is a list of polygons in the shape's own frame, x to the right and y down, both in
[-0.5, 0.5]; a `Pose` maps it into the image. A texture is a field in about [-1, 1] over a `Frame`,
whose unit is a pixel of an image of 128 pixels, so that scenes look alike at every size. Categories
share colours, so that only shape and texture tell them apart.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.ndimage
from PIL import Image, ImageDraw

# H, W image, P points of a polygon.

REFERENCE_SIZE = 128
FLAT = 128  # What `draw` fills parts of shade 0 with.
_PART_RANGE = 100
_OUTLINE_BRIGHTNESS = 0.4
_SHADE_STRENGTH = 0.8
_MIN_COLOR_DISTANCE = 70.0

PALETTE = {
  'red': (186, 60, 56),
  'orange': (214, 134, 62),
  'yellow': (212, 190, 84),
  'green': (92, 150, 72),
  'teal': (72, 150, 150),
  'blue': (82, 126, 196),
  'purple': (138, 92, 160),
  'brown': (136, 100, 70),
  'gray': (132, 132, 134),
  'white': (214, 214, 208),
  'dark': (70, 72, 84),
}
COLOR_JITTER = 24

CATEGORY_COLORS = {
  'person': ('red', 'blue', 'green', 'purple', 'orange', 'gray', 'teal'),
  'car': ('red', 'blue', 'white', 'gray', 'teal', 'yellow', 'dark'),
  'dog': ('brown', 'orange', 'white', 'dark', 'gray', 'yellow'),
  'bag': ('red', 'purple', 'brown', 'teal', 'dark', 'green'),
  'tie': ('red', 'blue', 'purple', 'yellow', 'dark', 'white'),
  'ball': ('red', 'orange', 'yellow', 'white', 'blue', 'green'),
  'cup': ('white', 'blue', 'red', 'teal', 'yellow', 'purple'),
  'table': ('brown', 'white', 'orange', 'gray', 'red', 'green'),
  'road': ('gray', 'dark', 'brown'),
  'water': ('blue', 'teal', 'green', 'gray'),
  'sky': ('blue', 'white', 'gray', 'orange', 'purple'),
  'grass': ('green', 'yellow', 'brown', 'teal'),
  'building': ('gray', 'brown', 'red', 'white', 'orange'),
  'void': tuple(PALETTE),
}


class Part(NamedTuple):
  """A polygon of a silhouette: [P, 2] `points` (x, y), and a `shade` in [-1, 1], -1 darkest."""

  points: np.ndarray
  shade: float


class Pose(NamedTuple):
  """Where a shape lies in the image, in pixels; `angle` in radians, clockwise on the screen."""

  x: float
  y: float
  width: float
  height: float
  angle: float
  mirror: bool = False

  def to_image(self, points: np.ndarray) -> np.ndarray:
    """[P, 2] (x, y) in the shape's frame -> [P, 2] (x, y) in pixels."""
    scaled = points * [-self.width if self.mirror else self.width, self.height]
    cos, sin = math.cos(self.angle), math.sin(self.angle)
    return scaled @ np.array([[cos, sin], [-sin, cos]]) + [self.x, self.y]


class Frame(NamedTuple):
  """Coordinates of a texture: `u` right, `v` down, [H, W] float32; `pixel` is a pixel's width."""

  u: np.ndarray
  v: np.ndarray
  pixel: float


def frame(height: int, width: int, image_size: int, pose: Pose) -> Frame:
  """Coordinates around a pose's centre, rotated with it."""
  pixel = REFERENCE_SIZE / image_size
  x = (np.arange(width, dtype=np.float32) - pose.x)[None, :] * pixel
  y = (np.arange(height, dtype=np.float32) - pose.y)[:, None] * pixel
  cos, sin = math.cos(pose.angle), math.sin(pose.angle)
  return Frame(cos * x + sin * y, cos * y - sin * x, pixel)


def draw(parts: list[Part], pose: Pose, height: int, width: int) -> np.ndarray:
  """[H, W] uint8 drawing of a silhouette: 0 outside, else the shade of the front-most part."""
  canvas = Image.new('L', (width, height))
  pen = ImageDraw.Draw(canvas)
  for points, shade in parts:
    corners = pose.to_image(points).ravel().tolist()
    pen.polygon(corners, fill=round(FLAT + _PART_RANGE * shade))
  return np.array(canvas)


def erode(mask: np.ndarray, radius: int) -> np.ndarray:
  """[H, W] bool: the mask without a rim of `radius` pixels, but for the border of the image."""
  # SciPy takes 0 iterations for "until nothing changes".
  return scipy.ndimage.binary_erosion(mask, None, radius, border_value=1) if radius else mask


# Silhouettes


def _polygon(*points: tuple[float, float], shade: float = 0.0) -> Part:
  return Part(np.array(points), shade)


def _ellipse(x: float, y: float, radius_x: float, radius_y: float, shade: float = 0.0) -> Part:
  angles = np.linspace(0, 2 * np.pi, 28, endpoint=False)
  points = np.stack([x + radius_x * np.cos(angles), y + radius_y * np.sin(angles)], axis=-1)
  return Part(points, shade)


def _arc(x: float, y: float, outer: float, inner: float, start: float, stop: float) -> Part:
  """A band between two circles and two angles in radians, clockwise."""
  angles = np.linspace(start, stop, 14)
  directions = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
  points = np.concatenate([outer * directions, inner * directions[::-1]]) + [x, y]
  return Part(points, -0.25)


def _person(rng: np.random.Generator) -> list[Part]:
  hand, foot, waist = rng.uniform([0.36, 0.16, 0.22], [0.46, 0.34, 0.3])
  leg = np.array([(waist, 0.08), (foot + 0.06, 0.5), (foot - 0.14, 0.5), (0.02, 0.1)])
  arm = np.array([(0.28, -0.25), (0.38, -0.2), (hand + 0.04, 0.1), (hand - 0.1, 0.12)])
  sides = ([1, 1], [-1, 1])
  legs = [Part(leg * side, -0.45) for side in sides]
  arms = [Part(arm * side, 0.1) for side in sides]
  torso = _polygon((-0.36, -0.25), (0.36, -0.25), (waist, 0.13), (-waist, 0.13))
  return [*legs, *arms, torso, _ellipse(0, -0.37, 0.22, 0.13, shade=0.45)]


def _table(rng: np.random.Generator) -> list[Part]:
  """A top seen from above, y in [-0.5, 0], on legs or with a long cloth."""
  top = _polygon((-0.4, -0.5), (0.4, -0.5), (0.5, 0.0), (-0.5, 0.0), shade=0.15)
  if rng.random() < 0.5:
    return [_polygon((-0.5, 0), (0.5, 0), (0.45, 0.5), (-0.45, 0.5), shade=-0.45), top]
  edge = _polygon((-0.5, 0), (0.5, 0), (0.5, 0.1), (-0.5, 0.1), shade=-0.35)
  legs = [(x, end) for x in (-1, 1) for end in (0.38, 0.5)]
  return [
    *(_leg(side * (0.2 + 0.5 * end), end, width=0.05, shade=-0.5) for side, end in legs),
    edge,
    top,
  ]


def _leg(x: float, end: float, width: float, shade: float) -> Part:
  return _polygon((x - width, 0), (x + width, 0), (x + width, end), (x - width, end), shade=shade)


def _car(rng: np.random.Generator) -> list[Part]:
  rear, front = rng.uniform([-0.44, 0.12], [-0.24, 0.24])
  hood = rng.uniform(-0.1, 0.0)
  roof = [(rear + 0.06, -0.5), (front - 0.06, -0.5)]
  glass = [(rear + 0.08, -0.42), (front - 0.07, -0.42), (front + 0.05, -0.1), (rear + 0.02, -0.1)]
  body = [(-0.48, hood), (0.44, hood), (0.5, 0.12), (0.5, 0.34), (-0.5, 0.34)]
  parts = [
    _polygon((rear - 0.04, 0.0), *roof, (front + 0.12, 0.0)),
    _polygon(*glass, shade=-0.6),
    _polygon(*body),
  ]
  for x in (-0.29, 0.29):
    parts += [_ellipse(x, 0.31, 0.1, 0.19, shade=-0.9), _ellipse(x, 0.31, 0.045, 0.085, shade=0.2)]
  return parts


def _dog(rng: np.random.Generator) -> list[Part]:
  tail_x, tail_y, head_y = rng.uniform([-0.5, -0.45, -0.36], [-0.42, -0.1, -0.22])
  tail = _polygon((-0.22, -0.1), (tail_x, tail_y - 0.05), (tail_x, tail_y + 0.05), (-0.24, 0.04))
  neck = _polygon((0.12, -0.12), (0.28, head_y - 0.04), (0.42, head_y + 0.06), (0.26, 0.08))
  ear = _polygon((0.2, head_y - 0.14), (0.32, head_y - 0.12), (0.26, head_y + 0.1), shade=-0.5)
  legs = [_leg(x, 0.5, width=0.045, shade=-0.2) for x in (-0.24, -0.12, 0.12, 0.24)]
  body = [_ellipse(0, 0.0, 0.32, 0.19), neck]
  head = [_ellipse(0.33, head_y, 0.13, 0.14), _ellipse(0.43, head_y + 0.04, 0.09, 0.07, shade=-0.2)]
  return [tail, *legs, *body, *head, ear]


def _bag(rng: np.random.Generator) -> list[Part]:
  top, flare = rng.uniform([-0.2, 0.36], [-0.05, 0.46])
  box = [(-flare, top + 0.06), (-flare + 0.06, top), (flare - 0.06, top), (flare, top + 0.06)]
  base = [(0.5, 0.42), (0.42, 0.5), (-0.42, 0.5), (-0.5, 0.42)]
  handle = _arc(0, top + 0.02, 0.32, 0.2, np.pi, 2 * np.pi)
  return [handle, _polygon(*box, *base)]


def _tie(rng: np.random.Generator) -> list[Part]:
  blade = rng.uniform(0.2, 0.32)
  half = [(0.32, -0.5), (0.22, -0.34), (0.5, blade), (0, 0.5)]
  knot = _polygon((-0.32, -0.5), (0.32, -0.5), (0.22, -0.32), (-0.22, -0.32), shade=-0.3)
  return [_polygon(*half, *((-x, y) for x, y in half[-2::-1])), knot]


def _ball(rng: np.random.Generator) -> list[Part]:
  del rng  # Every ball is a disc.
  return [_ellipse(0, 0, 0.5, 0.5)]


def _cup(rng: np.random.Generator) -> list[Part]:
  foot = rng.uniform(0.04, 0.12)
  body = _polygon((-0.5, -0.44), (0.22, -0.44), (0.22 - foot, 0.5), (-0.5 + foot, 0.5))
  handle = _arc(0.17, 0.0, 0.33, 0.16, -0.5 * np.pi, 0.5 * np.pi)
  return [handle, body, _ellipse(-0.14, -0.42, 0.36, 0.09, shade=-0.6)]


SILHOUETTES: dict[str, Callable[[np.random.Generator], list[Part]]] = {
  'person': _person,
  'car': _car,
  'dog': _dog,
  'bag': _bag,
  'tie': _tie,
  'ball': _ball,
  'cup': _cup,
  'table': _table,
}


# The background


def background(
  rng: np.random.Generator, height: int, width: int
) -> tuple[tuple[str, ...], np.ndarray]:
  """Two or three regions of stuff, one below the other, each over much of the image.

  Returns:
    The names of the regions, and an [H, W] int32 map of indices into them, -1 in an unlabelled
    band or blob.
  """
  ground = rng.permutation(['grass', 'road', 'water']).tolist()
  layouts = [ground[:1], ground[:2], ['building', ground[0]]]
  layout = layouts[rng.choice(3, p=[0.4, 0.3, 0.3])]
  top = 'building' if layout[0] != 'building' and rng.random() < 0.5 else 'sky'
  levels = rng.uniform([0.24, 0.56], [0.36, 0.7]) if layout[1:] else [rng.uniform(0.35, 0.6)]
  x = np.linspace(0, 1, width)
  y = np.linspace(0, 1, height)[:, None]
  borders = [
    level + (_skyline(rng, x) if name == 'building' else _wave(rng, x))
    for name, level in zip(layout, levels, strict=True)
  ]
  regions = np.sum([y > border for border in borders], axis=0, dtype=np.int32)
  if rng.random() < 0.4:
    regions[np.abs(y - borders[-1]) < rng.uniform(0.01, 0.02)] = -1
  if rng.random() < 0.4:
    center_x, center_y, radius_x, radius_y = rng.uniform([0, 0, 0.05, 0.05], [1, 1, 0.12, 0.1])
    regions[((x - center_x) / radius_x) ** 2 + ((y - center_y) / radius_y) ** 2 < 1] = -1
  return (top, *layout), regions


def _skyline(rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
  roofs = rng.uniform(-0.1, 0.06, size=rng.integers(3, 7))
  return roofs[np.minimum(x * len(roofs), len(roofs) - 1).astype(int)]


def _wave(rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
  height, cycles, phase, slope = rng.uniform([0.01, 0.5, 0, -0.08], [0.05, 2.5, 6.3, 0.08])
  return height * np.sin(2 * np.pi * cycles * x + phase) + slope * (x - 0.5)


# Textures


def _stripes(rng: np.random.Generator, along: np.ndarray, low: float, high: float) -> np.ndarray:
  """Soft-edged stripes across a coordinate, with a period drawn from [low, high]."""
  period, phase = rng.uniform([low, 0], [high, 2 * np.pi])
  return np.clip(2.5 * np.sin(along * np.float32(2 * np.pi / period) + np.float32(phase)), -1, 1)


def _noise(rng: np.random.Generator, frame: Frame, cell_u: float, cell_v: float) -> np.ndarray:
  """Smooth noise with blobs of about the size of a cell."""
  height, width = frame.u.shape
  rows = math.ceil(height * frame.pixel / cell_v) + 1
  columns = math.ceil(width * frame.pixel / cell_u) + 1
  grid = Image.fromarray(rng.standard_normal((rows, columns), np.float32))
  return np.asarray(grid.resize((width, height), Image.Resampling.BICUBIC))


def _sectors(rng: np.random.Generator, frame: Frame) -> np.ndarray:
  count, phase = rng.integers(2, 4), rng.uniform(0, 2 * np.pi)
  return np.clip(3 * np.sin(count * np.arctan2(frame.v, frame.u) + phase), -1, 1)


def _dots(rng: np.random.Generator, frame: Frame) -> np.ndarray:
  rows, columns = _stripes(rng, frame.u, 5, 7), _stripes(rng, frame.v, 5, 7)
  return np.where(np.minimum(rows, columns) > 0, np.float32(1), np.float32(-0.6))


def _windows(rng: np.random.Generator, frame: Frame) -> np.ndarray:
  columns, rows = _stripes(rng, frame.u, 9, 14), _stripes(rng, frame.v, 11, 16)
  return np.where(np.minimum(rows, columns) > -0.3, np.float32(-1), np.float32(0.4))


def _waves(rng: np.random.Generator, frame: Frame) -> np.ndarray:
  period, phase = rng.uniform([24, 0], [40, 2 * np.pi])
  swell = 1.6 * np.sin(frame.u * np.float32(2 * np.pi / period) + np.float32(phase))
  return np.sin(swell + frame.v * np.float32(2 * np.pi / rng.uniform(6, 10)))


class Texture(NamedTuple):
  """`field(rng, frame)` is [H, W] float in about [-1, 1]; `contrast` is its range in levels."""

  field: Callable[[np.random.Generator, Frame], np.ndarray]
  contrast: tuple[float, float]


TEXTURES = {
  'person': Texture(lambda rng, f: _stripes(rng, f.v, 6, 10), (26, 42)),
  'car': Texture(lambda rng, f: np.sin(f.v / rng.uniform(5, 9)), (24, 40)),
  'dog': Texture(lambda rng, f: np.clip(3 * _noise(rng, f, 7, 6), -1, 1), (26, 42)),
  'bag': Texture(_dots, (30, 46)),
  'tie': Texture(lambda rng, f: _stripes(rng, f.u + f.v, 5, 7), (40, 56)),
  'ball': Texture(_sectors, (34, 50)),
  'cup': Texture(lambda rng, f: _stripes(rng, f.u, 4, 5.5), (34, 50)),
  'table': Texture(
    lambda rng, f: (_stripes(rng, f.u, 11, 16) + _stripes(rng, f.v, 7, 10)) / 2, (24, 36)
  ),
  'road': Texture(lambda rng, f: _noise(rng, f, 1.5, 1.5), (10, 16)),
  'water': Texture(_waves, (14, 24)),
  'sky': Texture(lambda rng, f: _noise(rng, f, 36, 18), (10, 18)),
  'grass': Texture(lambda rng, f: _noise(rng, f, 1.5, 5), (18, 28)),
  'building': Texture(_windows, (24, 40)),
  'void': Texture(lambda rng, f: _noise(rng, f, 4, 4), (10, 30)),
}


def _contrasting_color(rng: np.random.Generator, name: str, under: np.ndarray) -> np.ndarray:
  """The first of eight random colours of the category that is far from the mean colour under it."""
  for _ in range(8):
    base = PALETTE[rng.choice(CATEGORY_COLORS[name])]
    color = np.array(base) + rng.uniform(-COLOR_JITTER, COLOR_JITTER, size=3)
    if np.linalg.norm(color - under) >= _MIN_COLOR_DISTANCE:
      break
  return color


def paint(
  image: np.ndarray,
  name: str,
  drawing: np.ndarray,
  frame: Frame,
  rng: np.random.Generator,
  outline: bool = True,
) -> None:
  """Paints a category's colour and texture over an image, in place.

  Args:
    image: [H, W, 3] float32 in about [0, 255].
    name: the category, a key of `TEXTURES`.
    drawing: [H, W] uint8, of `draw`.
    frame: the texture's coordinates.
    rng: for colour, contrast, period and phase.
    outline: whether to darken the contour.
  """
  mask = drawing > 0
  if not mask.any():
    return
  texture = TEXTURES[name]
  color = _contrasting_color(rng, name, image[mask].mean(axis=0))
  contrast = rng.uniform(*texture.contrast) * rng.choice([-1, 1])
  levels = color.astype(np.float32) + np.float32(contrast) * texture.field(rng, frame)[mask, None]
  shade = (drawing[mask].astype(np.float32) - FLAT) / _PART_RANGE
  image[mask] = levels * (1 + _SHADE_STRENGTH * shade)[:, None]
  if outline:
    image[mask & ~erode(mask, max(1, round(1 / frame.pixel)))] *= _OUTLINE_BRIGHTNESS


def light_and_noise(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """[H, W, 3] float32 -> uint8, with light that fades across the image, and pixel noise."""
  height, width = image.shape[:2]
  slope_x, slope_y = rng.uniform(-0.25, 0.25, size=2).astype(np.float32)
  x = np.linspace(-1, 1, width, dtype=np.float32)
  y = np.linspace(-1, 1, height, dtype=np.float32)
  light = 1 + slope_x * x[None, :, None] + slope_y * y[:, None, None]
  noise = rng.standard_normal(image.shape, np.float32) * np.float32(rng.uniform(6, 10))
  return np.clip(image * light + noise, 0, 255).astype(np.uint8)
