"""Segments images with TensorFlow: a network in memory, or a SavedModel."""

# B images, H, W the largest height and width among them.

import io
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf
from PIL import Image

from oanet_tf import files
from oanet_tf.config.values import MAX_IMAGE_PIXELS, MAX_IMAGE_SIDE
from oanet_tf.data.categories import CATEGORIES_FILE, PanopticCategories
from oanet_tf.data.panoptic_map import Segments
from oanet_tf.errors import InputError, first_line
from oanet_tf.files import FilePath
from oanet_tf.model_folder import Trained
from oanet_tf.modeling.tracing import garbage_kept
from oanet_tf.prediction.predictor import OUTPUTS, Predictor, segments_of_outputs
from oanet_tf.serving.panoptic_module import SEGMENT_INPUTS, PanopticModule


def of_trained(trained: Trained, method: str) -> Predictor:
  """A network in memory.

  Args:
    trained: of `ModelFolder.load`.
    method: of fusion, one of `config.values.FUSIONS` except 'oracle'.

  Raises:
    InputError: if a file that the fusion needs cannot be read.
  """
  module = PanopticModule(trained, method, segments_only=True)
  with garbage_kept():
    function = tf.function(module.segment, SEGMENT_INPUTS, autograph=False).get_concrete_function()

  def segment(images: Sequence[np.ndarray]) -> list[Segments]:
    shapes = np.array([image.shape[:2] for image in images], np.int32)
    batch = np.zeros([len(images), *shapes.max(axis=0), 3], np.uint8)
    for canvas, image, (height, width) in zip(batch, images, shapes, strict=True):
      canvas[:height, :width] = image
    outputs = function(tf.constant(batch), tf.constant(shapes))
    return _segments(outputs, trained.categories)

  return Predictor(segment, trained.categories)


def of_saved_model(folder: FilePath) -> Predictor:
  """A SavedModel of `oanet_tf.export`, used through its signature for encoded images.

  Args:
    folder: of one version.

  Raises:
    InputError: if it is damaged or was not made by `oanet_tf.export`.
  """
  folder = pathlib.Path(folder)
  try:
    signatures = tf.saved_model.load(files.for_tensorflow(folder)).signatures
  except (OSError, ValueError, tf.errors.OpError) as error:
    raise InputError(f'{folder}: cannot be read as a SavedModel ({first_line(error)})') from None
  if 'serving_bytes' not in signatures:
    raise InputError(f'{folder}: is not a SavedModel of oanet export')
  categories = PanopticCategories.from_json(folder / 'assets' / CATEGORIES_FILE)

  def segment(images: Sequence[np.ndarray]) -> list[Segments]:
    encoded = tf.constant([_encoded(image) for image in images])
    outputs = signatures['serving_bytes'](image_bytes=encoded)
    _check_names(outputs, categories)
    return _segments(outputs, categories)

  return Predictor(segment, categories, MAX_IMAGE_PIXELS, MAX_IMAGE_SIDE)


def _check_names(outputs: Mapping[str, tf.Tensor], categories: PanopticCategories) -> None:
  """Compares the categories of a SavedModel's file with the names in its graph.

  Raises:
    InputError: if the file is another network's.
  """
  if 'segment_label' not in outputs:  # Exports of earlier versions lack it.
    return
  ids, names = (outputs[f'segment_{name}'].numpy().ravel() for name in ('category_id', 'label'))
  for category_id, name in zip(ids.tolist(), names, strict=True):
    here = categories.of_id(category_id).name if category_id in categories else None
    if name and here != name.decode():
      raise InputError(
        f'{categories.source}: category {category_id} is {here!r}, but {name.decode()!r} in the '
        'SavedModel; bring its own file back, or export it again'
      )


def _encoded(image: np.ndarray) -> bytes:
  """A PNG file, for which speed matters more than size."""
  file = io.BytesIO()
  Image.fromarray(image).save(file, 'PNG', compress_level=1)
  return file.getvalue()


def _segments(batch: Mapping[str, tf.Tensor], categories: PanopticCategories) -> list[Segments]:
  arrays = {name: batch[name].numpy() for name in (*OUTPUTS, 'image_shape')}
  segments = []
  for index, (height, width) in enumerate(arrays['image_shape']):
    outputs = {name: values[index] for name, values in arrays.items()}
    category_mask, instance_mask = (
      outputs[f'panoptic_{kind}_mask'][:height, :width] for kind in ('category', 'instance')
    )
    segments.append(segments_of_outputs(outputs, category_mask, instance_mask, categories))
  return segments
