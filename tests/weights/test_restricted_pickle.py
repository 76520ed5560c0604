import copyreg
import io
import pickle
import tracemalloc
from collections import Counter, OrderedDict

import numpy as np
import pytest

from oanet_tf.errors import InputError
from oanet_tf.weights.restricted_pickle import load
from oanet_tf.weights.stand_ins import GLOBALS
from tests.weights.files import called, dict_of, named, pickled, whole

NOT_RUN = 'which no file of weights needs; nothing of it was run'
PROTOCOLS = [2, 3, 4, 5]
# What numpy's pickles make an array of, before its state is set.
EMPTY = pickled((0,)), pickled('b')


def read(content, **options):
  return load(io.BytesIO(content), 'w.pkl', **options)


def refusal(content):
  """What is said of a pickle, after its name."""
  with pytest.raises(InputError) as caught:
    read(content)
  message = str(caught.value)
  assert message.startswith('w.pkl: ') and '\n' not in message and len(message) < 250
  return message.removeprefix('w.pkl: ')


def stack_global(module, name):
  return pickled(module) + pickled(name) + b'\x93'


def touch(mark):
  return f'open({mark!r}, "w").close()'


# Instructions that make a file, if they are run; the key is the first name that they look up.
ATTACKS = {
  'os.system': lambda mark: called('os.system', pickled(f'touch {mark}')),
  'posix.system': lambda mark: b'(' + pickled(f'touch {mark}') + b'iposix\nsystem\n',
  'subprocess.call': lambda mark: b'(' + named('subprocess.call') + pickled(['touch', mark]) + b'o',
  'builtins.eval': lambda mark: called('builtins.eval', pickled(touch(mark))),
  'builtins.exec': lambda mark: stack_global('builtins', 'exec') + pickled((touch(mark),)) + b'R',
  'builtins.open': lambda mark: called('builtins.open', pickled(mark), pickled('w')),
  'builtins.getattr': lambda mark: (
    called('builtins.getattr', called('importlib.import_module', pickled('os')), pickled('system'))
    + pickled((f'touch {mark}',))
    + b'R'
  ),
  'numpy.savetxt': lambda mark: called('numpy.savetxt', pickled(mark), pickled([1.0])),
  'numpy.testing._private.utils.runstring': lambda mark: called(
    'numpy.testing._private.utils.runstring', pickled(touch(mark)), pickled({})
  ),
}


@pytest.mark.parametrize('name', ATTACKS)
def test_no_code_is_run(name, tmp_path):
  mark = tmp_path / 'mark'
  attack = ATTACKS[name](str(mark))
  alone, hidden = whole(attack), whole(dict_of({'w': pickled(np.ones(2)), 'z': attack}))
  for content in (alone, hidden):
    assert refusal(content) == f'wants to call {name}, {NOT_RUN}'
  assert not mark.exists()
  # It is an attack: Python's own reader falls for it.
  pickle.loads(alone)
  assert mark.exists()


@pytest.mark.parametrize(
  'module, name',
  [
    ('collections', 'OrderedDict.__init__'),
    ('torch._utils', '_rebuild_tensor_v2.__globals__'),
    ('torch.storage', '_load_from_bytes'),
    ('torch.serialization', 'load'),
    ('torch', 'load'),
    ('torch.nn.modules.linear', 'Linear'),
    ('numpy', 'load'),
    ('numpy', 'core.multiarray._reconstruct.__call__'),
    ('numpy.core.multiarray', 'fromfile'),
    ('numpy', 'matrix'),
    ('__main__', 'Net'),
    ('', ''),
  ],
)
def test_names_that_are_like_those_of_weights(module, name):
  assert refusal(whole(stack_global(module, name))) == f'wants to call {module}.{name}, {NOT_RUN}'


def test_a_name_of_many_lines_is_shown_on_one():
  message = refusal(whole(stack_global('a\nb', '\x1b[31m' + 'é' * 900)))
  assert message.startswith(r'wants to call a\nb.\x1b[31m\xe9') and message.endswith(NOT_RUN)


def test_extensions_are_refused():
  copyreg.add_extension('collections', 'OrderedDict', 240)
  try:
    content = pickle.dumps(OrderedDict, 2)
  finally:
    copyreg.remove_extension('collections', 'OrderedDict', 240)
  assert refusal(content) == f'uses the instruction EXT1 of pickles, {NOT_RUN}'


