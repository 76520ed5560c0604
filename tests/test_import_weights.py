import json
import os
import pickle
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf
import yaml

from oanet_tf import files, import_weights, predict
from oanet_tf.config import experiments
from oanet_tf.data.categories import Category, PanopticCategories
from oanet_tf.model_folder import IMPORT_FILE, ModelFolder, write_model
from oanet_tf.modeling.build import build_network, build_oanet
from oanet_tf.training import state
from oanet_tf.weights import coco_rows
from oanet_tf.weights.initialization import load_initial_weights
from tests import end_to_end, small_model
from tests.commands import evaluate
from tests.small_files import small_files
from tests.weights import detectron2_network
from tests.weights.files import write_pickle, write_torch_zip

SMALL = 'task.validation_data.output_size=[64,96],task.model.fusion.score_threshold=0.0'


@pytest.fixture
def run(monkeypatch, capsys):
  def command(*arguments):
    return end_to_end.run_command(monkeypatch, capsys, import_weights.main, *arguments)

  return command


@pytest.fixture(scope='module')
def detectron2_file(tmp_path_factory):
  path = tmp_path_factory.mktemp('detectron2') / 'model_final.pkl'
  write_pickle(path, detectron2_network.tensors())
  return path


@pytest.fixture(scope='module')
def imported(detectron2_file, tmp_path_factory):
  """The model folder of that file, and what the command printed."""
  from oanet_tf.weights import importing

  folder = tmp_path_factory.mktemp('imported') / 'model'
  return folder, importing.import_weights(str(detectron2_file), folder, params_override=SMALL)


def test_a_second_import_into_a_folder_is_refused(detectron2_file, tmp_path, run):
  with files.only_one(tmp_path, 'import into model', 'model.import'):
    outcome = run('--from', detectron2_file, '--model_dir', tmp_path / 'model')
  message = end_to_end.one_line_error(outcome)
  assert f'{tmp_path}: ' in message and 'model is running' in message
  assert not any(tmp_path.iterdir())


def test_on_a_full_disk_nothing_is_left_of_an_import(detectron2_file, tmp_path, run):
  with small_files(100_000):
    outcome = run(
      '--from', detectron2_file, '--model_dir', tmp_path / 'new' / 'model', '--params_override',
      SMALL,
    )  # fmt: skip
  assert f'{tmp_path}/new/' in end_to_end.one_line_error(outcome)
  assert not any(tmp_path.iterdir())


def test_a_ranking_module_is_looked_at_before_tensorflow_loads(detectron2_file, tmp_path):
  code = (
    'import runpy, sys\ntry:\n  runpy.run_module("oanet_tf.import_weights", run_name="__main__")\n'
    'finally:\n  assert "tensorflow" not in sys.modules'
  )
  flags = ['--from', detectron2_file, '--model_dir', tmp_path / 'model']
  for more, message in (
    (['--ranking_module', tmp_path], f'{tmp_path}: is no model folder'),
    (['--params_override', 'a=['], '--params_override'),
    (['--model_dir', tmp_path / 'file' / 'below'], 'below: '),
  ):
    (tmp_path / 'file').write_text('')
    done = subprocess.run(
      [sys.executable, '-c', code, *map(str, [*flags, *more])], capture_output=True, text=True
    )
    assert done.returncode == 2 and message in done.stderr and done.stderr.count('\n') == 1


