"""Arguments that the command lines share."""

import argparse
import logging
import sys
from typing import NoReturn

from oanet_tf.config.values import FUSIONS
from oanet_tf.printing import shown


class ArgumentParser(argparse.ArgumentParser):
  """Python's, whose errors show names of files that a shell's pattern gave as one line."""

  def error(self, message: str) -> NoReturn:
    super().error(shown(message))


def positive(text: str) -> int:
  """A whole number above 0.

  Raises:
    argparse.ArgumentTypeError: if it is none.
  """
  if not text.isdecimal() or not int(text):
    raise argparse.ArgumentTypeError(f'{text!r} is not a whole number above 0')
  return int(text)


def names(text: str) -> list[str]:
  """'a,b,a' -> ['a', 'b']."""
  return list(dict.fromkeys(name.strip() for name in text.split(',')))


def add_config_file(parser: argparse._ActionsContainer, note: str) -> None:
  """Adds `--config_file`, which can be given several times; `note` is appended to its help."""
  parser.add_argument(
    '--config_file',
    action='append',
    default=[],
    metavar='YAML',
    help=f'changes to the experiment{note}',
  )


def add_params_override(
  parser: argparse._ActionsContainer, changed: str = "to the folder's params.yaml"
) -> None:
  """Adds `--params_override`; `changed` says to what."""
  parser.add_argument(
    '--params_override',
    default='',
    metavar='KEY=VALUE,…',
    help=f'changes {changed}, as a.b=1,c.d=[2,3] or as YAML text',
  )


def add_fusion(parser: argparse._ActionsContainer) -> None:
  """Adds `--fusion`."""
  parser.add_argument(
    '--fusion',
    metavar='NAME',
    help=f'one of {", ".join(FUSIONS)} (default: task.model.fusion.method)',
  )


def add_overwrite(parser: argparse._ActionsContainer) -> None:
  """Adds `--overwrite`."""
  parser.add_argument(
    '--overwrite', action='store_true', help='replace what is at the place of the output'
  )


class _Formatter(logging.Formatter):
  """A message in one line; those of this package's log name files and categories."""

  def formatMessage(self, record: logging.LogRecord) -> str:
    return shown(record.message)


def log_to_stderr() -> None:
  """Shows the package's log, and the warnings of everything else."""
  handler = logging.StreamHandler(sys.stderr)
  handler.setFormatter(_Formatter())
  logging.basicConfig(level=logging.WARNING, handlers=[handler])
  logging.getLogger('oanet_tf').setLevel(logging.INFO)
