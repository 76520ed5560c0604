"""What the mask head is to predict in a RoI."""

# B images, N RoIs, K masks, M ground truth instances, S side of their masks, T side of the targets.

import tensorflow as tf

from oanet_tf.modeling.roi_sampling import SampledROIs


def first_objects(sampled: SampledROIs, number: int) -> SampledROIs:
  """The first K RoIs that are objects; the rest of the slots have classes that are not above 0.

  Args:
    sampled: of the RoI sampler.
    number: K, at most N.
  """
  is_object = tf.cast(sampled.classes > 0, tf.float32)
  chosen = tf.math.top_k(is_object, k=number).indices
  return SampledROIs(*(tf.gather(values, chosen, batch_dims=1) for values in sampled))


def mask_targets(sampled: SampledROIs, gt_masks: tf.Tensor, side: int) -> tf.Tensor:
  """[B, K, T, T] float32 in [0, 1], the fraction of each cell of a RoI that its object covers.

  A mask that is predicted so and pasted has its edge, at one half, where the object's is.

  Args:
    sampled: K RoIs; others than objects get the mask of any.
    gt_masks: [B, M, S, S] float32 in {0, 1}, each in its box.
    side: T.
  """
  masks = tf.gather(gt_masks, tf.maximum(sampled.matched_indices, 0), batch_dims=1)
  return covered_fractions(masks, sampled.matched_boxes, sampled.boxes, side)


def covered_fractions(masks: tf.Tensor, boxes: tf.Tensor, rois: tf.Tensor, side: int) -> tf.Tensor:
  """The fraction of each cell of a RoI that a mask covers.

  Args:
    masks: [..., S, S] float32 in {0, 1}, of the cells of their boxes.
    boxes: [..., 4] float32, [y1, x1, y2, x2].
    rois: [..., 4] float32, in the same pixels.
    side: T.

  Returns:
    [..., T, T] float32 in [0, 1]; 0 for a box or RoI without area.
  """
  rows, columns = (
    _shared_fractions(masks.shape[-1], boxes[..., axis::2], rois[..., axis::2], side)
    for axis in (0, 1)
  )
  return tf.matmul(tf.matmul(rows, masks), columns, transpose_b=True)


def _shared_fractions(num_cells: int, box: tf.Tensor, roi: tf.Tensor, side: int) -> tf.Tensor:
  """[..., 2] sides along an axis -> [..., T, S], the fraction of a RoI's cell in a mask's cell."""

  def edges(ends: tf.Tensor, count: int) -> tf.Tensor:
    low, high = ends[..., :1], ends[..., 1:]
    return low + (high - low) * tf.range(count + 1, dtype=tf.float32) / count

  ours, theirs = edges(roi, side)[..., None], edges(box, num_cells)[..., None, :]
  low = tf.maximum(ours[..., :-1, :], theirs[..., :-1])
  high = tf.minimum(ours[..., 1:, :], theirs[..., 1:])
  return tf.math.divide_no_nan(tf.nn.relu(high - low), ours[..., 1:, :] - ours[..., :-1, :])
