"""Panoptic networks that their publishers trained on COCO."""

import base64
import json
import pathlib
from typing import NamedTuple
from urllib.parse import quote

from oanet_tf import files
from oanet_tf.downloads import checkpoints
from oanet_tf.downloads.fetch import fetch, read, server
from oanet_tf.errors import InputError
from oanet_tf.printing import note


class Network(NamedTuple):
  """What is published under a name."""

  about: str
  path: str


# As in detectron2/MODEL_ZOO.md. Each name ends in the first digits of the file's MD5 sum.
DETECTRON2 = {
  'detectron2_r50_1x': Network(
    "Detectron2's Panoptic FPN, ResNet-50, PQ 39.4 (180 MB)",
    'panoptic_fpn_R_50_1x/139514544/model_final_dbfeb4.pkl',
  ),
  'detectron2_r50_3x': Network(
    'the same, trained three times as long, PQ 41.5',
    'panoptic_fpn_R_50_3x/139514569/model_final_c10459.pkl',
  ),
  'detectron2_r101_3x': Network(
    'ResNet-101, PQ 43.0 (260 MB)',
    'panoptic_fpn_R_101_3x/139514519/model_final_cafdb1.pkl',
  ),
}
MODEL_GARDEN = {
  'model_garden_1x': Network(
    "the TensorFlow Model Garden's Panoptic FPN, ResNet-50, PQ 39.1",
    'vision/panoptic/panoptic_fpn/panoptic_fpn_1x/',
  ),
  'model_garden_3x': Network(
    'the same, trained three times as long, PQ 40.9',
    'vision/panoptic/panoptic_fpn/panoptic_fpn_3x/',
  ),
}


def download(name: str, folder: pathlib.Path) -> pathlib.Path:
  """Fetches a network, unless it is there.

  Args:
    name: of `DETECTRON2` or `MODEL_GARDEN`.
    folder: where it goes, under its name.

  Returns:
    The file or checkpoint for `import_weights`.

  Raises:
    InputError: see `fetch`; or if the Model Garden's storage lists no checkpoint.
  """
  if name in DETECTRON2:
    return _fetch_detectron2(DETECTRON2[name].path, folder / f'{name}.pkl')
  return _fetch_model_garden(MODEL_GARDEN[name].path, folder / name)


def _fetch_detectron2(path: str, file: pathlib.Path) -> pathlib.Path:
  note("Detectron2's models are under CC BY-SA 3.0: name their source, and keep the licence.")
  url = server('MODEL_URL', 'https://dl.fbaipublicfiles.com')
  md5 = path.removesuffix('.pkl').rpartition('_')[-1]
  with files.folder_unless_empty(file.parent):
    fetch(f'{url}/detectron2/COCO-PanopticSegmentation/{path}', file, f'md5:{md5}')
  return file


def _fetch_model_garden(prefix: str, folder: pathlib.Path) -> pathlib.Path:
  url = server('MODEL_URL', 'https://storage.googleapis.com')
  md5s = _list_files(f'{url}/storage/v1/b/tf_model_garden/o?prefix={prefix}')
  with files.folder_unless_empty(folder):
    for path, md5 in md5s.items():
      fetch(
        f'{url}/tf_model_garden/{quote(path)}',
        folder / pathlib.PurePosixPath(path).name,
        f'md5:{md5}',
      )
  return checkpoints.newest(folder)


def _list_files(url: str) -> dict[str, str]:
  """The MD5 sums, by path, of the files that Google's storage has in a folder."""
  content = read(url)
  try:
    items = json.loads(content)['items']
    md5s = {item['name']: base64.b64decode(item['md5Hash']).hex() for item in items}
  except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
    raise InputError(
      f'{url}: the answer is no list of files with MD5 sums; try again later'
    ) from None
  return {path: md5 for path, md5 in md5s.items() if not path.endswith('/')}
