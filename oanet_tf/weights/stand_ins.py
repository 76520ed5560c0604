"""What pickles of weights name, and what stands in for it: nothing of numpy or PyTorch is called.

The stand-ins check all that a file says of an array before one is made. They have no attributes
that a file could set.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

# Far more elements than any tensor has, and few enough that no product overflows.
MOST_ELEMENTS = 2**40
MOST_DIMENSIONS = 32
NUMPY_TYPES = ['b1', 'i1', 'i2', 'i4', 'i8', 'u1', 'u2', 'u4', 'u8', 'f2', 'f4', 'f8']
STORAGES = {
  'Double': np.float64,
  'Float': np.float32,
  'Half': np.float16,
  'BFloat16': ml_dtypes.bfloat16,
  'Long': np.int64,
  'Int': np.int32,
  'Short': np.int16,
  'Char': np.int8,
  'Byte': np.uint8,
  'Bool': np.bool_,
}
# Hashing a tuple of tuples recurses without a limit, so only flat values may be keys.
KEYS = (str, bytes, int, float, bool, type(None))


class Malformed(ValueError):
  """A fact about a file that cannot be read; `named_errors` puts the file's name before it."""


def shown(text: str) -> str:
  """A file's text for a message: short, on one line, in ASCII."""
  return ascii(text[:80])[1:-1][:80]


def element_count(shape: Any) -> int:
  """The number of elements of a file's shape.

  Raises:
    Malformed: if it is no tuple of integers ≥ 0, or of more elements than a file can have.
  """
  if type(shape) is not tuple or len(shape) > MOST_DIMENSIONS:
    raise Malformed(f'has an array whose shape is no tuple of at most {MOST_DIMENSIONS} sides')
  if not all(type(n) is int and 0 <= n <= MOST_ELEMENTS for n in shape):
    raise Malformed(f'has an array with a side that is no integer from 0 to {MOST_ELEMENTS}')
  if math.prod(max(n, 1) for n in shape) > MOST_ELEMENTS:
    raise Malformed(f'has an array of an impossible shape, {list(shape)}')
  return math.prod(shape)


def set_item(target: dict, key: Any, value: Any) -> None:
  """Puts an item into a dict that a file describes.

  Raises:
    Malformed: if the key is neither text nor a number.
  """
  if type(key) not in KEYS:
    raise Malformed('has a dict with a key that is neither text nor a number')
  target[key] = value


class DType:
  """Stands in for `numpy.dtype`; only bools and numbers are known."""

  __slots__ = ('numpy',)

  def __init__(self, code: str, align: int = 0, copy: int = 1):
    if code not in NUMPY_TYPES:
      raise Malformed(f'has an array of type {shown(code)}, which is none of numbers')
    self.numpy = np.dtype(code)

  def set_state(self, state: Any) -> None:
    """Sets the order of bytes; `state` is what `numpy.dtype.__reduce__` gives."""
    known = type(state) is tuple and len(state) == 8 and state[0] == 3
    if not known or state[1] not in ('<', '>', '|') or any(x is not None for x in state[2:5]):
      raise Malformed('has an array of a structured or unknown type')
    self.numpy = self.numpy.newbyteorder(state[1])


