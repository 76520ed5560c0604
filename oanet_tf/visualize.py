"""Panoptic segmentations as pictures."""

# H, W the picture's size, S segments.

import collections
import colorsys
from collections.abc import Mapping, Sequence

import numpy as np
import scipy.ndimage
from PIL import Image, ImageDraw, ImageFont

from oanet_tf.data.categories import Category, PanopticCategories
from oanet_tf.data.panoptic_map import Segments
from oanet_tf.errors import InputError

_OPACITY = 0.5
# Names cannot be read in pictures smaller than this; enlarging stops at the other.
_SMALLEST_SIDE = 384
_LARGEST_SIDE = 2048
_SURROUNDINGS = 15
_BRIGHT = 175
_WHITE = (255, 255, 255)
_PLATE = (0, 0, 0, 150)
# The fractional parts of powers of the plastic number: a sequence that fills a cube evenly.
_SPREADING_STEPS = (0.8191725, 0.6710436, 0.5497005)
_TITLE_BACKGROUND = (32, 32, 32)


def draw_panoptic(
  image: np.ndarray, segmentation: Segments, categories: PanopticCategories
) -> np.ndarray:
  """Lays a segmentation's colours, outlines and category names over its image.

  Stuff has its category's colour, each thing a variation of it, void none. A name stands where its
  segment is widest, and is left out where the segment is small or the name would cover another's.
  The same input always gives the same picture.

  Args:
    image: [H, W, 3] uint8.
    segmentation: of the same size.
    categories: with the colours and names.

  Returns:
    [F H, F W, 3] uint8. F is 1 if the shorter side is at least 384 pixels, and else the least
    factor that makes it so without making the longer one greater than 2048.

  Raises:
    InputError: if the sizes differ, the map and its list of segments disagree, or a category id is
      unknown.
  """
  if image.shape != (*segmentation.index.shape, 3):
    raise InputError(
      f'the image is {list(image.shape)} but the map is {list(segmentation.index.shape)}'
    )
  positions = segmentation.index
  segment_categories = [_category(categories, i) for i in segmentation.category_ids.tolist()]
  factor = _enlargement(positions.shape)
  size = (factor * positions.shape[1], factor * positions.shape[0])
  enlarged = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
  positions = positions.repeat(factor, axis=0).repeat(factor, axis=1)

  painted = _blend(enlarged, positions, _segment_colors(segment_categories))
  painted = _draw_outlines(painted, positions)
  return _draw_names(painted, positions, [category.name for category in segment_categories])


def draw_ranking_map(ranking_map: np.ndarray, categories: PanopticCategories) -> np.ndarray:
  """Shows which thing category lies on top, and how surely (Figure 4).

  Args:
    ranking_map: [h, w, T] probabilities.
    categories: with the colours.

  Returns:
    [h, w, 3] uint8: the colour of the likeliest category, the paler the less likely.
  """
  things = range(1, categories.num_things + 1)
  colors = np.array([categories.category(label).color for label in things], np.float64)
  likeliest = ranking_map.argmax(axis=-1)
  probability = ranking_map.max(axis=-1)[..., None].astype(np.float64)
  return (255.0 + probability * (colors[likeliest] - 255.0)).round().astype(np.uint8)


