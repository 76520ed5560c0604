import copy

import numpy as np
import pytest
import tensorflow as tf
from official.vision.ops import preprocess_ops

from oanet_tf.config import experiments
from oanet_tf.data.categories import Category, PanopticCategories
from oanet_tf.errors import InputError
from oanet_tf.modeling import build, oanet
from oanet_tf.modeling.fusion.methods import fuse
from oanet_tf.training import losses
from tests import small_model

BLACK = tf.zeros([1, 64, 64, 3], tf.uint8)
INFO = tf.constant([[[64, 64], [64, 64], [1, 1], [0, 0]]], tf.float32)


def make(categories, *overrides):
  task = small_model.small_experiment(*overrides).task
  return build.build_oanet(task.model, categories, task.losses.l2_weight_decay), task


def training_outputs(model, batch):
  return model(batch['image'], batch['image_info'], labels=batch, training=True)


def all_losses(model, task, batch):
  return losses.oanet_losses(training_outputs(model, batch), batch, task, model.stuff_channels)


@pytest.fixture(scope='module')
def small(categories):
  return make(categories, 'task.model.occlusion_head.enabled=true')


def test_inference_outputs(small):
  model, _ = small
  outputs = model(tf.zeros([2, 64, 64, 3], tf.uint8), tf.repeat(INFO, 2, 0), training=False)
  assert outputs['detection_boxes'].shape == (2, 6, 4)
  assert outputs['detection_masks'].shape == (2, 6, 28, 28)
  assert outputs['stuff_logits'].shape == (2, 16, 16, 4)
  scores = outputs['detection_scores'].numpy()
  assert (np.diff(scores, axis=1) <= 0).all()
  assert not any(name.startswith('ranking') for name in outputs)
  assert outputs['occlusion_features_5'].shape == (2, 2, 2, 32)


@pytest.mark.parametrize('counts', [(0, 0), (0, 1), (5, 2), (6, 6)])
def test_masks_of_detections_alone_are_computed(small, counts, monkeypatch):
  model, _ = small
  rng = np.random.default_rng(0)
  starts = rng.uniform(0, 40, (2, 6, 2))
  is_detection = np.arange(6) < np.array(counts)[:, None]
  detections = {
    'detection_boxes': np.concatenate([starts, starts + 20], axis=-1) * is_detection[..., None],
    'detection_scores': is_detection * 0.9,
    'detection_classes': is_detection.astype(np.int32),
    'num_detections': np.array(counts, np.int32),
  }
  detections = {
    key: tf.constant(value, tf.float32 if value.dtype == np.float64 else tf.int32)
    for key, value in detections.items()
  }
  monkeypatch.setattr(model, 'detection_generator', lambda *_: detections)
  images = tf.constant(rng.integers(0, 256, (2, 64, 64, 3)).astype(np.uint8))

  def masks(all_shapes_static: bool) -> np.ndarray:
    monkeypatch.setattr(model, 'all_shapes_static', all_shapes_static)
    return model(images, tf.repeat(INFO, 2, 0))['detection_masks'].numpy()

  of_some, of_all = masks(False), masks(True)
  number = max(*counts, 1)
  # A convolution of fewer RoIs rounds otherwise on some processors.
  np.testing.assert_allclose(of_some[:, :number], of_all[:, :number], rtol=0, atol=1e-6)
  assert not of_some[:, number:].any() and (of_all > 0.0).all()


def test_the_shape_of_masks_is_known_whatever_their_number(small):
  model, _ = small
  function = tf.function(lambda: model(BLACK, INFO)['detection_masks'], autograph=False)
  assert function.get_concrete_function().output_shapes == (1, 6, 28, 28)


def test_normalizes_as_the_model_garden_and_leaves_the_padding_zero():
  images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3)).astype(np.uint8)
  info = np.tile([[[8, 8], [5, 7], [1, 1], [0, 0]]], (2, 1, 1)).astype(np.float32)
  normalized = oanet.normalize(images, info).numpy()
  for image, result in zip(images, normalized, strict=True):
    expected = preprocess_ops.normalize_image(tf.constant(image))
    np.testing.assert_allclose(result[:5, :7], expected[:5, :7], atol=1e-5)
  assert not normalized[:, 5:].any() and not normalized[:, :, 7:].any()


def test_a_batch_is_the_same_as_one_by_one(small):
  model, _ = small
  images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3)).astype(np.uint8)
  both = model(images, tf.repeat(INFO, 2, 0), training=False)
  for index in range(2):
    alone = model(images[index : index + 1], INFO, training=False)
    for key in ('detection_boxes', 'detection_scores', 'stuff_logits'):
      np.testing.assert_allclose(both[key][index], alone[key][0], atol=1e-3)


