"""torchvision's ResNets and Mask R-CNNs: their names of tensors, and what they are here."""

import re
from collections.abc import Mapping

import numpy as np

from oanet_tf.errors import InputError
from oanet_tf.weights import coco_rows
from oanet_tf.weights.torch_weights import (
  NORM,
  WEIGHT,
  Rule,
  TorchWeights,
  after_flattening,
  as_it_is,
  boxes,
  layer,
  misfit,
  num_outputs,
)

MASK_RCNN_MARK = 'backbone.body.'
RESNET_MARK = 'layer1.0.conv1.weight'
STRIDE_IN = '3x3'
# How its Mask R-CNNs differ from Detectron2's.
SETTINGS = {
  'task.model.roi_aligner.samples': 2,
  'task.model.roi_aligner.aligned': False,
  'task.model.mask_roi_aligner.samples': 2,
  'task.model.mask_roi_aligner.aligned': False,
  'task.model.resizing': 'bilinear',
}
# Of `torch.nn.BatchNorm2d`.
_EPSILON = 1e-5


def read(path: str, tensors: Mapping[str, np.ndarray]) -> TorchWeights:
  """The file's tensors as parts of the network; a plain ResNet has only a backbone.

  Raises:
    InputError: if a tensor's shape does not fit.
  """
  if RESNET_MARK in tensors:
    return TorchWeights(path, tensors, _backbone_rules(''), STRIDE_IN)
  tensors = _without_norms(path, _with_epsilon(path, tensors))
  convs = [
    name for name in sorted(tensors) if re.fullmatch(r'roi_heads\.box_head\.\d\.0\.weight', name)
  ]
  before = tensors[convs[-1]] if convs else tensors.get('roi_heads.mask_predictor.conv5_mask.bias')
  rules = [*_backbone_rules(re.escape(MASK_RCNN_MARK)), *_rules(num_outputs(before))]
  return TorchWeights(path, tensors, rules, STRIDE_IN)


