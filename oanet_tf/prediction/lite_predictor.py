"""Segments images with a TFLite file. Of the larger packages, only LiteRT is loaded."""

import pathlib
import threading
from collections.abc import Sequence

import numpy as np

from oanet_tf.data.categories import PanopticCategories
from oanet_tf.data.panoptic_map import Segments
from oanet_tf.errors import InputError, first_line, lack_of_memory
from oanet_tf.files import FilePath
from oanet_tf.prediction.predictor import OUTPUTS, Predictor, segments_of_outputs
from oanet_tf.serving.letterbox import from_canvas, letterbox
from oanet_tf.serving.tflite_archive import DESCRIPTION_FILE, read_description
from oanet_tf.serving.tflite_runner import Runner, runner


def of_tflite(path: FilePath) -> Predictor:
  """A TFLite file of `oanet_tf.export`, which LiteRT runs on one image after the other.

  Raises:
    InputError: if it is damaged or was not made by `oanet_tf.export`.
  """
  path = pathlib.Path(path)
  description = read_description(path)
  categories = PanopticCategories.from_coco(description.get('categories'), str(path))
  run, canvas_size = _described_network(path, description)
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


def _described_network(path: pathlib.Path, description: dict) -> tuple[Runner, list[int]]:
  """The network as a function of `image`, and the [height, width] of that.

  Raises:
    InputError: if it has other inputs and outputs than are described, or LiteRT does not take it.
    MemoryError: if there is not enough memory.
  """
  try:
    run = runner(path, description)
  except (ValueError, RuntimeError) as error:
    if fact := lack_of_memory(error):
      raise MemoryError(fact) from None
    raise InputError(f'{path}: LiteRT does not take it ({first_line(error)})') from None
  (image,), outputs = run.get_input_details().values(), run.get_output_details()
  found = {
    name: (details['shape'].tolist(), np.dtype(details['dtype']).name)
    for name, details in {'image': image, **outputs}.items()
  }
  try:
    parts = [description['input'], *description['outputs']]
    described = {part['name']: (part['shape'], part['dtype']) for part in parts}
  except (KeyError, TypeError):
    described = {}
  if described != found or not {*OUTPUTS} <= found.keys():
    raise InputError(f'{path}: its {DESCRIPTION_FILE} is not that of its network; export it again')
  return run, image['shape'][1:3].tolist()
