"""Reading JSON files that users give."""

import json
import pathlib
from collections.abc import Callable

from oanet_tf.errors import InputError


def read_json_object(
  path: str | pathlib.Path, object_hook: Callable[[dict], dict] | None = None
) -> dict:
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