def test_the_folder_says_what_it_is(imported, detectron2_file):
  folder, result = imported
  assert {path.name for path in folder.iterdir()} >= {'params.yaml', 'categories.json', IMPORT_FILE}
  assert not [path for path in folder.parent.iterdir() if path != folder]
  record = json.loads((folder / IMPORT_FILE).read_text())
  assert record['source'] == str(detectron2_file)
  assert record['experiment'] == 'panoptic_fpn_detectron2'
  assert record['not_used'] == [] and record['ranking_module'] is None
  assert list(result.own) == ['spatial_ranking'] and len(result.own['spatial_ranking']) == 4
  # Four for each of 4 levels, the RPN on each of 5, 2 dense layers and 5 convolutions.
  assert len(result.identity) == 4 * (4 + 5 + 2 + 5)
  assert all('norm' in name or '_bn' in name for name in result.identity)
  values = ModelFolder(folder).values
  for key, value in {
    'backbone.torch_resnet.model_id': 18,
    'decoder.fpn.num_filters': 32,
    'rpn_head.num_filters': 32,
    'detection_head.fc_dims': 24,
    'detection_head.num_fcs': 2,
    'detection_head.num_convs': 0,
    'mask_head.num_convs': 4,
    'stuff_head.num_filters': 32,
    'fusion.method': 'heuristic',
  }.items():
    assert values[f'task.model.{key}'] == value, key


def test_every_tensor_reaches_its_variable(imported):
  """Each layout by one value, such as [output, input, row, column] of a kernel."""
  model, tensors = ModelFolder(imported[0]).load().model, detectron2_network.tensors()
  layers = {layer.name: layer for layer in model.backbone.layers}
  kernel = layers['res4.1.conv2'].kernel.numpy()
  assert kernel[2, 0, 5, 7] == tensors['backbone.bottom_up.res4.1.conv2.weight'][7, 5, 2, 0]
  # BGR to RGB, and divided by a deviation that Detectron2 does not divide by.
  stem = layers['stem.conv1'].kernel.numpy()[3, 4, 0, 9]
  assert stem == pytest.approx(
    tensors['backbone.bottom_up.stem.conv1.weight'][9, 2, 3, 4] * 255 * 0.229, rel=1e-5
  )
  moving = layers['res3.0.shortcut.norm'].moving_variance.numpy()
  np.testing.assert_array_equal(
    moving, tensors['backbone.bottom_up.res3.0.shortcut.norm.running_var']
  )
  rpn = model.rpn_head._box_regressor.bias.numpy()
  theirs = tensors['proposal_generator.rpn_head.anchor_deltas.bias']
  np.testing.assert_array_equal(rpn[4:8], theirs[[5, 4, 7, 6]])
  dense = model.detection_head._fcs[0].kernel.numpy()
  # Row 2, column 3 and channel 10 of the 7 × 7 × 32 features.
  theirs = tensors['roi_heads.box_head.fc1.weight'][11, 10 * 49 + 2 * 7 + 3]
  assert dense[(2 * 7 + 3) * 32 + 10, 11] == theirs
  classes, scores = model.detection_head._classifier.bias.numpy(), 'roi_heads.box_predictor'
  assert classes[0] == tensors[f'{scores}.cls_score.bias'][80]
  np.testing.assert_array_equal(classes[1:], tensors[f'{scores}.cls_score.bias'][:80])
  boxes = model.detection_head._box_regressor.bias.numpy().reshape(81, 4)
  np.testing.assert_array_equal(boxes[0], 0)
  np.testing.assert_array_equal(
    boxes[3], tensors[f'{scores}.bbox_pred.bias'].reshape(80, 4)[2, [1, 0, 3, 2]]
  )
  mask = model.mask_head._mask_regressor.bias.numpy()
  np.testing.assert_array_equal(mask[1:], tensors['roi_heads.mask_head.predictor.bias'])
  deconv = model.mask_head._deconv.kernel.numpy()
  assert deconv[1, 0, 4, 6] == tensors['roi_heads.mask_head.deconv.weight'][6, 4, 1, 0]
  stage = model.stuff_head._stages['5'][2].layers[0].kernel.numpy()
  assert stage[0, 2, 1, 3] == tensors['sem_seg_head.p5.4.weight'][3, 1, 0, 2]


