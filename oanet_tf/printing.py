"""Text of others, such as the names in their files, as it may safely be printed."""

import sys
import unicodedata


def shown(text: object) -> str:
  """Text in one line, in which characters that do something instead of being seen are escaped.

  These are line ends, control characters, marks of the direction and of no width. With them, a name
  could forge lines of a log, or tell a terminal what to do. Letters of any script stay.
  """
  return escaped(text) if not (text := str(text)).isprintable() else text


def escaped(text: str, but: str = '') -> str:
  """The characters of `shown` as \\\\n, \\\\x1b or \\\\u202e, but for some."""
  return ''.join(
    char
    if char.isprintable() or char in but or unicodedata.category(char) == 'Zs'
    else char.encode('unicode_escape').decode()
    for char in text
  )


def note(text: str) -> None:
  """Prints a line to standard error."""
  print(shown(text), file=sys.stderr)
