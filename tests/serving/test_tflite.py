"""TFLite files of one small network, in LiteRT."""

import json
import re
import tempfile
import zipfile

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from oanet_tf import predict
from oanet_tf.errors import InputError
from oanet_tf.evaluation import coco_results
from oanet_tf.model_folder import ModelFolder
from oanet_tf.serving import formats, parity, tflite, tflite_file, tflite_int8
from oanet_tf.serving.letterbox import PADDING_COLOR, letterbox
from oanet_tf.serving.tflite_description import OUTPUTS
from tests.commands import export
from tests.end_to_end import one_line_error, run_command
from tests.serving.requests import encode, rectangles
from tests.small_files import small_files

FORMATS = [name for name in formats.FORMATS if name.startswith('tflite_')]
SIZE = (64, 64)
# Keras numbers layers of the same kind.
PART = re.compile(r'oanet/(res_net|fpn|rpn_head|detection_head|mask_head|stuff_head)')


@pytest.fixture(scope='module')
def source(trained):
  images = parity.shard_images(f'{trained[0]}/shards/val-*', 3)
  # After a few steps of training nothing is certain.
  override = 'task.model.fusion.score_threshold=0.02,task.model.fusion.mask_threshold=0.2'
  return parity.load_source(
    ModelFolder(trained[0] / 'model', override), 'srm', SIZE, images, images
  )


def test_a_full_disk_for_temporary_files_is_told():
  module = tf.Module()
  module.weight = tf.Variable(2.0)
  function = tf.function(lambda x: x * module.weight, [tf.TensorSpec([1])], autograph=False)
  graph = tflite._Graph(function.get_concrete_function(), module, None)
  with small_files(100), pytest.raises(InputError, match=f'{tempfile.gettempdir()}: '):
    tflite._convert(graph)
  assert Interpreter(model_content=tflite._convert(graph)).get_signature_list()


@pytest.fixture(scope='module')
def int8(source, tmp_path_factory):
  """The folder of the file that all parts of the export have a hand in."""
  folder = tmp_path_factory.mktemp('int8')
  tflite.INT8.write(source, folder)
  return folder


def of_8_bits(model):
  """By part of the network, the operations whose result is of 8 bits; '' is outside of parts."""
  interpreter = Interpreter(model_content=model)
  tensors = {tensor['index']: tensor for tensor in interpreter.get_tensor_details()}
  found = {}
  for operation in interpreter._get_ops_details():
    for index in operation['outputs']:
      if index in tensors and tensors[index]['dtype'] == np.int8:
        part = PART.search(tensors[index]['name'])
        found.setdefault(part[1] if part else '', set()).add(operation['op_name'])
  return found


def test_backbone_and_heads_are_of_8_bits_and_all_else_is_float(int8):
  found = of_8_bits((int8 / 'model.tflite').read_bytes())
  found = {part: operations - {'QUANTIZE'} for part, operations in found.items()}
  convolution = {'CONV_2D'}
  assert {part: operations for part, operations in found.items() if operations} == {
    'res_net': {'CONV_2D', 'ADD', 'MAX_POOL_2D'},
    'fpn': {'CONV_2D', 'ADD', 'RESIZE_NEAREST_NEIGHBOR'},
    'rpn_head': convolution,
    'stuff_head': convolution,
    'mask_head': {'CONV_2D', 'TRANSPOSE_CONV'},
    'detection_head': {'FULLY_CONNECTED'},
  }


def test_it_says_what_it_takes_and_gives(int8, source):
  description = json.loads((int8 / 'model.json').read_text())
  assert description['format'] == 'tflite_int8' and description['fusion'] == 'srm'
  image = description['input']
  assert (image['shape'], image['dtype']) == ([1, *SIZE, 3], 'uint8')
  assert image['padding_color'] == list(PADDING_COLOR)
  assert description['categories'] == source.trained.categories.to_coco()
  outputs = tflite.runner(int8 / 'model.tflite')(image=np.zeros([1, *SIZE, 3], np.uint8))
  described = {output['name']: output for output in description['outputs']}
  assert described.keys() == outputs.keys()
  for name, value in outputs.items():
    assert described[name]['shape'] == list(value.shape)
    assert described[name]['dtype'] == value.dtype.name


