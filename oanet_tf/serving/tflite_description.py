"""Describes the inputs and outputs of an exported TFLite file, for JSON."""

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from official.vision.ops import preprocess_ops

from oanet_tf.data.categories import PanopticCategories
from oanet_tf.printing import shown
from oanet_tf.serving.letterbox import PADDING_COLOR
from oanet_tf.serving.parity import Source
from oanet_tf.serving.tflite_runner import SIGNATURE

LABELS_FILE = 'labels.txt'
NO_CATEGORY = '???'

INPUT = (
  'An RGB picture. Scale it bilinearly to the largest size that fits, put it at the top left, and '
  'fill the rows below and the columns on the right with padding_color. The model normalizes it.'
)
OUTPUTS = {
  'panoptic_category_mask': 'category id of each pixel; for void, 0, or -1 if that is a category',
  'panoptic_instance_mask': '1 + index of the detection at each pixel, 0 for stuff and void',
  'image_shape': 'height and width of the picture within the masks',
  'num_segments': 'number of rows of segment_…; the others are 0',
  'segment_category_id': 'category id',
  'segment_label_id': 'place of the category among categories, things first, from 1',
  'segment_instance_id': 'value in panoptic_instance_mask, 0 for stuff',
  'segment_is_thing': '1 for an object, else 0',
  'segment_score': 'score of the detection; of stuff, the mean probability of its pixels',
  'segment_area': 'pixels',
  'segment_box': 'y1, x1, y2, x2 in pixels, y2 and x2 exclusive',
  'num_detections': 'number of detections; the others are padding',
  'detection_boxes': 'y1, x1, y2, x2 in pixels',
  'detection_scores': 'from 0 to 1, descending',
  'detection_classes': 'category id',
  'detection_masks': 'probability at each cell of the box',
  'ranking_scores': 'of the spatial ranking module; of two categories, the higher lies on top',
}
# Of the first of two steps.
_FOR_THE_SECOND_STEP = {
  'stuff_logits': 'of the stuff branch, for the second step',
  'image_info': 'how the picture lies in the network input, for the second step',
}
# The outputs whose values are lines of `LABELS_FILE`.
WITH_CATEGORY_IDS = ('panoptic_category_mask', 'segment_category_id', 'detection_classes')


def describe(model: bytes, format_name: str, source: Source) -> dict:
  """All that an application needs to know, for JSON.

  Args:
    model: the TFLite file.
    format_name: a key of `formats.FORMATS`.
    source: that it was made from.
  """
  interpreter = Interpreter(model_content=model)
  runner = interpreter.get_signature_runner(SIGNATURE)
  outputs = runner.get_output_details()
  by_index = {details['index']: name for name, details in outputs.items()}
  # In the order of the file, which metadata must follow.
  names = [by_index[details['index']] for details in interpreter.get_output_details()]
  outputs = {name: outputs[name] for name in names}
  return _description(format_name, source, runner.get_input_details(), outputs)


def describe_two_steps(
  network: bytes, merge: bytes, format_name: str, source: Source, fusions: list[str]
) -> dict:
  """The same of a network and a fusion in two TFLite files, with the outputs of both.

  Args:
    network, merge: the files.
    format_name: a key of `formats.FORMATS`.
    source: that it was made from.
    fusions: that the network is good for.
  """
  interpreters = [Interpreter(model_content=model) for model in (network, merge)]
  first, second = (one.get_signature_runner(SIGNATURE) for one in interpreters)
  outputs = {**first.get_output_details(), **second.get_output_details()}
  described = _description(format_name, source, first.get_input_details(), outputs)
  return {**described, 'fusions': fusions}


def _description(format_name: str, source: Source, inputs: dict, outputs: dict) -> dict:
  (image,) = inputs.values()
  descriptions = {**OUTPUTS, **_FOR_THE_SECOND_STEP}
  return {
    'format': format_name,
    'fusion': source.method,
    'score_threshold': source.trained.config.task.model.fusion.score_threshold,
    'input': {
      'name': 'image',
      **_shape_and_dtype(image),
      'description': INPUT,
      'padding_color': list(PADDING_COLOR),
    },
    'normalization_within_the_model': {
      'mean': list(preprocess_ops.MEAN_RGB),
      'deviation': list(preprocess_ops.STDDEV_RGB),
    },
    'outputs': [
      {'name': name, **_shape_and_dtype(details), 'description': descriptions[name]}
      for name, details in outputs.items()
    ],
    'categories': source.trained.categories.to_coco(),
  }


def _shape_and_dtype(details: dict) -> dict:
  return {'shape': details['shape'].tolist(), 'dtype': np.dtype(details['dtype']).name}


def labels_text(categories: PanopticCategories) -> str:
  """The category's name for each value of a category mask from 0 on, one per line."""
  names = {category.id: shown(category.name) for category in categories}
  names.setdefault(0, 'void')
  return ''.join(f'{names.get(value, NO_CATEGORY)}\n' for value in range(max(names) + 1))
