"""Draws panoptic segmentations."""

# H, W image, S segments.

import collections
import colorsys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from oanet_tf.data.categories import Category, PanopticCategories
from oanet_tf.data.panoptic_map import Segments
from oanet_tf.errors import InputError
from oanet_tf.printing import shown

if TYPE_CHECKING:
  from oanet_tf.evaluation.ranking_map import RankingMap

OPACITY = 0.5
# Smaller images are enlarged until names can be read, up to the largest side.
_SMALLEST_SIDE = 384
_LARGEST_SIDE = 2048
# Pixels in each direction.
_SURROUNDINGS = 7
_BRIGHT = 175
_WHITE = (255, 255, 255)
_PLATE = (0, 0, 0, 150)
# The fractional parts of powers of the plastic number: a sequence that fills a cube evenly.
_SPREADING_STEPS = (0.8191725, 0.6710436, 0.5497005)
_TITLE_BACKGROUND = (32, 32, 32)


def draw_panoptic(
  image: np.ndarray,
  segmentation: Segments,
  categories: PanopticCategories,
  *,
  opacity: float = OPACITY,
  label_size: int | None = None,
  by_category: bool = False,
) -> np.ndarray:
  """Draws a segmentation's colours, outlines and category names over its image.

  Stuff has its category's colour, each thing a variation of it, and void none. A name is written
  where its segment is widest; it is left out if the segment is small or the name would cover
  another. The result is deterministic.

  Args:
    image: [H, W, 3] uint8.
    segmentation: of the same size.
    categories: with the colours and names.
    opacity: of the colours, from 0 to 1.
    label_size: height of the names in pixels of the result; 0 for no names, None for one that suits
      the image.
    by_category: whether things have their category's colour too. The variations follow the order of
      the things, which changes from frame to frame of a video, so that their colours would flicker.

  Returns:
    [F H, F W, 3] uint8. F is 1 if the shorter side has at least 384 pixels; otherwise the smallest
    integer that brings it there, as long as the longer side has at most 2048.

  Raises:
    InputError: if the sizes differ, the map and its list of segments disagree, or a category id
      is unknown.
  """
  if image.shape != (*segmentation.index.shape, 3):
    raise InputError(
      f'the image is {list(image.shape)} but the map is {list(segmentation.index.shape)}'
    )
  positions = segmentation.index
  labels = segmentation.labels(categories)[1:].tolist()
  segment_categories = [categories.category(label) for label in labels]
  factor = _enlargement(positions.shape)
  size = (factor * positions.shape[1], factor * positions.shape[0])
  enlarged = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
  positions = positions.repeat(factor, axis=0).repeat(factor, axis=1)

  colors = _segment_colors(segment_categories, by_category)
  painted = _blend(enlarged, positions, colors, opacity)
  painted = _draw_outlines(painted, positions)
  if label_size == 0:
    return painted
  font = _font(_readable_size(min(size)) if label_size is None else label_size)
  return _draw_names(painted, positions, [category.name for category in segment_categories], font)


def draw_ranking_map(ranking_map: 'RankingMap', categories: PanopticCategories) -> np.ndarray:
  """Draws which thing category the ranking module puts on top (Figure 4).

  Args:
    ranking_map: [h, w].
    categories: with the colours.

  Returns:
    [h, w, 3] uint8: the colour of the likeliest category, paler where it is less likely.
  """
  things = range(1, categories.num_things + 1)
  colors = np.array([categories.category(label).color for label in things], np.float64)
  probability = ranking_map.probability[..., None].astype(np.float64)
  return (255.0 + probability * (colors[ranking_map.labels - 1] - 255.0)).round().astype(np.uint8)