@pytest.mark.parametrize(
  'instructions, name',
  [
    (b'\x83\x01\x00', 'EXT2'),
    (b'\x84\x01\x00\x00\x00', 'EXT4'),
    (named('collections.OrderedDict') + b')\x81', 'NEWOBJ'),
    (named('collections.OrderedDict') + b')}\x92', 'NEWOBJ_EX'),
    (b'(' + named('collections.OrderedDict') + b'o', 'OBJ'),
    (b'(icollections\nOrderedDict\n', 'INST'),
    (b'Pkey\n', 'PERSID'),
    (b'\x97', 'NEXT_BUFFER'),
    (b'\x8f', 'EMPTY_SET'),
  ],
)
def test_instructions_that_weights_do_not_need(instructions, name):
  assert refusal(whole(instructions)) == f'uses the instruction {name} of pickles, {NOT_RUN}'


@pytest.mark.parametrize(
  'dotted',
  ['numpy.dtype', 'numpy.ndarray', 'torch.FloatStorage', 'torch.float32', '_codecs.encode'],
)
@pytest.mark.parametrize('state', [{'call': 1}, (None, {'call': 1}), (None, {'__defaults__': ()})])
def test_nothing_of_ours_takes_a_state(dotted, state):
  before = GLOBALS[dotted]
  message = refusal(whole(named(dotted) + pickled(state) + b'b'))
  assert message == f'changes what is no Array, {NOT_RUN}'
  assert GLOBALS[dotted] is before and not hasattr(before, '__dict__')


def test_stand_ins_have_no_attributes_that_a_state_could_set():
  array = called('numpy.core.multiarray._reconstruct', named('numpy.ndarray'), *EMPTY)
  for state in ({'read': 1}, (None, {'read': 1}), (None, {'_data': b''}), None, 3):
    assert refusal(whole(array + pickled(state) + b'b')) == 'has an array of an unknown format'
  dtype = called('numpy.dtype', pickled('f4'), pickled(0), pickled(1))
  assert 'structured' in refusal(whole(dtype + pickled({'numpy': 1}) + b'b'))


@pytest.mark.parametrize(
  'function', ['text', 3, None, {}, (), [print.__name__]], ids=lambda value: repr(value)
)
def test_calls_of_what_is_no_function(function):
  assert refusal(whole(pickled(function) + b')R')) == f'calls what is no function, {NOT_RUN}'


@pytest.mark.parametrize('arguments', [[], {}, None, 'ab'])
def test_arguments_that_are_no_tuple(arguments):
  content = whole(named('collections.OrderedDict') + pickled(arguments) + b'R')
  assert refusal(content) == f'calls what is no function, {NOT_RUN}'


@pytest.mark.parametrize('dotted', ['numpy.ndarray', 'torch.float32', 'torch.FloatStorage'])
def test_calls_of_what_weights_only_name(dotted):
  assert refusal(whole(called(dotted))) == f'calls what is no function, {NOT_RUN}'


@pytest.mark.parametrize(
  'instructions',
  [
    called('numpy.dtype', pickled(['f4']), pickled(0), pickled(1)),
    called('numpy.dtype'),
    called('_codecs.encode', pickled(3), pickled('latin1')),
    called('collections.OrderedDict', pickled('ab')),
    called('collections.OrderedDict', pickled([]), pickled([])),
    called('__builtin__.bytes', pickled(10**12)),
    called('torch.Size', pickled([2, 3])),
    called('torch._utils._rebuild_tensor_v2', *map(pickled, (1, 2, (), (), False, {}))),
    called('torch._utils._rebuild_parameter', *map(pickled, ('w', False, {}))),
    called('numpy.core.multiarray._reconstruct', named('numpy.dtype'), *EMPTY),
  ],
)
def test_arguments_of_the_wrong_type_or_number(instructions):
  assert refusal(whole(instructions)) == 'has a call with other arguments than weights have'


