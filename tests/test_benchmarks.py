"""All benchmarks: they answer at once to --help, and the quick ones run on next to nothing."""

import json
import subprocess
import sys

import numpy as np
import pytest
from absl import flags

from oanet_tf.data.panoptic_map import Segments
from oanet_tf.evaluation.coco_results import PanopticResultsWriter
from tests import end_to_end, references, scripts
from tests.data.coco_files import CocoFiles

# `benchmark_model.py` starts its worker, and gives it all that it needs.
COMMANDS = sorted(
  path
  for path in scripts.SCRIPTS.glob('benchmark_*.py')
  if 'argparse' in path.read_text() and not path.stem.endswith('_worker')
)


def test_all_are_known():
  names = ['convert', 'fusion', 'input', 'model', 'page', 'pq']
  names += ['scaling', 'serving', 'start', 'tflite']
  assert [path.stem.removeprefix('benchmark_') for path in COMMANDS] == names


@pytest.mark.parametrize('path', COMMANDS, ids=lambda path: path.stem)
def test_help_answers_without_tensorflow(path):
  command = [sys.executable, '-X', 'importtime', path, '--help']
  done = subprocess.run(command, capture_output=True, text=True, timeout=20)
  assert done.returncode == 0 and '--output' in done.stdout
  assert 'tensorflow' not in done.stderr


@pytest.fixture
def parsed_flags():
  """The Model Garden's converter reads absl's flags, which other tests expect unparsed."""
  was_parsed = flags.FLAGS.is_parsed()
  yield
  if not was_parsed:
    flags.FLAGS.unparse_flags()


def measured(benchmark, folder, capsys, *arguments):
  """-> what a benchmark writes, and the lines that it prints."""
  path = folder / 'measured.json'
  benchmark.main([*map(str, arguments), '--output', str(path), '--rounds', '1'])
  return json.loads(path.read_text()), capsys.readouterr().out.splitlines()


@pytest.mark.usefixtures('parsed_flags')
def test_convert(tmp_path, capsys):
  paths = CocoFiles(tmp_path / 'coco').write()
  arguments = [part for key, path in paths.items() for part in (f'--{key}', path)]
  results, lines = measured(scripts.benchmark_convert, tmp_path, capsys, *arguments)
  assert list(results) == ['model_garden', 'cropped', 'full_png']
  assert all(value > 0 for result in results.values() for value in result.values())
  assert lines[0].startswith('2 images')
  # The Model Garden's own ratios to itself.
  assert lines[2].split()[2::2] == ['1.00', '1.00']


def test_fusion(tmp_path, capsys):
  references.panopticapi('evaluation')
  size = ('--height', 96, '--width', 128, '--instances', 5)
  times, lines = measured(scripts.benchmark_fusion, tmp_path, capsys, *size)
  benchmark = scripts.benchmark_fusion
  names = [*benchmark.METHODS, *benchmark.PARTS, 'input of panopticapi', 'panopticapi']
  assert list(times) == names
  assert all(0 < of_name['least'] <= of_name['median'] for of_name in times.values())
  assert lines[0].startswith('5 instances, 128 × 96, ')
  assert [line[:20].strip() for line in lines[2:-1]] == names


def test_pq(tmp_path, capsys, categories):
  references.panopticapi('evaluation')
  segment_map = np.ones([40, 50], np.int32)
  segment_map[5:30, 10:40] = 2
  image = Segments(
    segment_map, np.array([1, 2], np.int32), np.array([92, 7], np.int32), np.zeros(2, bool)
  )
  with PanopticResultsWriter(tmp_path, 'truth', categories) as writer:
    for image_id in (1, 2):
      writer.write(image_id, f'{image_id}.jpg', image)
  arguments = ('--gt_json', tmp_path / 'truth.json', '--num_images', 5)
  results, lines = measured(scripts.benchmark_pq, tmp_path, capsys, *arguments)
  assert list(results) == ['panopticapi', 'oanet_tf', 'hotcoco']
  assert all(value > 0 for result in results.values() for value in result.values())
  assert lines[0].startswith('5 images')
  assert lines[2].split()[2] == '1.00'
  # The largest difference of a score.
  assert float(lines[-1].split()[-1]) < 1e-9


@pytest.mark.parametrize('name', ['fusion', 'pq'])
def test_panopticapi_is_needed(monkeypatch, capsys, name):
  monkeypatch.setitem(sys.modules, 'panopticapi', None)
  benchmark = getattr(scripts, f'benchmark_{name}')
  outcome = end_to_end.run_command(monkeypatch, capsys, benchmark.main)
  assert 'panopticapi-lite' in end_to_end.one_line_error(outcome)


def test_predictions_need_a_ground_truth(monkeypatch, capsys):
  outcome = end_to_end.run_command(
    monkeypatch, capsys, scripts.benchmark_pq.main, '--pred_json', 'a.json'
  )
  assert '--gt_json' in end_to_end.one_line_error(outcome)


def test_the_way_to_the_first_overlay(tmp_path, monkeypatch, capsys):
  output = tmp_path / 'start.json'
  code, stdout, _ = end_to_end.run_command(
    monkeypatch, capsys, scripts.benchmark_start.main, '--rounds', 1, '--output', output
  )
  assert code == 0 and 'shipped network | ' in stdout
  (columns,) = json.loads(output.read_text()).values()
  imported, loaded, end = (columns[name][0] for name in ('imported_s', 'loaded_s', 'overlay_s'))
  assert 0 < imported < loaded < end and columns['peak_mb'][0] > 10
  outcome = end_to_end.run_command(
    monkeypatch, capsys, scripts.benchmark_start.main, '--rounds', 1, '--models', tmp_path / 'none'
  )
  assert str(tmp_path / 'none') in end_to_end.one_line_error(outcome)
