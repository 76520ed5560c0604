import json
import pathlib
import re
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image

from oanet_tf import files, predict, prediction
from oanet_tf.data import pictures
from oanet_tf.data.categories import PanopticCategories
from oanet_tf.data.class_prior import ClassPrior
from oanet_tf.data.panoptic_map import Scores, segments_of_masks
from oanet_tf.errors import InputError
from oanet_tf.prediction.model import SHIPPED_MODEL, Model
from oanet_tf.prediction.predictor import Predictor, find_model
from tests import end_to_end
from tests.categories import CATEGORIES
from tests.segments import read_ids


@pytest.fixture
def model_dir(trained):
  return trained[0] / 'model'


def save(path, array, mode=None, **options):
  Image.fromarray(array, mode).save(path, **options)


def gradient(height=40, width=60, channels=3):
  values = np.linspace(0, 255, height * width * channels).reshape(height, width, channels)
  return values.astype(np.uint8)


@pytest.fixture
def odd_pictures(tmp_path):
  """Pictures as users have them -> their true [height, width]."""
  folder = tmp_path / 'pictures'
  folder.mkdir()
  save(folder / 'plain.jpg', gradient())
  save(folder / 'gray.png', gradient(channels=3)[..., 0])
  save(folder / 'alpha.png', gradient(channels=4))
  Image.fromarray(gradient()).convert('CMYK').save(folder / 'cmyk.jpg')
  Image.fromarray(gradient()).convert('P').save(folder / 'palette.gif')
  Image.fromarray(gradient()[..., 0].astype(np.uint16) * 257).save(folder / 'deep.png')
  exif = Image.Exif()
  exif[0x0112] = 6  # The camera was held upright: turn by 90 degrees.
  save(folder / 'turned.jpg', gradient(), exif=exif)
  save(folder / 'dot.png', gradient(1, 1))
  save(folder / 'wide.webp', gradient(5, 300))
  sizes = dict.fromkeys(('plain', 'gray', 'alpha', 'cmyk', 'palette', 'deep'), (40, 60))
  return folder, {**sizes, 'turned': (60, 40), 'dot': (1, 1), 'wide': (5, 300)}


def run(monkeypatch, capsys, model_dir, images, output_dir, *more):
  return end_to_end.run_command(
    monkeypatch, capsys, predict.main, '--model', model_dir, '--images', images, '--output_dir',
    output_dir, *more,
  )  # fmt: skip


@pytest.mark.parametrize(
  'fusion', ['srm', *(pytest.param(f, marks=pytest.mark.slow) for f in ('heuristic', 'upsnet'))]
)
def test_any_picture_gets_overlay_png_and_entry(
  model_dir, odd_pictures, tmp_path, monkeypatch, capsys, fusion
):
  folder, sizes = odd_pictures
  output = tmp_path / 'output'
  code, stdout, _ = run(monkeypatch, capsys, model_dir, folder, output, '--fusion', fusion)
  assert code == 0 and '9 pictures' in stdout
  results = json.loads((output / 'predictions.json').read_text())
  assert {image['file_name'] for image in results['images']} == {p.name for p in folder.iterdir()}
  assert {image['id'] for image in results['images']} == set(sizes)
  for annotation in results['annotations']:
    name = annotation['file_name']
    ids = read_ids(output / 'predictions' / name)
    assert ids.shape == sizes[name.removesuffix('.png')]
    assert set(np.unique(ids)) - {0} == {segment['id'] for segment in annotation['segments_info']}
    height, width = ids.shape
    overlay = Image.open(output / 'overlays' / name)
    assert overlay.width % width == 0 and overlay.width // width == overlay.height // height


