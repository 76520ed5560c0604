"""Imported networks against the outputs that the peers' own code gives for the same weights."""

import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from oanet_tf import predict
from oanet_tf.data import preprocess
from oanet_tf.model_folder import ModelFolder
from oanet_tf.modeling.build import build_fuser
from oanet_tf.modeling.fusion.methods import fuse
from oanet_tf.modeling.oanet import normalize
from oanet_tf.weights.importing import import_weights
from tests import end_to_end
from tests.commands import export
from tests.segments import read_ids

XYXY = [1, 0, 3, 2]
DATA = pathlib.Path(__file__).with_name('data')


# Of deviations, in float32: another processor rounds in another order. Of features 2e-5 and of
# detections 9e-3 were seen.
FEATURES, DETECTIONS = 1e-4, 3e-2


def assert_near(found, expected, tolerance):
  """Within a fraction of the deviation."""
  assert found.shape == expected.shape
  assert np.abs(found - expected).max() <= tolerance * expected.std()


# Detectron2


@pytest.fixture(scope='module')
def detectron2_folder(detectron2_file, tmp_path_factory):
  folder = tmp_path_factory.mktemp('imported') / 'model'
  imported = import_weights(str(detectron2_file), folder)
  assert imported.not_used == [] and imported.ranking_module is None
  return folder


@pytest.fixture(scope='module')
def detectron2(detectron2_folder):
  return ModelFolder(detectron2_folder).load('float32')


def detectron2_input(expected):
  """`image` and `image_info` of a picture that is scaled already."""
  image, input_size = expected['image'], expected['input_size']
  padded = np.zeros([1, *input_size, 3], np.uint8)
  padded[0, : image.shape[0], : image.shape[1]] = image
  size = expected['original_size']
  info = np.array([[size, image.shape[:2], image.shape[:2] / size, [0, 0]]], np.float32)
  return tf.constant(padded), tf.constant(info)


