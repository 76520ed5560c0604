"""Computes maps of large images in horizontal strips, one after the other.

A map of 2^25 pixels takes 134 MB, and so does each step on the way to it; those of a strip take a
part of that. Each pixel is computed as it would be at once.
"""

# B images, H, W canvas, L rows of a strip.

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from oanet_tf.data.geometry import Size

# Of all images of the batch together.
_STRIP_PIXELS = 2**20

Shape = tuple[Size, Size, Size]
# The type of a map of labels or instances.
MAP = tf.TensorSpec([None, None, None], tf.int32)


def by_strips(function: Callable[..., Any], specs: Any, shape: Shape, *maps: tf.Tensor) -> Any:
  """The results of a function for all strips, one below the other.

  Args:
    function: (first row, number of rows, *the strips of `maps`) -> a nest of [B, …]. Their second
      axis is that of rows: L, or one for each strip.
    specs: the nest of their types, [None, None, …].
    shape: B, H, W. If H is a Python int, as for TFLite, there is one strip and no loop.
    maps: [B, H, W] each.
  """
  batch, height, width = shape
  if isinstance(height, int):
    return function(0, height, *maps)
  rows = tf.clip_by_value(_STRIP_PIXELS // tf.maximum(batch * width, 1), 1, tf.maximum(height, 1))
  number = -(-height // rows)
  flat_specs = tf.nest.flatten(specs)

  def add(index: tf.Tensor, *arrays: tf.TensorArray) -> tuple[Any, ...]:
    first = index * rows
    count = tf.minimum(rows, height - first)
    strip = function(first, count, *(values[:, first : first + count] for values in maps))
    written = (
      array.write(index, _exchanged(values))
      for array, values in zip(arrays, tf.nest.flatten(strip), strict=True)
    )
    return index + 1, *written

  arrays = [tf.TensorArray(spec.dtype, number, infer_shape=False) for spec in flat_specs]
  _, *arrays = tf.while_loop(
    lambda index, *_: index < number, add, (tf.constant(0), *arrays), parallel_iterations=1
  )
  whole = [
    _exchanged(tf.ensure_shape(array.concat(), _exchanged_shape(spec)))
    for array, spec in zip(arrays, flat_specs, strict=True)
  ]
  return tf.nest.pack_sequence_as(specs, whole)


def _exchanged(values: tf.Tensor) -> tf.Tensor:
  """[B, L, …] <-> [L, B, …]; no byte is moved where one of both is 1."""
  return tf.transpose(values, [1, 0, *range(2, values.shape.rank)])


def _exchanged_shape(spec: tf.TensorSpec) -> list[int | None]:
  return [spec.shape[1], spec.shape[0], *spec.shape[2:]]


def counts_of_rows(values: tf.Tensor, number: int) -> tf.Tensor:
  """How often each value is in each row.

  Args:
    values: [B, L, W] int32 in [0, number).
    number: K.

  Returns:
    [B, L, K] int32.
  """
  batch, rows, width = tf.unstack(tf.shape(values))
  if values.shape[1] is None:
    # This takes a twentieth of the time.
    counts = tf.raw_ops.DenseBincount(
      input=tf.reshape(values, [batch * rows, width]),
      size=number,
      weights=tf.zeros([0], tf.int32),
    )
    return tf.ensure_shape(tf.reshape(counts, [batch, rows, number]), [None, None, number])
  # LiteRT has nothing else. Ones: a constant would take the canvas's size in a TFLite file.
  ones = tf.cast(values >= 0, tf.int32)
  places = tf.reshape(tf.range(batch * rows) * number, [batch, rows, 1])
  counts = tf.math.unsorted_segment_sum(ones, values + places, batch * rows * number)
  return tf.reshape(counts, [batch, values.shape[1], number])


def shape_of(values: tf.Tensor) -> Shape:
  """B, H, W of a map, [B, H, W]."""
  sides = tf.shape(values)
  return tuple(sides[i] if values.shape[i] is None else values.shape[i] for i in range(3))