def test_read_picture_undoes_what_cameras_and_editors_do(odd_pictures):
  folder, _ = odd_pictures
  plain = gradient()
  np.testing.assert_allclose(pictures.read_picture(folder / 'plain.jpg'), plain, atol=8)
  gray = pictures.read_picture(folder / 'gray.png')
  np.testing.assert_array_equal(gray, np.repeat(plain[..., :1], 3, axis=-1))
  np.testing.assert_array_equal(pictures.read_picture(folder / 'deep.png'), gray)
  turned = pictures.read_picture(folder / 'turned.jpg')
  np.testing.assert_allclose(turned, np.rot90(plain, -1), atol=8)
  with_alpha = gradient(channels=4)
  seen = pictures.read_picture(folder / 'alpha.png')
  share = with_alpha[..., 3:] / 255
  np.testing.assert_allclose(seen, with_alpha[..., :3] * share + 255 * (1 - share), atol=2)


def broken(folder, kind):
  path = folder / f'broken_{kind}.jpg'
  if kind == 'text':
    path.write_text('this is no picture')
  elif kind == 'empty':
    path.write_bytes(b'')
  elif kind == 'truncated':
    save(path, gradient())
    path.write_bytes(path.read_bytes()[:-100])
  return path


def test_broken_pictures_are_told_and_the_rest_goes_on(network, tmp_path, monkeypatch, capsys):
  paths, output = (
    [broken(tmp_path, kind) for kind in ('empty', 'text', 'truncated')],
    tmp_path / 'o',
  )
  for name in ('after.png', 'before.png', 'broken_not.png'):
    save(tmp_path / name, gradient())
  code, stdout, stderr = run(monkeypatch, capsys, 'x', tmp_path, output, '--batch_size', 1)
  assert code == 1 and '3 pictures' in stdout
  told = [line for line in stderr.splitlines() if 'left out: ' in line]
  assert len(told) == 3
  assert all(str(path) in line for path, line in zip(paths, told, strict=True))
  assert len(json.loads((output / 'predictions.json').read_text())['images']) == 3


def test_nothing_is_written_if_no_picture_can_be_read(tmp_path, monkeypatch, capsys):
  path = broken(tmp_path, 'text')
  outcome = run(monkeypatch, capsys, SHIPPED_MODEL, path, tmp_path / 'output')
  message = end_to_end.one_line_error(outcome)
  assert 'none of 1 ' in message
  assert not (tmp_path / 'output').exists()


def test_a_picture_that_is_not_there(model_dir, tmp_path, monkeypatch, capsys):
  outcome = run(monkeypatch, capsys, model_dir, tmp_path / 'no.jpg', tmp_path / 'output')
  assert 'no.jpg: ' in end_to_end.one_line_error(outcome)


def test_what_a_path_holds(tmp_path):
  for name in ('training/params.yaml', 'one/saved_model.pb', 'many/9/saved_model.pb',
               'many/10/saved_model.pb', 'many/11/half', 'many/old/saved_model.pb'):  # fmt: skip
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_bytes(b'')
  (tmp_path / 'model.bin').write_bytes(b'\0\0\0\0TFL3\0')
  assert find_model(tmp_path / 'training') == ('model_folder', tmp_path / 'training')
  assert find_model(tmp_path / 'one') == ('saved_model', tmp_path / 'one')
  assert find_model(tmp_path / 'many') == ('saved_model', tmp_path / 'many' / '10')
  assert find_model(tmp_path / 'model.bin') == ('tflite', tmp_path / 'model.bin')


@pytest.mark.parametrize('kind', ['nothing', 'folder', 'file'])
def test_a_path_that_holds_no_model(tmp_path, monkeypatch, capsys, kind):
  path = tmp_path / 'model'
  if kind == 'folder':
    path.mkdir()
  elif kind == 'file':
    path.write_bytes(b'TFL3')
  save(tmp_path / 'a.png', gradient())
  outcome = run(monkeypatch, capsys, path, tmp_path / 'a.png', tmp_path / 'output')
  assert f'{path}: ' in end_to_end.one_line_error(outcome)


