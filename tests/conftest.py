import pathlib
import signal
from collections.abc import Callable
from typing import NamedTuple

import hypothesis
import pytest

from tests import devices  # noqa: F401  Before TensorFlow is used.

# isort: split

import tensorflow as tf

from oanet_tf.config import experiments
from oanet_tf.model_folder import ModelFolder
from oanet_tf.serving import parity, saved_model
from oanet_tf.training import loop
from tests import end_to_end, references
from tests.categories import TIE_ON_PERSON
from tests.serving.reference import image_predictor

# Timings on a busy machine say nothing.
hypothesis.settings.register_profile('untimed', deadline=None)
hypothesis.settings.load_profile('untimed')

# A shell that starts the tests in the background has SIGINT ignored, also by what they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
  signal.signal(signal.SIGINT, signal.default_int_handler)

# What the marker `heavy` is for: tests that use these fixtures, and those in these files.
HEAVY_FIXTURES = {'trained', 'trained_srm'}
HEAVY_FILES = {
  'data/test_input_pipeline.py',
  'data/test_resume.py',
  'modeling/fusion/test_in_litert.py',
  'modeling/test_benchmark_model.py',
  'modeling/test_keras_resnet.py',
  'modeling/test_oanet.py',
  'serving/test_panoptic_module.py',
  'serving/test_tflite_file.py',
  'test_benchmarks.py',
  'test_srm_only.py',
  'test_train.py',
  'weights/test_initialization.py',
  'training/test_multi_worker.py',
  'training/test_resume.py',
  'training/test_step.py',
  'training/test_task.py',
}
TESTS = pathlib.Path(__file__).resolve().parent


def pytest_collection_modifyitems(items):
  assert all((TESTS / name).is_file() for name in HEAVY_FILES)
  for item in items:
    is_heavy = item.path.relative_to(TESTS).as_posix() in HEAVY_FILES
    if is_heavy or HEAVY_FIXTURES & {*item.fixturenames}:
      item.add_marker('heavy')


SAMPLE = TESTS.parents[1] / 'shared' / 'coco_sample'


@pytest.fixture(scope='session')
def coco_sample():
  """The folder of the real COCO sample."""
  if not SAMPLE.is_dir():
    pytest.skip(f'the COCO sample is not at {SAMPLE}')
  return SAMPLE


@pytest.fixture(scope='session', params=['panopticapi', 'hotcoco'])
def other_scores(request):
  """What gives the scores of two JSON files in another package."""
  if request.param == 'hotcoco':
    return references.hotcoco_scores
  references.panopticapi('evaluation')
  return references.panopticapi_scores


@pytest.fixture(scope='session')
def categories():
  """Two things and two stuff categories, with ids that are neither contiguous nor sorted."""
  return TIE_ON_PERSON


@pytest.fixture(scope='session')
def trained(tmp_path_factory):
  """A folder with `scenes`, `shards` and, in `model`, a network after 4 steps; and its scores."""
  folder = tmp_path_factory.mktemp('trained')
  end_to_end.make_shards(folder)
  config = experiments.load_experiment(
    'oanet_synthetic', (), end_to_end.training_overrides(folder, steps=4)
  )
  return folder, loop.run(config, folder / 'model', 'train_and_eval')


class Served(NamedTuple):
  """A small network, its results in memory, and its SavedModel."""

  source: parity.Source
  predict: Callable
  folder: pathlib.Path
  signatures: dict[str, Callable]


@pytest.fixture(
  scope='session', params=['[64,64]', pytest.param('[48,80]', marks=pytest.mark.slow)]
)
def served(request, trained, tmp_path_factory):
  """Of a network that sees all images on a square, or by their orientation."""
  images = parity.shard_images(f'{trained[0]}/shards/val-*', 3)
  # After a few steps of training nothing is certain.
  override = (
    f'task.validation_data.output_size={request.param},'
    'task.model.fusion.score_threshold=0.02,task.model.fusion.mask_threshold=0.2'
  )
  folder = ModelFolder(trained[0] / 'model', override)
  source = parity.load_source(folder, 'srm', (64, 64), images)
  folder = tmp_path_factory.mktemp('served') / '1'
  saved_model.write(source, folder)
  predict = image_predictor(source.trained, 'srm')
  return Served(source, predict, folder, tf.saved_model.load(str(folder)).signatures)
