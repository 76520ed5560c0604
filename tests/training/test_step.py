import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from oanet_tf.data import preprocess
from oanet_tf.training import losses
from tests import small_model
from tests.devices import ONE, TWO
from tests.small_model import CROWD, PERSON, STUFF, TIE_ON_PERSON, VOID
from tests.training.replicas import Trained

MORE = small_model.decoded_record([(31, 8, 8, 30, 40), (7, 20, 4, 60, 30)], 200, seed=6)
FROZEN = 'task.model.batch_norm=frozen,task.train_data.global_batch_size=4'
NO_MOMENTUM = 'trainer.optimizer_config.optimizer.sgd.momentum=0.0'
CLIP_NORM = 0.5
# None is large enough, so the heads learn from true boxes and empty ones. With batch norm `sync`,
# the rounding of statistics decides which of two proposals with almost the same score is kept, also
# on one replica whose images change places. Without, these differ as little as two replicas do.
NO_PROPOSALS = 'task.model.roi_generator.pre_nms_min_size_threshold=1000'

BATCHES = {
  'things everywhere': (TIE_ON_PERSON, PERSON, MORE, TIE_ON_PERSON),
  'a replica without instance': (TIE_ON_PERSON, MORE, STUFF, STUFF),
  'a replica without conflict': (TIE_ON_PERSON, MORE, PERSON, STUFF),
  'a replica of nothing but void': (TIE_ON_PERSON, MORE, VOID, VOID),
  'a replica of nothing but a crowd': (VOID, CROWD, MORE, PERSON),
  'nothing at all': (VOID, VOID, VOID, VOID),
}

pytestmark = pytest.mark.slow


def losses_of(results):
  return {name: float(value) for name, value in results.items()}


@pytest.fixture(scope='module', params=['frozen', 'sync'])
def one_and_two(request, categories):
  config = small_model.small_experiment(
    FROZEN,
    f'task.model.batch_norm={request.param}',
    f'task.losses.box_loss_mean_over={"samples" if request.param == "frozen" else "objects"}',
    f'trainer.optimizer_config.optimizer.sgd.global_clipnorm={CLIP_NORM}',
    *([NO_PROPOSALS] if request.param == 'sync' else []),
  )
  tf_keras.utils.set_random_seed(0)
  one = Trained(config, categories, ONE)
  return one, Trained(config, categories, TWO, one.model.get_weights())


def start_anew(trained, weights):
  trained.model.set_weights(weights)
  for variable in trained.optimizer.variables():
    variable.assign(tf.zeros_like(variable))


def assert_close(variables, others):
  """To 1 % of each one's norm: where rounding turns a ReLU on or off, a few values differ more."""
  for variable, other in zip(variables, others, strict=True):
    difference = np.linalg.norm(other.numpy() - variable.numpy())
    size = np.linalg.norm(variable.numpy())
    assert difference <= 0.01 * size + 1e-7 * np.sqrt(variable.shape.num_elements()), variable.name


@pytest.mark.parametrize('name', BATCHES)
def test_two_replicas_are_one(name, one_and_two):
  """Losses, weights, and momenta, which are sums of gradients.

  Each step begins with the same weights and momenta. Otherwise rounding would grow from step to
  step.
  """
  one, two = one_and_two
  weights = one.model.get_weights()
  for trained in one_and_two:
    start_anew(trained, weights)
  for step in range(5):
    expected, results = (losses_of(t.step([t.batch(*BATCHES[name])])) for t in one_and_two)
    for loss, value in expected.items():
      assert results[loss] == pytest.approx(value, rel=1e-4, abs=1e-6), (step, loss)
    assert_close(one.model.weights, two.model.weights)
    assert_close(one.optimizer.variables(), two.optimizer.variables())
    two.model.set_weights(one.model.get_weights())
    for variable, value in zip(two.optimizer.variables(), one.optimizer.variables(), strict=True):
      variable.assign(value.numpy())
  moved = [
    np.abs(after - before).max()
    for after, before in zip(one.model.get_weights(), weights, strict=True)
  ]
  assert max(moved) > 1e-5


def test_the_norm_that_is_clipped_is_of_the_whole_batch(one_and_two):
  for trained in one_and_two:
    start_anew(trained, trained.model.get_weights())
    trained.step([trained.batch(*BATCHES['things everywhere'])])
    momenta = [v.numpy() for v in trained.optimizer.variables() if v.shape.rank]
    rate = float(trained.optimizer.learning_rate(tf.constant(0)))
    norm = np.sqrt(sum((momentum.astype(np.float64) ** 2).sum() for momentum in momenta))
    assert norm == pytest.approx(rate * CLIP_NORM, rel=1e-3)


def test_parts_of_a_batch_give_the_mean_of_their_gradients(categories):
  """Two parts, one step: w - rate × (g1 + g2) / 2, from steps on each part alone."""
  accumulated = Trained(
    small_model.small_experiment(FROZEN, NO_MOMENTUM, 'trainer.gradient_accumulation_steps=2'),
    categories,
    ONE,
  )
  weights = accumulated.model.get_weights()
  alone = Trained(small_model.small_experiment(FROZEN, NO_MOMENTUM), categories, ONE, weights)
  parts = [(TIE_ON_PERSON, PERSON), (MORE, STUFF)]
  moved, part_losses = [], []
  for part in parts:
    start_anew(alone, weights)
    part_losses.append(losses_of(alone.step([alone.batch(*part)])))
    moved.append(alone.model.get_weights())
  for _ in range(2):  # The second time, the sums must have started anew.
    start_anew(accumulated, weights)
    results = losses_of(accumulated.step([accumulated.batch(*part) for part in parts]))
    assert int(accumulated.optimizer.iterations.numpy()) == 1
    for name, value in results.items():
      mean = (part_losses[0][name] + part_losses[1][name]) / 2
      assert value == pytest.approx(mean, rel=1e-4, abs=1e-6)
    for result, first, second in zip(accumulated.model.get_weights(), *moved, strict=True):
      np.testing.assert_allclose(result, (first + second) / 2, rtol=1e-4, atol=1e-6)


