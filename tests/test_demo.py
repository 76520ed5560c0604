"""`oanet demo`: which model it takes, and what it serves."""

import http.client
import json
import shutil
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request

import pytest

from oanet_tf import demo
from oanet_tf.errors import InputError
from oanet_tf.prediction.model import SHIPPED_MODEL
from oanet_tf.serving import page_server
from oanet_tf.serving.tflite_archive import checksum, with_files
from tests.commands import run_without_tensorflow


@pytest.mark.parametrize(
  ('folders', 'given', 'found'),
  [
    (['a'], 'a/model.tflite', 'a/model.tflite'),
    (['a'], 'a', 'a/model.tflite'),
    (['web/2', 'web/10', 'web/x'], 'web', 'web/10/model.tflite'),
    (['exports/web/3', 'exports/tflite_int8/9'], 'exports', 'exports/web/3/model.tflite'),
  ],
)
def test_the_model_is_found(tmp_path, folders, given, found):
  for folder in folders:
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / folder / 'model.tflite').touch()
  assert demo.find_page_model(tmp_path / given) == tmp_path / found


@pytest.mark.parametrize('name', ['none', 'empty'])
def test_no_model(tmp_path, name):
  (tmp_path / 'empty').mkdir()
  with pytest.raises(InputError, match=rf'{name}: .*oanet export --formats web'):
    demo.find_page_model(tmp_path / name)


def test_a_file_for_other_programs_is_refused(tmp_path):
  path = tmp_path / 'model.tflite'
  model = b'\0\0\0\0TFL3'
  description = {'sha256': checksum(model), 'format': 'tflite_int8'}
  path.write_bytes(with_files(model, {'model.json': json.dumps(description).encode()}))
  with pytest.raises(InputError, match=r'is a tflite_int8 for other programs'):
    demo.make_page(tmp_path, path)


def test_a_page_of_the_shipped_network(tmp_path):
  demo.make_page(tmp_path, None)
  names = {path.name for path in tmp_path.iterdir()}
  assert {'index.html', 'demo.js', 'model.tflite', 'merge.tflite', 'model.json'} < names
  assert sum(name.endswith('.jpg') for name in names) == 2
  assert demo.SHIPPED_NOTE in (tmp_path / 'index.html').read_text()


def test_a_copy_of_litert_js_beside_the_model_is_taken(tmp_path):
  export, made = tmp_path / 'export', tmp_path / 'made'
  (export / 'litert').mkdir(parents=True)
  made.mkdir()
  shutil.copy(SHIPPED_MODEL, export / 'model.tflite')
  demo.make_page(made, export / 'model.tflite')
  text = (made / 'index.html').read_text()
  assert 'cdn' not in text and (made / 'litert').is_dir()
  assert demo.SHIPPED_NOTE not in text


@pytest.fixture
def served(tmp_path):
  (tmp_path / 'index.html').write_text('page')
  (tmp_path / 'a.wasm').write_bytes(b'\0asm')
  with page_server.server(tmp_path) as server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()


def test_what_the_server_says(served):
  url = f'http://127.0.0.1:{served}'
  with urllib.request.urlopen(url) as answer:
    assert answer.read() == b'page'
    assert answer.headers['Cross-Origin-Embedder-Policy'] == 'require-corp'
    assert answer.headers['Cross-Origin-Opener-Policy'] == 'same-origin'
  with urllib.request.urlopen(f'{url}/a.wasm') as answer:
    assert answer.headers['Content-Type'] == 'application/wasm'
  with pytest.raises(urllib.error.HTTPError, match='404'):
    urllib.request.urlopen(f'{url}/../test_demo.py')


def test_names_that_others_let_lead_here_are_refused(served):
  connection = http.client.HTTPConnection('127.0.0.1', served)
  connection.request('GET', '/', headers={'Host': 'evil.example'})
  assert connection.getresponse().status == 403
  connection.close()


def test_a_port_that_is_taken(served, tmp_path):
  for port in (served, 70_000, -1):
    with pytest.raises(InputError, match=rf'port {port} cannot be used'):
      page_server.server(tmp_path, port)


def test_help_loads_nothing_large():
  done = run_without_tensorflow('oanet_tf.demo', '--help')
  assert done.returncode == 0 and '--offline' in done.stdout


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_until_it_is_stopped(number):
  command = [sys.executable, '-m', 'oanet_tf.demo', '--no_browser']
  with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as demo:
    url = demo.stdout.readline().strip()
    with urllib.request.urlopen(f'{url}model.json') as answer:
      assert b'"fusions"' in answer.read()
    demo.send_signal(number)
    _, errors = demo.communicate(timeout=20)
  assert demo.returncode == (0 if number == signal.SIGINT else 143)
  assert 'Traceback' not in errors


def test_a_wrong_model_ends_in_one_line(tmp_path):
  command = [sys.executable, '-m', 'oanet_tf.demo', '--model', str(tmp_path)]
  done = subprocess.run(command, capture_output=True, text=True)
  assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
