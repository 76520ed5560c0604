import fnmatch
import json
import math
import re

import pytest
import tf_keras
from official.modeling import optimization
from official.vision.modeling.backbones import mobilenet, resnet

from oanet_tf.config import check as config_check
from oanet_tf.config import limits
from oanet_tf.config import text as config_text
from oanet_tf.config import values as config_values
from oanet_tf.errors import InputError
from oanet_tf.modeling import keras_resnet, spatial_ranking
from oanet_tf.modeling.fusion import methods

KEYS = list(config_text.read_yaml(config_check.ALL_KEYS))
OPTIMIZER = 'trainer.optimizer_config'


def check(override):
  config_check.resolve_experiment('oanet_synthetic', (), override)


STEPWISE = f'{OPTIMIZER}.learning_rate.stepwise'
COSINE = (
  f'{OPTIMIZER}.learning_rate.type=cosine,'
  f'{OPTIMIZER}.learning_rate.cosine.initial_learning_rate=0.1,'
  f'{OPTIMIZER}.learning_rate.cosine.decay_steps=100'
)


@pytest.mark.parametrize(
  ('override', 'fact'),
  [
    ('task.model.sharing=all', 'none, backbone, backbone_and_fpn'),
    ('task.model.batch_norm=group', 'frozen, sync, plain'),
    ('task.model.fusion.method=random', 'srm, heuristic'),
    ('task.model.fusion.method=oracle', 'oanet evaluate'),
    ('task.model.fusion.method=class_prior', 'oanet class_prior'),
    ('task.model.fusion.method=pairwise', 'task.model.occlusion_head.enabled=true'),
    (
      'task.model.occlusion_head.enabled=true,task.train_data.objects_from=segments',
      'segments do not overlap',
    ),
    (
      'task.model.fusion.method=pairwise,task.model.occlusion_head.enabled=true,task.mode=srm_only',
      'task.mode=srm_only',
    ),
    (
      'task.model.fusion.method=upsnet,task.model.stuff_head.object_context=false',
      'task.model.stuff_head.object_context=true',
    ),
    (
      'task.model.fusion.stuff_from=all,task.model.stuff_head.object_context=false',
      'task.model.stuff_head.object_context',
    ),
    ('task.model.fusion.stuff_from=things', 'stuff, all'),
    ('task.model.fusion.ranking_pairs=none', 'all, between_categories'),
    ('task.model.fusion.stuff_area_by=pixel', 'class, component'),
    ('task.model.spatial_ranking.scored_pixels=some', 'all, conflicting'),
    ('task.model.spatial_ranking.convolution=5x5', '1x1, 3x3, 1x7+7x1'),
    ('task.model.backbone.type=vgg', 'keras_resnet, '),
    ('task.model.backbone.type=null', 'keras_resnet, '),
    ('task.model.backbone.resnet.model_id=51', '10, 18, 26, 34, 50, 101,'),
    (
      'task.model.backbone.type=keras_resnet,task.model.backbone.keras_resnet.model_id=18',
      '50, 101, 152',
    ),
    (
      'task.model.backbone.type=mobilenet,task.model.backbone.mobilenet.model_id=MobileNetV5',
      'MobileNetV1, MobileNetV2,',
    ),
    (
      'task.model.backbone.type=mobilenet,task.model.backbone.mobilenet.filter_size_scale=0',
      'from ',
    ),
    (
      'task.model.backbone.type=mobilenet,task.model.backbone.mobilenet.output_stride=16',
      'task.model.backbone.mobilenet.output_stride',
    ),
    ('task.model.decoder.type=aspp', 'fpn, nasfpn'),
    ('task.model.decoder.type=nasfpn', 'task.model.min_level 3 and task.model.max_level 7'),
    ('task.model.detection_generator.nms_version=v3', 'v1, v2, batched'),
    ('task.model.detection_generator.apply_nms=false', 'apply_nms'),
    ('task.model.roi_sampler.cascade_iou_thresholds=[0.6]', 'cascade_iou_thresholds'),
    ('task.model.min_level=1', 'from 2 to 5'),
    ('task.model.min_level=6,task.model.max_level=6', 'from 2 to 5'),
    ('task.model.max_level=1', 'task.model.max_level is 1'),
    ('task.model.max_level=8', 'task.model.max_level is 8'),
    ('task.model.min_level=4,task.model.max_level=3', 'at most task.model.max_level, 3'),
    (
      'task.model.min_level=3,task.model.mask_roi_aligner.max_level=2',
      'at most task.model.mask_roi_aligner.max_level, 2',
    ),
    ('task.model.backbone.type=vit', 'keras_resnet, '),
    ('task.model.backbone.type=revnet,task.model.backbone.revnet.model_id=57', '38, 56, 104'),
    ('task.model.rpn_head.num_filters=0', 'from 1 to '),
    ('task.model.stuff_head.num_convs=-1', 'from 0 to '),
    ('task.model.anchor.aspect_ratios=[]', 'aspect_ratios is []'),
    ('task.model.anchor.aspect_ratios=[1,0]', 'from '),
    ('task.model.fusion.score_threshold=1.5', 'from 0 to 1'),
    ('task.model.fusion.score_threshold=.nan', 'from 0 to 1'),
    ('task.model.fusion.suppression_threshold=1.1', 'from 0 to 1'),
    ('task.model.roi_generator.nms_iou_threshold=-0.1', 'from 0 to 1'),
    (
      'task.model.roi_sampler.background_iou_low_threshold=0.9',
      'background_iou_high_threshold, 0.5',
    ),
    ('task.model.mask_sampler.num_sampled_masks=49', 'task.model.roi_sampler.num_sampled_rois'),
    ('task.model.spatial_ranking.stride=12', '32'),
    ('task.train_data.label_stride=3', 'task.model.spatial_ranking.stride, 2'),
    ('task.train_data.label_stride=0', 'from 1 to '),
    ('task.train_data.output_size=[128,100]', 'train_data.output_size is [128, 100]'),
    ('task.validation_data.output_size=[128]', 'validation_data.output_size is [128]'),
    ('task.validation_data.output_size=[]', 'output_size is []'),
    ('task.train_data.output_size=[0,9]', 'from 1 to '),
    ('task.train_data.global_batch_size=0', 'from 1 to '),
    ('task.train_data.min_scale=2', 'task.train_data.max_scale, 1.0'),
    ('task.train_data.short_sides=[0]', 'short_sides is [0]'),
    ('task.train_data.short_sides=[64,129]', 'from 1 to 128'),
    ('task.train_data.short_sides=[64],task.train_data.max_scale=2', 'task.train_data.max_scale'),
    ('task.train_data.short_sides=[64],task.train_data.min_scale=0.5', 'task.train_data.min_scale'),
    ('task.train_data.rpn_match_threshold=0.1', 'rpn_match_threshold, 0.1'),
    ('task.losses.stuff_weight=.inf', 'from 0 to '),
    ('task.losses.box_weight=-1', 'from 0 to '),
    ('task.losses.rpn_huber_loss_delta=-0.1', 'from 0 to '),
    ('task.losses.box_loss_mean_over=rois', 'one of objects, samples'),
    ('task.model.coarse_levels=none', 'one of pooling, convolution'),
    ('task.model.frozen_level=1', 'one of 0, 2, 3, 4, 5'),
    (
      'task.model.roi_aligner.samples=0,task.model.roi_aligner.aligned=false',
      'where aligned is false',
    ),
    ('task.model.anchor.cell_offset=2.0', 'from 0 to 1'),
    (
      'task.model.stuff_head.layout=detectron2,task.model.stuff_head.object_context=false',
      'true where',
    ),
    (
      'task.model.stuff_head.layout=model_garden,task.model.stuff_head.num_filters=100',
      'multiple of 32',
    ),
    ('task.model.fusion.rules=coco', 'one of panopticapi, model_garden, detectron2'),
    ('task.model.resizing=cubic', 'one of bilinear, pillow, normalized'),
    ('task.model.roi_layers=detectron2', 'one of oanet, model_garden'),
    ('task.model.roi_layers=model_garden,task.train_data.output_size=[64,96]', 'square'),
    (
      'task.model.roi_layers=model_garden,task.validation_data.tight_padding=true',
      'tight_padding is true',
    ),
    ('task.model.boxes_within=canvas', 'one of image, input'),
    (
      'task.model.backbone.type=torch_resnet,task.model.backbone.torch_resnet.model_id=26',
      '18, 34',
    ),
    ('task.model.mask_roi_aligner.max_level=1', 'from 2 to 7'),
    ('task.model.roi_generator.use_batched_nms=true', 'use_batched_nms'),
    ('task.seed=-1', 'from 0 to 2147483647'),
    ('task.seed=2147483648', 'from 0 to 2147483647'),
    ('task.reference_batch_size=-1', 'from 0 to '),
    ('task.init_checkpoint_modules=decoder', 'all, backbone, backbone,decoder'),
    ('task.differential_privacy_config.noise_multiplier=1', 'differential_privacy_config'),
    ('trainer.train_steps=-1', 'from 0 to '),
    ('trainer.summary_interval=-1', 'from 0 to '),
    ('trainer.max_to_keep=0', 'from 1 to '),
    ('trainer.best_checkpoint_metric_comp=more', 'higher, lower'),
    ('trainer.gradient_accumulation_steps=0', 'from 1 to '),
    ('trainer.gradient_accumulation_steps=3', 'task.train_data.global_batch_size, 8'),
    (f'{OPTIMIZER}.optimizer.type=slide', 'rmsprop, sgd, sgd_experimental'),
    (f'{OPTIMIZER}.optimizer.type=null', 'rmsprop, sgd, sgd_experimental'),
    (f'{OPTIMIZER}.optimizer.sgd.momentum=1.1', 'from 0 to 1'),
    (f'{OPTIMIZER}.optimizer.sgd.clipnorm=0', 'from '),
    (f'{OPTIMIZER}.ema.average_decay=1.1', 'from 0 to 1'),
    (f'{OPTIMIZER}.learning_rate.type=null', 'constant, cosine, '),
    (f'{OPTIMIZER}.learning_rate.type=cosine', 'cosine.initial_learning_rate is null'),
    (f'{STEPWISE}.boundaries=null', 'boundaries is null'),
    (f'{STEPWISE}.boundaries=[]', 'boundaries is []'),
    (f'{STEPWISE}.boundaries=[9,9],{STEPWISE}.values=[1,1,1]', 'boundaries is [9, 9]'),
    (f'{STEPWISE}.boundaries=[3,9]', '[3, 9]'),
    (f'{STEPWISE}.values=[0.1,-0.1]', 'from 0 to '),
    ('trainer.best_checkpoint_eval_metric=pq/nonsense', 'pq/nonsense'),
    *(
      (f'trainer.{key}={json.dumps(name)}', 'within the model folder')
      for key in ('best_checkpoint_export_subdir', 'validation_summary_subdir')
      for name in (
        '../evil',
        '/evil',
        '/',
        '.',
        './',
        '..',
        'a/../../b',
        'a\nb',
        '\x1b[2J',
        'a\u202eb',
      )
    ),
    ('task.init_checkpoint="a\\0b"', 'NUL'),
    (f'{OPTIMIZER}.optimizer.sgd.name="a b"', 'letters, digits'),
    (
      f'{OPTIMIZER}.optimizer.type=adamw,{OPTIMIZER}.optimizer.adamw.exclude_from_weight_decay=["("]',
      'a regular expression',
    ),
    # Whatever the schedule.
    (f'{COSINE},trainer.best_checkpoint_eval_metric=pq/nonsense', 'pq/nonsense'),
    (f'{OPTIMIZER}.warmup.type=cosine', 'null, linear, polynomial'),
    (f'{OPTIMIZER}.warmup.linear.warmup_steps=null', 'warmup_steps is null'),
    ('runtime.distribution_strategy=tpu', 'mirrored, one_device'),
    ('runtime.distribution_strategy=one_device,runtime.num_gpus=2', 'at most 1'),
    ('runtime.num_gpus=-1', 'from 0 to '),
    ('runtime.num_packs=0', 'from 1 to '),
    ('runtime.all_reduce_alg=sum', 'null, nccl'),
    ('runtime.mixed_precision_dtype=float64', 'null, auto, float32, bfloat16, float16'),
    ('runtime.mixed_precision_dtype=float16,runtime.loss_scale=no scale', 'runtime.loss_scale'),
    ('runtime.mixed_precision_dtype=float16,runtime.loss_scale=0', 'runtime.loss_scale'),
    ('runtime.mixed_precision_dtype=bfloat16,runtime.loss_scale=2', 'runtime.loss_scale is 2'),
    ('runtime.loss_scale=dynamic', "runtime.loss_scale is 'dynamic'"),
    ('runtime.tpu=local', "runtime.tpu is 'local'"),
    ('runtime.per_gpu_thread_count=1', 'runtime.per_gpu_thread_count is 1'),
    ('runtime.default_shard_dim=0', 'runtime.default_shard_dim is 0'),
  ],
)
def test_a_value_that_would_not_work(override, fact):
  with pytest.raises(InputError) as error:
    check(override)
  message = str(error.value)
  assert fact in message and '\n' not in message
  assert names_what_was_set(message, override)


