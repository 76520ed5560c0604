"""Stuff logits at the network's stride -> labels at the image's own size; areas and scores."""

# B images, C channels, S stuff, T thing categories, H, W canvas, h, w grid of logits.

import functools
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from oanet_tf.data.categories import VOID_LABEL
from oanet_tf.data.geometry import Canvas, Size, height_and_width
from oanet_tf.modeling.fusion.connected_components import connected_components
from oanet_tf.modeling.fusion.rules import Resampling, directly
from oanet_tf.modeling.fusion.strips import MAP, by_strips, counts_of_rows, shape_of
from oanet_tf.modeling.stuff_channels import StuffChannels


def stuff_labels(
  logits: tf.Tensor,
  canvas: Canvas,
  *,
  channels: StuffChannels,
  stride: int,
  stuff_from: str = 'stuff',
  resampling: Resampling = directly,
) -> tf.Tensor:
  """The most likely stuff label of each pixel of the originals.

  The paper's softmax over all labels is left out, as it does not change the largest.

  Args:
    logits: [B, h, w, C] of the stuff branch.
    canvas: of the labels.
    channels: what the logits stand for.
    stride: of the logits, relative to the network input.
    stuff_from: 'stuff' takes the largest of the stuff channels. 'all' takes the largest of all
      channels, and makes the pixel void if it is a thing or void.
    resampling: of `rules.Rules`.

  Returns:
    [B, H, W] int32: 0 for void, or in [T + 1, T + S].
  """
  counted = logits if stuff_from == 'all' else channels.stuff_logits(logits)
  if counted.shape[-1] == 0:
    return tf.fill([tf.shape(logits)[0], canvas.height, canvas.width], VOID_LABEL)
  # The last channels are the last labels.
  first_label = 1 + channels.num_things + channels.stuff - counted.shape[-1]
  labels = first_label + resampled_argmax(counted, canvas, stride, resampling)
  return tf.where(labels > channels.num_things, labels, tf.zeros_like(labels))


def resampled_argmax(
  logits: tf.Tensor, canvas: Canvas, stride: int, resampling: Resampling = directly
) -> tf.Tensor:
  """The channel of the largest logit, after bilinear resampling to the original size.

  Channels are resampled in turn, so memory does not grow with their number. Those that cannot be
  the largest anywhere are skipped.

  Args:
    logits: [B, h, w, C], C at least 1.
    canvas: of the originals.
    stride: of the logits, relative to the network input.
    resampling: of `rules.Rules`.

  Returns:
    [B, H, W] int32 in [0, C); of equal logits the first.
  """
  (h, w), num_channels = height_and_width(logits), logits.shape[-1]
  rows, columns = (
    [_samples(positions) for positions in resampling(canvas, axis, cells, stride)]
    for axis, cells in enumerate((h, w))
  )
  planes = tf.transpose(logits, [3, 0, 2, 1])
  candidates = _can_be_largest(logits, 1 + len(rows))
  order = tf.argsort(tf.cast(candidates, tf.int32), direction='DESCENDING', stable=True)
  shape = [tf.shape(logits)[0], canvas.height, canvas.width]

  def plane_of(channel: tf.Tensor) -> tf.Tensor:
    plane = functools.reduce(_resample, columns, tf.gather(planes, channel))
    return functools.reduce(_resample, rows, tf.transpose(plane, [0, 2, 1]))

  def compare(step: tf.Tensor, largest: tf.Tensor, winner: tf.Tensor) -> tuple[tf.Tensor, ...]:
    channel = order[step]
    plane = plane_of(channel)
    # Channels come in ascending order, so the latest winner is the greatest. It is float32, because
    # TensorFlow computes int32 on the host.
    wins = tf.cast(plane > largest, tf.float32)
    winner = tf.maximum(winner, wins * tf.cast(channel, tf.float32))
    return step + 1, tf.maximum(largest, plane), winner

  number = tf.reduce_sum(tf.cast(candidates, tf.int32))
  # Starts with the first channel. A constant would take the canvas's size in a TFLite file.
  start = (tf.constant(1), plane_of(order[0]), tf.fill(shape, tf.cast(order[0], tf.float32)))
  _, _, winner = tf.while_loop(
    lambda step, *_: step < number, compare, start, maximum_iterations=num_channels
  )
  return tf.cast(winner, tf.int32)


def _can_be_largest(logits: tf.Tensor, reach: int) -> tf.Tensor:
  """[C] bool: false for channels that are below another one in every window of `reach` cells.

  A sample lies between the smallest and the greatest of the cells that it is a mean of. These are
  two along an axis, and three where it is resampled twice.
  """
  highest = tf.nn.max_pool2d(logits, reach, 1, 'SAME')
  lowest = -tf.nn.max_pool2d(-logits, reach, 1, 'SAME')
  bound = tf.reduce_max(lowest, axis=-1, keepdims=True)
  return tf.reduce_max(highest - bound, axis=[0, 1, 2]) >= 0.0


