"""Defers SIGTERM and SIGINT until the step is done."""

import contextlib
import signal
import types
from collections.abc import Iterator

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interrupted(Exception):
  """A signal came where it need not be deferred."""


class Interruption:
  """While entered, the first signal is only recorded; a second one acts as usual.

  Attributes:
    received: the signal, or None.
  """

  def __init__(self):
    self.received: signal.Signals | None = None
    self._at_once = False
    self._previous: dict[signal.Signals, object] = {}

  def __enter__(self) -> 'Interruption':
    self._previous = {number: signal.signal(number, self._note) for number in SIGNALS}
    return self

  def __exit__(self, *_: object) -> None:
    self._restore()

  @contextlib.contextmanager
  def at_once(self) -> Iterator[None]:
    """Within, a signal raises `Interrupted`, since nothing must be saved first."""
    self._at_once = True
    if self.received:
      raise Interrupted
    try:
      yield
    finally:
      self._at_once = False

  def _note(self, number: int, _: types.FrameType | None) -> None:
    self.received = signal.Signals(number)
    self._restore()
    if self._at_once:
      raise Interrupted

  def _restore(self) -> None:
    for number, handler in self._previous.items():
      signal.signal(number, handler)
    self._previous = {}
