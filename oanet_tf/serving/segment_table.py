"""Tables of the segments of panoptic maps, with a fixed shape."""

# B images, N detections, S stuff categories, L = N + S rows, H, W canvas.

import tensorflow as tf

from oanet_tf.modeling.fusion.fuser import Panoptic


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
  areas, boxes = _extents(_rows(maps, number, num_things), number + num_stuff)
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


def _extents(rows: tf.Tensor, num_rows: int) -> tuple[tf.Tensor, tf.Tensor]:
  """[B, L] areas and [B, L, 4] boxes; a box means nothing where the area is 0."""
  batch, height, width = tf.unstack(tf.shape(rows))
  segments = rows + tf.range(batch)[:, None, None] * (1 + num_rows)
  # Zeros and ones. Constants would take the canvas's size in a TFLite file.
  zeros, ones = tf.minimum(rows, 0), tf.cast(rows >= 0, tf.int32)
  y, x = zeros + tf.range(height)[:, None], zeros + tf.range(width)

  def of_segments(reduce: tf.types.experimental.GenericFunction, values: tf.Tensor) -> tf.Tensor:
    reduced = reduce(values, segments, batch * (1 + num_rows))
    return tf.reshape(reduced, [batch, 1 + num_rows])[:, 1:]

  low, high = tf.math.unsorted_segment_min, tf.math.unsorted_segment_max
  areas = of_segments(tf.math.unsorted_segment_sum, ones)
  sides = [of_segments(low, y), of_segments(low, x), of_segments(high, y), of_segments(high, x)]
  return areas, tf.stack(sides, axis=2) + tf.constant([0, 0, 1, 1])
