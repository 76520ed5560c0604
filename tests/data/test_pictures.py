import io
import struct
import zlib
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageOps, TiffImagePlugin, features

from oanet_tf.data import encoded_picture, exif, pictures
from oanet_tf.errors import InputError

PIXELS = np.random.default_rng(0).integers(0, 256, [5, 8, 3], np.uint8)


def file_of(pixels, kind='PNG', **options):
  buffer = io.BytesIO()
  Image.fromarray(pixels).save(buffer, kind, **options)
  return buffer.getvalue()


def exif_block(orientation):
  exif = Image.Exif()
  exif[ExifTags.Base.Orientation] = orientation
  return exif.tobytes()


@pytest.mark.parametrize('orientation', range(1, 9))
def test_pictures_are_turned_as_pillow_turns_them(orientation):
  encoded = file_of(PIXELS, exif=exif_block(orientation))
  picture = pictures.decoded(encoded, 'a')
  assert pictures.orientation(picture) == orientation
  expected = np.asarray(ImageOps.exif_transpose(picture))
  np.testing.assert_array_equal(pictures.upright_rgb(picture, 'a'), expected)
  np.testing.assert_array_equal(pictures.turned(PIXELS, orientation), expected)
  tensor = encoded_picture.turn(tf.constant(PIXELS), tf.constant(orientation))
  np.testing.assert_array_equal(tensor, expected)


# By hand: 1 2 / 3 4 as it is stored, and upright.
BY_HAND = {
  1: [[1, 2], [3, 4]],
  2: [[2, 1], [4, 3]],
  3: [[4, 3], [2, 1]],
  4: [[3, 4], [1, 2]],
  5: [[1, 3], [2, 4]],
  6: [[3, 1], [4, 2]],
  7: [[4, 2], [3, 1]],
  8: [[2, 4], [1, 3]],
}


@pytest.mark.parametrize('orientation', range(1, 9))
def test_turning_by_hand(orientation):
  turned = pictures.turned(np.array([[1, 2], [3, 4]]), orientation)
  np.testing.assert_array_equal(turned, BY_HAND[orientation])


graph_orientation = tf.function(
  encoded_picture.orientation, [tf.TensorSpec([], tf.string)], autograph=False
)


@settings(max_examples=300, deadline=None)
@given(
  st.sampled_from(['JPEG', 'PNG']),
  st.integers(0, 9),
  st.lists(st.tuples(st.integers(0, 60), st.integers(0, 255)), max_size=3),
)
def test_any_exif_block_says_the_same_to_both_readers(kind, orientation, changes):
  block = bytearray(exif_block(orientation))
  for place, value in changes:
    # What stands before is no part of the block: it marks it.
    block[6 + place % (len(block) - 6)] = value
  encoded = file_of(PIXELS, kind, exif=bytes(block))
  expected = pictures.orientation(pictures.decoded(encoded, 'a'))
  assert graph_orientation(encoded).numpy() == expected


# Of a directory. Real files have others before the orientation.
ENTRIES = st.lists(
  st.tuples(
    st.sampled_from([0x010F, 0x0112]),
    st.integers(0, 17),
    st.integers(0, 3),
    st.integers(0, 9) | st.integers(0, 2**32 - 1) | st.integers(1, 8).map(lambda n: n << 16),
  ),
  max_size=4,
)


@settings(max_examples=300, deadline=None)
@given(
  st.sampled_from(['JPEG', 'PNG']),
  st.sampled_from('<>'),
  ENTRIES,
  st.integers(-1, 1),
  st.integers(0, 70),
  st.booleans(),
)
@example('JPEG', '>', [(0x0112, 3, 2, 6 << 16)], 0, 70, False)
@example('JPEG', '<', [(0x0112, 3, 1, 6), (0x0112, 3, 1, 3)], 0, 70, False)
@example('PNG', '<', [(0x010F, 2, 3, 2**31), (0x0112, 3, 1, 6)], 0, 70, True)
@example('JPEG', '<', [(0x0112, 3, 1, 6)], 0, 20, False)
@example('JPEG', '<', [(0x0112, 3, 1, 6)], 1, 70, False)
def test_any_directory_says_the_same_to_both_readers(kind, order, entries, more, end, prefixed):
  block = {'<': b'II*\0', '>': b'MM\0*'}[order]
  block += struct.pack(f'{order}IH', 8, max(0, len(entries) + more))
  block += b''.join(struct.pack(f'{order}HHII', *one) for one in entries)
  block = exif.PREFIX + prefixed * exif.PREFIX + block[:end]
  encoded = file_of(PIXELS, kind, exif=block)
  expected = pictures.orientation(pictures.decoded(encoded, 'a'))
  assert expected == exif.orientation(block)
  assert graph_orientation(encoded).numpy() == expected


