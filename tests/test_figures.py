import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from oanet_tf import figures, files
from oanet_tf.data.pictures import read_picture
from oanet_tf.model_folder import ModelFolder
from oanet_tf.paper import examples
from oanet_tf.prediction.model import SHIPPED_PICTURES as PICTURES
from oanet_tf.prediction.tensorflow_predictors import of_trained
from tests import end_to_end
from tests.small_files import small_files


def run(monkeypatch, capsys, *arguments):
  return end_to_end.run_command(monkeypatch, capsys, figures.main, *arguments)


@pytest.fixture(scope='module')
def model_dir(trained):
  return trained[0] / 'model'


@pytest.fixture(scope='module')
def pictures(trained):
  return sorted((trained[0] / 'scenes' / 'val').glob('*.jpg'))


@pytest.mark.slow
def test_predictions_are_those_of_predict(model_dir, pictures):
  found = list(examples.predictions(model_dir, pictures, ['heuristic', 'srm']))
  assert len(found) == 3
  for method in ('heuristic', 'srm'):
    predictor = of_trained(ModelFolder(model_dir).load(), method)
    for path, one in zip(pictures, found, strict=True):
      (expected,) = predictor.segment([read_picture(path)])
      segmentation = one.segmentations[method]
      np.testing.assert_array_equal(segmentation.index, expected.index)
      np.testing.assert_array_equal(segmentation.category_ids, expected.category_ids)
  for one in found:
    assert one.masks.shape == (len(one.labels), *one.image.shape[:2])
    assert (one.ranking_scores >= 0).all() and (np.diff(one.detection_scores) <= 0).all()


@pytest.mark.slow
def test_draws_what_the_paper_draws(model_dir, pictures, tmp_path, monkeypatch, capsys):
  for name, flags in (
    ('ranking_map', ['--image', pictures[0]]),
    ('fusions', ['--images', *pictures[:2], '--fusions', 'heuristic,srm,pairwise']),
    ('gradients', []),
  ):
    output = tmp_path / f'{name}.png'
    code, stdout, _ = run(
      monkeypatch, capsys, name, '--model_dir', model_dir, *flags, '--output', output
    )
    assert code == 0 and stdout == f'{output}\n'
    assert np.asarray(Image.open(output).convert('L')).std() > 5


def test_names_of_networks(model_dir, tmp_path):
  assert figures.network_names([model_dir]) == ['sharing: backbone_and_fpn']
  assert figures.network_names([model_dir, model_dir])[1].endswith(f'({model_dir})')
  other = tmp_path / 'other'
  other.mkdir()
  for name in ('params.yaml', 'categories.json'):
    shutil.copy(model_dir / name, other)
  text = (other / 'params.yaml').read_text().replace('sharing: backbone_and_fpn', 'sharing: none')
  (other / 'params.yaml').write_text(text)
  names = figures.network_names([model_dir, other])
  assert names == ['sharing: backbone_and_fpn', 'sharing: none']


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['fusions', '--images', 'PICTURE', '--model_dir', 'MODEL', '--fusions', 'oracle'], 'oracle'),
    (['scores', '--image', 'none.jpg', '--model_dir', 'MODEL'], 'none.jpg: '),
    (['scores', '--image', 'MODEL', '--model_dir', 'MODEL'], 'MODEL'),
    (['scores', '--image', str(PICTURES), '--model_dir', 'MODEL'], f'{PICTURES}: has 2 pictures'),
    (['fusions', '--images', 'x.jpg', '--model_dir', '.'], 'params.yaml'),
    (['gradients', '--model_dir', '.'], 'metrics.jsonl: '),
  ],
)
def test_what_is_wrong_is_told_in_one_line(arguments, message, model_dir, tmp_path):
  arguments = [one.replace('MODEL', str(model_dir)) for one in arguments]
  message = message.replace('MODEL', str(model_dir))
  output = tmp_path / 'figure.png'
  command = [sys.executable, '-m', 'oanet_tf.figures', *arguments, '--output', str(output)]
  done = subprocess.run(command, capture_output=True, text=True)
  assert done.returncode == 2 and message in done.stderr and done.stderr.count('\n') == 1
  assert not output.exists()


def test_metrics_without_gradient_norms_tell_how_to_get_them(tmp_path, monkeypatch, capsys):
  (tmp_path / 'metrics.jsonl').write_text('{"step": 1, "split": "train", "loss": 2.0}\n')
  outcome = run(
    monkeypatch, capsys, 'gradients', '--model_dir', tmp_path, '--output', tmp_path / 'f.png'
  )
  assert 'trainer.gradient_norms=true' in end_to_end.one_line_error(outcome)


def draw_gradients(monkeypatch, capsys, folder, output, *more):
  arguments = ('gradients', '--model_dir', folder, '--output', output, *more)
  return run(monkeypatch, capsys, *arguments)


@pytest.fixture
def metrics(tmp_path):
  """A folder whose metrics were cut off, as by a full disk."""
  lines = [f'{{"step": {step}, "gradient_norm/srm": 0.5}}\n' for step in (1, 2)]
  (tmp_path / 'metrics.jsonl').write_text(''.join(lines) + '{"step": 3, "gradi')
  return tmp_path


def test_a_figure_replaces_only_what_it_should(metrics, monkeypatch, capsys):
  output = metrics / 'new' / 'f.png'
  assert draw_gradients(monkeypatch, capsys, metrics, output)[0] == 0
  before = output.read_bytes()
  outcome = draw_gradients(monkeypatch, capsys, metrics, output)
  assert f'{output}: ' in end_to_end.one_line_error(outcome)
  assert draw_gradients(monkeypatch, capsys, metrics, output, '--overwrite')[0] == 0
  assert output.read_bytes() == before and [output] == list(output.parent.iterdir())
  for wrong in (metrics / 'f.jpg', metrics / 'metrics.jsonl' / 'f.png', output.parent):
    outcome = draw_gradients(monkeypatch, capsys, metrics, wrong, '--overwrite')
    assert f'{wrong}: ' in end_to_end.one_line_error(outcome)


def test_a_picture_is_not_overwritten(model_dir, tmp_path, monkeypatch, capsys):
  picture = tmp_path / 'picture.png'
  Image.new('RGB', (20, 30)).save(picture)
  outcome = run(
    monkeypatch, capsys, 'scores', '--model_dir', model_dir, '--image', picture, '--output',
    picture, '--overwrite',
  )  # fmt: skip
  assert f'{picture}: is read' in end_to_end.one_line_error(outcome)


def test_a_second_drawing_of_a_figure_is_refused(metrics, monkeypatch, capsys):
  with files.only_one(metrics, 'drawing of f.png', 'f.png'):
    outcome = draw_gradients(monkeypatch, capsys, metrics, metrics / 'f.png')
    assert 'f.png' in end_to_end.one_line_error(outcome)
    assert draw_gradients(monkeypatch, capsys, metrics, metrics / 'g.png')[0] == 0


def test_of_a_figure_that_the_disk_has_no_room_for_nothing_is_left(metrics, monkeypatch, capsys):
  before = sorted(metrics.iterdir())
  with small_files(1000):
    outcome = draw_gradients(monkeypatch, capsys, metrics, metrics / 'f.png')
  assert f'{metrics}/f.png: ' in end_to_end.one_line_error(outcome)
  assert sorted(metrics.iterdir()) == before
