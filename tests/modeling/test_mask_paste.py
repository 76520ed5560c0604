import numpy as np
import pytest
import tensorflow as tf

from oanet_tf.modeling.mask_paste import paste_masks


def paste(mask, box, height, width):
  masks = tf.constant(mask, tf.float32)[None, None]
  boxes = tf.constant(box, tf.float32)[None, None]
  return paste_masks(masks, boxes, height, width)[0, 0].numpy()


def test_box_of_the_masks_own_size_copies_it():
  mask = np.arange(16).reshape(4, 4)
  pasted = paste(mask, [1, 2, 5, 6], 7, 8)
  np.testing.assert_allclose(pasted[1:5, 2:6], mask, atol=1e-5)
  pasted[1:5, 2:6] = 0
  assert not pasted.any()


def test_interpolates_between_cell_middles_and_clamps_at_the_border():
  # Two cells over four pixels: the cells' middles are at 1 and 3, the pixels' at 0.5, 1.5, …
  pasted = paste([[0, 1], [0, 1]], [0, 0, 4, 4], 4, 4)
  np.testing.assert_allclose(pasted, np.tile([0, 0.25, 0.75, 1], (4, 1)), atol=1e-6)


@pytest.mark.parametrize('box', [[2, 2, 2, 5], [0, 0, 0, 0], [-1, -1, -1, -1], [9, 9, 12, 12]])
def test_box_without_area_or_outside_of_the_canvas_is_empty(box):
  assert not paste(np.ones((3, 3)), box, 6, 6).any()


def test_box_that_leaves_the_canvas_is_cut():
  assert paste(np.ones((3, 3)), [-3, 4, 3, 9], 6, 6).sum() == 3 * 2


def test_no_instance():
  assert paste_masks(tf.zeros([2, 0, 5, 5]), tf.zeros([2, 0, 4]), 6, 7).shape == (2, 0, 6, 7)


def test_a_pasted_disc_has_the_discs_area():
  y, x = np.mgrid[:28, :28] + 0.5
  disc = (y - 14) ** 2 + (x - 14) ** 2 <= 14**2
  pasted = paste(disc, [10, 20, 110, 220], 120, 240) >= 0.5
  assert pasted.sum() == pytest.approx(np.pi * 50 * 100, rel=0.02)