@pytest.mark.parametrize(
  ('entries', 'expected'),
  [
    ([(0x0112, 3, 1, 6), (0x0112, 3, 1, 3)], 6),
    ([(0x0112, 2, 1, 3), (0x0112, 3, 1, 6)], 6),
    ([(0x0112, 3, 2, 6)], 1),
    ([(0x0112, 3, 1, 9), (0x0112, 3, 1, 6)], 1),
    ([(0x010F, 2, 9, 2**31), (0x0112, 3, 1, 6)], 6),
    ([], 1),
  ],
)
def test_which_entry_says_the_orientation(entries, expected):
  block = b'II*\0' + struct.pack('<IH', 8, len(entries))
  block += b''.join(struct.pack('<HHII', *one) for one in entries)
  assert exif.orientation(block) == exif.orientation(exif.PREFIX + block) == expected


def test_an_entry_that_is_cut_off_says_nothing():
  entry = struct.pack('<HHII', 0x0112, 3, 1, 6)
  block = b'II*\0' + struct.pack('<IH', 8, 1) + entry
  assert exif.orientation(block) == 6
  assert [exif.orientation(block[:end]) for end in range(len(block))] == [1] * len(block)


@given(st.binary(max_size=60))
def test_anything_has_an_orientation(block):
  for mark in (b'', exif.LITTLE_ENDIAN, exif.BIG_ENDIAN + bytes(3) + b'\x08'):
    assert 1 <= exif.orientation(mark + block) <= 8


@pytest.mark.parametrize('kind', ['JPEG', 'PNG'])
def test_exif_ends_with_its_block(kind):
  """What stands behind it is no part of it, even if a number is said to be there."""
  header = b'II*\0' + struct.pack('<IHHHI', 8, 1, 0x0112, 16, 1)
  length = len(header) + 8
  # A JPEG's next segment begins with 4 bytes; a PNG's block ends with 4, and the next has 8.
  place = length + (4 if kind == 'JPEG' else 12)
  block = header + struct.pack('<II', place, 0)
  encoded = file_of(PIXELS, kind, exif=b'Exif\0\0' + block)
  value = struct.pack('<Q', 6)
  end = encoded.index(block) + len(block)
  if kind == 'JPEG':
    encoded = encoded[:end] + b'\xff\xfe\0\x0a' + value + encoded[end:]
  else:
    chunk = b'teSt' + value
    end += 4
    inserted = struct.pack('>I', 8) + chunk + struct.pack('>I', zlib.crc32(chunk))
    encoded = encoded[:end] + inserted + encoded[end:]
  assert encoded[encoded.index(block) + place :].startswith(value)
  assert pictures.orientation(pictures.decoded(encoded, 'a')) == 1
  assert graph_orientation(encoded).numpy() == 1


@pytest.mark.parametrize('order', '<>')
@pytest.mark.parametrize(
  ('number', 'kind'),
  [(3, 'H'), (4, 'I'), (6, 'b'), (8, 'h'), (9, 'i'), (13, 'I'), (16, 'Q'), (11, 'f'), (1, 'B')],
)
def test_exif_of_both_byte_orders_and_of_all_kinds_of_numbers(order, kind, number):
  mark = {'<': b'II*\0', '>': b'MM\0*'}[order]
  value = struct.pack(f'{order}{kind}', 6).ljust(4, b'\0')
  elsewhere = b''
  if len(value) > 4:
    value, elsewhere = struct.pack(f'{order}I', 26), value
  block = mark + struct.pack(f'{order}IHHHI', 8, 1, 0x0112, number, 1) + value + bytes(4)
  # Fractions and bytes are no orientations, and of what is cut off nothing is known.
  of_whole = 1 if kind in 'fB' else 6
  for end, expected in (
    (block + elsewhere, of_whole),
    (block + elsewhere[:-1], 1 if elsewhere else of_whole),
  ):
    encoded = file_of(PIXELS, 'JPEG', exif=b'Exif\0\0' + end)
    assert pictures.orientation(pictures.decoded(encoded, 'a')) == expected
    assert graph_orientation(encoded).numpy() == expected