@pytest.mark.parametrize('picture', ['even', 'odd'])
def test_detectron2s_features_and_heads(detectron2, detectron2_stand_in, picture):
  expected = np.load(detectron2_stand_in / f'expected_{picture}.npz')
  model, (images, info) = detectron2.model, detectron2_input(expected)
  backbone = model.backbone(normalize(images, info))
  assert_near(backbone['2'].numpy()[:, ::4, ::4], expected['res2_1_4'], 1e-4)
  assert_near(backbone['5'].numpy()[..., ::8], expected['res5'], 1e-4)
  features = model.decoder(backbone)
  for level, name, step in (('2', 'p2_1_4', 4), ('3', 'p3_1_4', 4), ('5', 'p5', 1), ('6', 'p6', 1)):
    assert_near(features[level].numpy()[:, ::step, ::step], expected[name], 1e-4)
  semantic = model.stuff_head(features).numpy()
  assert_near(semantic[:, ::2, ::2], expected['sem_seg_logits_1_2'], 1e-4)
  scores, offsets = model.rpn_head(features)
  for level in '456':
    assert_near(scores[level].numpy(), expected[f'rpn_logits_p{level}'], 1e-4)
    theirs = expected[f'rpn_deltas_p{level}']
    ours = offsets[level].numpy().reshape(*theirs.shape[:3], 3, 4)[..., XYXY]
    assert_near(ours.reshape(theirs.shape), theirs, 1e-4)
  rois = model.roi_aligner(features, tf.constant(expected['proposals'][None][..., XYXY]))
  assert_near(rois.numpy()[0, :16], expected['box_roi_first_16'], 1e-4)
  classes, boxes = (values.numpy()[0] for values in model.detection_head(rois))
  assert_near(np.roll(classes, -1, axis=1)[:200], expected['class_logits_first_200'], 1e-4)
  boxes = boxes.reshape(len(boxes), -1, 4)[:50, 1:, XYXY]
  assert_near(boxes.reshape(50, -1), expected['box_deltas_first_50'], 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize('picture', ['odd', pytest.param('even', marks=pytest.mark.slow)])
def test_detectron2s_detections_and_map(detectron2, detectron2_stand_in, picture):
  expected = np.load(detectron2_stand_in / f'expected_{picture}.npz')
  images, info = detectron2_input(expected)
  size = expected['original_size'].tolist()
  fuser = detectron2.fuser(['heuristic'])

  @tf.function(autograph=False)
  def run(images, info):
    outputs = detectron2.model(images, info)
    return outputs, fuse(fuser.batch(outputs, info, size), 'heuristic')

  outputs, maps = run(images, info)
  outputs = {key: value.numpy()[0] for key, value in outputs.items()}
  assert outputs['num_detections'] == 100
  np.testing.assert_allclose(outputs['detection_scores'], expected['scores'], rtol=0, atol=1e-4)
  boxes = outputs['detection_boxes'][:, XYXY]
  # Neighbours whose scores differ by rounding may come in the other order.
  order = np.abs(boxes - expected['pred_boxes'][:, None]).max(axis=2).argmin(axis=1)
  assert sorted(order) == list(range(100)) and np.abs(order - np.arange(100)).max() <= 1
  outputs = {name: outputs[f'detection_{name}'][order] for name in ('boxes', 'classes', 'masks')}
  np.testing.assert_array_equal(outputs['classes'] - 1, expected['pred_classes'])
  np.testing.assert_allclose(outputs['boxes'][:, XYXY], expected['pred_boxes'], rtol=0, atol=1e-2)
  np.testing.assert_allclose(outputs['masks'], expected['pred_masks'][:, 0], rtol=0, atol=1e-4)
  segments = json.loads(str(expected['segments_info']))
  segments = [[s['id'], s['category_id'], s['isthing']] for s in segments]
  labels = label_map(expected['panoptic_seg'], segments)
  assert np.mean(maps.category_mask.numpy()[0] == labels) >= 0.999
  same = same_segments(maps.instance_mask.numpy()[0], expected['panoptic_seg'] * (labels <= 80))
  assert same >= 0.999


def label_map(panoptic, segments):
  """Detectron2's segment ids -> our labels; it counts things from 0, and stuff from 1."""
  table = np.zeros(panoptic.max() + 1, int)
  for segment, category, is_thing in segments:
    table[segment] = category + (1 if is_thing else 80)
  return table[panoptic]


def same_segments(found, expected):
  """The fraction of pixels whose segment is the one that most of the expected segment has."""
  pairs, counts = np.unique(np.stack([expected, found]).reshape(2, -1), axis=1, return_counts=True)
  return sum(counts[pairs[0] == one].max() for one in np.unique(expected)) / found.size


@pytest.mark.slow
@pytest.mark.parametrize('number', ['139', '802'])
def test_a_photo_from_file_to_map_as_in_detectron2(
  detectron2_folder, coco_sample, tmp_path, monkeypatch, capsys, number
):
  """The maps are those of Detectron2's predictor at MIN_SIZE_TEST 320 and MAX_SIZE_TEST 533."""
  photo = coco_sample / 'val2017' / f'000000000{number}.jpg'
  code, _, _ = end_to_end.run_command(
    monkeypatch, capsys, predict.main, '--model', detectron2_folder, '--images', photo,
    '--output_dir', tmp_path, '--params_override', 'task.validation_data.output_size=[320,533]',
  )  # fmt: skip
  assert code == 0
  ids = read_ids(tmp_path / 'predictions' / f'{photo.stem}.png')
  (annotation,) = json.loads((tmp_path / 'predictions.json').read_text())['annotations']
  categories = ModelFolder(detectron2_folder).categories
  labels = np.zeros(ids.max() + 1, int)
  for segment in annotation['segments_info']:
    labels[segment['id']] = categories.label(segment['category_id'])
  reference = np.load(DATA / 'detectron2_photos.npz')
  panoptic = reference[f'{number}_segments']
  assert np.mean(labels[ids] == label_map(panoptic, reference[f'{number}_info'])) >= 0.999
  assert same_segments(ids, panoptic) >= 0.999


# The Model Garden


@pytest.fixture(scope='module')
def model_garden_folder(model_garden_stand_in, tmp_path_factory):
  folder = tmp_path_factory.mktemp('imported') / 'model'
  imported = import_weights(str(model_garden_stand_in / 'ckpt-22500'), folder)
  assert list(imported.own) == ['spatial_ranking']
  assert all(name.startswith(('optimizer', 'global', 'save')) for name in imported.not_used)
  return folder


@pytest.fixture(scope='module')
def model_garden(model_garden_folder):
  return ModelFolder(model_garden_folder).load('float32')


# The pictures of COCO are scaled, too.
@pytest.mark.parametrize(
  'pictures', ['unscaled', pytest.param('scaled', marks=pytest.mark.slow), 'coco']
)
def test_the_model_gardens_outputs(model_garden, model_garden_stand_in, request, pictures):
  expected = np.load(model_garden_stand_in / f'expected_{pictures}.npz')
  images = [expected[name] for name in ('picture_0', 'picture_1') if name in expected]
  if not images:
    folder = request.getfixturevalue('coco_sample') / 'val2017'
    files = [(folder / name).read_bytes() for name in expected['picture_names']]
    images = [tf.io.decode_image(file).numpy() for file in files]
  task, model, ids = model_garden.config.task, *model_garden[::2]
  ids = ids.id_of_label_table()
  fuser = build_fuser(task, model)
  inputs = [preprocess.network_input(tf.constant(image), task, False) for image in images]
  inputs = tf.nest.map_structure(lambda *values: tf.stack(values), *inputs)
  np.testing.assert_array_equal(
    inputs['image_info'].numpy()[:, [0, 2, 3]], expected['image_info'][:, [0, 2, 3]]
  )
  if pictures == 'unscaled':
    np.testing.assert_array_equal(inputs['image'], expected['images'])
  batch, info = inputs['image'], inputs['image_info']
  # Not in a graph, where TensorFlow fuses layers, which this network makes 1e-4 of.
  backbone = model.backbone(normalize(batch, info))
  decoder, outputs = model.decoder(backbone), model(batch, info)
  maps = fuse(fuser.batch(outputs, info, [640, 640]), 'heuristic')
  outputs = {key: value.numpy() for key, value in outputs.items()}
  assert_near(backbone['5'].numpy(), expected['backbone_5'], FEATURES)
  assert_near(decoder['6'].numpy(), expected['decoder_6'], FEATURES)
  assert_near(decoder['2'].numpy()[:, 3::8, 3::8], expected['decoder_2_1_8'], FEATURES)
  channels = [0, 1, *(ids[ids > 90] - 90)]
  segmentation = expected['segmentation_outputs_1_4'][..., channels]
  assert_near(outputs['stuff_logits'][:, 1::4, 1::4], segmentation, FEATURES)
  np.testing.assert_array_equal(outputs['num_detections'], expected['num_detections'])
  np.testing.assert_array_equal(ids[outputs['detection_classes']], expected['detection_classes'])
  for name in ('detection_boxes', 'detection_scores', 'detection_masks'):
    assert_near(outputs[name], expected[name], DETECTIONS)
  for index, image in enumerate(images):
    height, width = image.shape[:2]
    for name in ('category_mask', 'instance_mask'):
      found = getattr(maps, name).numpy()[index, :height, :width]
      found = ids[found] if name == 'category_mask' else found
      # The sums of the last layer differ by 3e-6, as it has 81 outputs and not 91.
      assert np.mean(found != expected[name][index, :height, :width]) <= 1e-3


# Exports


@pytest.mark.slow
@pytest.mark.parametrize('peer', ['detectron2', 'model_garden'])
def test_exports_give_the_same_map(request, peer, tmp_path, monkeypatch, capsys):
  """Builtin operations only, on which the export itself insists."""
  stand_in = request.getfixturevalue(f'{peer}_stand_in')
  if peer == 'detectron2':
    size = (256, 320)
    files = [('expected_even.npz', 'image'), ('expected_odd.npz', 'image')]
  else:
    size = (256, 256)
    files = [('expected_unscaled.npz', 'picture_0'), ('expected_scaled.npz', 'picture_1')]
  for number, (file, key) in enumerate(files):
    Image.fromarray(np.load(stand_in / file)[key]).save(tmp_path / f'{number}.png')
  code, _, err = end_to_end.run_command(
    monkeypatch, capsys, export.main, '--model_dir', request.getfixturevalue(f'{peer}_folder'),
    '--export_dir', tmp_path / 'exports', '--formats', 'savedmodel,tflite_float32', '--image_size',
    *size, '--images', *sorted(tmp_path.glob('*.png')),
    '--params_override', f'task.validation_data.output_size={list(size)}',
  )  # fmt: skip
  assert code == 0, err
  records = json.loads((tmp_path / 'exports' / 'export.json').read_text())
  assert records['savedmodel/1']['same_pixels'] == 1.0
  assert records['tflite_float32/1']['same_pixels'] >= 0.999
