import pytest
import tensorflow as tf

from tests.scripts import benchmark_model, benchmark_scaling


def gflop(function, *shapes):
  specs = [tf.TensorSpec(shape) for shape in shapes]
  concrete = tf.function(function, specs, autograph=False).get_concrete_function()
  return benchmark_model.gflop_of(concrete.graph, unknown=3)


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


def test_contenders_take_turns():
  options = {'name': 'convolution', 'mode': 'infer', 'size': [64, 32], 'batch': 2}
  measured = benchmark_model.compare({'convolution': options}, rounds=3)
  benchmark_model.add_rates(measured)
  row = measured['convolution']
  assert row['gflop'] == pytest.approx(2 * 2 * 16 * 8 * 9 * 256 * 256 / 1e9)
  assert 0 < row['least'] <= row['step'] and row['share'] == 1
  assert row['peak_mb'] > 100


def test_curves_are_drawn(tmp_path):
  of_side = {'step': 1.0, 'least': 0.9, 'gflop': 10.0, 'peak_mb': 100.0}
  found = {'infer pixels': {'256': of_side, '512': {**of_side, 'step': 4.0}}}
  benchmark_scaling.plot(found, tmp_path / 'curves.png')
  assert (tmp_path / 'curves.png').stat().st_size > 1000
