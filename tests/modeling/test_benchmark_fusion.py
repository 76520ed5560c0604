import json
import subprocess
import sys

from tests.scripts import benchmark_fusion


def run(*arguments):
  command = [sys.executable, benchmark_fusion.__file__, *map(str, arguments)]
  return subprocess.run(command, capture_output=True, text=True)


def test_measures_what_is_equal(tmp_path):
  path = tmp_path / 'speed.json'
  size = ('--height', 96, '--width', 128, '--instances', 5, '--rounds', 1)
  outcome = run(*size, '--output', path)
  assert outcome.returncode == 0, outcome.stderr
  times = json.loads(path.read_text())
  names = [
    *benchmark_fusion.METHODS,
    *benchmark_fusion.PARTS,
    'input of panopticapi',
    'panopticapi',
  ]
  assert list(times) == names
  assert all(0 < of_name['least'] <= of_name['median'] for of_name in times.values())
  lines = outcome.stdout.splitlines()
  assert lines[0].startswith('5 instances, 128 × 96, ')
  assert [line[:20].strip() for line in lines[2:-1]] == names


def test_help_is_fast():
  command = [sys.executable, benchmark_fusion.__file__, '--help']
  done = subprocess.run(command, capture_output=True, text=True, timeout=5)
  assert '--instances' in done.stdout
