"""Speaks TensorFlow Serving's gRPC and REST, and answers from a SavedModel in this process."""

import base64
import contextlib
import http.server
import json
import re
import threading
from concurrent import futures

import grpc
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

MODEL = 'oanet'


class Predictions(prediction_service_pb2_grpc.PredictionServiceServicer):
  """The gRPC service."""

  def __init__(self, signatures):
    self._signatures = signatures

  def Predict(self, request, context):
    if request.model_spec.name != MODEL:
      context.abort(grpc.StatusCode.NOT_FOUND, f'Servable not found: {request.model_spec.name}')
    signature = self._signatures[request.model_spec.signature_name]
    inputs = {name: tf.constant(tf.make_ndarray(proto)) for name, proto in request.inputs.items()}
    try:
      outputs = signature(**inputs)
    except tf.errors.InvalidArgumentError as error:
      context.abort(grpc.StatusCode.INVALID_ARGUMENT, as_serving_says(error))
    response = predict_pb2.PredictResponse()
    for name in request.output_filter or outputs:
      response.outputs[name].CopyFrom(tf.make_tensor_proto(outputs[name].numpy()))
    return response


def rest_handler(signatures):
  """https://www.tensorflow.org/tfx/serving/api_rest: row format, of one encoded input."""

  class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
      body = json.loads(self.rfile.read(int(self.headers['Content-Length'])))
      if self.path != f'/v1/models/{MODEL}:predict':
        self.answer(404, {'error': 'Servable not found'})
        return
      signature = signatures[body['signature_name']]
      (name,) = body['instances'][0]
      values = [base64.b64decode(instance[name]['b64']) for instance in body['instances']]
      try:
        outputs = signature(**{name: tf.constant(values, tf.string)})
      except tf.errors.InvalidArgumentError as error:
        self.answer(400, {'error': as_serving_says(error)})
        return
      columns = {name: value.numpy().tolist() for name, value in outputs.items()}
      rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
      self.answer(200, {'predictions': rows})

    def answer(self, code, content):
      self.send_response(code)
      self.end_headers()
      # Strings are sent as they are, unless an output's name ends with _bytes.
      self.wfile.write(json.dumps(content, default=bytes.decode).encode())

    def log_message(self, *_):
      pass

  return Handler


def as_serving_says(error):
  """As its session's errors are: without Python's trace, with the node's name."""
  found = re.search(r'assertion failed: \[.*\]', error.message)
  return f'{found[0]}\n\t [[{{{{node Assert/Assert}}}}]]'


@contextlib.contextmanager
def serving(signatures):
  """Protocol -> 'host:port' of servers."""
  unlimited = [('grpc.max_receive_message_length', -1)]
  server = grpc.server(futures.ThreadPoolExecutor(2), options=unlimited)
  service = Predictions(signatures)
  prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(service, server)
  port = server.add_insecure_port('localhost:0')
  server.start()
  rest = http.server.ThreadingHTTPServer(('localhost', 0), rest_handler(signatures))
  threading.Thread(target=rest.serve_forever, daemon=True).start()
  try:
    yield {'grpc': f'localhost:{port}', 'rest': f'localhost:{rest.server_port}'}
  finally:
    server.stop(None)
    rest.shutdown()
    rest.server_close()
