#!/usr/bin/env python3
"""Measures the network against what the Model Garden's wheel gives, ResNet-50 and FPN.

  ours              oanet_tf: a training step with all losses, or an image to its panoptic map
  ours_unfused      the same without ranking and fusion, as far as panoptic_fpn; inference alone
  mask_rcnn         official.vision's Mask R-CNN with its defaults: to boxes and masks
  mask_rcnn_equal   the same with our numbers of proposals, RoIs, masks and detections, batched NMS
  panoptic_fpn      mask_rcnn_equal with its SegmentationHead (panoptic_fpn_fusion, the head's own
                    defaults) on the shared decoder, as far as semantic logits
  panoptic_fpn_lean the same with 128 filters and no further convolutions in that head

Each is a process of its own, and all take turns. So does a 3×3 convolution, whose FLOP rate is what
the machine can reach. The image and its rectangles are random. The Model Garden's training input
pads both sides to multiples of 64, for example to 832 × 1344. `build` is the time to make the
network, `trace` its graph, and `first` the first result after that; `total` is all three, without
imports.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from benchmark_model_contenders import CONTENDERS, CONVOLUTION, COUNTS, INFERENCE_ALONE, maker_of


def main(arguments: list[str] | None = None) -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument(
    '--sizes', nargs='+', default=['512x512', '800x1344'], help='(default: %(default)s)'
  )
  parser.add_argument(
    '--original',
    type=sides_of,
    help='size of the image before scaling, and of our map (default: the size)',
  )
  parser.add_argument('--batch', type=int, default=1, help='images (default: %(default)s)')
  parser.add_argument('--rounds', type=int, default=5, help='(default: %(default)s)')
  parser.add_argument(
    '--contenders', nargs='+', choices=CONTENDERS, default=CONTENDERS, help='(default: all)'
  )
  parser.add_argument(
    '--modes', nargs='+', choices=('train', 'infer'), default=('train', 'infer'), help='(both)'
  )
  parser.add_argument('--output', type=pathlib.Path, help='JSON file for the measurements')
  parser.add_argument('--worker', help=argparse.SUPPRESS)
  parsed = parser.parse_args(arguments)
  if parsed.worker:
    work(**json.loads(parsed.worker))
    return
  rows = []
  for size in parsed.sizes:
    for mode in parsed.modes:
      contenders = {
        name: {'name': name, 'mode': mode, 'size': sides_of(size), 'batch': parsed.batch}
        for name in (CONVOLUTION, *parsed.contenders)
        if mode == 'infer' or name != INFERENCE_ALONE
      }
      if parsed.original and mode == 'infer':
        for name in contenders.keys() & {'ours', INFERENCE_ALONE}:
          contenders[name]['original'] = parsed.original
      measured = compare(contenders, parsed.rounds)
      add_rates(measured)
      print_table(mode, size, parsed.batch, measured)
      rows.append({'mode': mode, 'size': size, 'batch': parsed.batch, 'measured': measured})
  if parsed.output:
    parsed.output.write_text(json.dumps(rows, indent=1) + '\n')


def sides_of(size: str) -> list[int]:
  return [int(side) for side in size.split('x')]


def compare(contenders: dict[str, dict], rounds: int) -> dict[str, dict[str, float]]:
  """Starts a process for each contender, then lets them take turns.

  Args:
    contenders: name -> arguments of `work`.
    rounds: of turns.

  Returns:
    Measurements by name: seconds, peak MB and GFLOP.
  """
  workers = {}
  for name, options in contenders.items():
    workers[name] = subprocess.Popen(
      [sys.executable, __file__, '--worker', json.dumps(options)],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=subprocess.DEVNULL,
      text=True,
    )
    # They start one after the other, because the first seconds are measured too.
    workers[name].start = _answer(workers[name])
  runs = {name: [] for name in workers}
  for _ in range(rounds):
    for name, worker in workers.items():
      worker.stdin.write('run\n')
      worker.stdin.flush()
      runs[name].append(_answer(worker)['seconds'])
  measured = {}
  for name, worker in workers.items():
    worker.stdin.close()
    end = _answer(worker)
    worker.wait()
    step = {'step': statistics.median(runs[name]), 'least': min(runs[name])}
    measured[name] = {**worker.start, **step, **end}
  return measured


def add_rates(measured: dict[str, dict[str, float]]) -> None:
  """Adds the GFLOP/s of each row, and its fraction of the convolution's."""
  rate = measured[CONVOLUTION]['gflop'] / measured[CONVOLUTION]['step']
  for row in measured.values():
    row['gflop_per_second'] = row['gflop'] / row['step']
    row['share'] = row['gflop_per_second'] / rate