def side_by_side(panels: Mapping[str, np.ndarray]) -> np.ndarray:
  """Sets titled images in a row, scaled to the height of the highest.

  Args:
    panels: {title: [H, W, 3] uint8}, at least one, from left to right.

  Returns:
    [H', W', 3] uint8.
  """
  height = max(image.shape[0] for image in panels.values())
  font = _font(_readable_size(height))
  columns = [_titled(title, image, height, font) for title, image in panels.items()]
  return stack(columns, axis=1, gap=max(2, height // 100))


def stack(images: Sequence[np.ndarray], axis: int, gap: int = 0) -> np.ndarray:
  """Sets [H, W, 3] uint8 images, at least one, in a column (axis 0) or a row (axis 1) on white."""
  longest = max(image.shape[1 - axis] for image in images)
  padded = []
  for index, image in enumerate(images):
    padding = [(0, 0)] * 3
    padding[axis] = (gap if index else 0, 0)
    padding[1 - axis] = (0, longest - image.shape[1 - axis])
    padded.append(np.pad(image, padding, constant_values=255))
  return np.concatenate(padded, axis)


def nearest(values: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
  """Resizes [H, W, …] values to another height and width; takes the nearest value."""
  rows, columns = (
    ((np.arange(new) + 0.5) * old / new).astype(int)
    for new, old in zip(shape, values.shape[:2], strict=True)
  )
  return values[np.ix_(rows, columns)]


def outlines(positions: np.ndarray, on_void: bool = False) -> np.ndarray:
  """Lines of one pixel between segments.

  Args:
    positions: [H, W] int, 0 for void, k for the k-th segment.
    on_void: whether the line left of and above a segment lies on void there; without it, all lines
      lie within segments.

  Returns:
    [H, W] bool.
  """
  lines = np.zeros(positions.shape, bool)
  lines[:, :-1] |= positions[:, :-1] != positions[:, 1:]
  lines[:-1] |= positions[:-1] != positions[1:]
  if on_void:
    return lines
  lines[:, 1:] |= positions[:, :-1] == 0
  lines[1:] |= positions[:-1] == 0
  return lines & (positions > 0)


def place_label(
  corner: np.ndarray, size: np.ndarray, canvas: np.ndarray, taken: list[np.ndarray]
) -> np.ndarray | None:
  """Finds room for a label inside the canvas, but not over an earlier label.

  All are of one unit and one order of axes.

  Args:
    corner: [2], where the label should begin; it is moved into the canvas.
    size: [2], of the label.
    canvas: [2], size of the whole.
    taken: [2, 2] corners of earlier labels; this one is added if there is room for it.

  Returns:
    [2], where the label begins; None if there is no room.
  """
  if (size > canvas).any():
    return None
  low = np.clip(corner, 0, canvas - size)
  high = low + size
  if any((low < other[1]).all() and (other[0] < high).all() for other in taken):
    return None
  taken.append(np.stack([low, high]))
  return low


def _enlargement(shape: tuple[int, ...]) -> int:
  wanted = -(-_SMALLEST_SIDE // min(shape))
  return max(1, min(wanted, _LARGEST_SIDE // max(shape)))


def _segment_colors(segment_categories: Sequence[Category], by_category: bool) -> np.ndarray:
  """[S, 3] uint8 RGB; without `by_category`, things of one category get variations of one."""
  colors = []
  earlier: collections.Counter[int] = collections.Counter()
  for category in segment_categories:
    variation = earlier[category.id] if category.is_thing and not by_category else 0
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


def _blend(
  image: np.ndarray, positions: np.ndarray, colors: np.ndarray, opacity: float
) -> np.ndarray:
  overlay = np.concatenate([np.zeros((1, 3), np.uint8), colors])[positions]
  blended = np.rint((1 - opacity) * image + opacity * overlay).astype(np.uint8)
  return np.where((positions > 0)[..., np.newaxis], blended, image)


def _draw_outlines(painted: np.ndarray, positions: np.ndarray) -> np.ndarray:
  """White lines of one pixel, dark ones where the surroundings are bright; none on void."""
  gray = Image.fromarray(painted.mean(axis=-1).astype(np.uint8))
  brightness = np.asarray(gray.filter(ImageFilter.BoxBlur(_SURROUNDINGS)))
  lines = np.where(brightness > _BRIGHT, 0, 255).astype(np.uint8)
  return np.where(outlines(positions)[..., np.newaxis], lines[..., np.newaxis], painted)


def _draw_names(
  painted: np.ndarray, positions: np.ndarray, names: Sequence[str], font: ImageFont.FreeTypeFont
) -> np.ndarray:
  """Writes the names of the segments that are large enough, the largest first."""
  image = Image.fromarray(painted)
  draw = ImageDraw.Draw(image, 'RGBA')
  line_height = sum(font.getmetrics())
  taken: list[np.ndarray] = []
  for position, center, half_width in _widest_points(positions):
    name = shown(names[position - 1])
    size = np.array([int(font.getlength(name)) + line_height // 2, line_height])
    if 2 * half_width < line_height:
      continue
    corner = place_label(center - size // 2, size, np.array(image.size), taken)
    if corner is not None:
      last = corner + size - 1
      draw.rounded_rectangle((*corner, *last), radius=line_height // 4, fill=_PLATE)
      draw.text((corner + last) / 2, name, fill=_WHITE, font=font, anchor='mm')
  return np.asarray(image)


def _widest_points(positions: np.ndarray) -> list[tuple[int, np.ndarray, int]]:
  """Each segment, largest first: position, pixel [x, y] farthest from a border, and how far."""
  padded = np.pad(positions, 1, constant_values=-1)
  center = padded[1:-1, 1:-1]
  inside = (center == padded[1:-1, 2:]) & (center == padded[1:-1, :-2])
  inside &= (center == padded[2:, 1:-1]) & (center == padded[:-2, 1:-1])
  distances, flat = _distances(inside).ravel(), positions.ravel()
  areas = np.bincount(flat)
  farthest = np.zeros_like(areas)
  np.maximum.at(farthest, flat, distances)
  widest = np.flatnonzero(distances == farthest[flat])
  found, first = np.unique(flat[widest], return_index=True)
  y, x = np.divmod(widest[first], positions.shape[1])
  return [
    (int(found[k]), np.array([x[k], y[k]]), int(farthest[found[k]]))
    for k in np.argsort(-areas[found], kind='stable')
    if found[k] > 0
  ]


def _distances(inside: np.ndarray) -> np.ndarray:
  """[H, W] int32: steps along rows and columns from each pixel to the nearest that is outside.

  All around the image is outside.
  """
  far = sum(inside.shape)
  distances = np.pad(np.where(inside, np.int32(far), np.int32(0)), 1)
  for axis in (0, 1):
    places = np.arange(distances.shape[axis], dtype=np.int32)
    places = places[:, None] if axis == 0 else places
    from_start = np.minimum.accumulate(distances - places, axis) + places
    from_end = (
      np.flip(np.minimum.accumulate(np.flip(distances + places, axis), axis), axis) - places
    )
    distances = np.minimum(from_start, from_end)
  return distances[1:-1, 1:-1]


def _readable_size(image_side: int) -> int:
  return max(12, round(image_side / 36))


def _font(size: int) -> ImageFont.FreeTypeFont:
  font = ImageFont.load_default(size)
  # Pillow without FreeType has one of a fixed size; its wheels have FreeType.
  assert isinstance(font, ImageFont.FreeTypeFont)
  return font


def _titled(title: str, image: np.ndarray, height: int, font: ImageFont.FreeTypeFont) -> np.ndarray:
  """The image, scaled to a height, below a strip with its title."""
  width = max(1, round(image.shape[1] * height / image.shape[0]))
  scaled = Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC)
  strip_height = 2 * sum(font.getmetrics())
  strip_width = max(width, int(font.getlength(title)) + strip_height)
  column = Image.new('RGB', (strip_width, strip_height + height), _TITLE_BACKGROUND)
  column.paste(scaled, ((strip_width - width) // 2, strip_height))
  draw = ImageDraw.Draw(column)
  draw.text((strip_width / 2, strip_height / 2), title, fill=_WHITE, font=font, anchor='mm')
  return np.asarray(column)