@pytest.mark.parametrize(
  'content',
  [
    b'',
    b'\x80\x02',
    b'\x80\x02.',
    b'\x80\x02}',
    b'\x80\x02K',
    b'\x80\x02X\xff\xff\xff\xff.',
    b'\x80\x04\x95\x10',
    b'\x80\x04\x8e' + (2**40).to_bytes(8, 'little') + b'abc.',
    b'\x80\x04\x8e' + b'\xff' * 8 + b'abc.',
    b'\x80\x05\x96' + (2**40).to_bytes(8, 'little') + b'abc.',
    b'\x80\x02\x8b' + (2**30).to_bytes(4, 'little') + b'abc.',
    b'\x80\x02X\x02\x00\x00\x00\xff\xff.',
    b'\x80\x02I' + b'9' * 5000 + b'\n.',
    b'\x80\x02\xff.',
    b'\x80\x02h\x07.',
    b'\x80\x02q\x00.',
    b'\x80\x02\x85.',
    b'\x80\x02u.',
    b'\x80\x02t.',
    b'\x80\x02R.',
    b'\x80\x02}(K\x01u.',
    b'\x80\x04\x93.',
    b'\x80\x02cos\n',
    b'\x80\x02cos\xff\nx\n.',
  ],
)
def test_damaged(content):
  tracemalloc.start()
  message = refusal(content)
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert message.startswith('is damaged or cut off')
  assert peak < 1e6


@pytest.mark.parametrize(
  'instructions, fact',
  [
    (b'K\x01K\x02a', 'changes what is no list'),
    (b'K\x01(K\x02e', 'changes what is no list'),
    (b']K\x01K\x02s', 'changes what is no dict'),
    (b'](K\x01K\x02u', 'changes what is no dict'),
    (b'K\x01}b', 'changes what is no Array'),
    (b'K\x01K\x02\x93', 'wants to call what has no name'),
    (b'})K\x01s', 'has a dict with a key that is neither text nor a number'),
    (b'}]K\x01s', 'has a dict with a key that is neither text nor a number'),
    (b')Q', 'is a pickle that refers to data elsewhere'),
    (b'\x80\x09', 'is a pickle of protocol 9'),
    (b'\x80\x01', 'is a pickle of protocol 1'),
    (called('collections.OrderedDict', pickled([1])), 'has an OrderedDict of what are no pairs'),
    (called('_codecs.encode', pickled('a'), pickled('zip')), 'has bytes in zip, not in latin1'),
  ],
)
def test_values_of_the_wrong_type(instructions, fact):
  assert refusal(whole(instructions)).startswith(fact)


def test_nested_keys_do_not_end_the_process():
  nested = b'})' + b'\x85' * 300_000 + b'Ns'
  assert 'key' in refusal(whole(nested))


@pytest.mark.parametrize('nest', [b'\x85', b'q\x00]h\x00a'], ids=['tuples', 'lists'])
def test_deep_nesting_is_read_and_freed(nest):
  depth, content = 0, read(whole(b']' + nest * 200_000))
  while content:
    content, depth = content[0], depth + 1
  assert depth == 200_000


def test_a_list_in_itself():
  loop = read(whole(b']q\x00h\x00a'))
  assert loop[0] is loop


def test_a_large_number_in_the_memo_takes_no_memory():
  tracemalloc.start()
  assert read(b'\x80\x02K\x05r\xff\xff\xff\xff.') == 5
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert peak < 1e6


def test_many_calls_on_one_list_do_not_copy_it():
  pairs = [[k, k] for k in range(1000)]
  again = named('collections.OrderedDict') + b'h\xff\x85R'
  content = whole(b'](' + pickled(pairs) + b'q\xff' + again * 100 + b'e')
  assert [len(one) for one in read(content)[1:]] == [1000] + [0] * 99


@pytest.mark.parametrize('protocol', PROTOCOLS)
def test_values_come_out_as_themselves(protocol):
  content = {
    'numbers': [0, -1, 255, 2**16, 2**31, -(2**70), 1.5, float('inf')],
    'texts': ['', 'é', 'x' * 300, 'x' * 70_000],
    'constants': (None, True, False),
    'tuples': [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)],
    'dicts': {3: {}, 'one': {'a': 1}, None: {}, 1.5: OrderedDict(a=1), True: Counter('aab')},
    'again': ['x' * 300] * 2,
    'many': list(range(3000)),
  }
  assert read(pickle.dumps(content, protocol)) == content


@pytest.mark.parametrize('protocol', [3, 4, 5])
def test_bytes(protocol):
  content = [b'', b'\x00\xff', b'x' * 300, b'x' * 70_000]
  assert read(pickle.dumps(content, protocol)) == content


def test_pickles_follow_each_other():
  file = io.BytesIO(pickle.dumps(1, 4) + pickle.dumps('two', 2) + b'rest')
  assert [load(file, 'w'), load(file, 'w'), file.read()] == [1, 'two', b'rest']


def test_persistent_ids():
  content = whole(b']' + pickled(('storage', 3)) + b'Qa')
  assert read(content, persistent=lambda key: {'found': key}) == [{'found': ('storage', 3)}]
