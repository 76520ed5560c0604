"""TFLite files that are damaged or say what is not so: one line, and no end of the process."""

import concurrent.futures
import json
import subprocess
import sys
import zipfile

import numpy as np
import pytest

import oanet_tf
from oanet_tf.data.pictures import read_picture
from oanet_tf.prediction import lite_predictor
from oanet_tf.prediction.lite_predictor import of_tflite
from oanet_tf.prediction.model import SHIPPED_MODEL, SHIPPED_PICTURES
from oanet_tf.serving.tflite_archive import checksum, with_files

PICTURE = sorted(SHIPPED_PICTURES.iterdir())[0]


@pytest.fixture(scope='module')
def shipped():
  """The model's bytes, and the files behind it."""
  with zipfile.ZipFile(SHIPPED_MODEL) as archive:
    entries = archive.infolist()
    files = {entry.filename: archive.read(entry) for entry in entries}
  return SHIPPED_MODEL.read_bytes()[: min(entry.header_offset for entry in entries)], files


# Damages files by a seed, opens them, and uses what opens. Prints what became of each.
FUZZ = """
import pathlib, random, sys, zipfile
from oanet_tf import InputError, load
from oanet_tf.serving.tflite_archive import with_files

shipped, picture, folder, first, last = sys.argv[1:]
good = pathlib.Path(shipped).read_bytes()
with zipfile.ZipFile(shipped) as archive:
  start = min(entry.header_offset for entry in archive.infolist())
  files = {name: archive.read(name) for name in archive.namelist()}
path = pathlib.Path(folder) / 'model.tflite'
expected = [result.segments_info for result in load(shipped)(picture)]

def flipped(random, low, high):
  content = bytearray(good)
  for _ in range(random.choice([1, 1, 10, 1000])):
    content[random.randrange(low, high)] ^= 1 << random.randrange(8)
  return bytes(content)

def cut(random):
  place, length = random.randrange(len(good)), random.randrange(1, 10_000)
  return random.choice([good[:place], good[:place] + good[place + length:],
                        good[:place] + bytes(length) + good[place + length:]])

def swapped(random):
  names = list(files)
  random.shuffle(names)
  entries = dict(zip(files, (files[name] for name in names)))
  entries.pop(random.choice([*entries, None]), None)
  other = random.choice([good[:start], good[start // 2:start], files['merge.tflite']])
  return with_files(other, entries)

for seed in range(int(first), int(last)):
  chance = random.Random(seed)
  content = [lambda r: flipped(r, 0, start), lambda r: flipped(r, start, len(good)),
             lambda r: flipped(r, 0, 64), cut, swapped][seed % 5](chance)
  path.write_bytes(content)
  try:
    model = load(path)
    found = [result.segments_info for result in model(picture)]
    print('used', found == expected, flush=True)
  except InputError as error:
    print('refused', str(error).startswith(f'{path}: ') and len(str(error).splitlines()) == 1,
          flush=True)
"""


def outcomes(folder, first, last):
  command = [sys.executable, '-c', FUZZ, SHIPPED_MODEL, PICTURE, folder, str(first), str(last)]
  done = subprocess.run(command, capture_output=True, text=True, check=False)
  lines = done.stdout.splitlines()
  assert done.returncode == 0 and len(lines) == last - first, (first + len(lines), done.stderr)
  return lines


@pytest.mark.parametrize(
  'number', [50, pytest.param(1000, marks=pytest.mark.slow)], ids=['some', 'many']
)
def test_damaged_files_are_refused_or_give_what_they_gave(tmp_path, number):
  lines = [line for first in range(0, number, 50) for line in outcomes(tmp_path, first, first + 50)]
  counts = {line: lines.count(line) for line in set(lines)}
  print(counts)
  assert {*counts} <= {'refused True', 'used True'} and counts['refused True'] > 5


def edited(shipped, change):
  """The shipped file with another description."""
  model, files = shipped
  description = json.loads(files['model.json'])
  change(description)
  return with_files(model, {**files, 'model.json': json.dumps(description).encode()})


