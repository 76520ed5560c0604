"""`scripts/download_coco.sh` and what it runs against a server of our own."""

import functools
import io
import subprocess
import sys
import zipfile

import pytest

from oanet_tf.downloads import coco
from oanet_tf.errors import InputError
from tests.mirror import Mirror, run_script, serving

ANNOTATIONS = [
  'annotations/instances_train2017.json',
  'annotations/instances_val2017.json',
  'annotations/panoptic_train2017.json',
  'annotations/panoptic_train2017/1.png',
  'annotations/panoptic_val2017.json',
  'annotations/panoptic_val2017/1.png',
]


def zipped(**contents):
  stream = io.BytesIO()
  with zipfile.ZipFile(stream, 'w') as archive:
    for name, content in contents.items():
      archive.writestr(name, content)
  return stream.getvalue()


@pytest.fixture
def url(tmp_path):
  """The address of a mirror with archives as COCO's."""
  folder = tmp_path / 'mirror'
  for name in ('zips', 'annotations'):
    (folder / name).mkdir(parents=True)
  panoptic, instances = {}, {}
  for split in ('train2017', 'val2017'):
    (folder / f'zips/{split}.zip').write_bytes(zipped(**{f'{split}/1.jpg': 'an image'}))
    instances[f'annotations/instances_{split}.json'] = '{}'
    panoptic[f'annotations/panoptic_{split}.json'] = '{}'
    panoptic[f'annotations/panoptic_{split}.zip'] = zipped(**{f'panoptic_{split}/1.png': 'ids'})
  folder = folder / 'annotations'
  (folder / 'annotations_trainval2017.zip').write_bytes(zipped(**instances))
  (folder / 'panoptic_annotations_trainval2017.zip').write_bytes(zipped(**panoptic))
  Mirror.starts.clear()
  with serving(tmp_path / 'mirror') as url:
    yield url


def in_folder(folder):
  paths = (path.relative_to(folder).as_posix() for path in folder.rglob('*') if path.is_file())
  return sorted(path for path in paths if not path.endswith('.zip.done'))


def test_all_is_fetched_and_unpacked_once(url, tmp_path):
  download = functools.partial(run_script, 'download_coco.sh', cwd=tmp_path, COCO_URL=url)
  outcome = download('--annotations_only', 'my data/coco')
  folder = tmp_path / 'my data/coco'
  assert outcome.returncode == 0 and not outcome.stdout, outcome.stderr
  assert in_folder(folder) == ANNOTATIONS and len(Mirror.starts) == 2
  assert f'{url}/annotations/annotations_trainval2017.zip: no checksum' in outcome.stderr
  assert download('my data/coco').returncode == 0
  assert in_folder(folder) == [*ANNOTATIONS, 'train2017/1.jpg', 'val2017/1.jpg']
  assert download('my data/coco').returncode == 0 and len(Mirror.starts) == 4


def test_an_archive_that_is_there_is_unpacked(url, tmp_path, monkeypatch):
  monkeypatch.setenv('COCO_URL', url)
  (tmp_path / 'val2017.zip').write_bytes((tmp_path / 'mirror/zips/val2017.zip').read_bytes())
  coco.download(tmp_path)
  assert (tmp_path / 'val2017/1.jpg').read_text() == 'an image' and len(Mirror.starts) == 3
  assert not list(tmp_path.glob('*.zip'))


def test_a_damaged_archive_is_not_marked_as_unpacked(url, tmp_path, monkeypatch):
  monkeypatch.setenv('COCO_URL', url)
  archive = tmp_path / 'mirror/zips/val2017.zip'
  archive.write_bytes(archive.read_bytes().replace(b'an image', b'no image'))
  with pytest.raises(InputError, match=f'{tmp_path}/coco/val2017.zip: is damaged'):
    coco.download(tmp_path / 'coco')
  assert [path.name for path in tmp_path.glob('coco/*.done')] == ['train2017.zip.done']


def test_cocos_own_server_is_not_trusted(url, tmp_path, monkeypatch):
  monkeypatch.delenv('COCO_URL', raising=False)
  monkeypatch.setattr(coco, '_SERVER', url)
  part = tmp_path / 'coco/annotations_trainval2017.zip.part'
  with pytest.raises(InputError, match=f'{part}: its sha256'):
    coco.download(tmp_path / 'coco', annotations_only=True)
  assert list(part.parent.iterdir()) == [part]


@pytest.mark.parametrize('arguments', [[], ['--images'], ['a', 'b']])
def test_explains_itself_when_misused(arguments, tmp_path):
  outcome = run_script('download_coco.sh', *arguments, cwd=tmp_path)
  assert outcome.returncode == 2 and 'usage: oanet download' in outcome.stderr
  assert not list(tmp_path.iterdir())


def test_the_command_loads_neither_numpy_nor_tensorflow():
  command = [sys.executable, '-X', 'importtime', '-m', 'oanet_tf.download', 'coco', '--help']
  done = subprocess.run(command, capture_output=True, text=True, check=True)
  assert 'oanet_tf.downloads.coco' in done.stderr
  assert 'numpy' not in done.stderr and 'tensorflow' not in done.stderr
