"""Masks and maps as PNG files."""

import io
import zlib

import numpy as np
from PIL import Image


def gray_png(gray: np.ndarray) -> bytes:
  """[h, w] bool, uint8 or uint16 -> a grey PNG, of 16 bits for uint16, of 8 bits otherwise.

  TensorFlow decodes 1-bit PNGs to 0 and 255, and slower.
  """
  buffer = io.BytesIO()
  image = Image.fromarray(gray.view(np.uint8) if gray.dtype == bool else gray)
  # Masks have long runs: this takes two thirds of the default's time, and a tenth less space.
  image.save(buffer, 'PNG', compress_type=zlib.Z_RLE)
  return buffer.getvalue()
