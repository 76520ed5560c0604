"""Checks that the network and the training loop can work with the values of a configuration.

This module does not load TensorFlow or the Model Garden, which takes seconds. Each error names the
key, its value and what it may be.
"""

import difflib
import itertools
import re

from oanet_tf.config.limits import check_value, refuse
from oanet_tf.errors import InputError

# Of an image, and of a batch padded to its largest image; a frame of 8K video has 33.2 million.
MAX_IMAGE_PIXELS = 2**25
# Of a request: a side, as of JPEG, and the number of images.
MAX_IMAGE_SIDE = 2**16
MAX_BATCH_IMAGES = 16
# In a model folder.
PARAMS_FILE = 'params.yaml'
FUSIONS = ('srm', 'heuristic', 'class_prior', 'pairwise', 'upsnet', 'oracle')
# Of merging; `modeling.fusion.rules` has them.
RULES = ('panopticapi', 'model_garden', 'detectron2')
# The fusions that evaluation during training scores.
MONITORED_FUSIONS = ('srm', 'heuristic')
# The scores of such an evaluation.
SCORES = tuple(
  f'{quality}{group}/{method}'
  for method in MONITORED_FUSIONS
  for group in ('', '_things', '_stuff')
  for quality in ('pq', 'sq', 'rq')
)

# The sides of the network input are multiples of this.
CANVAS_STRIDE = 32
# Of the group normalization in the semantic heads of a Panoptic FPN.
GROUPS = 32

Values = dict[str, object]

_OPTIMIZER = 'trainer.optimizer_config.optimizer'
_LEARNING_RATE = 'trainer.optimizer_config.learning_rate'
_WARMUP = 'trainer.optimizer_config.warmup'

