"""What is exported is what is scored: the same numbers in LiteRT, and when compiled by XLA."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from oanet_tf.modeling import spatial_ranking
from oanet_tf.modeling.fusion import methods
from oanet_tf.modeling.occlusion_head import OcclusionHead, Views
from tests.lite import run_in_litert
from tests.modeling.fusion.given import NUM_STUFF, NUM_THINGS, batch, image_info, outputs

SIZE = (60, 62)
STRIDE = 4
CLASS_PRIOR = np.array([[0.5, 0.9, 0.3], [0.1, 0.5, 0.8], [0.7, 0.2, 0.5]], np.float32)


def random_outputs(seed, number=12):
  """Soft masks in boxes that leave the image, and noise upon the stuff branch's logits."""
  rng = np.random.default_rng(seed)
  low = rng.uniform(-5, 50, (number, 2))
  given = outputs(
    np.concatenate([low, low + rng.uniform(2, 40, (number, 2))], axis=1),
    rng.integers(1, NUM_THINGS + 1, number),
    np.sort(rng.uniform(0.3, 1, number))[::-1],
    ranking=rng.uniform(size=number).tolist(),
    stuff=np.kron(
      rng.integers(NUM_THINGS + 1, NUM_THINGS + NUM_STUFF + 1, (4, 4)), np.ones((4, 4), int)
    ),
    masks=rng.uniform(size=(number, 8, 8)),
  )
  noise = rng.normal(size=given['stuff_logits'].shape)
  features = 3 * rng.normal(size=(1, 16, 16, 32)).astype(np.float32)
  return {
    **given,
    'stuff_logits': 0.1 * given['stuff_logits'] + noise.astype(np.float32),
    'occlusion_features_2': tf.constant(features),
  }


@functools.cache
def occlusion_head():
  """With random weights; fewer slots than there are pairs."""
  head = OcclusionHead(num_things=NUM_THINGS, max_pairs=20)
  head.all_shapes_static = True
  masks = tf.zeros([1, 1, head.crop_size, head.crop_size])
  features = {'occlusion_features_2': tf.zeros([1, 16, 16, 32])}
  none = tf.zeros([1, 1], tf.int32)
  head(features, Views(tf.zeros([1, 1, 4]), (masks, masks), (none, none)))
  order = np.random.default_rng(0).normal(size=[NUM_THINGS, NUM_THINGS])
  head.class_order.assign(order)
  return head


def fusion_of(method, **settings):
  head = occlusion_head() if method == 'pairwise' else None

  def fuse(**given):
    made = batch(
      given, image_info(SIZE), SIZE, STRIDE, CLASS_PRIOR, head, stuff_area_limit=60, **settings
    )
    return methods.fuse(made, method)._asdict()

  return fuse


CASES = [
  pytest.param('heuristic', {}, marks=pytest.mark.slow),
  ('heuristic', {'stuff_area_by': 'component', 'stuff_from': 'all'}),
  pytest.param('srm', {'ranking_pairs': 'all'}, marks=pytest.mark.slow),
  ('srm', {'ranking_pairs': 'between_categories'}),
  ('class_prior', {}),
  ('pairwise', {}),
  ('upsnet', {}),
  pytest.param('heuristic', {'suppression_threshold': 0.06}, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(('method', 'settings'), CASES)
def test_fusion_runs_in_litert(method, settings):
  fuse, given = fusion_of(method, **settings), random_outputs(seed=1)
  expected = fuse(**given)
  assert (
    len(np.unique(expected['instance_mask'])) > 3 and (expected['category_mask'] > 3).numpy().any()
  )
  found = run_in_litert(fuse, given, [occlusion_head()])
  for name, mask in expected.items():
    np.testing.assert_array_equal(found[name], mask)


@pytest.mark.parametrize(('method', 'settings'), CASES)
def test_fusion_compiles(method, settings):
  fuse, given = fusion_of(method, **settings), random_outputs(seed=2)
  compiled = tf.function(fuse, autograph=False, jit_compile=True)(**given)
  for name, mask in fuse(**given).items():
    np.testing.assert_array_equal(compiled[name], mask)


@pytest.mark.parametrize('num_scales', [1, 3])
def test_ranking_runs_in_litert(num_scales):
  rng = np.random.default_rng(3)
  module = spatial_ranking.SpatialRankingModule(num_things=NUM_THINGS, num_scales=num_scales)
  given = {
    'masks': tf.constant(rng.integers(0, 2, (1, 5, 16, 24)), tf.float32),
    'classes': tf.constant(rng.integers(1, NUM_THINGS + 1, (1, 5)), tf.int32),
  }

  def rank(masks, classes):
    tensor = spatial_ranking.instance_tensor(masks, classes, NUM_THINGS)
    ranking_map = tf.nn.softmax(module(tensor))
    masks = spatial_ranking.conflicting_pixels(masks, tensor)
    scores = spatial_ranking.ranking_scores(ranking_map, masks, classes)
    return {'tensor': tensor, 'ranking_map': ranking_map, 'scores': scores}

  expected, found = rank(**given), run_in_litert(rank, given, [module])
  np.testing.assert_array_equal(found['tensor'], expected['tensor'])
  for name in ('ranking_map', 'scores'):
    np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(('method', 'settings'), CASES)
def test_fusion_of_a_batch_whose_size_is_unknown_when_it_is_traced(method, settings):
  fuse, given = fusion_of(method, **settings), random_outputs(seed=2)
  specs = {name: tf.TensorSpec([None, *x.shape[1:]], x.dtype, name) for name, x in given.items()}
  function = tf.function(fuse, autograph=False).get_concrete_function(**specs)
  for name, mask in fuse(**given).items():
    np.testing.assert_array_equal(function(**given)[name], mask)
