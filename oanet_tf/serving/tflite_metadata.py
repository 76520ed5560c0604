"""TFLite Metadata: a flatbuffer that describes a model's inputs and outputs to applications.

The package for this, tflite-support, needs an older protobuf than TensorFlow 2.20.
"""

from typing import Union

import flatbuffers
import numpy as np

from oanet_tf.serving.tflite_description import LABELS_FILE, WITH_CATEGORY_IDS

# Enumerations of metadata_schema.fbs.
_TENSOR_VALUE_LABELS = np.uint8(3)
_DESCRIPTIONS = np.uint8(1)
_RGB = np.uint8(1)
_IMAGE_PROPERTIES = np.uint8(2)
_NORMALIZATION_OPTIONS = np.uint8(1)

# A dict is a table with its values by position. The types of numbers give their widths.
Value = Union[str, np.uint8, np.uint32, list, 'dict[int, Value]']

# The fields, in order, of the tables of metadata_schema.fbs that are used here.
_FIELDS = {
  'ModelMetadata': (
    'name', 'description', 'version', 'subgraph_metadata', 'author', 'license', 'associated_files',
    'min_parser_version',
  ),
  'SubGraphMetadata': (
    'name', 'description', 'input_tensor_metadata', 'output_tensor_metadata', 'associated_files',
  ),
  'TensorMetadata': (
    'name', 'description', 'dimension_names', 'content', 'process_units', 'stats',
    'associated_files',
  ),
  'AssociatedFile': ('name', 'description', 'type'),
  'Content': ('content_properties_type', 'content_properties'),
  'ImageProperties': ('color_space', 'default_size'),
  'ImageSize': ('width', 'height'),
  'ProcessUnit': ('options_type', 'options'),
  'NormalizationOptions': ('mean', 'std'),
  'Stats': ('max', 'min'),
}  # fmt: skip


def serialize(description: dict, description_file: str) -> bytes:
  """The metadata of a model.

  Args:
    description: of `tflite_description.describe`.
    description_file: name of the associated file with the description.
  """
  labels = _table('AssociatedFile', name=LABELS_FILE, type=_TENSOR_VALUE_LABELS,
                  description='line n names category id n, from 0')  # fmt: skip
  all_of_it = _table('AssociatedFile', name=description_file, type=_DESCRIPTIONS,
                     description='inputs, outputs and categories as JSON')  # fmt: skip
  outputs = [
    _table(
      'TensorMetadata',
      name=output['name'],
      description=output['description'],
      **({'associated_files': [labels]} if output['name'] in WITH_CATEGORY_IDS else {}),
    )
    for output in description['outputs']
  ]
  network = _table(
    'SubGraphMetadata',
    input_tensor_metadata=[_image(description['input'])],
    output_tensor_metadata=outputs,
    associated_files=[all_of_it],
  )
  model = _table(
    'ModelMetadata',
    name='OANet',
    description='Panoptic segmentation',
    version=description['format'],
    subgraph_metadata=[network],
    min_parser_version='1.0.0',
  )
  builder = flatbuffers.Builder(0)
  builder.Finish(_add(builder, model), b'M001')
  return bytes(builder.Output())


def _image(image: dict) -> Value:
  """The metadata of the input, which the model itself normalizes."""
  _, height, width, _ = image['shape']
  size = _table('ImageSize', width=np.uint32(width), height=np.uint32(height))
  as_it_is = _table('NormalizationOptions', mean=[0.0], std=[1.0])
  return _table(
    'TensorMetadata',
    name=image['name'],
    description=image['description'],
    content=_table(
      'Content',
      content_properties_type=_IMAGE_PROPERTIES,
      content_properties=_table('ImageProperties', color_space=_RGB, default_size=size),
    ),
    process_units=[_table('ProcessUnit', options_type=_NORMALIZATION_OPTIONS, options=as_it_is)],
    stats=_table('Stats', max=[255.0], min=[0.0]),
  )


def _table(kind: str, **fields: Value) -> Value:
  return {_FIELDS[kind].index(name): value for name, value in fields.items()}


def _add(builder: flatbuffers.Builder, value: Value) -> int:
  """Writes a string, list or table with all its contents; returns its offset."""
  if isinstance(value, str):
    return builder.CreateString(value)
  if isinstance(value, list) and isinstance(value[0], float):
    return builder.CreateNumpyVector(np.array(value, np.float32))
  if isinstance(value, list):
    offsets = [_add(builder, item) for item in value]
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
      builder.PrependUOffsetTRelative(offset)
    return builder.EndVector()
  return _add_table(builder, value)


def _add_table(builder: flatbuffers.Builder, fields: 'dict[int, Value]') -> int:
  # A table must come after what it refers to.
  offsets = {
    slot: _add(builder, value) for slot, value in fields.items() if not isinstance(value, np.number)
  }
  builder.StartObject(1 + max(fields))
  for slot, value in fields.items():
    if isinstance(value, np.uint8):
      builder.PrependUint8Slot(slot, int(value), 0)
    elif isinstance(value, np.uint32):
      builder.PrependUint32Slot(slot, int(value), 0)
    else:
      builder.PrependUOffsetTRelativeSlot(slot, offsets[slot], 0)
  return builder.EndObject()
