"""Draws records and their categories, for `oanet_tf.data.inspect`."""

# H, W image, M objects, h, w an object's box.

import colorsys
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps
from scipy import ndimage

from oanet_tf import visualize
from oanet_tf.data import tf_example
from oanet_tf.data.categories import PanopticCategories
from oanet_tf.printing import shown

# `visualize.draw_panoptic` does not enlarge an image whose shorter side has 384 pixels.
_PANEL_SHORT, _PANEL_LONG = 384, 768
_SHEET_COLUMNS = 2
_DIMMED = 0.55
_OPACITY = 0.45
_HATCH_PERIOD = 10
_GOLDEN = 0.618034
_LUMINANCE = (0.299, 0.587, 0.114)

_ROW_HEIGHT, _BAR_WIDTH, _NUMBER_WIDTH, _MARGIN = 20, 220, 80, 16
LONGEST_NAME = 32
_INK, _PALE, _PAPER, _BAR_OUTLINE = (32, 32, 32), (110, 110, 110), (255, 255, 255), (150, 150, 150)

# `tf_example.decode`'s dict as numpy arrays, with masks as M arrays [h, w] bool.
Record = Mapping[str, np.ndarray]


def draw_record(record: Record, categories: PanopticCategories, shard: str) -> np.ndarray:
  """Draws a record's panoptic ground truth, and beside it its objects, titled."""
  panel = _scaled(record)
  segmentation = tf_example.decoded_segments(panel)
  names = [shown(categories.of_id(i).name) for i in panel['object_category_ids']]
  crowds = int(panel['object_is_crowd'].sum())
  panoptic = visualize.draw_panoptic(panel['image'], segmentation, categories)
  title = f'{source_id(panel)[:LONGEST_NAME]} in {shard.removesuffix(".tfrecord")[-LONGEST_NAME:]}'
  objects = f'objects: {len(names)}' + f', of which crowds (hatched): {crowds}' * (crowds > 0)
  return visualize.side_by_side({shown(title): panoptic, objects: draw_objects(panel, names)})


def _scaled(record: Record) -> Record:
  """A record with its image, map, boxes and masks scaled to the size of a panel, and padded."""
  size = np.array(record['segment_index'].shape)
  factor = min(_PANEL_SHORT / size.min(), _PANEL_LONG / size.max())
  panel_size = np.maximum(np.rint(factor * size), 1).astype(int)
  boxes = np.rint(record['object_boxes'] * np.tile(panel_size / size, 2)).astype(int)
  # Keeps at least one pixel of every object.
  boxes[:, :2] = np.minimum(boxes[:, :2], panel_size - 1)
  boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
  return {
    **record,
    'image': _padded(_resize(record['image'], panel_size, Image.Resampling.BICUBIC)),
    'segment_index': _padded(
      _resize(record['segment_index'], panel_size, Image.Resampling.NEAREST)
    ),
    'object_boxes': boxes,
    'object_masks': [
      _resize(mask, box[2:] - box[:2], Image.Resampling.NEAREST)
      for mask, box in zip(record['object_masks'], boxes, strict=True)
    ],
  }


def _resize(array: np.ndarray, size: np.ndarray, method: Image.Resampling) -> np.ndarray:
  return np.asarray(Image.fromarray(array).resize(size[::-1].tolist(), method))


def _padded(array: np.ndarray) -> np.ndarray:
  """Zeros below or to the right, since `draw_panoptic` would enlarge a narrower image."""
  rows, columns = (max(0, _PANEL_SHORT - side) for side in array.shape[:2])
  return np.pad(array, [(0, rows), (0, columns), *[(0, 0)] * (array.ndim - 2)])


def draw_objects(record: Record, names: Sequence[str]) -> np.ndarray:
  """Draws objects with their boxes and names over their dimmed image.

  Each object has a colour of its own; where two overlap, both show. Crowds are hatched.

  Args:
    record: with masks as M arrays [h, w] bool.
    names: of the M objects.
  Returns:
    [H, W, 3] uint8.
  """
  image = np.rint(_DIMMED * record['image']).astype(np.uint8)
  fields = (record[f'object_{name}'] for name in ('boxes', 'masks', 'is_crowd'))
  objects = sorted(zip(*fields, names, strict=True), key=lambda item: -item[1].sum())
  colors = [_object_color(k) for k in range(len(objects))]
  for (box, mask, is_crowd, _), color in zip(objects, colors, strict=True):
    region = image[slices(box)]
    fill = mask & _hatching(box) if is_crowd else mask
    region[fill] = (1 - _OPACITY) * region[fill] + _OPACITY * np.array(color)
  for (box, mask, _, _), color in zip(objects, colors, strict=True):
    image[slices(box)][mask & ~ndimage.binary_erosion(mask)] = color
  boxes = [box.tolist() for box, *_ in objects]
  labels = [f'{name}, crowd' if is_crowd else name for *_, is_crowd, name in objects]
  return _draw_boxes(image, boxes, colors, labels)