def names_what_was_set(message, override):
  """By the key or its group or, of a fusion, by the value."""
  pairs = re.findall(r'([\w.]+)=(\[[^]]*\]|[^,]*)', override)
  return any(
    name in message for key, value in pairs for name in (key, key.rpartition('.')[0], value)
  )


@pytest.mark.parametrize(
  'override',
  [
    'trainer.train_steps=0,trainer.summary_interval=0,trainer.validation_interval=0',
    'task.model.fusion.score_threshold=0,task.model.fusion.overlap_threshold=1',
    'task.model.fusion.method=class_prior,task.model.fusion.class_prior=counted.json',
    'task.model.fusion.method=upsnet,task.model.fusion.stuff_from=all',
    'task.model.min_level=3,task.model.max_level=7,task.model.decoder.type=nasfpn',
    'task.model.min_level=5,task.model.max_level=5',
    'task.model.spatial_ranking.stride=32,task.train_data.label_stride=1',
    'trainer.gradient_accumulation_steps=8,task.reference_batch_size=0',
    f'{OPTIMIZER}.warmup.type=null,{OPTIMIZER}.learning_rate.type=constant',
    f'{OPTIMIZER}.learning_rate.type=step_cosine_with_offset,'
    f'{OPTIMIZER}.learning_rate.step_cosine_with_offset.boundaries=[0,9],'
    f'{OPTIMIZER}.learning_rate.step_cosine_with_offset.values=[0.1,0.01]',
    COSINE,
    f'{COSINE},trainer.best_checkpoint_eval_metric=pq_things/heuristic',
    'trainer.best_checkpoint_eval_metric=pq/nonsense,trainer.best_checkpoint_export_subdir=""',
    'runtime.mixed_precision_dtype=float16,runtime.loss_scale=dynamic',
    'runtime.mixed_precision_dtype=float16,runtime.loss_scale=128',
    'runtime.distribution_strategy=one_device,runtime.num_gpus=1,runtime.all_reduce_alg=nccl',
    'runtime.enable_xla=true,runtime.run_eagerly=true,runtime.num_packs=2',
    'trainer.best_checkpoint_export_subdir=best/of é 猫,task.seed=2147483647',
  ],
)
def test_extremes_that_work(override):
  check(override)


