"""Pastes instances on a canvas in turn; covered pixels keep the instance that came first.

This is the merge of `panopticapi.combine_semantic_and_instance_predictions` (Kirillov et al.,
Panoptic Segmentation, section 7).
"""

# B images, N instances, S mask side, H, W canvas, L rows of a strip.

from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf

from oanet_tf.data.geometry import Canvas
from oanet_tf.modeling.fusion.rules import RULES, Rules
from oanet_tf.modeling.mask_paste import cell_positions, weights_of_cells

# An instance is pasted only in the horizontal strips of the canvas that its box meets. This halves
# the work for typical boxes.
_NUM_STRIPS = 4


def merge_order(scores: tf.Tensor, kept: tf.Tensor) -> tf.Tensor:
  """[B, N] int32: indices of the kept instances by descending score, then the others.

  Instances with equal scores keep their order.
  """
  return tf.argsort(tf.where(kept, scores, -1.0), direction='DESCENDING', stable=True)


def merge_instances(
  masks: tf.Tensor,
  boxes: tf.Tensor,
  order: tf.Tensor,
  kept: tf.Tensor,
  canvas: Canvas,
  *,
  mask_threshold: float,
  overlap_threshold: float,
  rules: Rules = RULES['panopticapi'],
) -> tf.Tensor:
  """Pastes instances on the canvas, the first of the order on top.

  An instance is dropped if more than `overlap_threshold` of it is covered by those before it.

  Args:
    masks: [B, N, S, S] float, in the boxes.
    boxes: [B, N, 4] float, [y1, x1, y2, x2] in pixels of the canvas.
    order: [B, N] int32, of `merge_order`.
    kept: [B, N] bool; the other instances are never pasted.
    canvas: nothing is pasted outside the originals.
    mask_threshold: an instance has the pixels at which its pasted mask is at least this.
    overlap_threshold: in [0, 1].
    rules: of merging.

  Returns:
    [B, H, W] int32: 1 + index of the instance, or 0 where there is none.
  """

  def of_image(image: Sequence[tf.Tensor]) -> tf.Tensor:
    masks, boxes, kept, size = image
    number = tf.reduce_sum(tf.cast(kept, tf.int32))
    strips = _strips(boxes, size, canvas, masks.shape[-1], mask_threshold, rules)
    stretch = _stretching(masks, boxes, size, canvas, rules)
    return _paste_all(strips, stretch, number, masks.shape[0], overlap_threshold, rules)

  in_order = [tf.gather(x, order, batch_dims=1) for x in (masks, boxes, kept)]
  images = (*in_order, canvas.image_info[:, 0])
  if masks.shape[0] == 1:  # LiteRT has no `tf.map_fn`.
    merged = of_image([values[0] for values in images])[None]
  else:
    # One image at a time, since the boxes of each image meet different strips.
    merged = tf.map_fn(of_image, images, fn_output_signature=tf.float32)
  indices = tf.pad(tf.reverse(order, axis=[1]) + 1, [[0, 0], [1, 0]])
  return tf.gather(indices, tf.cast(merged[:, : canvas.height], tf.int32), batch_dims=1)


class _Strip(NamedTuple):
  """A horizontal strip of one image's canvas, with what pastes the instances there.

  Attributes:
    rows: [N, L], the positions of the strip's rows, of `cell_positions`.
    meets: [N] bool, whether the instance has a row in the strip.
    empty: [L, W] float32 zeros.
    threshold: of the mask values of an instance's pixels.
    rules: of merging.
  """

  rows: tf.Tensor
  meets: tf.Tensor
  empty: tf.Tensor
  threshold: float
  rules: Rules

  def paste(
    self, index: tf.Tensor, stretched: tf.Tensor, below: tf.Tensor
  ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """An instance's mask [L, W] in {0, 1}, its area and its area covered by `below`; float32.

    Args:
      index: of the instance.
      stretched: [S, W], its mask, resampled to the columns of the canvas.
      below: [L, W].
    """

    def paste() -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
      mask = tf.matmul(weights_of_cells(self.rows[index], stretched), stretched)
      mask = tf.cast(self.rules.reaches(mask, self.threshold), tf.float32)
      return mask, tf.reduce_sum(mask), tf.reduce_sum(tf.minimum(below, mask))

    return tf.cond(self.meets[index], paste, lambda: (self.empty, 0.0, 0.0))

  def add(self, index: tf.Tensor, below: tf.Tensor, mask: tf.Tensor, value: tf.Tensor) -> tf.Tensor:
    return tf.cond(self.meets[index], lambda: tf.maximum(below, mask * value), lambda: below)


def _strips(
  boxes: tf.Tensor,
  size: tf.Tensor,
  canvas: Canvas,
  side: int,
  threshold: float,
  rules: Rules,
) -> list[_Strip]:
  strip_height = -(-canvas.height // _NUM_STRIPS)
  positions = cell_positions(
    boxes[:, 0], boxes[:, 2], side, _NUM_STRIPS * strip_height, size[:1], rules.mask_edges
  )
  empty = tf.zeros([strip_height, canvas.width])
  return [
    _Strip(
      rows=rows,
      meets=tf.reduce_any((rows > -1.0) & (rows < side), axis=1),
      empty=empty,
      threshold=threshold,
      rules=rules,
    )
    for rows in tf.split(positions, _NUM_STRIPS, axis=1)
  ]


def _stretching(
  masks: tf.Tensor, boxes: tf.Tensor, size: tf.Tensor, canvas: Canvas, rules: Rules
) -> Callable[[tf.Tensor], tf.Tensor]:
  """Index of an instance -> [S, W], its mask, resampled to the columns of the canvas.

  Only one at a time is in memory: 100 instances on 2^16 columns would take 1.5 GB.
  """
  side = masks.shape[-1]
  columns = cell_positions(boxes[:, 1], boxes[:, 3], side, canvas.width, size[1:], rules.mask_edges)
  return lambda index: tf.matmul(
    masks[index], weights_of_cells(columns[index], masks), transpose_b=True
  )


def _paste_all(
  strips: Sequence[_Strip],
  stretch: Callable[[tf.Tensor], tf.Tensor],
  number: tf.Tensor,
  most: int,
  overlap_threshold: float,
  rules: Rules,
) -> tf.Tensor:
  """Pastes the first `number` of `most` instances, in their order.

  Returns:
    [strips * L, W] float32: `most` - index of the instance on top, or 0. The first instance thus
    has the greatest value, and the minimum with a mask of ones is 1 at covered pixels. It is
    float32, which counts pixels exactly up to 2^24, because TensorFlow computes int32 on the host.
  """

  def paste(index: tf.Tensor, *canvas: tf.Tensor) -> tuple[tf.Tensor, ...]:
    stretched = stretch(index)
    pasted = [
      strip.paste(index, stretched, below) for strip, below in zip(strips, canvas, strict=True)
    ]
    masks, areas, covered = zip(*pasted, strict=True)
    fraction = tf.add_n(covered) / tf.maximum(tf.add_n(areas), 1.0)
    is_kept = rules.is_low(fraction, overlap_threshold)
    value = tf.where(is_kept, tf.cast(most - index, tf.float32), 0.0)
    return index + 1, *(
      strip.add(index, below, mask, value)
      for strip, below, mask in zip(strips, canvas, masks, strict=True)
    )

  _, *canvas = tf.while_loop(
    lambda index, *_: index < number,
    paste,
    (tf.constant(0), *(strip.empty for strip in strips)),
    parallel_iterations=1,
  )
  return tf.concat(canvas, axis=0)
