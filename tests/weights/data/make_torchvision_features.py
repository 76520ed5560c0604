"""Writes `torchvision_features.npz`: torchvision's features of the tests' random weights.

Needs torch and torchvision, and nothing of this package: `PYTHONPATH=. python THIS_FILE` at the
repository's root. The networks are made as with published weights, which it does not download. Made
with torchvision 0.29.1, torch 2.14.1.

Keys: `NETWORK/OUTPUT`, or `NETWORK/OUTPUT/LEVEL` with levels 0 to 4 for P2 to P6. Values: float32,
`sampled` of the NHWC output.
"""

import pathlib
from unittest import mock

import numpy as np
import torch
import torchvision
from torchvision.models._api import WeightsEnum
from torchvision.models.feature_extraction import create_feature_extractor

from tests.weights.torchvision_networks import (
  NETWORKS,
  as_before_2022,
  random_input,
  random_state_dict,
  sampled,
)

FILE = pathlib.Path(__file__).with_name('torchvision_features.npz')
STAGES = ('layer1', 'layer2', 'layer3', 'layer4')


def main() -> None:
  torch.set_num_threads(1)
  features = {}
  with torch.no_grad():
    for network in NETWORKS:
      model = loaded(network)
      outputs = mask_rcnn_features(model) if 'mask' in network else resnet_features(model)
      for name, value in outputs.items():
        report(f'{network}/{name}', value)
        # ResNet-101 is only checked.
        if network != 'resnet101':
          features[f'{network}/{name}'] = sampled(value)
  np.savez_compressed(FILE, **features)
  print(f'{FILE.name}: {len(features)} outputs, {FILE.stat().st_size} bytes')


def loaded(network: str) -> torch.nn.Module:
  """torchvision's network as if random values were the published ones, which it loads strictly."""
  shapes = NETWORKS[network]()
  state = random_state_dict(shapes)
  model = made(network, state)
  theirs = {name: tuple(value.shape) for name, value in model.state_dict().items()}
  assert theirs == shapes, sorted(set(theirs.items()) ^ set(shapes.items()))
  if network == 'maskrcnn_resnet50_fpn':
    older = made(network, as_before_2022(state)).state_dict()
    assert all(torch.equal(value, older[name]) for name, value in model.state_dict().items())
  return model


def made(network: str, state: dict[str, np.ndarray]) -> torch.nn.Module:
  tensors = {name: torch.from_numpy(value) for name, value in state.items()}
  with mock.patch.object(WeightsEnum, 'get_state_dict', lambda *_, **__: dict(tensors)):
    weights = 'COCO_V1' if 'mask' in network else 'IMAGENET1K_V1'
    return torchvision.models.get_model(network, weights=weights).eval()


def resnet_features(model: torch.nn.Module) -> dict[str, np.ndarray]:
  outputs = create_feature_extractor(model, list(STAGES))(nchw('image'))
  return {name: nhwc(value) for name, value in outputs.items()}


def mask_rcnn_features(model: torch.nn.Module) -> dict[str, np.ndarray]:
  levels = list(model.backbone(nchw('image')).values())
  logits, deltas = model.rpn.head(levels)
  heads = model.roi_heads
  classes, boxes = heads.box_predictor(heads.box_head(nchw('box')))
  masks = heads.mask_predictor(heads.mask_head(nchw('mask')))
  outputs = {'fpn': levels, 'rpn_logits': logits, 'rpn_deltas': deltas}
  return {
    **{f'{k}/{level}': nhwc(v) for k, values in outputs.items() for level, v in enumerate(values)},
    'class_logits': classes.numpy(),
    'box_deltas': boxes.numpy(),
    'mask_logits': nhwc(masks),
  }


def nchw(kind: str) -> torch.Tensor:
  return torch.from_numpy(random_input(kind)).permute(0, 3, 1, 2).contiguous()


def nhwc(value: torch.Tensor) -> np.ndarray:
  return np.ascontiguousarray(value.permute(0, 2, 3, 1).numpy())


def report(name: str, value: np.ndarray) -> None:
  assert np.isfinite(value).all(), name
  print(f'{name} {list(value.shape)}: mean {value.mean():.3f}, deviation {value.std():.3f}')


if __name__ == '__main__':
  main()
