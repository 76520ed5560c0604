"""Image ids, numbers or strings, as text that gives them back, and as names of files."""

import hashlib
import json
import re

# Bytes; most file systems take 255, and a suffix is added.
_LONGEST_STEM = 200


def encoded(image_id: int | str) -> str:
  """An id as text: 139 -> '139', 'a/b' -> 'a/b', '139' -> '"139"', '000139' -> '000139'."""
  text = str(image_id)
  given_back = decoded(text)
  same = given_back == image_id and isinstance(given_back, str) == isinstance(image_id, str)
  return text if same else json.dumps(image_id)


def decoded(text: str) -> int | str:
  """The id of which `encoded` made the text."""
  if text.startswith('"') or re.fullmatch('-?(0|[1-9][0-9]*)', text):
    try:
      value = json.loads(text)
    except ValueError:
      return text
    # -0 is 0.
    return value if isinstance(value, str) or str(value) == text else text
  return text


def file_stem(image_id: int | str) -> str:
  """A file's name without suffix, of letters, digits and signs that every system takes.

  Ids that differ have stems that differ.
  """
  text = encoded(image_id)
  stem = re.sub(r'[^\w .,()+=@~-]|^\.', lambda match: _percent(match[0]), text)
  if len(stem.encode()) <= _LONGEST_STEM:
    return stem
  digest = hashlib.sha256(text.encode(errors='surrogatepass')).hexdigest()[:16]
  return f'{stem.encode()[: _LONGEST_STEM - 17].decode(errors="ignore")}-{digest}'


def _percent(sign: str) -> str:
  """As in a URL: '/' -> '%2F'."""
  return ''.join(f'%{byte:02X}' for byte in sign.encode(errors='surrogatepass'))
