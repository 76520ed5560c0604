"""A contender of benchmark_model.py, in a process of its own, and perhaps a Python of its own.

It answers in lines of JSON: how long the start took; for each line that it reads, how long a run
took; and when there are no more, its peak memory and GFLOP.
"""

import argparse
import importlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable

from benchmark_model_contenders import MODULES


def main(options: dict) -> None:
  """Contends.

  Args:
    options: arguments of the `contender` in the module of its `name`.
  """
  # Keeps what libraries print out of the answers.
  answers = os.fdopen(os.dup(1), 'w')
  os.dup2(2, 1)

  def answer(**values: float) -> None:
    answers.write(json.dumps(values) + '\n')
    answers.flush()

  begin = time.perf_counter()
  module = importlib.import_module(MODULES[options['name']])
  imports = time.perf_counter() - begin
  contender = module.contender(**options)
  start = {stage: seconds_of(getattr(contender, stage)) for stage in contender.STAGES}
  start['first'] = seconds_of(contender.run)
  answer(imports=imports, **start, total=sum(start.values()))
  for _ in sys.stdin:
    answer(seconds=seconds_of(contender.run))
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  # Counting may take memory.
  answer(peak_mb=peak / 1024, gflop=contender.gflop())


def seconds_of(function: Callable[[], None]) -> float:
  begin = time.perf_counter()
  function()
  return time.perf_counter() - begin


if __name__ == '__main__':
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('options', type=json.loads, help='arguments of a contender, as JSON')
  main(parser.parse_args().options)
