import json
import pathlib
import subprocess
import sys

import numpy as np

from oanet_tf.data.categories import Category, PanopticCategories
from oanet_tf.evaluation.coco_results import PanopticResultsWriter
from tests.segments import segments_of_ids

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / 'scripts' / 'benchmark_pq.py'
CATEGORIES = PanopticCategories(
  [Category(7, 'person', True, (200, 0, 0)), Category(90, 'sky', False, (0, 200, 200))]
)


def run(*arguments):
  return subprocess.run(
    [sys.executable, SCRIPT, *map(str, arguments)], capture_output=True, text=True
  )


def test_both_score_the_same(tmp_path):
  ids = np.ones([40, 50], np.int32)
  ids[5:30, 10:40] = 2
  image = segments_of_ids(ids, {1: 90, 2: 7})
  with PanopticResultsWriter(tmp_path, 'truth', CATEGORIES) as writer:
    for image_id in (1, 2):
      writer.write(image_id, f'{image_id}.jpg', image)
  command = ('--gt_json', tmp_path / 'truth.json', '--num_images', 5, '--rounds', 1)
  outcome = run(*command, '--output', tmp_path / 'speed.json')
  assert outcome.returncode == 0, outcome.stderr
  results = json.loads((tmp_path / 'speed.json').read_text())
  assert list(results) == ['panopticapi', 'oanet_tf']
  assert all(value > 0 for result in results.values() for value in result.values())
  lines = outcome.stdout.splitlines()
  assert lines[0] == '5 images, medians of 1 rounds'
  assert lines[2].split()[2] == '1.00'
  assert float(lines[-1].removeprefix('largest difference of a score: ')) < 1e-9


def test_arguments_are_checked():
  assert '--num_images' in run('--help').stdout
  outcome = run('--pred_json', 'a.json')
  assert outcome.returncode == 2 and outcome.stderr == 'error: --pred_json needs --gt_json\n'
