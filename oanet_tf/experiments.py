"""The registered experiments, and how files and overrides change them."""

import contextlib
import difflib
import pathlib
from collections.abc import Sequence

import yaml
from official.core import config_definitions, exp_factory
from official.modeling import hyperparams, optimization
from official.modeling.hyperparams import params_dict
from official.vision.configs import backbones, common, decoders, maskrcnn

from oanet_tf import config as config_lib
from oanet_tf.config import Data, Fusion, OANet, OANetTask, SpatialRanking, StuffHead
from oanet_tf.errors import InputError

EXPERIMENTS = ('oanet_r50fpn_coco', 'oanet_r101fpn_coco', 'oanet_synthetic')


def _stepwise(
  values: list[float], boundaries: list[int], warmup_steps: int, warmup_rate: float
) -> optimization.OptimizationConfig:
  return optimization.OptimizationConfig(
    {
      'optimizer': {'type': 'sgd', 'sgd': {'momentum': 0.9}},
      'learning_rate': {
        'type': 'stepwise',
        'stepwise': {'boundaries': boundaries, 'values': values},
      },
      'warmup': {
        'type': 'linear',
        'linear': {'warmup_steps': warmup_steps, 'warmup_learning_rate': warmup_rate},
      },
    }
  )


@exp_factory.register_config_factory('oanet_r50fpn_coco')
def oanet_r50fpn_coco() -> config_definitions.ExperimentConfig:
  """The paper's recipe on COCO (section 4.2), ResNet-50."""
  return config_definitions.ExperimentConfig(
    task=OANetTask(
      train_data=Data(input_path='tfrecords/coco/train2017-*.tfrecord'),
      validation_data=Data(
        input_path='tfrecords/coco/val2017-*.tfrecord', global_batch_size=8, random_flip=False
      ),
    ),
    trainer=config_definitions.TrainerConfig(
      train_steps=100_000,
      checkpoint_interval=2_000,
      validation_interval=10_000,
      summary_interval=100,
      max_to_keep=3,
      optimizer_config=_stepwise([0.02, 0.002, 0.0002], [60_000, 80_000], 2_000, 0.002),
    ),
  )


@exp_factory.register_config_factory('oanet_r101fpn_coco')
def oanet_r101fpn_coco() -> config_definitions.ExperimentConfig:
  """The paper's recipe on COCO (section 4.2), ResNet-101."""
  config = oanet_r50fpn_coco()
  config.task.model.backbone.resnet.model_id = 101
  return config


@exp_factory.register_config_factory('oanet_synthetic')
def oanet_synthetic() -> config_definitions.ExperimentConfig:
  """A small network from scratch on OccludedScenes at 128 pixels, for two CPU cores."""
  data = {
    'output_size': [128, 128],
    'mask_size': 56,
    'label_stride': 2,
    'max_num_instances': 16,
    'rpn_batch_size_per_im': 64,
    'shuffle_buffer_size': 2000,
  }
  model = OANet(
    max_level=5,
    batch_norm='plain',
    backbone=backbones.Backbone(
      type='resnet', resnet=backbones.ResNet(model_id=18, depth_multiplier=0.5)
    ),
    decoder=decoders.Decoder(type='fpn', fpn=decoders.FPN(num_filters=64, use_keras_layer=True)),
    norm_activation=common.NormActivation(norm_momentum=0.97, norm_epsilon=1e-3, use_sync_bn=False),
    anchor=maskrcnn.Anchor(anchor_size=4.0),
    rpn_head=maskrcnn.RPNHead(num_filters=64),
    roi_generator=maskrcnn.ROIGenerator(
      use_batched_nms=True,
      pre_nms_top_k=200,
      num_proposals=100,
      test_pre_nms_top_k=200,
      test_num_proposals=60,
    ),
    roi_sampler=maskrcnn.ROISampler(num_sampled_rois=48, foreground_fraction=0.33),
    detection_head=maskrcnn.DetectionHead(num_convs=0, num_fcs=2, fc_dims=256),
    detection_generator=maskrcnn.DetectionGenerator(
      nms_version='batched', max_num_detections=20, pre_nms_score_threshold=0.05
    ),
    mask_sampler=maskrcnn.MaskSampler(num_sampled_masks=16),
    mask_head=maskrcnn.MaskHead(num_convs=2, num_filters=64),
    stuff_head=StuffHead(num_filters=64, group_norm=True),
    spatial_ranking=SpatialRanking(stride=2),
    fusion=Fusion(stuff_area_limit=200),
  )
  return config_definitions.ExperimentConfig(
    task=OANetTask(
      model=model,
      train_data=Data(
        input_path='tfrecords/synthetic/train-*.tfrecord', global_batch_size=8, **data
      ),
      validation_data=Data(
        input_path='tfrecords/synthetic/val-*.tfrecord',
        global_batch_size=8,
        **{**data, 'random_flip': False},
      ),
    ),
    trainer=config_definitions.TrainerConfig(
      train_steps=1_200,
      checkpoint_interval=400,
      validation_interval=1_200,
      summary_interval=20,
      max_to_keep=2,
      optimizer_config=_stepwise([0.04, 0.004], [1_000], 100, 0.004),
    ),
  )


