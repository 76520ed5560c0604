"""The recipes for COCO in `configs/`: what each of them says reaches data, losses and schedule."""

import pathlib

import numpy as np
import pytest
import tensorflow as tf

from oanet_tf.config import experiments
from oanet_tf.data import preprocess
from oanet_tf.errors import InputError
from oanet_tf.training import loop
from oanet_tf.training.optimizer import build_learning_rate
from tests import end_to_end
from tests.data.test_preprocess import decoded, rectangle

CONFIGS = pathlib.Path(__file__).resolve().parents[2] / 'configs'
RECIPES = ('coco_3x', 'coco_multiscale', 'coco_lsj', 'coco_strong_stuff')


def recipe(*names, override='', experiment='oanet_r50fpn_coco'):
  paths = [CONFIGS / f'{name}.yaml' for name in names]
  return experiments.load_experiment(experiment, paths, override)


@pytest.mark.parametrize('name', RECIPES)
def test_eight_gpus_change_a_recipe_no_further(name):
  """In either order."""
  expected = recipe(name).as_dict()
  expected['runtime']['num_gpus'] = 8
  expected['task']['validation_data']['global_batch_size'] = 16
  assert recipe(name, 'coco_8gpu').as_dict() == expected
  assert recipe('coco_8gpu', name).as_dict() == expected


@pytest.mark.parametrize('name', ['coco_multiscale', 'coco_strong_stuff'])
@pytest.mark.parametrize('gpus', ['coco_1gpu', 'coco_4gpu'])
def test_recipes_without_a_schedule_take_that_of_any_machine(name, gpus):
  assert recipe(name, gpus).trainer.as_dict() == recipe(gpus).trainer.as_dict()
  assert recipe(name, gpus).task.model.as_dict() == recipe(name).task.model.as_dict()


def learning_rates(name, steps):
  rate = build_learning_rate(recipe(name))
  return [float(rate(tf.constant(step))) for step in steps]


def test_the_3x_schedule():
  steps = (0, 500, 1_000, 210_000, 210_001, 250_000, 250_001)
  # Half of the warm-up from a thousandth: 0.02 · (0.001 + 1) / 2.
  expected = [2e-5, 0.01001, 0.02, 0.02, 0.002, 0.002, 0.0002]
  assert learning_rates('coco_3x', steps) == pytest.approx(expected, rel=1e-4)
  assert recipe('coco_3x').trainer.train_steps == 270_000


def test_large_scale_jitter_has_detectron2s_schedule_in_batches_of_16():
  config = recipe('coco_lsj')
  assert config.task.train_data.global_batch_size * config.trainer.train_steps == 64 * 184_375
  steps = (0, 4 * 500, 4 * 163_889, 4 * 163_889 + 1, 4 * 177_546, 4 * 177_546 + 1)
  rates = [0.0067, 0.1, 0.1, 0.01, 0.01, 0.001]
  expected = [rate / 4 for rate in rates]
  assert learning_rates('coco_lsj', steps) == pytest.approx(expected, rel=1e-4)
  assert config.task.losses.l2_weight_decay == 4e-5
  assert config.task.model.batch_norm == 'sync'


def test_two_kinds_of_scales_exclude_each_other():
  with pytest.raises(InputError, match=r'short_sides.*min_scale'):
    recipe('coco_lsj', 'coco_multiscale')


def examples(name, categories, seeds):
  """An object in an image of 480 × 640, as the recipe prepares it with each seed."""
  task = recipe(name).task
  mask = rectangle(48, 64, 240, 318, 480, 640)
  record = decoded(480, 640, [(7, mask, False)], [(7, mask, False), (200, ~mask, False)])
  steps = preprocess.training_steps(task.train_data, task.model, categories, portrait=False)
  for seed in seeds:
    record['seed'] = tf.constant([0, seed], tf.int64)
    yield preprocess.apply(steps, record)


def test_multiscale_images(categories):
  seen = set()
  for example in examples('coco_multiscale', categories, range(6)):
    assert example['image'].shape == (800, 1344, 3)
    (height, width), offset = example['image_info'][1].numpy(), example['image_info'][3].numpy()
    assert width == np.round(height * 640 / 480) and not offset.any()
    seen.add(height)
  assert len(seen) >= 2 and seen <= {640, 672, 704, 736, 768, 800}


def test_jittered_images(categories):
  for seed, example in enumerate(examples('coco_lsj', categories, range(4))):
    assert example['image'].shape == (1024, 1024, 3)
    draws = tf.random.stateless_uniform([4], tf.constant([0, seed], tf.int64)).numpy()
    long = np.round(1024 * (0.1 + 1.9 * draws[1]))
    size, shown, scale, _ = example['image_info'].numpy()
    np.testing.assert_allclose(size * scale, [np.round(long * 0.75), long], atol=1.001)
    np.testing.assert_array_equal(shown, np.minimum(np.round(size * scale), 1024))


def test_stuff_is_learnt_at_every_pixel(categories):
  (example,) = examples('coco_strong_stuff', categories, [_unmirrored()])
  # 800 × 1067, so rows are those of the object times 5 / 3, and columns times 1067 / 640: their
  # centres lie from 106.7 to 530.2.
  expected = np.zeros((800, 1344), int)
  expected[:, :1067] = 4
  expected[80:400, 107:530] = 1
  np.testing.assert_array_equal(example['category_labels'], expected)
  task = recipe('coco_strong_stuff').task
  assert task.model.stuff_head.group_norm and task.model.fusion.stuff_from == 'all'
  assert task.losses.stuff_weight == 0.5
  assert task.losses.rpn_huber_loss_delta == task.losses.frcnn_huber_loss_delta == 0.0


def _unmirrored():
  """A seed that does not mirror the image."""
  flips = (
    tf.random.stateless_uniform([4], tf.constant([0, seed], tf.int64))[0] < 0.5
    for seed in range(20)
  )
  return next(seed for seed, flip in enumerate(flips) if not flip)


# Options that must still be there when the network and its images are small.
ACTIVE = {
  'coco_3x': {'trainer.optimizer_config.warmup.linear.warmup_steps': 1_000},
  'coco_multiscale': {'task.train_data.short_sides': [32, 48, 64]},
  'coco_lsj': {'task.train_data.max_scale': 2.0, 'task.model.batch_norm': 'sync'},
  'coco_strong_stuff': {
    'task.train_data.label_stride': 1,
    'task.model.stuff_head.group_norm': True,
    'task.model.fusion.stuff_from': 'all',
    'task.losses.box_loss_mean_over': 'samples',
  },
}


@pytest.mark.slow
@pytest.mark.parametrize('name', RECIPES)
def test_a_small_network_trains_by_the_recipe(name, tmp_path):
  """Three steps; a loss that is not finite would be an error."""
  end_to_end.make_shards(tmp_path)
  override = end_to_end.training_overrides(tmp_path, steps=3)
  override += ',task.model.backbone.resnet.model_id=18'
  if name == 'coco_multiscale':
    override += ',task.train_data.output_size=[64,96],task.train_data.short_sides=[32,48,64]'
  config = recipe(name, override=override)
  settings = experiments.describe(config)
  assert {key: settings[key].value for key in ACTIVE[name]} == ACTIVE[name]
  loop.run(config, tmp_path / 'model', 'train')
  assert tf.train.latest_checkpoint(str(tmp_path / 'model')).endswith('-3')
