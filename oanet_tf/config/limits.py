"""What the value of a key may be whatever the other keys' are."""

import fnmatch
import functools
import pathlib
import re
from typing import NoReturn

from oanet_tf.errors import InputError

# What a step may be: TensorFlow takes a whole number in a list for one of 32 bits.
_MOST = 2**31 - 1
# From, to, and the last parts of the keys; the first match counts. In a list, each item is checked.
# They are generous: what lies outside fails, or has no effect that anybody could want.
LIMITS: tuple[tuple[float, float, str], ...] = (
  # Of the network.
  (2, 5, 'min_level'),
  (2, 7, 'max_level'),
  (1, 2**14, 'num_filters fc_dims'),
  (0, 100, 'num_convs num_fcs samples'),
  (1, 100, 'num_scales num_repeats last_stage_repeats expand_ratio'),
  (1, 2**10, 'crop_size'),
  (1, 2**5, 'upsample_factor stride label_stride'),
  # Below 1/64, a layer of 64 filters has none.
  (1 / 64, 16, 'depth_multiplier filter_size_scale'),
  # At 1, nothing would be kept.
  (0, 0.99, 'stochastic_depth_drop_rate'),
  (1e-3, 1e3, 'aspect_ratios'),
  (1e-3, 1e4, 'anchor_size'),
  (1e-12, 1, 'norm_epsilon'),
  # Of boxes: an image of the largest size has some 6 million anchors.
  (
    1, 10**6,
    'num_proposals test_num_proposals pre_nms_top_k test_pre_nms_top_k num_sampled_rois'
    ' num_sampled_masks num_sampled_pairs max_pairs max_num_detections max_num_instances'
    ' rpn_batch_size_per_im',
  ),
  (0, 2**16, '*_min_size_threshold'),
  (0, 1e3, 'soft_nms_sigma'),
  # Of the data.
  (1, 2**16, 'global_batch_size gradient_accumulation_steps'),
  (0, 2**16, 'reference_batch_size'),
  (1, 2**16, 'output_size short_sides'),
  (1, 2**13, 'mask_size'),
  (0.01, 10, 'min_scale max_scale'),
  # TensorFlow makes room for them at once, 24 bytes each.
  (1, 10**7, 'shuffle_buffer_size'),
  (0, _MOST, 'stuff_area_limit seed'),
  # Of the losses and the optimizer.
  (0, 1e6, '*_weight *_huber_loss_delta initial_accumulator_value'),
  (0, 10, 'l2_weight_decay weight_decay weight_decay_rate decay decay_rate'),
  (0, 1e4, 'values warmup_learning_rate end_learning_rate eeta'),
  (1e-12, 1e4, 'learning_rate initial_learning_rate'),
  (0, 1e12, 'pre_offset_learning_rate'),
  (1e-30, 1, 'epsilon epsilon_1 epsilon_2'),
  # Adam and its kin divide by what is missing to 1.
  (0, 0.999999, 'beta_1 beta_2 rho'),
  (-10, 0, 'beta_2_decay'),
  (-10, 10, 'power'),
  (1e-12, 1e12, 'clipnorm clipvalue global_clipnorm'),
  (0, 1e12, 'gradient_clip_norm'),
  # Of the schedule.
  (1, _MOST, 'decay_steps total_decay_steps steps_per_loop'),
  (
    0, _MOST,
    'train_steps warmup_steps *_interval boundaries offset start_step recovery_begin_steps'
    ' recovery_max_trials continuous_eval_timeout',
  ),
  (-1, _MOST, 'validation_steps'),
  (1, 10**6, 'max_to_keep'),
  (0, 1e12, 'loss_upper_bound'),
  # Of the machine.
  (0, 2**10, 'num_gpus'),
  (1, 2**10, 'num_packs'),
  # Fractions.
  (
    0, 1,
    '*_threshold *_fraction cell_offset momentum norm_momentum color_jitter average_decay alpha'
    ' se_ratio',
  ),
)  # fmt: skip
# Lists that may be empty.
_MAY_BE_EMPTY = ('short_sides',)
# Folders in a model folder.
_SUBFOLDERS = ('best_checkpoint_export_subdir', 'validation_summary_subdir')
# Of names of variables.
_PATTERNS = (
  'exclude_from_layer_adaptation', 'exclude_from_weight_decay', 'include_in_weight_decay',
)  # fmt: skip
# A name in TensorFlow's graph.
_SCOPE = re.compile(r'[A-Za-z0-9.][A-Za-z0-9_.\\/>-]*')
# Keys of schedules without a default in the Model Garden.
NEEDED = (
  'boundaries', 'decay_rate', 'decay_steps', 'initial_learning_rate', 'total_decay_steps', 'values',
  'warmup_steps',
)  # fmt: skip


def refuse(key: str, value: object, may_be: str) -> NoReturn:
  """Raises the `InputError` that says what a value may be."""
  raise InputError(f'{key} is {value!r}; it is {may_be}')


def check_value(key: str, value: object) -> None:
  """Refuses a value that cannot work whatever the others are.

  Args:
    key: dotted.
    value: of the key's kind.

  Raises:
    InputError: with the key, its value and what it may be.
  """
  _check_limits(key, value)
  for text in value if isinstance(value, list | tuple) else [value]:
    if isinstance(text, str):
      _check_text(key, text)


def _check_limits(key: str, value: object) -> None:
  name = key.rpartition('.')[2]
  if value is None:
    if name in NEEDED:
      raise InputError(f'{key} is null; the chosen schedule needs it')
    return
  if (limits := _limits_of(name)) is None:
    return
  low, high = limits
  several = isinstance(value, list | tuple)
  items = value if several else [value]
  if not all(low <= item <= high for item in items) or not (items or name in _MAY_BE_EMPTY):
    refuse(key, value, f'{"one or more numbers " * several}from {low} to {high}')


@functools.cache
def _limits_of(name: str) -> tuple[float, float] | None:
  """What values may be from and to, by the last part of their keys."""
  for low, high, names in LIMITS:
    if any(fnmatch.fnmatchcase(name, known) for known in names.split()):
      return low, high
  return None


def _check_text(key: str, text: str) -> None:
  name = key.rpartition('.')[2]
  if '\0' in text:
    refuse(key, text, 'text without the character NUL')
  if name == 'name' and not _SCOPE.fullmatch(text):
    refuse(key, text, 'a name of letters, digits and ._-/')
  if name in _SUBFOLDERS and text and not _is_subfolder(text):
    refuse(key, text, 'the name of a folder within the model folder, such as best')
  if name in _PATTERNS and not _is_pattern(text):
    refuse(key, text, 'a regular expression')


def _is_subfolder(text: str) -> bool:
  path = pathlib.PurePosixPath(text)
  inside = path.parts and not path.is_absolute() and '..' not in path.parts
  return bool(inside) and text.isprintable()


def _is_pattern(text: str) -> bool:
  try:
    return bool(re.compile(text))
  except (re.error, OverflowError, RecursionError):
    return False
