#!/usr/bin/env python3
"""Measures the network against the Model Garden's and Detectron2's, with ResNet-50 and FPN.

  ours                oanet_tf: a training step with all losses, or an image to its panoptic map
  ours_bfloat16       the same in mixed bfloat16, for machines that have it
  ours_pairwise       the first with an occlusion head, whose order is that of the map
  ours_unfused        the first without ranking and fusion, as far as panoptic_fpn; inference alone
  ours_unfrozen       the first with the stem and res2 trained too; training alone
  mask_rcnn           official.vision's Mask R-CNN with its defaults: to boxes and masks
  mask_rcnn_equal     the same with our numbers of proposals, RoIs, masks and detections, and with
                      batched NMS
  panoptic_fpn        mask_rcnn_equal with its SegmentationHead (panoptic_fpn_fusion, the head's
                      own defaults) on the shared decoder, as far as semantic logits
  panoptic_fpn_lean   the same with 128 filters and no further convolutions in that head
  detectron2          its panoptic_fpn_R_50_1x on PyTorch's CPU, with our numbers and thresholds: a
                      training step with all losses, or an image to its panoptic map
  detectron2_unfrozen the same with the stem and res2 trained too; training alone

Ours and Detectron2 freeze the stem, res2 and all batch normalization, as their recipes do, but for
those unfrozen, which freeze batch normalization alone. The Model Garden's freeze nothing.

Each is a process of its own, and all take turns. So does a 3×3 convolution, whose FLOP rate is what
the machine can reach. The image and its rectangles are random, and so are the weights. The Model
Garden's training input pads both sides to multiples of 64, for example to 832 × 1344. `imports` is
the time to import what the contender needs, `build` to make the network, `trace` its graph, and
`first` the first result after that; `total` is the last three. What trains more of the network than
ours is compared with ours_unfrozen, if that runs too.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
from typing import NamedTuple

from benchmark_model_contenders import (
  BFLOAT16,
  CONTENDERS,
  CONVOLUTION,
  DETECTRON2,
  INFERENCE_ALONE,
  MODULES,
  PAIRWISE,
  TRAINING_ALONE,
)

from oanet_tf import errors, printing

STAGES = ('imports', 'build', 'trace', 'first', 'total')
SCRIPTS = pathlib.Path(__file__).resolve().parent
WORKER = SCRIPTS / 'benchmark_model_worker.py'


class Peer(NamedTuple):
  """The Python that has Detectron2, and perhaps a checkout of its repository."""

  python: str | None = None
  checkout: pathlib.Path | None = None

  def environment(self) -> dict[str, str]:
    if not self.checkout:
      return {**os.environ}
    return {**os.environ, 'PYTHONPATH': str(self.checkout.absolute())}

  def lack(self) -> str:
    """Why Detectron2 cannot run there, or ''."""
    if not self.python:
      return '--detectron2_python names no Python that has it'
    # All that this does is to import what it needs.
    command = [self.python, SCRIPTS / f'{MODULES[DETECTRON2[0]]}.py']
    try:
      done = subprocess.run(command, env=self.environment(), capture_output=True, text=True)
    except OSError as error:
      return f'{self.python}: {error.strerror}'
    return f'{self.python}: {last_line(done.stderr)}' if done.returncode else ''


def main(arguments: list[str] | None = None) -> None:
  parsed = parse(arguments)
  peer = Peer(parsed.detectron2_python, parsed.detectron2_checkout)
  names = runnable(parsed.contenders, peer)
  rows = []
  for size in parsed.sizes:
    for mode in parsed.modes:
      contenders = contenders_of(names, mode, sides_of(size), parsed.batch, parsed.original)
      measured = compare(contenders, parsed.rounds, peer)
      add_rates(measured)
      print_table(mode, size, parsed.batch, measured)
      rows.append({'mode': mode, 'size': size, 'batch': parsed.batch, 'measured': measured})
  if parsed.output:
    parsed.output.write_text(json.dumps(rows, indent=1) + '\n')


def parse(arguments: list[str] | None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument(
    '--sizes', nargs='+', default=['512x512', '800x1344'], help='(default: %(default)s)'
  )
  parser.add_argument(
    '--original',
    type=sides_of,
    help='size of the image before scaling, and of panoptic maps (default: the size)',
  )
  parser.add_argument('--batch', type=int, default=1, help='images (default: %(default)s)')
  parser.add_argument('--rounds', type=int, default=5, help='(default: %(default)s)')
  parser.add_argument(
    '--contenders',
    nargs='+',
    choices=CONTENDERS,
    default=[name for name in CONTENDERS if name not in (BFLOAT16, *TRAINING_ALONE)],
    help='(default: all in float32 but those unfrozen)',
  )
  parser.add_argument(
    '--modes', nargs='+', choices=('train', 'infer'), default=('train', 'infer'), help='(both)'
  )
  parser.add_argument(
    '--detectron2_python',
    metavar='PYTHON',
    help='an interpreter, 3.10 or newer, with torch, torchvision and what Detectron2 requires; '
    'without one, Detectron2 is left out',
  )
  parser.add_argument(
    '--detectron2_checkout',
    type=pathlib.Path,
    metavar='FOLDER',
    help='its repository, which need not be built; for an interpreter where it is not installed',
  )
  parser.add_argument('--output', type=pathlib.Path, help='JSON file for the measurements')
  return parser.parse_args(arguments)


def runnable(names: list[str], peer: Peer) -> list[str]:
  """The contenders that can run; a line tells why others cannot.

  Raises:
    errors.InputError: none can.
  """
  skipped = [name for name in names if name in DETECTRON2]
  if not skipped or not (reason := peer.lack()):
    return names
  if len(skipped) == len(names):
    raise errors.InputError(f'{", ".join(skipped)}: {reason}')
  printing.note(f'skipped {", ".join(skipped)}: {reason}')
  return [name for name in names if name not in skipped]


def contenders_of(
  names: list[str], mode: str, size: list[int], batch: int, original: list[int] | None
) -> dict[str, dict]:
  """Name -> options of `compare`, with the convolution and without those of the other mode."""
  others = TRAINING_ALONE if mode == 'infer' else (INFERENCE_ALONE,)
  contenders = {
    name: {'name': name, 'mode': mode, 'size': size, 'batch': batch}
    for name in (CONVOLUTION, *names)
    if name not in others
  }
  if original and mode == 'infer':
    for name in contenders.keys() & {'ours', BFLOAT16, PAIRWISE, INFERENCE_ALONE, *DETECTRON2}:
      contenders[name]['original'] = original
  return contenders


def sides_of(size: str) -> list[int]:
  return [int(side) for side in size.split('x')]


class Worker:
  """The process of a contender, which has started once this is made.

  They start one after the other, because the first seconds are measured too.
  """

  def __init__(self, options: dict, peer: Peer | None):
    self._errors = tempfile.TemporaryFile('w+')  # noqa: SIM115 (for as long as the process)
    self._process = subprocess.Popen(
      [peer.python if peer else sys.executable, WORKER, json.dumps(options)],
      env=peer.environment() if peer else None,
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=self._errors,
      text=True,
    )
    self.start = self._answer()

  def run(self) -> float:
    """Seconds of a run."""
    self._process.stdin.write('run\n')
    self._process.stdin.flush()
    return self._answer()['seconds']

  def end(self) -> dict[str, float]:
    """Peak MB and GFLOP."""
    self._process.stdin.close()
    answer = self._answer()
    self._process.wait()
    return answer

  def _answer(self) -> dict[str, float]:
    line = self._process.stdout.readline()
    if not line:
      code = self._process.wait()
      self._errors.seek(0)
      why = last_line(self._errors.read())
      raise SystemExit(f'{self._process.args[-1]}: stopped with code {code} ({why})')
    return json.loads(line)


def last_line(text: str) -> str:
  return (text.strip().splitlines() or [''])[-1]


def compare(
  contenders: dict[str, dict], rounds: int, peer: Peer | None = None
) -> dict[str, dict[str, float]]:
  """Starts a process for each contender, then lets them take turns.

  Args:
    contenders: name -> arguments of the `contender` in its module.
    rounds: of turns.
    peer: runs Detectron2.

  Returns:
    Measurements by name: seconds, peak MB and GFLOP.
  """
  workers = {}
  for name, options in contenders.items():
    workers[name] = Worker(options, peer if options['name'] in DETECTRON2 else None)
  runs = {name: [] for name in workers}
  for _ in range(rounds):
    for name, worker in workers.items():
      runs[name].append(worker.run())
  measured = {}
  for name, worker in workers.items():
    end = worker.end()
    step = {'step': statistics.median(runs[name]), 'least': min(runs[name])}
    measured[name] = {**worker.start, **step, **end}
  return measured


def add_rates(measured: dict[str, dict[str, float]]) -> None:
  """Adds the GFLOP/s of each row, and its fraction of the convolution's."""
  rate = measured[CONVOLUTION]['gflop'] / measured[CONVOLUTION]['step']
  for row in measured.values():
    row['gflop_per_second'] = row['gflop'] / row['step']
    row['share'] = row['gflop_per_second'] / rate


