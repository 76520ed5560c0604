"""The page that runs a TFLite file in a browser: `index.html`, its script, and what they load."""

import base64
import hashlib
import html
import json
import pathlib
import shutil
from collections.abc import Sequence

from oanet_tf.config.values import MAX_IMAGE_PIXELS
from oanet_tf.files import FilePath
from oanet_tf.serving import litert_js

_PARTS = pathlib.Path(__file__).with_name('web_page')
SCRIPT = 'demo.js'
PAGE = 'index.html'


def write(
  folder: pathlib.Path,
  *,
  offline: Sequence[FilePath] = (),
  note: str = '',
  examples: Sequence[str] = (),
) -> None:
  """Writes the page beside a `model.tflite` and a `model.json` of the format `web`.

  Args:
    folder: exists.
    offline: of `litert_js.copy`; without it, the page loads LiteRT.js from a CDN, unless the folder
      has a copy already.
    note: what the page says of the network.
    examples: names of pictures in the folder, which the page offers.

  Raises:
    InputError: of `litert_js.copy`.
  """
  if offline:
    litert_js.copy(offline, folder)
  is_copied = (folder / litert_js.FOLDER).is_dir()
  import_map = litert_js.import_map(is_copied)
  page = {'wasm': litert_js.wasm_url(is_copied), 'max_pixels': MAX_IMAGE_PIXELS}
  text = (_PARTS / PAGE).read_text(encoding='utf-8')
  for name, value in (
    ('policy', html.escape(_policy(import_map, is_copied))),
    ('import_map', import_map),
    ('page', json.dumps(page)),
    ('note', html.escape(note)),
    ('examples', '\n      '.join(map(_button, examples))),
  ):
    text = text.replace(f'{{{{{name}}}}}', value)
  (folder / PAGE).write_text(text, encoding='utf-8')
  shutil.copyfile(_PARTS / SCRIPT, folder / SCRIPT)


def _button(example: str) -> str:
  name = html.escape(example)
  return f'<button class="example"><img src="{name}" alt="Segment the example {name}"></button>'


def _policy(import_map: str, is_copied: bool) -> str:
  """The content security policy: nothing is loaded from elsewhere, and nothing is sent there."""
  digest = base64.b64encode(hashlib.sha256(import_map.encode()).digest()).decode()
  own = "'self'" if is_copied else f"'self' {litert_js.CDN}"
  return '; '.join(
    [
      "default-src 'none'",
      f"script-src {own} 'wasm-unsafe-eval' 'sha256-{digest}'",
      f'connect-src {own}',
      f'worker-src {own} blob:',
      "img-src 'self' blob: data:",
      "style-src 'unsafe-inline'",
      "base-uri 'none'",
      "form-action 'none'",
    ]
  )
