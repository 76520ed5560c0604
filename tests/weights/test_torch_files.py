"""Files that are almost PyTorch's: views beyond a storage, storages that are not there, code."""

import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

from oanet_tf.weights.tensors import read_tensors
from tests.weights.files import (
  LEGACY_START,
  called,
  dict_of,
  pickled,
  storage,
  tensor,
  view,
  whole,
  write_archive,
  write_legacy_parts,
  write_torch_zip,
)
from tests.weights.test_tensors import ONES, assert_same, refusal


@pytest.mark.parametrize('wrap', ['pickle', 'zip', 'legacy', 'legacy system', 'legacy keys'])
def test_code_is_not_run_wherever_it_stands(wrap, tmp_path):
  path, mark = tmp_path / 'w', tmp_path / 'mark'
  attack = called('os.system', pickled(f'touch {mark}'))
  if wrap == 'pickle':
    path.write_bytes(whole(attack))
  elif wrap == 'zip':
    write_archive(path, {'data.pkl': whole(attack)})
  else:
    parts = [*LEGACY_START, {}, []]
    parts[['legacy system', 'legacy', 'legacy keys'].index(wrap) + 2] = attack
    write_legacy_parts(path, parts, [])
  assert refusal(path).startswith('wants to call os.system, which no file of weights needs')
  assert not mark.exists()


def one_tensor(instructions):
  return whole(dict_of({'w': instructions}))


def six(offset, shape, stride):
  """Six elements, 0 to 5, in both kinds of file."""
  return (
    {'data.pkl': one_tensor(view(storage('0', 'f4', 6), offset, shape, stride))},
    one_tensor(view(storage('0', 'f4', 6, (None,)), offset, shape, stride))[2:-1],
    np.arange(6, dtype=np.float32),
  )


def write_six(tmp_path, offset, shape, stride):
  records, instructions, elements = six(offset, shape, stride)
  write_archive(tmp_path / 'zip', {**records, 'data/0': elements.tobytes()})
  write_legacy_parts(tmp_path / 'legacy', [*LEGACY_START, instructions, ['0']], [elements])
  return tmp_path / 'zip', tmp_path / 'legacy'


@pytest.mark.parametrize(
  'offset, shape, stride, expected',
  [
    (0, (6,), (1,), [0, 1, 2, 3, 4, 5]),
    (1, (2, 2), (3, 1), [[1, 2], [4, 5]]),
    (0, (3, 2), (1, 3), [[0, 3], [1, 4], [2, 5]]),
    (5, (), (), 5),
    (4, (1, 2), (2**40, 1), [[4, 5]]),
    (2, (3,), (0,), [2, 2, 2]),
    (1, (2, 3), (1, 1), [[1, 2, 3], [2, 3, 4]]),
    (6, (0,), (1,), []),
    (9, (0,), (1,), []),
    (0, (2, 0), (1, 1), [[], []]),
  ],
)
def test_views(offset, shape, stride, expected, tmp_path):
  for path in write_six(tmp_path, offset, shape, stride):
    assert_same(read_tensors(str(path)), {'w': np.array(expected, np.float32)})