def settings_where_active(key):
  """The settings of an experiment in which a key has an effect; None if it never has one."""
  settings = dict(config_check.experiment_settings('oanet_r50fpn_coco'))
  if '.nasfpn.' in key:
    for level, value in (('min_level', 3), ('max_level', 7)):
      of_level = f'task.model.{level}'
      settings[of_level] = settings[of_level]._replace(value=value)
  for group in config_check._groups_of(key):
    parent, _, choice = group.rpartition('.')
    if f'{parent}.type' in settings:
      settings[f'{parent}.type'] = settings[f'{parent}.type']._replace(value=choice)
    if group in settings:
      settings[group] = settings[group]._replace(value={})
  for schedule in ('step_cosine_with_offset', 'stepwise'):
    for name, value in (('boundaries', [1, 2]), ('values', [0.1, 0.2, 0.3])):
      if (own := f'{OPTIMIZER}.learning_rate.{schedule}.{name}') in settings:
        value = value[:2] if schedule != 'stepwise' else value
        settings[own] = settings[own]._replace(value=value)
  for known, setting in settings.items():
    if known.rpartition('.')[2] in limits.NEEDED and setting.value is None:
      settings[known] = setting._replace(value=1)
  try:
    config_check.resolve(settings)
  except InputError as error:
    assert re.search('does not support|it is one of', str(error))
    return None
  return settings


