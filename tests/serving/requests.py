"""Images as clients send them, good and bad."""

import io
import struct
import zlib

import numpy as np
from PIL import Image


def rectangles(height, width, seed=0):
  """[height, width, 3] uint8: a few on noise."""
  rng = np.random.default_rng(seed)
  image = rng.integers(0, 60, (height, width, 3))
  for _ in range(6):
    y, x = rng.integers(0, [height, width])
    image[y : y + height // 2, x : x + width // 2] = rng.integers(0, 256, 3)
  return image.astype(np.uint8)


def encode(image, form='PNG', **options):
  """Bytes of an array or of a Pillow image."""
  if isinstance(image, np.ndarray):
    image = Image.fromarray(image)
  encoded = io.BytesIO()
  image.save(encoded, form, **options)
  return encoded.getvalue()


def png_header(height, width):
  """A PNG that says it is so large, and has no pixel."""

  def chunk(kind, data):
    checksum = zlib.crc32(kind + data)
    return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', checksum)

  header = chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0))
  data = chunk(b'IDAT', zlib.compress(b''))
  return b'\x89PNG\r\n\x1a\n' + header + data + chunk(b'IEND', b'')


_GOOD = encode(rectangles(30, 40))
# Of `serving_bytes`, and what the error says.
BAD_BYTES = {
  'none': ([], 'the batch holds no image'),
  'empty': ([_GOOD, b''], 'image 1 of the batch is neither JPEG nor PNG'),
  'text': ([b'no image', _GOOD], 'image 0 of the batch is neither JPEG nor PNG'),
  'webp': ([encode(rectangles(8, 8), 'WEBP')], 'image 0 of the batch is neither JPEG nor PNG'),
  'gif': ([encode(rectangles(8, 8), 'GIF')], 'image 0 of the batch is neither JPEG nor PNG'),
  'signature': ([_GOOD[:8]], 'image 0 of the batch has no header that can be read'),
  'noise': ([_GOOD] * 2 + [b'\xff\xd8\xffnoise'], 'image 2 of the batch has no header'),
  'huge': ([_GOOD, png_header(20_000, 20_000)], 'image 1 of the batch has 20000 x 20000 pixels'),
  'no height': ([png_header(0, 7)], 'image 0 of the batch has 0 x 7 pixels'),
  'negative': ([png_header(2**32 - 1, 7)], 'image 0 of the batch has -1 x 7 pixels'),
  'overflow': ([png_header(2**31 - 1, 2**31 - 1)], 'has 2147483647 x 2147483647 pixels'),
  'cut off': ([_GOOD, _GOOD[:-40]], 'image 1 of the batch cannot be decoded'),
  'cut off JPEG': ([encode(rectangles(99, 99), 'JPEG')[:-200]], 'image 0 of the batch cannot be'),
  'no pixels': ([png_header(30, 40), _GOOD], 'image 0 of the batch cannot be decoded'),
  # The two take 213 bytes, and a canvas of 2^27 pixels.
  'thin': (
    [png_header(1, 8192), png_header(8192, 1)],
    '2 images on canvases of 8192 x 8192 are more than 33554432 pixels',
  ),
  'long': ([png_header(1, 2**16 + 1)], 'image 0 of the batch has 1 x 65537 pixels'),
  'many': ([_GOOD] * 17, 'the batch holds 17 images; send 16 at most'),
  'very many': ([b''] * 100_000, 'the batch holds 100000 images; send 16 at most'),
  'too large together': (
    [png_header(1, 30_000), png_header(30_000, 1)],
    '2 images on canvases of 30000 x 30000 are more than 33554432 pixels',
  ),
}
