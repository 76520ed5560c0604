"""RoIAlign with as many samples as a bin has cells, as Detectron2's with `sampling_ratio=0`."""

# B images, N RoIs, R = B · N, S crop side, Q samples along a side of a bin, K cells along a side of
# a window, C channels, P cells of the whole pyramid.

import itertools
from collections.abc import Mapping
from typing import NamedTuple

import tensorflow as tf
import tf_keras

from oanet_tf.modeling.roi_align import Pyramid, assign_levels

# RoIs that are sampled together. Fewer take less memory, and more take less time.
_GROUPS = 16


class AdaptiveRoIAlign(tf_keras.layers.Layer):
  """RoIAlign (He et al., Mask R-CNN, section 3) whose samples are at most a cell apart.

  The number of samples differs between RoIs, so a sample is not gathered with its neighbours, as
  `RoIAlign` does. Instead, the window of cells that a RoI covers is gathered once, and multiplied
  by the weights of its rows and of its columns in each bin. RoIs of like height are treated
  together, since the windows of a group have one size.

  Args:
    crop_size: S.
    max_level: the coarsest level to sample from.
    **kwargs: of the Keras layer.
  """

  def __init__(self, *, crop_size: int, max_level: int = 5, **kwargs):
    super().__init__(**kwargs)
    self._crop_size = crop_size
    self._max_level = max_level

  def call(self, features: Mapping[str, tf.Tensor], rois: tf.Tensor) -> tf.Tensor:
    """Samples the RoIs; arguments and result are those of `RoIAlign`."""
    levels = [level for level in sorted(features, key=int) if int(level) <= self._max_level]
    pyramid = Pyramid.of([features[level] for level in levels])
    side, channels = self._crop_size, pyramid.features.shape[-1]
    lowest = int(levels[0])
    images, number = tf.unstack(tf.shape(rois)[:2])
    flat = tf.reshape(tf.cast(rois, tf.float32), [-1, 4])
    index = assign_levels(flat, lowest, int(levels[-1])) - lowest
    # Of the levels, exactly; powers that TensorFlow computes are a bit off in some graphs.
    scale = tf.gather(tf.constant([0.5 ** int(level) for level in levels]), index)
    # Halves are subtracted before lengths are taken, so that these round as PyTorch's.
    y1, x1, y2, x2 = tf.unstack(flat * scale[:, None] - 0.5, axis=1)
    image = tf.cast(tf.repeat(tf.range(images), number), tf.int64)
    cells_of_image = tf.shape(pyramid.features, tf.int64)[1]
    axes = _Axes(
      rows=_Axis(y1, y2, tf.gather(pyramid.heights, index)),
      columns=_Axis(x1, x2, tf.gather(pyramid.widths, index)),
      first=image * cells_of_image + tf.cast(tf.gather(pyramid.first, index), tf.int64),
    )
    cells = tf.reshape(pyramid.features, [-1, channels])
    order = tf.argsort(y2 - y1)
    bounds = [images * number * group // _GROUPS for group in range(1 + _GROUPS)]
    sampled = [
      self._sample(cells, axes.of(order[start:end])) for start, end in itertools.pairwise(bounds)
    ]
    sampled = tf.gather(tf.concat(sampled, axis=0), tf.argsort(order))
    return tf.reshape(sampled, [*_static_or(rois, images, number), side, side, channels])

  def _sample(self, cells: tf.Tensor, axes: '_Axes') -> tf.Tensor:
    """[B P, C] cells of all images -> [R, S, S, C] of some RoIs."""
    side, channels = self._crop_size, cells.shape[-1]
    rows, columns = (_weights(axis, side, cells.dtype) for axis in (axes.rows, axes.columns))
    width = tf.cast(axes.columns.length, tf.int64)
    indices = axes.first[:, None] + rows.cells * width[:, None]
    indices = indices[:, :, None] + columns.cells[:, None]
    window = tf.gather(cells, tf.reshape(indices, [-1]))
    number, height, length = tf.unstack(tf.shape(indices))
    # Each bin's rows are added up first, and then its columns.
    window = tf.reshape(window, [number, height, length * channels])
    by_row = tf.reshape(tf.matmul(rows.of_bins, window), [number * side, length, channels])
    of_bins = tf.reshape(
      tf.tile(columns.of_bins[:, None], [1, side, 1, 1]), [number * side, side, length]
    )
    return tf.reshape(tf.matmul(of_bins, by_row), [number, side, side, channels])


class _Axis(NamedTuple):
  """RoIs along one axis, [R] float32 in cells of their levels.

  Attributes:
    low, high: the sides, where 0 is the centre of the first cell.
    length: number of cells of the level.
  """

  low: tf.Tensor
  high: tf.Tensor
  length: tf.Tensor


class _Axes(NamedTuple):
  """RoIs, with [R] int64, the index of the first cell of their image and level."""

  rows: _Axis
  columns: _Axis
  first: tf.Tensor

  def of(self, indices: tf.Tensor) -> '_Axes':
    """Those of some RoIs."""
    return tf.nest.map_structure(lambda values: tf.gather(values, indices), self)


class _Weights(NamedTuple):
  """Along one axis, [R, K] int64 cells of the windows, and [R, S, K] their weights in each bin."""

  cells: tf.Tensor
  of_bins: tf.Tensor


def _weights(axis: _Axis, side: int, dtype: tf.DType) -> _Weights:
  low, high, length = (values[:, None] for values in axis)
  extent = high - low
  # In a graph, TensorFlow multiplies by the reciprocal instead of dividing by a constant. So that
  # all graphs round alike, this does so too; and rounding up must not depend on it.
  bin_size = extent * (1.0 / side)
  rounded = tf.round(bin_size)
  per_bin = rounded + tf.cast(rounded * side < extent, tf.float32)
  sample = tf.range(_most(per_bin))
  # A bin has `per_bin` samples of the greatest number of any.
  counted = sample < per_bin
  positions = (
    low[..., None]
    + (
      tf.range(side, dtype=tf.float32)[:, None]
      + tf.math.divide_no_nan(sample + 0.5, per_bin)[:, None]
    )
    * bin_size[..., None]
  )
  # Beyond the outermost cells' centres their values continue for a cell, and then is nothing.
  inside = (positions >= -1.0) & (positions <= length[..., None]) & counted[:, None]
  positions = tf.clip_by_value(positions, 0.0, length[..., None] - 1.0)
  start = tf.floor(tf.clip_by_value(low, 0.0, length - 1.0))
  end = tf.math.ceil(tf.clip_by_value(high, 0.0, length - 1.0))
  cells = start + tf.range(1.0 + _most(end - start))
  nearness = tf.nn.relu(1.0 - tf.abs(positions[..., None] - cells[:, None, None]))
  of_bins = tf.reduce_sum(nearness * tf.cast(inside, tf.float32)[..., None], axis=2)
  of_bins = tf.math.divide_no_nan(of_bins, per_bin[..., None])
  return _Weights(tf.cast(tf.minimum(cells, length - 1.0), tf.int64), tf.cast(of_bins, dtype))


def _most(numbers: tf.Tensor) -> tf.Tensor:
  """The greatest of [R, 1] numbers; 0 of none, or where RoIs have no area."""
  return tf.maximum(tf.reduce_max(numbers), 0.0)


def _static_or(rois: tf.Tensor, images: tf.Tensor, number: tf.Tensor) -> list[int | tf.Tensor]:
  """B and N, as Python ints where they are static."""
  return [
    dynamic if static is None else static
    for static, dynamic in zip(rois.shape[:2], (images, number), strict=True)
  ]
