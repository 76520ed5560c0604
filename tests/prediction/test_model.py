"""The Python interface, with the network that comes with the package."""

import concurrent.futures
import io
import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import oanet_tf
from oanet_tf.data.occluded_scenes import dataset as occluded_scenes
from oanet_tf.data.pictures import named_pictures, read_picture
from oanet_tf.prediction.model import SHIPPED_MODEL, SHIPPED_PICTURES
from oanet_tf.prediction.picture_files import segment_files
from tests.segments import segments_of_ids

ROOT = pathlib.Path(__file__).resolve().parents[2]
PICTURES = sorted(SHIPPED_PICTURES.iterdir())


@pytest.fixture(scope='module')
def model():
  return oanet_tf.load()


@pytest.fixture(scope='module')
def result(model):
  return next(model(PICTURES[1]))


def test_what_a_result_says(model, result):
  assert result.name == PICTURES[1].stem
  np.testing.assert_array_equal(result.image, read_picture(PICTURES[1]))
  assert result.segmentation.shape == result.image.shape[:2]
  assert result.segmentation.dtype == np.int32
  info = result.segments_info
  assert [one['id'] for one in info] == list(range(1, 1 + len(info)))
  assert set(np.unique(result.segmentation)) <= {0, *(one['id'] for one in info)}
  for one in info:
    category = model.categories.of_id(one['category_id'])
    assert (one['label'], one['isthing']) == (category.name, category.is_thing)
    assert model.categories.category(one['label_id']) == category
    rows, columns = np.nonzero(result.segmentation == one['id'])
    assert one['area'] == len(rows)
    x, y, width, height = one['bbox']
    assert (x, y) == (columns.min(), rows.min())
    assert (x + width, y + height) == (columns.max() + 1, rows.max() + 1)
    assert 0 < one['score'] <= 1 and one['iscrowd'] == 0
  assert json.loads(json.dumps(info)) == info
  assert {'person', 'tie', 'cup', 'table'} <= {one['label'] for one in info}
  assert {0, 1} == {one['isthing'] for one in info}


def test_results_come_in_order_whatever_the_batches(model):
  images = [*PICTURES, read_picture(PICTURES[0])[:50]]
  alone = [next(model(image)) for image in images]
  for batch_size in (1, 2, 3):
    together = list(model(images, batch_size=batch_size))
    assert [one.name for one in together] == [PICTURES[0].stem, PICTURES[1].stem, 'image_2']
    for one, other in zip(together, alone, strict=True):
      np.testing.assert_array_equal(one.segmentation, other.segmentation)
      assert one.segments_info == other.segments_info


def test_no_image_gives_no_result(model):
  assert list(model([])) == []


@pytest.mark.parametrize('batch_size', [0, -1, 1.5, True, '2'])
def test_a_batch_size_that_is_none(model, batch_size):
  with pytest.raises(oanet_tf.InputError, match='batch_size'):
    model(PICTURES, batch_size=batch_size)


def test_threads_may_share_a_model(model):
  images = [read_picture(path)[:size] for path in PICTURES for size in (40, 60, 80, 100)]
  expected = [result.segmentation for result in model(images)]
  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    found = list(pool.map(lambda image: next(model(image)).segmentation, images * 5))
  for one, other in zip(found, expected * 5, strict=True):
    np.testing.assert_array_equal(one, other)


def test_plot(result):
  plain = np.asarray(result.plot(opacity=0, label_size=0))
  default, named = np.asarray(result.plot()), np.asarray(result.plot(label_size=40))
  painted = np.asarray(result.plot(opacity=1, label_size=0))
  assert plain.shape == default.shape == named.shape == painted.shape
  enlarged = Image.fromarray(result.image).resize(plain.shape[1::-1], Image.Resampling.BICUBIC)
  # Only outlines are drawn on the image.
  assert (plain == enlarged).all(axis=-1).mean() > 0.8
  differ = [np.abs(one.astype(int) - plain).mean() for one in (default, painted)]
  assert 5 < differ[0] < differ[1]
  assert (named != default).any()
  for wrong in ({'opacity': 1.1}, {'opacity': -1}, {'label_size': -2}):
    with pytest.raises(oanet_tf.InputError, match=next(iter(wrong))):
      result.plot(**wrong)


