"""The SavedModel in the loader of TensorFlow Serving: a C++ program, on the protos of Serving."""

import pathlib
import shutil
import subprocess

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from oanet_tf.serving import saved_model, warmup
from tests.serving import requests

pytestmark = pytest.mark.slow

SOURCE = pathlib.Path(__file__).with_name('replay.cc')


@pytest.fixture(scope='session')
def replay(tmp_path_factory):
  """The program, compiled against TensorFlow's wheel."""
  compiler = shutil.which('g++')
  if compiler is None:
    pytest.skip('there is no C++ compiler (g++)')
  program = tmp_path_factory.mktemp('replay') / 'replay'
  libraries = tf.sysconfig.get_lib()
  # Nothing refers to its kernels by name.
  link = ['-Wl,--no-as-needed', '-l:libtensorflow_cc.so.2', f'-Wl,-rpath,{libraries}']
  command = [compiler, '-w', str(SOURCE), '-o', str(program)]
  command += [*tf.sysconfig.get_compile_flags(), *tf.sysconfig.get_link_flags(), *link]
  subprocess.run(command, check=True)
  return program


def answers_of(replay, served, log_file):
  """For each log of the file a PredictResponse, or an error message."""
  answers = log_file.with_suffix('.answers')
  # Without the environment, lest it finds a Python.
  subprocess.run([replay, served.folder, log_file, answers], check=True, env={})
  return [
    predict_pb2.PredictResponse.FromString(answer[1:])
    if answer.startswith(b'R')
    else answer[1:].decode()
    for answer in tf.data.TFRecordDataset(str(answers)).as_numpy_iterator()
  ]


def write_logs(path, calls):
  """Logs of requests; `calls` are (signature, the tensor it is given)."""
  with tf.io.TFRecordWriter(str(path)) as writer:
    for signature, tensor in calls:
      log = prediction_log_pb2.PredictionLog()
      request = log.predict_log.request
      request.model_spec.signature_name = signature
      name = saved_model.INPUTS[signature].name
      request.inputs[name].CopyFrom(tf.make_tensor_proto(tensor))
      writer.write(log.SerializeToString())


def check(served, request, response):
  """A response must be what the signature gives in Python, bit for bit."""
  assert isinstance(response, predict_pb2.PredictResponse), response
  inputs = {name: tf.constant(tf.make_ndarray(proto)) for name, proto in request.inputs.items()}
  expected = served.signatures[request.model_spec.signature_name](**inputs)
  assert response.outputs.keys() == expected.keys()
  for name, value in expected.items():
    np.testing.assert_array_equal(tf.make_ndarray(response.outputs[name]), value, name)


def test_answers_the_warmup_requests(replay, served, tmp_path):
  logs = shutil.copy(served.folder / warmup.WARMUP_FILE, tmp_path / 'warmup')
  records = [
    prediction_log_pb2.PredictionLog.FromString(record)
    for record in tf.data.TFRecordDataset(str(logs)).as_numpy_iterator()
  ]
  answers = answers_of(replay, served, pathlib.Path(logs))
  for record, answer in zip(records, answers, strict=True):
    check(served, record.predict_log.request, answer)


def test_answers_what_is_good_and_names_what_is_bad(replay, served, tmp_path):
  good = [
    ('serving_default', np.stack([requests.rectangles(30, 50, seed) for seed in range(2)])),
    (
      'serving_bytes',
      [
        requests.encode(requests.rectangles(70, 20)),
        requests.encode(requests.rectangles(9, 90), 'JPEG'),
      ],
    ),
  ]
  bad = [
    ('serving_bytes', tf.constant(encoded, tf.string)) for encoded, _ in requests.BAD_BYTES.values()
  ]
  messages = [message for _, message in requests.BAD_BYTES.values()]
  image = requests.rectangles(30, 40)
  for value, message in [
    (np.zeros((0, 30, 40, 3), np.uint8), 'the batch holds no image'),
    (np.zeros((2, 30, 0, 3), np.uint8), 'image 0 of the batch has 30 x 0 pixels'),
    (image, '[30,40,3] is not compatible with expected shape [?,?,?,3]'),
    (np.zeros((1, 30, 40, 4), np.uint8), '[1,30,40,4] is not compatible with expected shape'),
    (np.full((1, 30, 40, 3), np.nan, np.float32), 'float'),
  ]:
    bad.append(('serving_default', value))
    messages.append(message)
  bad.append(('serving_bytes', requests.encode(image)))
  messages.append('[] is not compatible with expected shape [?]')
  logs = tmp_path / 'logs'
  write_logs(logs, [*bad, *good])
  answers = answers_of(replay, served, logs)
  for answer, message in zip(answers[: len(bad)], messages, strict=True):
    assert isinstance(answer, str) and message in answer
  records = tf.data.TFRecordDataset(str(logs)).as_numpy_iterator()
  requested = [prediction_log_pb2.PredictionLog.FromString(r).predict_log.request for r in records]
  for request, answer in zip(requested[len(bad) :], answers[len(bad) :], strict=True):
    check(served, request, answer)