def test_labels_and_description_are_in_the_file_too(int8):
  with zipfile.ZipFile(int8 / 'model.tflite') as archive:
    assert archive.read('model.json') == (int8 / 'model.json').read_bytes()
    lines = archive.read('labels.txt').decode().splitlines()
  description = json.loads((int8 / 'model.json').read_text())
  assert {c['id']: c['name'] for c in description['categories']}.items() <= dict(
    enumerate(lines)
  ).items()


def test_the_outputs_that_are_described_are_all(source):
  image = np.zeros([1, *SIZE, 3], np.uint8)
  assert source.module().segment_fixed(tf.constant(image)).keys() == OUTPUTS.keys()


def test_a_picture_beside_padding_gives_what_it_gives_alone(int8, source):
  """Nothing of the padding is in the results."""
  outputs = tflite.runner(int8 / 'model.tflite')(image=letterbox(rectangles(20, 40), SIZE)[None])
  assert outputs['image_shape'].tolist() == [[32, 64]]
  for mask in (outputs['panoptic_category_mask'], outputs['panoptic_instance_mask']):
    assert not mask[:, 32:].any()
  assert outputs['panoptic_category_mask'].any()
  assert outputs['segment_area'].sum() == np.count_nonzero(outputs['panoptic_category_mask'])


def test_the_comparison_is_not_of_nothing(int8, source):
  run = tflite.runner(int8 / 'model.tflite')
  found = [run(image=letterbox(image, SIZE)[None]) for image in source.images]
  assert sum(outputs['panoptic_instance_mask'].any() for outputs in found) > 1
  parity = tflite.compare(source, int8)
  assert parity.num_images == 3
  # Of a network that has hardly learnt anything.
  assert parity.same_pixels > 0.5 and parity.score_difference < 0.05


def test_instances_get_the_numbers_of_those_that_they_are():
  reference = np.array([[1, 1, 1, 2, 2, 0], [3, 3, 0, 2, 2, 0]])
  # 5 is the first, 1 the second, 2 the third but for a pixel of the first's; 3 is none of them.
  mask = np.array([[5, 5, 2, 1, 1, 3], [2, 2, 0, 1, 0, 0]])
  expected = [[1, 1, 3, 2, 2, -1], [3, 3, 0, 2, 0, 0]]
  assert tflite.same_numbers(mask, reference).tolist() == expected
  nothing = np.zeros_like(mask)
  assert tflite.same_numbers(nothing, reference).tolist() == nothing.tolist()
  assert tflite.same_numbers(nothing, nothing).tolist() == nothing.tolist()
  assert (tflite.same_numbers(mask, nothing) == np.where(mask, -1, 0)).all()


MASKS = arrays.arrays(np.int32, (5, 6), elements=st.integers(0, 4))


@settings(max_examples=50, deadline=None)
@given(MASKS, st.permutations(range(1, 5)))
def test_other_numbers_for_the_same_instances_make_no_difference(mask, numbers):
  renumbered = np.array([0, *numbers])[mask]
  np.testing.assert_array_equal(tflite.same_numbers(renumbered, mask), mask)


def export_int8(trained, monkeypatch, capsys, *arguments):
  return run_command(
    monkeypatch, capsys, export.main, '--model_dir', trained[0] / 'model', '--formats',
    'tflite_int8', *arguments,
  )  # fmt: skip


def not_a_picture(folder):
  path = folder / 'notes.png'
  path.write_text('no picture')
  return path, 'is no picture'


def cut_off(folder):
  path = folder / 'half.png'
  path.write_bytes(encode(rectangles(50, 50))[:200])
  return path, 'damaged'


def empty_folder(folder):
  path = folder / 'empty'
  path.mkdir()
  return path, 'empty'


def nowhere(folder):
  return folder / 'nowhere.jpg', 'nowhere.jpg'


@pytest.mark.parametrize('make', [not_a_picture, cut_off, empty_folder, nowhere])
def test_bad_calibration_images_are_named_first(trained, tmp_path, monkeypatch, capsys, make):
  path, fact = make(tmp_path)
  target = tmp_path / 'export'
  message = one_line_error(
    export_int8(trained, monkeypatch, capsys, '--export_dir', target, '--calibration_images', path)
  )
  assert str(path) in message and fact in message and not target.exists()


