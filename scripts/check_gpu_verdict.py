"""Yes or no: what `check_gpu.py` makes of the results of its checks."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

REFERENCE = 'float32'
# How much of float32's a loss, averaged over the steps, may differ.
TOLERANCE = 0.02
# Which RoIs are sampled depends on the last digits of the scores. The second one is absolute.
SAMPLED = ('loss_class', 'loss_box', 'loss_mask')
SAMPLED_TOLERANCES = 0.25, 0.1
NOT_ON_CPU = (
  'speed and memory of a GPU, and several of them',
  'float16 and bfloat16 as a GPU computes them (a CPU has its own, slower kernels)',
  'XLA for GPUs (here it compiled for the CPU)',
  'what runs on the host (above is what TensorFlow has no GPU kernel for)',
)
SMALL_NETWORK = "COCO's network at its real size (this was a small one)"
_MOST_OPERATIONS = 10


class Result(NamedTuple):
  """What a check found.

  Attributes:
    losses: of each step, by name.
    seconds, input_seconds: of each step; how long it took, and waited for its images.
    images: of a step.
    replicas: that share them.
    peak_bytes: of the fullest GPU; without one, of the process.
    gpus: that TensorFlow saw.
    on_host, in_host_memory: of `check_gpu_worker.host_operations`.
    failure: one line if it failed; then the rest may be missing.
  """

  losses: Sequence[Mapping[str, float]] = ()
  seconds: Sequence[float] = ()
  input_seconds: Sequence[float] = ()
  images: int = 0
  replicas: int = 1
  peak_bytes: int = 0
  gpus: int = 0
  on_host: Mapping[str, int] = {}
  in_host_memory: Mapping[str, int] = {}
  failure: str = ''


def find_problems(machine: Mapping, results: Mapping[str, Result], num_steps: int) -> list[str]:
  """Why it is no, a line each; [] if it is yes.

  Args:
    machine: of `prepare`.
    results: by check.
    num_steps: that each was to take.
  """
  problems = []
  if machine['driver'] and not machine['gpus']:
    problems.append(
      f'the driver has {machine["driver"][0]}, but TensorFlow sees no GPU; install its CUDA '
      f"libraries: pip install 'tensorflow[and-cuda]=={machine['version']}'"
    )
  reference = results.get(REFERENCE, Result())
  for name, result in results.items():
    problem = problem_of(result, num_steps)
    if problem:
      problems.append(f'{name} {problem}')
    elif name != REFERENCE and not problem_of(reference, num_steps):
      problems += [f'{name}: {one}' for one in disagreements(result.losses, reference.losses)]
  return problems


def problem_of(result: Result, num_steps: int) -> str:
  """Why a check by itself has failed; '' if it has not."""
  for number, losses in enumerate(result.losses, start=1):
    wrong = [f'{name} ({value})' for name, value in losses.items() if not math.isfinite(value)]
    if wrong:
      return f'has non-finite {", ".join(wrong)} in step {number}'
  if result.failure:
    advice = ''
    if 'ResourceExhausted' in result.failure:
      advice = '; lower task.train_data.global_batch_size'
    return f'failed after {len(result.losses)} steps: {result.failure}{advice}'
  if len(result.losses) < num_steps:
    return f'ended after {len(result.losses)} of {num_steps} steps'
  return ''


def disagreements(
  losses: Sequence[Mapping[str, float]], reference: Sequence[Mapping[str, float]]
) -> list[str]:
  """The losses whose means over the steps differ by more than the tolerances.

  Args:
    losses: of each step, by name.
    reference: float32's.
  """
  found = []
  for name in reference[0].keys() - {'loss'}:
    mean, expected = (statistics.fmean(one[name] for one in run) for run in (losses, reference))
    relative, absolute = SAMPLED_TOLERANCES if name in SAMPLED else (TOLERANCE, 0.0)
    if abs(mean - expected) > max(relative * abs(expected), absolute):
      found.append(
        f'{name} is {mean:.4g}, but {expected:.4g} in {REFERENCE}, more than {relative:.0%} apart'
      )
  return sorted(found)


def report(machine: Mapping, results: Mapping[str, Result], is_small: bool) -> str:
  """What was measured, as text; `is_small` says whether a small network was trained."""
  gpus = ', '.join(machine['gpus']) or 'no GPU'
  lines = [
    f'TensorFlow {machine["version"]}, {gpus}',
    f'{"":<10} images/s  waiting  first step  a replica  then  peak GB',
    *(measures(name, one) for name, one in results.items() if len(one.seconds) > 1),
  ]
  for one in results.values():
    if one.on_host or one.in_host_memory:
      placed = 'on the host' if one.gpus else 'without a GPU kernel'
      lines.append(f'{placed}: {listed(one.on_host)}')
      lines += [f'in host memory: {listed(one.in_host_memory)}'] * bool(one.gpus)
      break
  if not machine['gpus']:
    missing = [*NOT_ON_CPU, *[SMALL_NETWORK] * is_small]
    lines += ['not checked, for lack of a GPU:', *(f'  {one}' for one in missing)]
  return '\n'.join(lines)


def measures(name: str, result: Result) -> str:
  """A line about a check; the median of its steps leaves out those that compile."""
  step = statistics.median(result.seconds[1:])
  waiting = statistics.median(result.input_seconds[1:]) / step
  first = result.seconds[0]
  return (
    f'{name:<10} {result.images / step:8.1f} {waiting:8.0%} {first:9.1f} s '
    f'{first / result.replicas:8.1f} s {step:5.2f} s {result.peak_bytes / 1e9:7.1f}'
  )


def listed(operations: Mapping[str, int]) -> str:
  """'Mul int32 × 3, Sub int32 × 2', without all the rare ones."""
  shown = [f'{name} × {number}' for name, number in operations.items()]
  rest = len(shown) - _MOST_OPERATIONS
  return ', '.join(shown[:_MOST_OPERATIONS] + [f'{rest} more types'] * (rest > 0)) or 'nothing'
