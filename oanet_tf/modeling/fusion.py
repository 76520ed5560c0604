"""Instances in an order + stuff logits -> one panoptic map at the image's own size.

The merge is that of `panopticapi.combine_semantic_and_instance_predictions` (Kirillov et al.,
Panoptic Segmentation, section 7). How instances are ordered is all that the fusions differ in.
"""

# B images, N instances, H, W canvas, T thing and S stuff categories, L = 1 + T + S labels.

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from oanet_tf.config import Fusion
from oanet_tf.data.categories import VOID_LABEL
from oanet_tf.modeling.mask_paste import paste_masks

# Name of a fusion -> the key of the network's output by which instances are ordered, highest first.
ORDERED_BY = {'srm': 'ranking_scores', 'heuristic': 'detection_scores'}


class Panoptic(NamedTuple):
  """A batch of panoptic maps.

  Attributes:
    category_mask: [B, H, W] int32 labels, 0 for void.
    instance_mask: [B, H, W] int32: 1 + the index of the detection at each thing's pixel, else 0.
  """

  category_mask: tf.Tensor
  instance_mask: tf.Tensor


def fuse(
  outputs: dict[str, tf.Tensor],
  image_info: tf.Tensor,
  canvas_size: tf.Tensor,
  *,
  num_things: int,
  stuff_stride: int,
  settings: Fusion,
  method: str,
) -> Panoptic:
  """Merges the network's outputs into panoptic maps.

  Args:
    outputs: of `OANet` in inference, in descending order of `detection_scores`.
    image_info: [B, 4, 2] as in `data.preprocess`.
    canvas_size: [2] int [height, width], at least the largest original size of the batch.
    num_things: T.
    stuff_stride: of `stuff_logits`, relative to the network input.
    settings: thresholds and limits.
    method: a key of `ORDERED_BY`.

  Returns:
    Panoptic maps on the canvas; void outside of an image.
  """
  kept = outputs['detection_scores'] >= settings.score_threshold
  order = merge_order(outputs[ORDERED_BY[method]], kept)
  boxes = boxes_in_original(outputs['detection_boxes'], image_info)
  masks = outputs['detection_masks']

  def mask_of(indices: tf.Tensor) -> tf.Tensor:
    """[B] detections -> [B, H, W] bool."""
    mask = tf.gather(masks, indices, batch_dims=1)[:, None]
    box = tf.gather(boxes, indices, batch_dims=1)[:, None]
    return paste_masks(mask, box, *tf.unstack(canvas_size))[:, 0] >= settings.mask_threshold

  inside = within_image(image_info, canvas_size)
  instance_mask = merge_instances(mask_of, order, kept, inside, settings.overlap_threshold)
  classes = tf.pad(outputs['detection_classes'], [[0, 0], [1, 0]])
  things = tf.gather(classes, instance_mask, batch_dims=1)
  stuff = stuff_labels(
    outputs['stuff_logits'], image_info, canvas_size, num_things=num_things, stride=stuff_stride
  )
  free = tf.logical_and(inside, instance_mask == 0)
  num_labels = 1 + num_things + outputs['stuff_logits'].shape[-1]
  stuff = tf.where(free, stuff, VOID_LABEL)
  stuff = drop_small_stuff(stuff, num_labels, settings.stuff_area_limit)
  return Panoptic(tf.where(instance_mask > 0, things, stuff), instance_mask)


def merge_order(scores: tf.Tensor, kept: tf.Tensor) -> tf.Tensor:
  """[B, N] int32: indices of the kept instances by descending score, the others after them.

  Equal scores keep the order in which the instances are given.
  """
  return tf.argsort(tf.where(kept, scores, -1.0), direction='DESCENDING', stable=True)


def merge_instances(
  mask_of: Callable[[tf.Tensor], tf.Tensor],
  order: tf.Tensor,
  kept: tf.Tensor,
  inside: tf.Tensor,
  overlap_threshold: float,
) -> tf.Tensor:
  """Lays instances on the canvas, the first of the order on top.

  An instance is dropped if more than `overlap_threshold` of it is covered by those before it.

  Args:
    mask_of: [B] indices of instances -> [B, H, W] bool masks.
    order: [B, N] int32.
    kept: [B, N] bool; the rest is never laid.
    inside: [B, H, W] bool, where the image is.
    overlap_threshold: in [0, 1].

  Returns:
    [B, H, W] int32: 1 + index of the instance, 0 where there is none.
  """
  counts = tf.reduce_sum(tf.cast(kept, tf.int32), axis=1)

  def lay(rank: tf.Tensor, canvas: tf.Tensor, used: tf.Tensor) -> tuple[tf.Tensor, ...]:
    indices = order[:, rank]
    mask = tf.logical_and(mask_of(indices), inside)
    area = _count(mask)
    covered = tf.math.divide_no_nan(_count(tf.logical_and(mask, used)), area)
    laid = (rank < counts) & (area > 0) & (covered <= overlap_threshold)
    mask = tf.logical_and(mask, laid[:, None, None])
    fresh = tf.logical_and(mask, tf.logical_not(used))
    canvas = tf.where(fresh, indices[:, None, None] + 1, canvas)
    return rank + 1, canvas, tf.logical_or(used, mask)

  _, canvas, _ = tf.while_loop(
    lambda rank, *_: rank < tf.reduce_max(counts, axis=0),
    lay,
    (tf.constant(0), tf.zeros_like(inside, tf.int32), tf.zeros_like(inside)),
  )
  return canvas


