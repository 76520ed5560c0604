"""`scripts/coco_network.sh` from nothing to a segmented photo, against a server of our own."""

import hashlib
import itertools
import json
import shutil
import zipfile

import pytest

from oanet_tf.model_folder import ModelFolder
from tests.mirror import run_script, serving
from tests.weights import detectron2_network
from tests.weights.files import write_pickle

MODEL = 'panoptic_fpn_R_50_3x/139514569/model_final_c10459.pkl'


def publish_annotations(sample, folder):
  """COCO's archives, with the sample's val2017 as both splits.

  The PNGs are in archives within the archive.
  """
  folder.mkdir(parents=True)
  source = sample / 'annotations'
  with zipfile.ZipFile(folder / 'annotations_trainval2017.zip', 'w') as archive:
    for split in ('train2017', 'val2017'):
      archive.write(source / 'instances_val2017.json', f'annotations/instances_{split}.json')
  with zipfile.ZipFile(folder / 'panoptic_annotations_trainval2017.zip', 'w') as archive:
    for split in ('train2017', 'val2017'):
      archive.write(source / 'panoptic_val2017.json', f'annotations/panoptic_{split}.json')
      with zipfile.ZipFile(folder / f'panoptic_{split}.zip', 'w') as inner:
        for path in (source / 'panoptic_val2017').iterdir():
          inner.write(path, f'panoptic_{split}/{path.name}')
      archive.write(folder / f'panoptic_{split}.zip', f'annotations/panoptic_{split}.zip')


def end_with_md5(path, prefix):
  """Appends what gives a file an MD5 sum with a prefix; it takes half a minute."""
  start = hashlib.md5(path.read_bytes())
  for number in itertools.count():
    end, candidate = number.to_bytes(4, 'little'), start.copy()
    candidate.update(end)
    if candidate.hexdigest().startswith(prefix):
      with path.open('ab') as file:
        file.write(end)
      return


@pytest.mark.slow
def test_from_nothing_to_a_photo_and_again(coco_sample, tmp_path):
  mirror = tmp_path / 'mirror'
  publish_annotations(coco_sample, mirror / 'annotations')
  weights = mirror / 'detectron2/COCO-PanopticSegmentation' / MODEL
  weights.parent.mkdir(parents=True)
  write_pickle(weights, detectron2_network.tensors())
  end_with_md5(weights, 'c10459')
  photo = coco_sample / 'val2017' / '000000000139.jpg'
  shutil.copy(photo, tmp_path / 'my photo.jpg')
  folder = tmp_path / 'my network'
  with serving(mirror) as url:
    urls = {'MODEL_URL': url, 'COCO_URL': url}
    arguments = ['--steps', '2', '--images', 'my photo.jpg', 'my network']
    outcome = run_script('coco_network.sh', *arguments, cwd=tmp_path, **urls)
    assert outcome.returncode == 0, outcome.stderr[-2000:]
    assert (folder / 'results/overlays/my photo.png').is_file()
    model = ModelFolder(folder / 'model')
    assert model.fusion() == 'srm'
    record = json.loads((folder / 'model/import.json').read_text())
    assert record['ranking_module'] == str(folder / 'ranking_module')
    before = {path: path.stat().st_mtime_ns for path in (folder / 'model').iterdir()}
    again = run_script('coco_network.sh', *arguments, cwd=tmp_path, **urls)
    assert again.returncode == 0, again.stderr[-2000:]
    assert before == {path: path.stat().st_mtime_ns for path in (folder / 'model').iterdir()}


@pytest.mark.parametrize('arguments', [['--model'], ['--nothing'], ['a', 'b']])
def test_explains_itself_when_misused(arguments, tmp_path):
  outcome = run_script('coco_network.sh', *arguments, cwd=tmp_path)
  assert outcome.returncode == 2 and 'usage:' in outcome.stderr
