"""Validation images for TensorBoard: input, ground truth, each fusion and the ranking map."""

import numpy as np
from PIL import Image

from oanet_tf import visualize
from oanet_tf.data import geometry
from oanet_tf.data.categories import PanopticCategories
from oanet_tf.evaluation.scoring import EvaluatedImage


class Panels:
  """Draws the first images that it is given, at most `number`.

  Attributes:
    images: name -> [H, W, 3] uint8.
  """

  def __init__(self, categories: PanopticCategories, number: int):
    self._categories = categories
    self._number = number
    self.images: dict[str, np.ndarray] = {}

  def add(self, image: EvaluatedImage) -> None:
    """Draws an image, unless there are enough already."""
    if len(self.images) < self._number:
      self.images[f'image_{image.image_id}'] = draw_panel(image, self._categories)


def draw_panel(image: EvaluatedImage, categories: PanopticCategories) -> np.ndarray:
  """[H, W, 3] uint8: input, ground truth, each fusion's prediction and the ranking map in a row."""
  height, width = image.ground_truth.index.shape

  def at_own_size(canvas: np.ndarray, resampling: Image.Resampling) -> np.ndarray:
    inside = geometry.without_padding(canvas, image.image_info, image.image.shape[:2])
    return np.asarray(Image.fromarray(inside).resize((width, height), resampling))

  original = at_own_size(image.image, Image.Resampling.BILINEAR)
  panels = {
    'input': original,
    'truth': visualize.draw_panoptic(original, image.ground_truth, categories),
  }
  for method, prediction in image.predictions.items():
    panels[method] = visualize.draw_panoptic(original, prediction, categories)
  ranking_map = visualize.draw_ranking_map(image.ranking_map, categories)
  panels['ranking map'] = at_own_size(ranking_map, Image.Resampling.NEAREST)
  return visualize.side_by_side(panels)
