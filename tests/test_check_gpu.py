"""`scripts/check_gpu.py`: its verdict on results made by hand, and all of it on the CPU."""

import json
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf

from oanet_tf.data import input_pipeline
from oanet_tf.data.categories import PanopticCategories
from oanet_tf.data.objects import overlapping
from oanet_tf.errors import InputError
from tests import end_to_end, small_model
from tests.scripts import SCRIPTS, check_gpu, check_gpu_worker
from tests.scripts import check_gpu_verdict as verdict

MACHINE = {'version': '2.20.0', 'gpus': ['Some GPU'], 'driver': ['GPU 0: Some GPU']}
LOSSES = {'loss': 3.0, 'loss_stuff': 1.0, 'loss_mask': 0.8, 'loss_srm': 0.0}


def result(*changes, **fields):
  """Of a step for each of the changes to `LOSSES`."""
  losses = [{**LOSSES, **change} for change in changes or ({}, {})]
  times = {'seconds': [9.0] + [0.5] * (len(losses) - 1), 'input_seconds': [0.1] * len(losses)}
  return verdict.Result(losses=losses, **{**times, 'images': 4, 'replicas': 2, 'gpus': 2, **fields})


def problems(**results):
  return verdict.find_problems(MACHINE, results, num_steps=2)


def test_it_is_yes_if_all_agree():
  # The mean of the stuff loss is 1 % off, of the mask loss 12.5 %, which depends on sampling.
  assert not problems(float32=result(), xla=result({'loss_stuff': 1.02}, {'loss_mask': 1.0}))


@pytest.mark.parametrize(
  ('of_float16', 'told'),
  [
    (result({'loss_stuff': 1.06}, {}), 'float16: loss_stuff is 1.03, but 1 in float32'),
    (result({'loss_mask': 1.3}, {'loss_mask': 1.3}), 'float16: loss_mask is 1.3, but 0.8'),
    (result({}, {'loss_srm': 0.001}), 'float16: loss_srm is 0.0005, but 0 in float32'),
    (result({}, {'loss_srm': float('nan')}), 'float16 has non-finite loss_srm (nan) in step 2'),
    (result({'loss': float('inf')}, {}), 'float16 has non-finite loss (inf) in step 1'),
    (result({}), 'float16 ended after 1 of 2 steps'),
    (verdict.Result(), 'float16 ended after 0 of 2 steps'),
    (verdict.Result(failure='crashed (SIGSEGV)'), 'failed after 0 steps: crashed (SIGSEGV)'),
    (
      result({}, failure='ResourceExhaustedError: OOM when allocating'),
      'float16 failed after 1 steps: ResourceExhaustedError: OOM when allocating; lower task.train',
    ),
  ],
)
def test_it_is_no_and_says_why(of_float16, told):
  found = problems(float32=result(), float16=of_float16)
  assert len(found) == 1 and told in found[0] and '\n' not in found[0]


def test_without_float32_the_others_count_by_themselves():
  assert not problems(xla=result({}, {'loss_stuff': 9.0}))
  found = problems(float32=verdict.Result(failure='oh'), xla=result({}, {'loss_stuff': 9.0}))
  assert found == ['float32 failed after 0 steps: oh']


def test_a_gpu_that_tensorflow_does_not_see():
  found = verdict.find_problems({**MACHINE, 'gpus': []}, {}, 2)
  assert len(found) == 1 and "'tensorflow[and-cuda]==2.20.0'" in found[0]
  assert not verdict.find_problems({**MACHINE, 'gpus': [], 'driver': []}, {}, 2)


def test_what_is_reported():
  operations = {'on_host': {'Where int64': 3}, 'in_host_memory': {'Mul int32': 2}}
  results = {'float32': result(peak_bytes=5e9, **operations), 'xla': verdict.Result(failure='oh')}
  first, _, row, *rest = verdict.report(MACHINE, results, is_small=False).splitlines()
  assert first == 'TensorFlow 2.20.0, Some GPU'
  # 4 images in half a second, a fifth of it waiting; 9 seconds for two replicas.
  assert row.split() == ['float32', '8.0', '20%', '9.0', 's', '4.5', 's', '0.50', 's', '5.0']
  assert rest == ['on the host: Where int64 × 3', 'in host memory: Mul int32 × 2']


def test_without_a_gpu_it_says_what_was_not_checked():
  machine = {**MACHINE, 'gpus': [], 'driver': []}
  results = {'float32': result(gpus=0, on_host={'CombinedNonMaxSuppression': 4})}
  text = verdict.report(machine, results, is_small=True)
  assert 'no GPU' in text and 'without a GPU kernel: CombinedNonMaxSuppression × 4' in text
  for one in (*verdict.NOT_ON_CPU, verdict.SMALL_NETWORK):
    assert one in text
  assert verdict.SMALL_NETWORK not in verdict.report(machine, results, is_small=False)


