"""The ground truth where the ranking module's canvas samples it, for the fusion 'oracle'."""

# B images, H, W ground truth with padding, h, w canvas, K segments.

from collections.abc import Mapping, Sequence

import numpy as np

from oanet_tf.data.categories import PanopticCategories
from oanet_tf.modeling.scene import Truth


def sample_ground_truth(
  batch: Mapping[str, np.ndarray],
  size: Sequence[int],
  stride: int,
  categories: PanopticCategories,
) -> Truth:
  """Samples the segments at the center of each cell of a canvas.

  Args:
    batch: of `input_pipeline.evaluation_dataset`: `image_info` [B, 4, 2], `segment_index`
      [B, H, W], `segment_category_ids` [B, K].
    size: [h, w].
    stride: of the canvas, relative to the network input.
    categories: of the dataset.

  Returns:
    Arrays of int32; void in the padding.
  """
  pairs = zip(batch['segment_index'], batch['image_info'], strict=True)
  segments = np.stack([_sample(index, info, size, stride) for index, info in pairs])
  # The lists of segments are padded with 0, which is no category and has label 0.
  labels = categories.label_of_id_table()[np.pad(batch['segment_category_ids'], [[0, 0], [1, 0]])]
  return Truth(segments, labels[np.arange(len(labels))[:, None, None], segments])


def _sample(index: np.ndarray, info: np.ndarray, canvas: Sequence[int], stride: int) -> np.ndarray:
  """[H, W] -> [h, w] int32 of one image."""
  places, valid = [], []
  for axis in (0, 1):
    size, extent, scale, offset = info[:, axis]
    centers = (np.arange(canvas[axis]) + 0.5) * stride
    places.append(np.clip((centers + offset) // scale, 0, size - 1).astype(int))
    valid.append(centers < extent)
  return np.where(np.outer(*valid), index[np.ix_(*places)], 0).astype(np.int32)
