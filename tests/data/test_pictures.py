import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageOps

from oanet_tf.data import encoded_picture, pictures
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


@pytest.mark.parametrize('order', '<>')
@pytest.mark.parametrize('kind', 'HI')
def test_exif_of_both_byte_orders_and_of_two_kinds_of_numbers(order, kind):
  mark = {'<': b'II*\0', '>': b'MM\0*'}[order]
  value = struct.pack(f'{order}{kind}', 6).ljust(4, b'\0')
  number = {'H': 3, 'I': 4}[kind]
  block = mark + struct.pack(f'{order}IHHHI', 8, 1, 0x0112, number, 1) + value + bytes(4)
  encoded = file_of(PIXELS, 'JPEG', exif=b'Exif\0\0' + block)
  assert pictures.orientation(pictures.decoded(encoded, 'a')) == 6
  assert graph_orientation(encoded).numpy() == 6


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


KINDS = ('JPEG', 'PNG', 'GIF', 'BMP', 'TIFF', 'WEBP')


@settings(max_examples=300, deadline=None)
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


def test_names_of_results():
  taken = set()
  names = [pictures.unique_name(name, taken) for name in ('a', 'b', 'a', 'A', 'a_2')]
  assert names == ['a', 'b', 'a_2', 'A_3', 'a_2_2']


def test_hidden_files_in_a_folder_are_no_pictures(tmp_path):
  for name in ('a.png', '._a.png', 'b.JPG', 'c.txt'):
    (tmp_path / name).write_bytes(b'')
  assert list(pictures.named_pictures([tmp_path])) == ['a', 'b']
  assert pictures.find_pictures([tmp_path, tmp_path / 'a.png']) == [
    tmp_path / 'a.png',
    tmp_path / 'b.JPG',
  ]