def rename_output(description):
  description['outputs'][0]['name'] = 'another'


def other_size(description):
  description['input']['shape'][1] = 64


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (rename_output, r'its model\.json is not that of its network'),
    (other_size, r'its model\.json is not that of its network'),
    (lambda d: d.pop('input'), r'its model\.json is not that of its network'),
    (lambda d: d.update(input=[]), r'its model\.json is not that of its network'),
    (lambda d: d.update(outputs=3), r'its model\.json is not that of its network'),
    (lambda d: d.update(outputs=[{'name': [], 'shape': 1, 'dtype': 2}]), 'is not that of its'),
    (lambda d: d.pop('categories'), '`categories` is not a list'),
    (lambda d: d.update(categories=[{'id': 'x'}]), 'category 0'),
  ],
)
def test_a_description_that_does_not_fit_is_told(shipped, tmp_path, change, message):
  path = tmp_path / 'model.tflite'
  path.write_bytes(edited(shipped, change))
  with pytest.raises(oanet_tf.InputError, match=message) as error:
    oanet_tf.load(path)
  assert str(error.value).startswith(f'{path}: ') and '\n' not in str(error.value)


def other_ids(description):
  for category in description['categories']:
    category['id'] += 1000


def things_are_stuff(description):
  for category in description['categories']:
    category['isthing'] = 1 - category['isthing']


@pytest.mark.parametrize('change', [other_ids, things_are_stuff])
def test_categories_that_are_not_the_networks_are_told(shipped, tmp_path, change):
  path = tmp_path / 'model.tflite'
  path.write_bytes(edited(shipped, change))
  with pytest.raises(oanet_tf.InputError, match='the network has another category') as error:
    list(oanet_tf.load(path)(PICTURE))
  assert str(error.value).startswith(f'{path}: ')


def test_a_model_that_litert_does_not_take_is_told(shipped, tmp_path):
  """Its checksum is right, as somebody else made it."""
  foreign = b'\0\0\0\0TFL3' + bytes(1000)
  description = {**json.loads(shipped[1]['model.json']), 'sha256': checksum(foreign)}
  path = tmp_path / 'model.tflite'
  path.write_bytes(with_files(foreign, {'model.json': json.dumps(description).encode()}))
  with pytest.raises(oanet_tf.InputError, match='LiteRT does not take it'):
    oanet_tf.load(path)


def test_a_fusion_of_another_file_is_told(shipped, tmp_path):
  model, files = shipped
  path = tmp_path / 'model.tflite'
  path.write_bytes(with_files(model, {**files, 'merge.tflite': model[: 2**16]}))
  with pytest.raises(oanet_tf.InputError, match=r'its merge\.tflite is that of another file'):
    oanet_tf.load(path)
  path.write_bytes(with_files(model, {'model.json': files['model.json']}))
  with pytest.raises(oanet_tf.InputError, match=r"There is no item named 'merge\.tflite'"):
    oanet_tf.load(path)


def test_a_lack_of_memory_is_not_told_as_a_fault_of_the_file(monkeypatch):
  def fail(*_):
    raise ValueError("Mmap of '3' at offset '0' failed with error '12'.")

  monkeypatch.setattr(lite_predictor, 'runner', fail)
  with pytest.raises(MemoryError, match=r"^Mmap of '3'"):
    of_tflite(SHIPPED_MODEL)


def test_threads_load_and_use_models_at_once():
  """A `Model`, its predictor, and files that are opened while others run."""
  picture = read_picture(PICTURE)
  model, predictor = oanet_tf.load(), of_tflite(SHIPPED_MODEL)
  [expected] = model(picture)

  def one(number):
    if number % 3 == 0:
      [found] = oanet_tf.load()(picture)
      return found.segmentation
    if number % 3 == 1:
      [found] = model(picture)
      return found.segmentation
    return predictor.segment([picture])[0].index

  with concurrent.futures.ThreadPoolExecutor(6) as pool:
    for found in pool.map(one, range(60)):
      np.testing.assert_array_equal(found, expected.segmentation)
