#!/usr/bin/env python3
"""Times the page of `oanet demo` in Chromium against LiteRT in Python, on the same pictures.

Both take turns, picture by picture, with the same TFLite file. Chromium runs LiteRT.js once with
threads, as `oanet demo` serves the page, and once without, as a host does that does not isolate it.
"""

import argparse
import functools
import http.server
import json
import pathlib
import statistics
import sys
import tempfile
import threading
import time

import numpy as np

from oanet_tf import demo, errors, files
from oanet_tf.arguments import positive
from oanet_tf.errors import InputError
from oanet_tf.serving import page_server
from oanet_tf.serving.letterbox import letterbox
from oanet_tf.serving.tflite_archive import read_description

STEPS = ('prepare', 'network', 'merge')
READY = 'document.getElementById("status").textContent === "Ready."'
DONE = '/segments\\.$/.test(document.getElementById("status").textContent)'
GIVE = """{
  const transfer = new DataTransfer();
  transfer.items.add(new File([Uint8Array.from(atob('%s'), (c) => c.charCodeAt(0))], 'photo'));
  document.getElementById('status').textContent = '';
  document.dispatchEvent(new ClipboardEvent('paste', {clipboardData: transfer}));
}"""


class OfPython:
  """The steps in this process."""

  def __init__(self, model: pathlib.Path, threads: int):
    from oanet_tf.serving.tflite_runner import runner

    self._run = runner(model, read_description(model), threads)
    (image,) = self._run.get_input_details().values()
    self._size = image['shape'][1:3].tolist()

  def __call__(self, path: pathlib.Path) -> dict[str, float]:
    from oanet_tf.data.pictures import read_picture

    picture = read_picture(path)
    start = time.perf_counter()
    canvas = letterbox(picture, self._size)[np.newaxis]
    prepared = time.perf_counter()
    outputs = self._run._network(image=canvas)
    ran = time.perf_counter()
    self._run._merge(**outputs, **self._run._settings)
    end = time.perf_counter()
    return dict(zip(STEPS, (prepared - start, ran - prepared, end - ran), strict=True))


class OfPage:
  """The steps as the page says what they took."""

  def __init__(self, url: str, profile: str):
    from tests.reporting.browser import Browser

    self._browser = Browser(profile)
    self._browser.open(url)
    self._browser.wait_until(READY, 120)

  def __call__(self, path: pathlib.Path) -> dict[str, float]:
    import base64

    self._browser.evaluate(GIVE % base64.b64encode(path.read_bytes()).decode())
    self._browser.wait_until(DONE, 120)
    said = self._browser.evaluate("document.getElementById('times').textContent")
    words = said.removeprefix('Milliseconds: ').rstrip('.').split(', ')
    times = {name: float(value) / 1000 for name, value in map(str.split, words)}
    return {name: times[name] for name in STEPS}


class Quiet(http.server.SimpleHTTPRequestHandler):
  """A host like any other."""

  def log_message(self, *arguments: object) -> None:
    """Nothing."""


def start(server: http.server.ThreadingHTTPServer) -> str:
  threading.Thread(target=server.serve_forever, daemon=True).start()
  return f'http://127.0.0.1:{server.server_port}/'


def measure(
  model: pathlib.Path, pictures: list[pathlib.Path], offline: list[str], rounds: int, threads: int
) -> dict[str, dict[str, float]]:
  """Medians in milliseconds, by contender and step."""
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name) / 'page'
    folder.mkdir()
    demo.make_page(folder, model, offline)
    plain = functools.partial(Quiet, directory=str(folder))
    contenders = {
      'Python': OfPython(model, threads),
      'Chromium, threads': OfPage(start(page_server.server(folder)), f'{name}/profile_1'),
      'Chromium, one thread': OfPage(
        start(http.server.ThreadingHTTPServer(('127.0.0.1', 0), plain)), f'{name}/profile_2'
      ),
    }
    taken: dict[str, list[dict[str, float]]] = {contender: [] for contender in contenders}
    for picture in pictures * rounds:
      for contender, run in contenders.items():
        taken[contender].append(run(picture))
  return {
    contender: {step: 1000 * statistics.median(one[step] for one in found) for step in STEPS}
    for contender, found in taken.items()
  }


def main() -> None:
  """The command line."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--model', required=True, type=pathlib.Path, help='of oanet demo')
  parser.add_argument('--images', nargs='+', required=True, type=pathlib.Path, help='picture files')
  parser.add_argument('--offline', nargs='+', required=True, help='of oanet demo')
  parser.add_argument('--rounds', type=positive, default=3, help='(default: %(default)s)')
  parser.add_argument(
    '--threads', type=positive, default=2, help='in Python (default: %(default)s)'
  )
  parser.add_argument('--output', type=pathlib.Path, help='JSON file for the medians')
  arguments = parser.parse_args()
  for path in arguments.images:
    if not path.is_file():
      raise InputError(f'{path}: there is no such file')
  sys.path.append(str(pathlib.Path(__file__).resolve().parents[1]))
  found = measure(
    demo.find_page_model(arguments.model),
    arguments.images,
    arguments.offline,
    arguments.rounds,
    arguments.threads,
  )
  print(f'{"":<22}' + ''.join(f'{step:>10}' for step in STEPS) + '  ms')
  for contender, steps in found.items():
    print(f'{contender:<22}' + ''.join(f'{steps[step]:>10.1f}' for step in STEPS))
  if arguments.output:
    files.write_text(arguments.output, json.dumps(found, indent=1) + '\n')


if __name__ == '__main__':
  errors.run(main)
