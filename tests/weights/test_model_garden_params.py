import pytest

from oanet_tf.errors import InputError
from oanet_tf.weights.model_garden_params import settings_beside


@pytest.mark.parametrize(
  ('model', 'fact'),
  [
    ('3', 'no task.model.input_size'),
    ('{input_size: 3}', 'no task.model.input_size'),
    ('{input_size: [64]}', 'no task.model.input_size'),
    ('{input_size: [64, 96]}', '64 × 96'),
    ('{input_size: [a, a]}', 'a × a'),
    ('{input_size: [64, 64], min_level: [3]}', r'task.model.min_level is \[3\], but takes a int'),
    ('{input_size: [64, 64], min_level: .inf}', 'task.model.min_level is inf'),
    ('{input_size: [64, 64], anchor: {anchor_size: x}}', "anchor.anchor_size is 'x'"),
  ],
)
def test_a_file_that_is_no_configuration_of_theirs(model, fact, tmp_path):
  path = tmp_path / 'params.yaml'
  path.write_text(f'task: {{model: {model}}}')
  with pytest.raises(InputError, match=f'^{path}: .*{fact}'):
    settings_beside(str(tmp_path / 'ckpt-1'))


def test_tuples_and_whole_numbers_are_taken(tmp_path):
  text = 'task: {model: {input_size: !!python/tuple [64, 64, 3], min_level: 3.0}}'
  (tmp_path / 'params.yaml').write_text(text)
  assert settings_beside(str(tmp_path)) == {
    'task.train_data.output_size': [64, 64],
    'task.validation_data.output_size': [64, 64],
    'task.model.min_level': 3,
  }
