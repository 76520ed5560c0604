import os
import signal
import subprocess
import sys
import time

import pytest

from oanet_tf.errors import first_line

# Prints a line and what Python would buffer, shows a bar, and saves a file at the end.
COMMAND = """
import pathlib, sys
import tqdm
from oanet_tf import errors
def main():
  for _ in tqdm.tqdm(range(2), file=sys.stderr):
    tqdm.tqdm.write('line')
  print('é 漢' * 9000)
  pathlib.Path(sys.argv[1]).write_text('whole')
errors.run(main)
"""


def run_code(code, *arguments, **options):
  return subprocess.run(
    [sys.executable, '-c', code, *map(str, arguments)], capture_output=True, text=True, **options
  )


def redirected(redirection, path, *flags, **environment):
  """Runs `COMMAND` in a shell; what it prints to a stream that is not redirected is captured."""
  return subprocess.run(
    ['bash', '-c', f'set -o pipefail; "$@" {redirection}', 'bash']
    + [sys.executable, *flags, '-c', COMMAND, path],
    capture_output=True,
    text=True,
    env={**os.environ, **environment},
  )


@pytest.mark.parametrize('flags', [(), ('-u',)])
@pytest.mark.parametrize(
  ('redirection', 'code'),
  [
    ('>/dev/full', 2),
    ('>&-', 0),
    ('2>&-', 0),
    ('<&- >&- 2>&-', 0),
    ('2>/dev/full', 0),
    ('| head -c 0', 1),
    ('2>&1 >/dev/null | head -c 0', 0),
  ],
)
def test_results_are_saved_whatever_becomes_of_what_is_printed(tmp_path, redirection, code, flags):
  path = tmp_path / 'saved'
  done = redirected(redirection, path, *flags)
  assert path.read_text() == 'whole'
  assert done.returncode == code and 'Traceback' not in done.stderr + done.stdout
  errors = [line for line in done.stderr.split('\n') if 'error' in line.lower()]
  assert len(errors) == (code == 2) and ('No space left' in done.stderr) == (code == 2)


def test_characters_that_a_terminal_lacks_are_escaped(tmp_path):
  done = redirected('', tmp_path / 'saved', PYTHONIOENCODING='ascii')
  assert done.returncode == 0 and '\\xe9 \\u6f22' in done.stdout
  assert 'é' in redirected('', tmp_path / 'saved', PYTHONIOENCODING='utf-8').stdout


def test_a_full_output_is_told_after_help():
  code = 'import argparse; from oanet_tf import errors; errors.run({})'
  main = 'lambda: argparse.ArgumentParser().parse_args(["--help"])'
  with open('/dev/full', 'w') as full:
    done = subprocess.run(
      [sys.executable, '-c', code.format(main)], stdout=full, stderr=subprocess.PIPE, text=True
    )
  assert done.returncode == 2 and done.stderr.count('\n') == 1


@pytest.mark.parametrize(
  ('statement', 'line'),
  [
    ("open('/missing/file')", 'error: /missing/file: No such file or directory'),
    ("raise OSError(28, 'No space left on device')", 'error: No space left on device'),
    ("raise OSError('encoder error')", 'error: encoder error'),
    ("raise MemoryError('Unable to allocate 9 TiB')", 'Unable to allocate 9 TiB'),
    ("raise errors.InputError('file: wrong')", 'error: file: wrong'),
    ("raise errors.InputError('a\\nerror: b: wrong')", 'error: a\\nerror: b: wrong'),
    ("raise OSError(2, 'No such file', 'a\\nb')", 'error: a\\nb: No such file'),
    ('raise RuntimeError("can\'t start new thread")', "(can't start new thread)"),
    ("raise ImportError('x.so: failed to map segment')", '(x.so: failed to map segment)'),
    (
      "raise ImportError('READ THIS') from ImportError('x.so: failed to map segment')",
      '(x.so: failed to map segment)',
    ),
    (
      "raise RuntimeError('XNNPack delegate failed to reshape runtimeNode number 8')",
      '(XNNPack delegate failed to reshape runtimeNode number 8)',
    ),
    (
      "raise Exception('\\nOOM when allocating tensor with shape[9]\\nat node')",
      '(OOM when allocating tensor with shape[9])',
    ),
  ],
)
def test_what_is_no_bug_is_one_line(statement, line):
  done = run_code(
    f'from oanet_tf import errors\ndef main():\n  print("out")\n  {statement}\nerrors.run(main)'
  )
  assert done.returncode == 2 and done.stdout == 'out\n'
  assert line in done.stderr and done.stderr.count('\n') == 1


def test_nothing_is_waited_for_when_memory_lacks():
  """A library's thread that waits for memory would never end."""
  done = run_code(
    'import threading\nfrom oanet_tf import errors\ndef main():\n'
    '  threading.Thread(target=threading.Event().wait).start()\n'
    "  print('out')\n  raise MemoryError('no')\nerrors.run(main)"
  )
  assert (done.returncode, done.stdout) == (2, 'out\n') and done.stderr.count('\n') == 1


def test_a_bug_keeps_its_traceback():
  done = run_code('from oanet_tf import errors\nerrors.run(lambda: 1 / 0)')
  assert done.returncode == 1 and 'Traceback' in done.stderr and 'ZeroDivision' in done.stderr


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_cleans_up(tmp_path, number):
  code = """
import pathlib, sys, time
from oanet_tf import errors, files
def main():
  with files.making_folder(pathlib.Path(sys.argv[1])) as folder:
    time.sleep(60)
errors.run(main)
"""
  process = subprocess.Popen(
    [sys.executable, '-c', code, str(tmp_path / 'folder')], stderr=subprocess.PIPE, text=True
  )
  while not any(tmp_path.iterdir()):
    time.sleep(0.05)
  process.send_signal(number)
  _, printed = process.communicate(timeout=30)
  assert process.returncode == 128 + number
  assert printed == 'interrupted\n' and not any(tmp_path.iterdir())


@pytest.mark.parametrize(
  ('message', 'line'),
  [
    ('one\ntwo', 'one'),
    ('', 'ValueError'),
    ('\n two\nthree', 'two'),
    ('{{function_node __wrapped__DecodePng}} Unknown format. [Op:DecodePng]', 'Unknown format.'),
    (
      '{{function_node x}} Error in a function with iterator: Iterator::Root::Prefetch::Map: '
      'Could not parse [1, 2]\n\t [[{{node Parse}}]]',
      'Could not parse [1, 2]',
    ),
    ('corrupted record at 12 [[{{node Next}}]] [Op:IteratorGetNext]', 'corrupted record at 12'),
  ],
)
def test_first_line(message, line):
  assert first_line(ValueError(message)) == line
