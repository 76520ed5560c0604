"""Finds and opens a trained network in any format.

TensorFlow is loaded only for those that need it, so that a TFLite file needs LiteRT alone.
"""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from oanet_tf import errors
from oanet_tf.config.values import PARAMS_FILE
from oanet_tf.data.categories import PanopticCategories
from oanet_tf.data.panoptic_map import Scores, Segments, segments_of_masks
from oanet_tf.errors import InputError
from oanet_tf.files import FilePath

# The outputs of a network that `segments_of_outputs` and its callers read.
OUTPUTS = (
  'panoptic_category_mask', 'panoptic_instance_mask', 'num_segments', 'segment_category_id',
  'segment_instance_id', 'segment_score',
)  # fmt: skip


class Predictor(NamedTuple):
  """A trained network that segments images.

  Attributes:
    segment: [h, w, 3] uint8 RGB images of any sizes -> the segments of each, at its size, with
      scores. Several threads may call it at once.
    categories: of the dataset.
    max_pixels, max_side: most pixels of an image and of a side; None for no limit.
  """

  segment: Callable[[Sequence[np.ndarray]], list[Segments]]
  categories: PanopticCategories
  max_pixels: int | None = None
  max_side: int | None = None


def find_model(path: FilePath) -> tuple[str, pathlib.Path]:
  """The kind of model at a path: 'model_folder', 'saved_model' or 'tflite', and its own path.

  In a folder with versions of a SavedModel, this is the newest.

  Raises:
    InputError: if there is none of these.
  """
  path = pathlib.Path(path)
  try:
    if path.is_file():
      with path.open('rb') as file:
        if file.read(8)[4:] == b'TFL3':
          return 'tflite', path
  except OSError as error:
    raise InputError(f'{path}: cannot be read ({error.strerror})') from None
  if not path.exists():
    raise InputError(f'{path}: there is no such model folder, SavedModel or TFLite file')
  if (path / PARAMS_FILE).exists():
    return 'model_folder', path
  if (path / 'saved_model.pb').exists():
    return 'saved_model', path
  versions = [part for part in path.glob('*/saved_model.pb') if part.parent.name.isdecimal()]
  if versions:
    return 'saved_model', max((part.parent for part in versions), key=lambda part: int(part.name))
  raise InputError(
    f'{path}: is no model folder, no SavedModel and no TFLite file; weights of other packages are '
    'first made a model folder by oanet import_weights'
  )


def open_predictor(
  path: FilePath, fusion: str | None = None, params_override: str = ''
) -> Predictor:
  """Opens a trained network.

  Args:
    path: of a model folder, a SavedModel, a folder with its versions, or a TFLite file.
    fusion: for a model folder, one of `config.values.FUSIONS` except 'oracle'; None takes the
      configured one.
    params_override: for a model folder, changes to its configuration, as `a.b=1,c.d=[2,3]`.

  Raises:
    InputError: if it is none of these, is damaged, or does not fit the settings; or if a package
      that it needs is not installed.
  """
  kind, path = find_model(path)
  if kind != 'model_folder' and (fusion or params_override):
    raise InputError(
      f'{path}: an export has fixed settings; another fusion and other parameters are for the '
      'folder of a training'
    )
  with errors.naming_missing_packages(path):
    if kind == 'tflite':
      from oanet_tf.prediction.lite_predictor import of_tflite

      return of_tflite(path)
    if kind == 'saved_model':
      from oanet_tf.prediction.tensorflow_predictors import of_saved_model

      return of_saved_model(path)
    from oanet_tf.model_folder import ModelFolder

    # Loading TensorFlow takes seconds, so the settings are checked first.
    folder = ModelFolder(path, params_override)
    method = folder.fusion(fusion)
    from oanet_tf.prediction.tensorflow_predictors import of_trained

    return of_trained(folder.load(), method)


def segments_of_outputs(
  outputs: Mapping[str, np.ndarray],
  category_mask: np.ndarray,
  instance_mask: np.ndarray,
  categories: PanopticCategories,
) -> Segments:
  """The segments of one image, with scores.

  Args:
    outputs: the table of `serving.segment_table`, for one image.
    category_mask: [h, w] int32 ids of the dataset, `categories.void_id` for void.
    instance_mask: [h, w] int32, 0 for stuff and void.
    categories: of the dataset.

  Raises:
    InputError: if a segment is of no category, or a thing of a stuff category or the reverse.
  """
  number = int(outputs['num_segments'])
  instances, category_ids, scores = (
    outputs[f'segment_{name}'][:number] for name in ('instance_id', 'category_id', 'score')
  )
  of_instances = np.zeros(instances.max(initial=0), np.float32)
  of_stuff = np.zeros(categories.num_stuff, np.float32)
  is_thing = instances > 0
  for category_id, thing in zip(category_ids.tolist(), is_thing.tolist(), strict=True):
    if category_id not in categories or categories.of_id(category_id).is_thing != thing:
      raise InputError(
        f'{categories.source}: the network has another category {category_id} than this file '
        'says; bring its own file back, or export it again'
      )
  of_instances[instances[is_thing] - 1] = scores[is_thing]
  stuff = categories.labels_of_ids(category_ids[~is_thing]) - 1 - categories.num_things
  of_stuff[stuff] = scores[~is_thing]
  labels = categories.labels_of_ids(category_mask)
  return segments_of_masks(labels, instance_mask, categories, Scores(of_instances, of_stuff))
