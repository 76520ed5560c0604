#!/usr/bin/env python3
"""Puts a SavedModel under load: threads send images of many sizes, some of them broken.

The images are its warm-up image at random sizes, as pixels, JPEG and PNG. The answer to a good
request must be, bit for bit, what the network answers to it alone. The answer to a broken one must
be an error that says which image is broken, and how. Some requests are made to cost as much as
possible. Memory is that of the whole process: this one, whose threads call the signatures, stands
in for TensorFlow Serving. With --sizes, each kind of request is sent alone to a new process.
"""

import argparse
import functools
import hashlib
import io
import json
import multiprocessing
import os
import pathlib
import resource
import sys
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
from typing import NamedTuple

import numpy as np
import tqdm

from oanet_tf import errors
from oanet_tf.errors import InputError

SIGNATURES = {'serving_default': 'image', 'serving_bytes': 'image_bytes'}
# Number of different good requests.
NUM_GOOD = 24
# The most pixels of an image.
LARGEST_SIDE = 5792

Answer = dict[str, np.ndarray] | str
# The SHA-256 of each result: the maps of all good requests would be a part of the measured memory.
Digests = dict[str, str]
Server = Callable[['Request'], Answer]


class Request(NamedTuple):
  """A request: its signature and input, and what the error to it must contain, if it is broken.

  A function as input is called in the process that sends the request.
  """

  signature: str
  value: object
  error: str | None = None


class Load(NamedTuple):
  """Figures of a run; latencies in milliseconds, memory in megabytes."""

  threads: int
  requests_per_second: float
  p50: float
  p99: float
  answered_right: int
  named_right: int
  memory_at_a_fifth: float
  memory_at_the_end: float
  largest_memory: float


def main(arguments: Sequence[str] | None = None) -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--model', required=True, type=pathlib.Path, help='EXPORT/savedmodel/VERSION')
  parser.add_argument(
    '--threads', type=int, nargs='+', default=[4, 16], help='clients (default: 4 16)'
  )
  parser.add_argument('--requests', type=int, default=500, help='for each (default: %(default)s)')
  parser.add_argument(
    '--sides',
    type=int,
    nargs=2,
    default=(64, 640),
    metavar=('LEAST', 'GREATEST'),
    help='of images, in pixels (default: 64 640)',
  )
  parser.add_argument(
    '--broken', type=float, default=0.05, metavar='SHARE', help='of requests (default: %(default)s)'
  )
  parser.add_argument(
    '--largest',
    type=float,
    default=0.0,
    metavar='SHARE',
    help='of requests, that are of the largest size that is accepted (default: %(default)s)',
  )
  parser.add_argument(
    '--sizes', action='store_true', help='time and memory of each kind of request, instead'
  )
  parser.add_argument('--output', type=pathlib.Path, help='JSON file for the figures')
  parsed = parser.parse_args(arguments)
  if not (parsed.model / 'saved_model.pb').is_file():
    raise InputError(f'{parsed.model}: is not a version of a SavedModel (it has no saved_model.pb)')
  if parsed.sizes:
    figures = measure_sizes(parsed.model)
  else:
    shares = {'broken': parsed.broken, 'largest': parsed.largest}
    loads = measure(parsed.model, parsed.threads, parsed.requests, parsed.sides, shares)
    print_table(loads, parsed.requests)
    figures = [load._asdict() for load in loads]
  if parsed.output:
    parsed.output.write_text(json.dumps(figures, indent=1) + '\n')


