import pathlib
import shutil
import subprocess
import sys

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from oanet_tf.config import check as config_check
from oanet_tf.config import experiments
from oanet_tf.config import text as config_text
from oanet_tf.errors import InputError

ROOT = pathlib.Path(__file__).resolve().parents[2]


def resolve(override='', files=(), experiment='oanet_synthetic'):
  return config_check.resolve_experiment(experiment, files, override)


def flat(nested, prefix=''):
  pairs = {}
  for name, value in nested.items():
    pairs |= flat(value, f'{prefix}{name}.') if isinstance(value, dict) else {prefix + name: value}
  return pairs


def test_needs_neither_tensorflow_nor_the_model_garden():
  code = (
    'import sys\n'
    'from oanet_tf.config import check as config_check\n'
    'for name in config_check.experiment_names():\n'
    '  config_check.resolve_experiment(name, (), "task.seed=1")\n'
    'assert not {"tensorflow", "official", "tf_keras", "numpy"} & set(sys.modules)\n'
  )
  subprocess.run([sys.executable, '-c', code], check=True)


def test_the_list_of_keys_is_that_of_the_dataclasses():
  text = config_check.ALL_KEYS.read_text(encoding='utf-8')
  assert text == experiments.all_keys_text(), f'stale; run {experiments.UPDATE_COMMAND}'


def test_the_list_of_keys_is_written_as_a_whole(tmp_path, monkeypatch):
  monkeypatch.setattr(config_check, 'ALL_KEYS', tmp_path / 'all_keys.yaml')
  experiments.write_all_keys()
  assert [path.name for path in tmp_path.iterdir()] == ['all_keys.yaml']
  assert (tmp_path / 'all_keys.yaml').read_text() == experiments.all_keys_text()


def test_every_default_is_of_its_kind():
  for key, (kind, value) in config_text.read_yaml(config_check.ALL_KEYS).items():
    assert config_check.fits(value, kind), key


@pytest.mark.parametrize('experiment', config_check.experiment_names())
def test_gives_what_the_dataclasses_give(experiment):
  override = 'task.model.backbone.type=keras_resnet,trainer.optimizer_config.optimizer.type=adamw'
  for text in ('', 'task.seed=7,trainer.optimizer_config.ema.average_decay=0.9', override):
    ours = config_check.to_nested(resolve(text, experiment=experiment))
    assert ours == experiments.load_experiment(experiment, (), text).as_dict()


@pytest.mark.parametrize(
  ('value', 'kind', 'expected'),
  [
    (1, 'int', True),
    (1, 'float', True),
    (1.0, 'int', False),
    (True, 'int', False),
    (True, 'float', False),
    (True, 'bool', True),
    (0, 'bool', False),
    ('a', 'str', True),
    (None, 'str', False),
    (None, 'int or null', True),
    ('a', 'int or null', False),
    ([], 'list of int', True),
    ([1, 2], 'list of int', True),
    ((1, 2), 'list of float', True),
    ([1, 'a'], 'list of float', False),
    ([1, None], 'list of int or null', False),
    (1, 'list of int', False),
    ('a', 'list of str', False),
    ({}, 'group or null', True),
    ('dynamic', 'str or float or null', True),
  ],
)
def test_kinds(value, kind, expected):
  assert config_check.fits(value, kind) is expected


@pytest.mark.parametrize(
  ('override', 'message'),
  [
    ('task.model.sharin=none', 'task.model.sharing?'),
    ('task.modl.sharing=none', 'task.model?'),
    ('train_steps=3', 'trainer.train_steps?'),
    ('fusion.method=srm', 'task.model.fusion?'),
    ('trainer.train_steps.x=3', 'trainer.train_steps?'),
    ('zzz=3', 'zzz; '),
    ('{1: 2}', '1; '),
    ('task.model=3', 'task.model is a group'),
    ('trainer=null', 'trainer is a group'),
    ('trainer.optimizer_config.ema=3', 'group or null'),
    ('task.model.backbone.vit.num_layers=3', 'task.model.backbone.vit.num_layers'),
    ('trainer.optimizer_config.optimizer.adam.beta_1=0.5', "optimizer.type is 'sgd'"),
    (
      'task.model.backbone.type=keras_resnet,task.model.backbone.resnet.model_id=50',
      "task.model.backbone.type is 'keras_resnet'",
    ),
  ],
)
def test_a_key_that_will_not_do(override, message):
  with pytest.raises(InputError) as error:
    resolve(override)
  assert str(error.value).startswith('--params_override: ') and message in str(error.value)


@pytest.mark.parametrize(
  ('override', 'expected'),
  [
    ('task.model.roi_generator.pre_nms_min_size_threshold=2', 2.0),
    ('task.model.anchor.aspect_ratios=[1,0.5,2]', [1.0, 0.5, 2.0]),
    ('runtime.loss_scale=128,runtime.mixed_precision_dtype=float16', 128.0),
    ('trainer.train_steps=7', 7),
    ('trainer.optimizer_config.optimizer.sgd.global_clipnorm=null', None),
  ],
)
def test_whole_numbers_become_the_floats_that_tensorflow_wants(override, expected):
  """An int where it wants a float is an error when a network is built."""
  settings = config_check.resolve(config_check.experiment_settings('oanet_synthetic'), (), override)
  value = settings[override.partition('=')[0]].value
  assert repr(value) == repr(expected)