@pytest.mark.parametrize(
  'records',
  [
    (small_model.TIE_ON_PERSON, small_model.PERSON),
    (small_model.STUFF, small_model.PERSON),
    (small_model.STUFF, small_model.STUFF),
    (small_model.VOID, small_model.VOID),
    (small_model.CROWD, small_model.VOID),
  ],
  ids=['things', 'one without things', 'no thing', 'only void', 'only crowd'],
)
def test_losses_and_gradients_are_finite(small, categories, records):
  model, task = small
  batch = small_model.training_batch(task, categories, *records)
  with tf.GradientTape() as tape:
    scalars = all_losses(model, task, batch)
  gradients = tape.gradient(scalars['loss'], model.trainable_variables)
  assert all(np.isfinite(float(value)) for value in scalars.values()), scalars
  assert all(np.isfinite(tf.convert_to_tensor(g)).all() for g in gradients if g is not None)
  has_things = any(len(record['object_boxes']) for record in records) and records[0] != 'crowd'
  if not has_things:
    assert float(scalars['loss_mask']) == 0.0 and float(scalars['loss_box']) == 0.0
  if all(record is small_model.VOID for record in records):
    assert float(scalars['loss_stuff']) == 0.0
  conflict = records[0] is small_model.TIE_ON_PERSON
  assert (float(scalars['loss_srm']) > 0) == conflict
  assert (float(scalars['loss_occlusion']) > 0) == conflict
  of_head = {
    variable.name.partition('/')[2]: np.abs(gradient).max() > 0
    for variable, gradient in zip(model.trainable_variables, gradients, strict=True)
    if any(variable is one for one in model.occlusion_head.trainable_variables)
  }
  # Where the same hidden units are active for both orders, what their bias adds cancels.
  hidden_bias = of_head.pop('hidden/bias:0')
  assert len(of_head) == 17
  assert all(of_head.values()) if conflict else not any([*of_head.values(), hidden_bias])


def test_loss_is_the_weighted_sum_of_equation_1(small, categories):
  model, task = small
  batch = small_model.training_batch(task, categories, small_model.TIE_ON_PERSON)
  scalars = {name: float(value) for name, value in all_losses(model, task, batch).items()}
  total = scalars.pop('loss')
  assert len(scalars) == 8
  assert total == pytest.approx(sum(scalars.values()) - 0.75 * scalars['loss_stuff'], rel=1e-5)


@pytest.mark.parametrize(
  ('loss', 'part'), [('loss_srm', 'spatial_ranking'), ('loss_occlusion', 'occlusion_head')]
)
def test_what_orders_instances_is_trained_alone(small, categories, loss, part):
  """So that all else is what it would be without."""
  model, task = small
  batch = small_model.training_batch(task, categories, small_model.TIE_ON_PERSON)
  with tf.GradientTape() as tape:
    value = all_losses(model, task, batch)[loss]
  gradients = tape.gradient(value, model.trainable_variables)
  touched = {
    id(variable)
    for variable, gradient in zip(model.trainable_variables, gradients, strict=True)
    if gradient is not None
  }
  assert touched == {id(v) for v in getattr(model, part).trainable_variables}


def test_batch_statistics_are_those_without_the_occlusion_head(small, categories, monkeypatch):
  """The masks of detections, which it is trained on, are not to count."""
  model, task = small
  batch = small_model.training_batch(task, categories, small_model.TIE_ON_PERSON)
  before = [variable.numpy() for variable in model.non_trainable_variables]

  def statistics():
    for variable, value in zip(model.non_trainable_variables, before, strict=True):
      variable.assign(value)
    training_outputs(model, batch)
    return [variable.numpy() for variable in model.non_trainable_variables]

  with_head = statistics()
  assert any((new != old).any() for new, old in zip(with_head, before, strict=True))
  monkeypatch.setattr(model, 'occlusion_head', None)
  for found, expected in zip(with_head, statistics(), strict=True):
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
  ('sharing', 'backbones', 'decoders'),
  [('none', 2, 2), ('backbone', 1, 2), ('backbone_and_fpn', 1, 1)],
)
def test_sharing_modes(small, categories, sharing, backbones, decoders):
  is_small = small[1].model.sharing == sharing
  model, task = small if is_small else make(categories, f'task.model.sharing={sharing}')
  names = [layer.name for layer in model.layers]
  assert sum(name.startswith('res_net') for name in names) == backbones
  assert sum(name.startswith('fpn') for name in names) == decoders
  batch = small_model.training_batch(task, categories, small_model.TIE_ON_PERSON)
  with tf.GradientTape() as tape:
    loss = all_losses(model, task, batch)['loss_stuff']
  parts = (model.backbone, model.decoder)
  of_parts = tape.gradient(loss, [part.trainable_variables for part in parts])
  is_shared = [any(gradient is not None for gradient in touched) for touched in of_parts]
  assert is_shared == [sharing != 'none', sharing == 'backbone_and_fpn']