def _with_epsilon(path: str, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Corrects the scales of version 1, whose frozen normalization has no epsilon, for one with it.

  torchvision sets it to 0 for the published weights. Version 2 has normalization in the FPN too,
  and counts batches, as every normalization does that is not frozen.
  """
  tensors = dict(tensors)
  if any(
    name.endswith('num_batches_tracked')
    or (name.startswith('backbone.fpn') and name.endswith('running_var'))
    for name in tensors
  ):
    return tensors
  for name in [name for name in tensors if name.endswith('.running_var')]:
    scale = f'{name.removesuffix("running_var")}weight'
    if scale not in tensors:
      continue
    if tensors[name].shape != tensors[scale].shape:
      raise misfit(path, name, tensors[name])
    # In float64, as some channels are always 0 and have a variance of 1e-44.
    variance = tensors[name].astype(np.float64)
    factor = np.sqrt(1.0 + _EPSILON / np.where(variance > 0.0, variance, np.inf))
    tensors[scale] = (tensors[scale] * factor).astype(np.float32)
  return tensors


def _without_norms(path: str, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Puts the normalization after a convolution outside the backbone into its kernel and bias.

  Version 2 has them, as the layers 0 and 1 of a block.
  """
  tensors = dict(tensors)
  for name in [name for name in tensors if name.endswith('.1.running_var')]:
    block = name.removesuffix('.1.running_var')
    if block.startswith(MASK_RCNN_MARK) or f'{block}.0.weight' not in tensors:
      continue
    kernel = tensors[f'{block}.0.weight']
    parts = [f'{block}.1.{part}' for part in ('weight', 'bias', 'running_mean', 'running_var')]
    for part in parts:
      if part not in tensors:
        raise InputError(f'{path}: lacks {part}')
      if kernel.ndim != 4 or tensors[part].shape != kernel.shape[:1]:
        raise misfit(path, part, tensors[part])
    gamma, beta, mean, variance = (tensors.pop(part) for part in parts)
    tensors.pop(f'{block}.1.num_batches_tracked', None)
    scale = gamma / np.sqrt(variance + _EPSILON)
    tensors[f'{block}.0.weight'] = kernel * scale[:, None, None, None]
    tensors[f'{block}.0.bias'] = beta - mean * scale
  return tensors


def _backbone_rules(prefix: str) -> list[Rule]:
  """A level of ours is one more than torchvision's number of the layer."""
  rules = [
    Rule(rf'{prefix}conv1\.weight', 'backbone', 'stem.conv1/kernel', layer),
    Rule(rf'{prefix}bn1\.{NORM}', 'backbone', 'stem.conv1.norm/{norm}', as_it_is),
  ]
  for number in range(1, 5):
    theirs, ours = rf'{prefix}layer{number}\.(?P<block>\d+)\.', f'res{number + 1}.{{block}}.'
    rules += [
      Rule(rf'{theirs}(?P<conv>conv\d)\.weight', 'backbone', f'{ours}{{conv}}/kernel', layer),
      Rule(rf'{theirs}bn(?P<n>\d)\.{NORM}', 'backbone', f'{ours}conv{{n}}.norm/{{norm}}', as_it_is),
      Rule(rf'{theirs}downsample\.0\.weight', 'backbone', f'{ours}shortcut/kernel', layer),
      Rule(
        rf'{theirs}downsample\.1\.{NORM}', 'backbone', f'{ours}shortcut.norm/{{norm}}', as_it_is
      ),
    ]
  return rules


def _rules(channels: int) -> list[Rule]:
  """By the number of channels that the first dense layer sees. Older files lack some `.0`."""
  head, mask = r'roi_heads\.box_', r'roi_heads\.mask_'
  lateral, output = r'backbone\.fpn\.inner_blocks\.', r'backbone\.fpn\.layer_blocks\.'
  rules = [
    Rule(rf'rpn\.head\.conv\.{WEIGHT}', 'rpn_head', '_convs/0/{weight}', layer),
    Rule(rf'rpn\.head\.conv\.(?P<place>\d)\.0\.{WEIGHT}', 'rpn_head', '_convs/{place}/{weight}',
         layer),
    Rule(rf'rpn\.head\.cls_logits\.{WEIGHT}', 'rpn_head', '_classifier/{weight}', layer),
    Rule(rf'rpn\.head\.bbox_pred\.{WEIGHT}', 'rpn_head', '_box_regressor/{weight}', boxes),
    Rule(rf'{head}head\.(?P<place>\d)\.0\.{WEIGHT}', 'detection_head', '_convs/{place}/{weight}',
         layer),
    Rule(rf'{head}head\.(fc6|\d)\.{WEIGHT}', 'detection_head', '_fcs/0/{weight}',
         lambda array: after_flattening(array, channels)),
    Rule(rf'{head}head\.fc7\.{WEIGHT}', 'detection_head', '_fcs/1/{weight}', layer),
    Rule(rf'{head}predictor\.cls_score\.{WEIGHT}', 'detection_head', '_classifier/{weight}',
         lambda array: layer(_categories(array, 1))),
    Rule(rf'{head}predictor\.bbox_pred\.{WEIGHT}', 'detection_head', '_box_regressor/{weight}',
         lambda array: boxes(_categories(array, 4))),
    Rule(rf'{mask}head\.mask_fcn(?P<place_from_1>\d)\.{WEIGHT}', 'mask_head',
         '_convs/{place_from_1}/{weight}', layer),
    Rule(rf'{mask}head\.(?P<place>\d)\.0\.{WEIGHT}', 'mask_head', '_convs/{place}/{weight}',
         layer),
    Rule(rf'{mask}predictor\.conv5_mask\.{WEIGHT}', 'mask_head', '_deconv/{weight}', layer),
    Rule(rf'{mask}predictor\.mask_fcn_logits\.{WEIGHT}', 'mask_head', '_mask_regressor/{weight}',
         lambda array: layer(_categories(array, 1))),
  ]  # fmt: skip
  for place in range(4):
    level = place + 2
    rules += [
      Rule(rf'{lateral}{place}(\.0)?\.{WEIGHT}', 'decoder', f'lateral_{level}/{{weight}}', layer),
      Rule(rf'{output}{place}(\.0)?\.{WEIGHT}', 'decoder', f'post_hoc_{level}/{{weight}}', layer),
    ]
  return rules


def _categories(array: np.ndarray, rows: int) -> np.ndarray:
  """Of classes that are COCO's ids, those with a category; of others, all."""
  if len(array) != rows * coco_rows.num_detection_classes():
    return array
  classes = coco_rows.detection_rows()
  return array[coco_rows.box_rows(classes) if rows == 4 else classes]