def measure(
  model: pathlib.Path,
  threads: Sequence[int],
  number: int,
  sides: tuple[int, int],
  shares: Mapping[str, float],
) -> list[Load]:
  """Figures for each number of threads.

  Args:
    model: the SavedModel.
    threads: of clients.
    number: of requests for each.
    sides: the least and the greatest of good images.
    shares: of the requests, those 'broken' and those of the 'largest' accepted size.

  Raises:
    AssertionError: if an answer is wrong.
  """
  from PIL import Image

  rng = np.random.default_rng(0)
  server, picture = load_server(model), Image.fromarray(warmup_image(model))
  good = good_requests(picture, sides, rng)
  of_kind = {
    'good': good,
    'broken': broken_requests(next(r.value[0] for r in good if r.signature == 'serving_bytes')),
    'largest': largest_requests(picture),
  }
  counts = {kind: round(share * number) for kind, share in shares.items()}
  kinds = np.repeat(['good', *counts], [number - sum(counts.values()), *counts.values()])
  alone, loads = {}, []
  for count in threads:
    rng.shuffle(kinds)
    choices = [(kind, int(rng.integers(len(of_kind[kind])))) for kind in kinds]
    for kind, index in tqdm.tqdm(sorted(set(choices) - {*alone}), 'alone', file=sys.stderr):
      request = of_kind[kind][index]
      alone[kind, index] = None if request.error else digests(server(request))
    sent = [of_kind[kind][index] for kind, index in choices]
    loads.append(run(server, sent, [alone[choice] for choice in choices], count))
  return loads


