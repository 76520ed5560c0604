"""Decodes JPEG and PNG files with TensorFlow, to the pixels of `data.pictures`.

h, w are an image's size.
"""

import tensorflow as tf

from oanet_tf.data import exif
from oanet_tf.data.pictures import flip

_PNG, _JPEG = b'\x89PNG\r\n\x1a\n', b'\xff\xd8\xff'
# Before an EXIF block.
_EXIF_OF_JPEG, _EXIF_OF_PNG = exif.PREFIX, b'eXIf'
# What a scan of a JPEG begins with. Encoders make ten, and a preview in the EXIF block has one.
_SCAN, _MOST_SCANS = b'\xff\xda', 64


def is_png(encoded: tf.Tensor) -> tf.Tensor:
  return _begins_with(encoded, _PNG)


def is_jpeg(encoded: tf.Tensor) -> tf.Tensor:
  return _begins_with(encoded, _JPEG)


def _begins_with(encoded: tf.Tensor, signature: bytes) -> tf.Tensor:
  return tf.strings.substr(encoded, 0, len(signature)) == signature


def stored_size(encoded: tf.Tensor) -> tf.Tensor:
  """[] string -> [2] int32, the [height, width] of the stored pixels, from the header."""

  def of_png() -> tf.Tensor:
    # Width and height, 4 bytes each.
    size = tf.io.decode_raw(tf.strings.substr(encoded, 16, 8), tf.int32, little_endian=False)
    return tf.ensure_shape(size, [2])[::-1]

  size = tf.cond(is_png(encoded), of_png, lambda: tf.image.extract_jpeg_shape(encoded)[:2])
  return tf.ensure_shape(size, [2])


def has_few_scans(encoded: tf.Tensor) -> tf.Tensor:
  """[B] string -> [B] bool: whether the file cannot take very long to decode.

  Each scan of a progressive JPEG goes over all of its pixels, and a hundred bytes make a scan.
  """
  parts = tf.strings.split(encoded, sep=_SCAN, maxsplit=_MOST_SCANS + 1).row_lengths()
  return is_png(encoded) | (parts <= 1 + _MOST_SCANS)


def decode_stored(encoded: tf.Tensor) -> tf.Tensor:
  """[] string -> [h, w, 3] uint8 RGB: the pixels as stored, whatever their orientation.

  Gray, palette and CMYK images are converted to RGB. Of 16 bits, the upper 8 are used. Transparent
  pixels are laid on white. Of an animated PNG, the first frame is used.

  Raises:
    tf.errors.InvalidArgumentError: when it is run, if the file is cut off or damaged.
  """
  pixels = tf.cond(
    is_jpeg(encoded),
    # As Pillow does; the default is faster but less exact.
    lambda: tf.io.decode_jpeg(encoded, channels=3, dct_method='INTEGER_ACCURATE'),
    lambda: tf.cond(
      _has_alpha(encoded),
      lambda: _on_white(tf.io.decode_png(encoded, channels=4)),
      lambda: tf.io.decode_png(encoded, channels=3),
    ),
  )
  return tf.ensure_shape(pixels, [None, None, 3])


def _has_alpha(png: tf.Tensor) -> tf.Tensor:
  # The colour type in the header; 4 and 6 are gray and RGB with an alpha channel. The zeros are for
  # files that end before it: the error of `substr` would have their bytes, which are no text.
  header = tf.strings.join([tf.strings.substr(png, 0, 26), bytes(26)])
  kind = tf.strings.substr(header, 25, 1)
  # The alpha of a palette, or of one colour, comes before the pixels.
  before_pixels = _parts(png, b'IDAT')[0]
  return (kind == b'\x04') | (kind == b'\x06') | (tf.size(_parts(before_pixels, b'tRNS')) == 2)


def _parts(text: tf.Tensor, separator: bytes) -> tf.Tensor:
  """The text before the separator, and that after it if it is there."""
  return tf.strings.split(text, sep=separator, maxsplit=1)


