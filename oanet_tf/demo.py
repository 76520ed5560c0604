"""Shows a network in the browser: `oanet demo --help`."""

import argparse
import json
import os
import pathlib
import shutil
import sys
import tempfile
import webbrowser
from collections.abc import Sequence

from oanet_tf import errors, files
from oanet_tf.arguments import ArgumentParser
from oanet_tf.errors import InputError
from oanet_tf.files import FilePath
from oanet_tf.printing import note
from oanet_tf.serving import litert_js, page, page_server
from oanet_tf.serving.tflite_archive import (
  DESCRIPTION_FILE,
  MERGE_FILE,
  MODEL_FILE,
  read_description,
  read_file,
)

EXPORT = 'oanet export --formats web'
SHIPPED_NOTE = 'This network knows only generated pictures: try one of the examples.'


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
  parser = ArgumentParser(
    prog='oanet demo',
    description='Opens a page on which a network segments your own pictures. It runs in the '
    'browser; no picture leaves the machine. Ctrl-C ends it.',
    epilog='On another machine, reach it by: ssh -L PORT:127.0.0.1:PORT MACHINE.',
  )
  parser.add_argument(
    '--model',
    type=pathlib.Path,
    help=f'what {EXPORT} wrote: its folder or its model.tflite (default: the small network that '
    'comes with the package)',
  )
  parser.add_argument('--port', type=int, default=0, help='(default: a free one)')
  parser.add_argument(
    '--offline',
    nargs='+',
    default=[],
    metavar='TGZ_OR_DIR',
    help='takes LiteRT.js from here instead of a CDN: archives that '
    f'"npm pack {" ".join(litert_js.PACKAGES)}" wrote, or a node_modules',
  )
  parser.add_argument('--no_browser', action='store_true', help='opens no browser')
  return parser.parse_args(arguments)


def find_page_model(path: pathlib.Path) -> pathlib.Path:
  """The TFLite file of an export for pages: a file, its folder, or a folder with versions of it.

  Raises:
    InputError: if there is none.
  """
  if path.is_file():
    return path
  versions = [
    one.parent
    for pattern in ('', '*', 'web/*')
    for one in path.glob(f'{pattern}/{MODEL_FILE}'.lstrip('/'))
  ]
  if not versions:
    fact = 'has no model.tflite' if path.is_dir() else 'there is no such file or folder'
    raise InputError(f'{path}: {fact}; {EXPORT} makes one of a trained network')
  numbered = [one for one in versions if one.name.isdecimal()]
  newest = max(numbered, key=lambda one: int(one.name)) if numbered else versions[0]
  return newest / MODEL_FILE


def make_page(
  folder: pathlib.Path, model: pathlib.Path | None, offline: Sequence[FilePath] = ()
) -> None:
  """Writes everything that the page needs into a folder that exists.

  Args:
    folder: of the page.
    model: of `find_page_model`; None for the network that comes with the package.
    offline: of `litert_js.copy`.

  Raises:
    InputError: if the model is of another kind, or LiteRT.js cannot be copied.
  """
  examples: list[str] = []
  if model is None:
    from oanet_tf.prediction.model import SHIPPED_MODEL, SHIPPED_PICTURES

    model = SHIPPED_MODEL
    for picture in sorted(SHIPPED_PICTURES.iterdir()):
      examples.append(shutil.copy(picture, folder / picture.name).name)
  description = read_description(model)
  if 'fusions' not in description:
    raise InputError(
      f'{model}: is a {description.get("format", "file")} for other programs; {EXPORT} makes one '
      'for a page'
    )
  with files.writing(folder):
    shutil.copyfile(model, folder / MODEL_FILE)
    (folder / MERGE_FILE).write_bytes(read_file(model, MERGE_FILE))
    (folder / DESCRIPTION_FILE).write_text(json.dumps(description), encoding='utf-8')
    copy = model.with_name(litert_js.FOLDER)
    if copy.is_dir() and not offline:
      shutil.copytree(copy, folder / litert_js.FOLDER)
    page.write(folder, offline=offline, note=SHIPPED_NOTE if examples else '', examples=examples)


def has_screen() -> bool:
  """Whether a browser can open a window. A browser of a terminal would take that over."""
  return sys.platform in ('darwin', 'win32') or any(
    os.environ.get(name) for name in ('DISPLAY', 'WAYLAND_DISPLAY')
  )


def main() -> None:
  arguments = parse_arguments()
  model = find_page_model(arguments.model) if arguments.model else None
  with tempfile.TemporaryDirectory(prefix='oanet_demo_') as name:
    folder = pathlib.Path(name)
    make_page(folder, model, arguments.offline)
    with page_server.server(folder, arguments.port) as server:
      url = f'http://{page_server.HOST}:{server.server_port}/'
      print(url, flush=True)
      if not arguments.no_browser and has_screen():
        webbrowser.open(url)
      note('serving until Ctrl-C')
      try:
        server.serve_forever()
      except errors.Terminated:
        raise
      except KeyboardInterrupt:
        # This is how it ends.
        return


if __name__ == '__main__':
  errors.run(main)
