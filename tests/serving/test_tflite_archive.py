"""The files in a TFLite file, and files that are damaged or made to harm."""

import hashlib
import io
import json
import zipfile

import pytest

from oanet_tf.errors import InputError
from oanet_tf.serving.tflite_archive import MAX_BYTES, checksum, read_description, with_files

MODEL = bytes(range(256)) * 8
GOOD = {'sha256': hashlib.sha256(MODEL).hexdigest(), 'names': ['é']}


def described(description):
  return with_files(MODEL, {'labels.txt': b'void\n', 'model.json': as_json(description)})


def as_json(value):
  return json.dumps(value).encode()


def compressed(name, content):
  file = io.BytesIO(MODEL)
  with zipfile.ZipFile(file, 'a', zipfile.ZIP_DEFLATED) as archive:
    archive.writestr(name, content)
  return file.getvalue()


def encrypted():
  """Its flag says so, in the file and in the list of files."""
  content = bytearray(with_files(MODEL, {'model.json': as_json(GOOD)}))
  for mark, place in ((b'PK\3\4', 6), (b'PK\1\2', 8)):
    content[content.index(mark) + place] |= 1
  return bytes(content)


@pytest.fixture
def read(tmp_path):
  def read(content):
    path = tmp_path / 'model.tflite'
    path.write_bytes(content)
    return read_description(path)

  return read


def test_files_are_read_again(read):
  assert checksum(MODEL) == GOOD['sha256']
  content = described(GOOD)
  assert content.startswith(MODEL) and read(content) == GOOD
  with zipfile.ZipFile(io.BytesIO(content)) as archive:
    assert archive.testzip() is None
    assert archive.namelist() == ['labels.txt', 'model.json']
    # As readers on phones take it.
    assert all(entry.compress_type == zipfile.ZIP_STORED for entry in archive.infolist())


def test_a_large_model_is_read_in_parts(read):
  model = MODEL * 4096
  description = {'sha256': checksum(model)}
  assert len(model) > MAX_BYTES
  assert read(with_files(model, {'model.json': as_json(description)})) == description


def test_every_flipped_bit_of_the_model_is_told(read):
  content = described(GOOD)
  for place in range(0, len(MODEL), 97):
    for bit in (1, 128):
      flipped = bytearray(content)
      flipped[place] ^= bit
      with pytest.raises(InputError, match=r'model\.tflite: is damaged: .*; copy or export'):
        read(bytes(flipped))


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    (b'', 'is cut off, damaged or not of oanet export'),
    (MODEL, 'is cut off, damaged or not of oanet export'),
    (described(GOOD)[:-1], 'is cut off'),
    (described(GOOD)[100:], 'is damaged: its checksum is another'),
    (b'more' + described(GOOD), 'is damaged: its checksum is another'),
    (described(GOOD).replace(b'names', b'games'), 'Bad CRC-32'),
    (with_files(MODEL, {'labels.txt': b''}), r"no item named 'model\.json'"),
    (described({'names': []}), 'has no checksum, .* export the network again'),
    (described({'sha256': None}), 'is damaged'),
    (described([GOOD]), r'its model\.json is no JSON object'),
    (with_files(MODEL, {'model.json': b'{"\xff": 1}'}), 'decode'),
    (with_files(MODEL, {'model.json': b'{"a": '}), 'Expecting value'),
    (with_files(MODEL, {'model.json': b'[' * 10**6}), 'recursion'),
    (with_files(MODEL, {'model.json': b'9' * 10**5}), 'digits'),
    (compressed('model.json', bytes(MAX_BYTES + 1)), f'is larger than {MAX_BYTES} bytes'),
    (encrypted(), 'encrypted'),
  ],
)
def test_what_is_damaged_is_told_in_one_line(read, content, message):
  with pytest.raises(InputError, match=message) as error:
    read(content)
  assert 'model.tflite: ' in str(error.value) and '\n' not in str(error.value)


def test_a_hundred_million_zeros_are_not_unpacked(read):
  """100 kB of a ZIP file, which says itself how large the entry is."""
  file = io.BytesIO(MODEL)
  with (
    zipfile.ZipFile(file, 'a', zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
    archive.open('model.json', 'w') as entry,
  ):
    for _ in range(100):
      entry.write(bytes(10**6))
  with pytest.raises(InputError, match='is larger than'):
    read(file.getvalue())
  # Says that it is small.
  content = file.getvalue().replace((10**8).to_bytes(4, 'little'), (10**3).to_bytes(4, 'little'))
  with pytest.raises(InputError, match='is cut off, damaged or not of oanet export'):
    read(content)


def test_files_that_could_not_be_read_again_are_not_written():
  with pytest.raises(InputError, match='shorter names'):
    with_files(MODEL, {'model.json': bytes(MAX_BYTES)})


def test_a_folder_is_no_file(tmp_path):
  with pytest.raises(InputError, match=f'{tmp_path}: cannot be read'):
    read_description(tmp_path)
