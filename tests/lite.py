"""A function as it runs in LiteRT, of built-in operations alone."""

import pathlib
import tempfile

import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter


def run_in_litert(function, inputs, layers=()):
  """Converts `function(**tensors) -> dict of tensors` for these inputs, and runs it on them.

  `layers` are those whose weights the function uses.
  """
  module = tf.Module()
  module.layers = list(layers)
  specs = {name: tf.TensorSpec(x.shape, x.dtype, name=name) for name, x in inputs.items()}
  module.function = tf.function(function, autograph=False)
  signature = module.function.get_concrete_function(**specs)
  with tempfile.TemporaryDirectory() as folder:
    tf.saved_model.save(module, folder, signatures=signature)
    converter = tf.lite.TFLiteConverter.from_saved_model(folder)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    path = pathlib.Path(folder) / 'model.tflite'
    path.write_bytes(converter.convert())
    runner = Interpreter(str(path)).get_signature_runner()
    taken = runner.get_input_details()
    return runner(**{name: np.asarray(x) for name, x in inputs.items() if name in taken})
