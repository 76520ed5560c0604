"""Fits images of any size onto a canvas of a fixed size, and maps masks back.

Neither TensorFlow nor the Model Garden is loaded, so that a TFLite file needs LiteRT alone.
"""

# h, w image, H, W canvas.

from collections.abc import Sequence

import numpy as np
from PIL import Image

# The mean colour of ImageNet, rounded, which is close to the network's own padding.
PADDING_COLOR = (124, 116, 104)


def letterbox(image: np.ndarray, canvas_size: Sequence[int]) -> np.ndarray:
  """Scales an image to the largest size that fits, and puts it at the top left.

  Args:
    image: [h, w, 3] uint8 RGB.
    canvas_size: [H, W].

  Returns:
    [H, W, 3] uint8, with `PADDING_COLOR` below and to the right of the image.
  """
  height, width = size_within(image.shape, canvas_size)
  canvas = np.full([*canvas_size, 3], PADDING_COLOR, np.uint8)
  canvas[:height, :width] = np.rint(_resize(image, height, width))
  return canvas


def size_within(image_shape: Sequence[int], canvas_size: Sequence[int]) -> tuple[int, int]:
  """The height and width that `letterbox` gives an image of [h, w, …] on a canvas of [H, W]."""
  scale = min(canvas / side for canvas, side in zip(canvas_size, image_shape[:2], strict=True))
  height, width = (max(1, round(side * scale)) for side in image_shape[:2])
  return height, width


def from_canvas(mask: np.ndarray, image_shape: Sequence[int]) -> np.ndarray:
  """Resamples a mask from a canvas of `letterbox` to the image, by nearest neighbour.

  Args:
    mask: [H, W] int32 ids.
    image_shape: [h, w, …].

  Returns:
    [h, w] int32.
  """
  height, width = size_within(image_shape, mask.shape)
  inside = Image.fromarray(mask[:height, :width])
  return np.asarray(inside.resize(image_shape[1::-1], Image.Resampling.NEAREST))


def _resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
  """[h, w, 3] uint8 -> [height, width, 3] float32, to the bit as `tf.image.resize`."""
  (top, bottom, y), (left, right, x) = (
    _neighbours(before, after)
    for before, after in zip(image.shape[:2], (height, width), strict=True)
  )
  x, y = x[:, None], y[:, None, None]

  def along(rows: np.ndarray) -> np.ndarray:
    low, high = (image[rows[:, None], columns].astype(np.float32) for columns in (left, right))
    return low + (high - low) * x

  above = along(top)
  return above + (along(bottom) - above) * y


def _neighbours(before: int, after: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """For each pixel along a resized axis, the two nearest of the image, and the way between them."""
  scale = np.float32(before) / np.float32(after)
  positions = (np.arange(after, dtype=np.float32) + np.float32(0.5)) * scale - np.float32(0.5)
  low = np.floor(positions)
  fraction = positions - low
  low = low.astype(np.intp)
  return np.maximum(low, 0), np.minimum(low + 1, before - 1), fraction
