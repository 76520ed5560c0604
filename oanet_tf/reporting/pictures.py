"""Segmentations as layers over a picture, and where to write what their segments are."""

# H, W height and width of an image, h, w of a layer, S segments.

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
from oanet_tf.visualize import draw_ranking_map

_SEGMENT_OPACITY = 140
_OUTLINE = (255, 255, 255, 230)
_CLEAR = (0, 0, 0, 0)
# Of a label on screen, in CSS pixels; report.css sets its font. A panel is at least so wide.
_PANEL_WIDTH, _PANEL_HEIGHT = 250.0, 448.0
_CHARACTER_WIDTH, _LABEL_PADDING, _LABEL_HEIGHT = 6.2, 8.0, 16.0


class Label(NamedTuple):
  """A text over a picture.

  Attributes:
    text: what it says.
    x, y: its middle, in percent of the picture's width and height.
  """

  text: str
  x: float
  y: float


def segment_layer(segmentation: Segments, categories: PanopticCategories) -> bytes:
  """A half transparent PNG of a segmentation: its categories' colours with white outlines.

  Void is clear; the longer side is 640 pixels.
  """
  positions = resample(segmentation.index)
  labels = categories.label_of_id_table()[segmentation.category_ids].tolist()
  colors = [(*categories.category(label).color, _SEGMENT_OPACITY) for label in labels]
  layer = np.array([_CLEAR, *colors], np.uint8)[positions]
  layer[outlines(positions)] = _OUTLINE
  return _png(layer)


def resample(values: np.ndarray) -> np.ndarray:
  """[H, W] -> [h, w], the nearest values; the longer side is 640 pixels."""
  factor = LARGEST_SIDE / max(values.shape)
  sides = [max(1, round(side * factor)) for side in values.shape]
  rows, columns = (
    ((np.arange(new) + 0.5) * old / new).astype(int)
    for new, old in zip(sides, values.shape, strict=True)
  )
  return values[np.ix_(rows, columns)]


def outlines(positions: np.ndarray) -> np.ndarray:
  """[h, w] bool: pixels whose right or lower neighbour is of another segment."""
  differs = np.zeros(positions.shape, bool)
  differs[:, :-1] |= positions[:, :-1] != positions[:, 1:]
  differs[:-1] |= positions[:-1] != positions[1:]
  return differs


def ranking_layer(
  ranking_map: np.ndarray, has_instance: np.ndarray, categories: PanopticCategories
) -> bytes:
  """A PNG of the ranking map where there are instances; elsewhere it means nothing, and is clear.

  Args:
    ranking_map: [h', w', T] probabilities.
    has_instance: [H, W] bool.
    categories: with the colours; the paler one is, the less likely.
  """
  shown = resample(has_instance)
  size = shown.shape[::-1]
  drawn = Image.fromarray(draw_ranking_map(ranking_map, categories))
  drawn = np.asarray(drawn.resize(size, Image.Resampling.NEAREST))
  return _png(np.dstack([drawn, np.where(shown, 255, 0).astype(np.uint8)]))


def place_labels(
  segmentation: Segments, texts: Sequence[str], first: Sequence[int] = ()
) -> list[Label]:
  """Writes what segments are where they are widest; a label that would cover another is left out.

  Args:
    segmentation: of a picture.
    texts: of the S segments.
    first: ids of the segments that are labelled first; the others follow, large ones before small.
  """
  positions = resample(segmentation.index)
  areas = np.bincount(positions.ravel(), minlength=len(texts) + 1)[1:]
  turns = [first.index(i) if i in first else len(first) for i in segmentation.ids.tolist()]
  panel = _panel_size(positions.shape)
  windows = scipy.ndimage.find_objects(positions, max_label=len(texts))
  labels, boxes = [], []
  for index in np.lexsort([-areas, turns]).tolist():
    if windows[index] is None:
      continue
    size = np.array([_LABEL_HEIGHT, len(texts[index]) * _CHARACTER_WIDTH + _LABEL_PADDING])
    center = _widest_point(positions[windows[index]] == index + 1, windows[index])
    low = np.clip(center * panel / positions.shape - size / 2, 0, np.maximum(panel - size, 0))
    box = np.stack([low, low + size])
    if (size <= panel).all() and not any(_overlap(box, other) for other in boxes):
      boxes.append(box)
      y, x = 50 * (box[0] + box[1]) / panel
      labels.append(Label(texts[index], round(float(x), 1), round(float(y), 1)))
  return labels


def _panel_size(shape: tuple[int, int]) -> np.ndarray:
  """[height, width] of a picture on a narrow screen, in CSS pixels."""
  return np.array(shape) * min(_PANEL_WIDTH / shape[1], _PANEL_HEIGHT / shape[0])


def _widest_point(mask: np.ndarray, window: tuple[slice, slice]) -> np.ndarray:
  """[y, x]: the pixel of a mask that is farthest from its border; `window` is where it was cut."""
  distances = scipy.ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
  y, x = np.unravel_index(distances.argmax(), distances.shape)
  return np.array([window[0].start + y + 0.5, window[1].start + x + 0.5])


def _overlap(one: np.ndarray, other: np.ndarray) -> bool:
  return bool((one[0] < other[1]).all() and (other[0] < one[1]).all())


def data_uri(content: bytes, media_type: str) -> str:
  """A file's content as a URL of its own."""
  return f'data:{media_type};base64,{base64.b64encode(content).decode("ascii")}'


def _png(rgba: np.ndarray) -> bytes:
  buffer = io.BytesIO()
  Image.fromarray(rgba).save(buffer, 'PNG', optimize=True)
  return buffer.getvalue()
