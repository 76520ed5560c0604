"""Reads the tensors in weight files of PyTorch and Detectron2, without PyTorch.

The kind is told by content:

- PyTorch's zip (1.6 and later): a pickle, and a file for each storage, beside it in the archive.
- PyTorch's older file: a pickle, and behind it the storages.
- A plain pickle of numpy arrays, as Detectron2 publishes them.
"""

import io
import mmap
import os
import struct
import zipfile
from collections.abc import Iterable
from typing import Any

import numpy as np

from oanet_tf.errors import InputError
from oanet_tf.weights.restricted_pickle import DAMAGED, load, named_errors
from oanet_tf.weights.stand_ins import (
  MOST_ELEMENTS,
  Array,
  Malformed,
  Storage,
  StorageKind,
  Tensor,
  shown,
)

EXPECTED = 'expected are weights of PyTorch (.pth) or Detectron2 (.pkl)'
# The first pickles of PyTorch's older files.
MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
PROTOCOL_VERSION = 1001
# Where a dict has its tensors, if not at its top.
WRAPPERS = ('model', 'state_dict', 'model_state_dict')
# 16-bit floats double, and tensors may share a storage; more would only be meant to fill memory.
MOST_GROWTH = 4
# What else is found under such names, by its first bytes.
OTHER_KINDS = (
  (b'\x89PNG', 'a PNG image'),
  (b'version https://git-lfs', 'a pointer of git-lfs (`git lfs pull` fetches the file)'),
  (b'<', 'an HTML or XML page, as a failed download leaves'),
)
ZIP_START = b'PK\x03\x04'
PICKLE_STARTS = tuple(bytes([0x80, protocol]) for protocol in (2, 3, 4, 5))
LOCAL_HEADER_SIZE = 30


def read_tensors(path: str) -> dict[str, np.ndarray]:
  """Reads the named tensors of a file, which may have them under 'model' or 'state_dict'.

  What else the file has, such as the state of an optimizer, is left out.

  Args:
    path: of a `.pth` or `.pt` file of `torch.save`, or of a `.pkl` file of Detectron2.

  Returns:
    Arrays by name, in the file's order. Floating-point ones are float32 and finite; integers and
    bools keep their type. Arrays may be views of the file or of each other and are not for writing.

  Raises:
    InputError: if there is no such file, it is of another kind, damaged, wants to run code, has no
      tensors, or values that are not finite in float32.
  """
  data = _mapped(path)
  with named_errors(path):
    return _arrays(_unwrapped(_content(data, path)), len(data))


def _mapped(path: str) -> mmap.mmap:
  try:
    with open(path, 'rb') as file:
      if not os.fstat(file.fileno()).st_size:
        raise InputError(f'{path}: is empty; {EXPECTED}')
      return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
  except OSError as error:
    raise InputError(f'{path}: cannot be read ({error.strerror})') from None


def _content(data: mmap.mmap, path: str) -> Any:
  """What was saved, with stand-ins for arrays."""
  start = data[:64]
  if start.startswith(ZIP_START):
    return _read_zip(data, path)
  if start[:2] in PICKLE_STARTS:
    content = load(data, path)
    return _read_legacy(data, path) if content == MAGIC_NUMBER else content
  for first_bytes, kind in OTHER_KINDS:
    if start.lstrip().startswith(first_bytes):
      raise Malformed(f'is {kind}; {EXPECTED}')
  header_size = int.from_bytes(start[:8], 'little')
  if start[8:9] == b'{' and header_size < len(data):
    raise Malformed(f'is a safetensors file; {EXPECTED}')
  raise Malformed(f'is neither a zip archive nor a pickle; {EXPECTED}')


def _read_zip(data: mmap.mmap, path: str) -> Any:
  entries = _zip_entries(path)
  pickles = [name for name in entries if name.count('/') == 1 and name.endswith('/data.pkl')]
  if len(pickles) != 1:
    raise Malformed(f'is a zip archive without weights (no single data.pkl); {EXPECTED}')
  root = pickles[0].removesuffix('data.pkl')
  if any(name.startswith((f'{root}code/', f'{root}constants.pkl')) for name in entries):
    raise Malformed(
      'is a TorchScript archive; save its weights by torch.save(model.state_dict(), …)'
    )
  order = entries.get(f'{root}byteorder')
  if order and _zip_record(data, order) != b'little':
    raise Malformed('was written on a big-endian machine, which is not supported')

  def storage_of(persistent_id: Any) -> Storage:
    key, storage = _storage(persistent_id, 5)
    entry = entries.get(f'{root}data/{key}')
    if entry is None or entry.file_size != storage.size:
      raise Malformed(f'{DAMAGED} (storage {shown(key)} should have {storage.size} bytes)')
    storage.data = _zip_record(data, entry)
    return storage

  return load(io.BytesIO(_zip_record(data, entries[pickles[0]])), path, storage_of)


def _zip_entries(path: str) -> dict[str, zipfile.ZipInfo]:
  """What an archive says of its files, by name."""
  try:
    with zipfile.ZipFile(path) as archive:
      return {entry.filename: entry for entry in archive.infolist()}
  except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError, struct.error) as error:
    raise Malformed(f'{DAMAGED} ({shown(str(error))})') from None


