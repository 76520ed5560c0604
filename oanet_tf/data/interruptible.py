"""Waits for data in a way that lets signals through."""

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar('T')


def interruptible(elements: Iterable[T]) -> Iterator[T]:
  """Yields elements that a thread takes, each when it is asked for.

  While TensorFlow reads a file, which may be on a drive that hangs, Python handles no signal in the
  thread that waits. Here the waiting thread is another one.
  """
  requests: queue.SimpleQueue[bool] = queue.SimpleQueue()
  answers: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()

  def answer() -> None:
    try:
      iterator = iter(elements)
      while requests.get():
        answers.put((next(iterator), None))
    except BaseException as error:  # Also of the end; it is raised where the element is wanted.
      answers.put((None, error))

  thread = threading.Thread(target=answer, name='waiting for data', daemon=True)
  thread.start()
  is_waiting = False
  try:
    while True:
      is_waiting = True
      requests.put(True)
      element, error = answers.get()
      is_waiting = False
      if isinstance(error, StopIteration):
        return
      if error is not None:
        raise error
      yield element
  finally:
    requests.put(False)
    # TensorFlow's objects must not be destroyed while the process ends. A thread that waits for a
    # drive cannot be waited for; and the garbage collector may run in the thread itself.
    if not is_waiting and thread is not threading.current_thread():
      thread.join()
