"""Errors that the user can mend, and how command lines report them."""

import contextlib
import re
import sys
from collections.abc import Callable, Iterator

# What TensorFlow puts around the fact: names of functions, iterators, nodes and operations.
_NODE_NAMES = re.compile(r'^\{\{.*?\}\} |.*Iterator::Root(::\w+)*: | *\[\[.*| \[Op:.*')


# How to get packages that are not in every installation; all others come with the package itself.
REMEDIES = {
  'ai_edge_quantizer': "'oanet_tf[tflite]'",
  'av': "'oanet_tf[video]'",
  'supervision': "'oanet_tf[supervision]'",
  'tensorflow_serving': "'oanet_tf[serving]'",
}


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


@contextlib.contextmanager
def naming_missing_packages(what: object) -> Iterator[None]:
  """Turns the failed import of another package into an `InputError` that names it.

  Args:
    what: needs the package, for the message.
  """
  try:
    yield
  except ModuleNotFoundError as error:
    package = (error.name or '').partition('.')[0]
    if package in ('', 'oanet_tf'):
      raise
    remedy = REMEDIES.get(package, 'oanet_tf')
    raise InputError(
      f'{what}: needs the package {package}, which is not installed; pip install {remedy}'
    ) from None


def run(main: Callable[[], int | None]) -> None:
  """Runs a command line's `main` and exits with its code; an `InputError` exits with 2.

  Any other exception is a bug and keeps its traceback.
  """
  try:
    with naming_missing_packages('this command'):
      code = main()
  except InputError as error:
    print(f'error: {error}', file=sys.stderr)
    sys.exit(2)
  except KeyboardInterrupt:
    print('interrupted', file=sys.stderr)
    sys.exit(130)
  sys.exit(code or 0)
