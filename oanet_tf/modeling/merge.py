"""Instances laid on a canvas one after the other, what is covered already staying as it is.

The merge is that of `panopticapi.combine_semantic_and_instance_predictions` (Kirillov et al.,
Panoptic Segmentation, section 7).
"""

# B images, N instances, S mask side, H, W canvas.

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import tensorflow as tf

from oanet_tf.modeling.mask_paste import cell_positions, stretch_columns, stretch_rows

Tensors = TypeVar('Tensors', tf.Tensor, tuple[tf.Tensor, ...])

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
  ranked = _in_order(masks, boxes, order, kept, sizes, height, width)

  # A strip holds N - rank of the instance on top, or 0, so that the first to be laid is the
  # greatest, and 1 wherever a minimum with a mask of ones is not 0.
  def lay(rank: tf.Tensor, *strips: tf.Tensor) -> tuple[tf.Tensor, ...]:
    pasted = _paste(ranked, rank, strips, mask_threshold)
    area, covered = (tf.add_n([part[i] for part in pasted]) for i in (1, 2))
    share = tf.cast(covered, tf.float32) / tf.cast(tf.maximum(area, 1), tf.float32)
    laid = (rank < counts) & (area > 0) & (share <= overlap_threshold)
    value = tf.where(laid, number - rank, 0)[:, None, None]
    return rank + 1, *(
      _if(meets[rank], lambda strip=strip, mask=mask: tf.maximum(strip, mask * value), strip)
      for meets, strip, (mask, *_) in zip(ranked.meets, strips, pasted, strict=True)
    )

  _, *strips = tf.while_loop(
    lambda rank, *_: rank < tf.reduce_max(counts, axis=0),
    lay,
    (tf.constant(0), *[ranked.nothing] * _NUM_STRIPS),
    parallel_iterations=1,
  )
  indices = tf.pad(tf.reverse(order, axis=[1]) + 1, [[0, 0], [1, 0]])
  return tf.gather(indices, tf.concat(strips, axis=1)[:, :height], batch_dims=1)


class _Ranked(NamedTuple):
  """Instances in the order in which they are laid, on strips of L rows.

  Attributes:
    masks: [B, N, S, S].
    columns: [B, N, W], where the canvas's columns lie among their cells; of `cell_positions`.
    rows: [B, N, L] of each strip.
    meets: [N] bool of each strip: whether a kept instance, of any image, has a row in it.
    nothing: [B, L, W] int32, a strip of zeros.
  """

  masks: tf.Tensor
  columns: tf.Tensor
  rows: list[tf.Tensor]
  meets: list[tf.Tensor]
  nothing: tf.Tensor


def _in_order(
  masks: tf.Tensor,
  boxes: tf.Tensor,
  order: tf.Tensor,
  kept: tf.Tensor,
  sizes: tf.Tensor,
  height: int | tf.Tensor,
  width: int | tf.Tensor,
) -> _Ranked:
  masks, boxes, kept = (tf.gather(x, order, batch_dims=1) for x in (masks, boxes, kept))
  y1, x1, y2, x2 = tf.unstack(boxes, axis=2)
  side, strip_height = masks.shape[-1], -(-height // _NUM_STRIPS)
  rows = cell_positions(y1, y2, side, _NUM_STRIPS * strip_height, limit=sizes[:, :1])
  rows = tf.split(rows, _NUM_STRIPS, axis=2)
  return _Ranked(
    masks=masks,
    columns=cell_positions(x1, x2, side, width, limit=sizes[:, 1:]),
    rows=rows,
    meets=[tf.reduce_any(kept & (tf.reduce_max(part, axis=2) >= 0.0), axis=0) for part in rows],
    nothing=tf.zeros([tf.shape(masks)[0], strip_height, width], tf.int32),
  )


def _paste(
  ranked: _Ranked, rank: tf.Tensor, strips: Sequence[tf.Tensor], mask_threshold: float
) -> list[tuple[tf.Tensor, tf.Tensor, tf.Tensor]]:
  """For each strip [B, L, W] int32 masks of a rank's instances, their [B] areas, and what of them
  is covered."""
  stretched = stretch_columns(ranked.masks[:, rank], ranked.columns[:, rank])

  def paste(rows: tf.Tensor, strip: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    mask = tf.cast(stretch_rows(stretched, rows[:, rank]) >= mask_threshold, tf.int32)
    area, covered = (tf.reduce_sum(x, axis=[1, 2]) for x in (mask, tf.minimum(strip, mask)))
    return mask, area, covered

  no_area = ranked.nothing[:, 0, 0]
  return [
    _if(
      meets[rank],
      lambda rows=rows, strip=strip: paste(rows, strip),
      (ranked.nothing, no_area, no_area),
    )
    for meets, rows, strip in zip(ranked.meets, ranked.rows, strips, strict=True)
  ]


def _if(condition: tf.Tensor, make: Callable[[], Tensors], otherwise: Tensors) -> Tensors:
  return tf.cond(condition, make, lambda: otherwise)
