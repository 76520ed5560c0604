"""The anchors of the region proposal network."""

# H, W cells of a level, A anchors at a cell.

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from official.vision.ops import anchor

from oanet_tf.config.definitions import OANet
from oanet_tf.data.geometry import Size


class Anchors:
  """The Model Garden's anchors, also for images whose size is only known when the graph runs.

  Args:
    model: has levels, sizes and shapes of anchors.
  """

  def __init__(self, model: OANet):
    shapes = model.anchor.as_dict()
    # The Model Garden's have their centres in the middle of the cell.
    shift = shapes.pop('cell_offset') - 0.5
    finest = model.min_level
    generate = anchor.build_anchor_generator(min_level=finest, max_level=finest, **shapes)
    # An image of one cell has the anchors of the first cell, which all others repeat. Those of the
    # next level have twice the size, exactly.
    first = generate([2**finest, 2**finest])[str(finest)].numpy() + shift * 2**finest
    self._first = {
      str(level): first * 2 ** (level - finest) for level in range(finest, model.max_level + 1)
    }

  def __call__(self, size: Sequence[Size]) -> dict[str, tf.Tensor]:
    """The anchors of one image size.

    Args:
      size: [height, width] of the network input.

    Returns:
      By level, [H, W, 4 A] float32, [y1, x1, y2, x2] in pixels for each anchor.
    """
    return {level: self._of_level(level, size) for level in self._first}

  def _of_level(self, level: str, size: Sequence[Size]) -> tf.Tensor:
    stride = 2 ** int(level)
    rows, columns = (
      tf.range(-(-side // stride), dtype=tf.float32) * float(stride) for side in size
    )
    first = self._first[level]
    # Of the four sides of a box, y1 and y2 move with the row, x1 and x2 with the column.
    moves_down = np.tile(np.float32([1.0, 0.0]), first.shape[-1] // 2)
    return (
      first
      + tf.reshape(rows, [-1, 1, 1]) * moves_down
      + tf.reshape(columns, [-1, 1]) * (1.0 - moves_down)
    )
