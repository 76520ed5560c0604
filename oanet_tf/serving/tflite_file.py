"""What a TFLite file holds besides weights: its operations, metadata and associated files.

https://ai.google.dev/edge/litert/conversion/tensorflow/metadata: a flatbuffer within the model's,
and a ZIP archive after it.
"""

import io
import zipfile
from collections.abc import Mapping

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from oanet_tf.errors import InputError

METADATA_NAME = 'TFLITE_METADATA'


def check_builtins(model: bytes) -> None:
  """Refuses what LiteRT alone cannot run.

  Args:
    model: a TFLite file.

  Raises:
    InputError: if there is an operation of TensorFlow's (Flex) or a custom one; names them.
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


def with_metadata(model: bytes, metadata: bytes, files: Mapping[str, bytes]) -> bytes:
  """Puts metadata and files into a TFLite file; any ZIP program takes the files out again.

  Args:
    model: without them.
    metadata: of `tflite_metadata.serialize`.
    files: by name.
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
  file = io.BytesIO(builder.Output())
  # Readers on phones take what is stored as it is alone.
  with zipfile.ZipFile(file, 'a', zipfile.ZIP_STORED) as archive:
    for name, content in files.items():
      archive.writestr(name, content)
  return file.getvalue()


def read_metadata(model: bytes) -> bytes:
  """The metadata of a TFLite file that `with_metadata` made."""
  parsed = _parsed(model)
  (entry,) = (entry for entry in parsed.metadata if entry.name.decode() == METADATA_NAME)
  return bytes(parsed.buffers[entry.buffer].data)


def _parsed(model: bytes) -> schema.ModelT:
  parsed = schema.ModelT.InitFromObj(schema.Model.GetRootAs(model))
  for buffer in parsed.buffers:
    # The quantiser puts weights after the flatbuffer, where they would be lost.
    if buffer.offset > 1:
      buffer.data = np.frombuffer(model, np.uint8, buffer.size, buffer.offset)
      buffer.offset = buffer.size = 0
  return parsed
