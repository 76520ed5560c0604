import concurrent.futures
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from oanet_tf import predict
from oanet_tf.data.panoptic_map import segments_of_masks
from oanet_tf.errors import InputError
from oanet_tf.prediction.lite_predictor import of_tflite
from oanet_tf.prediction.model import Model
from oanet_tf.prediction.tensorflow_predictors import of_saved_model, of_trained
from tests import end_to_end
from tests.segments import id_map, read_ids


@pytest.fixture
def pictures(served):
  """The source's, and one of each orientation cut from them."""
  first = served.source.images[0]
  return [*served.source.images, first[:20], first[:, :21]]


def assert_equal(found, expected):
  """Maps and scores."""
  for one, (segments, scores) in zip(found, expected, strict=True):
    np.testing.assert_array_equal(one.index, segments.index)
    np.testing.assert_array_equal(one.category_ids, segments.category_ids)
    np.testing.assert_allclose(one.scores, scores, rtol=1e-5)


def in_memory(served, pictures):
  """Segments of the maps, and their scores, looked up the slow way."""
  categories = served.source.trained.categories
  for picture in pictures:
    outputs, maps = served.predict(picture)
    labels, instances = (mask[0].numpy() for mask in maps)
    segments = segments_of_masks(labels, instances, categories)
    scores = []
    for number in range(1, 1 + len(segments.ids)):
      place = segments.index == number
      instance, label = instances[place][0], labels[place][0]
      if instance:
        scores.append(outputs['detection_scores'][0, instance - 1].numpy())
      else:
        scores.append(outputs['stuff_scores'][0, label - 1 - categories.num_things].numpy())
    yield segments, scores


def loaded_already(served):
  """In place of `tf.saved_model.load`, which takes seconds. The command, below, uses that."""
  return lambda _: served


@pytest.fixture(scope='module')
def saved(served):
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(tf.saved_model, 'load', loaded_already(served))
    return of_saved_model(served.folder)


def test_a_saved_model_segments_as_the_network_in_memory(saved, served, pictures):
  assert saved.categories == served.source.trained.categories
  assert_equal(saved.segment(pictures), in_memory(served, pictures))


def test_a_saved_model_with_the_categories_of_another_is_refused(served, tmp_path, monkeypatch):
  monkeypatch.setattr(tf.saved_model, 'load', loaded_already(served))
  folder = tmp_path / 'model'
  shutil.copytree(served.folder, folder)
  path = folder / 'assets' / 'categories.json'
  content = json.loads(path.read_text())
  for category in content['categories']:
    category['name'] = f'other {category["name"]}'
  path.write_text(json.dumps(content))
  with pytest.raises(InputError, match=f"{path}: .*'other "):
    of_saved_model(folder).segment(served.source.images[:1])


@pytest.mark.parametrize('size', [(8192, 4097), (1, 2**16 + 1)])
def test_an_image_that_a_saved_model_does_not_take_is_told(saved, size):
  model = Model(saved)
  told = (
    f'a.png: has {size[0]} x {size[1]} pixels; the model takes at most 33554432, and 65536 along'
  )
  with pytest.raises(InputError, match=told):
    model.check_size('a.png', *size)
  model.check_size('a.png', 8192, 4096)
  model.check_size('a.png', 1, 2**16)


def test_a_model_folder_segments_in_batches_as_alone(served, pictures):
  source = served.source
  predictor = of_trained(source.trained, source.method)
  assert_equal(predictor.segment(pictures), in_memory(served, pictures))


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['model_folder', 'saved_model'])
def test_threads_may_share_a_predictor(saved, served, pictures, kind):
  source = served.source
  predictor = saved if kind == 'saved_model' else of_trained(source.trained, source.method)
  expected = list(in_memory(served, pictures))
  with concurrent.futures.ThreadPoolExecutor(4) as pool:
    found = list(pool.map(lambda picture: predictor.segment([picture])[0], pictures * 3))
  assert_equal(found, expected * 3)


def test_the_command_takes_a_saved_model(served, tmp_path, monkeypatch, capsys):
  (tmp_path / 'pictures').mkdir()
  for number, image in enumerate(served.source.images):
    Image.fromarray(image).save(tmp_path / 'pictures' / f'{number}.png')
  code, _, _ = end_to_end.run_command(
    monkeypatch, capsys, predict.main, '--model', served.folder, '--images', tmp_path / 'pictures',
    '--output_dir', tmp_path / 'output', '--batch_size', 2,
  )  # fmt: skip
  assert code == 0
  content = json.loads((tmp_path / 'output' / 'predictions.json').read_text())
  expected = [segments for segments, _ in in_memory(served, served.source.images)]
  for number, annotation in enumerate(content['annotations']):
    png = tmp_path / 'output' / 'predictions' / f'{number}.png'
    np.testing.assert_array_equal(read_ids(png), id_map(expected[number]))
    ids = [segment['category_id'] for segment in annotation['segments_info']]
    assert ids == expected[number].category_ids.tolist()


def test_settings_of_an_export_cannot_be_changed(served, tmp_path, monkeypatch, capsys):
  Image.fromarray(served.source.images[0]).save(tmp_path / 'a.png')
  outcome = end_to_end.run_command(
    monkeypatch, capsys, predict.main, '--model', served.folder, '--images', tmp_path / 'a.png',
    '--output_dir', tmp_path / 'output', '--fusion', 'heuristic',
  )  # fmt: skip
  assert str(served.folder) in end_to_end.one_line_error(outcome)


@pytest.mark.parametrize('content', [b'', b'no graph'])
def test_a_damaged_saved_model(tmp_path, content):
  (tmp_path / 'saved_model.pb').write_bytes(content)
  with pytest.raises(InputError, match='SavedModel'):
    of_saved_model(tmp_path)


def test_a_foreign_tflite_file(tmp_path):
  path = tmp_path / 'model.tflite'
  path.write_bytes(b'\0\0\0\0TFL3')
  with pytest.raises(InputError, match=r'model\.tflite: '):
    of_tflite(path)
