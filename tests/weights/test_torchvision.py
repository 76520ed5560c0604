"""The numbers in `data/torchvision_features.npz` are torchvision's own, for the same weights."""

import pathlib

import numpy as np
import pytest
import tensorflow as tf

from oanet_tf.config import experiments
from oanet_tf.data.categories import PanopticCategories
from oanet_tf.errors import InputError
from oanet_tf.model_folder import ModelFolder
from oanet_tf.modeling.build import build_oanet
from oanet_tf.weights import coco_rows
from oanet_tf.weights.importing import import_weights
from oanet_tf.weights.initialization import load_initial_weights
from oanet_tf.weights.opening import open_weights
from tests.weights.files import write_torch_legacy, write_torch_zip
from tests.weights.torchvision_networks import (
  NETWORKS,
  as_before_2022,
  random_input,
  random_state_dict,
  sampled,
)

EXPECTED = np.load(pathlib.Path(__file__).with_name('data') / 'torchvision_features.npz')
CLASSES = coco_rows.detection_rows()


def assert_near(found, expected):
  """To 1e-4 of the deviation, where there is a number."""
  known = np.isfinite(found)
  assert known.mean() > 0.8
  assert np.abs(found - expected)[known].max() <= 1e-4 * expected.std()


@pytest.mark.parametrize('network', ['resnet18', 'resnet50'])
def test_resnets_initialize_a_backbone(network, tmp_path, categories):
  path = tmp_path / 'resnet.pth'
  write_torch_legacy(path, random_state_dict(NETWORKS[network]()))
  depth = int(network.removeprefix('resnet'))
  task = experiments.load_experiment(
    'oanet_synthetic', (), 'task.model.backbone.type=torch_resnet,'
    f'task.model.backbone.torch_resnet.model_id={depth}',
  ).task  # fmt: skip
  model = build_oanet(task.model, categories)
  reports = load_initial_weights(model, str(path), 'backbone')
  assert list(reports) == ['backbone'] and not reports['backbone'].absent
  features = model.backbone(tf.constant(random_input('image')))
  for level in range(2, 6):
    found = sampled(features[str(level)].numpy())
    assert_near(found, EXPECTED[f'{network}/layer{level - 1}'])
  file = open_weights(str(path))
  for name in file.named_variables(model.backbone):
    file.find('backbone', name)
  left = {name for name in file.unused() if not name.endswith('num_batches_tracked')}
  assert left == {'fc.weight', 'fc.bias'}


def of_all_classes(values, per_class=1):
  """Our classes, in the last axis, at the places of the 91; NaN at the others."""
  values = values.reshape(*values.shape[:-1], len(CLASSES), per_class)
  places = np.full([*values.shape[:-2], coco_rows.num_detection_classes(), per_class], np.nan)
  places[..., CLASSES, :] = values
  return places.reshape(*places.shape[:-2], -1)


@pytest.mark.slow
@pytest.mark.parametrize('network', ['maskrcnn_resnet50_fpn', 'maskrcnn_resnet50_fpn_v2'])
def test_mask_rcnns_are_imported(network, tmp_path):
  tensors = random_state_dict(NETWORKS[network]())
  write_torch_zip(tmp_path / 'model.pth', tensors)
  imported = import_weights(str(tmp_path / 'model.pth'), tmp_path / 'model')
  assert imported.name == "torchvision's Mask R-CNN"
  assert list(imported.own) == ['stuff_head', 'spatial_ranking']
  assert all(name.endswith('num_batches_tracked') for name in imported.not_used)
  folder = ModelFolder(tmp_path / 'model')
  # All stuff is void until its head is trained.
  assert folder.values['task.model.fusion.stuff_area_limit'] == 2**31 - 1
  model = folder.load('float32').model
  features = model.decoder(model.backbone(tf.constant(random_input('image'))))
  logits, deltas = model.rpn_head(features)
  for place in range(5):
    level = str(place + 2)
    assert_near(sampled(features[level].numpy()), EXPECTED[f'{network}/fpn/{place}'])
    assert_near(sampled(logits[level].numpy()), EXPECTED[f'{network}/rpn_logits/{place}'])
    boxes = deltas[level].numpy()
    boxes = boxes.reshape(*boxes.shape[:3], 3, 4)[..., [1, 0, 3, 2]].reshape(boxes.shape)
    assert_near(sampled(boxes), EXPECTED[f'{network}/rpn_deltas/{place}'])
  classes, boxes = model.detection_head(tf.constant(random_input('box'))[None])
  assert_near(sampled(of_all_classes(classes.numpy()[0])), EXPECTED[f'{network}/class_logits'])
  boxes = boxes.numpy()[0].reshape(8, -1, 4)[:, :, [1, 0, 3, 2]].reshape(8, -1)
  # The background's box is never used, and torchvision has one.
  assert_near(sampled(of_all_classes(boxes, 4)), EXPECTED[f'{network}/box_deltas'])
  rois = tf.constant(random_input('mask'))[:, None]
  masks = np.stack(
    [model.mask_head([rois, tf.fill([2, 1], k)]).numpy()[:, 0] for k in range(len(CLASSES))], -1
  )
  assert_near(sampled(of_all_classes(masks)), EXPECTED[f'{network}/mask_logits'])


def test_older_names_are_read_alike(tmp_path):
  tensors = random_state_dict(NETWORKS['maskrcnn_resnet50_fpn']())
  write_torch_zip(tmp_path / 'new.pth', tensors)
  write_torch_zip(tmp_path / 'old.pth', as_before_2022(tensors))
  new, old = (open_weights(str(tmp_path / name)) for name in ('new.pth', 'old.pth'))
  for part in ('backbone', 'decoder', 'rpn_head', 'detection_head', 'mask_head'):
    assert new.shapes(part) and new.shapes(part) == old.shapes(part)
    for name in new.shapes(part):
      np.testing.assert_array_equal(new.find(part, name).read(), old.find(part, name).read())
  assert new.unused() == old.unused() == []


def test_a_resnet_alone_is_not_imported(tmp_path):
  write_torch_zip(tmp_path / 'resnet.pth', random_state_dict(NETWORKS['resnet18']()))
  with pytest.raises(InputError, match=r'no decoder.*task\.init_checkpoint'):
    import_weights(str(tmp_path / 'resnet.pth'), tmp_path / 'model')
  assert not (tmp_path / 'model').exists()


def test_coco_has_the_classes_that_torchvision_counts():
  assert coco_rows.num_detection_classes() == 91 and len(CLASSES) == 81
  assert not set(CLASSES) & {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
  rows = coco_rows.segmentation_rows()
  assert len(rows) == 55 and rows[[0, 1, 2, -1]].tolist() == [0, 1, 2, 110]
  assert isinstance(coco_rows.coco_categories(), PanopticCategories)
