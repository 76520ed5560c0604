"""Fixtures of trained networks, for the whole session."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests import devices  # noqa: F401  Before TensorFlow is used.

# isort: split

import tensorflow as tf
from tf_keras.src import backend

from oanet_tf.config import experiments
from oanet_tf.model_folder import ModelFolder
from oanet_tf.serving import parity, saved_model
from oanet_tf.training import loop
from tests import end_to_end
from tests.serving.reference import image_predictor


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
  """Gives each test, and fixtures that are made for it, the same random weights in every run."""
  # As `tf_keras.utils.set_random_seed` does, which also sets TensorFlow's own seed; that makes it
  # forget all functions that it has prepared.
  backend._SEED_GENERATOR.generator = random.Random(0)


@pytest.fixture(scope='session')
def trained(tmp_path_factory):
  """A folder with `scenes`, `shards` and, in `model`, a network after 4 steps; and its scores."""
  folder = tmp_path_factory.mktemp('trained')
  end_to_end.make_shards(folder)
  # With all that a network can have, for all fusions.
  overrides = end_to_end.training_overrides(folder, steps=4)
  config = experiments.load_experiment(
    'oanet_synthetic', (), f'{overrides},task.model.occlusion_head.enabled=true'
  )
  return folder, loop.run(config, folder / 'model', 'train_and_eval')


class Served(NamedTuple):
  """A small network, its results in memory, and its SavedModel."""

  source: parity.Source
  predict: Callable
  folder: Path
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
