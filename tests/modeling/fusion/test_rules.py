"""Where packages differ in merging; the numbers of resampling are PyTorch's."""

import numpy as np
import pytest
import tensorflow as tf
from official.vision.ops import spatial_transform_ops

from oanet_tf.config import values
from oanet_tf.data.geometry import Canvas
from oanet_tf.modeling.fusion import methods
from oanet_tf.modeling.fusion.rules import RULES
from oanet_tf.modeling.fusion.stuff import stuff_labels
from oanet_tf.modeling.mask_paste import paste_masks
from oanet_tf.modeling.stuff_channels import StuffChannels
from tests.modeling.fusion.given import GRASS, NUM_STUFF, NUM_THINGS, SKY, batch, fuse, outputs

EQUAL_SCORES = {'boxes': [[0, 0, 8, 8]], 'classes': [1], 'scores': [0.5]}


def test_the_configuration_knows_all_rules():
  assert set(RULES) == set(values.RULES)


@pytest.mark.parametrize(('rules', 'is_kept'), [('panopticapi', True), ('detectron2', True),
                                                ('model_garden', False)])  # fmt: skip
def test_a_score_at_its_threshold(rules, is_kept):
  _, instances = fuse(outputs(**EQUAL_SCORES), rules=rules, score_threshold=0.5)
  assert instances.any() == is_kept


@pytest.mark.parametrize(('rules', 'is_kept'), [('panopticapi', True), ('detectron2', True),
                                                ('model_garden', False)])  # fmt: skip
def test_a_covered_half_at_its_threshold(rules, is_kept):
  given = outputs(boxes=[[0, 0, 16, 8], [0, 0, 8, 16]], classes=[1, 2], scores=[0.9, 0.8])
  _, instances = fuse(given, rules=rules, overlap_threshold=0.5)
  assert (instances == 2).any() == is_kept


@pytest.mark.parametrize(('rules', 'is_kept'), [('panopticapi', True), ('detectron2', True),
                                                ('model_garden', False)])  # fmt: skip
def test_probabilities_at_their_threshold(rules, is_kept):
  given = outputs(boxes=[[0, 0, 16, 16]], classes=[1], scores=[0.9], masks=np.full((1, 8, 8), 0.5))
  _, instances = fuse(given, rules=rules, mask_threshold=0.5)
  assert instances[4:12, 4:12].all() == is_kept
  assert instances.any() == is_kept


@pytest.mark.parametrize(
  ('rules', 'limit', 'is_kept'),
  [
    # Of 32 × 32 pixels of grass, 512 are hidden.
    ('panopticapi', 512, True),
    ('panopticapi', 513, False),
    ('detectron2', 512, True),
    ('detectron2', 513, False),
    ('model_garden', 513, True),
    ('model_garden', 1023, True),
    ('model_garden', 1024, False),
  ],
)
def test_the_area_of_stuff(rules, limit, is_kept):
  given = outputs(boxes=[[0, 0, 16, 32]], classes=[1], scores=[0.9])
  # Low enough for masks that fade at the corners.
  labels, _ = fuse(given, rules=rules, stuff_area_limit=limit, mask_threshold=0.3)
  assert (labels == GRASS).any() == is_kept


MASK = [
  [0.9, 0.2, 0.7, 0.6],
  [0.1, 0.8, 0.4, 0.95],
  [0.5, 0.55, 0.3, 0.85],
  [1.0, 0.65, 0.75, 0.05],
]
# `torch.nn.functional.grid_sample` with zeros around, as Detectron2 pastes a mask into its box.
PASTED = [
  [0, 0, 0, 0, 0, 0, 0, 0],
  [0.36384, 0.51084, 0.16783, 0.36874, 0.47409, 0.41897, 0.12495, 0],
  [0.1647, 0.38476, 0.63884, 0.5387, 0.60079, 0.85216, 0.25415, 0],
  [0.24256, 0.47021, 0.58727, 0.41894, 0.49859, 0.85345, 0.25454, 0],
  [0.53153, 0.8573, 0.65222, 0.67126, 0.51536, 0.15259, 0.04551, 0],
  [0.04492, 0.0718, 0.05275, 0.05635, 0.04111, 0.00388, 0.00116, 0],
  [0, 0, 0, 0, 0, 0, 0, 0],
]


def test_masks_fade_as_in_detectron2():
  masks, boxes = tf.constant(MASK)[None, None], tf.constant([[[1.3, 0.4, 5.1, 6.2]]])
  found = paste_masks(masks, boxes, 7, 8, edges='fade')[0, 0]
  np.testing.assert_allclose(found, PASTED, atol=2e-5)
  for empty in ([2, 2, 2, 5], [2, 2, 5, 2], [2, 2, 2, 2]):
    nothing = paste_masks(masks, tf.constant([[empty]], tf.float32), 7, 8, edges='fade')
    assert not nothing.numpy().any()


