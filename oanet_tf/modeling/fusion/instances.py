"""The detections of a fusion: chosen, pasted and suppressed once for all methods."""

# B images, N detections, M mask side, h, w canvas.

import functools
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from oanet_tf.config.definitions import Fusion
from oanet_tf.data.geometry import Size
from oanet_tf.modeling.fusion.rules import RULES
from oanet_tf.modeling.mask_paste import paste_masks


class Instances:
  """A batch of detections. What is derived from them is computed at its first use.

  Attributes:
    boxes: [B, N, 4] float, in pixels of the network input.
    scores: [B, N] float, descending.
    classes: [B, N] int32 in [0, T]; 0 is padding.
    masks: [B, N, M, M] float, probabilities in the box.

  Args:
    outputs: of `OANet` in inference.
    settings: thresholds for masks.
    score_threshold: for detections.
    input_size: [height, width] of the network input.
    stride: of the canvas on which instances are compared, relative to the network input.
  """

  def __init__(
    self,
    outputs: Mapping[str, tf.Tensor],
    settings: Fusion,
    score_threshold: float | tf.Tensor,
    input_size: Sequence[Size],
    stride: int,
  ):
    self.boxes, self.scores, self.classes, self.masks = (
      outputs[f'detection_{name}'] for name in ('boxes', 'scores', 'classes', 'masks')
    )
    self._settings = settings
    self._score_threshold = score_threshold
    self._rules = RULES[settings.rules]
    self._input_size = input_size
    self._stride = stride

  @functools.cached_property
  def kept(self) -> tf.Tensor:
    """[B, N] bool: detections with a high enough score that are not suppressed."""
    kept = self._rules.reaches(self.scores, self._score_threshold)
    threshold = self._settings.suppression_threshold
    return suppress(self._pasted, kept, threshold) if threshold < 1.0 else kept

  @functools.cached_property
  def canvas_masks(self) -> tf.Tensor:
    """[B, N, h, w] float32 in {0, 1}: the kept instances; all 0 for the others."""
    return self._pasted * tf.cast(self.kept, tf.float32)[..., None, None]

  @functools.cached_property
  def flat_masks(self) -> tf.Tensor:
    """[B, N, h * w]: `canvas_masks` with one axis for all cells."""
    return flat(self.canvas_masks)

  @functools.cached_property
  def shared_pixels(self) -> tf.Tensor:
    """[B, N, N] float32: how many cells of the canvas two kept instances share."""
    return tf.matmul(self.flat_masks, self.flat_masks, transpose_b=True)

  @functools.cached_property
  def overlaps(self) -> tf.Tensor:
    """[B, N, N] float32: the intersection over union of two kept instances; 0 for the others."""
    return _overlaps(self.flat_masks, self.shared_pixels)

  @functools.cached_property
  def binary_masks(self) -> tf.Tensor:
    """[B, N, M, M] float32 in {0, 1}: the cells of the boxes that belong to each detection."""
    return tf.cast(self._rules.reaches(self.masks, self._settings.mask_threshold), tf.float32)

  @functools.cached_property
  def _pasted(self) -> tf.Tensor:
    pasted = self.paste(self.masks, self._stride)
    return tf.cast(self._rules.reaches(pasted, self._settings.mask_threshold), tf.float32)

  def paste(self, masks: tf.Tensor, stride: int) -> tf.Tensor:
    """[B, N, M, M] values in the boxes -> [B, N, h, w] at a stride of the network input."""
    height, width = (side // stride for side in self._input_size)
    return paste_masks(masks, self.boxes / stride, height, width, self._rules.mask_edges)


def suppress(masks: tf.Tensor, kept: tf.Tensor, threshold: float) -> tf.Tensor:
  """Drops detections whose masks nearly equal those of better ones, across categories.

  Works greedily like non-maximum suppression of boxes: a detection is dropped if a better one that
  is not itself dropped overlaps it by more than the threshold.

  Args:
    masks: [B, N, h, w] float in {0, 1}, the best detection first.
    kept: [B, N] bool, the detections that take part.
    threshold: of the masks' intersection over union, in [0, 1].

  Returns:
    [B, N] bool, a subset of `kept`.
  """
  better = np.tri(masks.shape[1], k=-1, dtype=np.float32)
  drops = tf.cast(mask_overlap(masks) > threshold, tf.float32) * better
  candidates = tf.cast(kept, tf.float32)

  def drop(_: tf.Tensor, left: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    return left, candidates * (1.0 - tf.reduce_max(drops * left[:, None], axis=2))

  # A detection depends only on better ones, so each round settles at least one more.
  _, left = tf.while_loop(
    lambda before, left: tf.reduce_any(before != left),
    drop,
    (tf.zeros_like(candidates), candidates),
  )
  return left > 0.0


def mask_overlap(masks: tf.Tensor) -> tf.Tensor:
  """[B, N, h, w] float in {0, 1} -> [B, N, N] intersections over unions; 0 for empty masks."""
  cells = flat(masks)
  return _overlaps(cells, tf.matmul(cells, cells, transpose_b=True))


def _overlaps(cells: tf.Tensor, shared: tf.Tensor) -> tf.Tensor:
  area = tf.reduce_sum(cells, axis=2)
  return tf.math.divide_no_nan(shared, area[:, :, None] + area[:, None] - shared)


def flat(masks: tf.Tensor) -> tf.Tensor:
  """[B, N, h, w] -> [B, N, h * w]."""
  if None not in masks.shape[2:]:
    return tf.reshape(masks, [tf.shape(masks)[0], masks.shape[1], masks.shape[2:].num_elements()])
  sides = tf.shape(masks)
  return tf.reshape(masks, [sides[0], masks.shape[1], sides[2] * sides[3]])
