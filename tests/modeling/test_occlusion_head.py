import numpy as np
import pytest
import tensorflow as tf

from oanet_tf.modeling.occlusion_head import Crops, OcclusionHead, Pairs, crops_of, largest_pairs

SIDE = 14


def random_crops(rng, images=2, number=3):
  low = rng.uniform(0, 30, (images, number, 2))
  boxes = np.concatenate([low, low + rng.uniform(8, 30, (images, number, 2))], axis=-1)
  masks = rng.integers(0, 2, (2, images, number, SIDE, SIDE))
  return Crops(*(tf.constant(values, tf.float32) for values in (boxes, *masks)))


def features(rng, images=2):
  return {
    level: tf.constant(rng.normal(size=(images, side, side, 5)), tf.float32)
    for level, side in (('2', 16), ('3', 8), ('6', 1))
  }


def test_the_answer_for_the_other_order_is_the_opposite():
  rng = np.random.default_rng(0)
  head, crops = OcclusionHead(), random_crops(rng)
  reduced = head.reduced(features(rng))
  logits = head(reduced, crops).numpy()
  assert logits.shape == (2, 3) and np.abs(logits).min() > 0
  swapped = head(reduced, crops._replace(first=crops.second, second=crops.first))
  np.testing.assert_allclose(swapped, -logits, rtol=1e-4, atol=1e-6)
  same = head(reduced, crops._replace(second=crops.first))
  np.testing.assert_allclose(same, np.zeros_like(logits), atol=1e-6)


def test_reduced_features_are_of_the_levels_that_are_sampled():
  head = OcclusionHead(num_filters=7)
  reduced = head.reduced(features(np.random.default_rng(0)))
  assert {name: tuple(value.shape) for name, value in reduced.items()} == {
    'occlusion_features_2': (2, 16, 16, 7),
    'occlusion_features_3': (2, 8, 8, 7),
  }


def test_gradients_reach_all_weights_but_neither_features_nor_masks():
  rng = np.random.default_rng(1)
  head = OcclusionHead()
  inputs = features(rng, images=1)
  boxes = tf.constant([[[0, 0, 20, 20], [10, 10, 30, 30]]], tf.float32)
  masks = tf.constant(rng.integers(0, 2, (1, 2, 4, 4)), tf.float32)
  pairs = Pairs(tf.constant([[0]]), tf.constant([[1]]), tf.constant([[True]]))
  with tf.GradientTape() as tape:
    tape.watch([inputs['2'], boxes, masks])
    logits = head(head.reduced(inputs), crops_of(pairs, boxes, masks, SIDE))
  weights = head.trainable_variables
  assert len(weights) == 17
  of_features, of_boxes, of_masks, *of_weights = tape.gradient(
    logits, [inputs['2'], boxes, masks, *weights]
  )
  assert of_features is None and of_boxes is None and of_masks is None
  for variable, gradient in zip(weights, of_weights, strict=True):
    # That of the hidden layer's bias is 0 if the same units are active in both orders.
    assert 'hidden/bias' in variable.name or np.abs(gradient).max() > 0, variable.name


