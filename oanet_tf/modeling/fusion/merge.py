"""Instances laid on a canvas one after the other, what is covered already staying as it is.

The merge is that of `panopticapi.combine_semantic_and_instance_predictions` (Kirillov et al.,
Panoptic Segmentation, section 7).
"""

# B images, N instances, S mask side, H, W canvas. Within `_Ranked`, L rows of a strip.

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import tensorflow as tf

from oanet_tf.modeling.mask_paste import cell_positions, weights_of_cells

Tensors = TypeVar('Tensors', tf.Tensor, tuple[tf.Tensor, ...])

# An instance is pasted only in those horizontal strips of the canvas that its box meets, and there
# only in the narrowest vertical window, of these parts of the width, that holds the box: a third of
# the work for objects as they are. More strips or windows cost more branches than they save.
_NUM_STRIPS = 4
_WINDOW_DIVISORS = (4, 2, 1)


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

  An instance is dropped if more than `overlap_threshold` of it is covered by those before it.

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

  def of_image(image: tuple[tf.Tensor, ...]) -> tf.Tensor:
    return _lay_all(_in_order(*image, height, width), mask_threshold, overlap_threshold)

  in_order = [tf.gather(x, order, batch_dims=1) for x in (masks, boxes, kept)]
  canvas = _for_each_image(of_image, (*in_order, sizes))[:, :height]
  indices = tf.pad(tf.reverse(order, axis=[1]) + 1, [[0, 0], [1, 0]])
  return tf.gather(indices, tf.cast(canvas, tf.int32), batch_dims=1)


def _for_each_image(
  function: Callable[[tuple[tf.Tensor, ...]], tf.Tensor], batch: tuple[tf.Tensor, ...]
) -> tf.Tensor:
  """One image at a time, since their instances meet other strips and windows."""
  if batch[0].shape[0] == 1:  # LiteRT has no `tf.map_fn`.
    return function(tuple(part[0] for part in batch))[None]
  return tf.map_fn(function, batch, fn_output_signature=tf.float32)


class _Ranked(NamedTuple):
  """One image's instances in the order in which they are laid.

  Attributes:
    count: [] int32, how many are laid; the others come last.
    stretched: [N, S, W], masks whose columns are the canvas's.
    rows: [N, L, S] of each strip, the weights of the masks' cells in the strip's rows.
    meets: [N] bool of each strip: whether the instance has a row in it.
    windows: each window's [N] starts, int32, and its width.
    window: [N] int32: the narrowest of them that holds the box.
    nothing: [L, W] float32, a strip of zeros.
    width: W.
  """

  count: tf.Tensor
  stretched: tf.Tensor
  rows: list[tf.Tensor]
  meets: list[tf.Tensor]
  windows: list[tuple[tf.Tensor, int | tf.Tensor]]
  window: tf.Tensor
  nothing: tf.Tensor
  width: int | tf.Tensor