def _zip_record(data: mmap.mmap, entry: zipfile.ZipInfo) -> memoryview:
  """A file of an archive, as a view.

  Its checksum is not compared: PyTorch does not either, and can leave it out.
  """
  encrypted = entry.flag_bits & 1
  if entry.compress_type != zipfile.ZIP_STORED or encrypted:
    raise Malformed('is a compressed or encrypted archive, which PyTorch does not write')
  offset = entry.header_offset
  header = data[offset : offset + LOCAL_HEADER_SIZE] if offset >= 0 else b''
  if len(header) < LOCAL_HEADER_SIZE or not header.startswith(ZIP_START):
    raise Malformed(DAMAGED)
  name_size, extra_size = struct.unpack('<HH', header[26:])
  start = offset + LOCAL_HEADER_SIZE + name_size + extra_size
  if start + entry.file_size > len(data):
    raise Malformed(DAMAGED)
  return memoryview(data)[start : start + entry.file_size]


def _read_legacy(data: mmap.mmap, path: str) -> Any:
  """Reads what follows the magic number."""
  storages = {}

  def storage_of(persistent_id: Any) -> Storage:
    key, storage = _storage(persistent_id, 6)
    known = storages.setdefault(key, storage)
    if (known.dtype, known.count) != (storage.dtype, storage.count):
      raise Malformed(f'{DAMAGED} (storage {shown(key)} is said to have two sizes)')
    return known

  if load(data, path) != PROTOCOL_VERSION:
    raise Malformed(f"is of another version of PyTorch's format than {PROTOCOL_VERSION}")
  system = load(data, path)
  if type(system) is not dict or system.get('little_endian') is not True:
    raise Malformed('was written on a big-endian machine, which is not supported')
  content = load(data, path, storage_of)
  keys = load(data, path)
  if type(keys) is not list or not all(type(key) is str for key in keys):
    raise Malformed(DAMAGED)
  if sorted(keys) != sorted(storages):
    raise Malformed(f'{DAMAGED} (it has not the storages that its tensors name)')
  _fill_legacy([storages[key] for key in keys], data)
  return content


def _fill_legacy(storages: Iterable[Storage], data: mmap.mmap) -> None:
  """Gives storages their elements; the number of elements is before each."""
  view, start = memoryview(data), data.tell()
  for storage in storages:
    end = start + 8 + storage.size
    if end > len(view) or struct.unpack('<q', view[start : start + 8]) != (storage.count,):
      raise Malformed(f'{DAMAGED} (its last {len(view) - start} bytes are not its storages)')
    storage.data = view[start + 8 : end]
    start = end


def _storage(persistent_id: Any, length: int) -> tuple[str, Storage]:
  """A storage without its elements, and its key.

  Args:
    persistent_id: ('storage', kind, key, device, number of elements); in older files also None,
      which was once a part of another storage.
    length: of the tuple.
  """
  known = type(persistent_id) is tuple and len(persistent_id) == length
  if not known or persistent_id[0] != 'storage' or any(x is not None for x in persistent_id[5:]):
    raise Malformed('refers to data in an unknown way')
  _, kind, key, _, count = persistent_id[:5]
  if type(kind) is not StorageKind or type(key) is not str:
    raise Malformed('refers to data in an unknown way')
  if type(count) is not int or not 0 <= count <= MOST_ELEMENTS:
    raise Malformed('refers to data in an unknown way')
  return key, Storage(kind.dtype, count)


def _unwrapped(content: Any) -> dict:
  if type(content) is not dict:
    raise Malformed('has no dict of tensors at its top')
  for key in WRAPPERS:
    if type(content.get(key)) is dict:
      return content[key]
  return content


def _arrays(content: dict, file_size: int) -> dict[str, np.ndarray]:
  tensors = {name: one for name, one in content.items() if isinstance(one, Array | Tensor)}
  if not tensors:
    raise Malformed(
      'has no tensors by name, neither at its top nor in ' + ', '.join(map(repr, WRAPPERS))
    )
  if not all(type(name) is str for name in tensors):
    raise Malformed('has tensors whose names are no text')
  size = sum(tensor.count * _type_read(tensor).itemsize for tensor in tensors.values())
  if size > MOST_GROWTH * file_size:
    raise Malformed(f'has tensors of {size} bytes in {file_size}, as views of each other')
  return {name: _array(name, tensor) for name, tensor in tensors.items()}


def _array(name: str, tensor: Array | Tensor) -> np.ndarray:
  # Doubles too large for float32 are reported below.
  with np.errstate(over='ignore', invalid='ignore'):
    array = tensor.read().astype(_type_read(tensor), copy=False)
  if array.dtype.kind == 'f' and not np.isfinite(array).all():
    raise Malformed(f'{shown(name)} has values that are not finite in float32')
  return array


def _type_read(tensor: Array | Tensor) -> np.dtype:
  """The type that the array will have; bfloat16 has a kind of its own."""
  if tensor.dtype.kind in 'biu':
    return tensor.dtype.newbyteorder('=')
  return np.dtype(np.float32)