def print_table(mode: str, size: str, batch: int, measured: dict) -> None:
  print(f'{mode} {size}, batch {batch}, {os.cpu_count()} cores; seconds')
  heads = ' '.join(f'{stage:>7}' for stage in STAGES)
  print(
    f'{"":<19} {heads} {"step":>7} {"least":>7} | {"peak MB":>7} {"GFLOP":>6} {"GFLOP/s":>7} '
    f'{"share":>5} | ours is of its total, step, memory'
  )
  for name, row in measured.items():
    cells = ' '.join(f'{row[stage]:7.1f}' if stage in row else ' ' * 7 for stage in STAGES)
    line = f'{name:<19} {cells} {row["step"]:7.2f} {row["least"]:7.2f} | {row["peak_mb"]:7.0f} '
    line += f'{row["gflop"]:6.0f} {row["gflop_per_second"]:7.0f} {row["share"]:5.0%} |'
    if ours := rival_of(name, measured):
      line += ''.join(f' {ours[key] / row[key]:5.2f}' for key in ('total', 'step', 'peak_mb'))
    print(line, flush=True)
  if measured.keys() >= {'ours', INFERENCE_ALONE}:
    share = 1 - measured[INFERENCE_ALONE]['step'] / measured['ours']['step']
    print(f'ranking and fusion are {share:.1%} of ours')


def rival_of(name: str, measured: dict[str, dict]) -> dict | None:
  """The row of ours that a contender is compared with, or None."""
  if name in ('ours', BFLOAT16, 'ours_unfrozen', CONVOLUTION):
    return None
  ours = measured.get('ours')
  if name in (PAIRWISE, INFERENCE_ALONE, 'detectron2'):
    return ours
  return measured.get('ours_unfrozen', ours)


if __name__ == '__main__':
  errors.run(main)
