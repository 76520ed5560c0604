"""Checks the operations of a TFLite file, and adds metadata.

Metadata is a flatbuffer inside the model's:
https://ai.google.dev/edge/litert/conversion/tensorflow/metadata. The files that it names are in
`tflite_archive`.
"""

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from oanet_tf.errors import InputError

METADATA_NAME = 'TFLITE_METADATA'


def check_builtins(model: bytes) -> None:
  """Checks that LiteRT alone can run a TFLite file.

  Raises:
    InputError: if it has custom operations or TensorFlow's (Flex); names them.
  """
  names = sorted(
    code.customCode.decode()
    for code in _parsed(model).operatorCodes
    if code.builtinCode == schema.BuiltinOperator.CUSTOM
  )
  if names:
    raise InputError(
      f'the network has operations that TFLite does not have built in: {", ".join(names)}'
    )


def with_metadata(model: bytes, metadata: bytes) -> bytes:
  """Adds metadata to a TFLite file.

  Args:
    model: a TFLite file without metadata and files.
    metadata: of `tflite_metadata.serialize`.
  """
  parsed = _parsed(model)
  buffer = schema.BufferT()
  buffer.data = np.frombuffer(metadata, np.uint8)
  entry = schema.MetadataT()
  entry.name, entry.buffer = METADATA_NAME, len(parsed.buffers)
  parsed.buffers.append(buffer)
  parsed.metadata.append(entry)
  builder = flatbuffers.Builder(len(model))
  builder.Finish(parsed.Pack(builder), b'TFL3')
  return bytes(builder.Output())


def read_metadata(model: bytes) -> bytes:
  """The metadata of a TFLite file that `with_metadata` made."""
  parsed = _parsed(model)
  (entry,) = (entry for entry in parsed.metadata if entry.name.decode() == METADATA_NAME)
  return bytes(parsed.buffers[entry.buffer].data)


def _parsed(model: bytes) -> schema.ModelT:
  parsed = schema.ModelT.InitFromObj(schema.Model.GetRootAs(model))
  for buffer in parsed.buffers:
    # The quantizer puts weights after the flatbuffer, where they would be lost.
    if buffer.offset > 1:
      buffer.data = np.frombuffer(model, np.uint8, buffer.size, buffer.offset)
      buffer.offset = buffer.size = 0
  return parsed
