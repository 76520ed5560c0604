import pathlib
import pickle
import struct

import ml_dtypes
import numpy as np
import pytest

from oanet_tf.errors import InputError
from oanet_tf.weights.tensors import read_tensors
from tests.weights.files import (
  write_pickle,
  write_torch_legacy,
  write_torch_zip,
)

DATA = pathlib.Path(__file__).parent / 'data'
# By `data/make_torch_files.py`.
TENSORS = {
  'float32': np.array([[1.5, -2.0], [0.25, 3.0]], np.float32),
  'transposed': np.array([[0, 3], [1, 4], [2, 5]], np.float32),
  'first': np.array([0, 1, 2, 3], np.float32),
  'every_second': np.array([1, 3, 5], np.float32),
  'parameter': np.array([7], np.float32),
  'count': np.array(12345678901, np.int64),
}
OTHER_TYPES = {
  'float16': np.array([0.5, -65504.0], np.float32),
  'bfloat16': np.array([1.0, -3.140625, 2.0**100], np.float32),
  'float64': np.array([0.1], np.float32),
  'empty': np.zeros([0, 3], np.float32),
  'bool': np.array([True, False]),
  'uint8': np.array(200, np.uint8),
}
# A weight of 0.5, less 0.25 times its gradient, which is the input.
TRAINED = {'weight': np.array([[0.25, 0.0]], np.float32)}
WRITERS = [write_pickle, write_torch_zip, write_torch_legacy]
ONES = {'w': np.ones(3, np.float32)}


def assert_same(found, expected):
  assert list(found) == list(expected)
  for name, array in expected.items():
    np.testing.assert_array_equal(found[name], array, err_msg=name, strict=True)


def refusal(path):
  """What is said of a file, after its path."""
  with pytest.raises(InputError) as caught:
    read_tensors(str(path))
  message = str(caught.value)
  assert message.startswith(f'{path}: ') and '\n' not in message
  return message.removeprefix(f'{path}: ')


def refusal_of(tmp_path, content):
  path = tmp_path / 'w.pth'
  path.write_bytes(content)
  return refusal(path)


@pytest.mark.parametrize(
  'name, expected',
  [
    ('tensors.pth', TENSORS),
    ('other_types.pth', OTHER_TYPES),
    ('legacy.pth', {**TENSORS, **OTHER_TYPES}),
    ('legacy_protocol_5.pth', TENSORS),
    ('trainer.pth', TRAINED),
    ('trainer_legacy.pth', TRAINED),
  ],
)
def test_files_of_pytorch(name, expected):
  assert_same(read_tensors(str(DATA / name)), expected)


def test_views_share_the_file_and_are_not_for_writing():
  found = read_tensors(str(DATA / 'tensors.pth'))
  assert np.shares_memory(found['first'], found['every_second'])
  assert not np.shares_memory(found['first'], found['transposed'])
  with pytest.raises(ValueError, match='read-only'):
    found['first'][0] = 1


@pytest.mark.parametrize('write', WRITERS)
def test_all_types_come_back(write, tmp_path):
  arrays = {
    'conv.weight': np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    'half': np.array([0.5, -2.0], np.float16),
    'double': np.array(0.1),
    'count': np.array(7, np.int64),
    'int32': np.array([-7], np.int32),
    'mask': np.array([True, False]),
    'bytes': np.arange(256, dtype=np.uint8),
    'empty': np.zeros([0, 2], np.float32),
    'transposed': np.arange(6, dtype=np.float32).reshape(2, 3).T,
  }
  write(tmp_path / 'w', arrays)
  widened = {
    name: array.astype(np.float32) if array.dtype.kind == 'f' else array
    for name, array in arrays.items()
  }
  assert_same(read_tensors(str(tmp_path / 'w')), widened)


@pytest.mark.parametrize('write', [write_torch_zip, write_torch_legacy])
def test_every_bfloat16_is_widened_as_it_is(write, tmp_path):
  finite = np.arange(2**16, dtype=np.uint16)
  finite = finite[(finite & 0x7F80) != 0x7F80]
  write(tmp_path / 'w', {'w': finite.view(ml_dtypes.bfloat16)})
  bits = read_tensors(str(tmp_path / 'w'))['w'].view(np.uint32)
  np.testing.assert_array_equal(bits, finite.astype(np.uint32) << 16)