def test_the_command_says_what_became_of_all(run, detectron2_file, tmp_path):
  tensors = {**detectron2_network.tensors(), 'pixel_mean': np.float32([[[103.53]], [[116.28]],
             [[123.675]]]), 'proposal_generator.anchor_generator.cell_anchors.0': np.zeros((3, 4),
             np.float32)}  # fmt: skip
  write_torch_zip(tmp_path / 'model.pth', tensors)
  code, out, _ = run('--from', tmp_path / 'model.pth', '--model_dir', tmp_path / 'model')
  assert code == 0
  assert "Detectron2's Panoptic FPN as panoptic_fpn_detectron2" in out
  assert 'not used of the file: 2, pixel_mean, proposal_generator' in out
  assert '4 variables of spatial_ranking' in out and 'no ranking module' in out


def picture(folder):
  from PIL import Image

  rng = np.random.default_rng(0)
  Image.fromarray(rng.integers(0, 256, (48, 80, 3), np.uint8)).save(folder / 'picture.png')
  return folder / 'picture.png'


@pytest.mark.slow
def test_srm_needs_a_ranking_module(imported, tmp_path, monkeypatch, capsys):
  output = tmp_path / 'output'
  arguments = ('--model', imported[0], '--images', picture(tmp_path), '--output_dir', output)
  line = end_to_end.one_line_error(
    end_to_end.run_command(monkeypatch, capsys, predict.main, *arguments, '--fusion', 'srm')
  )
  assert '--ranking_module' in line
  code, out, _ = end_to_end.run_command(monkeypatch, capsys, predict.main, *arguments)
  assert code == 0 and '1 pictures' in out


def test_evaluation_does_not_rank_at_random(imported, tmp_path, monkeypatch, capsys):
  shard = tmp_path / 'val.tfrecord'
  shard.write_bytes(bytes(16))  # An empty record.
  line = end_to_end.one_line_error(
    end_to_end.run_command(
      monkeypatch, capsys, evaluate.main, '--model_dir', imported[0], '--fusions', 'srm,heuristic',
      '--params_override', f"task.validation_data.input_path='{shard}'",
    )
  )  # fmt: skip
  assert str(imported[0]) in line and '--ranking_module' in line


def test_a_random_ranking_module_is_not_joined(run, imported, detectron2_file, tmp_path):
  line = end_to_end.one_line_error(
    run('--from', detectron2_file, '--model_dir', tmp_path / 'a', '--ranking_module', imported[0])
  )
  assert str(imported[0]) in line and not (tmp_path / 'a').exists()


def ranking_folder(folder, categories, bias=0.0):
  """A training of the ranking module alone, of a convolution that is not the default."""
  config = experiments.load_experiment(
    'srm_only_coco', (), 'task.model.spatial_ranking.convolution=3x3'
  )
  model = build_network(config.task, categories)
  for variable in model.variables:
    variable.assign(tf.random.stateless_normal(variable.shape, [1, 2]) + bias)
  folder.mkdir()
  write_model(folder, model, config, categories)
  return folder, model


@pytest.mark.slow
def test_a_ranking_module_is_joined(run, detectron2_file, tmp_path):
  folder, module = ranking_folder(tmp_path / 'srm', coco_rows.coco_categories())
  code, out, err = run(
    '--from', detectron2_file, '--model_dir', tmp_path / 'model', '--ranking_module', folder,
    '--params_override', SMALL,
  )  # fmt: skip
  assert code == 0 and 'spatial_ranking' not in out and 'no ranking' not in out, err
  joined = ModelFolder(tmp_path / 'model')
  assert joined.fusion() == 'srm'
  assert joined.values['task.model.spatial_ranking.convolution'] == '3x3'
  found = joined.load().model.spatial_ranking.variables
  for variable, expected in zip(found, module.spatial_ranking.variables, strict=True):
    np.testing.assert_array_equal(variable, expected)