def _on_white(image: tf.Tensor) -> tf.Tensor:
  """[h, w, 4] uint8 RGBA -> [h, w, 3] uint8, rounded."""
  # At most 255 * 255 + 127, so that 16 bits are enough.
  color, opacity = tf.cast(image[..., :3], tf.uint16), tf.cast(image[..., 3:], tf.uint16)
  return tf.cast((color * opacity + 255 * (255 - opacity) + 127) // 255, tf.uint8)


def orientation(encoded: tf.Tensor) -> tf.Tensor:
  """[] string -> [] int32, what `exif.orientation` says of the file's EXIF block."""
  mark = tf.where(is_png(encoded), _EXIF_OF_PNG, _EXIF_OF_JPEG)
  parts = _parts(encoded, mark)

  def of_block() -> tf.Tensor:
    # Before the mark stands a length: in a PNG 4 bytes, that of the block; in a JPEG 2, that of the
    # segment, with its own bytes and the mark.
    before = tf.strings.substr(tf.strings.join([bytes(4), parts[0]]), -4, 4)
    upper, lower = tf.unstack(
      tf.cast(tf.io.decode_raw(before, tf.uint16, little_endian=False), tf.int64), num=2
    )
    of_png, of_jpeg = 2**16 * upper + lower, tf.maximum(lower - 2 - len(_EXIF_OF_JPEG), 0)
    length = tf.where(is_png(encoded), of_png, of_jpeg)
    return _of_exif(tf.strings.substr(parts[1], tf.constant(0, tf.int64), length))

  return tf.cond(tf.size(parts) == 2, of_block, lambda: tf.constant(1))


def _of_exif(block: tf.Tensor) -> tf.Tensor:
  """As `exif.orientation`, which says what is read here."""
  prefix = tf.where(_begins_with(block, exif.PREFIX), len(exif.PREFIX), 0)
  block = tf.strings.substr(block, prefix, exif.MAX_BYTES)
  little = _begins_with(block, exif.LITTLE_ENDIAN)
  known = little | _begins_with(block, exif.BIG_ENDIAN)
  data = tf.cast(tf.io.decode_raw(block, tf.uint8), tf.int64)
  end = tf.size(data, tf.int64)
  # What is read beyond the end is 0.
  data = tf.concat([data, tf.zeros([exif.MAX_BYTES + exif.ENTRY_BYTES], tf.int64)], axis=0)

  def number(place: tf.Tensor, length: int) -> tf.Tensor:
    place = tf.clip_by_value(tf.cast(place, tf.int64), 0, exif.MAX_BYTES)
    digits = tf.gather(data, place[..., None] + tf.range(length, dtype=tf.int64))
    digits = tf.where(little, digits[..., ::-1], digits)
    return tf.reduce_sum(digits * 256 ** tf.range(length - 1, -1, -1, dtype=tf.int64), axis=-1)

  directory = number(tf.constant(4), 4)
  entries = directory + 2 + exif.ENTRY_BYTES * tf.range(number(directory, 2))
  kind = number(entries + 2, 2)
  is_it = (number(entries, 2) == exif.ORIENTATION) & (number(entries + 4, 4) == 1)
  is_it &= entries + exif.ENTRY_BYTES <= end
  is_it &= tf.reduce_any(kind[:, None] == tf.constant([*exif.WHOLE_NUMBERS], tf.int64), axis=1)
  values = tf.zeros_like(kind)
  for of_kind, length in exif.WHOLE_NUMBERS.items():
    place = entries + 8
    if length > 4:  # It is elsewhere, and its place stands here.
      place = number(place, 4)
      is_it &= (kind != of_kind) | (place + length <= end)
    values = tf.where(kind == of_kind, number(place, length), values)
  found = tf.concat([tf.boolean_mask(values, is_it), [1]], axis=0)[0]
  return tf.cast(tf.where(known & (found >= 1) & (found <= 8), found, 1), tf.int32)


def is_transposed(orientation: tf.Tensor) -> tf.Tensor:
  return orientation >= 5


def turn(pixels: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
  """As `pictures.turned`, for [h, w, 3] and [] int32."""
  pixels = tf.cond(
    is_transposed(orientation), lambda: tf.transpose(pixels, [1, 0, 2]), lambda: pixels
  )
  rows, columns = (
    tf.gather([0] + [flip(one, axis) for one in range(1, 9)], orientation) for axis in (0, 1)
  )
  return tf.ensure_shape(pixels[::rows, ::columns], [None, None, 3])