# The other MobileNets take a single image size, or lack a level.
_MOBILENETS = (
  'MobileNetV1', 'MobileNetV2', 'MobileNetV3Large', 'MobileNetV3Small', 'MobileNetV3EdgeTPU',
  'MobileNetV3SmallReducedFilters', 'MobileNetMultiMAX', 'MobileNetMultiAVG',
  'MobileNetV4ConvSmall', 'MobileNetV4ConvMedium', 'MobileNetV4ConvMediumSeg',
  'MobileNetV4ConvLarge',
)  # fmt: skip
_CHOICES = {
  'runtime.all_reduce_alg': (None, 'nccl', 'hierarchical_copy', 'ring'),
  'runtime.distribution_strategy': ('mirrored', 'one_device'),
  'runtime.mixed_precision_dtype': (None, 'auto', 'float32', 'bfloat16', 'float16'),
  'task.init_checkpoint_modules': ('all', 'backbone', 'backbone,decoder'),
  'task.losses.box_loss_mean_over': ('objects', 'samples'),
  'task.mode': ('panoptic', 'srm_only'),
  'task.model.backbone.dilated_resnet.model_id': (50, 101, 152, 200),
  # With another, the last feature is not at the stride of its level.
  'task.model.backbone.dilated_resnet.output_stride': (16,),
  'task.model.backbone.dilated_resnet.stem_type': ('v0', 'v1'),
  'task.model.backbone.efficientnet.model_id': tuple(f'b{number}' for number in range(8)),
  'task.model.backbone.keras_resnet.model_id': (50, 101, 152),
  'task.model.backbone.mobiledet.model_id': (
    'MobileDetCPU', 'MobileDetDSP', 'MobileDetEdgeTPU', 'MobileDetGPU',
  ),
  'task.model.backbone.mobilenet.model_id': _MOBILENETS,
  'task.model.backbone.resnet.model_id': (10, 18, 26, 34, 50, 101, 152, 200, 270, 350, 420),
  'task.model.backbone.resnet.stem_type': ('v0', 'v1'),
  'task.model.backbone.revnet.model_id': (38, 56, 104),
  'task.model.backbone.spinenet.model_id': ('49S', '49', '96', '143', '143L', '190'),
  'task.model.backbone.spinenet_mobile.model_id': ('49XS', '49S', '49'),
  'task.model.backbone.torch_resnet.model_id': (18, 34, 50, 101, 152),
  'task.model.backbone.torch_resnet.stride_in': ('3x3', '1x1'),
  'task.model.boxes_within': ('image', 'input'),
  'task.model.coarse_levels': ('pooling', 'convolution'),
  'task.model.batch_norm': ('frozen', 'sync', 'plain'),
  'task.model.decoder.fpn.fusion_type': ('sum', 'concat'),
  # The other decoders return no pyramid.
  'task.model.decoder.type': ('fpn', 'nasfpn'),
  'task.model.detection_generator.nms_version': ('v1', 'v2', 'batched'),
  'task.model.frozen_level': (0, 2, 3, 4, 5),
  'task.model.fusion.method': FUSIONS,
  'task.model.fusion.ranking_pairs': ('all', 'between_categories'),
  'task.model.fusion.rules': RULES,
  'task.model.fusion.stuff_area_by': ('class', 'component'),
  'task.model.fusion.stuff_from': ('stuff', 'all'),
  'task.model.resizing': ('bilinear', 'pillow', 'normalized'),
  'task.model.roi_layers': ('oanet', 'model_garden'),
  'task.model.sharing': ('none', 'backbone', 'backbone_and_fpn'),
  'task.model.spatial_ranking.convolution': ('1x1', '3x3', '1x7+7x1'),
  'task.model.spatial_ranking.scored_pixels': ('all', 'conflicting'),
  'task.model.stuff_head.layout': ('oanet', 'detectron2', 'model_garden'),
  'task.train_data.objects_from': ('annotations', 'segments'),
  'task.train_data.tight_padding': (False,),
  'task.validation_data.objects_from': ('annotations',),
  'trainer.best_checkpoint_metric_comp': ('higher', 'lower'),
}  # fmt: skip
# In these groups, `type` names one of the other groups. The Model Garden's wheel lacks two of the
# optimizers, and its ViT needs images of one size.
_CHOOSES_GROUP = ('task.model.backbone', _OPTIMIZER, _LEARNING_RATE, _WARMUP)
_UNAVAILABLE = ('adafactor', 'slide', 'vit')
# Keys of the Model Garden that this package does not support.
_ONLY_DEFAULT = re.compile(
  r"""
  runtime\.(?!(distribution_strategy|num_gpus|mixed_precision_dtype|loss_scale|enable_xla|deterministic
               |run_eagerly|all_reduce_alg|num_packs)$).*
  |task\.differential_privacy_config
  |task\.model\.backbone\.dilated_resnet\.multigrid
  |task\.model\.backbone\.mobilenet\.(output_stride|output_intermediate_endpoints)
  |task\.model\.detection_generator\.(apply_nms|use_sigmoid_probability)
  |task\.model\.detection_head\.(cascade_class_ensemble|class_agnostic_bbox_pred)
  |task\.model\.roi_generator\.use_batched_nms
  |task\.model\.roi_sampler\.cascade_iou_thresholds
  """,
  re.VERBOSE,
)


def check(values: Values, defaults: Values) -> None:
  """Refuses values of the right kind that would not work.

  Args:
    values: the active keys' values.
    defaults: all keys' defaults.

  Raises:
    InputError: with the key, its value and what it may be.
  """
  for key, value in values.items():
    if _ONLY_DEFAULT.fullmatch(key) and value != defaults[key]:
      raise InputError(f'{key} is {value!r}, which this package does not support; leave it out')
    check_value(key, value)
  _check_choices(values, defaults)
  _check_network(values)
  for split in ('train_data', 'validation_data'):
    _check_data(values, f'task.{split}')
  _check_training(values)
  _check_runtime(values)


def _check_choices(values: Values, defaults: Values) -> None:
  groups = {f'{group}.type': _groups_in(group, defaults) for group in _CHOOSES_GROUP}
  groups[f'{_WARMUP}.type'].insert(0, None)
  for key, choices in {**_CHOICES, **groups}.items():
    if key in values and values[key] not in choices:
      names = ('null' if choice is None else str(choice) for choice in choices)
      refuse(key, values[key], f'one of {", ".join(names)}')


def _groups_in(group: str, defaults: Values) -> list[str]:
  names = [key.removeprefix(f'{group}.') for key in defaults if key.startswith(f'{group}.')]
  groups = {name.split('.')[0] for name in names if '.' in name}
  return sorted(groups.difference(_UNAVAILABLE))


def _at_most(values: Values, low: str, high: str) -> None:
  if values[low] > values[high]:
    refuse(low, values[low], f'at most {high}, {values[high]}')


