"""Serves a page to browsers of this machine."""

import http.server
import pathlib
from http import HTTPStatus
from typing import Any

from oanet_tf.errors import InputError

HOST = '127.0.0.1'
# The systems' own tables are not to be relied on.
_TYPES = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.json': 'application/json',
  '.wasm': 'application/wasm',
}
_HEADERS = {
  # These two isolate the page, so that LiteRT.js may use several threads.
  'Cross-Origin-Opener-Policy': 'same-origin',
  'Cross-Origin-Embedder-Policy': 'require-corp',
  'Cache-Control': 'no-store',
  'X-Content-Type-Options': 'nosniff',
}


def server(folder: pathlib.Path, port: int = 0) -> http.server.ThreadingHTTPServer:
  """A server of a folder's files at `HOST`; `serve_forever` runs it.

  Args:
    folder: with the page.
    port: 0 for any that is free.

  Raises:
    InputError: if the port cannot be used.
  """

  class Handler(http.server.SimpleHTTPRequestHandler):
    def __init__(self, *arguments: Any) -> None:
      super().__init__(*arguments, directory=str(folder))

    def guess_type(self, path: Any) -> str:
      return _TYPES.get(pathlib.Path(path).suffix) or super().guess_type(path)

    def send_head(self) -> Any:
      # A name of another site that leads here is not for its scripts.
      if self.headers.get('Host', '').partition(':')[0] not in (HOST, 'localhost'):
        self.send_error(HTTPStatus.FORBIDDEN)
        return None
      return super().send_head()

    def list_directory(self, path: Any) -> None:
      self.send_error(HTTPStatus.NOT_FOUND)

    def end_headers(self) -> None:
      for name, value in _HEADERS.items():
        self.send_header(name, value)
      super().end_headers()

    def log_message(self, *arguments: Any) -> None:
      """Nothing: the terminal is for errors."""

  try:
    return http.server.ThreadingHTTPServer((HOST, port), Handler)
  except (OSError, OverflowError) as error:
    fact = getattr(error, 'strerror', None) or str(error)
    raise InputError(f'port {port} cannot be used ({fact}); give another --port, or none') from None
