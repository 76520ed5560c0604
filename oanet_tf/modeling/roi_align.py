"""Samples features at regions of interest, as Detectron2's `ROIAlign` with `aligned=True`."""

# B images, N RoIs, S crop side, Q samples along a side of a bin, L = S · Q, C channels.

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import tensorflow as tf
import tf_keras

from oanet_tf.data.geometry import height_and_width

# From this size on, a RoI belongs to this level (Lin et al., Feature Pyramid Networks, Eq. 1).
_CANONICAL_SIZE, _CANONICAL_LEVEL = 224.0, 4


class RoIAlign(tf_keras.layers.Layer):
  """RoIAlign (He et al., Mask R-CNN, section 3) on the level of the pyramid that fits each RoI.

  A bin is the mean of bilinear samples at Q × Q regular positions. Indices are computed in float32,
  which is exact below 2^24 cells, as TensorFlow computes int32 on the host.

  Args:
    crop_size: S.
    samples: Q.
    max_level: the coarsest level to sample from.
    aligned: whether the centre of cell k lies at k + 0.5, as everywhere in this package, or at k.
    **kwargs: of the Keras layer.

  Attributes:
    bins_at_once: RoIs are sampled one part after the other, with so many bins each; None samples
      all together. The neighbours of a bin take 16 KB at 256 channels.
  """

  def __init__(
    self,
    *,
    crop_size: int,
    samples: int = 2,
    max_level: int = 5,
    aligned: bool = True,
    **kwargs,
  ):
    super().__init__(**kwargs)
    self._crop_size = crop_size
    self._samples = samples
    self._max_level = max_level
    self._shift = 0.5 if aligned else 0.0
    self.bins_at_once: int | None = None

  def call(self, features: Mapping[str, tf.Tensor], rois: tf.Tensor) -> tf.Tensor:
    """Samples the RoIs.

    Args:
      features: [B, h, w, C] by level.
      rois: [B, N, 4] in pixels of the network input.

    Returns:
      [B, N, S, S, C] of the features' type.
    """
    levels = [level for level in sorted(features, key=int) if int(level) <= self._max_level]
    pyramid = Pyramid.of([features[level] for level in levels])
    rois, lowest, highest = tf.cast(rois, tf.float32), int(levels[0]), int(levels[-1])
    if self.bins_at_once is None:
      return self._sample(pyramid, rois, lowest, highest)
    number = max(1, self.bins_at_once // self._crop_size**2)
    parts = [rois[:, first : first + number] for first in range(0, rois.shape[1], number)]
    sampled = [self._sample(pyramid, part, lowest, highest) for part in parts]
    return sampled[0] if len(sampled) == 1 else tf.concat(sampled, axis=1)

  def _sample(self, pyramid: 'Pyramid', rois: tf.Tensor, lowest: int, highest: int) -> tf.Tensor:
    index = assign_levels(rois, lowest, highest) - lowest
    stride = 2.0 ** tf.cast(index + lowest, tf.float32)
    height, width = (tf.gather(sides, index) for sides in (pyramid.heights, pyramid.widths))
    rows = self._samples_along(rois[..., 0] / stride, rois[..., 2] / stride, height)
    columns = self._samples_along(rois[..., 1] / stride, rois[..., 3] / stride, width)
    first = tf.gather(pyramid.first, index)[..., None]
    row_starts = first + rows.cells * width[..., None]
    cells = row_starts[..., None] + columns.cells[..., None, :]
    weights = rows.weights[..., None] * columns.weights[..., None, :]
    bins = self._weighted_sums(pyramid.features, cells, weights)
    return tf.ensure_shape(bins, [*rois.shape[:2], *bins.shape[2:]])

  def _samples_along(self, low: tf.Tensor, high: tf.Tensor, length: tf.Tensor) -> '_Neighbours':
    """The cells, with their weights, between which the samples of each bin lie, along one axis.

    Args:
      low, high: [B, N] float32, sides of the RoIs in cells of their level.
      length: [B, N] float32, number of cells.
    """
    number = self._crop_size * self._samples
    # TensorFlow moves constants about in some graphs and not in others. In this form, all round
    # alike.
    fractions = (np.arange(number, dtype=np.float32) + 0.5) / number
    positions = (low - self._shift)[..., None] + (high - low)[..., None] * fractions
    length = length[..., None]
    # Beyond the outermost cells' centres their values continue for a cell, and then is nothing.
    inside = tf.cast((positions >= -1.0) & (positions <= length), tf.float32)
    positions = tf.clip_by_value(positions, 0.0, length - 1.0)
    before = tf.floor(positions)
    cells = tf.stack([before, tf.minimum(before + 1.0, length - 1.0)], axis=-1)
    fraction = positions - before
    weights = (
      tf.stack([1.0 - fraction, fraction], axis=-1) * inside[..., None] * (1.0 / self._samples)
    )
    shape = [*tf.unstack(tf.shape(low)), 2 * number]
    return _Neighbours(tf.reshape(cells, shape), tf.reshape(weights, shape))

  def _weighted_sums(self, features: tf.Tensor, cells: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """[B, P, C] features, [B, N, 2 L, 2 L] cells and weights -> [B, N, S, S, C]."""
    images, number = tf.unstack(tf.shape(cells)[:2])
    side, in_bin, channels = self._crop_size, 2 * self._samples, features.shape[-1]

    def by_bin(values: tf.Tensor) -> tf.Tensor:
      # TFLite has no more than five dimensions.
      values = tf.reshape(values, [images * number, side, in_bin, side, in_bin])
      values = tf.transpose(values, [0, 1, 3, 2, 4])
      return tf.reshape(values, [images, number * side**2, in_bin**2])

    neighbours = tf.gather(features, tf.cast(by_bin(cells), tf.int64), batch_dims=1)
    weights = tf.cast(by_bin(weights), features.dtype)[:, :, None]
    return tf.reshape(tf.matmul(weights, neighbours), [images, number, side, side, channels])


class _Neighbours(NamedTuple):
  """Along one axis, [B, N, 2 L] float32: two cells with their weights for each sample."""

  cells: tf.Tensor
  weights: tf.Tensor


class Pyramid(NamedTuple):
  """The cells of all levels, one after the other.

  Attributes:
    features: [B, P, C].
    heights, widths: [levels] float32, in cells.
    first: [levels] float32, index of each level's first cell.
  """

  features: tf.Tensor
  heights: tf.Tensor
  widths: tf.Tensor
  first: tf.Tensor

  @classmethod
  def of(cls, maps: list[tf.Tensor]) -> 'Pyramid':
    """From [B, h, w, C] maps."""
    sizes = [height_and_width(level) for level in maps]
    flat = [
      tf.reshape(level, [-1, height * width, level.shape[-1]])
      for level, (height, width) in zip(maps, sizes, strict=True)
    ]
    heights, widths = (tf.cast(tf.stack(sides), tf.float32) for sides in zip(*sizes, strict=True))
    return cls(
      tf.concat(flat, axis=1), heights, widths, tf.cumsum(heights * widths, exclusive=True)
    )


def assign_levels(rois: tf.Tensor, min_level: int, max_level: int) -> tf.Tensor:
  """The level of the pyramid for each RoI (Lin et al., Feature Pyramid Networks, Eq. 1).

  Args:
    rois: [..., 4] float32 in pixels of the network input.
    min_level, max_level: of the pyramid.

  Returns:
    [...] int64 in [min_level, max_level].
  """
  height, width = tf.unstack(tf.nn.relu(rois[..., 2:] - rois[..., :2]), axis=-1)
  # Compared by area, as a logarithm could be rounded to the level below.
  sizes = [
    _CANONICAL_SIZE * 2.0 ** (n - _CANONICAL_LEVEL) for n in range(min_level + 1, max_level + 1)
  ]
  is_larger = (height * width)[..., None] >= tf.constant(np.square(sizes), tf.float32)
  return min_level + tf.cast(tf.reduce_sum(tf.cast(is_larger, tf.float32), axis=-1), tf.int64)