def _divides(values: Values, part: str, whole: str) -> None:
  if values[whole] % values[part]:
    refuse(part, values[part], f'a divisor of {whole}, {values[whole]}')


def _check_network(values: Values) -> None:
  model = 'task.model'
  low, high = f'{model}.min_level', f'{model}.max_level'
  _at_most(values, low, high)
  if values[f'{model}.decoder.type'] == 'nasfpn' and (values[low], values[high]) != (3, 7):
    refuse(f'{model}.decoder.type', 'nasfpn', f'only possible with {low} 3 and {high} 7')
  for aligner in ('roi_aligner', 'mask_roi_aligner'):
    _at_most(values, low, f'{model}.{aligner}.max_level')
    if not values[f'{model}.{aligner}.samples'] and not values[f'{model}.{aligner}.aligned']:
      refuse(f'{model}.{aligner}.samples', 0, 'at least 1 where aligned is false')
  _at_most(
    values, f'{model}.mask_sampler.num_sampled_masks', f'{model}.roi_sampler.num_sampled_rois'
  )
  sampler = f'{model}.roi_sampler.background_iou'
  _at_most(values, f'{sampler}_low_threshold', f'{sampler}_high_threshold')
  stride = f'{model}.spatial_ranking.stride'
  if CANVAS_STRIDE % values[stride]:
    refuse(stride, values[stride], f'a divisor of {CANVAS_STRIDE}')
  _divides(values, 'task.train_data.label_stride', stride)
  check_fusion(values[f'{model}.fusion.method'], values)
  if values['task.mode'] == 'srm_only':
    _check_srm_only(values)
  _check_roi_layers(values)
  _check_stuff_head(values)
  objects_from = 'task.train_data.objects_from'
  if values[f'{model}.occlusion_head.enabled'] and values[objects_from] == 'segments':
    refuse(
      objects_from,
      'segments',
      f"'annotations' where {model}.occlusion_head.enabled is true: segments do not overlap",
    )
  object_context = f'{model}.stuff_head.object_context'
  if values[f'{model}.fusion.stuff_from'] == 'all' and not values[object_context]:
    refuse(f'{model}.fusion.stuff_from', 'all', f"'stuff' where {object_context} is false")


def _check_roi_layers(values: Values) -> None:
  key, size = 'task.model.roi_layers', values['task.train_data.output_size']
  if values[key] == 'oanet':
    return
  if size[0] != size[1]:
    refuse(key, values[key], f"'oanet' unless output_size is square, not {size}")
  if values['task.validation_data.tight_padding']:
    refuse(key, values[key], "'oanet' where task.validation_data.tight_padding is true")


def _check_stuff_head(values: Values) -> None:
  head = 'task.model.stuff_head'
  if (layout := values[f'{head}.layout']) == 'oanet':
    return
  if not values[f'{head}.object_context']:
    refuse(f'{head}.object_context', False, f'true where {head}.layout is {layout}')
  filters = f'{head}.num_filters'
  if values[filters] % GROUPS:
    refuse(filters, values[filters], f'a multiple of {GROUPS} where {head}.layout is {layout}')


def _check_srm_only(values: Values) -> None:
  for key, only, reason in (
    ('task.init_checkpoint_modules', 'all', 'it has no backbone'),
    ('task.train_data.objects_from', 'annotations', 'segments do not overlap'),
  ):
    if values[key] != only:
      refuse(key, values[key], f"{only!r} where task.mode is 'srm_only': {reason}")


def check_fusion(method: str, values: Values, has_ground_truth: bool = False) -> None:
  """Refuses a fusion that does not exist or lacks something it needs.

  Args:
    method: name of the fusion.
    values: the active keys' values.
    has_ground_truth: whether the ground truth of the images is known.

  Raises:
    InputError: says what to do about it.
  """
  if method not in FUSIONS:
    raise InputError(f'there is no fusion {method!r}; known are {", ".join(FUSIONS)}')
  if method == 'oracle' and not has_ground_truth:
    raise InputError('the fusion oracle needs the ground truth, which only oanet evaluate has')
  if method == 'class_prior' and not values['task.model.fusion.class_prior']:
    raise InputError(
      'the fusion class_prior needs a file of oanet class_prior; set '
      'task.model.fusion.class_prior to its path'
    )
  if method == 'pairwise' and values['task.mode'] == 'srm_only':
    raise InputError(
      'the fusion pairwise needs features of images, which task.mode=srm_only does not have'
    )
  if method == 'pairwise' and not values['task.model.occlusion_head.enabled']:
    raise InputError(
      'the fusion pairwise needs a network that was trained with '
      'task.model.occlusion_head.enabled=true'
    )
  if method == 'upsnet' and values['task.mode'] == 'srm_only':
    raise InputError(
      'the fusion upsnet needs logits of the stuff branch, which task.mode=srm_only does not have'
    )
  if method == 'upsnet' and not values['task.model.stuff_head.object_context']:
    raise InputError(
      'the fusion upsnet needs logits of things, which the network only has with '
      'task.model.stuff_head.object_context=true'
    )