def stuff_scores(
  logits: tf.Tensor,
  category_mask: tf.Tensor,
  canvas: Canvas,
  *,
  channels: StuffChannels,
  stride: int,
) -> tf.Tensor:
  """The mean probability of each stuff category over its pixels, taken from their nearest cells.

  Args:
    logits: [B, h, w, C] of the stuff branch.
    category_mask: [B, H, W] int32 labels of a panoptic map.
    canvas: of the map.
    channels: what the logits stand for.
    stride: of the logits, relative to the network input.

  Returns:
    [B, S] float32 in [0, 1]; 0 for a category without a pixel.
  """
  batch, num_stuff = tf.shape(logits)[0], channels.stuff
  if num_stuff == 0:
    return tf.zeros([batch, 0])
  h, w = height_and_width(logits)
  probabilities = tf.reshape(channels.stuff_logits(tf.nn.softmax(logits)), [batch, -1])

  def of_rows(top: Size, rows: Size, category_mask: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    strip, stuff = canvas.strip(top, rows), category_mask - (1 + channels.num_things)
    row, column = (
      tf.cast(tf.round(strip.cells_of_pixels(axis, cells, stride)), tf.int32)
      for axis, cells in enumerate((h, w))
    )
    cells = row[:, :, None] * w + column[:, None, :]
    of_pixels = tf.gather(probabilities, cells * num_stuff + tf.maximum(stuff, 0), batch_dims=1)
    first = (tf.range(batch)[:, None] * rows + tf.range(rows)) * num_stuff
    ids = tf.where(stuff >= 0, first[:, :, None] + stuff, batch * rows * num_stuff)

    sums = tf.math.unsorted_segment_sum(of_pixels, ids, batch * rows * num_stuff + 1)[:-1]
    areas = counts_of_rows(tf.maximum(stuff + 1, 0), 1 + num_stuff)[..., 1:]
    return tf.reshape(sums, [batch, rows, num_stuff]), tf.cast(areas, tf.float32)

  # First by rows: a float32 cannot count all pixels of a large image.
  specs = (tf.TensorSpec([None, None, num_stuff]),) * 2
  sums, areas = (
    tf.reduce_sum(values, axis=1)
    for values in by_strips(of_rows, specs, shape_of(category_mask), category_mask)
  )
  return tf.minimum(sums / tf.maximum(areas, 1.0), 1.0)


class _Samples(NamedTuple):
  """Sampled positions of an axis: [B, L] the cell below, [B, L, 1] the way to the next."""

  below: tf.Tensor
  fraction: tf.Tensor


def _samples(positions: tf.Tensor) -> _Samples:
  below = tf.floor(positions)
  return _Samples(tf.cast(below, tf.int32), (positions - below)[..., None])


def _resample(values: tf.Tensor, samples: _Samples) -> tf.Tensor:
  """[B, cells, D] -> [B, L, D], linearly."""
  steps = tf.pad(values[:, 1:] - values[:, :-1], [[0, 0], [0, 1], [0, 0]])
  below = tf.gather(values, samples.below, batch_dims=1)
  return below + samples.fraction * tf.gather(steps, samples.below, batch_dims=1)


def large_stuff(
  labels: tf.Tensor,
  num_labels: int,
  reaches_limit: Callable[[tf.Tensor], tf.Tensor],
  area_by: str = 'class',
) -> tf.Tensor:
  """Whether the stuff at each pixel has a large enough area.

  Args:
    labels: [B, H, W] int32 in [0, num_labels); 0 where there is no stuff.
    num_labels: 1 + T + S.
    reaches_limit: int32 areas, in pixels -> bool of the same shape.
    area_by: 'class' counts all pixels of a label in an image, as
      `panopticapi.combine_semantic_and_instance_predictions` does. 'component' counts those of each
      connected component (section 4.2: "the min area of a connected stuff area").

  Returns:
    [B, H, W] bool.
  """
  if area_by == 'component':
    return reaches_limit(_component_areas(labels))

  def count(_: Size, __: Size, labels: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(counts_of_rows(labels, num_labels), axis=1, keepdims=True)

  spec = tf.TensorSpec([None, None, num_labels], tf.int32)
  areas = tf.reduce_sum(by_strips(count, spec, shape_of(labels), labels), axis=1)

  # The areas of all pixels, as int32, would take four times the memory.
  def look_up(_: Size, __: Size, labels: tf.Tensor) -> tf.Tensor:
    return reaches_limit(tf.gather(areas, labels, batch_dims=1))

  return by_strips(look_up, tf.TensorSpec(MAP.shape, tf.bool), shape_of(labels), labels)


def _component_areas(labels: tf.Tensor) -> tf.Tensor:
  """[B, H, W] int32, the pixels of each pixel's connected component."""
  components = connected_components(labels)
  # These are ones. A constant would take the canvas's size in a TFLite file.
  ones = tf.cast(labels >= 0, tf.int32)
  return tf.gather(tf.math.unsorted_segment_sum(ones, components, tf.size(labels)), components)
