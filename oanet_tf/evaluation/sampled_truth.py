"""The truth where the ranking module's canvas samples it, for the fusion 'oracle'."""

# B images, H, W truth with padding, h, w canvas, K segments.

from collections.abc import Mapping, Sequence

import numpy as np

from oanet_tf.data.categories import PanopticCategories
from oanet_tf.modeling.scene import Truth


def sample_truth(
  batch: Mapping[str, np.ndarray],
  size: Sequence[int],
  stride: int,
  categories: PanopticCategories,
) -> Truth:
  """Samples the segments at the middle of each cell of a canvas.

  Args:
    batch: of `input_pipeline.evaluation_input`: `image_info` [B, 4, 2], `segment_index`
      [B, H, W], `segment_category_ids` [B, K].
    size: [h, w].
    stride: of the canvas, relative to the network input.
    categories: of the dataset.

  Returns:
    Arrays of int32; void in the padding.
  """
  segments = np.stack(
    [
      _sample(index, info, size, stride)
      for index, info in zip(batch['segment_index'], batch['image_info'], strict=True)
    ]
  )
  # What pads the list of segments, 0, is no category and has label 0.
  labels = categories.label_of_id_table()[batch['segment_category_ids']]
  labels = np.pad(labels, [[0, 0], [1, 0]])
  labels = np.take_along_axis(labels, segments.reshape(len(labels), -1), axis=1)
  return Truth(segments, labels.reshape(segments.shape).astype(np.int32))


def _sample(index: np.ndarray, info: np.ndarray, canvas: Sequence[int], stride: int) -> np.ndarray:
  """[H, W] -> [h, w] int32 of one image."""
  places, valid = [], []
  for axis in (0, 1):
    size, extent, scale, offset = info[:, axis]
    middles = (np.arange(canvas[axis]) + 0.5) * stride
    places.append(np.clip((middles + offset) // scale, 0, size - 1).astype(int))
    valid.append(middles < extent)
  return np.where(np.outer(*valid), index[np.ix_(*places)], 0).astype(np.int32)
