"""Writes weight files as PyTorch and Detectron2 do, and parts of pickles, without PyTorch."""

import pickle
import struct
import zipfile

import ml_dtypes
import numpy as np

# The first pickles of PyTorch's older files: magic number, version, what the machine is like.
LEGACY_START = (0x1950A86A20F9469CFC6C, 1001, {'protocol_version': 1001, 'little_endian': True})
STORAGES = {
  np.dtype(np.float64): 'DoubleStorage',
  np.dtype(np.float32): 'FloatStorage',
  np.dtype(np.float16): 'HalfStorage',
  np.dtype(ml_dtypes.bfloat16): 'BFloat16Storage',
  np.dtype(np.int64): 'LongStorage',
  np.dtype(np.int32): 'IntStorage',
  np.dtype(np.uint8): 'ByteStorage',
  np.dtype(np.bool_): 'BoolStorage',
}


def write_pickle(path, tensors, author='Detectron2 Model Zoo', protocol=4):
  """The form of Detectron2's `.pkl` files."""
  with open(path, 'wb') as file:
    pickle.dump({'model': tensors, '__author__': author}, file, protocol)


def write_torch_zip(path, tensors):
  """As `torch.save` does since 1.6; each tensor has its own storage."""
  items = {name: tensor(str(k), array) for k, (name, array) in enumerate(tensors.items())}
  arrays = {f'data/{k}': array.tobytes() for k, array in enumerate(tensors.values())}
  write_archive(path, {'data.pkl': whole(dict_of(items)), 'byteorder': b'little', **arrays})


def write_archive(path, records, compression=zipfile.ZIP_STORED):
  """A zip archive of files in one folder, and PyTorch's version."""
  with zipfile.ZipFile(path, 'w', compression) as archive:
    for name, content in {**records, 'version': b'3\n'}.items():
      archive.writestr(f'archive/{name}', content)


def write_torch_legacy(path, tensors):
  """As `torch.save` did before 1.6."""
  items = {name: tensor(str(k), array, (None,)) for k, (name, array) in enumerate(tensors.items())}
  arrays = {str(k): array for k, array in enumerate(tensors.values())}
  write_legacy_parts(path, [*LEGACY_START, dict_of(items), list(arrays)], arrays.values())


def write_legacy_parts(path, parts, arrays):
  """An older file of pickles, or values to pickle, and the elements of storages behind them."""
  with open(path, 'wb') as file:
    for part in parts:
      file.write(whole(part if isinstance(part, bytes) else pickled(part)))
    for array in arrays:
      file.write(struct.pack('<q', array.size) + array.tobytes())


def tensor(key, array, more=()):
  """The instructions that make a tensor, given its storage's key and what else its id has."""
  return view(storage(key, array.dtype, array.size, more), 0, array.shape, strides(array.shape))


def storage(key, dtype, size, more=()):
  kind = named(f'torch.{STORAGES[np.dtype(dtype)]}')
  rest = b''.join(map(pickled, (key, 'cpu', size, *more)))
  return b'(' + pickled('storage') + kind + rest + b'tQ'


def view(storage_instructions, offset, shape, stride):
  return called(
    'torch._utils._rebuild_tensor_v2',
    storage_instructions,
    *map(pickled, (offset, shape, stride, False)),
    called('collections.OrderedDict'),
  )


def strides(shape):
  """In elements, of an array in C's order."""
  return tuple(int(np.prod(shape[axis + 1 :], dtype=np.int64)) for axis in range(len(shape)))


def dict_of(items):
  """The instructions that make a dict; its values are instructions."""
  return b'}(' + b''.join(pickled(key) + value for key, value in items.items()) + b'u'


def called(dotted, *arguments):
  return named(dotted) + b'(' + b''.join(arguments) + b'tR'


def named(dotted):
  module, name = dotted.rsplit('.', 1)
  return f'c{module}\n{name}\n'.encode()


def pickled(value):
  """The instructions that make a value, to be put between others."""
  return pickle.dumps(value, 2)[2:-1]


def whole(instructions):
  """A pickle of protocol 2."""
  return b'\x80\x02' + instructions + b'.'
