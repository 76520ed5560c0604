"""Damaged files give arrays or one line, whatever the damage."""

import numpy as np

from oanet_tf.errors import InputError
from oanet_tf.weights.tensors import read_tensors
from tests.weights.files import write_pickle
from tests.weights.test_tensors import DATA, OTHER_TYPES, TENSORS


def good_files(tmp_path):
  write_pickle(tmp_path / 'numpy.pkl', {**TENSORS, **OTHER_TYPES})
  write_pickle(tmp_path / 'numpy_2.pkl', {**TENSORS, **OTHER_TYPES}, protocol=2)
  return [*sorted(DATA.glob('*.pth')), tmp_path / 'numpy.pkl', tmp_path / 'numpy_2.pkl']


def read_or_refuse(path):
  """Whether a file was read; anything but arrays or one line is a failure."""
  try:
    tensors = read_tensors(str(path))
  except InputError as error:
    assert str(error).startswith(f'{path}: ') and '\n' not in str(error)
    return False
  for name, array in tensors.items():
    assert type(name) is str and type(array) is np.ndarray
    assert array.dtype.kind in 'biu' or np.isfinite(array).all()
  return True


def test_cut_off_at_each_length(tmp_path):
  path = tmp_path / 'cut'
  for name in ('trainer.pth', 'legacy.pth'):
    content = (DATA / name).read_bytes()
    for length in range(len(content)):
      path.write_bytes(content[:length])
      assert not read_or_refuse(path), length


def test_bytes_changed_at_random(tmp_path):
  rng, path, read = np.random.default_rng(17), tmp_path / 'changed', 0
  for file in good_files(tmp_path):
    content = np.frombuffer(file.read_bytes(), np.uint8)
    for _ in range(300):
      changed = content.copy()
      places = rng.integers(0, len(content), rng.integers(1, 4))
      changed[places] = rng.integers(0, 256, len(places))
      path.write_bytes(changed.tobytes())
      read += read_or_refuse(path)
  assert 0 < read < 2400


def test_parts_moved_at_random(tmp_path):
  rng, path = np.random.default_rng(18), tmp_path / 'changed'
  for file in good_files(tmp_path):
    content = file.read_bytes()
    for _ in range(200):
      a, b, c, d = sorted(rng.integers(0, len(content), 4))
      path.write_bytes(content[:a] + content[c:d] + content[b:])
      read_or_refuse(path)
