"""Types of command-line arguments."""

import argparse


def positive(text: str) -> int:
  """A whole number above 0.

  Raises:
    argparse.ArgumentTypeError: if it is none.
  """
  if not text.isdecimal() or not int(text):
    raise argparse.ArgumentTypeError(f'{text!r} is no whole number above 0')
  return int(text)