def _object_color(index: int) -> tuple[int, ...]:
  """Multiples of the golden ratio, modulo 1, are hues that spread evenly however many there are."""
  rgb = colorsys.hsv_to_rgb(index * _GOLDEN % 1, (0.9, 0.55)[index // 8 % 2], 1.0)
  return tuple(round(255 * value) for value in rgb)


def _hatching(box: np.ndarray) -> np.ndarray:
  rows, columns = slices(box)
  diagonals = np.add.outer(np.arange(rows.start, rows.stop), np.arange(columns.start, columns.stop))
  return diagonals % _HATCH_PERIOD < _HATCH_PERIOD // 2


def _draw_boxes(
  image: np.ndarray,
  boxes: Sequence[Sequence[int]],
  colors: Sequence[tuple[int, ...]],
  names: Sequence[str],
) -> np.ndarray:
  """Draws boxes, and in their corners the names that fit and do not cover an earlier one."""
  canvas = Image.fromarray(image)
  draw = ImageDraw.Draw(canvas)
  for (y1, x1, y2, x2), color in zip(boxes, colors, strict=True):
    draw.rectangle((x1, y1, x2 - 1, y2 - 1), outline=color)
  font = ImageFont.load_default(size=12)
  height = sum(font.getmetrics())
  taken = []
  for (y1, x1, y2, _), color, name in zip(boxes, colors, names, strict=True):
    corner, size = np.array([x1, y1]), np.array([int(font.getlength(name)) + 7, height])
    fits = y1 + height <= y2 and x1 + size[0] <= canvas.width
    if fits and visualize.place_label(corner, size, np.array(canvas.size), taken) is not None:
      draw.rectangle((x1, y1, *(corner + size - 1)), fill=color)
      ink = _PAPER if np.dot(color, _LUMINANCE) < 120 else _INK
      draw.text((x1 + 4, y1 + height / 2), name, ink, font, anchor='lm')
  return np.asarray(canvas)


def contact_sheet(images: Sequence[np.ndarray]) -> Image.Image:
  """Sets images, at least one, in rows of two."""
  rows = [
    visualize.stack(images[i : i + _SHEET_COLUMNS], axis=1, gap=_MARGIN)
    for i in range(0, len(images), _SHEET_COLUMNS)
  ]
  sheet = Image.fromarray(visualize.stack(rows, axis=0, gap=_MARGIN))
  return ImageOps.expand(sheet, _MARGIN, _PAPER)


def draw_categories(counts: Sequence[Mapping], colors: Sequence[tuple[int, ...]]) -> Image.Image:
  """Draws bars for segments and pixels of each category, things on the left, stuff on the right.

  The most frequent category is on top. The bars of a column have one scale, which starts at 0.

  Args:
    counts: 'categories' of `Statistics.to_json`.
    colors: RGB of each.
  """
  groups = {'things': [], 'stuff': []}
  for one, color in zip(counts, colors, strict=True):
    groups['things' if one['isthing'] else 'stuff'].append((one, color))
  panels = [_draw_group(title, group) for title, group in groups.items() if group]
  return Image.fromarray(visualize.stack(panels, axis=1))


def _draw_group(title: str, group: Sequence[tuple[Mapping, tuple[int, ...]]]) -> np.ndarray:
  font = ImageFont.load_default(size=13)
  group = sorted(group, key=lambda item: (-item[0]['segments'], item[0]['name']))
  names = [shortened(counts['name']) for counts, _ in group]
  bars_left = 2 * _MARGIN + int(max(font.getlength(name) for name in [title, *names]))
  column_width = _BAR_WIDTH + _NUMBER_WIDTH
  size = bars_left + 2 * column_width, 2 * _MARGIN + _ROW_HEIGHT * (len(group) + 1)
  image = Image.new('RGB', size, _PAPER)
  draw = ImageDraw.Draw(image)
  middles = [_MARGIN + _ROW_HEIGHT * row + _ROW_HEIGHT // 2 for row in range(len(group) + 1)]
  draw.text((bars_left - 8, middles[0]), title, _INK, font, anchor='rm')
  for name, middle in zip(names, middles[1:], strict=True):
    draw.text((bars_left - 8, middle), name, _INK, font, anchor='rm')
  for column, (header, key, as_text) in enumerate(
    (('segments', 'segments', '{:,}'.format), ('share of all pixels', 'pixel_share', percent))
  ):
    left = bars_left + column * column_width
    draw.text((left, middles[0]), header, _PALE, font, anchor='lm')
    longest = max(counts[key] for counts, _ in group) or 1
    for (counts, color), middle in zip(group, middles[1:], strict=True):
      right = left + round(_BAR_WIDTH * counts[key] / longest)
      if counts[key]:
        draw.rectangle((left, middle - 7, right, middle + 7), fill=color, outline=_BAR_OUTLINE)
      draw.text((right + 6, middle), as_text(counts[key]), _INK, font, anchor='lm')
  return np.asarray(image)


def slices(box: np.ndarray) -> tuple[slice, slice]:
  """Rows and columns of a [4] box, [y1, x1, y2, x2] in pixels."""
  y1, x1, y2, x2 = map(int, box)
  return slice(y1, y2), slice(x1, x2)


def source_id(record: Record) -> str:
  """The image's id in the dataset."""
  return record['source_id'].decode(errors='replace')


def shortened(name: str) -> str:
  """A name in one line, cut to 32 characters."""
  name = shown(name)
  return name if len(name) <= LONGEST_NAME else f'{name[: LONGEST_NAME - 1]}…'


def percent(fraction: float) -> str:
  """A fraction in [0, 1] as text, in percent; a positive one is never shown as 0."""
  return '< 0.01 %' if 0 < fraction < 1e-4 else f'{100 * fraction:.2f} %'
