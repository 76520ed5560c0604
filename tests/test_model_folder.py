import gc
import logging

import pytest

from oanet_tf.errors import InputError
from oanet_tf.model_folder import ModelFolder, write_model
from oanet_tf.modeling import build
from tests import small_model


def test_weights_of_another_network_are_refused_in_one_line(
  tmp_path, categories, caplog, monkeypatch
):
  """When a checkpoint is let go, TensorFlow may log a line for each value that was not used."""
  monkeypatch.setattr(logging.getLogger('tensorflow'), 'propagate', True)
  # Each of the two networks has layers that the other one lacks.
  one, other = map(
    small_model.small_experiment,
    ('task.model.occlusion_head.enabled=true', 'task.model.sharing=backbone'),
  )
  write_model(tmp_path, build.build_network(one.task, categories), other, categories)

  def message():
    with pytest.raises(InputError, match='does not fit') as error:
      ModelFolder(tmp_path).load()
    return str(error.value)

  with caplog.at_level(logging.WARNING):
    assert '\n' not in message()
    gc.collect()
  assert not caplog.messages
