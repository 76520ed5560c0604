"""A lazy, ordered `map` over processes that end with their parent.

`multiprocessing.Pool.imap` takes all items at once and waits forever for a worker that was killed;
`Executor.map` is lazy from Python 3.14 on.
"""

import collections
import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import tqdm

from oanet_tf.errors import InputError
from oanet_tf.printing import shown

# Images that are sent to a process at a time.
_IMAGES_AT_A_TIME = 16


def map_in_order(
  function: Callable[[Any], Any], items: Sequence, num_workers: int | None = None
) -> Generator[Any, None, None]:
  """`map(function, items)` in processes that work at most a few items ahead.

  Args:
    function: picklable, as are the items and the results.
    items: arguments of the function.
    num_workers: processes; default: the number of CPUs. 1 starts none.

  Raises:
    InputError: if a process was killed.
  """
  num_workers = min(num_workers or os.cpu_count() or 1, len(items))
  if num_workers <= 1:
    yield from map(function, items)
    return
  pool = ProcessPoolExecutor(num_workers, multiprocessing.get_context('spawn'), _start_worker)
  try:
    pending = collections.deque()
    for item in items:
      with _signals_blocked():
        pending.append(pool.submit(function, item))
      if len(pending) > 4 * num_workers:
        yield pending.popleft().result()
    while pending:
      yield pending.popleft().result()
  except BrokenProcessPool:
    raise InputError(
      f'one of {num_workers} processes was killed, perhaps for lack of memory; '
      'try a smaller num_workers'
    ) from None
  finally:
    pool.shutdown(cancel_futures=True)


def map_chunks(
  function: Callable[[Sequence], Any],
  images: Sequence,
  title: str,
  num_workers: int | None = None,
) -> Iterator:
  """`map_in_order` of up to 16 images at a time, with a progress bar.

  The chunks, and so what is added up over them, do not depend on the number of processes.
  """
  starts = range(0, len(images), _IMAGES_AT_A_TIME)
  chunks = [images[start : start + _IMAGES_AT_A_TIME] for start in starts]
  with tqdm.tqdm(total=len(images), desc=shown(title), unit='image', file=sys.stderr) as progress:
    for chunk, result in zip(chunks, map_in_order(function, chunks, num_workers), strict=True):
      yield result
      progress.update(len(chunk))


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
  """Keeps Ctrl-C and SIGTERM from processes that are started inside; their parent ends them."""
  before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
  try:
    yield
  finally:
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker() -> None:
  """Ends this process with its parent, even if that is killed."""

  def end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)

  threading.Thread(target=end_with_parent, daemon=True).start()
