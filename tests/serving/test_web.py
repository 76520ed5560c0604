"""The network and its fusion as two TFLite files, and the page around them."""

import json
import zipfile

import numpy as np
import pytest
import tensorflow as tf

import oanet_tf
from oanet_tf.errors import InputError
from oanet_tf.model_folder import ModelFolder
from oanet_tf.serving import page, parity, web
from oanet_tf.serving.letterbox import letterbox
from oanet_tf.serving.tflite_archive import read_description
from oanet_tf.serving.tflite_runner import runner
from tests.serving.requests import rectangles

SIZE = (64, 64)
# After a few steps of training nothing is certain.
OVERRIDE = 'task.model.fusion.mask_threshold=0.2'


@pytest.fixture(scope='module')
def folder(trained):
  override = f'{OVERRIDE},task.model.fusion.score_threshold=0.02'
  return ModelFolder(trained[0] / 'model', override)


@pytest.fixture(scope='module')
def source(folder, trained):
  return parity.load_source(
    folder, 'srm', SIZE, parity.shard_images(f'{trained[0]}/shards/val-*', 3)
  )


@pytest.fixture(scope='module')
def written(source, tmp_path_factory):
  folder = tmp_path_factory.mktemp('web')
  web.FORMAT.write(source, folder)
  return folder


def test_what_is_written(written):
  names = {path.name for path in written.iterdir()}
  assert names == {'index.html', 'demo.js', 'model.tflite', 'merge.tflite', 'model.json'}
  with zipfile.ZipFile(written / 'model.tflite') as archive:
    for name in ('merge.tflite', 'model.json'):
      assert archive.read(name) == (written / name).read_bytes()
  description = read_description(written / 'model.tflite')
  assert description['fusions'] == ['heuristic', 'srm'] and description['fusion'] == 'srm'
  # LiteRT.js knows no others.
  assert {one['dtype'] for one in description['outputs']} <= {'float32', 'int32', 'uint8'}


def test_it_agrees_with_the_network_in_memory(written, source):
  compared = web.FORMAT.compare(source, written)
  assert web.FORMAT.objection(compared) is None
  # Of so little training, ranking scores nearly equal each other, and weights of 16 bits swap some.
  assert compared.num_images == 3 and compared.same_pixels > 0.95


def test_another_order_and_threshold_are_those_of_the_network_in_memory(written, folder):
  method, threshold = 'heuristic', 0.05
  description = read_description(written / 'model.tflite')
  image = letterbox(rectangles(40, 56), SIZE)[np.newaxis]
  settings = {**description, 'fusion': method, 'score_threshold': threshold}
  found = runner(written / 'model.tflite', settings)(image=image)
  override = f'{OVERRIDE},task.model.fusion.score_threshold={threshold}'
  module = parity.load_source(ModelFolder(folder.path, override), method, SIZE, []).module()
  expected = tf.function(module.segment_fixed, autograph=False)(image)
  for name in ('panoptic_category_mask', 'panoptic_instance_mask'):
    assert np.mean(found[name] == expected[name].numpy()) > 0.99
  assert found['panoptic_instance_mask'].any()
  none = runner(written / 'model.tflite', {**settings, 'score_threshold': 0.99})(image=image)
  assert not none['panoptic_instance_mask'].any()


def test_the_file_predicts_in_python(written, source):
  (result,) = oanet_tf.load(written / 'model.tflite')(source.images[0])
  assert result.segmentation.shape == source.images[0].shape[:2]
  assert result.segments_info


def test_a_network_without_a_ranking_module_has_no_switch(source, monkeypatch):
  def refuse(*_):
    raise InputError('none')

  monkeypatch.setattr(ModelFolder, 'check_ranking_module', refuse)
  assert web._methods(source) == ['heuristic']


def test_text_on_the_page_is_text(tmp_path):
  page.write(tmp_path, note='<script>', examples=['a"b<.png'])
  written = (tmp_path / 'index.html').read_text()
  assert '&lt;script&gt;' in written and 'src="a&quot;b&lt;.png"' in written
  assert '{{' not in written
  (line,) = [line for line in written.splitlines() if 'application/json' in line]
  assert json.loads(line.partition('>')[2].partition('<')[0])['wasm'].startswith('https://')
