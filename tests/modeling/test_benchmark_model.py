import json
import pathlib
import sys

import pytest
import tensorflow as tf

from tests import end_to_end
from tests.scripts import benchmark_model, benchmark_model_tensorflow, benchmark_scaling

# Stands for a Python that has Detectron2 only if the checkout is on its path.
FAKE_PYTHON = f"""#!{sys.executable}
import json, os, sys
if not os.path.isdir(os.environ.get('PYTHONPATH', '') + '/detectron2'):
  sys.exit("Traceback\\nModuleNotFoundError: No module named 'detectron2'")
def answer(**values):
  print(json.dumps(values), flush=True)
if sys.argv[2:]:
  if json.loads(sys.argv[2])['batch'] == 5:
    sys.exit('five are too many')
  answer(imports=7, build=1, first=2, total=3)
  for _ in sys.stdin:
    answer(seconds=4)
  answer(peak_mb=50, gflop=60)
"""


@pytest.fixture
def peer(tmp_path):
  """The options that name the Python and the checkout."""
  (tmp_path / 'checkout' / 'detectron2').mkdir(parents=True)
  python = tmp_path / 'python'
  python.write_text(FAKE_PYTHON)
  python.chmod(0o755)
  checkout = str(tmp_path / 'checkout')
  return ['--detectron2_python', str(python), '--detectron2_checkout', checkout]


def gflop(function, *shapes):
  specs = [tf.TensorSpec(shape) for shape in shapes]
  concrete = tf.function(function, specs, autograph=False).get_concrete_function()
  return benchmark_model_tensorflow.gflop_of(concrete.graph, unknown=3)


def convolve(features, kernel):
  return tf.nn.conv2d(features, kernel, 2, 'SAME')


def test_two_for_each_multiplication():
  # 6 × 5 results of 7 channels, each of 3 × 3 × 4 products.
  of_one = 2 * 6 * 5 * 7 * 36 / 1e9
  shapes = ([1, 12, 10, 4], [3, 3, 4, 7])
  assert gflop(convolve, *shapes) == pytest.approx(of_one)
  assert gflop(tf.function(convolve, autograph=False), *shapes) == pytest.approx(of_one)
  assert gflop(convolve, [3, 12, 10, 4], [3, 3, 4, 7]) == pytest.approx(3 * of_one)
  assert gflop(convolve, [None, 12, 10, 4], [3, 3, 4, 7]) == pytest.approx(3 * of_one)
  assert (
    gflop(lambda a, b: tf.matmul(a, b, transpose_a=True), [4, 2], [4, 3]) == 2 * 2 * 3 * 4 / 1e9
  )
  assert gflop(tf.add, [5], [5]) == 0


def test_each_gradient_of_a_convolution_costs_what_it_costs():
  def gradients(features, kernel):
    with tf.GradientTape() as tape:
      tape.watch([features, kernel])
      loss = tf.reduce_sum(convolve(features, kernel) ** 2)
    return tape.gradient(loss, [features, kernel])

  shapes = ([1, 12, 10, 4], [3, 3, 4, 7])
  assert gflop(gradients, *shapes) == pytest.approx(3 * gflop(convolve, *shapes))


def test_what_nothing_needs_is_not_counted():
  def frozen(features, kernel):
    with tf.GradientTape() as tape:
      tape.watch([features, kernel])
      loss = tf.reduce_sum(convolve(features, kernel) ** 2)
    return tape.gradient(loss, features)

  shapes = ([1, 12, 10, 4], [3, 3, 4, 7])
  assert gflop(frozen, *shapes) == pytest.approx(2 * gflop(convolve, *shapes))


def test_contenders_take_turns():
  options = {'name': 'convolution', 'mode': 'infer', 'size': [64, 32], 'batch': 2}
  measured = benchmark_model.compare({'convolution': options}, rounds=3)
  benchmark_model.add_rates(measured)
  row = measured['convolution']
  assert row['gflop'] == pytest.approx(2 * 2 * 16 * 8 * 9 * 256 * 256 / 1e9)
  assert 0 < row['least'] <= row['step'] and row['share'] == 1
  assert row['peak_mb'] > 100