def test_it_learns_whose_texture_is_seen():
  """A feature of 1 where the first lies on top, and of −1 where the second does."""
  rng = np.random.default_rng(2)
  tf.random.set_seed(0)
  head = OcclusionHead(num_filters=8)
  boxes = tf.constant([[[0, 0, 32, 32]]], tf.float32)
  first, second = np.zeros((2, 1, 1, SIDE, SIDE), np.float32)
  first[..., :9], second[..., 5:] = 1, 1
  crops = Crops(boxes, tf.constant(first), tf.constant(second))

  def scene():
    on_top = rng.integers(2)
    column = np.arange(8)
    texture = np.where(column < (5 if on_top else 3), 1.0, -1.0)
    noise = rng.normal(0, 0.3, (1, 8, 8, 1))
    return {'2': tf.constant(noise + texture[None, None, :, None], tf.float32)}, float(on_top)

  optimizer = tf.keras.optimizers.Adam(0.01)
  scene_features, _ = scene()
  head(head.reduced(scene_features), crops)

  @tf.function(autograph=False)
  def step(inputs, target):
    with tf.GradientTape() as tape:
      logit = head(head.reduced({'2': inputs}), crops)
      loss = tf.nn.sigmoid_cross_entropy_with_logits(target[None, None], logit)
    optimizer.apply_gradients(
      zip(tape.gradient(loss, head.trainable_variables), head.trainable_variables, strict=True)
    )
    return logit

  right = []
  for _ in range(200):
    inputs, target = scene()
    logit = step(inputs['2'], tf.constant(target))
    right.append((float(logit[0, 0]) > 0) == bool(target))
  assert np.mean(right[-60:]) > 0.9


# Pairs


def test_the_pairs_that_share_most():
  shared = np.zeros((2, 4, 4), np.float32)
  for i, j, pixels in ((0, 2, 5), (1, 3, 9), (2, 3, 1)):
    shared[0, i, j] = shared[0, j, i] = pixels
  shared[0][np.diag_indices(4)] = 100  # What an instance shares with itself.
  pairs = largest_pairs(tf.constant(shared), 2)
  assert pairs.first[0].numpy().tolist() == [1, 0]
  assert pairs.second[0].numpy().tolist() == [3, 2]
  assert pairs.exists.numpy().tolist() == [[True, True], [False, False]]


@pytest.mark.parametrize(('instances', 'slots'), [(1, 1), (2, 1), (3, 3), (20, 64)])
def test_there_are_no_more_slots_than_pairs(instances, slots):
  pairs = largest_pairs(tf.ones([1, instances, instances]), 64)
  assert pairs.first.shape == (1, slots)
  exists = pairs.exists.numpy()[0]
  assert exists.sum() == min(64, instances * (instances - 1) // 2)
  found = set(zip(pairs.first.numpy()[0][exists], pairs.second.numpy()[0][exists], strict=True))
  assert len(found) == exists.sum() and all(i < j for i, j in found)


def test_only_as_many_pairs_as_some_image_has_unless_shapes_are_static():
  shared = np.zeros((2, 5, 5), np.float32)
  shared[1, 0, 1] = shared[1, 1, 0] = shared[1, 2, 4] = shared[1, 4, 2] = 3
  head = OcclusionHead(max_pairs=7)
  assert head.pairs_of(tf.constant(shared)).first.shape == (2, 2)
  assert head.pairs_of(tf.zeros([2, 5, 5])).first.shape == (2, 1)
  head.all_shapes_static = True
  assert head.pairs_of(tf.constant(shared)).first.shape == (2, 7)


def test_crops_are_of_the_box_around_both():
  boxes = tf.constant([[[0, 0, 8, 8], [4, 4, 16, 12]]], tf.float32)
  masks = np.ones((1, 2, 2, 2), np.float32)
  masks[0, 1, :, 1] = 0  # The right half of the second.
  pairs = Pairs(tf.constant([[1]]), tf.constant([[0]]), tf.constant([[True]]))
  crops = crops_of(pairs, boxes, tf.constant(masks), side=4)
  assert crops.boxes.numpy().tolist() == [[[0, 0, 16, 12]]]
  # Cells of 4 × 3 pixels. The second instance now comes first, and covers columns 4 to 8.
  rows, columns = np.array([0, 1, 1, 1]), np.array([0, 2 / 3, 2 / 3, 0])
  np.testing.assert_allclose(crops.first[0, 0], np.outer(rows, columns), atol=1e-6)
  rows, columns = np.array([1, 1, 0, 0]), np.array([1, 1, 2 / 3, 0])
  np.testing.assert_allclose(crops.second[0, 0], np.outer(rows, columns), atol=1e-6)