def test_a_ranking_module_for_other_categories_is_refused(run, detectron2_file, tmp_path):
  coco = [
    Category(c.id, 'cot' if c.name == 'cat' else c.name, c.is_thing, c.color)
    for c in coco_rows.coco_categories()
  ]
  folder, _ = ranking_folder(tmp_path / 'srm', PanopticCategories(coco))
  line = end_to_end.one_line_error(
    run('--from', detectron2_file, '--model_dir', tmp_path / 'model', '--ranking_module', folder)
  )
  assert str(folder) in line and str(detectron2_file) in line and "'cot'" in line
  assert not (tmp_path / 'model').exists()


def without(name):
  return lambda tensors: tensors.pop(name)


def changed(name, shape):
  return lambda tensors: tensors.update({name: np.zeros(shape, np.float32)})


def once_more(change, fact):
  """What goes the way of another one, and takes seconds, as it builds a network."""
  return pytest.param(change, fact, marks=pytest.mark.slow)


@pytest.mark.parametrize(
  ('change', 'fact'),
  [
    (without('backbone.bottom_up.res3.1.conv2.weight'), 'res3.1.conv2/kernel'),
    once_more(without('backbone.bottom_up.res5.1.conv1.weight'), 'res5.1.conv1/kernel'),
    once_more(without('roi_heads.mask_head.predictor.bias'), 'mask_head'),
    (without('sem_seg_head.p4.2.norm.bias'), 'stuff_head'),
    (changed('backbone.fpn_output4.weight', (16, 32, 3, 3)), 'post_hoc_4/kernel'),
    once_more(changed('roi_heads.box_head.fc2.weight', (24, 25)), '_fcs/1/kernel'),
    (changed('roi_heads.box_head.fc1.weight', (24, 50)), 'fc1'),
    (changed('roi_heads.mask_head.norm7.weight', (4,)), 'mask_head.norm7'),
    once_more(changed('roi_heads.keypoint_head.conv1.weight', (4, 4, 1, 1)), 'keypoint_head'),
    (changed('pixel_mean', (3, 1, 1)), 'pixel_mean'),
    (changed('roi_heads.box_predictor.cls_score.bias', (91,)), '91 classes, not 81'),
    (changed('sem_seg_head.predictor.bias', (20,)), '20 classes, not 54'),
  ],
)
def test_a_file_that_does_not_fit_is_one_line(run, tmp_path, change, fact):
  tensors = detectron2_network.tensors()
  change(tensors)
  write_pickle(tmp_path / 'model.pkl', tensors)
  line = end_to_end.one_line_error(
    run('--from', tmp_path / 'model.pkl', '--model_dir', tmp_path / 'model')
  )
  assert str(tmp_path / 'model.pkl') in line and fact in line
  assert sorted(path.name for path in tmp_path.iterdir()) == ['model.pkl']


def test_only_a_part_of_a_network_is_one_line(run, tmp_path):
  everything = detectron2_network.tensors()
  for name, marks, fact in (
    ('resnet', ('backbone.bottom_up',), 'no decoder'),
    ('blocks', ('backbone.fpn', 'proposal', 'roi_heads'), 'Detectron2'),
  ):
    path = tmp_path / f'{name}.pkl'
    write_pickle(path, {key: value for key, value in everything.items() if key.startswith(marks)})
    line = end_to_end.one_line_error(run('--from', path, '--model_dir', tmp_path / 'model'))
    assert str(path) in line and fact in line


class RunsCode:
  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return os.system, (f'touch {self.path}',)


