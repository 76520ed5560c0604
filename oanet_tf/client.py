"""Sends pictures to TensorFlow Serving and draws the answers: `oanet client --help`."""

import argparse
import base64
import http.client
import io
import json
import math
import pathlib
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence

import numpy as np
import tqdm
from PIL import Image

from oanet_tf import errors, files, visualize
from oanet_tf.arguments import ArgumentParser, add_overwrite
from oanet_tf.data.categories import PanopticCategories
from oanet_tf.data.pictures import (
  decoded,
  named_pictures,
  orientation,
  read_bytes,
  read_picture,
  upright_rgb,
)
from oanet_tf.errors import InputError
from oanet_tf.prediction.predictor import OUTPUTS, segments_of_outputs
from oanet_tf.printing import shown

SIGNATURE, INPUT, LABELS = 'serving_bytes', 'image_bytes', 'segment_label'
# The masks of an image may exceed the 4 MB that gRPC accepts by default.
GRPC_OPTIONS = [('grpc.max_receive_message_length', -1), ('grpc.max_send_message_length', -1)]

Client = Callable[[bytes], dict[str, np.ndarray]]


def parse_arguments() -> argparse.Namespace:
  parser = ArgumentParser(
    prog='oanet client',
    description='Sends pictures to TensorFlow Serving, draws the answers as OUTPUT_DIR/NAME.png, '
    'and prints the segments with their scores.',
    epilog='Exit code 1: a picture could not be read or was refused; it was reported and left out.',
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
    '--timeout', type=_seconds, default=60.0, metavar='SECONDS', help='(default: %(default)s)'
  )
  add_overwrite(parser)
  return parser.parse_args()


def _seconds(text: str) -> float:
  try:
    seconds = float(text)
  except ValueError:
    seconds = 0.0
  if not 0 < seconds < math.inf:
    raise argparse.ArgumentTypeError(f'{text!r} is no time in seconds')
  return seconds


def main() -> int:
  """Exit code 1: a picture could not be read, or the server refused it; it was left out."""
  arguments = parse_arguments()
  categories = PanopticCategories.from_json(arguments.categories)
  pictures = named_pictures(arguments.images)
  inputs = [*arguments.images, *pictures.values(), arguments.categories]
  files.check_output_folder(arguments.output_dir, inputs)
  outputs = {path: arguments.output_dir / f'{name}.png' for name, path in pictures.items()}
  for output in outputs.values():
    files.check_output_file(output, list(pictures.values()), arguments.overwrite)
  make, port = (grpc_client, 8500) if arguments.protocol == 'grpc' else (rest_client, 8501)
  server = arguments.server or f'localhost:{port}'
  client = make(server, arguments.model, arguments.timeout)
  num_refused = 0
  with tqdm.tqdm(outputs.items(), 'segmenting', unit='image', file=sys.stderr) as progress:
    for path, output in progress:
      try:
        found = client(encoded(path))
      except RefusedPicture as error:
        progress.write(shown(f'{path}: {server} refuses: {error}'), file=sys.stderr)
        num_refused += 1
        continue
      except ServerError as error:
        raise InputError(f'{path}: {server} refuses: {error}') from None
      except InputError as error:
        progress.write(str(error), file=sys.stderr)
        num_refused += 1
        continue
      check_labels(found, categories, arguments.categories, server)
      masks = (found[f'panoptic_{kind}_mask'] for kind in ('category', 'instance'))
      segments = segments_of_outputs(found, *masks, categories)
      overlay = visualize.draw_panoptic(read_picture(path), segments, categories)
      files.make_folder(arguments.output_dir)
      with files.replacing(output) as temporary:
        Image.fromarray(overlay).save(temporary, 'PNG')
      progress.write(f'{path}: {describe(found, categories)}', file=sys.stdout)
  return 1 if num_refused else 0


