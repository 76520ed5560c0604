import pytest

from tests.data.coco_files import CocoFiles


@pytest.fixture
def coco(tmp_path):
  """A tiny dataset that tests change and write."""
  return CocoFiles(tmp_path / 'coco')
