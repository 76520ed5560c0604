import pathlib

import pytest
import yaml

from oanet_tf import experiments
from oanet_tf.errors import InputError

CONFIGS = pathlib.Path(__file__).resolve().parents[1] / 'configs'


def test_the_papers_recipe():
  experiment = experiments.load_experiment('oanet_r50fpn_coco')
  trainer, optimizer = experiment.trainer, experiment.trainer.optimizer_config
  assert trainer.train_steps == 100_000
  assert experiment.task.train_data.global_batch_size == 16
  assert optimizer.optimizer.sgd.momentum == 0.9
  assert experiment.task.losses.l2_weight_decay == 1e-4
  assert optimizer.warmup.linear.warmup_steps == 2_000
  assert optimizer.warmup.linear.warmup_learning_rate == 0.002
  assert optimizer.learning_rate.stepwise.boundaries == [60_000, 80_000]
  assert optimizer.learning_rate.stepwise.values == [0.02, 0.002, 0.0002]
  model = experiment.task.model
  assert experiment.task.losses.stuff_weight == 0.25
  assert model.detection_generator.max_num_detections == 100
  assert model.fusion.stuff_area_limit == 4900
  assert model.sharing == 'backbone_and_fpn'
  assert model.spatial_ranking.convolution == '1x7+7x1'


def test_r101_differs_in_its_backbone_alone():
  r50 = experiments.load_experiment('oanet_r50fpn_coco')
  r101 = experiments.load_experiment('oanet_r101fpn_coco')
  assert r101.task.model.backbone.resnet.model_id == 101
  r101.task.model.backbone.resnet.model_id = 50
  assert r50.as_dict() == r101.as_dict()


def test_files_then_overrides_win(tmp_path):
  first, second = tmp_path / 'a.yaml', tmp_path / 'b.yaml'
  first.write_text('trainer: {train_steps: 1, max_to_keep: 7}\n')
  second.write_text('trainer: {train_steps: 2}\n')
  experiment = experiments.load_experiment(
    'oanet_synthetic', [first, second], 'task.model.spatial_ranking.stride=8,task.seed=3'
  )
  assert experiment.trainer.train_steps == 2 and experiment.trainer.max_to_keep == 7
  assert experiment.task.model.spatial_ranking.stride == 8 and experiment.task.seed == 3


@pytest.mark.parametrize('name', ['oanet_r50fpn_coco', 'oanet_r101fpn_coco', 'oanet_synthetic'])
def test_a_saved_config_says_everything(name, tmp_path):
  """Whatever experiment it is read over, the result is the same."""
  experiment = experiments.load_experiment(name)
  path = tmp_path / 'params.yaml'
  path.write_text(yaml.dump(experiment.as_dict()))
  for base in ('oanet_synthetic', 'oanet_r50fpn_coco'):
    assert experiments.load_experiment(base, [path]).as_dict() == experiment.as_dict()


@pytest.mark.parametrize('path', sorted(CONFIGS.glob('*.yaml')), ids=lambda path: path.name)
def test_every_config_file_fits(path):
  assert experiments.load_experiment('oanet_r50fpn_coco', [path])


@pytest.mark.parametrize(
  ('override', 'message'),
  [
    ('task.model.sharin=none', 'task.model.sharin; did you mean task.model.sharing?'),
    ('task.model=3', 'task.model is a group of keys'),
    ('trainer.train_steps=abc', "trainer.train_steps is 'abc', but takes a int"),
    ('trainer.train_steps=true', 'trainer.train_steps is True'),
    ('task.train_data.random_flip=1', 'random_flip is 1'),
    ('task.model.sharing=all', 'one of none, backbone, backbone_and_fpn'),
    ('task.model.batch_norm=no', 'task.model.batch_norm'),
    ('task.model.fusion.method=random', 'one of srm, heuristic'),
    ('task.model.spatial_ranking.convolution=5x5', 'one of 1x1, 3x3, 1x7+7x1'),
    ('task.train_data.output_size=[128,100]', 'height ≤ width'),
    ('task.train_data.label_stride=3', 'label_stride'),
    ('{a: [', 'is not YAML'),
    ('[1, 2]', 'is not a mapping'),
  ],
)
def test_a_bad_override_is_one_line_that_names_it(override, message):
  with pytest.raises(InputError) as error:
    experiments.load_experiment('oanet_synthetic', (), override)
  assert message in str(error.value) and '\n' not in str(error.value)


def test_unknown_experiment_and_missing_file():
  with pytest.raises(InputError, match='oanet_synthetic'):
    experiments.load_experiment('oanet')
  with pytest.raises(InputError, match=r'nowhere\.yaml: cannot be read'):
    experiments.load_experiment('oanet_synthetic', ['nowhere.yaml'])