def encoded(path: pathlib.Path) -> bytes:
  """The file itself, or a PNG of it if the server would decode it differently.

  Raises:
    InputError: if it is not an image.
  """
  content = read_bytes(path)
  picture = decoded(content, str(path))
  # A server with an export of an earlier version turns no picture.
  if picture.format == 'JPEG' and orientation(picture) == 1:
    return content
  png = io.BytesIO()
  upright_rgb(picture, str(path)).save(png, 'PNG')
  return png.getvalue()


class ServerError(Exception):
  """The message of a server that refuses a request, or of the connection."""


class RefusedPicture(ServerError):
  """The request is refused for its picture; others may be accepted."""


def grpc_client(server: str, model: str, timeout: float) -> Client:
  """A function from an encoded image to `OUTPUTS` and, of newer exports, `LABELS`; no batch axis.

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
    try:
      return ask(image, (*OUTPUTS, LABELS))
    except RefusedPicture as error:
      if LABELS not in str(error):
        raise
      return ask(image, OUTPUTS)

  def ask(image: bytes, outputs: Sequence[str]) -> dict[str, np.ndarray]:
    # The server does not send the rest.
    request = predict_pb2.PredictRequest(output_filter=outputs)
    request.model_spec.name = model
    request.model_spec.signature_name = SIGNATURE
    request.inputs[INPUT].CopyFrom(tf.make_tensor_proto([image]))
    try:
      response = stub.Predict(request, timeout=timeout)
    except grpc.RpcError as error:
      is_refused = error.code() in (
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
      )
      kind = RefusedPicture if is_refused else ServerError
      raise kind(first_line(error.details())) from None
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
        return {name: np.array(outputs[name]) for name in (*OUTPUTS, LABELS) if name in outputs}
    except urllib.error.HTTPError as error:
      is_refused = error.code in (
        http.HTTPStatus.BAD_REQUEST,
        http.HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
      )
      kind = RefusedPicture if is_refused else ServerError
      raise kind(first_line(message_of(error.read()))) from None
    except (OSError, http.client.HTTPException) as error:
      raise ServerError(error) from None
    except (KeyError, TypeError, ValueError, RecursionError):
      raise ServerError('its answer is not of TensorFlow Serving') from None

  return client


def message_of(body: bytes) -> str:
  """The error message in the body of a failed request, of TensorFlow Serving or a proxy."""
  try:
    return json.loads(body)['error']
  except (ValueError, TypeError, KeyError, RecursionError):
    return body.decode(errors='replace')


def first_line(message: str) -> str:
  """TensorFlow's message, without the names of nodes that follow it."""
  return message.strip().partition('\n')[0]


def check_labels(
  outputs: dict[str, np.ndarray],
  categories: PanopticCategories,
  categories_path: str,
  server: str,
) -> None:
  """Compares the names of the segments' categories with the server's.

  Raises:
    InputError: if the categories are not those of the served network.
  """
  number = int(outputs['num_segments'])
  ids = [int(category_id) for category_id in outputs['segment_category_id'][:number]]
  ours = [categories.of_id(i).name if i in categories else None for i in ids]
  theirs = [
    label.decode() if isinstance(label, bytes) else str(label)
    for label in outputs.get(LABELS, ours)[:number]
  ]
  for category_id, here, there in zip(ids, ours, theirs, strict=True):
    if here is None or here != there:
      raise InputError(
        f'{categories_path}: category {category_id} is {repr(here) if here else "missing"}, but '
        f'{there!r} on {server}; give the assets/categories.json of its SavedModel'
      )


def describe(outputs: dict[str, np.ndarray], categories: PanopticCategories) -> str:
  """Names and scores of the segments."""
  rows = zip(*(outputs[f'segment_{name}'] for name in ('category_id', 'score')), strict=True)
  return ', '.join(
    f'{categories.of_id(int(category_id)).name} {score:.2f}'
    for category_id, score in list(rows)[: int(outputs['num_segments'])]
  )


if __name__ == '__main__':
  errors.run(main)
