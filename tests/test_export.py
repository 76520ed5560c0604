import json
import subprocess
import sys
import types

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from oanet_tf import files
from oanet_tf.data.categories import PanopticCategories
from oanet_tf.data.class_prior import ClassPrior
from oanet_tf.errors import InputError
from oanet_tf.serving import formats, parity
from tests import end_to_end
from tests.commands import export
from tests.serving import requests
from tests.small_files import small_files


@pytest.fixture
def model_dir(trained):
  return trained[0] / 'model'


def run(monkeypatch, capsys, model_dir, export_dir, *more):
  return end_to_end.run_command(
    monkeypatch, capsys, export.main, '--model_dir', model_dir, '--export_dir', export_dir, *more
  )


def files_in(folder):
  return sorted(str(p.relative_to(folder)) for p in folder.rglob('*') if p.is_file())


@pytest.mark.slow
def test_writes_versions_of_a_saved_model(model_dir, tmp_path, monkeypatch, capsys):
  # TensorFlow takes such a path for a pattern.
  folder = tmp_path / 'lr[0.01]' / 'exports'
  with small_files(300_000):
    outcome = run(monkeypatch, capsys, model_dir, folder)
  assert f'{folder}/savedmodel/' in end_to_end.one_line_error(outcome)
  assert not any(tmp_path.iterdir())
  code, stdout, stderr = run(monkeypatch, capsys, model_dir, folder)
  assert code == 0 and 'exporting' in stderr
  header, _, row = stdout.splitlines()
  assert [cell.strip() for cell in header.split('|')] == [
    'format', 'version', 'MB', 'images', 'pixels', 'different', 'score difference',
  ]  # fmt: skip
  name, version, megabytes, *parity = (cell.strip() for cell in row.split('|'))
  assert [name, version, *parity] == ['savedmodel', '1', '3', '12288', '0', '0']
  assert files_in(folder) == ['export.json'] + [
    f'savedmodel/1/{name}'
    for name in (
      'assets.extra/tf_serving_warmup_requests', 'assets/categories.json', 'fingerprint.pb',
      'saved_model.pb', 'variables/variables.data-00000-of-00001', 'variables/variables.index',
    )
  ]  # fmt: skip
  size = sum(p.stat().st_size for p in (folder / 'savedmodel' / '1').rglob('*') if p.is_file())
  assert megabytes == f'{size / 1e6:.1f}'
  assert json.loads((folder / 'export.json').read_text()) == {
    'savedmodel/1': {
      'format': 'savedmodel',
      'version': 1,
      'bytes': size,
      'model_dir': str(model_dir),
      'fusion': 'srm',
      'precision': 'float32',
      'num_images': 3,
      'num_pixels': 12288,
      'different_pixels': 0,
      'same_pixels': 1.0,
      'score_difference': 0.0,
    }
  }


@pytest.mark.slow
@pytest.mark.parametrize(
  ('method', 'override'),
  [
    ('heuristic', 'task.model.fusion.stuff_area_by=component'),
    ('upsnet', 'task.model.sharing=backbone_and_fpn'),
    ('class_prior', 'task.model.fusion.class_prior={prior}'),
  ],
)
def test_every_fusion(trained, tmp_path, monkeypatch, capsys, method, override):
  """Each must give, bit for bit, what it gives in memory, or there is no export."""
  categories = PanopticCategories.from_json(trained[0] / 'model' / 'categories.json')
  pixels = np.random.default_rng(0).integers(0, 1000, [categories.num_things] * 2)
  ClassPrior(categories, pixels).to_json(tmp_path / 'prior.json')
  # After a few steps of training nothing is certain.
  override = override.format(prior=tmp_path / 'prior.json')
  override += ',task.model.fusion.score_threshold=0.02,task.model.fusion.mask_threshold=0.2'
  flags = ['--fusion', method, '--params_override', override]
  code, *_ = run(monkeypatch, capsys, trained[0] / 'model', tmp_path, *flags)
  assert code == 0
  assert formats.read_record(tmp_path)['savedmodel/1']['fusion'] == method