class Array:
  """Stands in for `numpy.ndarray`. An array without a state is empty, as numpy's.

  Attributes:
    dtype: the file's.
    count: number of elements.
  """

  __slots__ = ('_axes', '_data', '_order', '_shape', 'count', 'dtype')

  def __init__(self):
    self.fill(b'', np.dtype('i1'), (0,), 'C')

  def set_state(self, state: Any) -> None:
    """Fills the array; `state` is what `numpy.ndarray.__reduce__` gives."""
    if type(state) is not tuple or len(state) != 5 or state[0] != 1:
      raise Malformed('has an array of an unknown format')
    _, shape, dtype, is_fortran, data = state
    if type(dtype) is not DType or type(data) not in (bytes, str):
      raise Malformed('has an array without a type of numbers, or without data')
    self.fill(data, dtype.numpy, shape, 'F' if is_fortran else 'C')

  def fill(
    self,
    data: bytes | bytearray | str,
    dtype: np.dtype,
    shape: Any,
    order: str,
    axes: tuple[int, ...] | None = None,
  ) -> None:
    """Sets all; text, which Python 2's strings are read as, has a character for each byte.

    If there are `axes`, a permutation, the array of this shape and order is transposed to them.
    """
    self.count = element_count(shape)
    if self.count * dtype.itemsize != len(data):
      raise Malformed(
        f'has an array of {self.count} elements of {dtype.itemsize} bytes, but {len(data)} bytes'
      )
    self._data, self.dtype, self._shape, self._order = data, dtype, shape, order
    self._axes = axes

  def read(self) -> np.ndarray:
    """The array, of the file's type; it shares the pickle's memory and is not for writing.

    Raises:
      Malformed: if the data are text that is no bytes.
    """
    data = self._data
    if isinstance(data, str):
      try:
        data = data.encode('latin1')
      except UnicodeEncodeError:
        raise Malformed('has an array whose data are text, not bytes') from None
    array = np.ndarray(self._shape, self.dtype, data, order=self._order)
    return array if self._axes is None else array.transpose(self._axes)


class StorageKind(NamedTuple):
  """Stands in for a class such as `torch.FloatStorage`; bfloat16 is of `ml_dtypes`."""

  dtype: np.dtype


class Storage:
  """Elements that PyTorch's tensors are views of.

  Attributes:
    dtype: of the elements.
    count: number of elements.
    data: [size] bytes, little-endian; older files have them behind the tensors, so they are set
      last.
  """

  __slots__ = ('count', 'data', 'dtype')

  def __init__(self, dtype: np.dtype, count: int):
    self.dtype, self.count, self.data = dtype, count, memoryview(b'')

  @property
  def size(self) -> int:
    """In bytes."""
    return self.count * self.dtype.itemsize


class Tensor:
  """Stands in for `torch.Tensor`: a view of a storage.

  Attributes:
    dtype: the storage's.
    count: number of elements.
  """

  __slots__ = ('_offset', '_shape', '_storage', '_strides', 'count', 'dtype')

  def __init__(self, storage: Storage, offset: int, shape: tuple, strides: tuple):
    self.dtype, self.count = storage.dtype, element_count(shape)
    if len(strides) != len(shape) or not all(
      type(n) is int and 0 <= n <= MOST_ELEMENTS for n in (offset, *strides)
    ):
      raise Malformed('has a tensor whose offset or strides are no numbers of elements')
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    if self.count and last >= storage.count:
      raise Malformed(f'has a tensor up to element {last} of a storage of {storage.count} elements')
    self._storage, self._offset, self._shape, self._strides = storage, offset, shape, strides

  def read(self) -> np.ndarray:
    """The tensor, of the file's type; it shares the file's memory and is not for writing."""
    if not self.count:
      return np.zeros(self._shape, self.dtype)
    size = self.dtype.itemsize
    strides = [stride * size for stride in self._strides]
    # `np.ndarray`, unlike `as_strided`, checks that a view ends within its buffer.
    return np.ndarray(self._shape, self.dtype, self._storage.data, self._offset * size, strides)


class Marker(NamedTuple):
  """Stands in for what weights name but do not call, such as `torch.float32`."""

  name: str


class Function(NamedTuple):
  """Stands in for a function or class that weights call.

  Attributes:
    call: ours.
    kinds: the types that each argument may have.
    required: how many arguments must be given; None for all.
  """

  call: Callable
  kinds: tuple[tuple[type, ...], ...]
  required: int | None = None

  def __call__(self, arguments: tuple) -> Any:
    """Calls ours, if the file's arguments are as they should be.

    Raises:
      Malformed: if they are not.
    """
    required = len(self.kinds) if self.required is None else self.required
    if not required <= len(arguments) <= len(self.kinds) or not all(
      type(argument) in kinds for argument, kinds in zip(arguments, self.kinds, strict=False)
    ):
      raise Malformed('has a call with other arguments than weights have')
    return self.call(*arguments)