def test_another_choice_brings_its_own_keys():
  found = config_check.active(
    resolve('task.model.backbone.type=keras_resnet,task.model.backbone.keras_resnet.model_id=101')
  )
  backbone = {key: value for key, (_, value) in found.items() if '.backbone.' in key}
  assert backbone == {
    'task.model.backbone.type': 'keras_resnet',
    'task.model.backbone.keras_resnet.model_id': 101,
  }


def test_what_a_file_set_does_not_hinder_a_later_choice(tmp_path):
  path = tmp_path / 'a.yaml'
  path.write_text('task: {model: {backbone: {resnet: {model_id: 34}}}}\n')
  assert resolve('task.model.backbone.type=keras_resnet', [path])


@pytest.mark.parametrize(
  ('override', 'decay'),
  [
    ('task.seed=0', None),
    ('trainer.optimizer_config.ema.average_decay=0.5', 0.5),
    ('{trainer: {optimizer_config: {ema: {}}}}', 0.99),
    ('trainer.optimizer_config.ema=null', None),
  ],
)
def test_an_optional_group(override, decay):
  ema = config_check.to_nested(resolve(override))['trainer']['optimizer_config']['ema']
  assert (ema and ema['average_decay']) == decay
  config = experiments.load_experiment('oanet_synthetic', (), override)
  ema = config.trainer.optimizer_config.ema
  assert (ema and ema.average_decay) == decay


def test_an_optional_group_taken_back(tmp_path):
  path = tmp_path / 'a.yaml'
  path.write_text('trainer: {optimizer_config: {ema: {average_decay: 0.5}}}\n')
  off, on = 'trainer.optimizer_config.ema=null', 'trainer.optimizer_config.ema.start_step=3'
  assert config_check.to_nested(resolve(off, [path]))['trainer']['optimizer_config']['ema'] is None
  ema = config_check.to_nested(resolve(on, [path]))['trainer']['optimizer_config']['ema']
  assert ema['average_decay'] == 0.5 and ema['start_step'] == 3


def test_nested_values_are_copies():
  found = resolve('trainer.optimizer_config.ema.average_decay=0.5')
  config_check.to_nested(found)['task']['train_data']['output_size'].append(3)
  assert config_check.to_nested(found) == config_check.to_nested(found)
  assert found['task.train_data.output_size'].value == [128, 128]
  assert found['trainer.optimizer_config.ema'].value == {}


def test_an_experiment_is_a_file(tmp_path, monkeypatch):
  shutil.copytree(config_check.DEFAULTS, tmp_path / 'defaults')
  monkeypatch.setattr(config_check, 'DEFAULTS', tmp_path / 'defaults')
  monkeypatch.setattr(config_check, 'ALL_KEYS', tmp_path / 'defaults' / 'all_keys.yaml')
  path = tmp_path / 'defaults' / 'mine.yaml'
  path.write_text('base: oanet_r101fpn_coco\ntask: {seed: 9}\n')
  assert 'mine' in config_check.experiment_names()
  found = resolve(experiment='mine')
  assert found['task.seed'].value == 9
  assert found['task.model.backbone.resnet.model_id'].value == 101
  assert found['trainer.train_steps'].value == 100_000
  path.write_text('base: oanet_r101fpn_coco\ntask: {sed: 9}\n')
  with pytest.raises(InputError, match=r'mine\.yaml: .*task\.sed\b.*task\.seed'):
    resolve(experiment='mine')


@pytest.mark.parametrize('name', ['oanet', '', 'all_keys', '../setup', 'maskrcnn_resnetfpn_coco'])
def test_an_unknown_experiment(name):
  with pytest.raises(InputError, match=rf"'{name}'.*oanet_synthetic"):
    resolve(experiment=name)


def test_a_folder_without_params(tmp_path):
  with pytest.raises(InputError, match=r'params\.yaml'):
    config_check.params_path(tmp_path)
  (tmp_path / 'params.yaml').touch()
  assert config_check.params_path(tmp_path) == str(tmp_path / 'params.yaml')


ANY_VALUE = (
  st.none()
  | st.booleans()
  | st.integers(-2, 300)
  | st.integers()
  | st.floats()
  | st.sampled_from(['', 'none', 'dynamic', 'float16', 'resnet', 'ring'])
  | st.lists(st.integers(-2, 2000) | st.text('a1', max_size=2), max_size=4)
  | st.just({})
)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(sorted(resolve())), ANY_VALUE)
def test_any_value_of_any_key_is_taken_or_refused_in_one_line(key, value):
  content = value
  for name in reversed(key.split('.')):
    content = {name: content}
  try:
    found = resolve(yaml.safe_dump(content))
  except InputError as error:
    group = key.rpartition('.')[0]
    assert '\n' not in str(error) and group in str(error)
  else:
    assert found[key].value == value or value != value


def test_the_wheel_holds_every_default(tmp_path):
  source = tmp_path / 'source'
  shutil.copytree(ROOT / 'oanet_tf', source / 'oanet_tf')
  for name in ('setup.py', 'pyproject.toml', 'README.md', 'LICENSE'):
    shutil.copy(ROOT / name, source)
  build = [sys.executable, 'setup.py', '--quiet', 'build_py', '--build-lib', tmp_path / 'built']
  subprocess.run(build, check=True, cwd=source, capture_output=True)
  names = {
    path.name for path in (tmp_path / 'built' / 'oanet_tf' / 'config' / 'defaults').iterdir()
  }
  assert names == {path.name for path in config_check.DEFAULTS.glob('*.yaml')}
