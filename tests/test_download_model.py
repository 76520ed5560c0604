"""`scripts/download_model.sh` against a server of our own."""

import base64
import functools
import hashlib
import json
import random

import pytest

from tests.mirror import Mirror, run_script, serving

DETECTRON2 = 'detectron2/COCO-PanopticSegmentation/panoptic_fpn_R_50_3x/139514569'


@pytest.fixture
def download(tmp_path):
  """Runs the script against a mirror of `tmp_path / 'mirror'`."""
  with serving(tmp_path / 'mirror') as url:
    yield functools.partial(run_script, 'download_model.sh', cwd=tmp_path, MODEL_URL=url)


# Gives 5,000 bytes of `publish` the MD5 prefix in the file's name.
FITTING_END = (19163981).to_bytes(4, 'little')


def publish(tmp_path, path, size=5000, end=b''):
  file = tmp_path / 'mirror' / path
  file.parent.mkdir(parents=True, exist_ok=True)
  file.write_bytes(random.Random(size).randbytes(size) + end)
  return file.read_bytes()


def test_detectron2s_goes_on_and_says_what_is_next(download, tmp_path):
  content = publish(tmp_path, f'{DETECTRON2}/model_final_c10459.pkl', end=FITTING_END)
  begun = tmp_path / 'runs/published/detectron2_r50_3x.pkl.part'
  begun.parent.mkdir(parents=True)
  begun.write_bytes(content[:1000])
  Mirror.starts.clear()
  first, second = download('detectron2_r50_3x'), download('detectron2_r50_3x')
  assert first.returncode == second.returncode == 0 and Mirror.starts == [999]
  assert (
    first.stdout
    == second.stdout
    == (
      'oanet import_weights --from runs/published/detectron2_r50_3x.pkl '
      '--model_dir runs/detectron2_r50_3x\n'
    )
  )
  assert 'CC BY-SA 3.0' in first.stderr
  assert (tmp_path / 'runs/published/detectron2_r50_3x.pkl').read_bytes() == content
  assert not begun.exists()


def test_a_file_whose_name_has_another_checksum_is_named(download, tmp_path):
  publish(tmp_path, f'{DETECTRON2}/model_final_c10459.pkl')
  outcome = download('detectron2_r50_3x')
  assert outcome.returncode == 2 and not outcome.stdout
  assert 'error: runs/published/detectron2_r50_3x.pkl.part: its md5' in outcome.stderr


def publish_checkpoint(tmp_path, **changes):
  items = []
  for name in ('ckpt-66528.data-00000-of-00001', 'ckpt-66528.index', 'ckpt-9.index', 'params.yaml'):
    path = f'vision/panoptic/panoptic_fpn/panoptic_fpn_3x/{name}'
    content = publish(tmp_path, f'tf_model_garden/{path}', 3000 + len(name))
    md5 = base64.b64encode(hashlib.md5(content).digest()).decode()
    items.append({'name': path, 'size': str(len(content)), 'md5Hash': md5, **changes})
  listing = tmp_path / 'mirror/storage/v1/b/tf_model_garden/o'
  listing.parent.mkdir(parents=True)
  listing.write_text(json.dumps({'items': items}))


def test_the_model_gardens_files_are_all_fetched(download, tmp_path):
  publish_checkpoint(tmp_path)
  outcome = download('model_garden_3x', 'my models')
  assert outcome.returncode == 0, outcome.stderr
  assert '--from my models/model_garden_3x/ckpt-66528 --model_dir' in outcome.stdout
  folder = tmp_path / 'my models/model_garden_3x'
  assert sorted(path.name for path in folder.iterdir()) == [
    'ckpt-66528.data-00000-of-00001', 'ckpt-66528.index', 'ckpt-9.index', 'params.yaml',
  ]  # fmt: skip
  Mirror.starts.clear()
  assert download('model_garden_3x', 'my models').stdout == outcome.stdout
  # The list of files alone.
  assert Mirror.starts == [0]


def test_a_file_with_another_checksum_is_named(download, tmp_path):
  publish_checkpoint(tmp_path, md5Hash=base64.b64encode(bytes(16)).decode())
  outcome = download('model_garden_3x')
  assert outcome.returncode == 2 and not outcome.stdout
  assert 'ckpt-66528.data-00000-of-00001.part: its md5' in outcome.stderr


def test_an_answer_that_is_no_list_is_named(download, tmp_path):
  listing = tmp_path / 'mirror/storage/v1/b/tf_model_garden/o'
  listing.parent.mkdir(parents=True)
  for text in ('<html>', '[]', '{}', '{"items": [{"name": "a"}]}', '[' * 100_000):
    listing.write_text(text)
    outcome = download('model_garden_3x')
    assert outcome.returncode == 2 and 'tf_model_garden/o?prefix=' in outcome.stderr


def test_what_is_not_there_is_named(download, tmp_path):
  (tmp_path / 'mirror').mkdir()
  for name in ('detectron2_r101_3x', 'model_garden_1x'):
    outcome = download(name)
    assert outcome.returncode == 2 and not outcome.stdout
    assert 'error: http://127.0.0.1:' in outcome.stderr and '404' in outcome.stderr


@pytest.mark.parametrize(
  'arguments', [[], ['detectron2'], ['--help2'], ['detectron2_r50_3x', 'a', 'b']]
)
def test_explains_itself_when_misused(arguments, download):
  outcome = download(*arguments)
  assert outcome.returncode == 2 and 'usage:' in outcome.stderr
  assert 'detectron2_r50_3x' in download('--help').stdout
