import io
import json

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests import end_to_end
from tests.scripts import benchmark_serving
from tests.serving.requests import rectangles

Request = benchmark_serving.Request


@pytest.mark.slow
def test_answers_and_errors_are_right_under_load(served, tmp_path, monkeypatch, capsys):
  path = tmp_path / 'load.json'
  code, stdout, _ = end_to_end.run_command(
    monkeypatch, capsys, benchmark_serving.main, '--model', served.folder, '--threads', 2, 5,
    '--requests', 40, '--sides', 16, 90, '--broken', 0.05, '--output', path,
  )  # fmt: skip
  assert code == 0
  loads = json.loads(path.read_text())
  assert [load['threads'] for load in loads] == [2, 5]
  for load, line in zip(loads, stdout.splitlines()[2:], strict=True):
    assert (load['answered_right'], load['named_right']) == (38, 2)
    assert 0 < load['p50'] <= load['p99'] and load['requests_per_second'] > 0
    assert load['largest_memory'] >= load['memory_at_the_end'] > 100
    assert [int(line.split('|')[column]) for column in (0, 4, 5)] == [load['threads'], 38, 2]


def test_every_kind_of_broken_request_is_named(served, monkeypatch):
  # It is loaded already.
  monkeypatch.setattr(tf.saved_model, 'load', {str(served.folder): served}.get)
  server = benchmark_serving.load_server(served.folder)
  picture = Image.fromarray(rectangles(40, 60))
  good = benchmark_serving.good_requests(picture, (20, 50), np.random.default_rng(0))
  broken = benchmark_serving.broken_requests(good[1].value[0])
  for request in broken:
    benchmark_serving.check(request, server(request), None)


def test_hostile_pictures_are_what_they_are_said_to_be():
  """Those that are refused are so for their headers alone."""
  image = Image.fromarray(rectangles(40, 60))
  requests = benchmark_serving.costly_requests(image)
  for name in ('black PNG of 512 x 65536', 'black PNG with opacity'):
    picture = Image.open(io.BytesIO(requests[name].value[0]))
    assert picture.width * picture.height <= 2**25 and not any(picture.getpixel((3, 3))[:3])
  assert len(requests['black PNG'].value[0]) < 150_000
  assert requests['pixels'].value().nbytes / 3 <= 2**25


@pytest.mark.slow
def test_each_kind_of_request_is_sent_to_a_new_process(served, tmp_path, monkeypatch, capsys):
  png = benchmark_serving.black_png
  requests = {
    'small': Request('serving_bytes', [png(30, 40)]),
    'thin': Request('serving_bytes', [png(1, 8192), png(8192, 1)]),
  }
  monkeypatch.setattr(benchmark_serving, 'costly_requests', lambda _: requests)
  path = tmp_path / 'sizes.json'
  code, stdout, _ = end_to_end.run_command(
    monkeypatch, capsys, benchmark_serving.main, '--model', served.folder, '--sizes',
    '--output', path,
  )  # fmt: skip
  assert code == 0
  small, thin = json.loads(path.read_text())
  assert (small['answer'], thin['answer']) == ('segments', 'refused')
  assert small['bytes'] == len(png(30, 40)) and thin['largest_memory'] > 100
  assert len(stdout.splitlines()) == 3


ANSWER = {'mask': np.array([[1, 2]]), 'label': np.array([b'sky', b''], object)}
DIGESTS = benchmark_serving.digests(ANSWER)


@pytest.mark.parametrize(
  ('request_', 'answer'),
  [
    (Request('serving_default', None), {**ANSWER, 'mask': np.array([[1, 3]])}),
    (Request('serving_default', None), {**ANSWER, 'mask': np.array([1, 2])}),
    (Request('serving_default', None), {**ANSWER, 'label': np.array([b'sea', b''], object)}),
    (Request('serving_default', None), {}),
    (Request('serving_default', None), 'an error'),
    (Request('serving_bytes', None, 'image 1 of the batch'), 'image 0 of the batch'),
    (Request('serving_bytes', None, 'image 1 of the batch'), ANSWER),
  ],
)
def test_a_wrong_answer_does_not_pass(request_, answer):
  with pytest.raises(AssertionError):
    benchmark_serving.check(request_, answer, DIGESTS)
  with pytest.raises(AssertionError):
    benchmark_serving.run(lambda _: answer, [request_], [DIGESTS], threads=2)


def test_a_right_answer_passes():
  copy = {name: value.copy() for name, value in ANSWER.items()}
  benchmark_serving.check(Request('serving_default', None), copy, DIGESTS)


def test_a_folder_that_is_no_model(tmp_path, monkeypatch, capsys):
  outcome = end_to_end.run_command(monkeypatch, capsys, benchmark_serving.main, '--model', tmp_path)
  assert 'saved_model.pb' in end_to_end.one_line_error(outcome)
