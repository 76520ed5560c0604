"""The configuration beside a checkpoint of the Model Garden, which weights alone do not tell."""

import pathlib

from oanet_tf.config import check as config_check
from oanet_tf.config.text import read_yaml
from oanet_tf.data.json_file import whole
from oanet_tf.errors import InputError

# Groups that have the same keys there and here.
_SAME_GROUPS = (
  'anchor', 'norm_activation', 'roi_generator', 'roi_sampler', 'mask_sampler', 'backbone.resnet',
)  # fmt: skip
# Other keys of its `task.model`, and ours.
_KEYS = {
  'min_level': 'min_level',
  'max_level': 'max_level',
  'roi_aligner.crop_size': 'roi_aligner.crop_size',
  'mask_roi_aligner.crop_size': 'mask_roi_aligner.crop_size',
  'mask_head.upsample_factor': 'mask_head.upsample_factor',
  'detection_generator.max_num_detections': 'detection_generator.max_num_detections',
  'detection_generator.nms_iou_threshold': 'detection_generator.nms_iou_threshold',
  'detection_generator.pre_nms_score_threshold': 'detection_generator.pre_nms_score_threshold',
  'panoptic_segmentation_generator.score_threshold': 'fusion.score_threshold',
  'panoptic_segmentation_generator.mask_binarize_threshold': 'fusion.mask_threshold',
  'panoptic_segmentation_generator.things_overlap_threshold': 'fusion.overlap_threshold',
  'panoptic_segmentation_generator.stuff_area_threshold': 'fusion.stuff_area_limit',
}
# Synchronization is chosen by `batch_norm`.
_LEFT_OUT = ('norm_activation.use_sync_bn',)


def settings_beside(path: str) -> dict[str, object]:
  """The settings in `params.yaml` beside a checkpoint; {} if there is none.

  Raises:
    InputError: if the file is not the Model Garden's, its input is not square, or a value is of
      another kind.
  """
  file = pathlib.Path(path if pathlib.Path(path).is_dir() else pathlib.Path(path).parent)
  file /= config_check.PARAMS_FILE
  if not file.is_file():
    return {}
  try:
    model = read_yaml(file)['task']['model']
    height, width = model['input_size'][:2]
  except (KeyError, TypeError, ValueError):
    raise InputError(
      f'{file}: is no configuration of a Panoptic FPN of the Model Garden (it has no '
      'task.model.input_size); move it away to go by the weights alone'
    ) from None
  if height != width or not isinstance(height, int):
    raise InputError(f'{file}: task.model.input_size is {height} × {width}; only square is known')
  settings = {
    'task.train_data.output_size': [height, width],
    'task.validation_data.output_size': [height, width],
  }
  known = config_check.experiment_settings('panoptic_fpn_model_garden')
  for key, value in config_check.flatten(model):
    ours = _KEYS.get(key)
    if key.startswith(tuple(f'{group}.' for group in _SAME_GROUPS)) and key not in _LEFT_OUT:
      ours = key
    if ours and f'task.model.{ours}' in known:
      kind = known[f'task.model.{ours}'].kind
      value = whole(value) if kind == 'int' else value
      if not config_check.fits(value, kind):
        raise InputError(f'{file}: task.model.{key} is {value!r}, but takes a {kind}')
      settings[f'task.model.{ours}'] = value
  return settings