def test_pixels_whose_corner_lies_in_the_box():
  masks, boxes = tf.ones([1, 1, 4, 4]), tf.constant([[[1.3, 0.4, 4.6, 2.0]]])
  found = paste_masks(masks, boxes, 6, 4, edges='from_corner')[0, 0].numpy()
  expected = np.zeros((6, 4))
  expected[2:5, 1:2] = 1
  np.testing.assert_array_equal(found, expected)


# Of two channels of 3 × 4 cells, after ×4, the upper left 10 × 13, and bilinear to 14 × 18.
LOGITS = (np.arange(24).reshape(2, 3, 4) ** 2 * 14 % 13).astype(np.float32)
LARGER = """
111111000000000000
111111000000000000
111110000000000000
111110000000000000
111110000000000000
111110000000000000
111110000000001000
111110000000011110
111110000000011111
111110000000001111
111111000000000011
111111111100000011
111111111110000001
000111111110000001
"""


def test_logits_are_resized_in_two_steps_as_in_detectron2():
  info = tf.constant([[[14, 18], [10, 13], [10 / 14, 13 / 18], [0, 0]]], tf.float32)
  canvas, logits = Canvas(info, 14, 18), tf.constant(LOGITS.transpose(1, 2, 0))[None]
  channels = StuffChannels.of_all(0, 2)

  def labels(rules):
    resampling = RULES[rules].resampling
    found = stuff_labels(logits, canvas, channels=channels, stride=4, resampling=resampling)
    return found.numpy()[0] - 1

  larger = np.array([list(row) for row in LARGER.split()], int)
  np.testing.assert_array_equal(labels('detectron2'), larger)
  # The test can tell the rules apart.
  assert (labels('panopticapi') != larger).sum() == 4


def test_logits_are_resized_to_whole_pixels_as_in_the_model_garden():
  rng = np.random.default_rng(0)
  logits = tf.constant(rng.normal(size=(2, 16, 16, 6)), tf.float32)
  sizes, scale = np.array([[37, 50], [50, 23]]), np.array([[1.27, 1.28], [1.28, 1.26]])
  info = np.stack([sizes, np.full((2, 2), 64), scale, np.zeros((2, 2))], axis=1)
  info = tf.constant(info, tf.float32)
  whole = tf.math.ceil(info[:, 1] / info[:, 2])
  expected = spatial_transform_ops.bilinear_resize_with_crop_and_pad(
    logits, whole, crop_offset=tf.zeros([2, 2]), crop_size=info[:, 0], output_size=[50, 50]
  )
  found = stuff_labels(
    logits, Canvas(info, 50, 50), channels=StuffChannels.of_all(0, 6), stride=4,
    resampling=RULES['model_garden'].resampling,
  )  # fmt: skip
  for index, (height, width) in enumerate(sizes):
    np.testing.assert_array_equal(
      found[index, :height, :width], 1 + np.argmax(expected[index, :height, :width], axis=-1)
    )


@pytest.mark.parametrize(('rules', 'is_kept'), [('panopticapi', False), ('model_garden', True)])
def test_masks_in_the_padding_count_in_the_model_garden(rules, is_kept):
  """The second is covered to 8 / 12 within the image, and to 8 / 32 within the network input."""
  given = outputs(boxes=[[0, 0, 8, 8], [0, 0, 32, 8]], classes=[1, 2], scores=[0.9, 0.8])
  _, instances = fuse(given, rules=rules, size=(12, 32))
  assert (instances == 2).any() == is_kept
  assert instances.shape == (12, 32)


@pytest.mark.parametrize('rules', RULES)
@pytest.mark.parametrize('method', ['srm', 'heuristic', 'class_prior', 'upsnet'])
@pytest.mark.parametrize('void', [None, 0, 1])
def test_every_fusion_runs_with_every_head(rules, method, void):
  """The semantic heads of Panoptic FPN have one channel for all things."""
  stuff = np.full((32, 32), GRASS)
  stuff[16:] = SKY
  stuff[:, 28:] = 1
  given = outputs(
    boxes=[[2, 2, 12, 12], [6, 6, 20, 24]], classes=[1, 2], scores=[0.9, 0.8], stuff=stuff
  )
  prior = np.full((NUM_THINGS, NUM_THINGS), 0.5, np.float32)
  made = batch(given, class_prior=prior, rules=rules, stuff_from='all')
  if void is not None:
    logits = given['stuff_logits']
    things = tf.reduce_max(logits[..., :NUM_THINGS], axis=-1, keepdims=True)
    parts = [tf.zeros_like(things)] * void + [things, logits[..., NUM_THINGS:]]
    given['stuff_logits'] = tf.concat(parts, axis=-1)
    channels = StuffChannels(void, 1, NUM_STUFF, NUM_THINGS)
    made = batch(given, class_prior=prior, channels=channels, rules=rules, stuff_from='all')
  labels = methods.fuse(made, method).category_mask.numpy()[0]
  assert labels[4, 4] == 1 and labels[18, 22] == 2
  assert labels[30, 2] == SKY and labels[2, 16] == GRASS
  if method != 'upsnet':
    assert not labels[:, 29:].any()