def side_by_side(panels: Mapping[str, np.ndarray]) -> np.ndarray:
  """Sets titled pictures in a row, all as high as the highest.

  Args:
    panels: {title: [H, W, 3] uint8}, at least one, from left to right.

  Returns:
    [H', W', 3] uint8.
  """
  height = max(image.shape[0] for image in panels.values())
  font = _font(height)
  columns = [_titled(title, image, height, font) for title, image in panels.items()]
  gap = max(2, height // 100)
  row = Image.new('RGB', (sum(c.width + gap for c in columns) - gap, columns[0].height), _WHITE)
  left = 0
  for column in columns:
    row.paste(column, (left, 0))
    left += column.width + gap
  return np.asarray(row)


def _category(categories: PanopticCategories, category_id: int) -> Category:
  if category_id not in categories:
    raise InputError(f'the segmentation has the unknown category id {category_id}')
  return categories.category(categories.label(category_id))


def _enlargement(shape: tuple[int, int]) -> int:
  wanted = -(-_SMALLEST_SIDE // min(shape))
  return max(1, min(wanted, _LARGEST_SIDE // max(shape)))


def _segment_colors(segment_categories: Sequence[Category]) -> np.ndarray:
  """[S, 3] uint8 RGB: things of one category get variations of its colour, in their order."""
  colors = []
  earlier = collections.Counter()
  for category in segment_categories:
    variation = earlier[category.id] if category.is_thing else 0
    colors.append(_vary(category.color, variation))
    earlier[category.id] += 1
  return np.array(colors, np.uint8).reshape(-1, 3)


def _vary(color: tuple[int, int, int], variation: int) -> tuple[int, ...]:
  """The colour itself for 0, then ever new hues near its own, saturations and brightnesses."""
  if variation == 0:
    return color
  hue, _, _ = colorsys.rgb_to_hsv(*(value / 255 for value in color))
  # Multiples of irrational numbers, modulo 1, spread evenly however many are taken.
  spread = [variation * step % 1 for step in _SPREADING_STEPS]
  hsv = (hue + 0.16 * (spread[0] - 0.5)) % 1, 0.4 + 0.6 * spread[1], 0.5 + 0.5 * spread[2]
  return tuple(round(255 * value) for value in colorsys.hsv_to_rgb(*hsv))


def _blend(image: np.ndarray, positions: np.ndarray, colors: np.ndarray) -> np.ndarray:
  overlay = np.concatenate([np.zeros((1, 3), np.uint8), colors])[positions]
  blended = np.rint((1 - _OPACITY) * image + _OPACITY * overlay).astype(np.uint8)
  return np.where((positions > 0)[..., np.newaxis], blended, image)


def _draw_outlines(painted: np.ndarray, positions: np.ndarray) -> np.ndarray:
  """White lines of one pixel, dark ones where the surroundings are bright; none on void."""
  brightness = scipy.ndimage.uniform_filter(painted.mean(axis=-1), _SURROUNDINGS)
  lines = np.where(brightness > _BRIGHT, 0, 255).astype(np.uint8)
  return np.where(_outlines(positions)[..., np.newaxis], lines[..., np.newaxis], painted)


def _outlines(positions: np.ndarray) -> np.ndarray:
  """[H, W] bool: one pixel between segments, one within a segment beside void."""
  padded = np.pad(positions, 1, mode='edge')
  center = padded[1:-1, 1:-1]
  right, below = padded[1:-1, 2:], padded[2:, 1:-1]
  left, above = padded[1:-1, :-2], padded[:-2, 1:-1]
  differs = (center != right) | (center != below) | (left == 0) | (above == 0)
  return (center > 0) & differs


def _draw_names(painted: np.ndarray, positions: np.ndarray, names: Sequence[str]) -> np.ndarray:
  """Writes the names of the large segments, the largest first, where there is still room."""
  picture = Image.fromarray(painted)
  draw = ImageDraw.Draw(picture, 'RGBA')
  font = _font(min(picture.size))
  line_height = sum(font.getmetrics())
  placed = []
  for position, center, half_width in _widest_points(positions):
    plate = _plate(names[position - 1], center, font, picture.size)
    if 2 * half_width < line_height or plate is None or any(_overlap(plate, p) for p in placed):
      continue
    draw.rounded_rectangle(plate, radius=line_height // 4, fill=_PLATE)
    middle = (plate[0] + plate[2]) / 2, (plate[1] + plate[3]) / 2
    draw.text(middle, names[position - 1], fill=_WHITE, font=font, anchor='mm')
    placed.append(plate)
  return np.asarray(picture)


def _widest_points(positions: np.ndarray) -> list[tuple[int, tuple[int, int], float]]:
  """Each segment's position, its pixel (x, y) farthest from a border, and how far.

  The largest segment is first.
  """
  padded = np.pad(positions, 1, constant_values=-1)
  center = padded[1:-1, 1:-1]
  inside = (center == padded[1:-1, 2:]) & (center == padded[1:-1, :-2])
  inside &= (center == padded[2:, 1:-1]) & (center == padded[:-2, 1:-1])
  distances = scipy.ndimage.distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1]
  areas = np.bincount(positions.ravel())
  largest_first = [p for p in np.argsort(-areas, kind='stable').tolist() if p and areas[p]]
  points = scipy.ndimage.maximum_position(distances, positions, largest_first)
  return [
    (position, (int(x), int(y)), float(distances[y, x]))
    for position, (y, x) in zip(largest_first, points, strict=True)
  ]


def _plate(
  name: str, center: tuple[int, int], font: ImageFont.FreeTypeFont, size: tuple[int, int]
) -> tuple[int, int, int, int] | None:
  """Where to write a name: (left, top, right, bottom), moved into the picture if it can be."""
  height = sum(font.getmetrics())
  width = int(font.getlength(name)) + height // 2
  if width > size[0] or height > size[1]:
    return None
  left = min(max(center[0] - width // 2, 0), size[0] - width)
  top = min(max(center[1] - height // 2, 0), size[1] - height)
  return left, top, left + width - 1, top + height - 1


def _overlap(one: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> bool:
  return one[0] <= other[2] and other[0] <= one[2] and one[1] <= other[3] and other[1] <= one[3]


def _font(picture_side: int) -> ImageFont.FreeTypeFont:
  return ImageFont.load_default(size=max(12, round(picture_side / 36)))


def _titled(
  title: str, image: np.ndarray, height: int, font: ImageFont.FreeTypeFont
) -> Image.Image:
  """The picture at a height of `height`, below a strip with its title."""
  width = max(1, round(image.shape[1] * height / image.shape[0]))
  picture = Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC)
  strip_height = 2 * sum(font.getmetrics())
  strip_width = max(width, int(font.getlength(title)) + strip_height)
  column = Image.new('RGB', (strip_width, strip_height + height), _TITLE_BACKGROUND)
  column.paste(picture, ((strip_width - width) // 2, strip_height))
  draw = ImageDraw.Draw(column)
  draw.text((strip_width / 2, strip_height / 2), title, fill=_WHITE, font=font, anchor='mm')
  return column
