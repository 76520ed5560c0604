"""Draws the paper's Figures 4 to 8 from predictions and from the metrics of trainings."""

# H, W image, N detections, T thing categories.

import math
import pathlib
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from PIL import Image

from oanet_tf import visualize
from oanet_tf.evaluation.ranking_map import most_probable
from oanet_tf.paper.examples import Prediction
from oanet_tf.printing import shown
from oanet_tf.training.series import Series, smoothed

matplotlib.use('Agg')
from matplotlib import figure as figure_lib
from matplotlib import pyplot

# Panels of the figures of one image; more could not be read.
_COLUMNS = 4
_MOST_PANELS = 11
_PANEL_INCHES = 3.2
_GRAY = 0.85


def ranking_map(prediction: Prediction, path: pathlib.Path) -> None:
  """Figure 4: image, result, likeliest category, and the ranking score of each detected category.

  Categories with the most pixels are first. Where no instance lies, the map means nothing and is
  gray. Lines are the outlines of a category's own instances.
  """
  covered = prediction.masks.any(axis=0)
  labels = sorted(set(prediction.labels.tolist()), key=lambda label: -_pixels(prediction, label))
  likeliest = visualize.draw_ranking_map(
    most_probable(prediction.ranking_map), prediction.categories
  )
  likeliest = visualize.nearest(likeliest, covered.shape)
  panels = {
    'image': prediction.image,
    'result': draw_segmentation(prediction, 'srm'),
    'category with the highest ranking': _only(likeliest, covered),
  }
  left_out = labels[_MOST_PANELS - len(panels) :]
  labels = labels[: _MOST_PANELS - len(panels)]
  figure, axes = _grid(len(panels) + len(labels), covered.shape)
  for axis, (title, image) in zip(axes, panels.items(), strict=False):
    axis.imshow(image)
    axis.set_title(title, fontsize=10)
  colors = pyplot.get_cmap('viridis').with_extremes(bad=(_GRAY,) * 3)
  for axis, label in zip(axes[len(panels) :], labels, strict=False):
    scores = visualize.nearest(prediction.ranking_map[..., label - 1], covered.shape)
    drawn = axis.imshow(np.where(covered, scores, np.nan), cmap=colors, vmin=0.0, vmax=1.0)
    for mask in prediction.masks[prediction.labels == label]:
      _outline(axis, mask)
    axis.set_title(shown(prediction.categories.category(label).name), fontsize=10)
  if labels:
    figure.colorbar(drawn, ax=axes, shrink=0.6, label='ranking score')
  _save(figure, path, f'{len(left_out)} categories are not shown' if left_out else '')


def scores(prediction: Prediction, path: pathlib.Path) -> None:
  """Figure 7: each instance with its detection score and its ranking score.

  Instances that share the most pixels with others are first.
  """
  count = prediction.masks.sum(axis=0)
  shared = [int((mask & (count > 1)).sum()) for mask in prediction.masks]
  order = sorted(range(len(shared)), key=lambda n: -shared[n])
  left_out, order = order[_MOST_PANELS - 1 :], order[: _MOST_PANELS - 1]
  figure, axes = _grid(1 + len(order), count.shape)
  axes[0].imshow(draw_segmentation(prediction, 'srm'))
  axes[0].set_title('result', fontsize=10)
  for axis, n in zip(axes[1:], order, strict=False):
    mask = prediction.masks[n]
    axis.imshow(_only(prediction.image, mask, keep=0.3))
    _outline(axis, mask)
    name = shown(prediction.categories.category(int(prediction.labels[n])).name)
    axis.set_title(
      f'{name}: detection {prediction.detection_scores[n]:.3f}\n'
      f'ranking {prediction.ranking_scores[n]:.3f}',
      fontsize=10,
    )
  _save(figure, path, f'{len(left_out)} instances are not shown' if left_out else '')


def fusions(predictions: Sequence[Prediction], methods: Sequence[str], path: pathlib.Path) -> None:
  """Figure 8: a row for each image, with the result of each fusion."""
  rows = [
    {'image': _enlarged(one), **{method: draw_segmentation(one, method) for method in methods}}
    for one in predictions
  ]
  _save_rows(rows, path)


