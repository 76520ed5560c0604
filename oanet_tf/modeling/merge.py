"""Instances laid on a canvas one after the other, what is covered already staying as it is.

The merge is that of `panopticapi.combine_semantic_and_instance_predictions` (Kirillov et al.,
Panoptic Segmentation, section 7).
"""

# B images, N instances, S mask side, H, W canvas.

import tensorflow as tf

from oanet_tf.modeling.mask_paste import stretch_columns, stretch_rows

# An instance is pasted in those horizontal strips of the canvas alone that its box meets: half of
# the work for objects as they are. More of them cost more branches than they save.
_NUM_STRIPS = 4


def merge_order(scores: tf.Tensor, kept: tf.Tensor) -> tf.Tensor:
  """[B, N] int32: indices of the kept instances by descending score, the others after them.

  Equal scores keep the order in which the instances are given.
  """
  return tf.argsort(tf.where(kept, scores, -1.0), direction='DESCENDING', stable=True)


def merge_instances(
  masks: tf.Tensor,
  boxes: tf.Tensor,
  order: tf.Tensor,
  kept: tf.Tensor,
  sizes: tf.Tensor,
  height: int | tf.Tensor,
  width: int | tf.Tensor,
  *,
  mask_threshold: float,
  overlap_threshold: float,
) -> tf.Tensor:
  """Lays instances on the canvas, the first of the order on top.

  An instance is dropped if it has no pixel, or more than `overlap_threshold` of it is covered by
  those before it.

  Args:
    masks: [B, N, S, S] float, in the boxes.
    boxes: [B, N, 4] float, [y1, x1, y2, x2] in pixels of the canvas.
    order: [B, N] int32, of `merge_order`.
    kept: [B, N] bool; the rest is never laid.
    sizes: [B, 2] float, [height, width] of each image within the canvas.
    height, width: of the canvas.
    mask_threshold: a pixel belongs to an instance from this value of its pasted mask on.
    overlap_threshold: in [0, 1].

  Returns:
    [B, H, W] int32: 1 + index of the instance, 0 where there is none.
  """
  number = masks.shape[1]
  counts = tf.reduce_sum(tf.cast(kept, tf.int32), axis=1)
  masks, boxes, kept = (tf.gather(x, order, batch_dims=1) for x in (masks, boxes, kept))
  strip_height = -(-height // _NUM_STRIPS)
  first_rows = [strip_height * n for n in range(_NUM_STRIPS)]
  meets = _meeting_strips(boxes, kept, first_rows, strip_height)
  nothing = tf.zeros([tf.shape(masks)[0], strip_height, width], tf.int32)
  no_area = tf.zeros_like(counts)

  # A strip holds N - rank of the instance on top, or 0, so that the first to be laid is the
  # greatest, and 1 wherever a minimum with a mask of ones is not 0.
  def lay(rank: tf.Tensor, *strips: tf.Tensor) -> tuple[tf.Tensor, ...]:
    box = boxes[:, rank]
    stretched = stretch_columns(masks[:, rank], box, width, sizes[:, 1])

    def paste(strip: tf.Tensor, first_row: int | tf.Tensor) -> tuple[tf.Tensor, ...]:
      mask = stretch_rows(stretched, box, strip_height, first_row, sizes[:, 0])
      mask = tf.cast(mask >= mask_threshold, tf.int32)
      return mask, _count(mask), _count(tf.minimum(strip, mask))

    pasted = [
      tf.cond(
        meets[rank, n],
        lambda n=n: paste(strips[n], first_rows[n]),
        lambda: (nothing, no_area, no_area),
      )
      for n in range(_NUM_STRIPS)
    ]
    area, covered = (tf.add_n([part[i] for part in pasted]) for i in (1, 2))
    share = tf.cast(covered, tf.float32) / tf.cast(tf.maximum(area, 1), tf.float32)
    laid = (rank < counts) & (area > 0) & (share <= overlap_threshold)
    value = tf.where(laid, number - rank, 0)[:, None, None]
    strips = [
      tf.cond(
        meets[rank, n],
        lambda n=n: tf.maximum(strips[n], pasted[n][0] * value),
        lambda n=n: strips[n],
      )
      for n in range(_NUM_STRIPS)
    ]
    return rank + 1, *strips

  _, *strips = tf.while_loop(
    lambda rank, *_: rank < tf.reduce_max(counts, axis=0),
    lay,
    (tf.constant(0), *[nothing] * _NUM_STRIPS),
  )
  indices = tf.pad(tf.reverse(order, axis=[1]) + 1, [[0, 0], [1, 0]])
  return tf.gather(indices, tf.concat(strips, axis=1)[:, :height], batch_dims=1)


def _meeting_strips(
  boxes: tf.Tensor, kept: tf.Tensor, first_rows: list[int | tf.Tensor], strip_height: int
) -> tf.Tensor:
  """[N, strips] bool: whether the kept box of a rank, of any image, meets the strip."""
  starts = tf.cast(tf.stack(first_rows), tf.float32)
  ends = starts + tf.cast(strip_height, tf.float32)
  meets = (boxes[..., 0, None] < ends) & (boxes[..., 2, None] > starts)
  return tf.reduce_any(meets & kept[..., None], axis=0)


def _count(mask: tf.Tensor) -> tf.Tensor:
  return tf.reduce_sum(mask, axis=[1, 2])