def test_a_notebook_shows_the_plot(result):
  shown = Image.open(io.BytesIO(result._repr_png_()))
  assert shown.format == 'PNG'
  np.testing.assert_array_equal(np.asarray(shown), np.asarray(result.plot()))
  assert result.name in repr(result) and 'tie' in repr(result)


def test_save(result, tmp_path):
  result.save(tmp_path / 'new' / 'folder')
  names = sorted(path.name for path in (tmp_path / 'new' / 'folder').iterdir())
  ends = ('_overlay.png', '_segments.json', '_segments.png')
  assert names == [f'{result.name}{end}' for end in ends]
  red, green, blue = np.asarray(Image.open(tmp_path / 'new/folder' / names[2])).T.astype(int)
  np.testing.assert_array_equal((red + 256 * green + 65536 * blue).T, result.segmentation)
  content = json.loads((tmp_path / 'new/folder' / names[1]).read_text())
  assert content['segments_info'] == result.segments_info
  assert [content['height'], content['width']] == list(result.segmentation.shape)
  result.save(str(tmp_path / 'new' / 'folder'))  # Replaces them.


def test_a_folder_that_cannot_be_made(result, tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(oanet_tf.InputError, match='file'):
    result.save(tmp_path / 'file')


def test_supervision(result):
  supervision = pytest.importorskip('supervision', reason='the extra supervision is not installed')
  detections = result.to_supervision()
  assert isinstance(detections, supervision.Detections)
  assert len(detections) == len(result.segments_info)
  for box, mask, score, class_id, name, one in zip(
    detections.xyxy, detections.mask, detections.confidence, detections.class_id,
    detections.data['class_name'], result.segments_info, strict=True,
  ):  # fmt: skip
    x, y, width, height = one['bbox']
    assert box.tolist() == [x, y, x + width, y + height]
    np.testing.assert_array_equal(mask, result.segmentation == one['id'])
    assert (score, class_id, name) == (np.float32(one['score']), one['category_id'], one['label'])


def test_supervision_of_void_alone(model):
  pytest.importorskip('supervision', reason='the extra supervision is not installed')
  image, void = np.zeros([4, 5, 3], np.uint8), segments_of_ids(np.zeros([4, 5]), {})
  void = void._replace(scores=np.zeros(0, np.float32))
  assert len(oanet_tf.Result('void', image, void, model.categories).to_supervision()) == 0


def test_a_missing_package_is_named(result, monkeypatch):
  monkeypatch.setitem(sys.modules, 'supervision', None)
  with pytest.raises(oanet_tf.InputError, match=r'supervision.*oanet_tf\[supervision\]'):
    result.to_supervision()


@pytest.mark.parametrize('content', [b'', b'\0\0\0\0TFL3', b'\0\0\0\0TFL3' + bytes(100)])
def test_a_file_that_is_no_model(tmp_path, content):
  path = tmp_path / 'model.tflite'
  path.write_bytes(content)
  with pytest.raises(oanet_tf.InputError, match=r'model\.tflite: ') as error:
    oanet_tf.load(path)
  assert '\n' not in str(error.value)


def test_a_cut_off_model(tmp_path):
  path = tmp_path / 'model.tflite'
  path.write_bytes(SHIPPED_MODEL.read_bytes()[:-1000])
  with pytest.raises(oanet_tf.InputError, match=r'model\.tflite: '):
    oanet_tf.load(path)


def test_a_model_that_is_not_there(tmp_path):
  with pytest.raises(oanet_tf.InputError, match='none: '):
    oanet_tf.load(tmp_path / 'none')


def test_settings_of_a_file_cannot_be_changed():
  for settings in ({'fusion': 'heuristic'}, {'params_override': 'task.seed=1'}):
    with pytest.raises(oanet_tf.InputError, match='fixed'):
      oanet_tf.load(SHIPPED_MODEL, **settings)


def said_of_the_shipped_network():
  return json.loads((SHIPPED_MODEL.parent / 'network.json').read_text())


def test_the_readme_says_what_is_said_of_the_shipped_network():
  quality = said_of_the_shipped_network()['panoptic_quality']['All']['pq']
  assert f'PQ {100 * quality:.1f} on their validation split' in (ROOT / 'README.md').read_text()
  assert SHIPPED_MODEL.stat().st_size < 9.6e6


@pytest.mark.slow
def test_the_shipped_network_has_the_scores_that_it_is_said_to_have(model, tmp_path):
  # An image of a split does not depend on the number of others.
  occluded_scenes.generate(tmp_path / 'scenes', num_train=1)
  pictures = named_pictures([tmp_path / 'scenes' / 'val'])
  segment_files(model, pictures, tmp_path / 'results', batch_size=4)
  quality = oanet_tf.panoptic_quality(
    tmp_path / 'scenes' / 'annotations' / 'panoptic_val.json',
    tmp_path / 'results' / 'predictions.json',
  )
  for group, said in said_of_the_shipped_network()['panoptic_quality'].items():
    # LiteRT of another machine may round otherwise.
    assert quality[group] == pytest.approx(said, abs=0.003), group


# LiteRT brings those of the second line.
LIGHT = """
import sys
allowed = {'oanet_tf', 'ai_edge_litert', 'numpy', 'PIL', 'tqdm',
           'backports', 'flatbuffers', 'google', 'ml_dtypes', 'typing_extensions'}

class Finder:
  def find_spec(self, name, path=None, target=None):
    top = name.partition('.')[0]
    if not (top in allowed or top in sys.stdlib_module_names or top.startswith('__editable__')):
      raise ModuleNotFoundError(f'No module named {top!r}', name=top)

sys.meta_path.insert(0, Finder())
import oanet_tf
for result in oanet_tf.load()([sys.argv[1]]):
  result.save(sys.argv[2])
try:
  import scipy
except ModuleNotFoundError:
  print('light')
"""


def test_a_tflite_file_needs_only_litert(tmp_path):
  command = [sys.executable, '-c', LIGHT, PICTURES[0], tmp_path / 'out']
  done = subprocess.run(command, check=True, capture_output=True, text=True)
  assert done.stdout == 'light\n'
  assert len(list((tmp_path / 'out').iterdir())) == 3


@pytest.mark.slow
def test_in_an_environment_with_litert_alone(tmp_path):
  """As oanet_tf/serving/README.md says; this fetches four packages."""
  python = tmp_path / 'venv' / 'bin' / 'python'
  source = tmp_path / 'source'
  shutil.copytree(ROOT / 'oanet_tf', source / 'oanet_tf')
  for name in ('setup.py', 'pyproject.toml', 'README.md', 'LICENSE'):
    shutil.copy(ROOT / name, source)
  pip = [python, '-m', 'pip', 'install', '--quiet']
  for command in (
    [sys.executable, '-m', 'venv', tmp_path / 'venv'],
    [*pip, '--no-deps', source],
    [*pip, 'ai-edge-litert', 'numpy', 'pillow', 'tqdm'],
    [python.with_name('oanet'), 'predict'],
  ):
    subprocess.run(command, check=True, cwd=tmp_path)
  overlays = tmp_path / 'oanet_results' / 'overlays'
  assert sorted(path.stem for path in overlays.iterdir()) == [path.stem for path in PICTURES]
  listed = subprocess.run(
    [python, '-m', 'pip', 'list'], check=True, capture_output=True, text=True
  ).stdout
  assert 'oanet_tf' in listed and 'tensorflow' not in listed and 'scipy' not in listed
  # The other commands say what they lack.
  done = subprocess.run(
    [python.with_name('oanet'), 'train', '--help'], capture_output=True, text=True
  )
  assert done.returncode == 2 and len(done.stderr.splitlines()) == 1


def test_a_model_that_needs_what_is_not_installed(tmp_path):
  (tmp_path / 'saved_model.pb').write_bytes(b'')
  code = (
    'import sys; sys.modules["tensorflow"] = None\nimport oanet_tf\n'
    'try:\n  oanet_tf.load(sys.argv[1])\nexcept oanet_tf.InputError as error:\n  print(error)'
  )
  done = subprocess.run(
    [sys.executable, '-c', code, tmp_path], check=True, capture_output=True, text=True
  )
  (line,) = done.stdout.splitlines()
  assert 'tensorflow' in line and 'pip install' in line
