"""torchvision's networks without torch: their tensors' names and shapes, and random values.

The features in `data/torchvision_features.npz` are torchvision's own on these values and inputs, by
`data/make_torchvision_features.py`. Kernels are as in PyTorch, [out, in, height, width]; inputs
and features are NHWC.
"""

import math
import re
import zlib
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

FPN_CHANNELS = 256
FC_CHANNELS = 1024
# COCO's ids up to 90, and the background.
CLASSES = 91
ANCHORS = 3
# How much smaller the statistics after each `conv1` of a ResNet are, for a wrong epsilon to show.
SMALL = 0.1
# Keeps sums of order 1, of residuals (`conv2` is on each branch) and of the levels of the FPN.
DAMPED = {r'layer\d\.\d+\.conv2\.': 0.25, r'inner_blocks.*weight': 0.1}
# Values that are kept of a feature map.
SAMPLES = 700

Shapes = dict[str, tuple[int, ...]]


class Depth(NamedTuple):
  """Blocks per stage, and the convolutions of a block: kernel sizes, channels out of the last."""

  blocks: tuple[int, ...]
  kernels: tuple[int, ...]
  expansion: int


DEPTHS = {
  18: Depth((2, 2, 2, 2), (3, 3), 1),
  50: Depth((3, 4, 6, 3), (1, 3, 1), 4),
  101: Depth((3, 4, 23, 3), (1, 3, 1), 4),
}


def resnet(depth: int) -> Shapes:
  """`torchvision.models.resnet18`, 50 or 101."""
  features = 512 * DEPTHS[depth].expansion
  return {**_resnet_body(depth), **_layer('fc', 1000, features)}


def mask_rcnn_v1() -> Shapes:
  """`maskrcnn_resnet50_fpn(weights='COCO_V1')`; its frozen batch norms do not count batches."""
  head = 'roi_heads.box_head'
  shapes = {
    **_detector(batch_norm=False, rpn_convolutions=1),
    **_layer(f'{head}.fc6', FC_CHANNELS, FPN_CHANNELS * 7 * 7),
    **_layer(f'{head}.fc7', FC_CHANNELS, FC_CHANNELS),
  }
  return {name: shape for name, shape in shapes.items() if 'num_batches_tracked' not in name}


def mask_rcnn_v2() -> Shapes:
  """`maskrcnn_resnet50_fpn_v2(weights='COCO_V1')`."""
  head = 'roi_heads.box_head'
  return {
    **_detector(batch_norm=True, rpn_convolutions=2),
    **_merged(_fpn_layer(f'{head}.{index}', FPN_CHANNELS, 3, True) for index in range(4)),
    **_layer(f'{head}.5', FC_CHANNELS, FPN_CHANNELS * 7 * 7),
  }


NETWORKS = {
  'resnet18': lambda: resnet(18),
  'resnet50': lambda: resnet(50),
  'resnet101': lambda: resnet(101),
  'maskrcnn_resnet50_fpn': mask_rcnn_v1,
  'maskrcnn_resnet50_fpn_v2': mask_rcnn_v2,
}


def random_state_dict(shapes: Shapes) -> dict[str, np.ndarray]:
  """Values that depend on nothing but the tensor's name, of which activations are of order 1.

  Returns:
    float32 by name, but int64 for the number of batches, as in torch.
  """
  return {name: _random_tensor(name, shape) for name, shape in shapes.items()}