@pytest.mark.parametrize(
  'content', [b'\xff\xff no picture', b'\xff\xd8\xff', b'\x89PNG\r\n\x1a\n\xff', b'']
)
def test_tensorflow_says_in_text_what_it_cannot_decode(content):
  with pytest.raises(tf.errors.InvalidArgumentError):
    list(tf.data.Dataset.from_tensors(content).map(encoded_picture.decode_stored))


def test_an_exif_block_that_cannot_be_read_turns_nothing(tmp_path):
  # A rational number without its place.
  block = b'II*\0' + struct.pack('<IHHHII', 8, 1, 0x011A, 5, 1, 2**31)
  (tmp_path / 'a.png').write_bytes(file_of(PIXELS, exif=b'Exif\0\0' + block))
  np.testing.assert_array_equal(pictures.read_picture(tmp_path / 'a.png'), PIXELS)


def test_transparent_pixels_are_laid_on_white(tmp_path):
  rgba = np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [0, 0, 0, 51]]], np.uint8)
  (tmp_path / 'a.png').write_bytes(file_of(rgba))
  expected = [[[10, 20, 30], [255, 255, 255], [204, 204, 204]]]
  np.testing.assert_array_equal(pictures.read_picture(tmp_path / 'a.png'), expected)


def test_floating_point_pixels_are_refused(tmp_path):
  Image.fromarray(np.zeros([2, 2], np.float32)).save(tmp_path / 'a.tiff')
  with pytest.raises(InputError, match=r'a\.tiff: has floating-point pixels'):
    pictures.read_picture(tmp_path / 'a.tiff')


@pytest.mark.parametrize('side', [10_001, 20_000])
def test_a_picture_that_is_too_large_is_refused_before_it_is_decoded(tmp_path, side):
  header = bytearray(file_of(PIXELS, 'BMP'))
  header[18:26] = struct.pack('<ii', side, side)
  (tmp_path / 'a.bmp').write_bytes(header)
  with pytest.raises(InputError, match='more than 100,000,000 pixels'):
    pictures.read_picture(tmp_path / 'a.bmp')


def test_a_png_with_a_long_text_is_named(tmp_path):
  from PIL import PngImagePlugin

  text = PngImagePlugin.PngInfo()
  text.add_text('key', 'x' * 2**21, zip=True)
  (tmp_path / 'a.png').write_bytes(file_of(PIXELS, pnginfo=text))
  with pytest.raises(InputError, match=r'a\.png'):
    pictures.read_picture(tmp_path / 'a.png')


@pytest.mark.parametrize('mode', ['RGB', 'L', 'P', 'RGBA'])
@pytest.mark.parametrize('orientation', range(1, 9))
def test_tiffs_are_loaded_as_stored_as_all_others(mode, orientation):
  pixels = Image.fromarray(PIXELS).convert(mode)
  buffer = io.BytesIO()
  pixels.save(buffer, 'TIFF', exif=exif_block(orientation))
  picture = pictures.decoded(buffer.getvalue(), 'a')
  assert pictures.orientation(picture) == orientation
  np.testing.assert_array_equal(picture, pixels)
  upright = pictures.upright_rgb(picture, 'a')
  np.testing.assert_array_equal(
    upright, pictures.turned(np.asarray(pixels.convert('RGB')), orientation)
  )


def test_orientation_in_xmp_turns_no_kind_of_picture():
  xmp = b'<rdf:Description tiff:Orientation="6"/>'
  tags = TiffImagePlugin.ImageFileDirectory_v2()
  tags[ExifTags.Base.XMLPacket] = xmp
  for encoded in (
    file_of(PIXELS, 'TIFF', tiffinfo=tags),
    file_of(PIXELS, 'WEBP', xmp=xmp, lossless=True),
  ):
    picture = pictures.decoded(encoded, 'a')
    np.testing.assert_array_equal(pictures.upright_rgb(picture, 'a'), PIXELS)


