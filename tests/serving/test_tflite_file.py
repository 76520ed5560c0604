import flatbuffers
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from oanet_tf.errors import InputError
from oanet_tf.serving.tflite_file import check_builtins, read_metadata, with_metadata


def convert(function, *specs, with_tensorflow=False, custom=False):
  module = tf.Module()
  concrete = tf.function(function, specs, autograph=False).get_concrete_function()
  converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], module)
  if with_tensorflow:
    converter.target_spec.supported_ops.add(tf.lite.OpsSet.SELECT_TF_OPS)
  converter.allow_custom_ops = custom
  return converter.convert()


VECTOR = tf.TensorSpec([4], tf.float32)
WEIGHTS = np.arange(4096, dtype=np.float32).reshape(4, 1024)


@pytest.fixture(scope='module')
def product():
  return convert(lambda x: x[None] @ tf.constant(WEIGHTS), VECTOR)


def run(model, value):
  interpreter = Interpreter(model_content=model)
  interpreter.allocate_tensors()
  interpreter.set_tensor(interpreter.get_input_details()[0]['index'], value)
  interpreter.invoke()
  return interpreter.get_tensor(interpreter.get_output_details()[0]['index'])


def test_builtin_operations_are_good(product):
  check_builtins(product)


def suppress(boxes):
  """What the Model Garden's layers use by default."""
  return tf.image.combined_non_max_suppression(boxes[None, :, None], boxes[None, :, :1], 2, 2)[0]


BOXES = tf.TensorSpec([4, 4], tf.float32)


def test_an_operation_of_tensorflow_is_refused():
  model = convert(suppress, BOXES, with_tensorflow=True)
  with pytest.raises(InputError, match=r'\bFlexCombinedNonMaxSuppression$'):
    check_builtins(model)


def test_a_custom_operation_is_refused():
  model = convert(suppress, BOXES, custom=True)
  with pytest.raises(InputError, match=r'\bCombinedNonMaxSuppression$'):
    check_builtins(model)


def test_metadata_is_read_again(product):
  assert read_metadata(with_metadata(product, b'some metadata')) == b'some metadata'


def test_the_model_runs_as_before(product):
  model = with_metadata(product, b'some metadata')
  value = np.array([1, 2, 3, 4], np.float32)
  np.testing.assert_array_equal(run(model, value), run(product, value))
  np.testing.assert_allclose(run(model, value), [value @ WEIGHTS], rtol=1e-6)


def test_weights_that_lie_behind_the_flatbuffer_are_kept(product):
  """As the quantiser lays them."""
  parsed = schema.ModelT.InitFromObj(schema.Model.GetRootAs(product))
  (buffer,) = (b for b in parsed.buffers if b.data is not None and len(b.data) == WEIGHTS.nbytes)
  content, buffer.data, buffer.size = bytes(buffer.data), None, WEIGHTS.nbytes

  def packed(offset):
    buffer.offset = offset
    builder = flatbuffers.Builder()
    builder.Finish(parsed.Pack(builder), b'TFL3')
    return bytes(builder.Output())

  # A number of another size would change the length.
  start = -(-len(packed(2**20)) // 16) * 16
  moved = packed(start).ljust(start, b'\0') + content
  value = np.array([1, 2, 3, 4], np.float32)
  np.testing.assert_array_equal(run(moved, value), run(product, value))
  np.testing.assert_array_equal(run(with_metadata(moved, b''), value), run(product, value))