NUMBERS = [-1, 0, 10**30, -(10**30), math.inf, -math.inf, math.nan, 2**31, 2**63]
NUMERIC = [
  (key, kind)
  for key, (kind, _) in config_text.read_yaml(config_check.ALL_KEYS).items()
  if 'int' in kind or 'float' in kind
]
NEVER_ACTIVE = ('vit', 'aspp', 'slide', 'adafactor', 'differential_privacy_config')
# Of steps, -1 is all.
MAY_BE_NEGATIVE = ('beta_2_decay', 'power', 'validation_steps')
# No other key takes so much.
MAY_BE_LARGE = ('clip', 'pre_offset_learning_rate', 'loss_upper_bound')


@pytest.mark.parametrize(('key', 'kind'), NUMERIC, ids=[key for key, _ in NUMERIC])
def test_every_number_has_a_least_and_a_most(key, kind):
  settings = settings_where_active(key)
  if settings is None:
    assert any(f'.{group}.' in f'{key}.' for group in NEVER_ACTIVE)
    return
  name, default = key.rpartition('.')[2], settings[key].value
  for number in NUMBERS:
    value = [number] if 'list' in kind else number
    setting = {key: settings[key]._replace(value=value)}
    if not config_check.fits(value, kind):
      continue
    try:
      config_check.resolve(settings | setting)
    except InputError as error:
      assert '\n' not in str(error) and key.rpartition('.')[0] in str(error)
    else:
      assert -1 <= number <= 2**31, number
      assert number >= 0 or name in MAY_BE_NEGATIVE or number == default, number
      assert number < 2**31 or any(part in name for part in MAY_BE_LARGE), number


