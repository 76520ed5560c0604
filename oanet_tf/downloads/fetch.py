"""Fetches files, and goes on where an earlier attempt stopped."""

import contextlib
import hashlib
import http.client
import os
import pathlib
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from email.message import Message
from typing import Any

import tqdm

from oanet_tf import files
from oanet_tf.errors import InputError
from oanet_tf.printing import note, shown

_BLOCK = 2**16  # Bytes.
_PATIENCE = 60  # Seconds without a byte.
_LONGEST_LIST = 2**24  # Bytes.


class _Redirects(urllib.request.HTTPRedirectHandler):
  """Follows no redirection that leaves HTTPS, or leads to other than a web server."""

  def redirect_request(
    self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Message, newurl: str
  ) -> urllib.request.Request | None:
    scheme = urllib.parse.urlsplit(newurl).scheme
    if scheme not in ('http', 'https') or (req.type == 'https' and scheme == 'http'):
      raise urllib.error.URLError(f'it redirects to {newurl}, which is not to be trusted')
    return super().redirect_request(req, fp, code, msg, headers, newurl)


def server(variable: str, default: str) -> str:
  """The address of the mirror that a variable of the environment names, or the default."""
  return (os.environ.get(variable) or default).rstrip('/')


def read(url: str) -> bytes:
  """What a URL, such as a list of files, answers.

  Raises:
    InputError: if it cannot be had; it names the URL.
  """
  with _asking(url), _open(url) as response:
    content = response.read(_LONGEST_LIST + 1)
  if len(content) > _LONGEST_LIST:
    raise InputError(f'{url}: answers more than {_LONGEST_LIST} bytes; name another mirror')
  return content


def fetch(url: str, path: pathlib.Path, checksum: str = '') -> None:
  """Fetches a file, with a progress bar, unless it is there already.

  What has come is kept as `path` with `.part` behind it, whatever happens; the next call asks for
  the rest. The file gets its name when it is whole.

  Args:
    url: http or https; proxies are those of the environment.
    path: in a folder that exists.
    checksum: as 'md5:0123ab', with some or all of the first digits; '' if none is known.

  Raises:
    InputError: if the URL cannot be had, fewer bytes come than the server promised, the checksum is
      another one, the file cannot be written, or another process is fetching it.
  """
  if path.is_file():
    return
  part = path.with_name(f'{path.name}.part')
  with files.locked(part) as lock:
    if lock is None:
      raise InputError(f'{part}: another process is fetching it; wait until it ends')
    try:
      if not path.is_file():  # The other process may just have ended.
        _complete(url, part)
        _check(url, part, checksum)
        os.replace(part, path)
    except OSError as error:
      raise InputError(
        f'{url}: {part} cannot be written ({error.strerror}); once that is mended, start again to '
        'continue'
      ) from None
    finally:
      if part.is_file() and not part.stat().st_size:
        part.unlink()


def _complete(url: str, part: pathlib.Path) -> None:
  """Fetches what a file lacks."""
  # The last byte is asked for again: servers refuse the empty range behind a file that is whole.
  wanted = max(part.stat().st_size - 1, 0)
  with contextlib.ExitStack() as stack:
    with _asking(url):
      response = stack.enter_context(_open(url, wanted))
      start, total = _extent(response.headers)
    file = stack.enter_context(part.open('r+b'))
    file.seek(start)
    file.truncate()
    bar = stack.enter_context(_progress(part.stem, start, total))
    while True:
      with _asking(url):
        block = response.read1(_BLOCK)
      if not block:
        break
      file.write(block)
      bar.update(len(block))
    end = file.tell()
  if total is not None and end != total:
    raise InputError(f'{url}: only {end} of {total} bytes came; start again to continue')


def _open(url: str, start: int = 0) -> http.client.HTTPResponse:
  """Asks for a file from a byte on; the server may begin earlier."""
  # Some servers refuse the name that Python gives itself.
  request = urllib.request.Request(url, headers={'User-Agent': 'oanet_tf'})
  if start:
    request.add_header('Range', f'bytes={start}-')
  try:
    return urllib.request.build_opener(_Redirects).open(request, timeout=_PATIENCE)
  except urllib.error.HTTPError as error:
    # The server's file is shorter than what is there.
    if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and start:
      return _open(url)
    raise


def _extent(headers: Message) -> tuple[int, int | None]:
  """The byte at which an answer starts, and the size of the whole file, None if it is not told."""
  sent = re.match(r'bytes (\d+)-\d+/(\d+|\*)$', headers.get('Content-Range', ''))
  start, total = sent.groups() if sent else ('0', headers.get('Content-Length', '*'))
  return int(start), None if total == '*' else int(total)


@contextlib.contextmanager
def _asking(url: str) -> Iterator[None]:
  """Turns what goes wrong with a server into an `InputError`."""
  try:
    yield
  except urllib.error.HTTPError as error:
    raise InputError(
      f'{url}: the server answers {error.code} {error.reason}; try again later, or name a mirror '
      '(see oanet download --help)'
    ) from None
  except (OSError, http.client.HTTPException, ValueError) as error:
    fact = error.reason if isinstance(error, urllib.error.URLError) else error
    raise InputError(
      f'{url}: cannot be fetched ({fact}); check the address and the connection, then start again '
      'to continue'
    ) from None


def _check(url: str, part: pathlib.Path, checksum: str) -> None:
  """Compares a file with its checksum, or says what that is if none is known."""
  algorithm, wanted = checksum.split(':') if checksum else ('sha256', '')
  digest = hashlib.new(algorithm, usedforsecurity=False)
  size = part.stat().st_size
  with part.open('rb') as file, _progress(f'checking {part.stem}', 0, size) as bar:
    while block := file.read(_BLOCK):
      digest.update(block)
      bar.update(len(block))
  if not checksum:
    note(f'{url}: no checksum of it is published; got {algorithm} {digest.hexdigest()}')
    return
  found = digest.hexdigest()[: len(wanted)]
  if found != wanted:
    raise InputError(
      f'{part}: its {algorithm} is {found}, not {wanted}, which that of {url} should be; remove it '
      'and start again'
    )


def _progress(what: str, start: int, total: int | None) -> tqdm.tqdm:
  return tqdm.tqdm(desc=shown(what), initial=start, total=total, unit='B', unit_scale=True)
