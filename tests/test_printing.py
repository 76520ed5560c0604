"""Names in files that would forge lines, move the cursor or turn the text around."""

import io
import json
import logging
import os
import pathlib
import subprocess
import sys
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oanet_tf import arguments, printing, visualize
from oanet_tf.__main__ import COMMANDS
from oanet_tf.data.categories import Category, PanopticCategories
from oanet_tf.data.panoptic_map import Segments
from oanet_tf.errors import InputError
from oanet_tf.evaluation.panoptic_quality import PanopticQuality, format_table
from oanet_tf.serving.tflite_description import labels_text

HOSTILE = 'cat\nerror: all is lost\r\x1b[2J\u202eevil\u200b\x85\u2028.'
SHOWN = 'cat\\nerror: all is lost\\r\\x1b[2J\\u202eevil\\u200b\\x85\\u2028.'
CATEGORIES = PanopticCategories([Category(1, HOSTILE, True, (9, 9, 9))])


@pytest.mark.parametrize('text', ['', 'é 猫 😀 עברית عربي हिन्दी', 'a\u00a0b\u3000c', 'C:\\new'])
def test_letters_of_any_script_stay(text):
  assert printing.shown(text) == text


def test_what_is_not_seen_is_escaped():
  assert printing.shown(HOSTILE) == SHOWN
  assert printing.shown('\udce9') == '\\udce9'
  assert printing.shown(pathlib.Path('a\tb')) == 'a\\tb'


@given(st.text(st.characters(), max_size=20))
def test_shown_text_is_one_line_and_stays_as_it_is(text):
  found = printing.shown(text)
  assert len(found.splitlines()) <= 1 and printing.shown(found) == found
  assert all(unicodedata.category(char) in ('Zs',) or char.isprintable() for char in found)
  if text.isprintable():
    assert found == text


def test_an_error_is_one_line():
  assert str(InputError(f'{HOSTILE}: wrong')) == f'{SHOWN}: wrong'
  long = str(InputError('a' + 'b' * 10**6 + 'c'))
  assert len(long) < 2100 and long[0] == 'a' and ' … ' in long and long[-1] == 'c'


def test_an_unknown_argument_is_one_line(capsys):
  parser = arguments.ArgumentParser(prog='oanet')
  for one in (parser, parser.add_subparsers().add_parser('part')):
    with pytest.raises(SystemExit):
      one.parse_args([f'--{HOSTILE}'])
    assert f'--{SHOWN}' in capsys.readouterr().err.splitlines()[-1]


def test_the_log_and_notes_are_lines(capsys, monkeypatch):
  printing.note(HOSTILE)
  assert capsys.readouterr().err == f'{SHOWN}\n'
  stream = io.StringIO()
  monkeypatch.setattr(sys, 'stderr', stream)
  root = logging.Logger('root')
  monkeypatch.setattr(logging, 'root', root)
  arguments.log_to_stderr()
  root.warning('%s: is odd', HOSTILE)
  assert stream.getvalue() == f'{SHOWN}: is odd\n'


def test_tables_results_labels_and_drawings_have_them_shown():
  results = PanopticQuality(CATEGORIES).result()
  table = format_table({HOSTILE: results}, CATEGORIES)
  assert table.count(SHOWN) == 2 and len(table.splitlines()) == 8
  assert labels_text(CATEGORIES).splitlines()[1] == SHOWN


def test_a_name_is_drawn_in_one_line(monkeypatch):
  sizes = []
  measure = visualize.ImageFont.FreeTypeFont.getlength
  monkeypatch.setattr(
    visualize.ImageFont.FreeTypeFont,
    'getlength',
    lambda self, text, *rest: sizes.append(text) or measure(self, text, *rest),
  )
  segments = Segments(np.ones([200, 900], np.int32), *np.array([[1], [1], [0]]))
  visualize.draw_panoptic(np.zeros([200, 900, 3], np.uint8), segments, CATEGORIES)
  assert SHOWN in sizes


PRINTING = """
import sys, tqdm
from oanet_tf import errors
name = 'a\\x1b[2J\\u202eb'
def main():
  print(name, 'é', 'two\\nlines', '\\x1b[Aup')
  print(name, file=sys.stderr)
  tqdm.tqdm.write(name, file=sys.stderr)
  for _ in tqdm.tqdm(range(2), file=sys.stderr): pass
errors.run(main)
"""


@pytest.mark.parametrize('flags', [(), ('-u',)])
def test_no_text_commands_the_terminal(flags):
  done = subprocess.run([sys.executable, *flags, '-c', PRINTING], capture_output=True, check=True)
  out, err = done.stdout.decode(), done.stderr.decode()
  assert out == 'a\\x1b[2J\\u202eb é two\nlines \x1b[Aup\n'
  assert err.count('a\\x1b[2J\\u202eb') == 2 and '\r' in err and '\x1b[2J' not in err


def test_a_command_on_a_hostile_dataset(tmp_path):
  category = {'id': 1, 'name': HOSTILE, 'isthing': 2}
  content = {'images': [], 'annotations': [], 'categories': [category]}
  path = tmp_path / 'a\nerror: b.json'
  path.write_text(json.dumps(content))
  path.with_suffix('').mkdir()
  command = [sys.executable, '-m', 'oanet_tf.pq', '--gt_json', path, '--pred_json', path]
  done = subprocess.run(command, capture_output=True, text=True)
  assert done.returncode == 2 and done.stderr.count('\n') == 1
  assert 'a\\nerror: b.json: category 0: isthing 2' in done.stderr


ROOT = pathlib.Path(__file__).resolve().parents[1]
ASCII = {'LC_ALL': 'C', 'LANG': 'POSIX', 'PYTHONUTF8': '0', 'PYTHONCOERCECLOCALE': '0'}


def scripts():
  """Those that are commands."""
  paths = sorted((ROOT / 'scripts').glob('*.py'))
  return [path.name for path in paths if '__main__' in path.read_text(encoding='utf-8')]


@pytest.mark.parametrize(
  'command',
  [
    ['-m', 'oanet_tf'],
    *(['-m', 'oanet_tf', name] for name in COMMANDS),
    *(['-m', command.module] for command in COMMANDS.values()),
    *([f'scripts/{name}'] for name in scripts()),
  ],
  ids=' '.join,
)
def test_help_on_a_terminal_of_ascii(command):
  environment = {**os.environ, **ASCII, 'PYTHONPATH': str(ROOT)}
  done = subprocess.run(
    [sys.executable, *command, '--help'], cwd=ROOT, env=environment, capture_output=True
  )
  assert done.returncode == 0 and b'usage: ' in done.stdout and done.stdout.isascii()