def _answer(worker: subprocess.Popen) -> dict:
  line = worker.stdout.readline()
  if not line:
    raise SystemExit(f'{worker.args[-1]}: stopped with code {worker.wait()}')
  return json.loads(line)


def print_table(mode: str, size: str, batch: int, measured: dict) -> None:
  print(f'{mode} {size}, batch {batch}, {os.cpu_count()} cores; seconds')
  print(
    f'{"":<16} {"build":>6} {"trace":>6} {"first":>6} {"total":>6} {"step":>7} {"least":>7} | '
    f'{"peak MB":>7} {"GFLOP":>6} {"GFLOP/s":>7} {"share":>5} | ours is of its total, step, memory'
  )
  ours = measured.get('ours')
  for name, row in measured.items():
    cells = ' '.join(f'{row[key]:6.1f}' for key in ('build', 'trace', 'first', 'total'))
    line = f'{name:<16} {cells} {row["step"]:7.2f} {row["least"]:7.2f} | {row["peak_mb"]:7.0f} '
    line += f'{row["gflop"]:6.0f} {row["gflop_per_second"]:7.0f} {row["share"]:5.0%} |'
    if ours and name not in ('ours', CONVOLUTION):
      line += ''.join(f' {ours[key] / row[key]:5.2f}' for key in ('total', 'step', 'peak_mb'))
    print(line)
  if ours and INFERENCE_ALONE in measured:
    share = 1 - measured[INFERENCE_ALONE]['step'] / ours['step']
    print(f'ranking and fusion are {share:.1%} of ours')


def work(name: str, mode: str, size: list[int], batch: int, **changes: object) -> None:
  """The process of a contender: writes how it started, how long each run takes, and its memory.

  Args:
    name: of the contender.
    mode: 'train' or 'infer'.
    size: [height, width] of images.
    batch: images.
    changes: of ours, arguments of `our_setting`, and `original` of `our_inference`.
  """
  import resource

  # Keeps what libraries print out of the answers.
  answers = os.fdopen(os.dup(1), 'w')
  os.dup2(2, 1)

  def answer(**values: float) -> None:
    answers.write(json.dumps(values) + '\n')
    answers.flush()

  prepare = maker_of(name, mode)(name, size, batch, **changes)
  begin = time.perf_counter()
  function, inputs = prepare()
  built = time.perf_counter()
  concrete = function.get_concrete_function(*inputs)
  traced = time.perf_counter()
  run(function, inputs)
  end = time.perf_counter()
  answer(
    build=built - begin,
    trace=traced - built,
    first=end - traced,
    total=end - begin,
    # Here every detection slot is filled; our graph leaves that number open.
    gflop=gflop_of(concrete.graph, batch * changes.get('detections', COUNTS['detections'])),
  )
  for _ in sys.stdin:
    begin = time.perf_counter()
    run(function, inputs)
    answer(seconds=time.perf_counter() - begin)
  answer(peak_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def run(function: Callable, inputs: tuple) -> None:
  import tensorflow as tf

  tf.nest.map_structure(lambda tensor: tensor.numpy(), function(*inputs))


def gflop_of(graph, unknown: int) -> float:  # noqa: ANN001
  """GFLOP of convolutions and matrix products, also in called functions, but not in loops.

  Args:
    graph: of a traced function.
    unknown: length of dimensions that are only known when it runs.
  """
  total = 0.0
  for operation in graph.get_operations():
    total += _flop(operation, unknown)
    if operation.type in ('StatefulPartitionedCall', 'PartitionedCall'):
      total += 1e9 * gflop_of(graph._get_function(operation.get_attr('f').name).graph, unknown)
  return total / 1e9


def _flop(operation, unknown: int) -> float:  # noqa: ANN001
  """Two per multiplication of a convolution or a matrix product; 0 for anything else."""
  import numpy as np

  kind = operation.type
  if kind not in ('Conv2D', 'Conv2DBackpropInput', 'Conv2DBackpropFilter', 'MatMul'):
    return 0.0
  *inputs, output = (
    [length or unknown for length in tensor.shape]
    for tensor in (*operation.inputs, operation.outputs[0])
  )
  if kind == 'MatMul':
    inner = inputs[0][0 if operation.get_attr('transpose_a') else 1]
    return 2.0 * np.prod(output) * inner
  kernel, result = {
    'Conv2D': (inputs[1], output),
    'Conv2DBackpropInput': (inputs[1], inputs[-1]),
    'Conv2DBackpropFilter': (output, inputs[-1]),
  }[kind]
  return 2.0 * np.prod(result[:3]) * np.prod(kernel)


if __name__ == '__main__':
  from oanet_tf import errors

  errors.run(main)
