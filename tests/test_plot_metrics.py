import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

SCRIPT = pathlib.Path(__file__).resolve().parents[1] / 'scripts' / 'plot_metrics.py'


def plot(model_dir, *arguments):
  command = [sys.executable, SCRIPT, '--model_dir', model_dir, '--output', model_dir / 'plot.png']
  return subprocess.run([*command, *arguments], capture_output=True, text=True)


def write_metrics(folder):
  lines = [
    json.dumps({'step': step, 'split': 'train', 'loss': 1 / step, 'loss_srm': 2 / step})
    for step in range(1, 20)
  ]
  (folder / 'metrics.jsonl').write_text('\n'.join(lines) + '\n')


def test_draws_a_panel_for_each_scalar(tmp_path):
  write_metrics(tmp_path)
  done = plot(tmp_path)
  assert done.returncode == 0, done.stderr
  picture = np.asarray(Image.open(tmp_path / 'plot.png').convert('L'))
  # Two panels: ink in both halves.
  halves = np.split(picture[:, : picture.shape[1] // 2 * 2], 2, axis=1)
  assert all((half < 200).any() for half in halves)


def test_half_a_line_stops_nothing_and_a_picture_is_replaced_only_if_told(tmp_path):
  write_metrics(tmp_path)
  with open(tmp_path / 'metrics.jsonl', 'ab') as file:
    file.write(b'{"step": 20, "lo\xff')
  assert plot(tmp_path).returncode == 0
  assert 'plot.png: ' in plot(tmp_path).stderr
  assert plot(tmp_path, '--overwrite').returncode == 0
  assert sorted(path.name for path in tmp_path.iterdir()) == ['metrics.jsonl', 'plot.png']


@pytest.mark.parametrize(
  ('write', 'arguments', 'message'),
  [
    (False, [], 'metrics.jsonl: '),
    (True, ['--names', 'pq'], ' pq'),
  ],
)
def test_nothing_to_draw_is_said_in_one_line(write, arguments, message, tmp_path):
  if write:
    write_metrics(tmp_path)
  done = plot(tmp_path, *arguments)
  assert done.returncode == 2 and message in done.stderr and len(done.stderr.splitlines()) == 1
  assert not (tmp_path / 'plot.png').exists()
