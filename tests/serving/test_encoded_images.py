import functools
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import ExifTags, Image

from oanet_tf.data import pictures
from oanet_tf.serving.encoded_images import decode_images
from tests.serving import requests


@functools.partial(tf.function, input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
def decode(encoded):
  """Pixels and shapes."""
  return decode_images(encoded, lambda image: (image, tf.shape(image)[:2]))


def exif(orientation):
  block = Image.Exif()
  block[ExifTags.Base.Orientation] = orientation
  block[ExifTags.Base.Make] = 'a camera'
  return block


def odd_images():
  """Name -> bytes of images of all kinds that `decode_images` takes."""
  image = Image.fromarray(requests.rectangles(33, 47))
  rgba = np.concatenate([np.asarray(image), np.asarray(image)[..., :1]], axis=-1)
  frames = [Image.fromarray(requests.rectangles(33, 47, seed)) for seed in range(3)]
  encode = requests.encode
  return {
    'png': encode(image),
    'jpeg': encode(image, 'JPEG'),
    'subsampled.jpeg': encode(image, 'JPEG', subsampling=2, quality=40),
    'progressive.jpeg': encode(image, 'JPEG', progressive=True),
    'cmyk.jpeg': encode(image.convert('CMYK'), 'JPEG'),
    'gray.jpeg': encode(image.convert('L'), 'JPEG'),
    'gray.png': encode(image.convert('L')),
    'gray_alpha.png': encode(image.convert('LA')),
    'one_bit.png': encode(image.convert('1')),
    'palette.png': encode(image.convert('P')),
    'two_colors.png': encode(image.convert('P', palette=Image.Palette.ADAPTIVE, colors=2)),
    'rgba.png': encode(rgba),
    'transparent_palette.png': encode(image.convert('P'), transparency=bytes(range(0, 256, 2))),
    'transparent_color.png': encode(image, transparency=image.getpixel((0, 0))),
    'transparent_gray.png': encode(
      image.convert('L'), transparency=image.convert('L').getpixel((0, 0))
    ),
    **{f'turned_{k}.jpeg': encode(image, 'JPEG', exif=exif(k)) for k in range(10)},
    **{f'turned_{k}.png': encode(rgba, exif=exif(k)) for k in range(10)},
    'animated.png': encode(frames[0], save_all=True, append_images=frames[1:]),
    'dot.png': encode(requests.rectangles(1, 1)),
    'line.jpeg': encode(requests.rectangles(1, 300), 'JPEG'),
  }


def test_decodes_a_batch_of_all_kinds_to_the_pixels_of_predict(tmp_path):
  # Several batches, as one may not hold them all.
  items = list(odd_images().items())
  for part, canvas in ((items[:15], (33, 47)), (items[15:30], (47, 47)), (items[30:], (47, 300))):
    images, shapes = decode([data for _, data in part])
    assert images.shape == (len(part), *canvas, 3)
    for (name, data), image, (height, width) in zip(
      part, images.numpy(), shapes.numpy(), strict=True
    ):
      (tmp_path / name).write_bytes(data)
      expected = pictures.read_picture(tmp_path / name)
      assert expected.shape == (height, width, 3)
      np.testing.assert_array_equal(image[:height, :width], expected, name)
      assert not image[height:].any() and not image[:, width:].any()


def test_every_opacity_of_every_shade_becomes_as_in_predict(tmp_path):
  shade, opacity = np.meshgrid(np.arange(256), np.arange(256))
  rgba = np.stack([shade, 255 - shade, shade, opacity], axis=-1).astype(np.uint8)
  data = requests.encode(rgba)
  (tmp_path / 'rgba.png').write_bytes(data)
  expected = pictures.read_picture(tmp_path / 'rgba.png')
  np.testing.assert_array_equal(decode([data])[0][0], expected)


def test_of_16_bits_the_upper_8_are_taken():
  values = np.arange(0, 2**16, 101, np.uint16).reshape(11, -1)
  image = decode([requests.encode(values)])[0][0]
  np.testing.assert_array_equal(image, np.repeat((values >> 8)[..., None], 3, axis=-1))


@pytest.mark.parametrize('case', requests.BAD_BYTES)
def test_the_image_that_is_bad_is_named(case):
  encoded, message = requests.BAD_BYTES[case]
  with pytest.raises(tf.errors.InvalidArgumentError, match=message):
    decode(tf.constant(encoded, tf.string))


def test_what_is_too_large_is_refused_before_it_is_decoded():
  """A header of so many pixels over data that is none: the size is what the error names."""
  with pytest.raises(tf.errors.InvalidArgumentError, match='has 8192 x 4097 pixels'):
    decode([requests.png_header(8192, 4097)])
  with pytest.raises(tf.errors.InvalidArgumentError, match='cannot be decoded'):
    decode([requests.png_header(8192, 4096)])


def with_scans(number):
  """A progressive JPEG whose last scan comes again and again, for 20 bytes each."""
  jpeg = requests.encode(requests.rectangles(33, 47), 'JPEG', progressive=True)
  last, end = jpeg.rindex(b'\xff\xda'), jpeg.rindex(b'\xff\xd9')
  given = jpeg.count(b'\xff\xda')
  return jpeg[:last] + jpeg[last:end] * (number + 1 - given) + jpeg[end:]


def test_a_jpeg_of_ever_more_scans_is_refused():
  images, _ = decode([with_scans(64)])
  assert images.shape == (1, 33, 47, 3)
  with pytest.raises(
    tf.errors.InvalidArgumentError, match='image 1 of the batch has too many scans'
  ):
    decode([with_scans(64), with_scans(65)])
  # A PNG may have these bytes anywhere.
  png = requests.encode(requests.rectangles(5, 7))
  assert decode([png + 100 * b'\xff\xda'])[0].shape == (1, 5, 7, 3)


def test_interlaced_pictures_are_as_others(tmp_path):
  """Of one pixel, the seven passes are one."""
  png = bytearray(requests.encode(np.full((1, 1, 3), 200, np.uint8)))
  png[28] = 1
  png[29:33] = zlib.crc32(png[12:29]).to_bytes(4)
  assert decode([bytes(png)])[0].numpy().tolist() == [[[[200] * 3]]]