def test_a_folder_without_pictures(model_dir, tmp_path, monkeypatch, capsys):
  (tmp_path / 'notes.txt').write_text('')
  outcome = run(monkeypatch, capsys, model_dir, tmp_path, tmp_path / 'output')
  assert str(tmp_path) in end_to_end.one_line_error(outcome)


@pytest.mark.slow
def test_two_pictures_of_one_name(model_dir, tmp_path, monkeypatch, capsys):
  save(tmp_path / 'a.png', gradient())
  save(tmp_path / 'a.jpg', gradient())
  code, _, _ = run(monkeypatch, capsys, model_dir, tmp_path, tmp_path / 'output')
  assert code == 0
  overlays = sorted(path.name for path in (tmp_path / 'output' / 'overlays').iterdir())
  assert overlays == ['a.png', 'a_2.png']
  results = json.loads((tmp_path / 'output' / 'predictions.json').read_text())
  assert [(one['id'], one['file_name']) for one in results['images']] == [
    ('a', 'a.jpg'),
    ('a_2', 'a.png'),
  ]


class Network:
  """Stands in for a trained network: all is the first stuff category. It can fail."""

  def __init__(self, fails_at=None, error=None):
    self.fails_at, self.error, self.number = fails_at, error, 0
    self.model = Model(Predictor(self.segment, CATEGORIES))

  def segment(self, images):
    self.number += 1
    if self.number == self.fails_at:
      raise self.error
    scores = Scores(np.zeros(0), np.ones(CATEGORIES.num_stuff))
    labels = [np.full(image.shape[:2], 1 + CATEGORIES.num_things) for image in images]
    return [segments_of_masks(one, np.zeros_like(one), CATEGORIES, scores) for one in labels]


@pytest.fixture
def network(monkeypatch):
  """Lets `predict` use a `Network`, which may be changed."""
  found = Network()
  monkeypatch.setattr(predict, 'load_model', lambda _: found.model)
  return found


def test_numbers_that_are_the_same_and_those_that_are_not(network, tmp_path, monkeypatch, capsys):
  for name in ('cam1/1.jpg', 'cam1/2.jpg', 'cam2/0001.jpg', 'cam2/0003.jpg'):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    save(tmp_path / name, gradient(4, 6))
  code, _, _ = end_to_end.run_command(
    monkeypatch, capsys, predict.main, '--images', tmp_path / 'cam1', tmp_path / 'cam2',
    '--output_dir', tmp_path / 'o',
  )  # fmt: skip
  assert code == 0
  results = json.loads((tmp_path / 'o' / 'predictions.json').read_text())
  assert [one['id'] for one in results['images']] == ['1', 2, '0001', 3]
  assert [one['file_name'] for one in results['annotations']] == [
    '1.png', '2.png', '0001.png', '0003.png',
  ]  # fmt: skip


@pytest.mark.parametrize(
  ('error', 'code'),
  [(KeyboardInterrupt(), 130), (InputError('too large'), 2), (MemoryError('no memory'), 2)],
)
def test_what_is_done_stays_whatever_ends_the_run(
  network, tmp_path, monkeypatch, capsys, error, code
):
  for number in range(4):
    save(tmp_path / f'{number}.png', gradient(4, 6))
  network.fails_at, network.error = 3, error
  outcome = run(monkeypatch, capsys, 'x', tmp_path, tmp_path / 'o', '--batch_size', 1)
  assert outcome[0] == code
  results = json.loads((tmp_path / 'o' / 'predictions.json').read_text())
  assert [one['id'] for one in results['images']] == [0, 1]
  for folder in ('overlays', 'predictions'):
    assert sorted(p.name for p in (tmp_path / 'o' / folder).iterdir()) == ['0.png', '1.png']
  assert sorted(p.name for p in (tmp_path / 'o').iterdir()) == [
    'overlays', 'predictions', 'predictions.json',
  ]  # fmt: skip


