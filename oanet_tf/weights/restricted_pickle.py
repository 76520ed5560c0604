"""Reads pickles of weights; no code of a file can run.

A pickle is a program for a machine with a stack, and some of its instructions import and call what
the file names. The machine here cannot import: a name is looked up in `stand_ins.GLOBALS`, and any
other is refused, as are all instructions that weights do not need.

`pickle.Unpickler` with a `find_class` of one's own would run no code either. But 2 MB of nested
tuples as the key of a dict end its process, six bytes (LONG_BINPUT) make it ask for gigabytes, and
BUILD sets attributes of whatever `find_class` returns, functions too.
"""

import contextlib
import pickletools
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from oanet_tf.errors import InputError
from oanet_tf.weights.stand_ins import GLOBALS, Array, DType, Function, Malformed, set_item, shown

NOT_RUN = 'which no file of weights needs; nothing of it was run'
DAMAGED = 'is damaged or cut off'


def load(file: BinaryIO, path: str, persistent: Callable[[Any], Any] | None = None) -> Any:
  """Reads one pickle and leaves the file's position behind it.

  Numbers, strings, bytes, lists, tuples and dicts come out as themselves (bytes of Python 2 or of
  protocol 2 as latin1 text), an OrderedDict as a dict, arrays as `Array`, PyTorch's tensors as
  `Tensor`. Memory grows with the length of the pickle only.

  Args:
    file: the pickle, as Python 2 or 3 writes it in protocol 2 to 5; an `mmap.mmap` will do.
    path: the file's name, for messages.
    persistent: makes the object that a persistent id stands for; without it, ids are refused.

  Raises:
    InputError: if the pickle names or does what weights do not need, or is damaged.
  """
  with named_errors(path):
    return _Machine(persistent).run(file)


@contextlib.contextmanager
def named_errors(path: str) -> Iterator[None]:
  """Turns `Malformed` into an `InputError` that names the file."""
  try:
    yield
  except Malformed as error:
    raise InputError(f'{path}: {error}') from None


class _Machine:
  """The machine; it has a method for each instruction or for several that are alike."""

  def __init__(self, persistent: Callable[[Any], Any] | None):
    self._persistent = persistent
    self._stack, self._below_marks, self._memo = [], [], {}

  def run(self, file: BinaryIO) -> Any:
    for name, argument in _instructions(file):
      if name == 'STOP':
        return self._pop()
      if name not in _INSTRUCTIONS:
        raise Malformed(f'uses the instruction {name} of pickles, {NOT_RUN}')
      _INSTRUCTIONS[name](self, argument)
    raise Malformed(DAMAGED)

  def push(self, value: Any) -> None:
    self._stack.append(value)

  def _pop(self) -> Any:
    if not self._stack:
      raise Malformed(DAMAGED)
    return self._stack.pop()

  def _pop_mark(self) -> list:
    """What was pushed since the last mark."""
    if not self._below_marks:
      raise Malformed(DAMAGED)
    items, self._stack = self._stack, self._below_marks.pop()
    return items

  def _top(self, *kinds: type) -> Any:
    if not self._stack or type(self._stack[-1]) not in kinds:
      raise Malformed(f'changes what is no {kinds[0].__name__}, {NOT_RUN}')
    return self._stack[-1]

  def check_protocol(self, number: int) -> None:
    if not 2 <= number <= 5:
      raise Malformed(f'is a pickle of protocol {number}; only 2 to 5 are known')

  def mark(self) -> None:
    self._below_marks.append(self._stack)
    self._stack = []

  def make_tuple(self, count: int) -> None:
    items = [self._pop() for _ in range(count)]
    self.push(tuple(reversed(items)))

  def make_tuple_of_marked(self) -> None:
    items = self._pop_mark()
    self.push(tuple(items))

  def extend(self, items: list) -> None:
    self._top(list).extend(items)

  def set_items(self, items: list) -> None:
    target = self._top(dict)
    if len(items) % 2:
      raise Malformed(DAMAGED)
    for key, value in zip(items[::2], items[1::2], strict=True):
      set_item(target, key, value)

  def set_one_item(self) -> None:
    value, key = self._pop(), self._pop()
    self.set_items([key, value])

  def put(self, index: int) -> None:
    value = self._pop()
    self._memo[index] = value
    self.push(value)

  def get(self, index: int) -> None:
    if index not in self._memo:
      raise Malformed(DAMAGED)
    self.push(self._memo[index])

  def find(self, module: str, name: str) -> None:
    dotted = f'{module}.{name}'
    if dotted not in GLOBALS:
      raise Malformed(f'wants to call {shown(dotted)}, {NOT_RUN}')
    self.push(GLOBALS[dotted])

  def find_on_stack(self) -> None:
    name, module = self._pop(), self._pop()
    if type(name) is not str or type(module) is not str:
      raise Malformed(f'wants to call what has no name, {NOT_RUN}')
    self.find(module, name)

  def make_instance(self, names: str) -> None:
    self.find(*names.split(' ', 1))
    raise Malformed(f'uses the instruction INST of pickles, {NOT_RUN}')

  def call(self) -> None:
    arguments, function = self._pop(), self._pop()
    if type(function) is not Function or type(arguments) is not tuple:
      raise Malformed(f'calls what is no function, {NOT_RUN}')
    self.push(function(arguments))

  def set_state(self) -> None:
    state = self._pop()
    target = self._top(Array, DType, dict)
    # What PyTorch sets of an OrderedDict, `_metadata`, has no weights.
    if type(target) is not dict:
      target.set_state(state)

  def find_persistent(self) -> None:
    if self._persistent is None:
      raise Malformed('is a pickle that refers to data elsewhere')
    self.push(self._persistent(self._pop()))


