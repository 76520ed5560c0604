"""What a user does with the page of `oanet demo` in a browser, and what comes of it."""

import io
import json
import re
import time

import numpy as np
from PIL import Image

import oanet_tf

# LiteRT.js and the browser's search for a GPU speak of themselves on the console.
OF_LITERT = re.compile(
  r'(INFO|WARNING): |No available adapters|Failed to create default WebGPU device'
)
READY = 'document.getElementById("status").textContent === "Ready."'
PROBLEM = 'document.getElementById("problem").textContent'
DONE = '/segments\\.$/.test(document.getElementById("status").textContent)'


def complaints(browser):
  """What the console says, without what LiteRT.js says of itself."""
  return [one for one in map(text_of, browser.problems) if not OF_LITERT.search(one)]


def text_of(problem):
  problem = json.loads(problem)
  said = [str(one.get('value', one.get('description'))) for one in problem.get('args', ())]
  return ' '.join(said) or problem.get('entry', {}).get('text') or json.dumps(problem)


def encoded(image, form='PNG'):
  file = io.BytesIO()
  image.save(file, form)
  return file.getvalue()


def give(browser, content, name='photo.png', how='paste'):
  """Pastes or drops a file, and waits until it is segmented or refused."""
  browser.evaluate(
    f"""{{
      const transfer = new DataTransfer();
      transfer.items.add(new File([new Uint8Array({list(content)})], {json.dumps(name)}));
      document.dispatchEvent({how!r} === 'paste'
        ? new ClipboardEvent('paste', {{clipboardData: transfer}})
        : new DragEvent('drop', {{dataTransfer: transfer, cancelable: true}}));
      document.getElementById('status').textContent = '';
    }}"""
  )
  browser.wait_until(f'{DONE} || {PROBLEM}')
  return browser.evaluate(PROBLEM)


def set_threshold(browser, value):
  browser.evaluate(
    f"""document.getElementById('threshold').value = {value};
    document.getElementById('status').textContent = '';
    document.getElementById('threshold').dispatchEvent(new Event('input'))"""
  )
  browser.wait_until(DONE)


def choose(browser, order):
  if browser.evaluate(f'document.querySelector("[value={order}]").checked'):
    return
  browser.evaluate(
    f"""document.getElementById('status').textContent = '';
    document.querySelector('[value={order}]').click()"""
  )
  browser.wait_until(DONE)


def saved(browser, folder, name='photo'):
  """The map and the description that the page saves in COCO's format."""
  browser.save_downloads_to(folder)
  for button in ('save_png', 'save_json'):
    browser.evaluate(f"document.getElementById('{button}').click()")
  paths = folder / f'{name}_segments.png', folder / f'{name}.json'
  end = time.monotonic() + 20
  while not all(path.exists() for path in paths):
    assert time.monotonic() < end, sorted(folder.iterdir())
    time.sleep(0.05)
  ids = np.asarray(Image.open(paths[0]).convert('RGB')).astype(int) @ [1, 256, 256**2]
  return ids, json.loads(paths[1].read_text())


def same_pixels(index, info, result):
  """The fraction of pixels with the same category, and the same segment as far as ids can tell."""
  category = np.zeros(1 + max([0, *(one['id'] for one in info)]), int)
  for one in info:
    category[one['id']] = one['category_id']
  expected = np.zeros(1 + len(result.segments_info), int)
  for one in result.segments_info:
    expected[one['id']] = one['category_id']
  # Ids of the same segment may differ: each of the page's stands for the one that it covers most.
  shared = np.zeros([len(category), len(expected)], int)
  np.add.at(shared, (index.ravel(), result.segmentation.ravel()), 1)
  same_id = shared.argmax(axis=1)[index] == result.segmentation
  return np.mean(same_id & (category[index] == expected[result.segmentation]))


def model(threshold=None, by_ranking=True):
  """The same file in Python, at other settings than its own."""
  opened = oanet_tf.load()
  if threshold is not None:
    steps = steps_of(opened)
    steps._settings['score_threshold'] = np.float32([threshold])
    steps._settings['by_ranking'] = np.float32([by_ranking])
  return opened


def steps_of(opened):
  """The function `run` within the predictor's."""
  segment = opened._predictor.segment
  (segment_one,) = (cell.cell_contents for cell in segment.__closure__)
  names = segment_one.__code__.co_freevars
  return segment_one.__closure__[names.index('run')].cell_contents