def png_chunk(name, content):
  return (
    struct.pack('>I', len(content)) + name + content + struct.pack('>I', zlib.crc32(name + content))
  )


def gray_png_with_transparent_value(bits, values, transparent):
  """One row of 8 / bits pixels."""
  byte = sum(value << bits * k for k, value in enumerate(reversed(values)))
  parts = {
    b'IHDR': struct.pack('>IIBBBBB', len(values), 1, bits, 0, 0, 0, 0),
    b'tRNS': struct.pack('>H', transparent),
    b'IDAT': zlib.compress(b'\0' + byte.to_bytes(max(1, len(values) * bits // 8), 'big')),
    b'IEND': b'',
  }
  return b'\x89PNG\r\n\x1a\n' + b''.join(png_chunk(*part) for part in parts.items())


@pytest.mark.parametrize(
  ('bits', 'values'), [(1, [1, 0] * 4), (2, [0, 1, 2, 3]), (4, [3, 9]), (8, [7])]
)
def test_the_transparent_value_of_few_bits(bits, values):
  encoded = gray_png_with_transparent_value(bits, values, values[1 % len(values)])
  picture = pictures.upright_rgb(pictures.decoded(encoded, 'a'), 'a')
  gray = np.array(values) * 255 // (2**bits - 1)
  expected = np.where(np.array(values) == values[1 % len(values)], 255, gray)
  np.testing.assert_array_equal(np.asarray(picture)[0, :, 0], expected)
  np.testing.assert_array_equal(picture, encoded_picture.decode_stored(tf.constant(encoded)))


def test_a_transparent_color_of_16_bits_is_refused():
  encoded = gray_png_with_transparent_value(16, [7], 7)
  with pytest.raises(InputError, match=r'the file: .*16 bits'):
    pictures.decoded(encoded, 'the file')


KINDS = ('JPEG', 'PNG', 'GIF', 'BMP', 'TIFF', 'WEBP')


# A changed byte of the header makes some huge. Those of 100 million pixels, which take a second to
# decode, are left to the slow test below.
@mock.patch.object(pictures, 'MAX_PIXELS', 10**6)
@settings(max_examples=100, deadline=None)
@given(
  st.sampled_from(KINDS),
  st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=8),
  st.integers(0, 200),
)
def test_of_mutated_files_nothing_but_input_errors(kind, changes, cut):
  content = bytearray(file_of(PIXELS, kind, **({'exif': exif_block(3)} if kind != 'BMP' else {})))
  for place, value in changes:
    content[place % len(content)] = value
  content = bytes(content[: len(content) - cut])
  try:
    picture = pictures.upright_rgb(pictures.decoded(content, 'the file'), 'the file')
  except InputError as error:
    assert str(error).startswith('the file: ')
    assert '\n' not in str(error)
  else:
    assert picture.mode == 'RGB'


def seed_files():
  """Small files of all kinds that are written here, by their kind."""
  rgb = np.random.default_rng(1).integers(0, 256, [24, 31, 3], np.uint8)
  rgba, deep = np.dstack([rgb, rgb[..., :1]]), rgb[..., 0].astype(np.uint16) * 200
  palette = Image.fromarray(rgb).quantize(16)
  several = {'save_all': True, 'append_images': [Image.fromarray(rgb[::-1])]}
  made = {
    'JPEG': [(rgb, {'exif': exif_block(3)}), (rgb, {'progressive': True})],
    'MPO': [(rgb, {**several, 'exif': exif_block(6)})],
    'PNG': [(rgb, {'exif': exif_block(6)}), (deep, {}), (rgb, several)],
    'GIF': [(palette, {'transparency': 1}), (rgb, several)],
    'BMP': [(rgb, {}), (palette, {})],
    'TIFF': [
      (rgb, {'exif': exif_block(6)}),
      (deep, {}),
      *((rgb, {'compression': one}) for one in ('jpeg', 'tiff_lzw', 'tiff_deflate')),
    ],
    'WEBP': [(rgb, {'exif': exif_block(3)}), (rgba, {'lossless': True}), (rgb, several)],
    'PPM': [(rgb, {}), (rgb[..., 0], {})],
    'ICO': [(rgb, {'sizes': [(16, 16)]}), (rgb, {'sizes': [(16, 16)], 'bitmap_format': 'bmp'})],
    'TGA': [(rgb, {}), (rgb, {'compression': 'tga_rle'}), (palette, {})],
    'JPEG2000': [(rgb, {}), (rgba, {})],
    'AVIF': [(rgb, {'exif': exif_block(6)})],
  }
  needed = {'JPEG2000': 'jpg_2000', 'AVIF': 'avif', 'WEBP': 'webp'}
  there = {kind for kind in made if kind not in needed or features.check(needed[kind])}

  def encoded(pixels, kind, options):
    buffer = io.BytesIO()
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    picture.save(buffer, kind, **options)
    return buffer.getvalue()

  return {
    kind: [encoded(pixels, kind, options) for pixels, options in made[kind]]
    for kind in made
    if kind in there
  }


def mutated(content, random):
  """With some bytes changed and, at times, some left out or put in."""
  content = bytearray(content)
  # The header decides most.
  end = random.choice([64, len(content)])
  for _ in range(random.integers(1, 9)):
    place = random.integers(0, min(end, len(content)))
    content[place] = random.choice([0, 1, 127, 128, 255, random.integers(0, 256)])
  start, stop = sorted(random.integers(0, len(content) + 1, 2))
  match random.integers(0, 5):
    case 0:
      del content[stop:]
    case 1:
      del content[start:stop]
    case 2:
      content[start:start] = random.bytes(random.integers(1, 50))
  return bytes(content)


def with_checksums(png):
  """With those of its chunks right, so that a decoder reads on."""
  parts, place = [png[:8]], 8
  while place + 12 <= len(png):
    length = int.from_bytes(png[place : place + 4], 'big')
    name, content = png[place + 4 : place + 8], png[place + 8 : place + 8 + length]
    parts.append(png_chunk(name, content))
    place += 12 + length
  return b''.join(parts)


@pytest.mark.slow
def test_of_2000_mutated_files_nothing_but_input_errors(tmp_path):
  random, seeds, path = np.random.default_rng(7), seed_files(), tmp_path / 'picture'
  counts = {kind: {'read': 0, 'refused': 0} for kind in seeds}
  for index in range(2000):
    kind = list(seeds)[index % len(seeds)]
    content = mutated(seeds[kind][random.integers(len(seeds[kind]))], random)
    path.write_bytes(with_checksums(content) if kind == 'PNG' else content)
    try:
      picture = pictures.read_picture(path)
    except InputError as error:
      assert str(error).startswith(f'{path}: ') and '\n' not in str(error)
      counts[kind]['refused'] += 1
    else:
      assert picture.dtype == np.uint8 and picture.shape[2:] == (3,)
      counts[kind]['read'] += 1
  print(counts)
  assert all(count['read'] and count['refused'] for count in counts.values())


def test_names_of_results():
  taken = set()
  names = [pictures.unique_name(name, taken) for name in ('a', 'b', 'a', 'A', 'a_2')]
  assert names == ['a', 'b', 'a_2', 'A_3', 'a_2_2']


def test_names_of_results_fit_file_systems(tmp_path):
  for name in ('é' * 125, 'é' * 120, 'b\udcff'):
    (tmp_path / f'{name}.png').write_bytes(b'')
  names = list(pictures.named_pictures([tmp_path]))
  assert sorted(names) == ['b\udcff', 'é' * 100, f'{"é" * 100}_2']


def test_hidden_files_in_a_folder_are_no_pictures(tmp_path):
  for name in ('a.png', '._a.png', 'b.JPG', 'c.txt'):
    (tmp_path / name).write_bytes(b'')
  assert list(pictures.named_pictures([tmp_path])) == ['a', 'b']
  assert pictures.find_pictures([tmp_path, tmp_path / 'a.png']) == [
    tmp_path / 'a.png',
    tmp_path / 'b.JPG',
  ]
