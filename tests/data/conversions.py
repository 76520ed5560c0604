"""Running the converter, and processes that are watched or killed."""

import contextlib
import pathlib
import subprocess
import sys
import time

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / 'scripts' / 'convert_coco_tfrecord.py'


def names(folder):
  return sorted(path.name for path in folder.iterdir())


def contents(folder):
  return {path.name: path.read_bytes() for path in folder.iterdir()}


def flags(paths, output, split='val', **more):
  pairs = {**paths, 'output_dir': output, 'split': split, **more}
  return [part for key, value in pairs.items() for part in (f'--{key}', str(value))]


def many_images(coco, count):
  """Adds images 1000, 1001, …, copies of image 7."""
  for image_id in range(1000, 1000 + count):
    coco.panoptic['images'].append({**coco.panoptic['images'][0], 'id': image_id})
    coco.panoptic['annotations'].append({**coco.panoptic['annotations'][1], 'image_id': image_id})


def run(arguments, **options):
  return subprocess.run(
    [sys.executable, SCRIPT, *arguments], capture_output=True, text=True, timeout=120, **options
  )


@contextlib.contextmanager
def started(arguments):
  process = subprocess.Popen([sys.executable, *arguments], stderr=subprocess.PIPE, text=True)
  try:
    yield process
  finally:
    process.kill()
    process.wait()


def children(process):
  listed = pathlib.Path(f'/proc/{process.pid}/task/{process.pid}/children').read_text().split()
  return [int(pid) for pid in listed if b'spawn_main' in command(pid)]


def command(pid):
  try:
    return pathlib.Path(f'/proc/{pid}/cmdline').read_bytes()
  except FileNotFoundError:
    return b''


def wait_until(condition, seconds=60):
  end = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < end
    time.sleep(0.02)
