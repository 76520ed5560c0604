"""Building and tracing graphs, without what makes that slow."""

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def garbage_kept() -> Iterator[None]:
  """Within, Python does not look for unused cycles of objects.

  It would do so again and again, as a graph is made of very many objects. That takes a fifth of the
  time, and finds little, since almost all of them are in use.
  """
  was_enabled = gc.isenabled()
  gc.disable()
  try:
    yield
  finally:
    if was_enabled:
      gc.enable()