def test_damaged_and_malicious_files_are_one_line(run, detectron2_file, tmp_path):
  content = detectron2_file.read_bytes()
  (tmp_path / 'cut.pkl').write_bytes(content[: len(content) // 2])
  (tmp_path / 'empty.pth').write_bytes(b'')
  (tmp_path / 'page.pkl').write_text('<html>404</html>')
  marker = tmp_path / 'marker'
  (tmp_path / 'runs.pkl').write_bytes(pickle.dumps({'model': RunsCode(marker)}))
  for name in ('cut.pkl', 'empty.pth', 'page.pkl', 'runs.pkl', 'missing.pkl'):
    line = end_to_end.one_line_error(
      run('--from', tmp_path / name, '--model_dir', tmp_path / 'model')
    )
    assert str(tmp_path / name) in line
  time.sleep(0.1)
  assert not marker.exists() and not (tmp_path / 'model').exists()


def test_nothing_is_overwritten(run, detectron2_file, tmp_path):
  (tmp_path / 'model').mkdir()
  (tmp_path / 'model' / 'notes.txt').write_text('mine')
  line = end_to_end.one_line_error(
    run('--from', detectron2_file, '--model_dir', tmp_path / 'model')
  )
  assert 'exists already' in line
  assert (tmp_path / 'model' / 'notes.txt').read_text() == 'mine'


def test_no_training_goes_on_in_the_folder(imported, tmp_path):
  folder = ModelFolder(imported[0])
  with pytest.raises(state.InputError, match=r'task\.init_checkpoint='):
    from oanet_tf import cluster

    state.create_state(
      folder.config, folder.categories, imported[0], cluster.make_cluster(folder.config.runtime)
    )


@pytest.mark.slow
@pytest.mark.parametrize('as_folder', [False, True])
def test_it_starts_a_training_on_other_categories(imported, detectron2_file, categories, as_folder):
  """All but the layers whose size depends on the categories; they are named."""
  folder = ModelFolder(imported[0])
  model = build_oanet(folder.config.task.model, categories)
  reports = load_initial_weights(model, str(imported[0] if as_folder else detectron2_file))
  expected = folder.load().model
  for part in ('backbone', 'decoder', 'rpn_head'):
    for variable, other in zip(
      getattr(model, part).variables, getattr(expected, part).variables, strict=True
    ):
      np.testing.assert_array_equal(variable, other, err_msg=variable.name)
  assert set(reports['detection_head'].other_shape) == {
    '_classifier/kernel', '_classifier/bias', '_box_regressor/kernel', '_box_regressor/bias',
  }  # fmt: skip
  assert set(reports['mask_head'].other_shape) == {'_mask_regressor/kernel', '_mask_regressor/bias'}
  assert set(reports['stuff_head'].other_shape) == {'_logits/kernel', '_logits/bias'}


def test_backbone_and_decoder_alone(detectron2_file, imported, categories):
  model = build_oanet(ModelFolder(imported[0]).config.task.model, categories)
  reports = load_initial_weights(model, str(detectron2_file), 'backbone,decoder')
  assert set(reports) == {'backbone', 'decoder'}
  assert not reports['backbone'].absent and len(reports['decoder'].loaded) == 16


def test_another_backbone_is_told_the_settings(detectron2_file, categories):
  task = small_model.small_experiment().task
  model = build_oanet(task.model, categories)
  with pytest.raises(state.InputError) as error:
    load_initial_weights(model, str(detectron2_file))
  assert 'torch_resnet.model_id=18' in str(error.value)


# The Model Garden


def model_garden_checkpoint(folder, num_things=90, num_stuff=109, overrides=''):
  """A checkpoint as the Model Garden's trainer writes it, with COCO's ids as classes."""
  categories = PanopticCategories(
    [Category(i, f'{i}', i <= num_things, (0, 0, 0)) for i in range(1, 1 + num_things + num_stuff)]
  )
  small = (
    'task.model.backbone.resnet.model_id=50,task.model.backbone.resnet.depth_multiplier=0.125,'
    'task.model.decoder.fpn.num_filters=16,task.model.rpn_head.num_filters=16,'
    'task.model.detection_head.num_filters=8,task.model.detection_head.fc_dims=12,'
    'task.model.mask_head.num_filters=8,task.model.stuff_head.num_filters=32'
  )
  config = experiments.load_experiment('panoptic_fpn_model_garden', (), small + overrides)
  model = build_oanet(config.task.model, categories)
  for variable in model.variables:
    variable.assign(tf.random.normal(variable.shape, 1.0, 0.1))
  parts = {name: getattr(model, name) for name in ('backbone', 'decoder', 'rpn_head', 'mask_head')}
  checkpoint = tf.train.Checkpoint(
    **parts, detection_head=[model.detection_head], segmentation_head=model.stuff_head
  )
  return checkpoint.write(str(folder / 'ckpt-5')), model


@pytest.mark.slow
def test_the_model_gardens_classes_are_cocos_ids(run, tmp_path):
  prefix, theirs = model_garden_checkpoint(tmp_path)
  params = {'task': {'model': {
    'input_size': [128, 128, 3],
    'norm_activation': {'norm_epsilon': 0.002, 'use_sync_bn': True},
    'panoptic_segmentation_generator': {'stuff_area_threshold': 100.0, 'score_threshold': 0.25},
  }}}  # fmt: skip
  (tmp_path / 'params.yaml').write_text(yaml.dump(params))
  code, out, _ = run('--from', prefix, '--model_dir', tmp_path / 'model')
  assert code == 0 and 'panoptic_fpn_model_garden' in out
  folder = ModelFolder(tmp_path / 'model')
  values = folder.values
  assert values['task.model.backbone.resnet.model_id'] == 50
  assert values['task.model.backbone.resnet.depth_multiplier'] == 0.125
  assert values['task.validation_data.output_size'] == [128, 128]
  assert values['task.model.norm_activation.norm_epsilon'] == 0.002
  assert values['task.model.fusion.stuff_area_limit'] == 100
  assert values['task.model.fusion.score_threshold'] == 0.25
  ours = folder.load().model
  for part in ('backbone', 'decoder', 'rpn_head'):
    for variable, other in zip(
      getattr(ours, part).variables, getattr(theirs, part).variables, strict=True
    ):
      np.testing.assert_array_equal(variable, other)
  zebra = folder.categories.label(24)
  assert zebra == 23
  np.testing.assert_array_equal(
    ours.detection_head._classifier.kernel[:, zebra],
    theirs.detection_head._classifier.kernel[:, 24],
  )
  np.testing.assert_array_equal(
    ours.detection_head._box_regressor.bias[4 * zebra : 4 * zebra + 4],
    theirs.detection_head._box_regressor.bias[96:100],
  )
  np.testing.assert_array_equal(
    ours.mask_head._mask_regressor.bias[zebra], theirs.mask_head._mask_regressor.bias[24]
  )
  rug = folder.categories.label(200) - 80
  assert rug == 53
  for channel, other in ((0, 0), (1, 1), (1 + rug, 110)):
    np.testing.assert_array_equal(
      ours.stuff_head._classifier.kernel[..., channel],
      theirs.stuff_head._classifier.kernel[..., other],
    )


@pytest.mark.slow
def test_other_checkpoints_are_one_line(run, tmp_path):
  prefix, model = model_garden_checkpoint(tmp_path, num_things=5, num_stuff=3)
  backbone = tf.train.Checkpoint(backbone=model.backbone).write(str(tmp_path / 'ckpt-1'))
  own = tf.train.Checkpoint(model=model).write(str(tmp_path / 'ckpt-2'))
  for path, fact in (
    (prefix, '6 classes, not 81'),
    (backbone, 'no decoder'),
    (own, 'needs no import'),
  ):
    line = end_to_end.one_line_error(run('--from', path, '--model_dir', tmp_path / 'model'))
    assert str(path) in line and fact in line
  index = (tmp_path / 'ckpt-5.index').read_bytes()
  (tmp_path / 'ckpt-5.index').write_bytes(index[: len(index) // 2])
  line = end_to_end.one_line_error(run('--from', prefix, '--model_dir', tmp_path / 'model'))
  assert 'cannot be read' in line
