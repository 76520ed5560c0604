import numpy as np
import pytest
import tensorflow as tf
from official.vision.ops import anchor

from oanet_tf.config.definitions import Anchor, OANet
from oanet_tf.data.anchors import Anchors

# Multiples of the coarsest stride.
SIZES = [(64, 128), (832, 1344), (1344, 832), (64, 64)]


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize(
  'anchors', [{}, {'num_scales': 2, 'aspect_ratios': [1.0], 'anchor_size': 4}]
)
def test_equal_the_model_gardens(size, anchors):
  shapes = {'num_scales': 1, 'aspect_ratios': [0.5, 1.0, 2.0], 'anchor_size': 8.0, **anchors}
  expected = anchor.build_anchor_generator(2, 6, **shapes)(size)
  model = OANet(anchor=Anchor(**anchors))
  found = Anchors(model)(size)
  assert list(found) == list(expected)
  for level, boxes in expected.items():
    np.testing.assert_allclose(found[level], boxes, rtol=1e-6, atol=1e-4)


def test_anchors_stay_where_the_features_are():
  """The Model Garden shrinks the stride of a level that has a part of a cell: here to 800 / 13."""
  boxes = Anchors(OANet())((800, 1344))['6'].numpy()
  assert boxes.shape[:2] == (13, 21)
  centres = (boxes[..., :2] + boxes[..., 2:4]) / 2
  np.testing.assert_allclose(centres[:, 0, 0], np.arange(13) * 64 + 32)
  np.testing.assert_allclose(centres[0, :, 1], np.arange(21) * 64 + 32)


def test_equal_detectron2s():
  """`DefaultAnchorGenerator` with offset 0, sizes of 32 to 512 and ratios of 0.5, 1 and 2."""
  model = OANet(anchor=Anchor(cell_offset=0.0, aspect_ratios=[2.0, 1.0, 0.5]))
  boxes = Anchors(model)((64, 128))['3'].numpy()
  # Of the cell in row 1 and column 2, [x1, y1, x2, y2] for each ratio.
  expected = [
    [16 - 45.2548, 8 - 22.6274, 16 + 45.2548, 8 + 22.6274],
    [16 - 32, 8 - 32, 16 + 32, 8 + 32],
    [16 - 22.6274, 8 - 45.2548, 16 + 22.6274, 8 + 45.2548],
  ]
  np.testing.assert_allclose(boxes[1, 2].reshape(3, 4)[:, [1, 0, 3, 2]], expected, atol=1e-3)


def test_the_size_may_be_unknown_when_traced():
  anchors = Anchors(OANet())
  spec = [tf.TensorSpec([2], tf.int32)]
  function = tf.function(lambda size: anchors(tf.unstack(size)), spec, autograph=False)
  for size in SIZES:
    for level, boxes in anchors(size).items():
      np.testing.assert_array_equal(function(tf.constant(size))[level], boxes)