def test_earlier_results_are_replaced_only_on_request(network, tmp_path, monkeypatch, capsys):
  save(tmp_path / 'a.png', gradient(4, 6))
  flags = (monkeypatch, capsys, 'x', tmp_path / 'a.png', tmp_path / 'o')
  assert run(*flags)[0] == 0
  assert '--overwrite' in end_to_end.one_line_error(run(*flags))
  assert network.number == 1
  assert run(*flags, '--overwrite')[0] == 0


def test_the_default_folder_is_a_new_one(network, tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  save(tmp_path / 'a.png', gradient(4, 6))
  for name in ('oanet_results', 'oanet_results_2', 'oanet_results_3'):
    code, stdout, _ = end_to_end.run_command(monkeypatch, capsys, predict.main, '--images', 'a.png')
    assert code == 0 and f'{name}/overlays' in stdout
    assert (tmp_path / name / 'predictions.json').is_file()


def test_a_second_prediction_into_one_folder_is_refused(network, tmp_path, monkeypatch, capsys):
  save(tmp_path / 'a.png', gradient(4, 6))
  with files.only_one(tmp_path / 'o', 'prediction'):
    outcome = run(monkeypatch, capsys, 'x', tmp_path / 'a.png', tmp_path / 'o')
    assert 'another prediction is running' in end_to_end.one_line_error(outcome)
  assert not (tmp_path / 'o').exists()


@pytest.mark.parametrize('place', ['', 'overlays', 'predictions'])
def test_no_result_falls_on_a_picture(network, tmp_path, monkeypatch, capsys, place):
  folder = tmp_path / 'o' / place
  folder.mkdir(parents=True)
  save(folder / 'a.png', gradient(4, 6))
  before = (folder / 'a.png').read_bytes()
  (tmp_path / 'link').symlink_to(tmp_path / 'o')
  for output in (tmp_path / 'o', tmp_path / 'link'):
    outcome = run(monkeypatch, capsys, 'x', folder, output, '--overwrite')
    assert 'a.png is read from there' in end_to_end.one_line_error(outcome)
  assert (folder / 'a.png').read_bytes() == before
  assert not network.number


@pytest.mark.parametrize(
  ('fusion', 'message'),
  [
    ('oracle', 'oanet evaluate'),
    ('class_prior', 'oanet class_prior'),
    ('best', "'best'"),
  ],
)
def test_a_fusion_that_cannot_be_had(model_dir, tmp_path, monkeypatch, capsys, fusion, message):
  save(tmp_path / 'a.png', gradient())
  output = tmp_path / 'output'
  outcome = run(monkeypatch, capsys, model_dir, tmp_path / 'a.png', output, '--fusion', fusion)
  assert message in end_to_end.one_line_error(outcome)
  assert not output.exists()


@pytest.mark.slow
def test_a_fusion_with_its_file(model_dir, tmp_path, monkeypatch, capsys):
  save(tmp_path / 'a.png', gradient())
  categories = PanopticCategories.from_json(model_dir / 'categories.json')
  pixels = np.zeros([categories.num_things] * 2, int)
  ClassPrior(categories, pixels).to_json(tmp_path / 'prior.json')
  code, stdout, _ = run(
    monkeypatch, capsys, model_dir, tmp_path / 'a.png', tmp_path / 'output',
    '--params_override', f'task.model.fusion.method=class_prior,task.model.fusion.class_prior='
    f'{tmp_path}/prior.json',
  )  # fmt: skip
  assert code == 0 and '1 pictures' in stdout


def test_a_model_folder_without_checkpoint(model_dir, tmp_path, monkeypatch, capsys):
  save(tmp_path / 'a.png', gradient())
  (tmp_path / 'model').mkdir()
  for name in ('params.yaml', 'categories.json'):
    (tmp_path / 'model' / name).write_text((model_dir / name).read_text())
  outcome = run(monkeypatch, capsys, tmp_path / 'model', tmp_path / 'a.png', tmp_path / 'output')
  assert str(tmp_path / 'model') in end_to_end.one_line_error(outcome)
  assert not (tmp_path / 'output').exists()


@pytest.mark.slow
def test_testdev_zip(model_dir, tmp_path, monkeypatch, capsys):
  for name in ('000000000007.png', '000000000139.png'):
    save(tmp_path / name, gradient())
  zipped = tmp_path / 'panoptic_test-dev2017_oanet_results.zip'
  code, stdout, _ = run(
    monkeypatch, capsys, model_dir, tmp_path, tmp_path / 'output', '--testdev', zipped
  )
  assert code == 0 and stdout.splitlines()[-1] == str(zipped)
  with zipfile.ZipFile(zipped) as archive:
    name = zipped.stem
    pngs = {f'{name}/000000000007.png', f'{name}/000000000139.png'}
    assert set(archive.namelist()) == {f'{name}.json', *pngs}
    content = json.loads(archive.read(f'{name}.json'))
  assert [entry['image_id'] for entry in content['annotations']] == [7, 139]


def test_a_testdev_zip_that_the_server_would_not_take(model_dir, tmp_path, monkeypatch, capsys):
  save(tmp_path / 'plain.png', gradient())
  outcome = run(monkeypatch, capsys, model_dir, tmp_path, tmp_path / 'o', '--testdev', 'mine.zip')
  assert 'mine.zip' in end_to_end.one_line_error(outcome)
  assert not (tmp_path / 'o').exists()


@pytest.mark.parametrize(
  ('arguments', 'told'),
  [
    ('--model m', '--images'),
    ('--video v.mp4', '--output'),
    ('--camera 0', '--output'),
    ('--output o.mp4', '--output'),
    ('--images a.png --output o.mp4', '--output'),
    ('--images a.png --video v.mp4 --output o.mp4', '--video'),
    ('--video v.mp4 --camera 0 --output o.mp4', '--camera'),
    ('--video v.mp4 --output o.mp4 --output_dir d', '--output_dir'),
    ('--video v.mp4 --output o.mp4 --batch_size 2', '--batch_size'),
    ('--camera 0 --output o.mp4 --testdev z.zip', '--testdev'),
  ],
)
def test_arguments_that_do_not_go_together(capsys, arguments, told):
  with pytest.raises(SystemExit) as stop:
    predict.parse_arguments(arguments.split())
  assert stop.value.code == 2
  assert told in capsys.readouterr().err.splitlines()[-1]


def test_a_video_without_pyav(tmp_path, monkeypatch, capsys):
  monkeypatch.setitem(sys.modules, 'av', None)
  monkeypatch.delitem(sys.modules, 'oanet_tf.prediction.video', raising=False)
  monkeypatch.delattr(prediction, 'video', raising=False)
  outcome = end_to_end.run_command(
    monkeypatch, capsys, predict.main, '--video', tmp_path / 'v.mp4', '--output', tmp_path / 'o.mp4'
  )
  assert 'oanet_tf[video]' in end_to_end.one_line_error(outcome)


def test_the_example_of_the_readme(model_dir, tmp_path, monkeypatch, capsys):
  save(tmp_path / 'photo.jpg', gradient())
  readme = pathlib.Path(__file__).resolve().parents[1] / 'README.md'
  (example,) = re.findall(r'```python\n(.*?)```', readme.read_text(), re.DOTALL)
  monkeypatch.chdir(tmp_path)
  names = {}
  exec(example.replace('runs/quickstart/model', str(model_dir)), names)
  result = names['result']
  assert result.segmentation.shape == gradient().shape[:2]
  assert capsys.readouterr().out.strip() == str(
    [(segment['label'], segment['score']) for segment in result.segments_info]
  )
  assert (tmp_path / 'photo_overlay.png').is_file()
