"""Reading JSON files that users give, and checks of what they say."""

import json
import pathlib
import reprlib
from collections.abc import Callable, Iterable
from typing import Any

from oanet_tf.errors import InputError
from oanet_tf.files import FilePath


def read_json_object(path: FilePath, object_hook: Callable[[dict], dict] | None = None) -> dict:
  """A file whose JSON is an object, as all of COCO's are; `object_hook` is `json.loads`'s.

  Raises:
    InputError: if the file is missing, not JSON, or its JSON is no object.
  """
  try:
    content = json.loads(pathlib.Path(path).read_bytes(), object_hook=object_hook)
  except FileNotFoundError:
    raise InputError(f'{path}: there is no such file') from None
  except (OSError, ValueError, RecursionError) as error:
    raise InputError(f'{path}: cannot be read as JSON ({error})') from None
  if not isinstance(content, dict):
    raise InputError(f'{path}: is no COCO file: its JSON is not an object')
  return content


def field(entry: Any, key: str, kind: type | tuple[type, ...], where: str) -> Any:
  """`entry[key]`; where whole numbers are wanted, 48.0 is 48.

  Raises:
    InputError: if there is none, or it is of another kind; `where` says of what.
  """
  if not isinstance(entry, dict) or key not in entry:
    raise InputError(f'{where}: has no `{key}`')
  kinds = kind if isinstance(kind, tuple) else (kind,)
  value = whole(entry[key]) if int in kinds else entry[key]
  if not isinstance(value, kinds) or isinstance(value, bool):
    raise InputError(f'{where}: `{key}` cannot be {reprlib.repr(value)}')
  return value


def whole(value: Any) -> Any:
  """A number without a fraction as an integer, as some tools write 48.0; all else as it is."""
  return int(value) if isinstance(value, float) and value.is_integer() else value


def check_unique(values: Iterable, what: str) -> None:
  """Raises `InputError` if a value is there twice."""
  seen = set()
  for value in values:
    if value in seen:
      raise InputError(f'{what} {value} is listed twice')
    seen.add(value)