def _count(mask: tf.Tensor) -> tf.Tensor:
  return tf.reduce_sum(tf.cast(mask, tf.float32), axis=[1, 2])


def boxes_in_original(boxes: tf.Tensor, image_info: tf.Tensor) -> tf.Tensor:
  """[B, N, 4] boxes of the network input -> pixels of each original image."""
  scale, offset = image_info[:, 2], image_info[:, 3]
  return (boxes + tf.tile(offset, [1, 2])[:, None]) / tf.tile(scale, [1, 2])[:, None]


def within_image(image_info: tf.Tensor, canvas_size: tf.Tensor) -> tf.Tensor:
  """[B, H, W] bool: where the canvas is covered by each original image."""
  rows = tf.range(canvas_size[0]) < tf.cast(image_info[:, 0, 0], tf.int32)[:, None]
  columns = tf.range(canvas_size[1]) < tf.cast(image_info[:, 0, 1], tf.int32)[:, None]
  return tf.logical_and(rows[:, :, None], columns[:, None, :])


def stuff_labels(
  logits: tf.Tensor,
  image_info: tf.Tensor,
  canvas_size: tf.Tensor,
  *,
  num_things: int,
  stride: int,
) -> tf.Tensor:
  """The likeliest stuff label of each pixel of the originals.

  Logits are resampled bilinearly to the original size. The softmax over all labels that the paper
  takes first does not change which stuff label is largest.

  Args:
    logits: [B, h, w, S]; channel 0 is label T + 1.
    image_info: [B, 4, 2].
    canvas_size: [2] int.
    num_things: T.
    stride: of the logits, relative to the network input.

  Returns:
    [B, H, W] int32 in [T + 1, T + S]; void if there is no stuff category.
  """
  if logits.shape[-1] == 0:
    return tf.fill([tf.shape(logits)[0], canvas_size[0], canvas_size[1]], VOID_LABEL)
  logits = _resample(logits, image_info[:, :, 0], canvas_size[0], stride, axis=1)
  logits = _resample(logits, image_info[:, :, 1], canvas_size[1], stride, axis=2)
  return tf.argmax(logits, axis=-1, output_type=tf.int32) + num_things + 1


def _resample(
  values: tf.Tensor, info: tf.Tensor, length: tf.Tensor, stride: int, axis: int
) -> tf.Tensor:
  """Linear interpolation along an axis at the middles of the original's pixels."""
  scale, offset = info[:, 2, None], info[:, 3, None]
  position = ((tf.range(tf.cast(length, tf.float32)) + 0.5) * scale - offset) / stride - 0.5
  position = tf.clip_by_value(position, 0.0, values.shape[axis] - 1.0)
  low = tf.floor(position)
  weight = (position - low)[..., None, None]
  weight = weight if axis == 1 else tf.transpose(weight, [0, 2, 1, 3])
  index = tf.cast(low, tf.int32)
  above = tf.minimum(index + 1, values.shape[axis] - 1)
  return (1.0 - weight) * tf.gather(values, index, axis=axis, batch_dims=1) + weight * tf.gather(
    values, above, axis=axis, batch_dims=1
  )


def drop_small_stuff(labels: tf.Tensor, num_labels: int, area_limit: int) -> tf.Tensor:
  """Makes a stuff label void where it has fewer than `area_limit` pixels in its image.

  Args:
    labels: [B, H, W] int32 in [0, num_labels); 0 where there is no stuff.
    num_labels: L.
    area_limit: pixels.
  """
  batch = tf.shape(labels)[0]
  codes = labels + tf.range(batch)[:, None, None] * num_labels
  areas = tf.math.unsorted_segment_sum(tf.ones_like(labels), codes, num_segments=batch * num_labels)
  return tf.where(tf.gather(areas, codes) >= area_limit, labels, VOID_LABEL)
