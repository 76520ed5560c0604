import pathlib
import signal

import hypothesis
import pytest

from tests import references
from tests.categories import TIE_ON_PERSON

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
# What takes longest to make, in each process that asks for it.
DEAR_FIXTURES = ('served', 'trained')


def pytest_configure(config):
  """Loads TensorFlow where tests run: not in the process that starts those of pytest-xdist."""
  if config.getoption('dist', 'no') == 'no':
    config.pluginmanager.import_plugin('tests.networks')


def pytest_collection_modifyitems(items):
  assert all((TESTS / name).is_file() for name in HEAVY_FILES)
  for item in items:
    is_heavy = item.path.relative_to(TESTS).as_posix() in HEAVY_FILES
    if is_heavy or HEAVY_FIXTURES & {*item.fixturenames}:
      item.add_marker('heavy')
  first_with_dear_fixtures(items)


def first_with_dear_fixtures(items):
  """Sorts by file, so that one process of pytest-xdist, which begins there, has all of them."""
  ranks = {}
  for item in items:
    rank = next((n for n, name in enumerate(DEAR_FIXTURES) if name in item.fixturenames), 9)
    ranks[item.path] = min(rank, ranks.get(item.path, rank))
  items.sort(key=lambda item: ranks[item.path])


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