@pytest.mark.slow
def test_a_saved_model_in_bfloat16(trained, tmp_path, monkeypatch, capsys, caplog):
  with caplog.at_level('INFO', 'oanet_tf'):
    code, *_ = run(monkeypatch, capsys, trained[0] / 'model', tmp_path, '--precision', 'bfloat16')
  assert code == 0
  assert 'in bfloat16' in caplog.text
  assert formats.read_record(tmp_path)['savedmodel/1']['precision'] == 'bfloat16'
  graph = tf.saved_model.load(tmp_path / 'savedmodel' / '1').signatures['serving_default'].graph
  kinds = {
    node.attr['T'].type
    for function in graph.as_graph_def().library.function
    for node in function.node_def
    if node.op == 'Conv2D'
  }
  assert kinds == {tf.bfloat16.as_datatype_enum, tf.float32.as_datatype_enum}


def test_a_precision_is_for_a_saved_model(model_dir, tmp_path, monkeypatch, capsys):
  formats_given = ['--formats', 'savedmodel,tflite_float16', '--precision', 'auto']
  outcome = run(monkeypatch, capsys, model_dir, tmp_path / 'exports', *formats_given)
  assert 'tflite_float16' in end_to_end.one_line_error(outcome)
  with pytest.raises(InputError, match='float64'):
    export.export(model_dir, tmp_path / 'exports', precision='float64')
  assert not any(tmp_path.iterdir())


def test_a_copy_of_litert_js_is_for_a_page(model_dir, tmp_path, monkeypatch, capsys):
  output = tmp_path / 'exports'
  outcome = run(monkeypatch, capsys, model_dir, output, '--offline', 'node_modules')
  assert 'web' in end_to_end.one_line_error(outcome)
  given = ['--formats', 'web', '--offline', str(tmp_path / 'none.tgz')]
  outcome = run(monkeypatch, capsys, model_dir, output, *given)
  assert 'none.tgz: does not exist' in end_to_end.one_line_error(outcome)
  given = ['--formats', 'savedmodel,web', '--fusion', 'upsnet']
  outcome = run(monkeypatch, capsys, model_dir, output, *given)
  assert 'heuristic or srm, not by upsnet' in end_to_end.one_line_error(outcome)
  assert not any(tmp_path.iterdir())


@pytest.fixture
def source(monkeypatch):
  """Of the formats of `tests.serving.formats`, which look at no network."""
  for name in ('GOOD', 'OTHER_PIXELS', 'OTHER_SCORES', 'NO_NUMBERS', 'INTERRUPTED'):
    monkeypatch.setitem(formats.FORMATS, name.lower(), f'tests.serving.formats:{name}')
  monkeypatch.setattr(parity.Source, 'precision', 'float32')
  folder = types.SimpleNamespace(path='runs/model')
  return parity.Source(folder, None, 'srm', *[None] * 4)


def test_the_next_version_and_a_given_one(source, tmp_path):
  for version in (None, 7, None):
    formats.export('good', source, formats.version_folder(tmp_path / 'good', version))
  assert sorted(p.name for p in (tmp_path / 'good').iterdir()) == ['1', '7', '8']
  assert list(formats.read_record(tmp_path)) == ['good/1', 'good/7', 'good/8']
  with pytest.raises(InputError, match=r'good/7: .*--version'):
    formats.version_folder(tmp_path / 'good', 7)


@pytest.mark.parametrize(
  ('name', 'message'),
  [
    ('other_pixels', r'other_pixels/1: .*: 20 of 1000 pixels .* a\.png \(at most 1\.00%'),
    ('other_scores', r'score .*0\.2 in b\.png \(at most 0\.1'),
    ('no_numbers', 'score .*nan'),
  ],
)
def test_of_an_export_with_other_results_nothing_is_left(source, tmp_path, name, message):
  with pytest.raises(InputError, match=message):
    formats.export(name, source, tmp_path / name / '1')
  assert not list(tmp_path.iterdir())


