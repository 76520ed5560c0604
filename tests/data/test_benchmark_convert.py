import importlib.util
import json
import pathlib
import subprocess
import sys

import numpy as np
from absl import flags

from oanet_tf.data.objects import instance_mask

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / 'scripts' / 'benchmark_convert.py'


def load_script():
  spec = importlib.util.spec_from_file_location('benchmark_convert', SCRIPT)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def arguments(coco, *more):
  paths = coco.write()
  return [part for key, path in paths.items() for part in (f'--{key}', str(path))] + [*more]


def test_speed(coco, tmp_path, capsys):
  was_parsed = flags.FLAGS.is_parsed()
  try:
    load_script().main(arguments(coco, '--rounds', '1', '--output', str(tmp_path / 'speed.json')))
  finally:
    if not was_parsed:
      flags.FLAGS.unparse_flags()
  results = json.loads((tmp_path / 'speed.json').read_text())
  assert list(results) == ['model_garden', 'cropped', 'full_png']
  assert all(value > 0 for result in results.values() for value in result.values())
  header, columns, *rows = capsys.readouterr().out.splitlines()
  assert header == '2 images, medians of 1 rounds'
  assert 'images/s/core' in columns
  assert rows[0].split()[2::2] == ['1.00', '1.00']


def test_annotations_are_the_objects(coco):
  from oanet_tf.data import coco_json, coco_panoptic

  dataset = coco_json.load(**coco.write())
  objects = coco_panoptic.read_record(dataset.entries[0], dataset.categories, 'none').objects
  person, tie = load_script()._annotations(objects, 5, 8)
  assert person['bbox'] == [1, 1, 5, 3] and tie['bbox'] == [2, 2, 2, 1]
  for annotation, segment_id in ((person, 70000), (tie, 5)):
    expected = coco.maps['42.png'] == segment_id
    np.testing.assert_array_equal(instance_mask(annotation['segmentation'], 5, 8), expected)
    assert annotation['area'] == expected.sum()


def test_help_is_fast():
  result = subprocess.run(
    [sys.executable, SCRIPT, '--help'], capture_output=True, text=True, timeout=5
  )
  assert '--memory_images' in result.stdout
