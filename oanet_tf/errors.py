"""Errors that the user can mend, and how command lines report them."""

import sys
from collections.abc import Callable


class InputError(ValueError):
  """Something the user gave is wrong.

  The message is one line that names the file (or key), the fact and, where it helps, the remedy.
  """


def run(main: Callable[[], int | None]) -> None:
  """Runs a command line's `main` and exits with its code; an `InputError` exits with 2.

  Any other exception is a bug and keeps its traceback.
  """
  try:
    code = main()
  except InputError as error:
    print(f'error: {error}', file=sys.stderr)
    sys.exit(2)
  except KeyboardInterrupt:
    print('interrupted', file=sys.stderr)
    sys.exit(130)
  sys.exit(code or 0)
