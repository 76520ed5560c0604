"""Detectron2's Panoptic FPN and Mask R-CNN: its names of tensors, and what they are here."""

from collections.abc import Mapping

import numpy as np
from official.vision.ops import preprocess_ops

from oanet_tf.errors import InputError
from oanet_tf.weights.torch_weights import (
  NORM,
  WEIGHT,
  Rule,
  TorchWeights,
  after_flattening,
  as_it_is,
  boxes,
  layer,
  num_outputs,
)

MARK = 'backbone.bottom_up.'
STRIDE_IN = '1x1'


def _stem(array: np.ndarray) -> np.ndarray:
  """The first kernel is for BGR without division by a deviation."""
  return layer(array)[:, :, ::-1] * np.array(preprocess_ops.STDDEV_RGB, np.float32)[:, None]


def _background_first(array: np.ndarray) -> np.ndarray:
  return layer(np.roll(array, 1, axis=0))


def _with_background(array: np.ndarray, rows: int) -> np.ndarray:
  """Adds the background's rows, which nothing reads."""
  return np.concatenate([np.zeros([rows, *array.shape[1:]], array.dtype), array])


def _rules(channels: int) -> list[Rule]:
  """By the number of channels that the first dense layer sees."""
  box, mask, semantic = 'roi_heads.box_', r'roi_heads\.mask_head\.', r'sem_seg_head\.'
  rpn = r'proposal_generator\.rpn_head\.'
  stages = '_stages/{level}/{stage_twice}/layer_with_weights'
  return [
    Rule(rf'{MARK}stem\.conv1\.weight', 'backbone', 'stem.conv1/kernel', _stem),
    Rule(rf'{MARK}(?P<layer>.+\.norm)\.{NORM}', 'backbone', '{layer}/{norm}', as_it_is),
    Rule(rf'{MARK}(?P<layer>res.+)\.weight', 'backbone', '{layer}/kernel', layer),
    Rule(
      rf'backbone\.fpn_lateral(?P<level>\d)\.{WEIGHT}', 'decoder', 'lateral_{level}/{weight}',
      layer,
    ),
    Rule(
      rf'backbone\.fpn_output(?P<level>\d)\.{WEIGHT}', 'decoder', 'post_hoc_{level}/{weight}',
      layer,
    ),
    Rule(rf'{rpn}conv\.{WEIGHT}', 'rpn_head', '_convs/0/{weight}', layer),
    Rule(rf'{rpn}conv\.conv(?P<place>\d)\.{WEIGHT}', 'rpn_head', '_convs/{place}/{weight}', layer),
    Rule(rf'{rpn}objectness_logits\.{WEIGHT}', 'rpn_head', '_classifier/{weight}', layer),
    Rule(rf'{rpn}anchor_deltas\.{WEIGHT}', 'rpn_head', '_box_regressor/{weight}', boxes),
    Rule(
      rf'{box}head\.conv(?P<place_from_1>\d)\.{WEIGHT}', 'detection_head',
      '_convs/{place_from_1}/{weight}', layer,
    ),
    Rule(
      rf'{box}head\.fc1\.{WEIGHT}', 'detection_head', '_fcs/0/{weight}',
      lambda array: after_flattening(array, channels),
    ),
    Rule(
      rf'{box}head\.fc(?P<place_from_1>\d)\.{WEIGHT}', 'detection_head',
      '_fcs/{place_from_1}/{weight}', layer,
    ),
    Rule(
      rf'{box}predictor\.cls_score\.{WEIGHT}', 'detection_head', '_classifier/{weight}',
      _background_first,
    ),
    Rule(
      rf'{box}predictor\.bbox_pred\.{WEIGHT}', 'detection_head', '_box_regressor/{weight}',
      lambda array: boxes(_with_background(array, 4)),
    ),
    Rule(
      rf'{mask}mask_fcn(?P<place_from_1>\d)\.{WEIGHT}', 'mask_head',
      '_convs/{place_from_1}/{weight}', layer,
    ),
    Rule(rf'{mask}deconv\.{WEIGHT}', 'mask_head', '_deconv/{weight}', layer),
    Rule(
      rf'{mask}predictor\.{WEIGHT}', 'mask_head', '_mask_regressor/{weight}',
      lambda array: layer(_with_background(array, 1)),
    ),
    Rule(
      rf'{semantic}p(?P<level>\d)\.(?P<stage_twice>\d)\.weight', 'stuff_head',
      f'{stages}-0/kernel', layer,
    ),
    Rule(
      rf'{semantic}p(?P<level>\d)\.(?P<stage_twice>\d)\.norm\.{NORM}', 'stuff_head',
      f'{stages}-1/{{norm}}', as_it_is,
    ),
    Rule(rf'{semantic}predictor\.{WEIGHT}', 'stuff_head', '_logits/{weight}', layer),
  ]  # fmt: skip


def read(path: str, tensors: Mapping[str, np.ndarray]) -> TorchWeights:
  """The file's tensors as parts of the network.

  Raises:
    InputError: if it was trained with other colours, or a tensor's shape does not fit.
  """
  _check_colors(path, tensors)
  last = [tensors[name] for name in sorted(tensors) if name.startswith('roi_heads.box_head.conv')]
  before = last[-1] if last else tensors.get('backbone.fpn_output2.weight')
  return TorchWeights(path, tensors, _rules(num_outputs(before)), STRIDE_IN)


def _check_colors(path: str, tensors: Mapping[str, np.ndarray]) -> None:
  """Some files have the colours' means and deviations among the tensors."""
  expected = {'pixel_mean': preprocess_ops.MEAN_RGB[::-1], 'pixel_std': (1.0, 1.0, 1.0)}
  for name, values in expected.items():
    found = tensors[name].reshape(-1) if name in tensors else np.array(values)
    if found.shape != (3,) or not np.allclose(found, values, atol=1e-3):
      raise InputError(
        f"{path}: {name} is {found.tolist()}, and only Detectron2's own "
        f'{[round(value, 3) for value in values]} can be read'
      )