@pytest.mark.parametrize('protocol', [2, 3, 4, 5])
def test_protocols_of_detectron2(protocol, tmp_path):
  path = tmp_path / 'w.pkl'
  big_endian = np.array([1, 2], '>i4')
  write_pickle(path, {'w': TENSORS['transposed'], 'n': big_endian}, protocol=protocol)
  assert_same(
    read_tensors(str(path)), {'w': TENSORS['transposed'], 'n': np.array([1, 2], np.int32)}
  )


@pytest.mark.parametrize(
  'content',
  [
    ONES,
    {'model': ONES, '__author__': 'someone', 'matching_heuristics': True},
    {'state_dict': ONES, 'epoch': 3},
    {'model_state_dict': ONES, 'loss': 0.5},
    {**ONES, 'note': 'text', 'epoch': 3, 'done': True, 'nothing': None},
    {**ONES, 'model': 'panoptic_fpn'},
    {'model': ONES, 'optimizer': {'state': {0: {'momentum_buffer': np.zeros(9)}}}},
  ],
)
def test_where_tensors_are_found(content, tmp_path):
  path = tmp_path / 'w.pkl'
  path.write_bytes(pickle.dumps(content))
  assert_same(read_tensors(str(path)), ONES)


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize(
  'content, fact',
  [
    ([ONES], 'has no dict of tensors at its top'),
    (np.ones(3), 'has no dict of tensors at its top'),
    (3, 'has no dict of tensors at its top'),
    ({}, "has no tensors by name, neither at its top nor in 'model', 'state_dict'"),
    ({'model': {}}, 'has no tensors by name'),
    ({'model': {'w': [1.0]}, 'w': np.ones(3)}, 'has no tensors by name'),
    ({'blobs': ONES}, 'has no tensors by name'),
    ({3: np.ones(3)}, 'has tensors whose names are no text'),
    ({'a': np.array([1.0, np.nan])}, 'a has values that are not finite in float32'),
    ({'a': np.array([1e39])}, 'a has values that are not finite in float32'),
    ({'a\nb': np.array([np.inf], np.float32)}, r'a\nb has values that are not finite'),
    ({'a': np.array([None])}, 'has an array of type O8'),
  ],
)
def test_content_of_other_kinds(content, fact, tmp_path):
  assert fact in refusal_of(tmp_path, pickle.dumps(content))


@pytest.mark.parametrize('kind', [np.float16, ml_dtypes.bfloat16, np.float32])
def test_values_of_pytorch_that_are_not_finite(kind, tmp_path):
  write_torch_zip(tmp_path / 'w', {**ONES, 'b': np.array([0, np.inf], kind)})
  assert refusal(tmp_path / 'w') == 'b has values that are not finite in float32'


@pytest.mark.parametrize(
  'content, fact',
  [
    (b'', 'is empty'),
    (b'\x89PNG\r\n\x1a\n' + bytes(99), 'is a PNG image'),
    (b'version https://git-lfs.github.com/spec/v1\noid sha256:0\n', 'is a pointer of git-lfs'),
    (b'<!DOCTYPE html><html>', 'is an HTML or XML page'),
    (b'\n  <?xml version="1.0"?>', 'is an HTML or XML page'),
    (struct.pack('<Q', 2) + b'{}', 'is a safetensors file'),
    (b'function{\n}', 'is neither a zip archive nor a pickle'),
    (b'a text\n', 'is neither a zip archive nor a pickle'),
    (b'\x80', 'is neither a zip archive nor a pickle'),
    (b'\x80\x01}.', 'is neither a zip archive nor a pickle'),
    (b'\x80\x06}.', 'is neither a zip archive nor a pickle'),
    (b"cos\nsystem\n(S'ls'\ntR.", 'is neither a zip archive nor a pickle'),
    (b'\x89HDF\r\n\x1a\n' + bytes(99), 'is neither a zip archive nor a pickle'),
  ],
)
def test_files_of_other_kinds(content, fact, tmp_path):
  message = refusal_of(tmp_path, content)
  assert message.startswith(fact)
  assert message.endswith('; expected are weights of PyTorch (.pth) or Detectron2 (.pkl)')


def test_no_file(tmp_path):
  assert refusal(tmp_path / 'none.pth') == 'cannot be read (No such file or directory)'
  assert refusal(tmp_path) == 'cannot be read (Is a directory)'