def test_all_of_a_mobilenet_is_trained_but_its_classifier(categories):
  task = small_model.small_mobile_experiment().task
  model = build.build_oanet(task.model, categories)
  batch = small_model.training_batch(task, categories, small_model.TIE_ON_PERSON)
  with tf.GradientTape() as tape:
    outputs = training_outputs(model, batch)
    of_batch = losses.oanet_losses(outputs, batch, task, model.stuff_channels)
    loss = of_batch['loss_stuff'] + of_batch['loss_rpn_box']
  touched = tape.gradient(loss, model.backbone.trainable_variables)
  assert len(touched) > 100 and all(gradient is not None for gradient in touched)
  # The last level, 320 channels × 0.35, not the 1,280 for classification after it.
  assert outputs['last_feature'].shape[1:] == (2, 2, 112)


def test_a_network_without_the_occlusion_head_has_nothing_of_it(categories):
  model, task = make(categories)
  assert model.occlusion_head is None
  assert not any('occlusion' in variable.name for variable in model.variables)
  batch = small_model.training_batch(task, categories, small_model.TIE_ON_PERSON)
  outputs = model(batch['image'], batch['image_info'], labels=batch, training=True)
  assert not any('occlusion' in name for name in outputs)
  assert not any('occlusion' in name for name in model(BLACK, INFO))


def test_the_occlusion_head_is_trained_on_annotated_objects_and_on_detections(
  categories, monkeypatch
):
  # Each mask fills its box.
  overrides = ('task.model.occlusion_head.enabled=true', 'task.model.fusion.mask_threshold=1e-6')
  model, task = make(categories, *overrides)
  batch = small_model.training_batch(task, categories, small_model.TIE_ON_PERSON)
  person, tie = batch['gt_boxes'][0, 0], batch['gt_boxes'][0, 1]
  corner = tf.concat([person[:2], person[:2] + 8.0], axis=0)

  def detect(box_outputs, class_outputs, rois, limits, weights):
    del class_outputs, limits, weights
    assert rois.shape[1] == task.model.roi_sampler.num_sampled_rois
    assert box_outputs.shape[1] == rois.shape[1]
    # The person, the tie, a tie where there is none, and the tie again with a low score.
    return {
      'detection_boxes': tf.stack([person, tie, corner, tie])[None],
      'detection_scores': tf.constant([[0.9, 0.8, 0.7, 0.1]]),
      'detection_classes': tf.constant([[1, 2, 2, 2]]),
      'num_detections': tf.constant([4]),
    }

  monkeypatch.setattr(model, 'detection_generator', detect)
  outputs = model(batch['image'], batch['image_info'], labels=batch, training=True)
  targets = outputs['occlusion_targets'].numpy()
  assert targets.shape == outputs['occlusion_logits'].shape
  of_objects, of_detections = targets[0, :4], targets[0, 4:]
  # The person comes first; the tie lies on it.
  assert of_objects[of_objects >= 0].tolist() == [0]
  assert of_detections[of_detections >= 0].tolist() == [0, 1]


def test_stuff_only_supervision(categories):
  model, task = make(categories, 'task.model.stuff_head.object_context=false')
  batch = small_model.training_batch(task, categories, small_model.PERSON)
  outputs = training_outputs(model, batch)
  assert outputs['stuff_logits'].shape[-1] == 2
  of_batch = losses.oanet_losses(outputs, batch, task, model.stuff_channels)
  assert np.isfinite(float(of_batch['loss_stuff']))


@pytest.mark.parametrize('convolution', ['1x1', pytest.param('3x3', marks=pytest.mark.slow)])
def test_other_ranking_convolutions(categories, convolution):
  model, task = make(categories, f'task.model.spatial_ranking.convolution={convolution}')
  outputs = model(BLACK, INFO, training=False)
  ranking = build.build_fuser(task, model).batch(outputs, INFO, [64, 64]).ranking
  assert ranking.map.shape == (1, 32, 32, 2) and ranking.scores.shape == (1, 6)
  np.testing.assert_allclose(tf.reduce_sum(ranking.map, -1), 1.0, atol=1e-5)


