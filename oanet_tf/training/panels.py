"""Pictures of validation images for TensorBoard: input, truth, each fusion and the ranking map."""

import numpy as np
from PIL import Image

from oanet_tf import visualize
from oanet_tf.data.categories import PanopticCategories
from oanet_tf.evaluation.scoring import EvaluatedImage


class Panels:
  """Draws the first images that it is given.

  Attributes:
    pictures: name -> [H, W, 3] uint8.
  """

  def __init__(self, categories: PanopticCategories, number: int):
    """Takes the categories, and how many images to draw."""
    self._categories = categories
    self._number = number
    self.pictures: dict[str, np.ndarray] = {}

  def add(self, image: EvaluatedImage) -> None:
    """Draws an image, as long as there are not enough."""
    if len(self.pictures) < self._number:
      self.pictures[f'image_{image.source_id}'] = draw_panel(image, self._categories)


def draw_panel(image: EvaluatedImage, categories: PanopticCategories) -> np.ndarray:
  """[H, W, 3] uint8: input, truth, the prediction of each fusion, and the ranking map in a row."""
  size = image.truth.index.shape
  picture = _crop_and_resize(image.image, image.image_info, size, Image.Resampling.BILINEAR)
  ranking = visualize.draw_ranking_map(image.ranking_map, categories)
  panels = {'input': picture, 'truth': visualize.draw_panoptic(picture, image.truth, categories)}
  for method, prediction in image.predictions.items():
    panels[method] = visualize.draw_panoptic(picture, prediction, categories)
  panels['ranking map'] = _crop_and_resize(
    ranking, image.image_info, size, Image.Resampling.NEAREST, image.image.shape[:2]
  )
  return visualize.side_by_side(panels)


def _crop_and_resize(
  canvas: np.ndarray,
  image_info: np.ndarray,
  size: tuple[int, int],
  resampling: Image.Resampling,
  input_size: tuple[int, int] | None = None,
) -> np.ndarray:
  """The picture within a canvas, without the padding, at its own size.

  `input_size` is the network input's, where the canvas is smaller.
  """
  scale = np.array(canvas.shape[:2]) / (input_size or canvas.shape[:2])
  height, width = np.maximum((image_info[1] * scale).round().astype(int), 1)
  cropped = Image.fromarray(canvas[:height, :width])
  return np.asarray(cropped.resize(size[::-1], resampling))
