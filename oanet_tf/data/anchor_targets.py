"""Labels anchors as objects or background, for the losses of the region proposal network.

The labels are those of `official.vision.ops.anchor.RpnAnchorLabeler`, but several times as fast.
The overlaps of a box with a grid of anchors are an outer product of overlaps along the two axes,
and levels whose anchors differ too much in size are skipped. In addition, sampling takes a seed,
and anchors in crowds are ignored.
"""

# N anchors of all levels, H, W feature map of a level, A anchors at a location, M boxes.

import numpy as np
import tensorflow as tf
from official.vision.ops import box_ops

from oanet_tf.config.definitions import Data, OANet
from oanet_tf.data.anchors import Anchors

# Anchors and proposals with this fraction of their area in a crowd are not background.
CROWD_OVERLAP = 0.5


class AnchorLabeler:
  """Labels the anchors of one size of network input.

  Args:
    data: has thresholds and numbers of samples.
    model: has levels, sizes and shapes of anchors.
    canvas: [height, width] of the network input.
  """

  def __init__(self, data: Data, model: OANet, canvas: list[int]):
    self._data = data
    by_level = Anchors(model)(canvas)
    self._grids = {
      level: boxes.numpy().reshape(*boxes.shape[:2], -1, 4) for level, boxes in by_level.items()
    }
    self._boxes = np.concatenate([grid.reshape(-1, 4) for grid in self._grids.values()])

  def __call__(
    self, gt_boxes: tf.Tensor, crowd_boxes: tf.Tensor, seed: tf.Tensor
  ) -> tuple[tf.Tensor, tf.Tensor]:
    """Labels the anchors and samples from them.

    Args:
      gt_boxes: [M, 4] float32 of positive area, in pixels of the network input; M may be 0.
      crowd_boxes: [K, 4] regions to ignore.
      seed: [2] int64.

    Returns:
      samples: [N] int8: 1 for a sampled object, 0 for sampled background, otherwise -1.
      matches: [N] int16, the index of the box that an anchor matches, sampled or not; else -1.
    """
    best = tf.concat([self._best_overlap(grid, gt_boxes) for grid in self._grids.values()], axis=0)
    matched = tf.where(best >= self._data.rpn_match_threshold)[:, 0]
    # A far-away box ensures that there is at least one candidate.
    candidates = tf.concat([gt_boxes, tf.constant([[-2e4, -2e4, -1e4, -1e4]])], axis=0)
    anchors = tf.gather(tf.constant(self._boxes), matched)
    matched_boxes = tf.argmax(overlap(anchors, candidates), axis=1)
    # The best anchor of each box always matches it.
    forced = self._best_anchors(gt_boxes)
    matched = tf.concat([matched, forced], axis=0)
    matched_boxes = tf.concat([matched_boxes, tf.range(tf.size(forced, tf.int64))], axis=0)

    objects = tf.scatter_nd(matched[:, None], tf.ones_like(matched, tf.int32), [len(self._boxes)])
    objects = objects > 0
    background = (best < self._data.rpn_unmatched_threshold) & ~objects
    background &= ~within_crowd(tf.constant(self._boxes), crowd_boxes)
    matches = tf.tensor_scatter_nd_update(
      tf.fill([len(self._boxes)], tf.constant(-1, tf.int16)),
      matched[:, None],
      tf.cast(matched_boxes, tf.int16),
    )
    return self._sample(objects, background, seed), matches

  def _best_overlap(self, grid: np.ndarray, gt_boxes: tf.Tensor) -> tf.Tensor:
    """[H · W · A], each anchor's largest overlap; 0 is possible below the unmatched threshold."""
    area = _area(grid)
    gt_area = _area(gt_boxes)
    # An overlap is at most the ratio of the areas.
    ratio = tf.minimum(gt_area, area.max()) / tf.maximum(gt_area, area.min())
    gt_boxes = tf.boolean_mask(gt_boxes, ratio >= self._data.rpn_unmatched_threshold)
    rows, columns = _overlap_along_axes(grid, gt_boxes)
    shared = rows[:, :, None, :] * columns[:, None, :, :]
    overlaps = shared / (area + _area(gt_boxes)[:, None, None, None] - shared)
    return tf.reshape(tf.maximum(tf.reduce_max(overlaps, axis=0), 0.0), [-1])

  def _best_anchors(self, gt_boxes: tf.Tensor) -> tf.Tensor:
    """[M] int64, the index of the anchor that overlaps each box most.

    Of the anchors of one shape, this is the one with the largest overlaps along both axes.
    """
    overlaps, indices, first = [], [], 0
    for grid in self._grids.values():
      height, width, count, _ = grid.shape
      rows, columns = _overlap_along_axes(grid, gt_boxes)
      shared = tf.reduce_max(rows, axis=1) * tf.reduce_max(columns, axis=1)
      area = _area(tf.constant(grid[0, 0]))
      overlaps.append(shared / (area + _area(gt_boxes)[:, None] - shared))
      place = tf.argmax(rows, axis=1) * width + tf.argmax(columns, axis=1)
      indices.append(first + place * count + tf.range(count, dtype=tf.int64))
      first += height * width * count
    best = tf.argmax(tf.concat(overlaps, axis=1), axis=1)
    return tf.gather(tf.concat(indices, axis=1), best, batch_dims=1)

  def _sample(self, objects: tf.Tensor, background: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """[N] int8 samples."""
    noise = tf.random.stateless_uniform([len(self._boxes)], seed)
    batch = self._data.rpn_batch_size_per_im
    limit = int(batch * self._data.rpn_fg_fraction)
    objects = _choose(objects, noise, limit, limit)
    background = _choose(background, noise, batch, batch - tf.size(objects))
    chosen = tf.concat([objects, background], axis=0)
    values = tf.concat([tf.ones_like(objects), tf.zeros_like(background)], axis=0)
    return tf.tensor_scatter_nd_update(
      tf.fill([len(self._boxes)], tf.constant(-1, tf.int8)),
      chosen[:, None],
      tf.cast(values, tf.int8),
    )


def rpn_targets(
  samples: tf.Tensor, matches: tf.Tensor, gt_boxes: tf.Tensor, anchors: dict[str, tf.Tensor]
) -> tuple[dict[str, tf.Tensor], dict[str, tf.Tensor]]:
  """Converts a batch of labels of `AnchorLabeler` for the Model Garden's losses.

  Args:
    samples: [B, N] int8.
    matches: [B, N] int16.
    gt_boxes: [B, M, 4] float32.
    anchors: [H, W, 4 A] by level.

  Returns:
    By level, [B, H, W, A] int32 targets of scores and [B, H, W, 4 A] float32 targets of boxes,
    which are 0 for anchors that match no box.
  """
  boxes = tf.concat([tf.reshape(grid, [1, -1, 4]) for grid in anchors.values()], axis=1)
  is_object = matches[..., None] >= 0
  matched = tf.gather(gt_boxes, tf.maximum(tf.cast(matches, tf.int32), 0), batch_dims=1)
  encoded = box_ops.encode_boxes(tf.where(is_object, matched, boxes), boxes)
  encoded = tf.where(is_object, encoded, 0.0)
  sizes = [tf.size(grid) // 4 for grid in anchors.values()]

  def by_level(values: tf.Tensor, channels: int) -> dict[str, tf.Tensor]:
    parts = tf.split(values, sizes, axis=1, num=len(sizes))
    return {
      level: tf.reshape(part, [-1, *tf.unstack(tf.shape(grid)[:2]), grid.shape[2] // 4 * channels])
      for (level, grid), part in zip(anchors.items(), parts, strict=True)
    }

  return by_level(tf.cast(samples, tf.int32), 1), by_level(encoded, 4)


def _overlap_along_axes(grid: np.ndarray, boxes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
  """[M, H, A] and [M, W, A], the pixels that a box shares with each row and column of anchors."""
  low, high = boxes[:, None, None, :2], boxes[:, None, None, 2:]
  rows, columns = grid[:, 0], grid[0]
  shared_rows = tf.minimum(high[..., 0], rows[..., 2]) - tf.maximum(low[..., 0], rows[..., 0])
  shared_columns = tf.minimum(high[..., 1], columns[..., 3])
  shared_columns -= tf.maximum(low[..., 1], columns[..., 1])
  return tf.nn.relu(shared_rows), tf.nn.relu(shared_columns)


def _choose(
  candidates: tf.Tensor, noise: tf.Tensor, most: int, limit: int | tf.Tensor
) -> tf.Tensor:
  """Indices of up to `limit` candidates with the largest noise; `limit` is at most `most`."""
  most = min(most, candidates.shape[0])
  values, indices = tf.math.top_k(tf.where(candidates, noise, -1.0), most)
  count = tf.minimum(tf.reduce_sum(tf.cast(values >= 0.0, tf.int32)), limit)
  return indices[:count]


def _area(boxes: tf.Tensor | np.ndarray) -> tf.Tensor | np.ndarray:
  return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def _shared_area(boxes: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
  """[..., N, K] pixels that each of [..., N, 4] shares with each of [..., K, 4]."""
  low = tf.maximum(boxes[..., :, None, :2], others[..., None, :, :2])
  high = tf.minimum(boxes[..., :, None, 2:], others[..., None, :, 2:])
  return tf.reduce_prod(tf.nn.relu(high - low), axis=-1)


def overlap(boxes: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
  """[N, K] intersection over union of [N, 4] and [K, 4] boxes with area."""
  shared = _shared_area(boxes, others)
  return shared / (_area(boxes)[:, None] + _area(others)[None] - shared)


def within_crowd(boxes: tf.Tensor, crowd_boxes: tf.Tensor) -> tf.Tensor:
  """Finds boxes with at least `CROWD_OVERLAP` of their area in one crowd region.

  Args:
    boxes: [..., N, 4].
    crowd_boxes: [..., K, 4]; padding of -1 has no effect.

  Returns:
    [..., N] bool; all False where K is 0.
  """
  inside = _shared_area(boxes, crowd_boxes)
  area = _area(boxes)[..., None]
  return tf.reduce_any((inside >= CROWD_OVERLAP * area) & (inside > 0.0), axis=-1)
