#!/usr/bin/env python3
"""Puts a SavedModel under load: threads send images of many sizes, some of them broken.

The images are its warm-up image at random sizes, as pixels, JPEG and PNG. The answer to a good
request must be, bit for bit, what the network answers to it alone. The answer to a broken one must
be an error that says which image is broken, and how. Memory is that of the whole process, after the
first fifth of the requests.
"""

import argparse
import io
import json
import os
import pathlib
import sys
import time
from collections.abc import Callable, Sequence
from concurrent import futures
from typing import NamedTuple

import numpy as np
import tqdm

from oanet_tf import errors
from oanet_tf.errors import InputError

SIGNATURES = {'serving_default': 'image', 'serving_bytes': 'image_bytes'}
# Number of different good requests.
NUM_GOOD = 24
BROKEN_SHARE = 0.05

Answer = dict[str, np.ndarray] | str
Server = Callable[['Request'], Answer]


class Request(NamedTuple):
  """A request: its signature and input, and what the error to it must contain, if it is broken."""

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
  parser.add_argument('--output', type=pathlib.Path, help='JSON file for the figures')
  parsed = parser.parse_args(arguments)
  if not (parsed.model / 'saved_model.pb').is_file():
    raise InputError(f'{parsed.model}: is not a version of a SavedModel (it has no saved_model.pb)')
  loads = measure(parsed.model, parsed.threads, parsed.requests, parsed.sides)
  print_table(loads, parsed.requests)
  if parsed.output:
    parsed.output.write_text(json.dumps([load._asdict() for load in loads], indent=1) + '\n')


def measure(
  model: pathlib.Path, threads: Sequence[int], number: int, sides: tuple[int, int]
) -> list[Load]:
  """Figures for each number of threads.

  Raises:
    AssertionError: if an answer is wrong.
  """
  rng = np.random.default_rng(0)
  server = load_server(model)
  good = good_requests(warmup_image(model), sides, rng)
  broken = broken_requests(next(r.value[0] for r in good if r.signature == 'serving_bytes'))
  expected = [server(request) for request in tqdm.tqdm(good, 'alone', file=sys.stderr)]
  loads = []
  for count in threads:
    is_broken = np.arange(number) < round(BROKEN_SHARE * number)
    rng.shuffle(is_broken)
    choices = [int(rng.integers(len(broken if bad else good))) for bad in is_broken]
    sent = [(broken if bad else good)[i] for bad, i in zip(is_broken, choices, strict=True)]
    wanted = [None if bad else expected[i] for bad, i in zip(is_broken, choices, strict=True)]
    loads.append(run(server, sent, wanted, count))
  return loads


def run(
  server: Server, requests: Sequence[Request], expected: Sequence[Answer | None], threads: int
) -> Load:
  """Sends the requests from that many threads at once, and checks every answer."""
  milliseconds, memory = [], []

  def send(request: Request, wanted: Answer | None) -> bool:
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
  steady = memory[len(memory) // 5 :]
  return Load(
    threads,
    len(requests) / seconds,
    *np.percentile(milliseconds, [50, 99]).tolist(),
    answered_right=good,
    named_right=len(requests) - good,
    memory_at_a_fifth=steady[0],
    memory_at_the_end=steady[-1],
    largest_memory=max(steady),
  )


def check(request: Request, answer: Answer, expected: Answer | None) -> None:
  """Raises `AssertionError` if the answer is wrong."""
  if request.error is not None:
    assert isinstance(answer, str) and request.error in answer, (request.error, answer)
    return
  assert isinstance(answer, dict) and answer.keys() == expected.keys(), answer
  for name, value in expected.items():
    assert np.array_equal(answer[name], value), f'{name} of {request.signature} differs'


def load_server(model: pathlib.Path) -> Server:
  """The SavedModel in this process; an error is answered with its message."""
  import tensorflow as tf

  signatures = tf.saved_model.load(str(model)).signatures

  def server(request: Request) -> Answer:
    inputs = {SIGNATURES[request.signature]: tf.constant(request.value)}
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
  image: np.ndarray, sides: tuple[int, int], rng: np.random.Generator
) -> list[Request]:
  """One image as pixels, then one as JPEG, then two as PNG, and so on."""
  from PIL import Image

  picture = Image.fromarray(image)
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


def encode(picture: object, form: str) -> bytes:
  encoded = io.BytesIO()
  picture.save(encoded, form)
  return encoded.getvalue()


def broken_requests(good: bytes) -> list[Request]:
  """Requests in which something is broken, some with a good encoded image too."""
  huge = b'\x89PNG\r\n\x1a\n\0\0\0\rIHDR' + (20_000).to_bytes(4) * 2 + b'\x08\x02\0\0\0'
  image = 'image {} of the batch {}'.format
  return [
    Request('serving_bytes', [good, good[:-20]], image(1, 'cannot be decoded')),
    Request('serving_bytes', [huge], image(0, 'has 20000 x 20000 pixels')),
    Request('serving_bytes', [good, b'no image'], image(1, 'is neither JPEG nor PNG')),
    Request('serving_bytes', [b''], image(0, 'is neither JPEG nor PNG')),
    Request('serving_bytes', [b'\xff\xd8\xffnoise', good], image(0, 'has no header')),
    Request('serving_default', np.zeros((1, 0, 40, 3), np.uint8), image(0, 'has 0 x 40 pixels')),
  ]


def megabytes() -> float:
  """Resident memory of the process."""
  with open('/proc/self/statm') as file:
    return int(file.read().split()[1]) * os.sysconf('SC_PAGE_SIZE') / 1e6


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
