"""Errors that the user can mend, and how command lines report them."""

import re
import sys
from collections.abc import Callable

# What TensorFlow puts around the fact: names of functions, iterators, nodes and operations.
_NODE_NAMES = re.compile(r'^\{\{.*?\}\} |.*Iterator::Root(::\w+)*: | *\[\[.*| \[Op:.*')


class InputError(ValueError):
  """Something the user gave is wrong.

  The message is one line that names the file (or key), the fact and, where it helps, the remedy.
  """


def first_line(error: BaseException) -> str:
  """The first line of an error's message, or the name of its type if it has none.

  Names of nodes, which TensorFlow's messages have, are left out.
  """
  lines = str(error).strip().splitlines()
  return _NODE_NAMES.sub('', lines[0]) if lines else type(error).__name__


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
