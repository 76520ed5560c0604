"""`fetch` against a server that does what servers do."""

import hashlib
import http.server
import os
import pathlib
import random
import re
import resource
import signal
import threading
import time
import urllib.error
import urllib.request

import pytest

from oanet_tf import files
from oanet_tf.downloads import fetch as module
from oanet_tf.downloads.fetch import fetch
from oanet_tf.errors import InputError

CONTENT = random.Random(0).randbytes(5000)


class Handler(http.server.BaseHTTPRequestHandler):
  def do_GET(self):
    server = self.server
    start = int(self.headers.get('Range', 'bytes=0-')[len('bytes=') : -1])
    server.starts.append(start)
    content = server.content
    if self.path == '/moved':
      self.send_response(302)
      self.send_header('Location', server.moved_to)
      self.end_headers()
      return
    if self.path != '/file':
      self.send_error(404)
      return
    if not server.knows_ranges:
      start = 0
    if start and start >= len(content):
      self.send_response(416)
      self.send_header('Content-Range', f'bytes */{len(content)}')
      self.end_headers()
      return
    self.send_response(206 if start else 200)
    if start:
      self.send_header('Content-Range', f'bytes {start}-{len(content) - 1}/{len(content)}')
    if server.tells_length:
      self.send_header('Content-Length', str(len(content) - start))
    self.end_headers()
    self.wfile.write(content[start : server.cut])
    server.when_sent()

  def log_message(self, *_):
    pass


@pytest.fixture
def server():
  """A server of one file, `/file`; its attributes say how it behaves."""
  with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler) as server:
    server.url = f'http://127.0.0.1:{server.server_port}/file'
    server.content, server.knows_ranges, server.tells_length = CONTENT, True, True
    server.cut, server.when_sent = None, lambda: None
    server.starts = []
    threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
    yield server
    server.shutdown()


@pytest.fixture
def path(tmp_path):
  return tmp_path / 'file.bin'


@pytest.fixture
def part(tmp_path):
  return tmp_path / 'file.bin.part'


def test_a_file_is_fetched_once(server, path, capsys):
  fetch(server.url, path)
  fetch(server.url, path)
  assert path.read_bytes() == CONTENT and server.starts == [0]
  assert list(path.parent.iterdir()) == [path]
  captured = capsys.readouterr()
  assert not captured.out and 'file.bin: 100%' in captured.err


def test_a_file_that_is_there_stays(server, path):
  path.write_text('mine')
  fetch(server.url, path, f'md5:{hashlib.md5(CONTENT).hexdigest()}')
  assert path.read_text() == 'mine' and not server.starts


def test_after_a_cut_the_rest_is_fetched(server, path, part):
  server.cut = 3000
  with pytest.raises(InputError, match=f'{server.url}: .*3000.*5000'):
    fetch(server.url, path)
  assert not path.exists() and part.read_bytes() == CONTENT[:3000]
  server.cut = None
  fetch(server.url, path)
  assert path.read_bytes() == CONTENT and server.starts == [0, 2999]
  assert not part.exists()


def test_a_server_without_ranges_sends_all_again(server, path, part):
  server.knows_ranges = False
  part.write_bytes(b'x' * 6000)
  fetch(server.url, path)
  assert path.read_bytes() == CONTENT and server.starts == [5999]


def test_a_part_that_is_whole_gets_its_name(server, path, part):
  part.write_bytes(CONTENT)
  fetch(server.url, path, f'md5:{hashlib.md5(CONTENT).hexdigest()}')
  assert path.read_bytes() == CONTENT and server.starts == [4999]


def test_a_part_that_is_too_long_is_fetched_anew(server, path, part):
  part.write_bytes(b'x' * 6000)
  fetch(server.url, path)
  assert path.read_bytes() == CONTENT and server.starts == [5999, 0]


def test_a_length_that_is_not_told_does_not_matter(server, path):
  server.tells_length = False
  fetch(server.url, path)
  assert path.read_bytes() == CONTENT


def test_an_empty_file_is_a_file(server, path):
  server.content = b''
  fetch(server.url, path)
  assert path.read_bytes() == b''


@pytest.mark.parametrize('algorithm', ['md5', 'sha256'])
def test_checksums_are_compared_as_far_as_they_are_known(server, path, part, algorithm):
  digits = hashlib.new(algorithm, CONTENT).hexdigest()
  wrong = digits[:5] + ('1' if digits[5] == '0' else '0')
  with pytest.raises(InputError, match=f'{part}: .*{digits[:6]}.*{wrong}.*{server.url}'):
    fetch(server.url, path, f'{algorithm}:{wrong}')
  assert not path.exists() and part.exists()
  fetch(server.url, path, f'{algorithm}:{digits[:6]}')
  assert path.read_bytes() == CONTENT


def test_what_is_not_there_leaves_nothing(server, path):
  url = f'{server.url}s'
  with pytest.raises(InputError, match=f'{url}: .*404'):
    fetch(url, path)
  assert not list(path.parent.iterdir())


def test_what_came_outlives_a_server_that_fails(server, path, part):
  part.write_bytes(CONTENT[:1000])
  with pytest.raises(InputError, match='404'):
    fetch(f'{server.url}s', path)
  assert part.read_bytes() == CONTENT[:1000]