def _array(
  data: bytes | bytearray | str,
  dtype: DType,
  shape: tuple,
  order: str = 'C',
  axes: tuple | None = None,
) -> Array:
  # Numpy 2 writes an array that is neither C nor Fortran as one that is C, and its axes.
  if order == 'K' and axes is not None and all(type(axis) is int for axis in axes):
    is_known, order = sorted(axes) == list(range(len(shape))), 'C'
  else:
    is_known = order in ('C', 'F') and axes is None
  if not is_known:
    raise Malformed('has an array of an unknown order')
  array = Array()
  array.fill(data, dtype.numpy, shape, order, axes)
  return array


def _encode(text: str, encoding: str) -> str:
  """Bytes as Python 3 writes them in protocol 2; they stay text until an array is read."""
  if encoding != 'latin1':
    raise Malformed(f'has bytes in {shown(encoding)}, not in latin1')
  return text


def _ordered_dict(pairs: list | None = None) -> dict:
  """A dict; Python 2 writes its pairs as lists."""
  result = {}
  for pair in pairs or ():
    if type(pair) not in (list, tuple) or len(pair) != 2:
      raise Malformed('has an OrderedDict of what are no pairs')
    set_item(result, *pair)
  if pairs:
    # Many calls on one list would copy it as often.
    pairs.clear()
  return result


_FLAG = (bool, int)
_TEXT = (str, bytes)
_HOOKS = (dict, type(None))
_VIEW = ((Storage,), (int,), (tuple,), (tuple,))

GLOBALS = {
  'numpy.ndarray': Marker('numpy.ndarray'),
  'numpy.dtype': Function(DType, ((str,), _FLAG, _FLAG)),
  '_codecs.encode': Function(_encode, ((str,), (str,))),
  # Empty bytes in protocol 2.
  '__builtin__.bytes': Function(bytes, ()),
  'collections.OrderedDict': Function(_ordered_dict, ((list,),), required=0),
  # Milestones in the state of a `MultiStepLR`.
  'collections.Counter': Function(lambda counts: counts, ((dict,),)),
  'torch.Size': Function(lambda size: size, ((tuple,),)),
  'torch.device': Function(lambda kind, index=0: kind, ((str,), (int,)), required=1),
  'torch._utils._rebuild_tensor': Function(Tensor, _VIEW),
  'torch._utils._rebuild_tensor_v2': Function(
    lambda *arguments: Tensor(*arguments[:4]), (*_VIEW, (bool,), _HOOKS, _HOOKS), required=6
  ),
  'torch._utils._rebuild_parameter': Function(
    lambda tensor, *_: tensor, ((Tensor,), (bool,), _HOOKS)
  ),
  # The types themselves, such as `torch.float32`.
  **{f'torch.{np.dtype(dtype)}': Marker(f'torch.{np.dtype(dtype)}') for dtype in STORAGES.values()},
  **{f'torch.{name}Storage': StorageKind(np.dtype(dtype)) for name, dtype in STORAGES.items()},
}
# The names of numpy 1 and 2.
for _core in ('numpy.core', 'numpy._core'):
  GLOBALS |= {
    f'{_core}.multiarray._reconstruct': Function(lambda *_: Array(), ((Marker,), (tuple,), _TEXT)),
    f'{_core}.multiarray.scalar': Function(
      lambda dtype, data: _array(data, dtype, ()).read().item(), ((DType,), _TEXT)
    ),
    f'{_core}.numeric._frombuffer': Function(
      _array, ((bytes, bytearray, str), (DType,), (tuple,), (str,), (tuple,)), required=4
    ),
  }
