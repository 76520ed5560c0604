import json

import numpy as np
import pytest
import tensorflow as tf
from official.core import task_factory
from official.core import train_lib as official_train_lib

from oanet_tf.cluster import Cluster
from oanet_tf.config import experiments
from oanet_tf.errors import InputError
from oanet_tf.evaluation.scoring import evaluate, named_scores
from oanet_tf.modeling.build import build_fuser
from oanet_tf.training import task
from oanet_tf.training.state import find_categories
from tests import end_to_end, small_model
from tests.devices import TWO, mirrored


@pytest.mark.slow
def test_the_model_gardens_trainer_trains_evaluates_and_exports_the_best(trained, tmp_path):
  folder, _ = trained
  config = experiments.load_experiment(
    'oanet_synthetic',
    (),
    end_to_end.training_overrides(folder, steps=4) + ',trainer.steps_per_loop=2',
  )
  strategy = mirrored(TWO)
  with strategy.scope():
    oanet = task_factory.get_task(config.task, logging_dir=str(tmp_path))
  model, scores = official_train_lib.run_experiment(
    strategy, oanet, 'train_and_eval', config, str(tmp_path), run_post_eval=True
  )
  assert (tmp_path / 'ckpt-4.index').exists()
  best = json.loads((tmp_path / 'best' / 'info.json').read_text())
  assert best['best_ckpt_global_step'] == 4.0 and list((tmp_path / 'best').glob('*.index'))
  categories = find_categories(config.task, tmp_path)
  methods = ('srm', 'heuristic')
  cluster = Cluster(strategy)
  fuser = build_fuser(config.task, model)
  expected = named_scores(evaluate(model, fuser, config.task, categories, methods, cluster))
  assert best['pq/srm'] == pytest.approx(expected['pq/srm'], abs=1e-6)
  for name, value in expected.items():
    assert scores[name] == pytest.approx(value, abs=1e-6)
  assert all(np.isfinite(weight).all() for weight in model.get_weights())


@pytest.mark.slow
def test_a_step_in_replicas(categories, tmp_path):
  categories.to_json(tmp_path / 'categories.json')
  config = small_model.small_experiment(f'task.categories={tmp_path / "categories.json"}')
  strategy = mirrored(TWO)
  with strategy.scope():
    oanet = task_factory.get_task(config.task)
    model = oanet.build_model()
    optimizer = oanet.create_optimizer(config.trainer.optimizer_config)
  records = (small_model.TIE_ON_PERSON, small_model.PERSON)
  batch = small_model.training_batch(config.task, categories, *records)
  before = model.get_weights()

  def step(batch):
    return strategy.run(oanet.train_step, (batch, model, optimizer))

  results = tf.function(step, autograph=False)(batch)
  assert all(np.isfinite(strategy.experimental_local_results(results['loss'])))
  assert any((a != b).any() for a, b in zip(before, model.get_weights(), strict=True))


def test_images_of_two_orientations_are_refused(trained):
  folder, _ = trained
  config = experiments.load_experiment(
    'oanet_synthetic',
    (),
    end_to_end.training_overrides(folder, steps=1) + ',task.train_data.output_size=[64,96]',
  )
  oanet = task_factory.get_task(config.task)
  assert isinstance(oanet, task.OANetPanopticTask)
  with pytest.raises(InputError, match='square'):
    oanet.build_inputs(config.task.train_data)