def as_before_2022(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """The names that Mask R-CNN v1 had before there was a v2; torchvision reads both."""
  renamed = {}
  for name, value in state.items():
    name = re.sub(r'(fpn\.\w+_blocks\.\d)\.0\.', r'\1.', name)
    name = name.replace('rpn.head.conv.0.0.', 'rpn.head.conv.')
    name = re.sub(r'(mask_head)\.(\d)\.0\.', lambda m: f'{m[1]}.mask_fcn{int(m[2]) + 1}.', name)
    renamed[name] = value
  return renamed


def random_input(kind: str) -> np.ndarray:
  """An 'image', already normalized, or the RoIs of the 'box' or 'mask' head.

  Returns:
    [1, 96, 128, 3], [8, 7, 7, 256] or [2, 14, 14, 256] float32, standard normal; RoIs in [0, ∞).
  """
  shapes = {
    'image': (1, 96, 128, 3),
    'box': (8, 7, 7, FPN_CHANNELS),
    'mask': (2, 14, 14, FPN_CHANNELS),
  }
  values = _random(kind).standard_normal(shapes[kind], np.float32)
  return values if kind == 'image' else np.abs(values)


def sampled(features: np.ndarray) -> np.ndarray:
  """The values at fixed random places, so that all channels, rows and columns are looked at.

  Args:
    features: of any shape.
  Returns:
    [min(SAMPLES, size)], in the order of memory.
  """
  if features.size <= SAMPLES:
    return features.ravel()
  places = np.random.default_rng(0).choice(features.size, SAMPLES, replace=False)
  return features.ravel()[np.sort(places)]


def _random(name: str) -> np.random.Generator:
  return np.random.default_rng(zlib.crc32(name.encode()))


def _random_tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
  random, kind = _random(name), name.rpartition('.')[2]
  scale = SMALL if re.search(r'(conv1\.weight|bn1\.running_mean|bn1\.running_var)$', name) else 1.0
  if kind == 'num_batches_tracked':
    return np.zeros(shape, np.int64)
  if kind == 'running_var':
    value = random.uniform(0.5, 1.5, shape) * scale**2
  elif kind in ('bias', 'running_mean'):
    value = 0.1 * scale * random.standard_normal(shape, np.float32)
  elif len(shape) == 1:
    value = random.uniform(0.75, 1.25, shape)
  else:
    he = math.sqrt(2 / math.prod(shape[1:]))
    damping = math.prod(factor for pattern, factor in DAMPED.items() if re.search(pattern, name))
    value = he * damping * scale * random.standard_normal(shape, np.float32)
  return value.astype(np.float32)


def _resnet_body(depth: int) -> Shapes:
  blocks, kernels, expansion = DEPTHS[depth]
  shapes = {'conv1.weight': (64, 3, 7, 7), **_batch_norm('bn1', 64)}
  channels = 64
  for stage, count in enumerate(blocks):
    width = 64 * 2**stage
    for block in range(count):
      name = f'layer{stage + 1}.{block}'
      inside = channels
      for index, kernel in enumerate(kernels, 1):
        out = width * expansion if index == len(kernels) else width
        shapes[f'{name}.conv{index}.weight'] = (out, inside, kernel, kernel)
        shapes.update(_batch_norm(f'{name}.bn{index}', out))
        inside = out
      if block == 0 and inside != channels:
        shapes[f'{name}.downsample.0.weight'] = (inside, channels, 1, 1)
        shapes.update(_batch_norm(f'{name}.downsample.1', inside))
      channels = inside
  return shapes


def _detector(batch_norm: bool, rpn_convolutions: int) -> Shapes:
  """What both versions of Mask R-CNN have in common: all but the box head's inside."""
  fpn, heads = 'backbone.fpn', 'roi_heads'
  shapes = {f'backbone.body.{name}': shape for name, shape in _resnet_body(50).items()}
  for level, channels in enumerate((256, 512, 1024, 2048)):
    shapes.update(_fpn_layer(f'{fpn}.inner_blocks.{level}', channels, 1, batch_norm))
    shapes.update(_fpn_layer(f'{fpn}.layer_blocks.{level}', FPN_CHANNELS, 3, batch_norm))
    shapes.update(_fpn_layer(f'{heads}.mask_head.{level}', FPN_CHANNELS, 3, batch_norm))
  rpn = range(rpn_convolutions)
  return {
    **shapes,
    **_merged(
      _layer(f'rpn.head.conv.{index}.0', FPN_CHANNELS, FPN_CHANNELS, 3, 3) for index in rpn
    ),
    **_layer('rpn.head.cls_logits', ANCHORS, FPN_CHANNELS, 1, 1),
    **_layer('rpn.head.bbox_pred', ANCHORS * 4, FPN_CHANNELS, 1, 1),
    **_layer(f'{heads}.box_predictor.cls_score', CLASSES, FC_CHANNELS),
    **_layer(f'{heads}.box_predictor.bbox_pred', CLASSES * 4, FC_CHANNELS),
    **_layer(f'{heads}.mask_predictor.conv5_mask', FPN_CHANNELS, FPN_CHANNELS, 2, 2),
    **_layer(f'{heads}.mask_predictor.mask_fcn_logits', CLASSES, FPN_CHANNELS, 1, 1),
  }


def _layer(name: str, out: int, *rest: int) -> Shapes:
  return {f'{name}.weight': (out, *rest), f'{name}.bias': (out,)}


def _fpn_layer(name: str, channels: int, kernel: int, batch_norm: bool) -> Shapes:
  """A convolution with a bias or, instead, with batch norm."""
  layer = _layer(f'{name}.0', FPN_CHANNELS, channels, kernel, kernel)
  if not batch_norm:
    return layer
  return {f'{name}.0.weight': layer[f'{name}.0.weight'], **_batch_norm(f'{name}.1', FPN_CHANNELS)}


def _batch_norm(name: str, channels: int) -> Shapes:
  names = ('weight', 'bias', 'running_mean', 'running_var')
  vectors = {f'{name}.{part}': (channels,) for part in names}
  return {**vectors, f'{name}.num_batches_tracked': ()}


def _merged(several: Iterable[Shapes]) -> Shapes:
  return {name: shape for shapes in several for name, shape in shapes.items()}
