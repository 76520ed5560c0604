"""What the network computes in on which machine, and what stays float32 whatever that is."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from oanet_tf.modeling import build, precision
from oanet_tf.training import losses
from tests import small_model
from tests.categories import TIE_ON_PERSON as CATEGORIES

OCCLUSION_HEAD = 'task.model.occlusion_head.enabled=true'
# None is large enough, so the heads learn from true boxes, whatever the proposals are.
NO_PROPOSALS = 'task.model.roi_generator.pre_nms_min_size_threshold=1000'
LARGEST_ERROR = 0.12


def cpu_info(flags):
  processor = f'processor\t: 0\nmodel name\t: Some CPU\nflags\t\t: {flags}\nbugs\t\t: amx_bf16\n'
  return processor + '\n' + processor.replace(': 0', ': 1')


@pytest.mark.parametrize(
  ('text', 'dtype', 'reason'),
  [
    (cpu_info('fpu avx512f avx512_bf16 avx512_vnni'), 'bfloat16', 'has AVX512_BF16'),
    (cpu_info('avx512f avx512_bf16 amx_bf16 amx_tile'), 'bfloat16', 'has AMX_BF16'),
    (cpu_info('fpu avx512f avx512_vnni'), 'float32', 'no AMX_BF16 or AVX512_BF16'),
    (cpu_info('avx512_bf16_of_another_kind'), 'float32', 'no AMX_BF16'),
    ('processor\t: 0\nFeatures\t: fp asimd bf16\n', 'float32', 'no AMX_BF16'),
    ('', 'float32', 'no AMX_BF16'),
  ],
)
def test_auto_on_processors(text, dtype, reason, monkeypatch, tmp_path):
  path = tmp_path / 'cpuinfo'
  path.write_text(text)
  monkeypatch.setattr(precision, '_CPU_INFO', path)
  found = precision.choose('auto')
  assert found.dtype == dtype
  assert reason in str(found)


def test_auto_where_the_system_tells_nothing(monkeypatch, tmp_path):
  monkeypatch.setattr(precision, '_CPU_INFO', tmp_path / 'none')
  assert precision.choose('auto').dtype == 'float32'


@pytest.mark.parametrize(
  ('capabilities', 'dtype'),
  [([(8, 0)], 'bfloat16'), ([(7, 5)], 'float32'), ([(9, 0), (7, 0)], 'float32'),
   ([(12, 0), (8, 9)], 'bfloat16'), ([None], 'float32')],
)  # fmt: skip
def test_auto_on_gpus(capabilities, dtype, monkeypatch, tmp_path):
  # Whatever the processor has.
  (tmp_path / 'cpuinfo').write_text(cpu_info('amx_bf16'))
  monkeypatch.setattr(precision, '_CPU_INFO', tmp_path / 'cpuinfo')
  details = [{'compute_capability': one} if one else {} for one in capabilities]
  monkeypatch.setattr(tf.config, 'list_physical_devices', lambda kind: list(range(len(details))))
  monkeypatch.setattr(tf.config.experimental, 'get_device_details', details.__getitem__)
  assert precision.choose('auto').dtype == dtype


@pytest.mark.parametrize('setting', ['float32', 'bfloat16', 'float16'])
def test_what_is_asked_for_is_taken(setting):
  assert precision.choose(setting).dtype == setting


def test_nothing_is_float32():
  assert precision.choose(None).dtype == 'float32'


def test_the_policy_ends_with_its_block():
  before = tf_keras.mixed_precision.global_policy().name
  with pytest.raises(KeyError), precision.computing_in('bfloat16'):
    assert tf_keras.layers.Layer().compute_dtype == 'bfloat16'
    raise KeyError
  assert tf_keras.mixed_precision.global_policy().name == before


# What float32 the network has where it computes in bfloat16, by the layers' names.
LAST_LAYERS = {
  'rpn-scores', 'rpn-boxes', 'detection-scores', 'detection-boxes', 'mask-logits',
}  # fmt: skip


@pytest.mark.parametrize(
  ('layout', 'of_stuff'),
  [('oanet', 'logits'), ('detectron2', 'logits'), ('model_garden', 'segmentation_output')],
)
def test_last_layers_and_statistics_are_float32(layout, of_stuff):
  head = 'task.model.stuff_head'
  task = small_model.small_experiment(f'{head}.layout={layout},{head}.num_filters=32').task
  with precision.computing_in('bfloat16'):
    model = build.build_oanet(task.model, CATEGORIES)
  layers = [layer for layer in model.submodules if isinstance(layer, tf_keras.layers.Layer)]
  convolutions = (tf_keras.layers.Conv2D, tf_keras.layers.Dense)
  in_float32 = {
    one.name for one in layers if isinstance(one, convolutions) and one.compute_dtype == 'float32'
  }
  of_ranking = {f'conv_{size}' for size in ('1x7', '7x1', '3x3', '1x1')}
  assert in_float32 - of_ranking == {*LAST_LAYERS, of_stuff}
  assert in_float32 & of_ranking
  norms = [one for one in layers if isinstance(one, tf_keras.layers.GroupNormalization)]
  assert norms
  assert {norm.compute_dtype for norm in norms} == {'float32'}
  assert {variable.dtype for variable in model.variables} <= {tf.float32, tf.int64}
  assert model.backbone.compute_dtype == 'bfloat16'


def test_what_the_network_gives_is_float32():
  task = small_model.small_experiment('task.model.batch_norm=frozen', OCCLUSION_HEAD).task
  with precision.computing_in('bfloat16'):
    model = build.build_oanet(task.model, CATEGORIES)
  # It takes boxes, which bfloat16 would move by pixels.
  assert model.occlusion_head.compute_dtype == 'float32'
  batch = small_model.training_batch(task, CATEGORIES, small_model.TIE_ON_PERSON)
  for training in (False, True):
    outputs = model(batch['image'], batch['image_info'], labels=batch, training=training)
    outputs.pop('last_feature', None)
    kinds = {tensor.dtype for tensor in tf.nest.flatten(outputs)}
    assert tf.bfloat16 not in kinds
    assert tf.float32 in kinds


def gradients(model, task, batch):
  with tf.GradientTape() as tape:
    outputs = model(batch['image'], batch['image_info'], labels=batch, training=True)
    loss = losses.oanet_losses(outputs, batch, task, model.stuff_channels)['loss']
  return tape.gradient(loss, model.trainable_variables)


def test_gradients_are_those_of_float32_but_for_rounding():
  # The median below is 0.08 with these weights and 0.06 to 0.19 with 13 others: where the small
  # head's features hardly vary, group normalization magnifies the rounding.
  tf_keras.utils.set_random_seed(1)
  changes = ('task.model.batch_norm=frozen', NO_PROPOSALS, OCCLUSION_HEAD)
  task = small_model.small_experiment(*changes).task
  batch = small_model.training_batch(task, CATEGORIES, small_model.TIE_ON_PERSON)
  exact = build.build_oanet(task.model, CATEGORIES)
  with precision.computing_in('bfloat16'):
    rounded = build.build_oanet(task.model, CATEGORIES)
  rounded.set_weights(exact.get_weights())
  expected, found = (gradients(model, task, batch) for model in (exact, rounded))
  errors = [
    float(tf.norm(tf.cast(other, tf.float32) - one) / tf.norm(one))
    for one, other in zip(expected, found, strict=True)
    if one is not None and tf.norm(one) > 1e-4
  ]
  assert len(errors) > 40 and np.median(errors) < LARGEST_ERROR


@pytest.mark.parametrize(
  'make',
  [
    lambda: tf_keras.layers.Conv2D(2, 1, activation='relu'),
    lambda: tf_keras.layers.Conv2DTranspose(2, 1),
    lambda: tf_keras.layers.Dense(2),
  ],
)
def test_the_gradient_of_a_bias_counts_further_than_256(make):
  """8 · 64 · 64 outputs each rise with the bias; TensorFlow's own gradient ends at 256 on CPUs."""
  with precision.computing_in('bfloat16'):
    layer = make()
  layer.build([None, 64, 64, 3])
  layer.set_weights([layer.get_weights()[0], np.array([1.0, 2.0])])
  images = tf.zeros([8, 64, 64, 3])
  before = layer(images)
  precision.keep_in_float32([layer])
  with tf.GradientTape() as tape:
    after = layer(images)
    total = tf.reduce_sum(tf.cast(after, tf.float32))
  assert after.dtype == tf.bfloat16
  assert (after == before).numpy().all()
  assert tape.gradient(total, layer.bias).numpy().tolist() == [32768.0, 32768.0]
  assert [variable.shape.rank for variable in layer.trainable_variables][1:] == [1]