def test_gradient_norms_by_branch(categories):
  config = small_model.small_experiment(FROZEN, NO_MOMENTUM, 'trainer.gradient_norms=true')
  trained = Trained(config, categories, ONE)
  weights = trained.model.get_weights()
  void = losses_of(trained.step([trained.batch(VOID, VOID)]))
  # Void teaches the stuff branch nothing, while the proposals are background.
  assert void['gradient_norm/stuff'] == 0.0 and void['gradient_norm/instance'] > 0.0
  start_anew(trained, weights)
  stuff = losses_of(trained.step([trained.batch(STUFF, STUFF)]))
  assert stuff['gradient_norm/stuff'] > 0.0
  assert trained.step.tracing_count == 1
  # By tapes of their own.
  batch = small_model.training_batch(config.task, categories, TIE_ON_PERSON, STUFF)
  for branch in ('instance', 'stuff'):
    start_anew(trained, weights)
    with tf.GradientTape() as tape:
      outputs = trained.model(batch['image'], batch['image_info'], labels=batch, training=True)
      scalars = losses.oanet_losses(outputs, batch, config.task, trained.model.stuff_channels)
      names = losses.INSTANCE_LOSSES if branch == 'instance' else ['loss_stuff']
      loss = tf.add_n([scalars[name] for name in names])
    expected = float(tf.norm(tape.gradient(loss, outputs['last_feature'])))
    found = losses_of(trained.step([trained.batch(TIE_ON_PERSON, STUFF)]))
    found = found[f'gradient_norm/{branch}']
    assert found == pytest.approx(expected, rel=1e-3), branch
  start_anew(trained, weights)
  stuff = losses_of(trained.step([trained.batch(STUFF, STUFF)]))
  # Neither losses nor gradients change.
  plain = Trained(small_model.small_experiment(FROZEN, NO_MOMENTUM), categories, ONE, weights)
  expected = losses_of(plain.step([plain.batch(STUFF, STUFF)]))
  assert {**stuff, **expected} == pytest.approx(stuff, rel=1e-5)
  assert_close(trained.model.weights, plain.model.weights)


SETTINGS = {
  'bfloat16': 'runtime.mixed_precision_dtype=bfloat16',
  'float16': 'runtime.mixed_precision_dtype=float16',
  'float16 with a fixed scale': ('runtime.mixed_precision_dtype=float16,runtime.loss_scale=128.0'),
  'frozen batch norm': 'task.model.batch_norm=frozen',
  'sync batch norm': 'task.model.batch_norm=sync',
  'plain batch norm': 'task.model.batch_norm=plain',
  'accumulation': 'trainer.gradient_accumulation_steps=2',
  'moving average': 'trainer.optimizer_config.ema.average_decay=0.9',
}


@pytest.mark.parametrize('name', SETTINGS)
def test_five_finite_steps_with(name, categories):
  config = small_model.small_experiment(SETTINGS[name])
  trained = Trained(config, categories, TWO)
  parts = config.trainer.gradient_accumulation_steps
  before = trained.model.get_weights()
  for _ in range(5):
    batches = [trained.batch(TIE_ON_PERSON, PERSON)] * parts
    scalars = losses_of(trained.step(batches))
    assert all(np.isfinite(list(scalars.values()))), scalars
  after = trained.model.get_weights()
  assert all(np.isfinite(value).all() and value.dtype == np.float32 for value in after)
  assert any((a != b).any() for a, b in zip(after, before, strict=True))


def test_the_step_is_traced_once(one_and_two):
  """Not first to create the optimizer's variables, and then once more without."""
  for trained in one_and_two:
    trained.step([trained.batch(*BATCHES['things everywhere'])])
    assert trained.step.tracing_count == 1


def test_landscape_and_portrait_share_one_trace(categories):
  """Eight replicas would take minutes for a trace each of both orientations."""
  config = small_model.small_experiment(
    FROZEN,
    'task.train_data.output_size=[64,96],task.train_data.global_batch_size=1',
    'task.model.occlusion_head.enabled=true',
  )
  task = config.task

  def batch(portrait):
    steps = preprocess.training_steps(task.train_data, task.model, categories, portrait)
    example = preprocess.apply(steps, TIE_ON_PERSON)
    return {key: value[None] for key, value in example.items()}

  def merged(landscape, portrait):
    shape = [a if a == b else None for a, b in zip(landscape.shape, portrait.shape, strict=True)]
    # On several workers, the number of images is not known either.
    return tf.TensorSpec([None, *shape[1:]], landscape.dtype)

  batches = [batch(False), batch(True)]
  spec = tf.nest.map_structure(merged, *batches)
  assert spec['image'].shape.as_list() == [None, None, None, 3]
  one_trace = Trained(config, categories, ONE, batch_spec=spec)
  weights = one_trace.model.get_weights()
  by_shape = Trained(config, categories, ONE, weights)
  for image in batches:
    start_anew(one_trace, weights)
    start_anew(by_shape, weights)
    results, expected = (losses_of(trained.step([image])) for trained in (one_trace, by_shape))
    assert results == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert_close(one_trace.model.weights, by_shape.model.weights)
  assert (one_trace.step.tracing_count, by_shape.step.tracing_count) == (1, 2)
