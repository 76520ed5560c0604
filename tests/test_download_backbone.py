"""`scripts/download_backbone.sh` against a server of our own."""

import functools
import random
import tarfile

import pytest

from oanet_tf.config import experiments
from tests.mirror import Mirror, run_script, serving


@pytest.fixture
def download(tmp_path):
  """Runs the script against a mirror of `tmp_path / 'mirror'`."""
  with serving(tmp_path / 'mirror') as url:
    yield functools.partial(run_script, 'download_backbone.sh', cwd=tmp_path, BACKBONE_URL=url)


def test_goes_on_unpacks_and_prints_the_setting(download, tmp_path):
  folder = tmp_path / 'mirror/tf_model_garden/vision/resnet'
  folder.mkdir(parents=True)
  with tarfile.open(folder / 'resnet-50-i224.tar.gz', 'w:gz') as archive:
    for name in ('ckpt-1.index', '._ckpt-1.index', 'ckpt-1.data-00000-of-00001'):
      (tmp_path / name).write_bytes(random.Random(0).randbytes(5000))
      archive.add(tmp_path / name, f'inside/{name}')
  begun = tmp_path / 'runs/backbones/resnet-50-i224.tar.gz.part'
  begun.parent.mkdir(parents=True)
  begun.write_bytes((folder / 'resnet-50-i224.tar.gz').read_bytes()[:1000])
  Mirror.starts.clear()
  first, second = download(), download('50')
  assert first.returncode == 0 and Mirror.starts == [999]
  assert first.stdout == second.stdout
  assert first.stdout == (
    'task.init_checkpoint=runs/backbones/resnet-50-i224/inside/ckpt-1,'
    'task.model.backbone.resnet.model_id=50\n'
  )
  assert [path.name for path in begun.parent.iterdir()] == ['resnet-50-i224']
  config = experiments.load_experiment('oanet_r50fpn_coco', (), first.stdout.strip())
  assert config.task.init_checkpoint == 'runs/backbones/resnet-50-i224/inside/ckpt-1'


def test_refuses_a_file_with_another_checksum(download, tmp_path):
  folder = tmp_path / 'mirror/tensorflow/keras-applications/resnet'
  folder.mkdir(parents=True)
  name = 'resnet101_weights_tf_dim_ordering_tf_kernels_notop.h5'
  (folder / name).write_text('not these')
  outcome = download('--keras', '101', 'weights')
  assert outcome.returncode == 2 and not outcome.stdout
  assert f'error: weights/{name}.part: ' in outcome.stderr
  assert [path.name for path in (tmp_path / 'weights').iterdir()] == [f'{name}.part']


def test_an_archive_without_a_checkpoint_is_named(download, tmp_path):
  folder = tmp_path / 'mirror/tf_model_garden/vision/resnet'
  folder.mkdir(parents=True)
  with tarfile.open(folder / 'resnet-152-i224.tar.gz', 'w:gz') as archive:
    archive.add(folder, 'nothing', recursive=False)
  outcome = download('152')
  assert outcome.returncode == 2 and not outcome.stdout
  assert 'error: runs/backbones/resnet-152-i224: ' in outcome.stderr


@pytest.mark.parametrize('arguments', [['18'], ['--kears'], ['50', 'a', 'b']])
def test_explains_itself_when_misused(arguments, download):
  outcome = download(*arguments)
  assert outcome.returncode == 2 and 'usage:' in outcome.stderr
  assert '--keras' in download('--help').stdout