@pytest.mark.parametrize('url', ['http://127.0.0.1:1/file', 'nowhere/file', 'http://a b/file'])
def test_what_cannot_be_reached_is_named(url, path):
  with pytest.raises(InputError, match=f'{url}: '):
    fetch(url, path)
  with pytest.raises(InputError, match=f'{url}: '):
    module.read(url)
  assert not list(path.parent.iterdir())


def test_a_server_that_falls_silent_is_left(server, path, part, monkeypatch):
  monkeypatch.setattr(module, '_PATIENCE', 0.2)
  is_left = threading.Event()
  server.cut, server.when_sent = 3000, is_left.wait
  with pytest.raises(InputError, match=f'{server.url}: .*timed out'):
    fetch(server.url, path)
  is_left.set()
  assert part.read_bytes() == CONTENT[:3000]


def test_an_interrupt_keeps_what_came(server, path, part):
  server.content, server.cut = random.Random(1).randbytes(10**6), 500_000
  is_left = threading.Event()

  def interrupt():
    deadline = time.monotonic() + 10
    while not part.stat().st_size and time.monotonic() < deadline:
      time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)
    is_left.wait()

  server.when_sent = interrupt
  with pytest.raises(KeyboardInterrupt):
    fetch(server.url, path)
  is_left.set()
  begun = part.read_bytes()
  assert begun and server.content.startswith(begun) and not path.exists()
  server.cut, server.when_sent = None, lambda: None
  fetch(server.url, path)
  assert path.read_bytes() == server.content and server.starts == [0, len(begun) - 1]


def test_a_full_disk_is_named_and_what_came_stays(server, path, part):
  server.content = random.Random(1).randbytes(3 * 10**6)
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (2 * 10**6, limits[1]))
  try:
    with pytest.raises(InputError, match=f'{server.url}: {part} .*too large'):
      fetch(server.url, path)
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  assert part.stat().st_size == 2 * 10**6
  fetch(server.url, path)
  assert path.read_bytes() == server.content and server.starts == [0, 2 * 10**6 - 1]


def test_a_folder_that_is_not_there_is_named(server, path):
  with pytest.raises(InputError, match=f'{path.parent}/nowhere/'):
    fetch(server.url, path.parent / 'nowhere' / path.name)


def test_two_at_once_do_not_write_the_same_file(server, path, part):
  part.write_bytes(CONTENT[:1000])
  with files.locked(part), pytest.raises(InputError, match=f'{part}: another process'):
    fetch(server.url, path)
  assert part.read_bytes() == CONTENT[:1000] and not server.starts
  fetch(server.url, path)
  assert path.read_bytes() == CONTENT


def test_a_mirror_is_named_by_the_environment(monkeypatch):
  monkeypatch.setenv('MODEL_URL', '')
  assert module.server('MODEL_URL', 'https://here.org') == 'https://here.org'
  monkeypatch.setenv('MODEL_URL', 'https://there.org/')
  assert module.server('MODEL_URL', 'https://here.org') == 'https://there.org'


def test_a_redirection_is_followed(server, path):
  server.moved_to = '/file'
  fetch(server.url.replace('/file', '/moved'), path)
  assert path.read_bytes() == CONTENT


@pytest.mark.parametrize('target', ['ftp://127.0.0.1/file', 'file:///etc/passwd'])
def test_a_redirection_to_no_web_server_is_not(server, path, target):
  server.moved_to = target
  with pytest.raises(InputError, match=r'/moved: '):
    fetch(server.url.replace('/file', '/moved'), path)
  assert not list(path.parent.iterdir())


@pytest.mark.parametrize(
  ('start', 'target', 'followed'),
  [
    ('https://a.org/x', 'https://b.org/x', True),
    ('https://a.org/x', 'http://a.org/x', False),
    ('http://a.org/x', 'https://a.org/x', True),
    ('http://a.org/x', 'http://b.org/x', True),
  ],
)
def test_no_redirection_leaves_https(start, target, followed):
  request = urllib.request.Request(start)
  arguments = (request, None, 302, 'Found', {}, target)
  if followed:
    assert module._Redirects().redirect_request(*arguments).full_url == target
  else:
    with pytest.raises(urllib.error.URLError, match=f'{target}, which is not to be trusted'):
      module._Redirects().redirect_request(*arguments)


def test_an_unknown_checksum_is_told(server, path, capsys):
  fetch(server.url, path)
  digest = hashlib.sha256(CONTENT).hexdigest()
  assert f'{server.url}: no checksum of it is published; got sha256 {digest}\n' in (
    capsys.readouterr().err
  )
  path.unlink()
  fetch(server.url, path, f'sha256:{digest}')
  assert 'no checksum' not in capsys.readouterr().err


def test_a_list_has_an_end(server, monkeypatch):
  assert module.read(server.url) == CONTENT
  monkeypatch.setattr(module, '_LONGEST_LIST', 4999)
  with pytest.raises(InputError, match='more than 4999 bytes'):
    module.read(server.url)


def test_all_publishers_are_asked_by_https():
  names = ('backbones', 'coco', 'published')
  folder = pathlib.Path(module.__file__).parent
  urls = [re.findall(r"'(https?)://", (folder / f'{name}.py').read_text()) for name in names]
  assert all(urls) and {scheme for found in urls for scheme in found} == {'https'}
