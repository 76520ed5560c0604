"""A network whose ranking module sees the stuff branch: from training to what is exported."""

import numpy as np
import pytest

from oanet_tf import experiments, export, inference, train_lib
from oanet_tf.errors import InputError
from tests import end_to_end

SEES_STUFF = 'task.model.spatial_ranking.sees_stuff=true'
PICTURE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def seeing(trained, tmp_path_factory):
  """A model folder after 2 steps, and its scores."""
  folder = tmp_path_factory.mktemp('sees_stuff') / 'model'
  overrides = f'{end_to_end.training_overrides(trained[0], steps=2)},{SEES_STUFF},task.seed=5'
  config = experiments.load_experiment('oanet_synthetic', (), overrides)
  return folder, train_lib.run(config, folder, 'train_and_eval')


def test_exports_give_what_the_network_gives(seeing, tmp_path, monkeypatch, capsys):
  folder, results = seeing
  assert results['srm']['Stuff']['n'] > 0
  # The command compares them, and refuses what differs.
  code, stdout, _ = end_to_end.run_command(
    monkeypatch, capsys, export.main, '--model_dir', folder, '--export_dir', tmp_path,
    '--formats', 'savedmodel,tflite_float32', '--fusion', 'srm',
  )  # fmt: skip
  assert code == 0 and stdout.count('100.00%') == 2


@pytest.mark.parametrize('taker', ['a network that does not', 'a network that does'])
def test_its_ranking_module_fits_another_network_and_another_module_fits_it(taker, seeing, trained):
  folders = [trained[0] / 'model', seeing[0]]
  if taker == 'a network that does':
    folders.reverse()
  model, config, categories = inference.load_model(folders[0])
  inference.take_ranking_module(model, config.task, categories, folders[1])
  other, other_config, _ = inference.load_model(folders[1])
  assert config.task.model.spatial_ranking == other_config.task.model.spatial_ranking
  for mine, given in zip(model.spatial_ranking.weights, other.spatial_ranking.weights, strict=True):
    np.testing.assert_array_equal(mine, given)
  outputs, _ = inference.image_predictor(model, config.task, 'srm')(PICTURE)
  assert outputs['ranking_map'].shape == (1, 32, 32, categories.num_things)


def test_a_stuff_branch_of_other_channels_is_refused(seeing, trained):
  model, config, categories = inference.load_model(trained[0] / 'model')
  config.task.model.stuff_head.object_context = False
  with pytest.raises(InputError, match='object_context True; take a model') as refused:
    inference.take_ranking_module(model, config.task, categories, seeing[0])
  assert '\n' not in str(refused.value)
