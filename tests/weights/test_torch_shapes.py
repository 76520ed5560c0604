"""Tensors of PyTorch that are missing, or whose shapes fit nothing; norms of torchvision."""

import numpy as np
import pytest

from oanet_tf.errors import InputError
from oanet_tf.weights import detectron2, origins, torchvision
from tests.weights.torchvision_networks import NETWORKS

BODY, FPN = 'backbone.body', 'backbone.fpn.inner_blocks.0'
NORM = ('weight', 'bias', 'running_mean', 'running_var')


def ones(shapes):
  return {name: np.ones(shape, np.float32) for name, shape in shapes.items()}


@pytest.fixture(scope='module')
def networks():
  """Of ones; Detectron2's has no more than its first layers."""
  vectors = {f'backbone.bottom_up.stem.conv1.norm.{part}': (64,) for part in NORM}
  shapes = {
    'backbone.bottom_up.stem.conv1.weight': (64, 3, 7, 7),
    **vectors,
    'backbone.fpn_output2.weight': (8, 8, 3, 3),
    'roi_heads.box_head.fc1.weight': (16, 8 * 7 * 7),
    'roi_heads.box_head.fc1.bias': (16,),
    'roi_heads.box_predictor.bbox_pred.weight': (320, 16),
  }
  return {
    'v1': (torchvision, ones(NETWORKS['maskrcnn_resnet50_fpn']())),
    'v2': (torchvision, ones(NETWORKS['maskrcnn_resnet50_fpn_v2']())),
    'detectron2': (detectron2, ones(shapes)),
  }


MISFITS = [
  ('v1', f'{BODY}.bn1.running_var', (65,)),
  ('v1', f'{BODY}.bn1.weight', ()),
  ('v1', f'{BODY}.conv1.weight', (64, 3, 7)),
  ('v1', f'{FPN}.0.bias', (256, 1)),
  ('v1', 'roi_heads.box_head.fc6.weight', (1024, 256 * 7 * 6)),
  ('v1', 'roi_heads.box_head.fc6.weight', ()),
  ('v1', 'roi_heads.box_predictor.cls_score.weight', ()),
  ('v1', 'roi_heads.box_predictor.bbox_pred.bias', (363,)),
  ('v2', f'{FPN}.1.running_mean', (255,)),
  ('v2', f'{FPN}.1.bias', ()),
  ('v2', f'{FPN}.1.weight', (256, 256)),
  ('detectron2', 'backbone.bottom_up.stem.conv1.weight', (64, 147)),
  ('detectron2', 'backbone.bottom_up.stem.conv1.weight', ()),
  ('detectron2', 'backbone.bottom_up.stem.conv1.norm.bias', ()),
  ('detectron2', 'roi_heads.box_head.fc1.weight', (16, 391)),
  ('detectron2', 'roi_heads.box_predictor.bbox_pred.weight', (321, 16)),
]


@pytest.mark.parametrize(('network', 'name', 'shape'), MISFITS)
def test_a_shape_that_fits_nothing_is_one_line(network, name, shape, networks):
  package, tensors = networks[network]
  tensors = {**tensors, name: np.ones(shape, np.float32)}
  with pytest.raises(InputError, match='does not fit') as error:
    package.read('file.pth', tensors)
  # Of a norm, another tensor than the guilty one may be named.
  layer = name.rpartition('.')[0]
  assert str(error.value).startswith(f'file.pth: {layer}.') and '\n' not in str(error.value)


@pytest.mark.parametrize('shape', [(), (0,), (0, 0, 0, 0)])
def test_a_layer_without_outputs_before_the_dense_ones(shape, networks):
  _, tensors = networks['detectron2']
  tensors = {**tensors, 'backbone.fpn_output2.weight': np.zeros(shape, np.float32)}
  with pytest.raises(InputError, match='does not fit'):
    detectron2.read('file.pth', tensors)


@pytest.mark.parametrize('part', ['weight', 'bias', 'running_mean'])
def test_a_norm_that_lacks_a_part_is_named(part, networks):
  _, tensors = networks['v2']
  name = f'{FPN}.1.{part}'
  with pytest.raises(InputError, match=f'^file.pth: lacks {name}$'):
    torchvision.read('file.pth', {k: v for k, v in tensors.items() if k != name})


def test_an_fpn_that_lacks_a_kernel_is_named(networks):
  _, tensors = networks['v1']
  tensors = {name: value for name, value in tensors.items() if name != f'{FPN}.0.weight'}
  with pytest.raises(InputError, match="decoder lacks lateral_2's kernel"):
    origins.origin_of(torchvision.read('file.pth', tensors))


@pytest.mark.parametrize('values', [(103.53, 116.28), (123.675, 116.28, 103.53), ()])
def test_other_colours_are_refused(values, networks):
  _, tensors = networks['detectron2']
  own = np.reshape([103.53, 116.28, 123.675], (3, 1, 1)).astype(np.float32)
  detectron2.read('file.pth', {**tensors, 'pixel_mean': own})
  with pytest.raises(InputError, match=r'pixel_mean is .*\[103\.53, 116\.28, 123\.675\]'):
    detectron2.read('file.pth', {**tensors, 'pixel_mean': np.array(values, np.float32)})


def first_scale(variance, **more):
  """Of the first norm of a network whose scales are 2."""
  variance = np.array(variance, np.float32)
  tensors = {
    f'{BODY}.conv1.weight': np.ones([len(variance), 3, 7, 7], np.float32),
    **{f'{BODY}.bn1.{part}': np.full(len(variance), 2.0, np.float32) for part in NORM},
    f'{BODY}.bn1.running_var': variance,
    **more,
  }
  file = torchvision.read('file.pth', tensors)
  np.testing.assert_array_equal(
    file.find('backbone', 'stem.conv1.norm/moving_variance').read(), variance
  )
  return file.find('backbone', 'stem.conv1.norm/gamma').read()


def test_frozen_norms_have_no_epsilon():
  """Ours divides by the root of the variance and 1e-5, so the scale is multiplied by it."""
  scales = first_scale([3e-5, 1e-5, 1.0])
  np.testing.assert_allclose(scales, [2 * (4 / 3) ** 0.5, 2 * 2**0.5, 2 * 1.00001**0.5], rtol=1e-6)


def test_channels_that_are_always_0_stay_finite():
  # The smallest number that float32 has, and a variance that torchvision cannot divide by.
  scales = first_scale([1.4e-45, 0.0, 1e-5])
  np.testing.assert_allclose(scales, [2 * (1e-5 / 1.4e-45) ** 0.5, 2.0, 2 * 2**0.5], rtol=1e-2)


@pytest.mark.parametrize(
  'more',
  [
    {f'{BODY}.bn1.num_batches_tracked': np.array(7)},
    {f'{FPN}.1.running_var': np.ones(2, np.float32)},
  ],
)
def test_norms_that_were_trained_have_their_epsilon(more):
  np.testing.assert_array_equal(first_scale([1e-5, 1.0], **more), [2.0, 2.0])
