import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from official.vision.ops import preprocess_ops
from PIL import Image

from oanet_tf.data.resizing import DTYPES, as_pixels, resize

_ANY_SIZE = [tf.TensorSpec([None, None, 3], tf.uint8), tf.TensorSpec([2], tf.int32)]
_pillow = tf.function(lambda image, size: resize(image, size, 'pillow'), _ANY_SIZE, autograph=False)


def picture(height, width, seed=0):
  return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def pillow(image, size):
  return np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))


@given(st.tuples(*[st.integers(1, 60)] * 4), st.integers(0, 99))
def test_to_the_bit_as_pillow(sizes, seed):
  height, width, *size = sizes
  image = picture(height, width, seed)
  # Pillow 13 takes columns first where the image becomes much flatter; older ones never did.
  rows_first = pillow(pillow(image, [height, size[1]]), size)
  np.testing.assert_array_equal(_pillow(image, size), rows_first)
  # Where sizes are known, the weights are constants.
  np.testing.assert_array_equal(resize(tf.constant(image), list(size), 'pillow'), rows_first)


@pytest.mark.parametrize(('size', 'wanted'), [((480, 640), (800, 1067)), ((900, 700), (311, 242))])
def test_photos_to_the_bit_as_pillow(size, wanted):
  image = picture(*size)
  np.testing.assert_array_equal(_pillow(image, wanted), pillow(image, wanted))


def test_colours_normalized_before_as_in_the_model_garden():
  image = picture(40, 30)
  normalized = preprocess_ops.normalize_image(tf.constant(image))
  expected = tf.image.resize(normalized, [23, 17])
  found = resize(tf.constant(image), [23, 17], 'normalized')
  np.testing.assert_array_equal(found, expected)
  rounded = resize(tf.constant(image), [23, 17], 'bilinear')
  assert np.abs(as_pixels(found.numpy()).astype(int) - rounded.numpy()).max() <= 1
  assert (found.dtype, rounded.dtype) == (DTYPES['normalized'], DTYPES['bilinear'])


def test_as_pixels_undoes_the_normalization():
  image = picture(20, 20)
  np.testing.assert_array_equal(as_pixels(resize(image, [20, 20], 'normalized').numpy()), image)
  assert as_pixels(image) is image