def _in_order(
  masks: tf.Tensor,
  boxes: tf.Tensor,
  kept: tf.Tensor,
  size: tf.Tensor,
  height: int | tf.Tensor,
  width: int | tf.Tensor,
) -> _Ranked:
  y1, x1, y2, x2 = tf.unstack(boxes, axis=1)
  side, strip_height = masks.shape[-1], -(-height // _NUM_STRIPS)
  rows = cell_positions(y1, y2, side, _NUM_STRIPS * strip_height, limit=size[:1])
  columns = cell_positions(x1, x2, side, width, limit=size[1:])
  windows = [_window(x1, -(-width // divisor), width) for divisor in _WINDOW_DIVISORS]
  end = tf.cast(tf.math.ceil(tf.minimum(x2, size[1])), tf.int32)
  too_narrow = [tf.cast(start + length < end, tf.int32) for start, length in windows[:-1]]
  return _Ranked(
    count=tf.reduce_sum(tf.cast(kept, tf.int32)),
    stretched=tf.matmul(masks, weights_of_cells(columns, masks), transpose_b=True),
    rows=tf.split(weights_of_cells(rows, masks), _NUM_STRIPS, axis=1),
    meets=[tf.reduce_any(part >= 0.0, axis=1) for part in tf.split(rows, _NUM_STRIPS, axis=1)],
    windows=windows,
    window=tf.add_n(too_narrow),
    nothing=tf.zeros([strip_height, width]),
    width=width,
  )


def _window(
  x1: tf.Tensor, length: int | tf.Tensor, width: int | tf.Tensor
) -> tuple[tf.Tensor, int | tf.Tensor]:
  """Where windows of a length begin, so that they hold as much as they can from x1 on."""
  return tf.clip_by_value(tf.cast(tf.floor(x1), tf.int32), 0, width - length), length


def _lay_all(ranked: _Ranked, mask_threshold: float, overlap_threshold: float) -> tf.Tensor:
  """[L × strips, W] float32: N - rank of the instance on top, or 0.

  So the first to be laid is the greatest, and the minimum with a mask of ones is 1 where it covers
  another. Of float32, which counts pixels exactly up to 2^24: on GPUs, TensorFlow's int32
  arithmetic is done by the host.
  """
  number = ranked.stretched.shape[0]

  def lay(rank: tf.Tensor, *strips: tf.Tensor) -> tuple[tf.Tensor, ...]:
    pasted = _paste(ranked, rank, strips, mask_threshold)
    area, covered = (tf.add_n([part[i] for part in pasted]) for i in (1, 2))
    laid = covered / tf.maximum(area, 1.0) <= overlap_threshold
    value = tf.where(laid, tf.cast(number - rank, tf.float32), 0.0)
    return rank + 1, *(
      _if(meets[rank], lambda strip=strip, mask=mask: tf.maximum(strip, mask * value), strip)
      for meets, strip, (mask, *_) in zip(ranked.meets, strips, pasted, strict=True)
    )

  _, *strips = tf.while_loop(
    lambda rank, *_: rank < ranked.count,
    lay,
    (tf.constant(0), *[ranked.nothing] * _NUM_STRIPS),
    parallel_iterations=1,
  )
  return tf.concat(strips, axis=0)


def _paste(
  ranked: _Ranked, rank: tf.Tensor, strips: Sequence[tf.Tensor], mask_threshold: float
) -> list[tuple[tf.Tensor, tf.Tensor, tf.Tensor]]:
  """What is pasted of a rank's instance in each strip, all float32.

  Returns:
    For each strip its [L, W] mask, that mask's number of pixels, and how many of these are covered.
  """
  side, width = ranked.stretched.shape[1], ranked.width

  def in_window(starts: tf.Tensor, window: int | tf.Tensor) -> list[tuple[tf.Tensor, ...]]:
    start = starts[rank]
    stretched = tf.slice(ranked.stretched, [rank, 0, start], [1, side, window])[0]
    margin = width - window

    def paste(rows: tf.Tensor, strip: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
      mask = tf.cast(tf.matmul(rows[rank], stretched) >= mask_threshold, tf.float32)
      below = tf.slice(strip, [0, start], [-1, window])
      area, covered = (tf.reduce_sum(x) for x in (mask, tf.minimum(below, mask)))
      # Of static shape, as padding by `start` would not be.
      padded = tf.pad(mask, [[0, 0], [margin, margin]])
      return tf.slice(padded, [0, margin - start], [-1, width]), area, covered

    return [
      _if(
        meets[rank],
        lambda rows=rows, strip=strip: paste(rows, strip),
        (ranked.nothing, tf.constant(0.0), tf.constant(0.0)),
      )
      for meets, rows, strip in zip(ranked.meets, ranked.rows, strips, strict=True)
    ]

  paste_in = functools.partial(in_window, *ranked.windows[-1])
  # LiteRT has no `tf.switch_case`.
  for index, window in reversed(list(enumerate(ranked.windows[:-1]))):
    paste_in = functools.partial(
      tf.cond, ranked.window[rank] == index, functools.partial(in_window, *window), paste_in
    )
  return paste_in()


def _if(condition: tf.Tensor, make: Callable[[], Tensors], otherwise: Tensors) -> Tensors:
  return tf.cond(condition, make, lambda: otherwise)
