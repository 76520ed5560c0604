"""Loads a trained network in any format as a function from pictures to segmentations."""

# B images, H, W the largest height and width among them.

import io
import json
import pathlib
import zipfile
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from PIL import Image

from oanet_tf.data.categories import CATEGORIES_FILE, PanopticCategories
from oanet_tf.data.panoptic_map import Segments, segments_of_masks
from oanet_tf.errors import InputError, first_line
from oanet_tf.model_folder import Trained
from oanet_tf.serving.image_limits import MAX_IMAGE_PIXELS
from oanet_tf.serving.letterbox import from_canvas, letterbox
from oanet_tf.serving.panoptic_module import SEGMENT_INPUTS, PanopticModule


class Predictor(NamedTuple):
  """A trained network that segments pictures.

  Attributes:
    segment: [h, w, 3] uint8 RGB pictures of any sizes -> the segmentation of each, at its size.
    categories: of the dataset.
    max_pixels: most pixels of a picture; None for no limit.
  """

  segment: Callable[[Sequence[np.ndarray]], list[Segments]]
  categories: PanopticCategories
  max_pixels: int | None = None


def of_trained(trained: Trained, method: str) -> Predictor:
  """A network in memory.

  Args:
    trained: of `ModelFolder.load`.
    method: of fusion, one of `config.values.FUSIONS` except 'oracle'.

  Raises:
    InputError: if a file that the fusion needs cannot be read.
  """
  module = PanopticModule(trained, method, maps_only=True)
  function = tf.function(module.segment, SEGMENT_INPUTS, autograph=False)

  def segment(pictures: Sequence[np.ndarray]) -> list[Segments]:
    shapes = np.array([picture.shape[:2] for picture in pictures], np.int32)
    images = np.zeros([len(pictures), *shapes.max(axis=0), 3], np.uint8)
    for image, picture, (height, width) in zip(images, pictures, shapes, strict=True):
      image[:height, :width] = picture
    return _segmentations(function(images, shapes), trained.categories)

  return Predictor(segment, trained.categories)


def of_saved_model(folder: str | pathlib.Path) -> Predictor:
  """A SavedModel of `oanet_tf.export`, used through its signature for encoded images.

  Args:
    folder: of one version.

  Raises:
    InputError: if it is damaged or was not made by `oanet_tf.export`.
  """
  folder = pathlib.Path(folder)
  try:
    signatures = tf.saved_model.load(str(folder)).signatures
  except (OSError, ValueError, tf.errors.OpError) as error:
    raise InputError(f'{folder}: cannot be read as a SavedModel ({first_line(error)})') from None
  if 'serving_bytes' not in signatures:
    raise InputError(f'{folder}: is not a SavedModel of python -m oanet_tf.export')
  categories = PanopticCategories.from_json(folder / 'assets' / CATEGORIES_FILE)

  def segment(pictures: Sequence[np.ndarray]) -> list[Segments]:
    encoded = tf.constant([_encoded(picture) for picture in pictures])
    return _segmentations(signatures['serving_bytes'](image_bytes=encoded), categories)

  return Predictor(segment, categories, MAX_IMAGE_PIXELS)


def of_tflite(path: str | pathlib.Path) -> Predictor:
  """A TFLite file of `oanet_tf.export`, which LiteRT runs on one image after the other.

  Raises:
    InputError: if it is damaged or was not made by `oanet_tf.export`.
  """
  from oanet_tf.serving import tflite

  try:
    with zipfile.ZipFile(path) as associated:
      description = json.loads(associated.read(tflite.DESCRIPTION_FILE))
    run = tflite.runner(pathlib.Path(path))
  except (zipfile.BadZipFile, KeyError, ValueError, RuntimeError) as error:
    raise InputError(
      f'{path}: is not a TFLite file of python -m oanet_tf.export ({first_line(error)})'
    ) from None
  categories = PanopticCategories.from_coco(description['categories'], str(path))
  canvas_size = description['input']['shape'][1:3]

  def segment(picture: np.ndarray) -> Segments:
    outputs = run(image=letterbox(picture, canvas_size)[np.newaxis])
    masks = (outputs[f'panoptic_{kind}_mask'][0] for kind in ('category', 'instance'))
    return _segmentation(*(from_canvas(mask, picture.shape) for mask in masks), categories)

  return Predictor(lambda pictures: list(map(segment, pictures)), categories)


def _encoded(picture: np.ndarray) -> bytes:
  """A PNG file, for which speed matters more than size."""
  file = io.BytesIO()
  Image.fromarray(picture).save(file, 'PNG', compress_level=1)
  return file.getvalue()


def _segmentations(outputs: dict[str, tf.Tensor], categories: PanopticCategories) -> list[Segments]:
  names = ('panoptic_category_mask', 'panoptic_instance_mask', 'image_shape')
  arrays = (outputs[name].numpy() for name in names)
  return [
    _segmentation(category_mask[:height, :width], instance_mask[:height, :width], categories)
    for category_mask, instance_mask, (height, width) in zip(*arrays, strict=True)
  ]


def _segmentation(
  category_mask: np.ndarray, instance_mask: np.ndarray, categories: PanopticCategories
) -> Segments:
  """The segmentation of [h, w] masks of category ids and instances."""
  labels = categories.label_of_id_table()[category_mask]
  return segments_of_masks(labels, instance_mask, categories)