def _instructions(file: BinaryIO) -> Iterator[tuple[str, Any]]:
  """Names and arguments; their lengths are checked against what the file still has."""
  try:
    for opcode, argument, _ in pickletools.genops(file):
      yield opcode.name, argument
  except ValueError as error:
    raise Malformed(f'{DAMAGED} ({shown(" ".join(str(error).split()))})') from None


_INSTRUCTIONS = {
  'PROTO': _Machine.check_protocol,
  # Frames say only how much to read at once.
  'FRAME': lambda machine, size: None,
  'NONE': lambda machine, _: machine.push(None),
  'NEWTRUE': lambda machine, _: machine.push(True),
  'NEWFALSE': lambda machine, _: machine.push(False),
  'EMPTY_LIST': lambda machine, _: machine.push([]),
  'EMPTY_DICT': lambda machine, _: machine.push({}),
  'EMPTY_TUPLE': lambda machine, _: machine.push(()),
  'MARK': lambda machine, _: machine.mark(),
  'TUPLE': lambda machine, _: machine.make_tuple_of_marked(),
  'TUPLE1': lambda machine, _: machine.make_tuple(1),
  'TUPLE2': lambda machine, _: machine.make_tuple(2),
  'TUPLE3': lambda machine, _: machine.make_tuple(3),
  'APPEND': lambda machine, _: machine.extend([machine._pop()]),
  'APPENDS': lambda machine, _: machine.extend(machine._pop_mark()),
  'SETITEM': lambda machine, _: machine.set_one_item(),
  'SETITEMS': lambda machine, _: machine.set_items(machine._pop_mark()),
  'MEMOIZE': lambda machine, _: machine.put(len(machine._memo)),
  'BINPUT': _Machine.put,
  'LONG_BINPUT': _Machine.put,
  'BINGET': _Machine.get,
  'LONG_BINGET': _Machine.get,
  'GLOBAL': lambda machine, names: machine.find(*names.split(' ', 1)),
  'STACK_GLOBAL': lambda machine, _: machine.find_on_stack(),
  'INST': _Machine.make_instance,
  'REDUCE': lambda machine, _: machine.call(),
  'BUILD': lambda machine, _: machine.set_state(),
  'BINPERSID': lambda machine, _: machine.find_persistent(),
}
# Their argument is the value.
_INSTRUCTIONS |= dict.fromkeys(
  [
    'BININT',
    'BININT1',
    'BININT2',
    'INT',
    'LONG1',
    'LONG4',
    'BINFLOAT',
    'SHORT_BINSTRING',
    'BINSTRING',
    'SHORT_BINUNICODE',
    'BINUNICODE',
    'BINUNICODE8',
    'SHORT_BINBYTES',
    'BINBYTES',
    'BINBYTES8',
    'BYTEARRAY8',
  ],
  _Machine.push,
)