def run(
  server: Server, requests: Sequence[Request], expected: Sequence[Digests | None], threads: int
) -> Load:
  """Sends the requests from that many threads at once, and checks every answer."""
  milliseconds, memory = [], []

  def send(request: Request, wanted: Digests | None) -> bool:
    start = time.perf_counter()
    answer = server(request)
    milliseconds.append(1000 * (time.perf_counter() - start))
    memory.append(megabytes())
    check(request, answer, wanted)
    return request.error is None

  start = time.perf_counter()
  with futures.ThreadPoolExecutor(threads) as pool:
    done = pool.map(send, requests, expected)
    good = sum(tqdm.tqdm(done, f'{threads} threads', len(requests), file=sys.stderr))
  seconds = time.perf_counter() - start
  # The first requests allocate what all need.
  steady = memory[len(memory) // 5 :]
  return Load(
    threads,
    len(requests) / seconds,
    *np.percentile(milliseconds, [50, 99]).tolist(),
    answered_right=good,
    named_right=len(requests) - good,
    memory_at_a_fifth=steady[0],
    memory_at_the_end=steady[-1],
    largest_memory=largest_megabytes(),
  )


def check(request: Request, answer: Answer, expected: Digests | None) -> None:
  """Raises `AssertionError` if the answer is wrong."""
  if request.error is not None:
    assert isinstance(answer, str) and request.error in answer, (request.error, answer)
    return
  assert isinstance(answer, dict), answer
  found = digests(answer)
  differing = [name for name in {**found, **expected} if found.get(name) != expected.get(name)]
  assert not differing, f'{", ".join(differing)} of {request.signature} differ'


def digests(answer: Answer) -> Digests:
  assert isinstance(answer, dict), answer
  # An array of objects holds pointers.
  plain = {
    name: value.astype('S') if value.dtype == object else value for name, value in answer.items()
  }
  return {
    name: f'{value.shape} {hashlib.sha256(np.ascontiguousarray(value)).hexdigest()}'
    for name, value in plain.items()
  }


def load_server(model: pathlib.Path) -> Server:
  """The SavedModel in this process; an error is answered with its message."""
  import tensorflow as tf

  signatures = tf.saved_model.load(str(model)).signatures

  def server(request: Request) -> Answer:
    dtype = tf.string if request.signature == 'serving_bytes' else None
    inputs = {SIGNATURES[request.signature]: tf.constant(request.value, dtype)}
    try:
      outputs = signatures[request.signature](**inputs)
    except tf.errors.InvalidArgumentError as error:
      return error.message
    return {name: value.numpy() for name, value in outputs.items()}

  return server


def warmup_image(model: pathlib.Path) -> np.ndarray:
  """[H, W, 3] uint8, the image of the first warm-up request."""
  import tensorflow as tf
  from tensorflow_serving.apis import prediction_log_pb2

  from oanet_tf.serving.warmup import WARMUP_FILE

  record = next(iter(tf.data.TFRecordDataset(str(model / WARMUP_FILE)))).numpy()
  request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
  return tf.make_ndarray(request.inputs[SIGNATURES['serving_default']])[0]


def good_requests(
  picture: object, sides: tuple[int, int], rng: np.random.Generator
) -> list[Request]:
  """One image as pixels, then one as JPEG, then two as PNG, and so on."""
  requests = []
  for index in range(NUM_GOOD):
    sizes = rng.integers(sides[0], sides[1] + 1, (2, 2)).tolist()
    images = [picture.resize(size) for size in sizes]
    requests.append(
      (
        lambda first, _: Request('serving_default', np.asarray(first)[np.newaxis]),
        lambda first, _: Request('serving_bytes', [encode(first, 'JPEG')]),
        lambda *both: Request('serving_bytes', [encode(one, 'PNG') for one in both]),
      )[index % 3](*images)
    )
  return requests


def encode(picture: object, form: str, **options: object) -> bytes:
  encoded = io.BytesIO()
  picture.save(encoded, form, **options)
  return encoded.getvalue()


def broken_requests(good: bytes) -> list[Request]:
  """Requests in which something is broken, some with a good encoded image too."""
  image = 'image {} of the batch {}'.format
  return [
    Request('serving_bytes', [good, good[:-20]], image(1, 'cannot be decoded')),
    Request('serving_bytes', [black_png(500, 500)[:-30]], image(0, 'cannot be decoded')),
    Request('serving_bytes', [png_header(20_000, 20_000)], image(0, 'has 20000 x 20000 pixels')),
    Request('serving_bytes', [png_header(1, 100_000)], image(0, 'has 1 x 100000 pixels')),
    Request('serving_bytes', [black_png(9000, 9000)], image(0, 'has 9000 x 9000 pixels')),
    Request('serving_bytes', [black_png(1, 8192), black_png(8192, 1)], 'canvases of 8192 x 8192'),
    Request('serving_bytes', [black_png(1, 1)] * 1000, 'the batch holds 1000 images'),
    Request('serving_bytes', np.array([], object), 'the batch holds no image'),
    Request('serving_bytes', [good, b'no image'], image(1, 'is neither JPEG nor PNG')),
    Request('serving_bytes', [b''], image(0, 'is neither JPEG nor PNG')),
    Request('serving_bytes', [b'\xff\xd8\xffnoise', good], image(0, 'has no header')),
    Request('serving_default', np.zeros((1, 0, 40, 3), np.uint8), image(0, 'has 0 x 40 pixels')),
  ]


def png_header(height: int, width: int, color: int = 2) -> bytes:
  """A PNG's beginning; the colour type is 2 for RGB, 6 with opacity."""
  sides = width.to_bytes(4) + height.to_bytes(4)
  return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', sides + bytes([8, color, 0, 0, 0]))


def chunk(kind: bytes, data: bytes) -> bytes:
  return len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)


def black_png(height: int, width: int, color: int = 2) -> bytes:
  """A thousand times smaller than its pixels."""
  row = bytes(1 + width * (4 if color == 6 else 3))
  packer = zlib.compressobj()
  data = b''.join(packer.compress(row) for _ in range(height)) + packer.flush()
  return png_header(height, width, color) + chunk(b'IDAT', data) + chunk(b'IEND', b'')


def largest_requests(picture: object) -> list[Request]:
  """Of the largest size that is accepted."""
  jpeg = encode(picture.resize((1448, 1448)), 'JPEG')
  return [
    Request('serving_bytes', [black_png(LARGEST_SIDE, LARGEST_SIDE)]),
    Request('serving_bytes', [jpeg] * 16),
  ]


