"""Arrays in pickles, as numpy writes them and as it would not."""

import io
import pickle
import pickletools
import tracemalloc

import numpy as np
import pytest

from oanet_tf.weights.stand_ins import Array
from tests.weights.files import called, named, pickled, whole
from tests.weights.test_restricted_pickle import EMPTY, PROTOCOLS, read, refusal

ARRAYS = {
  'float32': np.arange(6, dtype=np.float32).reshape(2, 3),
  'fortran': np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
  'transposed': np.arange(24, dtype=np.int64).reshape(2, 3, 4).transpose(2, 0, 1),
  'strided': np.arange(10, dtype=np.uint8)[1::3],
  'big_endian': np.arange(3, dtype='>f8'),
  'float16': np.array([0.5, np.inf], np.float16),
  'bools': np.array([True, False]),
  'zero_dimensions': np.array(7, np.int32),
  'empty': np.zeros([0, 3], np.float32),
  'all_bytes': np.arange(256, dtype=np.uint8),
}


@pytest.mark.parametrize('protocol', PROTOCOLS)
@pytest.mark.parametrize('name', ARRAYS)
def test_arrays_of_numpy(name, protocol):
  array = read(pickle.dumps(ARRAYS[name], protocol)).read()
  assert array.dtype == ARRAYS[name].dtype
  np.testing.assert_array_equal(array, ARRAYS[name], strict=True)


@pytest.mark.parametrize('protocol', PROTOCOLS)
def test_names_of_numpy_2(protocol):
  """Numpy 1 has `numpy.core`."""
  content = pickle.dumps(ARRAYS['fortran'], 2).replace(b'numpy.core', b'numpy._core')
  assert b'numpy._core' in content
  np.testing.assert_array_equal(read(content).read(), ARRAYS['fortran'])


def test_a_pickle_of_python_2():
  """As cPickle writes {'w': array([1.5, -2.0], float32), 'n': 3L} in protocol 2."""
  dtype = b'cnumpy\ndtype\nq\x05U\x02f4K\x00K\x01\x87Rq\x06(K\x03U\x01<NNNJ\xff\xff\xff\xff'
  dtype += b'J\xff\xff\xff\xffK\x00tb'
  data = b'U\x08' + np.array([1.5, -2.0], '<f4').tobytes()
  array = b'cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85U\x01b\x87R'
  array += b'(K\x01K\x02\x85' + dtype + b'\x89' + data + b'tb'
  content = b'\x80\x02}q\x01(U\x01w' + array + b'U\x01nq\x08\x8a\x01\x03u.'
  pickletools.dis(content, out=io.StringIO())  # It is well-formed.
  found = read(content)
  assert list(found) == ['w', 'n'] and found['n'] == 3
  np.testing.assert_array_equal(found['w'].read(), np.array([1.5, -2.0], np.float32), strict=True)


@pytest.mark.parametrize('protocol', PROTOCOLS)
def test_scalars_of_numpy_are_numbers(protocol):
  content = [np.float32(1.5), np.int64(-3), np.bool_(True)]
  assert read(pickle.dumps(content, protocol)) == [1.5, -3, True]


@pytest.mark.parametrize(
  'array, fact',
  [
    (np.array([None, {}]), 'of type O8, which is none of numbers'),
    (np.array(['ab']), 'of type U2, which is none of numbers'),
    (np.array([b'ab']), 'of type S2, which is none of numbers'),
    (np.array([1j]), 'of type c16, which is none of numbers'),
    (np.array([0], 'M8[s]'), 'of type M8, which is none of numbers'),
    (np.array([(1, 2)], [('a', 'i4'), ('b', 'i4')]), 'of type V8, which is none of numbers'),
  ],
)
def test_arrays_of_other_types(array, fact):
  assert refusal(pickle.dumps(array)).endswith(fact)


def array_of(shape, data=bytes(8), dtype='f4', version=1, fortran=False):
  """Instructions for an array that numpy would not write."""
  maker = called('numpy.core.multiarray._reconstruct', named('numpy.ndarray'), *EMPTY)
  kind = called('numpy.dtype', pickled(dtype), pickled(False), pickled(True))
  parts = [pickled(version), pickled(shape), kind, pickled(fortran), pickled(data)]
  return maker + b'(' + b''.join(parts) + b'tb'


