"""Sends pictures to TensorFlow Serving and draws the answers: `oanet client --help`."""

import argparse
import base64
import io
import json
import pathlib
import sys
import urllib.error
import urllib.request
from collections.abc import Callable

import numpy as np
import tqdm
from PIL import ExifTags, Image

from oanet_tf import errors, visualize
from oanet_tf.data.categories import PanopticCategories
from oanet_tf.data.pictures import find_pictures, read_picture
from oanet_tf.errors import InputError
from oanet_tf.prediction.predictor import OUTPUTS, segments_of_outputs

SIGNATURE, INPUT = 'serving_bytes', 'image_bytes'
# The masks of an image may exceed the 4 MB that gRPC accepts by default.
GRPC_OPTIONS = [('grpc.max_receive_message_length', -1), ('grpc.max_send_message_length', -1)]

Client = Callable[[bytes], dict[str, np.ndarray]]


def parse_arguments() -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    prog='oanet client',
    description='Sends pictures to TensorFlow Serving, draws the answers as OUTPUT_DIR/NAME.png, '
    'and prints the segments with their scores.',
  )
  parser.add_argument(
    '--images', required=True, nargs='+', metavar='FILE_OR_DIR', help='images, or folders of them'
  )
  parser.add_argument('--output_dir', required=True, type=pathlib.Path, help='for overlays')
  parser.add_argument(
    '--categories',
    required=True,
    metavar='FILE',
    help='assets/categories.json of the SavedModel, for names and colours',
  )
  parser.add_argument('--protocol', choices=['grpc', 'rest'], default='grpc')
  parser.add_argument(
    '--server', metavar='HOST:PORT', help='(default: localhost:8500 for grpc, 8501 for rest)'
  )
  parser.add_argument('--model', default='oanet', help="the model's name (default: %(default)s)")
  parser.add_argument(
    '--timeout', type=float, default=60.0, metavar='SECONDS', help='(default: %(default)s)'
  )
  return parser.parse_args()


def main() -> None:
  arguments = parse_arguments()
  categories = PanopticCategories.from_json(arguments.categories)
  pictures = find_pictures(arguments.images)
  make, port = (grpc_client, 8500) if arguments.protocol == 'grpc' else (rest_client, 8501)
  server = arguments.server or f'localhost:{port}'
  client = make(server, arguments.model, arguments.timeout)
  arguments.output_dir.mkdir(parents=True, exist_ok=True)
  with tqdm.tqdm(pictures, 'segmenting', unit='image', file=sys.stderr) as progress:
    for path in progress:
      try:
        outputs = client(encoded(path))
      except ServerError as error:
        raise InputError(f'{path}: {server} refuses: {error}') from None
      masks = (outputs[f'panoptic_{kind}_mask'] for kind in ('category', 'instance'))
      segments = segments_of_outputs(outputs, *masks, categories)
      overlay = visualize.draw_panoptic(read_picture(path), segments, categories)
      Image.fromarray(overlay).save(arguments.output_dir / f'{path.stem}.png')
      progress.write(f'{path}: {describe(outputs, categories)}', file=sys.stdout)


def encoded(path: pathlib.Path) -> bytes:
  """The file itself, or a PNG of it if the server would decode it differently.

  Raises:
    InputError: if it is not an image.
  """
  image = read_picture(path)
  with Image.open(path) as picture:
    if picture.format == 'JPEG' and picture.getexif().get(ExifTags.Base.Orientation, 1) == 1:
      return path.read_bytes()
  png = io.BytesIO()
  Image.fromarray(image).save(png, 'PNG')
  return png.getvalue()


class ServerError(Exception):
  """The message of a server that refuses a request."""


def grpc_client(server: str, model: str, timeout: float) -> Client:
  """A function from an encoded image to `OUTPUTS`, without the batch axis.

  Args:
    server: 'host:port'.
    model: name of the model.
    timeout: in seconds.

  The function raises `ServerError`.
  """
  import grpc
  import tensorflow as tf
  from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

  channel = grpc.insecure_channel(server, GRPC_OPTIONS)
  stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)

  def client(image: bytes) -> dict[str, np.ndarray]:
    # The server does not send the rest.
    request = predict_pb2.PredictRequest(output_filter=OUTPUTS)
    request.model_spec.name = model
    request.model_spec.signature_name = SIGNATURE
    request.inputs[INPUT].CopyFrom(tf.make_tensor_proto([image]))
    try:
      response = stub.Predict(request, timeout=timeout)
    except grpc.RpcError as error:
      raise ServerError(first_line(error.details())) from None
    return {name: tf.make_ndarray(proto)[0] for name, proto in response.outputs.items()}

  return client


def rest_client(server: str, model: str, timeout: float) -> Client:
  """As `grpc_client`, with JSON over HTTP."""
  url = f'http://{server}/v1/models/{model}:predict'

  def client(image: bytes) -> dict[str, np.ndarray]:
    instance = {INPUT: {'b64': base64.b64encode(image).decode()}}
    body = json.dumps({'signature_name': SIGNATURE, 'instances': [instance]}).encode()
    request = urllib.request.Request(url, body, {'Content-Type': 'application/json'})
    try:
      with urllib.request.urlopen(request, timeout=timeout) as response:
        (outputs,) = json.load(response)['predictions']
    except urllib.error.HTTPError as error:
      raise ServerError(first_line(message_of(error.read()))) from None
    except OSError as error:
      raise ServerError(error) from None
    return {name: np.array(outputs[name]) for name in OUTPUTS}

  return client


def message_of(body: bytes) -> str:
  """The error message in the body of a failed request, of TensorFlow Serving or a proxy."""
  try:
    return json.loads(body)['error']
  except (ValueError, TypeError, KeyError):
    return body.decode(errors='replace')


def first_line(message: str) -> str:
  """TensorFlow's message, without the names of nodes that follow it."""
  return message.strip().partition('\n')[0]


def describe(outputs: dict[str, np.ndarray], categories: PanopticCategories) -> str:
  """Names and scores of the segments."""
  rows = zip(*(outputs[f'segment_{name}'] for name in ('category_id', 'score')), strict=True)
  return ', '.join(
    f'{categories.of_id(int(category_id)).name} {score:.2f}'
    for category_id, score in list(rows)[: int(outputs['num_segments'])]
  )


if __name__ == '__main__':
  errors.run(main)