def sharing(predictions: Mapping[str, Sequence[Prediction]], path: pathlib.Path) -> None:
  """Figure 6: a row for each image, with the result of each network.

  Args:
    predictions: by the network's name, of each image, with the one fusion to draw.
    path: file to write.
  """
  rows = []
  for of_image in zip(*predictions.values(), strict=True):
    drawn = [draw_segmentation(one, *one.segmentations) for one in of_image]
    rows.append({'image': _enlarged(of_image[0]), **dict(zip(predictions, drawn, strict=True))})
  _save_rows(rows, path)


def gradients(series: Mapping[str, Series], path: pathlib.Path) -> None:
  """Figure 5: the gradient of each branch at the backbone's last feature map, over training.

  Args:
    series: by the training's name, its `gradient_norm/…` by step.
    path: file to write.
  """
  figure, axes = pyplot.subplots(
    1, len(series), figsize=(6.0 * len(series), 3.8), squeeze=False, sharey=True,
    layout='constrained',
  )  # fmt: skip
  for axis, (name, of_training) in zip(axes.flat, series.items(), strict=True):
    for color, (branch, (steps, values)) in zip(
      ('tab:blue', 'tab:orange'), of_training.items(), strict=False
    ):
      axis.plot(steps, values, color=color, alpha=0.3)
      axis.plot(steps, smoothed(values), color=color, label=f'{branch.rpartition("/")[2]} branch')
    axis.set_title(name, fontsize=10)
    axis.set_xlabel('step')
    axis.set_ylabel("norm of the gradient at the backbone's last map")
    axis.set_yscale('log')
    axis.grid(alpha=0.3)
    axis.legend()
  _save(figure, path)


def draw_segmentation(prediction: Prediction, method: str) -> np.ndarray:
  """The result of a fusion over its image, which is enlarged if it is small."""
  return visualize.draw_panoptic(
    prediction.image, prediction.segmentations[method], prediction.categories
  )


def _enlarged(prediction: Prediction) -> np.ndarray:
  """The image, as large as `draw_segmentation` draws it."""
  size = draw_segmentation(prediction, next(iter(prediction.segmentations))).shape[1::-1]
  return np.asarray(Image.fromarray(prediction.image).resize(size, Image.Resampling.BICUBIC))


def _pixels(prediction: Prediction, label: int) -> int:
  return int(prediction.masks[prediction.labels == label].any(axis=0).sum())


def _only(image: np.ndarray, mask: np.ndarray, keep: float = 0.0) -> np.ndarray:
  """An image that fades to gray outside of a mask; `keep` in [0, 1] is what stays visible there."""
  faded = keep * image + (1.0 - keep) * 255.0 * _GRAY
  return np.where(mask[..., None], image, faded).astype(np.uint8)


def _outline(axis: pyplot.Axes, mask: np.ndarray) -> None:
  """A line around a mask, also along the image's border."""
  if mask.any():
    padded = np.pad(mask, 1).astype(float)
    axis.contour(
      np.arange(-1, mask.shape[1] + 1), np.arange(-1, mask.shape[0] + 1), padded, [0.5],
      colors='red', linewidths=1.2,
    )  # fmt: skip
    axis.set_xlim(-0.5, mask.shape[1] - 0.5)
    axis.set_ylim(mask.shape[0] - 0.5, -0.5)


def _grid(number: int, shape: tuple[int, int]) -> tuple[figure_lib.Figure, list[pyplot.Axes]]:
  """A figure with a number of panels for images of a shape."""
  columns = min(number, _COLUMNS)
  rows = math.ceil(number / columns)
  height = _PANEL_INCHES * shape[0] / shape[1]
  figure, axes = pyplot.subplots(
    rows, columns, squeeze=False, layout='compressed',
    figsize=(columns * _PANEL_INCHES, rows * (height + 0.6)),
  )  # fmt: skip
  for axis in axes.flat:
    axis.set_axis_off()
  return figure, list(axes.flat)


def _save(figure: figure_lib.Figure, path: pathlib.Path, note: str = '') -> None:
  if note:
    figure.suptitle(note, fontsize=9)
  figure.savefig(path, dpi=120, format='png', bbox_inches='tight')
  pyplot.close(figure)


def _save_rows(rows: Sequence[Mapping[str, np.ndarray]], path: pathlib.Path) -> None:
  """Rows of titled images, one below the other."""
  drawn = visualize.stack([visualize.side_by_side(row) for row in rows], axis=0)
  Image.fromarray(drawn).save(path, 'PNG')
