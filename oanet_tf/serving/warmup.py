"""Requests that TensorFlow Serving sends to a model before it accepts real ones.

See https://www.tensorflow.org/tfx/serving/saved_model_warmup.
"""

import importlib.util
import io
import pathlib

import numpy as np
import tensorflow as tf
from PIL import Image

from oanet_tf.errors import InputError

WARMUP_FILE = pathlib.Path('assets.extra', 'tf_serving_warmup_requests')


def check_installed() -> None:
  """Raises an InputError if the package that `write_requests` needs is missing."""
  if importlib.util.find_spec('tensorflow_serving') is None:
    raise InputError(
      "the format savedmodel needs tensorflow-serving-api; pip install 'oanet_tf[serving]'"
    )


def write_requests(image: np.ndarray, folder: pathlib.Path) -> None:
  """Writes a request for each signature with a portrait and a landscape image.

  Args:
    image: [H, W, 3] uint8; it is transposed for the other orientation.
    folder: of the SavedModel.
  """
  from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

  path = folder / WARMUP_FILE
  path.parent.mkdir()
  with tf.io.TFRecordWriter(str(path)) as writer:
    for oriented in (image, image.transpose(1, 0, 2)):
      for signature, inputs in _inputs(oriented).items():
        request = predict_pb2.PredictRequest()
        request.model_spec.signature_name = signature
        for name, value in inputs.items():
          request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
        log = prediction_log_pb2.PredictLog(request=request)
        writer.write(prediction_log_pb2.PredictionLog(predict_log=log).SerializeToString())


def _inputs(image: np.ndarray) -> dict[str, dict[str, object]]:
  """The inputs of each signature."""
  encoded = io.BytesIO()
  Image.fromarray(image).save(encoded, 'JPEG')
  return {
    'serving_default': {'image': image[np.newaxis]},
    'serving_bytes': {'image_bytes': [encoded.getvalue()]},
  }