def test_merging_by_detection_score_does_not_rank(small, monkeypatch):
  model, task = small
  fuser = build.build_fuser(task, model)
  batch = fuser.batch(model(BLACK, INFO, training=False), INFO, [64, 64])
  monkeypatch.setattr(type(model.spatial_ranking), '__call__', None)
  fuse(batch, 'heuristic')
  with pytest.raises(TypeError):
    fuse(batch, 'srm')


def test_thresholds_of_the_fusion_are_read_when_it_is_built(small):
  model, task = small[0], copy.deepcopy(small[1])
  outputs = model(BLACK, INFO, training=False)
  for threshold, all_kept in ((1.0, False), (0.0, True)):
    task.model.fusion.score_threshold = threshold
    kept = build.build_fuser(task, model).batch(outputs, INFO, [64, 64]).instances.kept
    assert kept.numpy().all() == kept.numpy().any() == all_kept


def test_frozen_batch_norm_is_not_trained(categories):
  frozen = 'task.model.batch_norm=frozen,task.model.stuff_head.group_norm=false'
  model, task = make(categories, frozen)
  assert not any('gamma' in v.name for v in model.trainable_variables)
  before = [v.numpy() for v in model.non_trainable_variables]
  batch = small_model.training_batch(task, categories, small_model.PERSON)
  training_outputs(model, batch)
  for old, variable in zip(before, model.non_trainable_variables, strict=True):
    np.testing.assert_array_equal(old, variable)


# The small network has the blocks of the 34th.
@pytest.mark.parametrize('model_id', [pytest.param(34, marks=pytest.mark.slow), 50])
def test_deeper_backbones(categories, model_id):
  model, _ = make(categories, f'task.model.backbone.resnet.model_id={model_id}')
  assert model(BLACK, INFO, training=False)['stuff_logits'].shape[-1] == 4


@pytest.mark.slow
def test_resnet_101(categories):
  model, _ = make(categories, 'task.model.backbone.resnet.model_id=101')
  assert model(BLACK, INFO, training=False)['stuff_logits'].shape[-1] == 4


def test_weight_decay_is_half_the_sum_of_squares_of_the_kernels(small):
  model, task = small
  kernels = [v for v in model.trainable_variables if 'kernel' in v.name]
  expected = 0.5 * task.losses.l2_weight_decay * sum(float(tf.reduce_sum(k**2)) for k in kernels)
  assert float(tf.add_n(model.losses)) == pytest.approx(expected, rel=1e-4)


def test_a_dataset_without_things_is_refused():
  stuff = PanopticCategories([Category(1, 'sky', False, (0, 0, 0))])
  with pytest.raises(InputError, match='thing'):
    make(stuff)


def test_a_dataset_without_stuff_works():
  things = PanopticCategories([Category(1, 'person', True, (0, 0, 0))])
  model, _ = make(things)
  outputs = model(BLACK, INFO, training=False)
  assert outputs['stuff_logits'].shape == (1, 16, 16, 1)


@pytest.mark.parametrize('mode', ['plain', 'sync', 'frozen'])
def test_batch_norm_is_of_one_kind_everywhere(mode, categories):
  model, _ = make(
    categories, f'task.model.batch_norm={mode}', 'task.model.norm_activation.use_sync_bn=true'
  )
  layers = [m for m in model.submodules if 'BatchNormalization' in type(m).__name__]
  parts = {variable.name.split('/')[0] for layer in layers for variable in layer.variables}
  assert len(layers) > 20 and len(parts) > 3
  for layer in layers:
    is_synchronized = 'Sync' in type(layer).__name__ or getattr(layer, 'synchronized', False)
    assert is_synchronized == (mode == 'sync'), layer.name
    assert layer.trainable == (mode != 'frozen')


def test_p6_keeps_one_cell_of_four_of_p5(categories):
  model, _ = make(categories, 'task.model.max_level=6')
  features = model.decoder(model.backbone(tf.random.normal([1, 96, 64, 3], seed=1)))
  assert features['5'].shape[1:3] == (3, 2) and features['6'].shape[1:3] == (2, 1)
  # As torchvision's `LastLevelMaxPool`, which Detectron2 has too.
  np.testing.assert_array_equal(features['6'], features['5'][:, ::2, ::2])
  convolution, _ = make(categories, 'task.model.max_level=6,task.model.coarse_levels=convolution')
  count = len(convolution.decoder.trainable_variables) - len(model.decoder.trainable_variables)
  # A kernel and a bias, and gamma and beta of its norm.
  assert count == 4