@pytest.mark.parametrize(
  'offset, shape, stride, fact',
  [
    (1, (6,), (1,), 'up to element 6 of a storage of 6 elements'),
    (6, (), (), 'up to element 6 of a storage of 6 elements'),
    (0, (2, 3), (4, 1), 'up to element 6 of a storage of 6 elements'),
    (0, (2,), (2**40,), 'up to element 1099511627776 of'),
    (-1, (2,), (1,), 'whose offset or strides are no numbers'),
    (5, (2,), (-1,), 'whose offset or strides are no numbers'),
    (0, (2, 3), (1,), 'whose offset or strides are no numbers'),
    (0, (2,), (1.0,), 'whose offset or strides are no numbers'),
    (0, (-6,), (1,), 'no integer from 0'),
    (0, (10**12,), (0,), 'has tensors of 4000000000000 bytes in'),
    (0, (10**12,), (1,), 'up to element 999999999999 of'),
    (0.0, (6,), (1,), 'other arguments'),
    (0, [6], [1], 'other arguments'),
  ],
)
def test_views_beyond_the_storage(offset, shape, stride, fact, tmp_path):
  for path in write_six(tmp_path, offset, shape, stride):
    tracemalloc.start()
    assert fact in refusal(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1e6


def test_many_views_of_one_storage_do_not_fill_the_memory(tmp_path):
  elements = np.zeros(100_000, np.float16)
  one = view(storage('0', 'f2', elements.size), 0, elements.shape, (1,))
  records = {'data/0': elements.tobytes()}
  many = {str(k): one for k in range(2)}
  write_archive(tmp_path / 'w', {'data.pkl': whole(dict_of(many)), **records})
  assert len(read_tensors(str(tmp_path / 'w'))) == 2
  many = {str(k): one for k in range(3)}
  write_archive(tmp_path / 'w', {'data.pkl': whole(dict_of(many)), **records})
  assert 'has tensors of 1200000 bytes in' in refusal(tmp_path / 'w')


PERSISTENT_IDS = [
  ((), 'refers to data in an unknown way'),
  ('0', 'refers to data in an unknown way'),
  (('storage', 'FloatStorage', '0', 'cpu', 3), 'refers to data in an unknown way'),
  (('module', None, 'a.py', 'source'), 'refers to data in an unknown way'),
]


@pytest.mark.parametrize('persistent_id, fact', PERSISTENT_IDS)
def test_persistent_ids_of_a_wrong_form(persistent_id, fact, tmp_path):
  instructions = pickled(persistent_id) + b'Q'
  write_archive(tmp_path / 'zip', {'data.pkl': one_tensor(instructions)})
  write_legacy_parts(tmp_path / 'legacy', [*LEGACY_START, instructions, []], [])
  for name in ('zip', 'legacy'):
    assert refusal(tmp_path / name) == fact


@pytest.mark.parametrize(
  'key, size, more',
  [
    (0, 3, ()),
    ('0', -1, ()),
    ('0', 3.0, ()),
    ('0', 3, (None,)),
    ('0', True, ()),
    pytest.param('0', 2**20_000, (), id='more digits than Python writes'),
  ],
)
def test_storages_of_a_wrong_form(key, size, more, tmp_path):
  content = one_tensor(view(storage(key, 'f4', size, more), 0, (), ()))
  write_archive(tmp_path / 'w', {'data.pkl': content, 'data/0': bytes(12)})
  assert refusal(tmp_path / 'w') == 'refers to data in an unknown way'


@pytest.mark.parametrize(
  'records, fact',
  [
    ({'data/0': bytes(12), 'byteorder': b'big'}, 'was written on a big-endian machine'),
    ({}, 'is damaged or cut off (storage 0 should have 12 bytes)'),
    ({'data/0': bytes(11)}, 'is damaged or cut off (storage 0 should have 12 bytes)'),
    ({'data/0': bytes(13)}, 'is damaged or cut off (storage 0 should have 12 bytes)'),
    ({'data/1': bytes(12)}, 'is damaged or cut off (storage 0 should have 12 bytes)'),
    ({'data/0': bytes(12), 'code/a.py': b'', 'constants.pkl': b''}, 'is a TorchScript archive'),
  ],
)
def test_archives_of_other_content(records, fact, tmp_path):
  content = one_tensor(tensor('0', ONES['w']))
  write_archive(tmp_path / 'w', {'data.pkl': content, **records})
  assert refusal(tmp_path / 'w').startswith(fact)


def test_other_archives(tmp_path):
  path = tmp_path / 'w.zip'
  write_archive(path, {'notes.txt': b'x'})
  assert refusal(path).startswith('is a zip archive without weights (no single data.pkl)')
  content = one_tensor(tensor('0', ONES['w']))
  write_archive(
    path, {'data.pkl': content, 'data/0': ONES['w'].tobytes()}, compression=zipfile.ZIP_DEFLATED
  )
  assert refusal(path) == 'is a compressed or encrypted archive, which PyTorch does not write'
  # PyTorch does compress TorchScript's code.
  write_archive(
    path, {'data.pkl': content, 'code/a.py': b'', 'constants.pkl': b''}, zipfile.ZIP_DEFLATED
  )
  assert refusal(path).startswith('is a TorchScript archive')


def test_an_archive_of_two_networks(tmp_path):
  with zipfile.ZipFile(tmp_path / 'w', 'w') as archive:
    for name in ('a', 'b'):
      archive.writestr(f'{name}/data.pkl', one_tensor(tensor('0', ONES['w'])))
      archive.writestr(f'{name}/data/0', ONES['w'].tobytes())
  assert refusal(tmp_path / 'w').startswith('is a zip archive without weights (no single data.pkl)')


@pytest.mark.parametrize(
  'start, offset, byte, fact',
  [
    (b'PK\x01\x02', 8, 1, 'is a compressed or encrypted archive'),  # The flag of encryption.
    (b'PK\x01\x02', 42, 1, 'is damaged or cut off'),  # Where the first file starts.
    (b'PK\x03\x04', 27, 255, 'is damaged or cut off'),  # The length of its name.
    (b'PK\x05\x06', 16, None, 'is damaged or cut off'),  # Where the list of files starts.
  ],
)
def test_archives_whose_lists_are_wrong(start, offset, byte, fact, tmp_path):
  write_torch_zip(tmp_path / 'w', ONES)
  content = bytearray((tmp_path / 'w').read_bytes())
  place = content.index(start) + offset
  if byte is None:
    # All files would start before the archive, as far as its end is behind their place.
    (first,) = struct.unpack('<I', content[place : place + 4])
    content[place : place + 4] = struct.pack('<I', first + len(content))
  else:
    content[place] = byte
  (tmp_path / 'w').write_bytes(content)
  assert refusal(tmp_path / 'w').startswith(fact)


def test_an_archive_whose_list_names_what_is_no_file(tmp_path):
  write_torch_zip(tmp_path / 'w', ONES)
  content = (tmp_path / 'w').read_bytes()
  (tmp_path / 'w').write_bytes(content[:4] + content[4:].replace(b'PK\x03\x04', b'PK\x03\x05'))
  assert refusal(tmp_path / 'w') == 'is damaged or cut off'


LEGACY = dict_of({'w': tensor('k', ONES['w'], (None,))})


@pytest.mark.parametrize(
  'parts, arrays, fact',
  [
    ([*LEGACY_START[:1], 1000], [], "is of another version of PyTorch's format than 1001"),
    ([*LEGACY_START[:2], []], [], 'was written on a big-endian machine'),
    ([*LEGACY_START[:2], {'little_endian': False}], [], 'was written on a big-endian machine'),
    ([*LEGACY_START, LEGACY, 3], [], 'is damaged or cut off'),
    ([*LEGACY_START, LEGACY, [3]], [], 'is damaged or cut off'),
    ([*LEGACY_START, LEGACY, []], [], 'is damaged or cut off (it has not the storages that'),
    ([*LEGACY_START, LEGACY, ['k', 'l']], [], 'is damaged or cut off (it has not the storages'),
    ([*LEGACY_START, LEGACY, ['k', 'k']], [], 'is damaged or cut off (it has not the storages'),
    ([*LEGACY_START, LEGACY, ['k']], [], 'is damaged or cut off (its last 0 bytes are not'),
    ([*LEGACY_START, LEGACY, ['k']], [np.ones(2, 'f4')], '(its last 16 bytes are not'),
    ([*LEGACY_START, LEGACY, ['k']], [np.ones(4, 'f4')], '(its last 24 bytes are not'),
    ([*LEGACY_START], [], 'is damaged or cut off'),
  ],
)
def test_older_files_of_other_content(parts, arrays, fact, tmp_path):
  write_legacy_parts(tmp_path / 'w', parts, arrays)
  assert fact in refusal(tmp_path / 'w')


def test_older_storages_are_whole_and_of_one_size(tmp_path):
  part_of_another = storage('k', 'f4', 3, (('l', 0, 3),))
  parts = [*LEGACY_START, dict_of({'w': view(part_of_another, 0, (3,), (1,))}), ['k']]
  write_legacy_parts(tmp_path / 'w', parts, [ONES['w']])
  assert refusal(tmp_path / 'w') == 'refers to data in an unknown way'
  sizes = {str(n): tensor('k', np.ones(n, 'f4'), (None,)) for n in (3, 4)}
  write_legacy_parts(tmp_path / 'w', [*LEGACY_START, dict_of(sizes), ['k']], [ONES['w']])
  assert refusal(tmp_path / 'w') == 'is damaged or cut off (storage k is said to have two sizes)'