def test_of_an_export_that_is_interrupted_nothing_is_left(source, tmp_path):
  formats.export('good', source, tmp_path / 'good' / '1')
  before = files_in(tmp_path)
  with pytest.raises(KeyboardInterrupt):
    formats.export('interrupted', source, tmp_path / 'interrupted' / '1')
  assert files_in(tmp_path) == before and not (tmp_path / 'interrupted').exists()


def test_of_an_export_that_cannot_be_recorded_nothing_is_left(source, tmp_path):
  for version in range(1, 10):
    formats.export('good', source, tmp_path / 'good' / str(version))
  before = files_in(tmp_path)
  # Enough for the export, but not for the tenth entry.
  refused = pytest.raises(InputError, match=r'export\.json: cannot be written')
  with small_files((tmp_path / 'export.json').stat().st_size), refused:
    formats.export('good', source, tmp_path / 'good' / '10')
  assert files_in(tmp_path) == before and len(formats.read_record(tmp_path)) == 9


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (['--formats', 'savedmodel,onnx'], "'onnx'"),
    (['--version', '0'], "--version: '0'"),
    (['--image_size', '480'], '--image_size'),
    (['--image_size', '99999999', '64'], '--image_size 99999999 64'),
    (['--version', str(2**63)], f'--version {2**63}'),
    (['--fusion', 'best'], "'best'"),
    (['--fusion', 'oracle'], 'fusion oracle'),
    (['--images', 'none.png'], 'none.png'),
    (['--params_override', 'task.model.fusion.mehtod=srm'], 'task.model.fusion.method?'),
    (
      ['--params_override', 'task.validation_data.input_path=none-*'],
      '--images',
    ),
  ],
)
def test_bad_arguments_are_told_before_tensorflow_loads(model_dir, tmp_path, flags, message):
  command = [sys.executable, '-X', 'importtime', '-m', 'oanet_tf.export']
  command += ['--model_dir', str(model_dir), '--export_dir', str(tmp_path / 'exports'), *flags]
  done = subprocess.run(command, capture_output=True, text=True)
  assert done.returncode == 2
  assert 'tensorflow' not in done.stderr.partition('error: ')[0]
  assert message in done.stderr.partition('error: ')[2].splitlines()[0]
  assert not (tmp_path / 'exports').exists()


def test_help_does_without_tensorflow():
  command = [sys.executable, '-X', 'importtime', '-m', 'oanet_tf.export', '--help']
  done = subprocess.run(command, capture_output=True, text=True)
  assert done.returncode == 0 and '--formats NAME,…' in done.stdout
  assert 'tensorflow' not in done.stderr


def test_a_folder_that_is_no_model(tmp_path, monkeypatch, capsys):
  outcome = run(monkeypatch, capsys, tmp_path, tmp_path / 'exports')
  assert 'params.yaml' in end_to_end.one_line_error(outcome)


def test_a_broken_record_is_told_before_anything_is_done(model_dir, tmp_path, monkeypatch, capsys):
  (tmp_path / 'export.json').write_text('{')
  outcome = run(monkeypatch, capsys, model_dir, tmp_path)
  assert 'export.json: ' in end_to_end.one_line_error(outcome)
  assert files_in(tmp_path) == ['export.json']


def test_an_export_folder_that_is_a_file(model_dir, tmp_path, monkeypatch, capsys):
  (tmp_path / 'file').write_text('')
  Image.fromarray(requests.rectangles(20, 30)).save(tmp_path / 'picture.png')
  flags = ['--images', tmp_path / 'picture.png']
  outcome = run(monkeypatch, capsys, model_dir, tmp_path / 'file', *flags)
  assert f'{tmp_path}/file: ' in end_to_end.one_line_error(outcome)
  for folder in (model_dir, tmp_path):
    outcome = run(monkeypatch, capsys, model_dir, folder, *flags)
    assert f'{folder}: ' in end_to_end.one_line_error(outcome)


def test_a_second_export_into_a_folder_is_refused(model_dir, tmp_path, monkeypatch, capsys):
  with files.only_one(tmp_path, 'export'):
    outcome = run(monkeypatch, capsys, model_dir, tmp_path)
  assert f'{tmp_path}: another export' in end_to_end.one_line_error(outcome)
  assert files_in(tmp_path) == []
