"""Tests of OccludedScenes' silhouettes, textures and colours, by hand."""

import collections

import numpy as np
import pytest

from oanet_tf.data.occluded_scenes import dataset as occluded_scenes
from oanet_tf.data.occluded_scenes import shapes
from oanet_tf.data.occluded_scenes.shapes import Pose


def test_picture_shows_things_with_dark_outline_and_noise():
  rng = np.random.default_rng(0)
  image = np.full((128, 128, 3), 120, np.float32)
  pose = Pose(64, 64, 60, 60, angle=0.0)
  drawing = shapes.draw(shapes.SILHOUETTES['ball'](rng), pose, 128, 128)
  shapes.paint(image, 'ball', drawing, shapes.frame(128, 128, 128, pose), rng)
  inside = shapes.erode(drawing > 0, 1)
  outline = (drawing > 0) & ~inside
  assert (image[drawing == 0] == 120).all()
  assert image[outline].mean() < 0.6 * image[inside].mean()
  noisy = shapes.light_and_noise(np.full((128, 128, 3), 120, np.float32), rng)
  assert 5 < np.std(np.diff(noisy.astype(float), axis=1)) / np.sqrt(2) < 11


def test_every_color_is_shared():
  used = collections.Counter(
    color for name, colors in shapes.CATEGORY_COLORS.items() for color in colors if name != 'void'
  )
  assert used.keys() == shapes.PALETTE.keys() and min(used.values()) >= 2
  assert shapes.TEXTURES.keys() == shapes.CATEGORY_COLORS.keys()
  assert shapes.TEXTURES.keys() == {*occluded_scenes.CATEGORY_IDS, 'void'}


def test_pose_scales_mirrors_turns_and_moves():
  points = np.array([[0.5, 0.0], [0.0, 0.5]])
  upright = Pose(10, 20, width=8, height=4, angle=0.0)
  np.testing.assert_allclose(upright.to_image(points), [[14, 20], [10, 22]])
  np.testing.assert_allclose(upright._replace(mirror=True).to_image(points), [[6, 20], [10, 22]])
  turned = upright._replace(angle=np.pi / 2)  # right becomes down, down becomes left
  np.testing.assert_allclose(turned.to_image(points), [[10, 24], [8, 20]])


def test_frame_is_the_inverse_of_the_pose():
  pose = Pose(30, 50, width=40, height=20, angle=0.3)
  frame = shapes.frame(256, 256, 256, pose)
  x, y = pose.to_image(np.array([0.5, 0.5]))
  at = round(y), round(x)
  # A corner is 20 px right and 10 px below the centre, halved since the image is 256 and not 128.
  np.testing.assert_allclose([frame.u[at], frame.v[at]], [10, 5], atol=0.5)


def test_erode():
  mask = np.zeros((7, 7), bool)
  mask[2:7, 1:6] = True
  expected = np.zeros((7, 7), bool)
  expected[3:7, 2:5] = True  # the lower edge lies on the image's border
  np.testing.assert_array_equal(shapes.erode(mask, 1), expected)
  np.testing.assert_array_equal(shapes.erode(mask, 0), mask)
  assert not shapes.erode(mask, 3).any()


@pytest.mark.parametrize('name', shapes.SILHOUETTES)
def test_silhouettes_fill_their_box(name):
  for seed in range(20):
    parts = shapes.SILHOUETTES[name](np.random.default_rng(seed))
    pose = Pose(50, 50, 80, 80, angle=0.0)
    rows, columns = np.nonzero(shapes.draw(parts, pose, 101, 101))
    assert 5 <= min(rows.min(), columns.min()) <= max(rows.max(), columns.max()) <= 95
    assert min(np.ptp(rows), np.ptp(columns)) > 60
    assert len(rows) > 0.25 * 80 * 80
