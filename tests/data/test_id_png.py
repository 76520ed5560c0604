"""PNGs of segment ids: the quick decoder takes only plain ones, and reads what Pillow reads."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from oanet_tf.data import panoptic_map
from oanet_tf.errors import InputError
from tests.data.test_pictures import mutated, png_chunk

RGB = np.random.default_rng(3).integers(0, 256, [13, 4, 3], np.uint8).repeat(5, axis=1)
END = (b'IEND', b'')


def encoded(pixels, **options):
  image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
  buffer = io.BytesIO()
  image.save(buffer, 'PNG', **options)
  return buffer.getvalue()


def png(*chunks, interlaced=False):
  """An RGB PNG of the size of `RGB`."""
  header = struct.pack('>IIBBBBB', RGB.shape[1], RGB.shape[0], 8, 2, 0, 0, interlaced)
  return b'\x89PNG\r\n\x1a\n' + b''.join(png_chunk(*one) for one in ((b'IHDR', header), *chunks))


def compressed(pixels, filters=(0,)):
  """Each row after the number of its filter; 0 takes the bytes as they are."""
  rows = enumerate(pixels)
  return zlib.compress(b''.join(bytes([filters[y % len(filters)]]) + r.tobytes() for y, r in rows))


def interlaced():
  """In Adam7's passes, by the rows and columns of each (PNG specification, section 8.2)."""
  passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2)]
  parts = [RGB[y::down, x::right] for y, x, down, right in (*passes, (1, 0, 2, 1))]
  rows = b''.join(b'\0' + row.tobytes() for part in parts for row in part)
  return png((b'IDAT', zlib.compress(rows)), END, interlaced=True)


DATA = compressed(RGB)
PLAIN = png((b'IDAT', DATA), END)
TEXT = (b'tEXt', b'key\0value')
PALETTE = Image.fromarray(RGB).quantize(9)
QUICK = {
  'plain': PLAIN,
  "Pillow's": encoded(RGB),
  'not compressed': encoded(RGB, compress_level=0),
  'interlaced': interlaced(),
  'in several parts': png((b'IDAT', DATA[:9]), (b'IDAT', b''), (b'IDAT', DATA[9:]), END),
  'text after the pixels': png((b'IDAT', DATA), TEXT, END),
}
OTHERS = {
  'RGBA': encoded(np.dstack([RGB, RGB[..., :1]])),
  'palette': encoded(PALETTE),
  'transparent palette': encoded(PALETTE, transparency=b'\0\x80'),
  'grey': encoded(RGB[..., 0]),
  '16 bits': encoded(RGB[..., 0].astype(np.uint16) * 256),
  'transparent colour': png((b'tRNS', RGB[0, 0].astype('>u2').tobytes()), (b'IDAT', DATA), END),
  'gamma': png((b'gAMA', struct.pack('>I', 100_000)), (b'IDAT', DATA), END),
  'profile': png((b'iCCP', b'name\0\0' + zlib.compress(b'none')), (b'IDAT', DATA), END),
  'animation': encoded(RGB, save_all=True, append_images=[Image.fromarray(RGB[::-1])]),
  'damaged text': png(TEXT, (b'IDAT', DATA), END).replace(b'value', b'valve'),
  'wrong checksum': PLAIN.replace(DATA[-4:], b'\0\0\0\0'),
  'no end': png((b'IDAT', DATA)),
  'cut': PLAIN[:-30],
  'cut in the header': PLAIN[:20],
  'too few rows': png((b'IDAT', compressed(RGB[1:])), END),
  'no pixels': png(END),
  'too large': PLAIN[:16] + struct.pack('>II', 20_000, 20_000) + PLAIN[24:],
  'empty': b'',
}


def outcome(content, verify=False):
  """Pixels or error."""
  try:
    return panoptic_map.read_id_png(content, 'the file', verify=verify).tolist()
  except InputError as error:
    return str(error)


def by_pillow(content):
  """Likewise, without the quick decoder."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(panoptic_map, '_decoded_quickly', lambda _: None)
    return outcome(content)


@pytest.mark.parametrize('kind', QUICK)
def test_plain_ones_are_read_quickly(kind):
  # Without it, all would be right and slow.
  assert panoptic_map._decoded_quickly(QUICK[kind]).tolist() == RGB.tolist()
  assert by_pillow(QUICK[kind]) == outcome(QUICK[kind], verify=True) == RGB.tolist()


@pytest.mark.parametrize('kind', OTHERS)
def test_others_are_left_to_pillow(kind):
  assert panoptic_map._decoded_quickly(OTHERS[kind]) is None
  assert outcome(OTHERS[kind]) == by_pillow(OTHERS[kind])


def test_real_ones_are_read_quickly(coco_sample):
  paths = sorted((coco_sample / 'annotations').glob('panoptic_*/*.png'))
  assert len(paths) > 100
  for path in paths:
    found = panoptic_map._decoded_quickly(path.read_bytes())
    np.testing.assert_array_equal(found, np.asarray(Image.open(path)))


@settings(deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=13), st.integers(0, 99))
def test_filters(filters, seed):
  rows = np.random.default_rng(seed).integers(0, 256, RGB.shape, np.uint8)
  content = png((b'IDAT', compressed(rows, filters)), END)
  assert panoptic_map._decoded_quickly(content).tolist() == by_pillow(content)


@pytest.mark.parametrize('seed', range(4))
def test_damaged_ones_are_judged_alike(seed):
  random, whole = np.random.default_rng(seed), [*QUICK.values(), *filter(None, OTHERS.values())]
  for number in range(250):
    content = mutated(whole[number % len(whole)], random)
    assert outcome(content) == by_pillow(content)
