"""The archives of LiteRT.js, which npm fetches once and keeps in `runs/`."""

import contextlib
import fcntl
import shutil
import subprocess

import pytest

from oanet_tf.serving.litert_js import PACKAGES, VERSION
from tests.scripts import SCRIPTS

FOLDER = SCRIPTS.parent / 'runs' / 'litert_js'


def archives():
  """Their paths; skips the test where npm cannot fetch them."""
  found = _found()
  if len(found) == len(PACKAGES):
    return found
  if not shutil.which('npm'):
    pytest.skip('there is no npm, which fetches LiteRT.js')
  FOLDER.mkdir(parents=True, exist_ok=True)
  with _only_one(), contextlib.suppress(subprocess.TimeoutExpired):
    if len(_found()) < len(PACKAGES):
      command = ['npm', 'pack', '--silent', *(f'{name}@{VERSION}' for name in PACKAGES)]
      subprocess.run(command, cwd=FOLDER, capture_output=True, timeout=120)
  if len(_found()) < len(PACKAGES):
    pytest.skip('npm cannot fetch LiteRT.js')
  return _found()


def _found():
  return sorted(FOLDER.glob(f'litertjs-*-{VERSION}.tgz'))


@contextlib.contextmanager
def _only_one():
  with (FOLDER / 'lock').open('w') as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    yield