def test_choices_are_those_of_the_code():
  choices = config_values._CHOICES
  assert set(choices['task.model.backbone.resnet.model_id']) == set(resnet.RESNET_SPECS)
  assert set(choices['task.model.backbone.keras_resnet.model_id']) == set(keras_resnet.MODELS)
  # The attention of the hybrid ones needs to know the image's size; two have a level too many.
  mobile = {name for name in mobilenet.SUPPORTED_SPECS_MAP if 'Hybrid' not in name}
  mobile -= {'MobileNetMultiAVGSeg', 'MobileNetMultiMAXSeg'}
  assert set(choices['task.model.backbone.mobilenet.model_id']) == mobile
  convolutions = set(spatial_ranking.CONVOLUTIONS)
  assert set(choices['task.model.spatial_ranking.convolution']) == convolutions
  assert set(config_values.FUSIONS) == set(methods.FUSIONS)
  assert set(config_values.MONITORED_FUSIONS) <= set(methods.FUSIONS)


def test_every_rule_is_about_a_key_that_there_is():
  names = {key.rpartition('.')[2] for key in KEYS}
  assert set(config_values._CHOICES) <= set(KEYS)
  fixed = {key for key in KEYS if config_values._ONLY_DEFAULT.fullmatch(key)}
  assert {key.removeprefix('runtime.') for key in KEYS if key.startswith('runtime.')} - {
    key.removeprefix('runtime.') for key in fixed
  } == {
    'all_reduce_alg', 'deterministic', 'distribution_strategy', 'enable_xla', 'loss_scale',
    'mixed_precision_dtype', 'num_gpus', 'num_packs', 'run_eagerly',
  }  # fmt: skip
  assert len([key for key in fixed if not key.startswith('runtime.')]) == 10
  patterns = ' '.join(names for *_, names in limits.LIMITS).split()
  for pattern in (*patterns, *limits.NEEDED):
    assert fnmatch.filter(names, pattern), pattern


def optimizers():
  return config_values._groups_in(f'{OPTIMIZER}.optimizer', dict.fromkeys(KEYS))


@pytest.mark.parametrize('name', [*optimizers(), 'adafactor', 'slide'])
def test_optimizers_that_may_be_chosen_are_those_that_can_be_made(name):
  config = {'optimizer': {'type': name}, 'learning_rate': {'type': 'constant'}}
  factory = optimization.OptimizerFactory(optimization.OptimizationConfig(config))
  if name in config_values._UNAVAILABLE:
    with pytest.raises(TypeError):
      factory.build_optimizer(0.1)
  else:
    made = factory.build_optimizer(0.1)
    assert isinstance(made, tf_keras.optimizers.Optimizer | tf_keras.optimizers.legacy.Optimizer)
