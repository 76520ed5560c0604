"""Segments images with a TFLite file. Of the larger packages, only LiteRT is loaded."""

import json
import pathlib
import threading
import zipfile
from collections.abc import Sequence

import numpy as np

from oanet_tf.data.categories import PanopticCategories
from oanet_tf.data.panoptic_map import Segments
from oanet_tf.errors import InputError, first_line
from oanet_tf.files import FilePath
from oanet_tf.prediction.predictor import OUTPUTS, Predictor, segments_of_outputs
from oanet_tf.serving.letterbox import from_canvas, letterbox
from oanet_tf.serving.tflite_runner import DESCRIPTION_FILE, runner


def of_tflite(path: FilePath) -> Predictor:
  """A TFLite file of `oanet_tf.export`, which LiteRT runs on one image after the other.

  Raises:
    InputError: if it is damaged or was not made by `oanet_tf.export`.
  """
  try:
    with zipfile.ZipFile(path) as associated:
      description = json.loads(associated.read(DESCRIPTION_FILE))
    run = runner(pathlib.Path(path))
    categories = PanopticCategories.from_coco(description['categories'], str(path))
    canvas_size = description['input']['shape'][1:3]
  except InputError:
    raise
  except (zipfile.BadZipFile, KeyError, TypeError, ValueError, RuntimeError, OSError) as error:
    raise InputError(
      f'{path}: is not a TFLite file of oanet export ({first_line(error)})'
    ) from None
  # An interpreter keeps the image and the results of one call.
  one_at_a_time = threading.Lock()

  def segment_one(image: np.ndarray) -> Segments:
    canvas = letterbox(image, canvas_size)[np.newaxis]
    with one_at_a_time:
      batch = run(image=canvas)
    outputs = {name: batch[name][0] for name in OUTPUTS}
    category_mask, instance_mask = (
      from_canvas(outputs[f'panoptic_{kind}_mask'], image.shape)
      for kind in ('category', 'instance')
    )
    return segments_of_outputs(outputs, category_mask, instance_mask, categories)

  def segment(images: Sequence[np.ndarray]) -> list[Segments]:
    return [segment_one(image) for image in images]

  return Predictor(segment, categories)
