import numpy as np
import pytest

from tests.conftest import TESTS
from tests.weights.files import write_pickle

SHARED = TESTS.parents[1] / 'shared'


def stand_in(name):
  folder = SHARED / name
  if not folder.is_dir():
    pytest.skip(f'the stand-in for published weights is not at {folder}')
  return folder


@pytest.fixture(scope='session')
def detectron2_stand_in():
  """The folder of Detectron2's Panoptic FPN with random weights, and its own outputs."""
  return stand_in('detectron2_panoptic_fpn')


@pytest.fixture(scope='session')
def model_garden_stand_in():
  """The folder of a checkpoint of the Model Garden's Panoptic FPN, and its own outputs."""
  return stand_in('model_garden_panoptic_fpn')


@pytest.fixture(scope='session')
def detectron2_tensors(detectron2_stand_in):
  """The stand-in's tensors by name."""
  stored = np.load(detectron2_stand_in / 'weights.npz')
  return {
    name: stored[name] * stored[f'{name}/step'] if f'{name}/step' in stored else stored[name]
    for name in stored.files
    if not name.endswith('/step')
  }


@pytest.fixture(scope='session')
def detectron2_file(detectron2_tensors, tmp_path_factory):
  """The stand-in as a file of Detectron2's model zoo."""
  path = tmp_path_factory.mktemp('detectron2') / 'model_final.pkl'
  write_pickle(path, detectron2_tensors)
  return path
