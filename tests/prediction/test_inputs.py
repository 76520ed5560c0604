"""The images that users give: all usual forms, and what is none."""

import pathlib

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from oanet_tf.errors import InputError
from oanet_tf.prediction.inputs import batches_of, named_images

IMAGE = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)


@pytest.fixture
def folder(tmp_path):
  for name in ('b.png', 'a.bmp'):
    Image.fromarray(IMAGE).save(tmp_path / name)
  (tmp_path / 'notes.txt').write_text('no picture')
  return tmp_path


def named(images):
  return [(name, image.shape, image.dtype, image.sum()) for name, image in named_images(images)]


def expected(*names):
  return [(name, (5, 7, 3), np.uint8, IMAGE.sum()) for name in names]


def test_one_image_in_each_form(folder):
  assert named(str(folder / 'b.png')) == expected('b')
  assert named(folder / 'a.bmp') == expected('a')
  assert named(folder) == expected('a', 'b')
  assert named(IMAGE) == named(Image.fromarray(IMAGE)) == named(tf.constant(IMAGE))
  assert named(IMAGE) == expected('image_0')
  # Not contiguous, and not writable.
  turned = np.asfortranarray(IMAGE)
  turned.setflags(write=False)
  assert named(turned) == expected('image_0')


def test_many_images_of_all_forms(folder):
  mixed = [folder, IMAGE, Image.fromarray(IMAGE), folder / 'b.png', str(folder / 'b.png')]
  assert named(mixed) == expected('a', 'b', 'image_1', 'image_2', 'b_2', 'b_3')
  assert named(iter(mixed)) == named(tuple(mixed)) == named(mixed)
  assert named(np.stack([IMAGE, IMAGE])) == expected('image_0', 'image_1')
  assert named([]) == named(np.zeros([0, 5, 7, 3], np.uint8)) == []


def test_a_name_is_never_given_twice(folder):
  for name in ('a_2.png', 'a.png'):
    Image.fromarray(IMAGE).save(folder / name)
  paths = [folder / name for name in ('a.bmp', 'a_2.png', 'a.png', 'a.png')]
  assert [name for name, _ in named_images(paths)] == ['a', 'a_2', 'a_3', 'a_4']


def test_pil_images_are_read_as_files_are():
  exif = Image.Exif()
  exif[0x0112] = 6  # The camera was held upright: turn by 90 degrees.
  turned = Image.fromarray(IMAGE)
  turned.info['exif'] = exif.tobytes()
  [(_, image)] = named_images(turned)
  np.testing.assert_array_equal(image, np.rot90(IMAGE, -1))
  transparent = Image.new('RGBA', (2, 3), (255, 0, 0, 0))
  [(_, image)] = named_images(transparent)
  assert image.shape == (3, 2, 3) and (image == 255).all()


def test_images_are_read_when_they_are_asked_for(folder):
  read = []

  def images():
    for index in range(3):
      read.append(index)
      yield IMAGE

  found = named_images(images())
  assert read == []
  next(found)
  assert read == [0]


@pytest.mark.parametrize(
  ('images', 'message'),
  [
    (3, 'not int 3'),
    (None, 'NoneType'),
    ([IMAGE, None], 'image 1: .*NoneType'),
    ([[1, 2]], 'image 0: .*list'),
    (IMAGE[..., 0], r'image 0: .*\[5, 7\] of uint8'),
    (IMAGE[..., :2], r'\[5, 7, 2\]'),
    (IMAGE / 255, r'\[5, 7, 3\] of float64'),
    (IMAGE[:0], r'\[0, 7, 3\]'),
    (np.array('text'), r'\[\] of <U4'),
    ('no such.jpg', r'no such\.jpg: '),
    ([pathlib.Path('none', 'a.png')], r'a\.png: '),
    (b'bytes', 'image 0: .*int'),
    ('', 'no'),
  ],
  ids=repr,
)
def test_what_is_no_image(images, message, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(InputError, match=message) as error:
    list(named_images(images))
  assert '\n' not in str(error.value)


def test_a_file_that_is_no_picture(folder):
  with pytest.raises(InputError, match=r'notes\.txt: '):
    list(named_images(folder / 'notes.txt'))


def test_batches_are_of_neighbours_that_fit():
  def sides(*shapes):
    images = [(n, np.zeros((*shape, 3), np.uint8)) for n, shape in enumerate(shapes)]
    return [[n for n, _ in batch] for batch in batches_of(images, 3)]

  assert sides() == []
  assert sides((2, 3), (4, 1), (1, 1), (5, 5)) == [[0, 1, 2], [3]]
  # A SavedModel takes 16.
  images = [(str(n), IMAGE) for n in range(38)]
  assert [len(batch) for batch in batches_of(images, 1000)] == [16, 16, 6]
  # Padded to one another, a wide and a high picture would be huge; one alone may be.
  assert sides((1, 2**25 + 1), (1, 1), (2**13, 1), (1, 2**12)) == [[0], [1, 2], [3]]


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), max_size=9), st.integers(1, 4))
def test_batches_keep_all_images_in_order(shapes, batch_size):
  images = [(str(n), np.zeros((*shape, 3), np.uint8)) for n, shape in enumerate(shapes)]
  batches = list(batches_of(iter(images), batch_size))
  assert [name for batch in batches for name, _ in batch] == [name for name, _ in images]
  assert all(1 <= len(batch) <= batch_size for batch in batches)


def test_a_full_batch_waits_for_no_further_image():
  images = iter([('a', IMAGE)])

  def endless():
    yield next(images)
    raise AssertionError('the next image was asked for')

  assert len(next(batches_of(endless(), 1))) == 1
