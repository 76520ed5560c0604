import pathlib
from collections.abc import Callable
from typing import NamedTuple

import pytest
import tensorflow as tf

from oanet_tf.model_folder import ModelFolder
from oanet_tf.serving import parity, saved_model
from tests.serving.reference import image_predictor


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