def costly_requests(picture: object) -> dict[str, Request]:
  """Good requests that cost as much as they can, and those of usual sizes."""

  def jpeg(side: int, **options: object) -> bytes:
    return encode(picture.resize((side, side)), 'JPEG', **options)

  largest = LARGEST_SIDE
  encoded = {
    **{f'JPEG of {side} x {side}': [jpeg(side)] for side in (64, 512, 1024, 2000, 4096, largest)},
    'progressive JPEG': [jpeg(largest, progressive=True)],
    'black PNG': [black_png(largest, largest)],
    'black PNG with opacity': [black_png(largest, largest, 6)],
    'black PNG of 512 x 65536': [black_png(512, 2**16)],
    'black PNG of 65536 x 512': [black_png(2**16, 512)],
    '16 JPEG of 64 x 64': [jpeg(64)] * 16,
    '16 JPEG of 1448 x 1448': [jpeg(1448)] * 16,
    'black PNGs of 4096 x 1 and 1 x 4096': [black_png(4096, 1), black_png(1, 4096)],
    'black PNGs of 8192 x 1 and 1 x 8192': [black_png(8192, 1), black_png(1, 8192)],
  }
  pixels = {'pixels': (1, largest, largest, 3), '8 of 2048 x 2048, pixels': (8, 2048, 2048, 3)}
  return {
    **{name: Request('serving_bytes', value) for name, value in encoded.items()},
    **{
      name: Request('serving_default', functools.partial(np.full, shape, 100, np.uint8))
      for name, shape in pixels.items()
    },
  }


def measure_sizes(model: pathlib.Path) -> list[dict[str, object]]:
  """What each of `costly_requests` costs a new process that has answered its warm-up requests."""
  from PIL import Image

  picture = Image.fromarray(warmup_image(model))
  print('request | bytes | seconds | largest MB | answer')
  figures = []
  for name, request in costly_requests(picture).items():
    with futures.ProcessPoolExecutor(1, multiprocessing.get_context('spawn')) as process:
      figures.append({'request': name, **process.submit(cost, model, request).result()})
    print(' | '.join(str(value) for value in figures[-1].values()), flush=True)
  return figures


def cost(model: pathlib.Path, request: Request) -> dict[str, object]:
  from PIL import Image

  server, image = load_server(model), warmup_image(model)
  server(Request('serving_default', image[np.newaxis]))
  server(Request('serving_bytes', [encode(Image.fromarray(image), 'JPEG')]))
  if callable(request.value):
    request = request._replace(value=request.value())
  start = time.perf_counter()
  answer = server(request)
  size = sum(map(len, request.value)) if isinstance(request.value, list) else request.value.nbytes
  return {
    'bytes': size,
    'seconds': round(time.perf_counter() - start, 2),
    'largest_memory': round(largest_megabytes()),
    'answer': 'refused' if isinstance(answer, str) else 'segments',
  }


def megabytes() -> float:
  """Resident memory of the process."""
  with open('/proc/self/statm') as file:
    return int(file.read().split()[1]) * os.sysconf('SC_PAGE_SIZE') / 1e6


def largest_megabytes() -> float:
  """The most that the process ever had."""
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def print_table(loads: Sequence[Load], number: int) -> None:
  print(f'{number} requests, {os.cpu_count()} cores')
  print('threads | requests/s | p50 ms | p99 ms | right | named | MB at 1/5 |  at end | largest')
  for load in loads:
    print(
      f'{load.threads:>7} | {load.requests_per_second:>10.1f} | {load.p50:>6.0f} '
      f'| {load.p99:>6.0f} | {load.answered_right:>5} | {load.named_right:>5} '
      f'| {load.memory_at_a_fifth:>9.0f} | {load.memory_at_the_end:>7.0f} '
      f'| {load.largest_memory:>7.0f}'
    )


if __name__ == '__main__':
  errors.run(main)