def load_experiment(
  experiment: str,
  config_files: Sequence[str] = (),
  params_override: str = '',
) -> config_definitions.ExperimentConfig:
  """A registered experiment with the changes of YAML files, then of an override string.

  Args:
    experiment: a registered name.
    config_files: YAML files, each over the one before.
    params_override: `a.b=1,c.d=[2,3]`, or YAML or JSON text.

  Raises:
    InputError: for an unknown experiment, an unreadable file, an unknown key (the nearest known one
      is named) or a value of the wrong kind.
  """
  config = _registered(experiment)
  for path in config_files:
    _override(config, _read_yaml(path), where=str(path))
  if params_override:
    _override(config, _parse_override(params_override), where='--params_override')
  config_lib.check(config.task)
  return config


def _registered(experiment: str) -> config_definitions.ExperimentConfig:
  try:
    return exp_factory.get_exp_config(experiment)
  except LookupError:
    raise InputError(
      f'there is no experiment {experiment!r}; known are {", ".join(EXPERIMENTS)}'
    ) from None


def _read_yaml(path: str) -> dict:
  try:
    text = pathlib.Path(path).read_text()
  except OSError as error:
    raise InputError(f'{path}: cannot be read ({error.strerror})') from None
  return _parse_yaml(text, path)


def _parse_override(text: str) -> dict:
  with contextlib.suppress(ValueError):  # Not `a.b=1,c=2`: YAML then.
    text = params_dict.nested_csv_str_to_json_str(text)
  return _parse_yaml(text, '--params_override')


def _parse_yaml(text: str, where: str) -> dict:
  try:
    # The Model Garden taught this loader that 1e-4 is a number.
    content = yaml.load(text, Loader=yaml.FullLoader)
  except yaml.YAMLError as error:
    raise InputError(f'{where}: is not YAML ({" ".join(str(error).split())})') from None
  if content is None:
    return {}
  if not isinstance(content, dict):
    raise InputError(f'{where}: {text.strip()[:60]!r} is not a mapping of keys to values')
  return content


def _override(config: hyperparams.Config, changes: dict, where: str) -> None:
  _check_keys(config, changes, where, path='')
  config.override(changes, is_strict=True)


def _check_keys(config: hyperparams.Config, changes: dict, where: str, path: str) -> None:
  known = config.as_dict()
  for key, value in changes.items():
    full = f'{path}{key}'
    if key not in known:
      nearest = difflib.get_close_matches(str(key), known, n=1, cutoff=0)
      hint = f'; did you mean {path}{nearest[0]}?' if nearest else ''
      raise InputError(f'{where}: there is no key {full}{hint}')
    current = getattr(config, key)
    if isinstance(current, hyperparams.Config):
      if not isinstance(value, dict):
        raise InputError(f'{where}: {full} is a group of keys, not {value!r}')
      _check_keys(current, value, where, path=f'{full}.')
    elif not _same_kind(current, value):
      raise InputError(f'{where}: {full} is {value!r}, but takes a {type(current).__name__}')


def _same_kind(current: object, value: object) -> bool:
  if current is None or value is None:
    return True
  if isinstance(current, bool) or isinstance(value, bool):
    return isinstance(current, bool) and isinstance(value, bool)
  if isinstance(current, float):
    return isinstance(value, int | float)
  if isinstance(current, list | tuple):
    return isinstance(value, list | tuple)
  return isinstance(value, type(current))
