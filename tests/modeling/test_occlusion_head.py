import numpy as np
import pytest
import tensorflow as tf

from oanet_tf.modeling.occlusion_head import OcclusionHead, Pairs, Views, largest_pairs, views_of

SIDE, THINGS = 14, 3


def random_views(rng, images=2, number=3):
  low = rng.uniform(0, 30, (images, number, 2))
  boxes = np.concatenate([low, low + rng.uniform(8, 30, (images, number, 2))], axis=-1)
  masks = rng.integers(0, 2, (2, images, number, SIDE, SIDE))
  boxes, *masks = (tf.constant(values, tf.float32) for values in (boxes, *masks))
  classes = rng.integers(1, THINGS + 1, (2, images, number))
  return Views(boxes, tuple(masks), tuple(map(tf.constant, classes)))


def features(rng, images=2):
  return {
    level: tf.constant(rng.normal(size=(images, side, side, 5)), tf.float32)
    for level, side in (('2', 16), ('3', 8), ('6', 1))
  }


def test_the_answer_for_the_other_order_is_the_opposite():
  rng = np.random.default_rng(0)
  head, views = OcclusionHead(num_things=THINGS), random_views(rng)
  head.class_order.assign(rng.normal(size=(THINGS, THINGS)))
  reduced = head.reduced(features(rng))
  logits = head(reduced, views).numpy()
  assert logits.shape == (2, 3) and np.abs(logits).min() > 0
  swapped = head(reduced, Views(views.boxes, views.masks[::-1], views.classes[::-1]))
  np.testing.assert_allclose(swapped, -logits, rtol=1e-4, atol=1e-6)
  same = head(reduced, Views(views.boxes, views.masks[:1] * 2, views.classes[:1] * 2))
  np.testing.assert_allclose(same, np.zeros_like(logits), atol=1e-6)


def test_categories_add_what_the_table_says_of_them():
  rng = np.random.default_rng(4)
  head, views = OcclusionHead(num_things=THINGS), random_views(rng, images=1)
  reduced = head.reduced(features(rng, images=1))

  def asked(first, second):
    return head(reduced, views._replace(classes=(tf.constant([first]), tf.constant([second]))))

  before = asked([1, 2, 3], [2, 1, 3]).numpy()
  # The first category lies on the second; the padding, of no category, has no part in it.
  head.class_order.assign([[0, 5, 0], [2, 0, 0], [0, 0, 7]])
  np.testing.assert_allclose(asked([1, 2, 3], [2, 1, 3]) - before, [[3, -3, 0]], rtol=1e-5)
  np.testing.assert_allclose(asked([0, 1, -1], [1, 0, 2]) - before, [[0, 0, 0]], atol=1e-6)


def test_reduced_features_are_of_the_levels_that_are_sampled():
  head = OcclusionHead(num_things=THINGS, num_filters=7)
  reduced = head.reduced(features(np.random.default_rng(0)))
  assert {name: tuple(value.shape) for name, value in reduced.items()} == {
    'occlusion_features_2': (2, 16, 16, 7),
    'occlusion_features_3': (2, 8, 8, 7),
  }


def test_gradients_reach_all_weights_but_neither_features_nor_masks():
  rng = np.random.default_rng(1)
  head = OcclusionHead(num_things=THINGS)
  inputs = features(rng, images=1)
  boxes = tf.constant([[[0, 0, 20, 20], [10, 10, 30, 30]]], tf.float32)
  masks = tf.constant(rng.integers(0, 2, (1, 2, 4, 4)), tf.float32)
  pairs = Pairs(tf.constant([[0]]), tf.constant([[1]]), tf.constant([[True]]))
  with tf.GradientTape() as tape:
    tape.watch([inputs['2'], boxes, masks])
    views = views_of(pairs, boxes, masks, tf.constant([[1, 2]]), SIDE)
    logits = head(head.reduced(inputs), views)
  weights = head.trainable_variables
  assert len(weights) == 18
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
  head = OcclusionHead(num_things=THINGS, num_filters=8)
  boxes = tf.constant([[[0, 0, 32, 32]]], tf.float32)
  first, second = np.zeros((2, 1, 1, SIDE, SIDE), np.float32)
  first[..., :9], second[..., 5:] = 1, 1
  # Of one category, of which the table has nothing to say.
  classes = tf.ones([1, 1], tf.int32)
  views = Views(boxes, (tf.constant(first), tf.constant(second)), (classes, classes))

  def scene():
    on_top = rng.integers(2)
    column = np.arange(8)
    texture = np.where(column < (5 if on_top else 3), 1.0, -1.0)
    noise = rng.normal(0, 0.3, (1, 8, 8, 1))
    return {'2': tf.constant(noise + texture[None, None, :, None], tf.float32)}, float(on_top)

  optimizer = tf.keras.optimizers.Adam(0.01)
  scene_features, _ = scene()
  head(head.reduced(scene_features), views)

  @tf.function(autograph=False)
  def step(inputs, target):
    with tf.GradientTape() as tape:
      logit = head(head.reduced({'2': inputs}), views)
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
  head = OcclusionHead(num_things=THINGS, max_pairs=7)
  assert head.pairs_of(tf.constant(shared)).first.shape == (2, 2)
  assert head.pairs_of(tf.zeros([2, 5, 5])).first.shape == (2, 1)
  head.all_shapes_static = True
  assert head.pairs_of(tf.constant(shared)).first.shape == (2, 7)


def test_views_are_of_the_box_around_both():
  boxes = tf.constant([[[0, 0, 8, 8], [4, 4, 16, 12]]], tf.float32)
  masks = np.ones((1, 2, 2, 2), np.float32)
  masks[0, 1, :, 1] = 0  # The right half of the second.
  pairs = Pairs(tf.constant([[1]]), tf.constant([[0]]), tf.constant([[True]]))
  views = views_of(pairs, boxes, tf.constant(masks), tf.constant([[6, 7]]), side=4)
  assert views.boxes.numpy().tolist() == [[[0, 0, 16, 12]]]
  assert [classes.numpy().tolist() for classes in views.classes] == [[[7]], [[6]]]
  # Cells of 4 × 3 pixels. The second instance now comes first, and covers columns 4 to 8.
  rows, columns = np.array([0, 1, 1, 1]), np.array([0, 2 / 3, 2 / 3, 0])
  np.testing.assert_allclose(views.masks[0][0, 0], np.outer(rows, columns), atol=1e-6)
  rows, columns = np.array([1, 1, 0, 0]), np.array([1, 1, 2 / 3, 0])
  np.testing.assert_allclose(views.masks[1][0, 0], np.outer(rows, columns), atol=1e-6)
