import os
import signal
import sys
import time

import pytest

from oanet_tf.data.parallel import map_in_order
from oanet_tf.errors import InputError
from tests.data.conversions import children, command, started, wait_until


@pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')
def test_workers_end_with_a_killed_parent():
  script = (
    'import time; from oanet_tf.data.parallel import map_in_order\n'
    'for _ in map_in_order(time.sleep, [0.1] * 1000, 2): print(end=".", flush=True)'
  )
  with started(['-c', script]) as process:
    wait_until(lambda: len(children(process)) == 2)
    time.sleep(1)  # They have started to work.
    workers = children(process)
    process.kill()
    try:
      wait_until(lambda: not any(map(command, workers)), seconds=5)
    finally:
      for pid in filter(command, workers):
        os.kill(pid, signal.SIGKILL)


def test_a_killed_worker():
  with pytest.raises(InputError, match='one of 2 processes was killed'):
    list(map_in_order(os._exit, [9] * 20, 2))


def test_workers_are_only_a_few_items_ahead():
  taken = []

  class Items(list):
    def __iter__(self):
      for item in super().__iter__():
        taken.append(item)
        yield item

  results = map_in_order(abs, Items(range(0, -1000, -1)), 2)
  assert [next(results) for _ in range(3)] == [0, 1, 2]
  assert len(taken) < 20
  assert list(results) == list(range(3, 1000))