def test_the_array_that_the_next_tests_spoil():
  assert read(whole(array_of((2,)))).read().tolist() == [0, 0]


@pytest.mark.parametrize(
  'options, fact',
  [
    ({'shape': (10**12,)}, '1000000000000 elements of 4 bytes, but 8 bytes'),
    ({'shape': (10**13,)}, 'no integer from 0 to'),
    ({'shape': (2**40, 2**40)}, 'impossible shape'),
    ({'shape': (0, 2**40, 2**40), 'data': b''}, 'impossible shape'),
    ({'shape': (-2,)}, 'no integer from 0 to'),
    ({'shape': (-1, -2)}, 'no integer from 0 to'),
    ({'shape': (2.0,)}, 'no integer from 0 to'),
    ({'shape': (True, 2)}, 'no integer from 0 to'),
    ({'shape': [2]}, 'no tuple of at most 32 sides'),
    ({'shape': (1,) * 33, 'data': bytes(4)}, 'no tuple of at most 32 sides'),
    ({'shape': (1,)}, '1 elements of 4 bytes, but 8 bytes'),
    ({'shape': (3,)}, '3 elements of 4 bytes, but 8 bytes'),
    ({'shape': (2,), 'data': [1, 2]}, 'without a type of numbers, or without data'),
    ({'shape': (2,), 'version': 2}, 'unknown format'),
    ({'shape': (2,), 'dtype': 'f4,f4'}, 'of type f4,f4, which is none of numbers'),
  ],
)
def test_arrays_that_numpy_would_not_write(options, fact):
  tracemalloc.start()
  message = refusal(whole(array_of(**options)))
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert fact in message and peak < 1e6


@pytest.mark.parametrize(
  'state',
  [
    (3, '<', ('f4', (2,)), None, None, -1, -1, 0),
    (3, '<', None, ('a',), {'a': 1}, 4, 1, 0),
    (3, '?', None, None, None, -1, -1, 0),
    (3, ['<'], None, None, None, -1, -1, 0),
    (4, '<', None, None, None, -1, -1, 0),
    (3, '<'),
  ],
)
def test_types_that_numpy_would_not_write(state):
  dtype = called('numpy.dtype', pickled('f4'), pickled(False), pickled(True))
  message = refusal(whole(dtype + pickled(state) + b'b'))
  assert message == 'has an array of a structured or unknown type'


def of_buffer(data, shape, *order):
  """A pickle as numpy writes it in protocol 5."""
  dtype = called('numpy.dtype', pickled('f4'), pickled(False), pickled(True))
  parts = pickled(data), dtype, pickled(shape), *map(pickled, order)
  return whole(called('numpy.core.numeric._frombuffer', *parts))


@pytest.mark.parametrize('axes', [(0, 1, 2), (0, 2, 1), (2, 0, 1)])
def test_axes_as_numpy_2_writes_them(axes):
  array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
  content = of_buffer(array.tobytes().decode('latin1'), array.shape, 'K', axes)
  np.testing.assert_array_equal(read(content).read(), array.transpose(axes))


@pytest.mark.parametrize(
  'order',
  [
    ('A',),
    ('',),
    ('c',),
    ('K',),
    ('K', ()),
    ('K', (0,)),
    ('K', (0, 0)),
    ('K', (0, 2)),
    ('K', (-1, 0)),
    ('K', (1, 0, 2)),
    ('K', (True, False)),
    ('K', ('0', 1)),
    ('C', (0, 1)),
    ('F', (1, 0)),
  ],
)
def test_an_order_that_numpy_would_not_write(order):
  content = of_buffer('\x00' * 8, (2, 1), *order)
  assert refusal(content) == 'has an array of an unknown order'


def test_text_that_is_no_bytes():
  array = read(whole(array_of((2,), 'abcdefg€')))
  assert isinstance(array, Array)
  with pytest.raises(ValueError, match='text, not bytes'):
    array.read()