def _check_data(values: Values, split: str) -> None:
  size = values[f'{split}.output_size']
  if len(size) != 2 or size[0] > size[1]:
    refuse(f'{split}.output_size', size, '[height, width], height ≤ width')
  if size[0] * size[1] > MAX_IMAGE_PIXELS:
    refuse(f'{split}.output_size', size, f'of {MAX_IMAGE_PIXELS} pixels at most')
  _at_most(values, f'{split}.min_scale', f'{split}.max_scale')
  _check_short_sides(values, split)
  _at_most(values, f'{split}.rpn_unmatched_threshold', f'{split}.rpn_match_threshold')


def _check_short_sides(values: Values, split: str) -> None:
  key = f'{split}.short_sides'
  sides, longest = values[key], values[f'{split}.output_size'][0]
  if sides and not 1 <= min(sides) <= max(sides) <= longest:
    refuse(key, sides, f'a list of lengths from 1 to {longest}, the short side of output_size')
  for scale in ('min_scale', 'max_scale'):
    if sides and values[f'{split}.{scale}'] != 1.0:
      refuse(key, sides, f'[] where {split}.{scale} is not 1')


def _check_training(values: Values) -> None:
  _divides(values, 'trainer.gradient_accumulation_steps', 'task.train_data.global_batch_size')
  for name, more_values in (('stepwise', 1), ('step_cosine_with_offset', 0)):
    if f'{_LEARNING_RATE}.{name}.values' in values:
      _check_steps(values, f'{_LEARNING_RATE}.{name}', more_values)
  subfolder = values['trainer.best_checkpoint_export_subdir']
  metric = values['trainer.best_checkpoint_eval_metric']
  if subfolder and metric not in SCORES:
    nearest = difflib.get_close_matches(metric, SCORES, n=1, cutoff=0)[0]
    refuse('trainer.best_checkpoint_eval_metric', metric, f'a score such as {nearest}')


def _check_steps(values: Values, schedule: str, more_values: int) -> None:
  boundaries = values[f'{schedule}.boundaries']
  if not boundaries or any(a >= b for a, b in itertools.pairwise(boundaries)):
    refuse(f'{schedule}.boundaries', boundaries, 'one step or more, each above the one before')
  if len(values[f'{schedule}.values']) != len(boundaries) + more_values:
    refuse(
      f'{schedule}.values',
      values[f'{schedule}.values'],
      f'{len(boundaries) + more_values} learning rates for the boundaries {boundaries}',
    )


def _check_runtime(values: Values) -> None:
  averages = any(key.startswith('trainer.optimizer_config.ema.') for key in values)
  if averages and values['runtime.mixed_precision_dtype'] == 'float16':
    refuse('runtime.mixed_precision_dtype', 'float16', 'bfloat16 or float32 with moving averages')
  scale, dtype = values['runtime.loss_scale'], values['runtime.mixed_precision_dtype']
  if (
    scale is not None
    and scale != 'dynamic'
    and (isinstance(scale, str) or not 1e-6 <= scale <= 1e9)
  ):
    refuse('runtime.loss_scale', scale, 'null, dynamic or a number from 1e-06 to 1000000000')
  if scale is not None and dtype != 'float16':
    refuse('runtime.loss_scale', scale, 'null unless runtime.mixed_precision_dtype is float16')
  if values['runtime.distribution_strategy'] == 'one_device' and values['runtime.num_gpus'] > 1:
    refuse('runtime.num_gpus', values['runtime.num_gpus'], 'at most 1 on one_device')
  if values['runtime.deterministic'] and values['runtime.run_eagerly']:
    refuse('runtime.deterministic', True, 'false where runtime.run_eagerly is true')
