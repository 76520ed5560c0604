"""A server of our own in place of a publisher's."""

import contextlib
import functools
import http.server
import os
import pathlib
import subprocess
import threading
from typing import ClassVar

SCRIPTS = pathlib.Path(__file__).parents[1] / 'scripts'


class Mirror(http.server.SimpleHTTPRequestHandler):
  """Serves a folder and the rest of a file; notes where downloads began."""

  starts: ClassVar[list] = []

  def do_GET(self):
    path = pathlib.Path(self.translate_path(self.path))
    if not path.is_file():
      self.send_error(404)
      return
    content = path.read_bytes()
    start = int(self.headers.get('Range', 'bytes=0-')[len('bytes=') : -1])
    self.starts.append(start)
    self.send_response(206 if start else 200)
    self.send_header('Content-Range', f'bytes {start}-{len(content) - 1}/{len(content)}')
    self.send_header('Content-Length', str(len(content) - start))
    self.end_headers()
    self.wfile.write(content[start:])

  def log_message(self, *_):
    pass


@contextlib.contextmanager
def serving(folder):
  """Yields the address of a mirror of a folder."""
  handler = functools.partial(Mirror, directory=folder)
  server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
  threading.Thread(target=server.serve_forever, daemon=True).start()
  try:
    yield f'http://127.0.0.1:{server.server_port}'
  finally:
    server.shutdown()
    server.server_close()


def run_script(name, *arguments, cwd, **environment):
  """Runs a script of `scripts/`, with variables of the environment."""
  return subprocess.run(
    ['bash', SCRIPTS / name, *arguments],
    env={**os.environ, **environment},
    cwd=cwd,
    capture_output=True,
    text=True,
  )
