"""Segmentations as layers over an image, and where to write what their segments are."""

# H, W image, h, w layer, S segments.

import base64
import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.ndimage
from PIL import Image

from oanet_tf.data.categories import PanopticCategories
from oanet_tf.data.panoptic_map import Segments
from oanet_tf.evaluation.details import LARGEST_SIDE
from oanet_tf.evaluation.ranking_map import RankingMap
from oanet_tf.visualize import draw_ranking_map, nearest, outlines, place_label

_SEGMENT_OPACITY = 140
_OUTLINE = (255, 255, 255, 230)
_CLEAR = (0, 0, 0, 0)
# The narrowest panel and a label in it, in CSS pixels; report.css sets the font.
_PANEL_HEIGHT, _PANEL_WIDTH = 448.0, 250.0
_CHARACTER_WIDTH, _LABEL_PADDING, _LABEL_HEIGHT = 6.2, 8.0, 16.0


class Label(NamedTuple):
  """A text over an image.

  Attributes:
    text: what it says.
    x, y: its middle, in percent of the image's width and height.
  """

  text: str
  x: float
  y: float


def segment_layer(segmentation: Segments, categories: PanopticCategories) -> bytes:
  """A translucent PNG of a segmentation: its categories' colours with white outlines.

  Void is transparent; the longer side has 640 pixels.
  """
  positions = resample(segmentation.index)
  found = map(categories.of_id, segmentation.category_ids.tolist())
  colors = [(*category.color, _SEGMENT_OPACITY) for category in found]
  layer = np.array([_CLEAR, *colors], np.uint8)[positions]
  layer[outlines(positions, on_void=True)] = _OUTLINE
  return _png(layer)


def resample(values: np.ndarray) -> np.ndarray:
  """[H, W] -> [h, w], the nearest values; the longer side has 640 pixels."""
  factor = LARGEST_SIDE / max(values.shape)
  return nearest(values, tuple(max(1, round(side * factor)) for side in values.shape))


def ranking_layer(
  ranking_map: RankingMap, has_instance: np.ndarray, categories: PanopticCategories
) -> bytes:
  """A PNG of the ranking map; transparent where no instance lies, as the map means nothing there.

  Args:
    ranking_map: [h', w'].
    has_instance: [H, W] bool.
    categories: with the colours; see `draw_ranking_map`.
  """
  shown = resample(has_instance)
  size = shown.shape[::-1]
  drawn = Image.fromarray(draw_ranking_map(ranking_map, categories))
  drawn = np.asarray(drawn.resize(size, Image.Resampling.NEAREST))
  return _png(np.dstack([drawn, np.where(shown, 255, 0).astype(np.uint8)]))


def place_labels(
  segmentation: Segments, texts: Sequence[str], first: Sequence[int] = ()
) -> list[Label]:
  """Labels segments where they are widest; a label that would cover another is left out.

  Args:
    segmentation: of an image.
    texts: of the S segments.
    first: ids of the segments that are labelled first; the others follow, large ones before small.
  """
  positions = resample(segmentation.index)
  areas = np.bincount(positions.ravel(), minlength=len(texts) + 1)[1:]
  turns = [first.index(i) if i in first else len(first) for i in segmentation.ids.tolist()]
  shape = np.array(positions.shape)
  panel = shape * min(_PANEL_WIDTH / shape[1], _PANEL_HEIGHT / shape[0])
  windows = scipy.ndimage.find_objects(positions, max_label=len(texts))
  labels, taken = [], []
  for index in np.lexsort([-areas, turns]).tolist():
    if windows[index] is None:
      continue
    size = np.array([_LABEL_HEIGHT, len(texts[index]) * _CHARACTER_WIDTH + _LABEL_PADDING])
    center = _widest_point(positions[windows[index]] == index + 1, windows[index])
    corner = place_label(center * panel / shape - size / 2, size, panel, taken)
    if corner is not None:
      y, x = 50 * (corner + (corner + size)) / panel
      labels.append(Label(texts[index], round(float(x), 1), round(float(y), 1)))
  return labels


def _widest_point(mask: np.ndarray, window: tuple[slice, slice]) -> np.ndarray:
  """[y, x]: the pixel of a mask that is farthest from its border; `window` is where the mask is."""
  distances = scipy.ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
  y, x = np.unravel_index(distances.argmax(), distances.shape)
  return np.array([window[0].start + y + 0.5, window[1].start + x + 0.5])


def data_uri(content: bytes, media_type: str) -> str:
  """A file's content as a data URL."""
  return f'data:{media_type};base64,{base64.b64encode(content).decode("ascii")}'


def _png(rgba: np.ndarray) -> bytes:
  buffer = io.BytesIO()
  Image.fromarray(rgba).save(buffer, 'PNG', optimize=True)
  return buffer.getvalue()
