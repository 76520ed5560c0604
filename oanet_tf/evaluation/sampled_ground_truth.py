"""The annotated segments as the ranking module's canvas samples them, for the fusion 'oracle'."""

# B images, H, W ground truth with padding, h, w canvas, K segments.

from collections.abc import Mapping, Sequence

import tensorflow as tf

from oanet_tf.data import geometry
from oanet_tf.data.categories import PanopticCategories
from oanet_tf.modeling.fusion.fuser import GroundTruth


def sample_ground_truth(
  batch: Mapping[str, tf.Tensor],
  size: Sequence[int],
  stride: int,
  categories: PanopticCategories,
) -> GroundTruth:
  """Samples the segments at the centre of each cell of a canvas; void in the padding.

  Args:
    batch: of `input_pipeline.evaluation_input`: `image_info` [B, 4, 2], `segment_index`
      [B, H, W], `segment_category_ids` [B, K].
    size: [h, w].
    stride: of the canvas, relative to the network input.
    categories: of the dataset.
  """
  (rows, row_inside), (columns, column_inside) = (
    geometry.pixels_of_cells(tf.convert_to_tensor(batch['image_info']), axis, size[axis], stride)
    for axis in (0, 1)
  )
  segments = tf.gather(batch['segment_index'], rows, axis=1, batch_dims=1)
  segments = tf.gather(segments, columns, axis=2, batch_dims=1)
  inside = row_inside[:, :, None] & column_inside[:, None]
  segments = tf.cast(segments, tf.int32) * tf.cast(inside, tf.int32)
  # The lists of segments are padded with 0, which is no category and has label 0.
  ids = tf.pad(batch['segment_category_ids'], [[0, 0], [1, 0]])
  labels = tf.cast(tf.gather(categories.label_of_id_table(), ids), tf.int32)
  return GroundTruth(segments, tf.gather(labels, segments, batch_dims=1))
