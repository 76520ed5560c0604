import pytest

from oanet_tf.serving import tflite
from tests import end_to_end
from tests.scripts import benchmark_tflite


def test_a_folder_without_a_model_is_named(tmp_path, monkeypatch, capsys):
  outcome = end_to_end.run_command(
    monkeypatch, capsys, benchmark_tflite.main, '--model_dir', tmp_path
  )
  message = end_to_end.one_line_error(outcome)
  assert str(tmp_path) in message and 'params.yaml' in message


def test_ratios_are_to_the_float32_file_and_losses_to_the_network_in_memory(capsys):
  figures = dict.fromkeys(
    ('bytes', 'median', 'least', 'pq', 'pq_things', 'pq_stuff'), 10.0
  )  # fmt: skip
  benchmark_tflite.print_table(
    {
      'in memory': {**figures, 'pq': 70.5, 'bytes': 0},
      'tflite_float32': {**figures, 'bytes': 12e6},
      'tflite_int8': {**figures, 'bytes': 3e6, 'median': 4.0, 'pq': 69.25},
    }
  )
  *_, row = capsys.readouterr().out.splitlines()
  # MB, share; milliseconds, quicker; PQ, loss.
  cells = row.replace('|', ' ').split()
  assert cells == ['tflite_int8', '3.0', '0.25', '4.0', '10.0', '2.50', '69.25', '1.25',
                   '10.00', '10.00']  # fmt: skip


@pytest.mark.slow
def test_measures_all_formats(trained, monkeypatch, capsys):
  # Of a network that has hardly learnt anything.
  for name in ('DYNAMIC', 'INT8'):
    monkeypatch.setattr(tflite, name, getattr(tflite, name)._replace(least_same_pixels=0.0))
  figures = benchmark_tflite.measure(trained[0] / 'model')
  assert list(figures) == ['in memory', *benchmark_tflite.FORMATS]
  assert all(0 < of_name['least'] <= of_name['median'] for of_name in figures.values())
  in_memory = figures['in memory']
  assert in_memory['pq'] == pytest.approx(100 * trained[1]['srm']['All']['pq'])
  assert figures['tflite_float32']['pq'] == pytest.approx(in_memory['pq'], abs=0.1)
  benchmark_tflite.print_table(figures)
  rows = capsys.readouterr().out.splitlines()[-5:]
  assert [row.split('|')[0].strip() for row in rows] == list(figures)