def test_only_frequent_operations_are_listed():
  assert verdict.listed({}) == 'nothing'
  assert verdict.listed({str(n): 1 for n in range(12)}).endswith('9 × 1, 2 more types')


@pytest.mark.parametrize(
  ('code', 'output', 'told'),
  [
    (-9, '', 'killed, perhaps because'),
    (-11, 'x', 'crashed (SIGSEGV)'),
    (1, 'a\nValueError: b\n\n', 'ValueError: b'),
    (2, 'error: a: is no file\n', 'a: is no file'),
    (3, '', 'exit code 3'),
  ],
)
def test_why_a_process_ended(code, output, told):
  assert told in check_gpu.why_it_ended(code, output)


@pytest.fixture
def worker(tmp_path, monkeypatch):
  """Runs code in place of the worker -> why it failed, and its answers."""

  def run(code, time_limit=60):
    script, answers = tmp_path / 'worker.py', []
    script.write_text(code)
    monkeypatch.setattr(check_gpu, 'WORKER', script)
    failure = check_gpu.run_worker([], tmp_path / 'log.txt', time_limit, answers.append)
    return failure, answers

  return run


def test_answers_arrive(worker):
  assert worker('print(\'{"step": 1}\')') == ('', [{'step': 1}])


def test_a_worker_that_fails_after_an_answer(worker):
  failure, answers = worker('print(\'{"step": 1}\', flush=True)\nraise ValueError("bad")')
  assert failure == 'ValueError: bad' and answers == [{'step': 1}]


def test_a_worker_that_hangs_is_stopped_with_all_that_it_started(worker):
  begin = time.monotonic()
  failure, _ = worker(
    'import subprocess, sys\nsubprocess.run([sys.executable, "-c", "import time; time.sleep(60)"])',
    time_limit=1,
  )
  assert failure == 'took longer than 1 s (--time_limit)' and time.monotonic() - begin < 20


def settings(tmp_path, name, num_gpus, *arguments):
  parsed = check_gpu.parse_arguments(arguments)
  found = check_gpu.settings_of(name, parsed, tmp_path, num_gpus)
  return {key: setting.value for key, setting in found.items()}


@pytest.mark.parametrize('name', check_gpu.CHECKS)
def test_settings_of_a_check(tmp_path, name):
  found = settings(tmp_path, name, 8)
  assert found['task.train_data.output_size'] == [800, 1333]
  assert found['task.train_data.global_batch_size'] == 16
  assert found['task.train_data.input_path'] == f'{tmp_path}/train-*.tfrecord'
  assert found['runtime.mixed_precision_dtype'] == name.replace('xla', 'float32')
  assert found['runtime.enable_xla'] == (name == 'xla')
  # Without a GPU, a small network.
  assert settings(tmp_path, name, 0)['task.train_data.output_size'] == [32, 32]


def test_what_is_given_wins(tmp_path):
  override = ('--params_override', 'task.train_data.global_batch_size=6')
  assert settings(tmp_path, 'xla', 8, *override)['task.train_data.global_batch_size'] == 6
  found = settings(tmp_path, 'xla', 0, '--experiment', 'oanet_r101fpn_coco', '--input_path', 'a,b')
  assert found['task.model.backbone.resnet.model_id'] == 101
  assert found['task.train_data.input_path'] == 'a,b'


def test_settings_that_a_precision_cannot_have(tmp_path):
  averages = ('--params_override', 'trainer.optimizer_config.ema.average_decay=0.99')
  with pytest.raises(InputError, match='moving averages'):
    settings(tmp_path, 'float16', 1, *averages)
  parsed = check_gpu.parse_arguments(averages)
  assert 'moving averages' in check_gpu.run_check('float16', parsed, tmp_path, 1).failure


def test_help_answers_without_tensorflow():
  command = [sys.executable, '-X', 'importtime', SCRIPTS / 'check_gpu.py', '--help']
  done = subprocess.run(command, capture_output=True, text=True, timeout=20)
  assert done.returncode == 0 and '--time_limit' in done.stdout
  assert 'tensorflow' not in done.stderr


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['--experiment', 'none'], 'none'),
    (['--params_override', 'task.sed=1'], 'task.seed?'),
    (['--input_path', 'none-*'], 'none-*'),
  ],
)
def test_wrong_arguments_are_told_at_once(monkeypatch, capsys, arguments, message):
  outcome = end_to_end.run_command(monkeypatch, capsys, check_gpu.main, *arguments)
  assert message in end_to_end.one_line_error(outcome)