def test_what_is_frozen_is_compared_with_what_is_frozen():
  rows = {name: {'of': name} for name in benchmark_model.MODULES}

  def rivals(names):
    measured = {name: rows[name] for name in names}
    found = {name: benchmark_model.rival_of(name, measured) for name in names}
    return {name: ours['of'] for name, ours in found.items() if ours}

  assert rivals(['convolution', 'detectron2']) == {}
  assert rivals(['ours', 'ours_pairwise', 'detectron2', 'panoptic_fpn']) == {
    'ours_pairwise': 'ours',
    'detectron2': 'ours',
    'panoptic_fpn': 'ours',
  }
  assert rivals(['ours', 'ours_unfrozen', 'detectron2', 'detectron2_unfrozen', 'mask_rcnn']) == {
    'detectron2': 'ours',
    'detectron2_unfrozen': 'ours_unfrozen',
    'mask_rcnn': 'ours_unfrozen',
  }


def test_each_mode_has_its_contenders():
  names = list(benchmark_model.CONTENDERS)
  training = benchmark_model.contenders_of(names, 'train', [64, 32], 2, [50, 40])
  inference = benchmark_model.contenders_of(names, 'infer', [64, 32], 2, [50, 40])
  assert training.keys() - inference.keys() == {'ours_unfrozen', 'detectron2_unfrozen'}
  assert inference.keys() - training.keys() == {'ours_unfused'}
  assert {name for name, options in inference.items() if 'original' in options} == {
    'ours',
    'ours_bfloat16',
    'ours_pairwise',
    'ours_unfused',
    'detectron2',
  }
  assert all('original' not in options for options in training.values())


QUICK = ['--sizes', '64x32', '--rounds', '1', '--contenders', 'detectron2', '--modes', 'infer']


def test_detectron2_runs_in_its_own_python(tmp_path, capsys, peer):
  output = tmp_path / 'speed.json'
  benchmark_model.main([*QUICK, *peer, '--output', str(output)])
  row = json.loads(output.read_text())[0]['measured']['detectron2']
  expected = {'imports': 7, 'total': 3, 'step': 4, 'peak_mb': 50, 'gflop_per_second': 15}
  assert expected.items() <= row.items()
  # It traces nothing.
  line = capsys.readouterr().out.splitlines()[-1]
  assert line.split()[:7] == ['detectron2', '7.0', '1.0', '2.0', '3.0', '4.00', '4.00']


def test_why_detectron2_stopped(peer):
  found = benchmark_model.Peer(peer[1], pathlib.Path(peer[3]))
  with pytest.raises(SystemExit, match='five are too many'):
    benchmark_model.compare({'a': {'name': 'detectron2', 'batch': 5}}, rounds=1, peer=found)


@pytest.mark.parametrize(
  'python, reason',
  [
    ([], '--detectron2_python'),
    (['--detectron2_python', 'no/such/python'], 'no/such/python: No such file'),
    # Without the checkout.
    (None, "No module named 'detectron2'"),
  ],
)
def test_without_detectron2(monkeypatch, capsys, peer, python, reason):
  python = peer[:2] if python is None else python
  outcome = end_to_end.run_command(monkeypatch, capsys, benchmark_model.main, *QUICK, *python)
  assert reason in end_to_end.one_line_error(outcome)
  parsed = benchmark_model.parse(python)
  found = benchmark_model.Peer(parsed.detectron2_python, parsed.detectron2_checkout)
  assert benchmark_model.runnable(['ours', 'detectron2'], found) == ['ours']
  (line,) = capsys.readouterr().err.splitlines()
  assert line.startswith('skipped detectron2: ') and reason in line


def test_curves_are_drawn(tmp_path):
  of_side = {'step': 1.0, 'least': 0.9, 'gflop': 10.0, 'peak_mb': 100.0}
  found = {'infer pixels': {'256': of_side, '512': {**of_side, 'step': 4.0}}}
  benchmark_scaling.plot(found, tmp_path / 'curves.png')
  assert (tmp_path / 'curves.png').stat().st_size > 1000
