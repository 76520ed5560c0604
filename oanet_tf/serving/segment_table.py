"""Tables of the segments of panoptic maps, with a fixed shape."""

# B images, N detections, S stuff categories, L = N + S rows, H, W canvas.

import tensorflow as tf

from oanet_tf.data.geometry import Size
from oanet_tf.modeling.fusion.fuser import Panoptic
from oanet_tf.modeling.fusion.strips import by_strips, counts_of_rows, shape_of


def segment_table(
  maps: Panoptic,
  detection_scores: tf.Tensor,
  detection_classes: tf.Tensor,
  stuff_scores: tf.Tensor,
  category_ids: tf.Tensor,
  num_things: int,
) -> dict[str, tf.Tensor]:
  """The segments of each image: things by descending detection score, then stuff by label.

  Args:
    maps: [B, H, W], of a fusion.
    detection_scores: [B, N] float32.
    detection_classes: [B, N] int32 in [0, T].
    stuff_scores: [B, S] float32, of `FusionBatch.stuff_scores`.
    category_ids: [1 + T + S] int32, the dataset's id of each label.
    num_things: T.

  Returns:
    `num_segments` [B] int32, and columns with as many rows, padded with 0 to L:
    `segment_category_id` [B, L] int32, the dataset's; `segment_label_id` [B, L] int32, the
    category's label in [1, T + S]; `segment_instance_id` [B, L] int32, the
    segment's value in `maps.instance_mask`, 0 for stuff; `segment_is_thing` [B, L] bool;
    `segment_score` [B, L] float32, of the detection or the stuff; `segment_area` [B, L] int32, in
    pixels; `segment_box` [B, L, 4] int32, [y1, x1, y2, x2] in pixels, y2 and x2 exclusive.
  """
  batch, number = tf.shape(detection_scores)[0], detection_scores.shape[1]
  num_stuff = category_ids.shape[0] - 1 - num_things
  areas, boxes = _extents(maps, number, num_things, number + num_stuff)
  per_stuff = tf.zeros([batch, num_stuff], tf.int32)
  stuff_labels = per_stuff + tf.range(num_things + 1, num_things + 1 + num_stuff)
  labels = tf.concat([detection_classes, stuff_labels], axis=1)
  instance_ids = tf.zeros_like(detection_classes) + tf.range(1, number + 1)
  table = {
    'segment_category_id': tf.gather(category_ids, labels),
    'segment_label_id': labels,
    'segment_instance_id': tf.concat([instance_ids, per_stuff], axis=1),
    'segment_score': tf.concat([detection_scores, stuff_scores], axis=1),
    'segment_area': areas,
    'segment_box': boxes,
  }
  shown = areas > 0
  order = tf.argsort(tf.cast(shown, tf.int32), direction='DESCENDING', stable=True)

  def pack(column: tf.Tensor) -> tf.Tensor:
    of_row = shown if column.shape.rank == 2 else shown[..., None]
    column = tf.where(of_row, column, tf.zeros_like(column))
    return tf.gather(column, order, batch_dims=1)

  table = {name: pack(column) for name, column in table.items()}
  return {
    **table,
    'segment_is_thing': table['segment_instance_id'] > 0,
    'num_segments': tf.reduce_sum(tf.cast(shown, tf.int32), axis=1),
  }


def _rows(maps: Panoptic, number: int, num_things: int) -> tf.Tensor:
  """[B, H, W] int32: 1 + the row of each pixel's segment in the unsorted table, or 0 for void."""
  stuff = tf.maximum(maps.category_mask - num_things, 0)
  return tf.where(
    maps.instance_mask > 0, maps.instance_mask, tf.where(stuff > 0, number + stuff, 0)
  )


def _extents(
  maps: Panoptic, number: int, num_things: int, num_rows: int
) -> tuple[tf.Tensor, tf.Tensor]:
  """[B, L] areas and [B, L, 4] boxes; a box means nothing where the area is 0."""

  def of_strip(top: Size, _: Size, *strips: tf.Tensor) -> list[tf.Tensor]:
    of_pixels = _rows(Panoptic(*strips), number, num_things)
    in_rows = counts_of_rows(of_pixels, 1 + num_rows)
    in_columns = counts_of_rows(tf.transpose(of_pixels, [0, 2, 1]), 1 + num_rows)
    areas = tf.reduce_sum(in_rows, axis=1, keepdims=True)
    return [areas, *_ends(in_rows, top), *_ends(in_columns, 0)]

  specs = [tf.TensorSpec([None, None, 1 + num_rows], tf.int32)] * 5
  parts = by_strips(of_strip, specs, shape_of(maps.instance_mask), *maps)
  areas, top, bottom, left, right = (part[..., 1:] for part in parts)
  sides = [
    *(tf.reduce_min(side, axis=1) for side in (top, left)),
    *(tf.reduce_max(side, axis=1) for side in (bottom, right)),
  ]
  return tf.reduce_sum(areas, axis=1), tf.stack(sides, axis=2)


def _ends(counts: tf.Tensor, first: Size) -> tuple[tf.Tensor, tf.Tensor]:
  """[B, R, L] counts in lines from the first on -> [B, 1, L] the first with any, 1 + the last."""
  lines = tf.range(first, first + tf.shape(counts)[1])[:, None]
  low = tf.where(counts > 0, lines, tf.int32.max)
  high = tf.where(counts > 0, lines + 1, 0)
  return tf.reduce_min(low, axis=1, keepdims=True), tf.reduce_max(high, axis=1, keepdims=True)