def test_unknown_checks(monkeypatch, capsys):
  code, _, stderr = end_to_end.run_command(monkeypatch, capsys, check_gpu.main, '--checks', 'fp8')
  assert code == 2 and "'fp8' is none of float32" in stderr


def test_made_up_images_have_what_coco_has():
  rng = np.random.default_rng(0)
  records = [check_gpu_worker.made_up_record(rng, number) for number in range(18)]
  assert {(one.height, one.width) for one in records} == set(check_gpu_worker.SIZES)
  assert any(one.segments.is_crowd.any() and one.objects.is_crowd.any() for one in records)
  assert any(not len(one.objects.masks) for one in records)
  assert any(overlapping(one.objects, one.height, one.width).any() for one in records)
  for one in records:
    assert np.bincount(one.segments.index.ravel(), minlength=1)[1:].all()
    assert one.segments.index.max() == len(one.segments.ids) == len(one.is_thing)
    for box, mask in zip(one.objects.boxes, one.objects.masks, strict=True):
      assert mask.shape == (box[2] - box[0], box[3] - box[1])
      assert all(mask.any(axis=axis)[[0, -1]].all() for axis in (0, 1))


@pytest.mark.slow
def test_made_up_images_can_be_trained_on(tmp_path):
  check_gpu_worker.write_shards(tmp_path)
  categories = PanopticCategories.from_json(tmp_path / 'categories.json')
  assert (categories.num_things, categories.num_stuff) == (80, 53)
  task = small_model.small_experiment(
    f'task.train_data.input_path={tmp_path}/train-*.tfrecord', 'task.train_data.output_size=[64,96]'
  ).task
  batches = input_pipeline.training_input(task, categories).take(8)
  shapes = {tuple(batch['image'].shape[1:3]) for batch in batches}
  assert shapes == {(64, 96), (96, 64)}


def test_operations_without_a_gpu_kernel():
  @tf.function(autograph=False)
  def suppress(boxes, scores):
    count = tf.shape(boxes)[1] + tf.cast(tf.reduce_sum(scores), tf.int32)
    found = tf.image.combined_non_max_suppression(boxes[:, :, None], scores, 2, 2)
    return tf.cond(count > 0, lambda: found[0] + 1.0, lambda: found[0])

  with check_gpu_worker.recorded_graphs() as graphs:
    suppress(tf.zeros([1, 5, 4]), tf.zeros([1, 5, 1]))
  found = check_gpu_worker.host_operations(graphs)
  assert found == {'on_host': {'CombinedNonMaxSuppression': 1}, 'in_host_memory': {}}


def node(operation, device, dtype=None):
  made = tf.compat.v1.NodeDef(op=operation, device=f'/job:localhost/task:0/device:{device}:0')
  if dtype:
    made.attr['T'].type = dtype.as_datatype_enum
  return made


def test_operations_on_the_host_of_a_gpu():
  graphs = [tf.compat.v1.RunMetadata.FunctionGraphs(partition_graphs=[
    tf.compat.v1.GraphDef(node=[
      node('AddV2', 'GPU', tf.float32), node('AddV2', 'GPU', tf.int32), node('Const', 'GPU'),
      node('Relu', 'GPU', tf.float16),
    ]),
    tf.compat.v1.GraphDef(node=[
      node('Where', 'CPU', tf.bool), node('Mul', 'CPU', tf.int32), node('Mul', 'CPU', tf.int32),
      node('_Recv', 'CPU'),
    ]),
  ])]  # fmt: skip
  assert check_gpu_worker.host_operations(graphs) == {
    'on_host': {'Mul int32': 2, 'Where': 1},
    'in_host_memory': {'AddV2 int32': 1},
  }


def test_nothing_was_recorded():
  assert check_gpu_worker.host_operations([]) == {'on_host': {}, 'in_host_memory': {}}


@pytest.mark.slow
def test_all_of_it_on_the_cpu(tmp_path, monkeypatch, capsys):
  monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '-1')
  output = tmp_path / 'found.json'
  code, stdout, _ = end_to_end.run_command(
    monkeypatch, capsys, check_gpu.main, '--output', output, '--steps', '3'
  )
  found = json.loads(output.read_text())
  assert (code, stdout.splitlines()[-1]) == (0, 'yes'), found['problems']
  assert list(found['checks']) == list(check_gpu.CHECKS)
  for one in found['checks'].values():
    assert len(one['losses']) == 3 and one['images'] == 4 and one['peak_bytes'] > 1e8
    assert list(one['on_host']) == ['CombinedNonMaxSuppression']
  assert verdict.SMALL_NETWORK in stdout
