import dataclasses
import pathlib
import re

import pytest
import yaml
from official.core import config_definitions, exp_factory
from official.modeling import hyperparams

from oanet_tf.config import definitions, experiments
from oanet_tf.errors import InputError

CONFIGS = pathlib.Path(__file__).resolve().parents[2] / 'configs'


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
  # "The min area of a connected stuff area to 4900".
  assert model.fusion.stuff_area_limit == 4900
  assert model.fusion.stuff_area_by == 'component'
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


@pytest.mark.parametrize(
  'name',
  [
    'oanet_r50fpn_coco', 'oanet_r101fpn_coco', 'oanet_synthetic', 'oanet_mobilenetv2',
    'panoptic_fpn_detectron2', 'panoptic_fpn_model_garden',
  ],
)  # fmt: skip
def test_a_saved_config_says_everything(name, tmp_path):
  """Whatever experiment it is read over, the result is the same."""
  experiment = experiments.load_experiment(name)
  path = tmp_path / 'params.yaml'
  path.write_text(yaml.dump(experiment.as_dict()))
  for base in ('oanet_synthetic', 'oanet_r50fpn_coco'):
    assert experiments.load_experiment(base, [path]).as_dict() == experiment.as_dict()


def named_experiments(path):
  """The experiments that the comment on top of a file names."""
  comment = re.match(r'(#.*\n)+', path.read_text())[0]
  return re.findall(r'--experiment (\w+)', comment)


@pytest.mark.parametrize('path', sorted(CONFIGS.rglob('*.yaml')), ids=lambda path: path.name)
def test_every_config_file_fits_the_experiments_that_it_names(path):
  names = named_experiments(path)
  assert names
  for name in names:
    assert experiments.load_experiment(name, [path])


@pytest.mark.parametrize('path', sorted(CONFIGS.glob('coco_*gpu.yaml')), ids=lambda path: path.name)
def test_a_recipe_is_the_papers_schedule_at_another_batch(path):
  names = named_experiments(path)
  assert names == ['oanet_r50fpn_coco', 'oanet_r101fpn_coco']
  for name in names:
    paper = experiments.load_experiment(name)
    for override in ('', 'trainer.gradient_accumulation_steps=2'):
      recipe = experiments.load_experiment(name, [path], override)
      check_schedule(recipe, paper)


def check_schedule(recipe, paper):
  batch = recipe.task.train_data.global_batch_size
  assert batch % recipe.runtime.num_gpus == 0
  assert batch * recipe.trainer.train_steps == 1_600_000
  for name in ('checkpoint_interval', 'validation_interval'):
    assert batch * getattr(recipe.trainer, name) == 16 * getattr(paper.trainer, name)
  optimizer = recipe.trainer.optimizer_config
  schedule, warmup = optimizer.learning_rate.stepwise, optimizer.warmup.linear
  assert [batch * step for step in schedule.boundaries] == [960_000, 1_280_000]
  assert batch * warmup.warmup_steps == 32_000
  factor = batch / recipe.task.reference_batch_size
  rates = [rate * factor for rate in schedule.values]
  assert rates == pytest.approx([rate * batch / 16 for rate in (0.02, 0.002, 0.0002)])
  assert warmup.warmup_learning_rate * factor == pytest.approx(0.002 * batch / 16)


def test_there_are_recipes_for_1_4_and_8_gpus():
  for num_gpus in (1, 4, 8):
    path = CONFIGS / f'coco_{num_gpus}gpu.yaml'
    assert experiments.load_experiment('oanet_r50fpn_coco', [path]).runtime.num_gpus == num_gpus


@dataclasses.dataclass
class OwnTask(definitions.OANetTask):
  own: int = 3


@pytest.fixture
def own_experiments(monkeypatch):
  registered = dict(exp_factory._REGISTERED_CONFIGS)
  monkeypatch.setattr(exp_factory, '_REGISTERED_CONFIGS', registered)

  @exp_factory.register_config_factory('own')
  def own():
    experiment = config_definitions.ExperimentConfig(
      task=OwnTask(), trainer=definitions.Trainer(), runtime=definitions.Runtime()
    )
    experiment.override(experiments.load_experiment('oanet_synthetic').as_dict())
    return experiment

  @exp_factory.register_config_factory('of_another_network')
  def of_another_network():
    return config_definitions.ExperimentConfig(task=config_definitions.TaskConfig())


@pytest.mark.usefixtures('own_experiments')
def test_an_experiment_registered_in_python():
  experiment = experiments.load_experiment('own', (), 'task.own=4,task.seed=5')
  assert isinstance(experiment.task, OwnTask)
  assert (experiment.task.own, experiment.task.seed) == (4, 5)
  assert experiment.task.model.max_level == 5
  with pytest.raises(InputError, match=r"task\.own is 'x'.* int"):
    experiments.load_experiment('own', (), 'task.own=x')
  with pytest.raises(InputError, match='of_another_network'):
    experiments.load_experiment('of_another_network')


def test_description_of_a_configuration():
  @dataclasses.dataclass
  class Part(hyperparams.Config):
    size: list[float] = dataclasses.field(default_factory=lambda: [1.0])

  @dataclasses.dataclass
  class Whole(hyperparams.Config):
    part: Part = dataclasses.field(default_factory=Part)
    spare: Part | None = None
    number: int = None
    text: str | float | None = None

  assert experiments.describe(Whole()) == {
    'part.size': ('list of float', [1.0]),
    'spare': ('group or null', None),
    'spare.size': ('list of float', [1.0]),
    'number': ('int or null', None),
    'text': ('str or float or null', None),
  }
  assert experiments.describe(Whole(spare=Part(size=[2.0])))['spare.size'].value == [2.0]
  assert experiments.describe(Whole(spare=Part()))['spare'].value == {}


@pytest.mark.parametrize(
  ('override', 'message'),
  [
    ('task.model.sharin=none', 'task.model.sharing?'),
    ('task.model=3', 'task.model'),
    ('trainer.train_steps=abc', "trainer.train_steps is 'abc'"),
    ('trainer.train_steps=true', 'trainer.train_steps is True'),
    ('task.train_data.random_flip=1', 'random_flip is 1'),
    ('task.model.sharing=all', 'none, backbone, backbone_and_fpn'),
    ('task.model.batch_norm=no', 'task.model.batch_norm'),
    ('task.model.fusion.method=random', 'srm, heuristic'),
    ('task.model.spatial_ranking.convolution=5x5', '1x1, 3x3, 1x7+7x1'),
    ('task.train_data.output_size=[128,100]', 'task.train_data.output_size is [128, 100]'),
    ('task.train_data.label_stride=3', 'label_stride'),
    ('{a: [', 'YAML'),
    ('[1, 2]', '[1, 2]'),
  ],
)
def test_a_bad_override_is_one_line_that_names_it(override, message):
  with pytest.raises(InputError) as error:
    experiments.load_experiment('oanet_synthetic', (), override)
  assert message in str(error.value) and '\n' not in str(error.value)


def test_unknown_experiment_and_missing_file():
  with pytest.raises(InputError, match='oanet_synthetic'):
    experiments.load_experiment('oanet')
  with pytest.raises(InputError, match=r'nowhere\.yaml'):
    experiments.load_experiment('oanet_synthetic', ['nowhere.yaml'])