@pytest.mark.parametrize(
  ('level', 'expected'), [(0, 0), pytest.param(2, 6, marks=pytest.mark.slow), (3, 11)]
)
def test_levels_of_the_backbone_that_are_frozen(small, categories, level, expected):
  """Of 21 convolutions, the stem has one and each level five, with that of its shortcut."""
  is_small = small[1].model.frozen_level == level
  model, task = small if is_small else make(categories, f'task.model.frozen_level={level}')
  frozen = [v for v in model.backbone.non_trainable_variables if 'kernel' in v.name]
  assert len(frozen) == expected
  before = [v.numpy() for v in model.backbone.non_trainable_variables]
  batch = small_model.training_batch(task, categories, small_model.TIE_ON_PERSON)
  with tf.GradientTape() as tape:
    loss = all_losses(model, task, batch)['loss']
  # Of what is left to train, all takes part.
  assert all(g is not None for g in tape.gradient(loss, model.backbone.trainable_variables))
  moved = [
    v.name
    for old, v in zip(before, model.backbone.non_trainable_variables, strict=True)
    if (old != v.numpy()).any()
  ]
  # Each convolution has a norm. The statistics of frozen ones stay, others follow the batch.
  assert len(moved) == 2 * (21 - expected)


@pytest.mark.slow
def test_frozen_levels_hold_for_both_backbones(categories):
  model, _ = make(categories, 'task.model.frozen_level=2,task.model.sharing=none')
  for backbone in (model.backbone, model.stuff_backbone):
    assert len([v for v in backbone.non_trainable_variables if 'kernel' in v.name]) == 6


@pytest.mark.slow
def test_each_instance_loss_has_its_weight(categories):
  weights = {'rpn_class': 2.0, 'rpn_box': 3.0, 'class': 0.5, 'box': 5.0, 'mask': 0.0}
  overrides = ','.join(f'task.losses.{name}_weight={value}' for name, value in weights.items())
  model, task = make(categories, overrides)
  batch = small_model.training_batch(task, categories, small_model.TIE_ON_PERSON)
  scalars = {name: float(value) for name, value in all_losses(model, task, batch).items()}
  total = scalars.pop('loss')
  weights |= {'stuff': 0.25, 'srm': 1.0}
  assert total == pytest.approx(
    sum(weights[name.removeprefix('loss_')] * value for name, value in scalars.items()), rel=1e-5
  )


@pytest.mark.slow
@pytest.mark.parametrize('experiment', ['panoptic_fpn_detectron2', 'panoptic_fpn_model_garden'])
def test_the_peers_networks_train(experiment, categories):
  overrides = [
    small_model.SMALL_PARTS.replace('stuff_head.num_filters=16', 'stuff_head.num_filters=32'),
    'task.train_data.short_sides=[],task.model.batch_norm=plain',
  ]
  if experiment == 'panoptic_fpn_detectron2':
    overrides.append('task.model.backbone.torch_resnet.model_id=18')
  else:
    overrides.append('task.model.backbone.resnet.depth_multiplier=0.25')
  task = experiments.load_experiment(experiment, (), ','.join(overrides)).task
  model = build.build_oanet(task.model, categories)
  batch = small_model.training_batch(task, categories, small_model.TIE_ON_PERSON, small_model.VOID)
  with tf.GradientTape() as tape:
    scalars = all_losses(model, task, batch)
  gradients = tape.gradient(scalars['loss'], model.trainable_variables)
  assert all(np.isfinite(float(loss)) for loss in scalars.values())
  # Nothing was detected that the mask head could learn from, but all else gets a gradient.
  trained = [v for v, g in zip(model.trainable_variables, gradients, strict=True) if g is not None]
  assert {v.name.split('/')[0] for v in trained} == {
    v.name.split('/')[0] for v in model.trainable_variables
  }
  assert all(np.isfinite(g.numpy()).all() for g in gradients if g is not None)
  # Void is a class of the Model Garden's stuff branch, and of no other.
  void = small_model.training_batch(task, categories, small_model.VOID, small_model.VOID)
  learns_void = float(all_losses(model, task, void)['loss_stuff']) > 0
  assert learns_void == (experiment == 'panoptic_fpn_model_garden')
  outputs = model(batch['image'], batch['image_info'], training=False)
  assert outputs['stuff_logits'].shape[-1] == model.stuff_channels.total