def test_without_training_shards_pictures_are_asked_for(trained, tmp_path, monkeypatch, capsys):
  message = one_line_error(
    export_int8(
      trained, monkeypatch, capsys, '--export_dir', tmp_path / 'export', '--params_override',
      f'task.train_data.input_path={tmp_path}/train-*',
    )
  )  # fmt: skip
  assert f'{tmp_path}/train-*' in message and '--calibration_images' in message


def test_without_the_quantizer_it_is_asked_for(trained, tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(tflite_int8.importlib.util, 'find_spec', lambda name: None)
  outcome = export_int8(trained, monkeypatch, capsys, '--export_dir', tmp_path / 'export')
  assert "pip install 'oanet_tf[tflite]'" in one_line_error(outcome)


def accept(monkeypatch, least_same_pixels):
  """For networks that have hardly learnt anything, whose results change with the last digit."""
  for name in ('FLOAT32', 'FLOAT16', 'DYNAMIC', 'INT8'):
    form = getattr(tflite, name)._replace(least_same_pixels=least_same_pixels)
    monkeypatch.setattr(tflite, name, form)


@pytest.mark.slow
def test_a_file_with_other_results_is_not_left(trained, tmp_path, monkeypatch, capsys):
  accept(monkeypatch, 1.01)
  target = tmp_path / 'export'
  message = one_line_error(export_int8(trained, monkeypatch, capsys, '--export_dir', target))
  assert 'was not written' in message and 'at most -1.00% may' in message
  assert not [path for path in target.rglob('*') if path.is_file()]


@pytest.mark.slow
@pytest.mark.parametrize('size', [(64, 64), (40, 90)])
def test_all_formats_by_the_command(trained, tmp_path, monkeypatch, capsys, size):
  accept(monkeypatch, 0.5)
  pictures = tmp_path / 'pictures'
  pictures.mkdir()
  for index, shape in enumerate([(64, 64), (30, 70), (300, 90)]):
    (pictures / f'{index}.png').write_bytes(encode(rectangles(*shape)))
  code, output, error = run_command(
    monkeypatch, capsys, export.main, '--model_dir', trained[0] / 'model', '--export_dir',
    tmp_path / 'export', '--formats', ','.join(FORMATS), '--images', pictures,
    '--calibration_images', pictures, '--image_size', *size,
  )  # fmt: skip
  assert code == 0, error
  record = json.loads((tmp_path / 'export' / 'export.json').read_text())
  sizes = [record[f'{name}/1']['bytes'] for name in FORMATS]
  assert sizes[0] > 1.7 * sizes[1] > 2.5 * max(sizes[2:])
  assert record['tflite_float32/1']['same_pixels'] > 0.9
  for name in FORMATS:
    model = tmp_path / 'export' / name / '1' / 'model.tflite'
    tflite_file.check_builtins(model.read_bytes())
    outputs = tflite.runner(model)(image=np.zeros([1, *size, 3], np.uint8))
    assert outputs['panoptic_category_mask'].shape == (1, *size) and name in output


def test_predict_takes_the_file(int8, source, tmp_path, monkeypatch, capsys):
  """A picture of the canvas's own size gets what the file says; others come back at their size."""
  image = source.images[0]
  enlarged = np.kron(image, np.ones((2, 2, 1), np.uint8))
  expected = tflite.runner(int8 / 'model.tflite')(image=image[np.newaxis])
  for name, picture in (('plain', image), ('enlarged', enlarged)):
    (tmp_path / f'{name}.png').write_bytes(encode(picture, 'PNG'))
  code, _, _ = run_command(
    monkeypatch, capsys, predict.main, '--model', int8 / 'model.tflite', '--images', tmp_path,
    '--output_dir', tmp_path / 'output',
  )  # fmt: skip
  assert code == 0
  results = coco_results.read_results(
    tmp_path / 'output' / 'predictions.json', tmp_path / 'output' / 'predictions'
  )
  segmentations = dict(results)
  plain = segmentations['plain']
  categories = np.concatenate([[0], plain.category_ids])
  np.testing.assert_array_equal(categories[plain.index], expected['panoptic_category_mask'][0])
  assert segmentations['enlarged'].index.shape == enlarged.shape[:2]
