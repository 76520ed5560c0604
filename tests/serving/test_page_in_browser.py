"""The page of `oanet demo` in a real browser, with the network that comes with the package."""

import io
import re
import struct
import threading
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from oanet_tf import demo
from oanet_tf.prediction.model import SHIPPED_MODEL, SHIPPED_PICTURES
from oanet_tf.serving import page, page_server
from oanet_tf.serving.litert_js import CDN, VERSION
from tests.reporting.browser import NAMES, Browser, find_chromium
from tests.serving import litert_js
from tests.serving.demo_page import (
  PROBLEM,
  READY,
  choose,
  complaints,
  encoded,
  give,
  model,
  same_pixels,
  saved,
  set_threshold,
)

pytestmark = pytest.mark.skipif(
  find_chromium() is None, reason=f'no browser on the path ({", ".join(NAMES)})'
)

PICTURES = sorted(SHIPPED_PICTURES.iterdir())


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """The page, its model, and LiteRT.js."""
  folder = tmp_path_factory.mktemp('page')
  demo.make_page(folder, None, litert_js.archives())
  return folder


@pytest.fixture(scope='module')
def serve():
  """Serves folders; -> the URL of one."""
  running = []

  def start(folder):
    server = page_server.server(folder)
    running.append(server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f'http://{page_server.HOST}:{server.server_port}/'

  yield start
  for server in running:
    server.shutdown()
    server.server_close()


@pytest.fixture(scope='module')
def url(folder, serve):
  return serve(folder)


@pytest.fixture(scope='module')
def shared_browser(tmp_path_factory):
  fake_camera = ('--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream')
  try:
    browser = Browser(tmp_path_factory.mktemp('profile'), *fake_camera)
  except (BrokenPipeError, EOFError):
    pytest.skip(f'{find_chromium()} does not start')
  yield browser
  browser.close()


@pytest.fixture
def browser(shared_browser, url):
  """The page, ready. It may not complain on the console, nor ask anything of another server."""
  shared_browser.requests.clear()
  shared_browser.open(url)
  shared_browser.problems.clear()
  shared_browser.wait_until(READY)
  yield shared_browser
  assert complaints(shared_browser) == []
  assert [
    one for one in shared_browser.requests if not one.startswith((url, 'blob:', 'data:'))
  ] == []


def slow(*values):
  return pytest.param(*values, marks=pytest.mark.slow)


SMALL = Image.open(PICTURES[0]).convert('RGB')
LARGE = Image.open(PICTURES[1]).convert('RGB').resize((700, 500), Image.Resampling.BICUBIC)
TALL = SMALL.crop((20, 0, 90, 128)).resize((53, 301), Image.Resampling.BICUBIC)


@pytest.mark.parametrize(
  ('image', 'form'),
  [slow(SMALL, 'PNG'), slow(LARGE, 'PNG'), (TALL, 'PNG'), (LARGE, 'JPEG')],
)
def test_the_map_is_that_of_litert_in_python(browser, tmp_path, image, form):
  content = encoded(image, form)
  assert give(browser, content, f'photo.{form.lower()}') == ''
  (result,) = model()(Image.open(io.BytesIO(content)))
  index, description = saved(browser, tmp_path)
  (annotation,) = description['annotations']
  info = annotation['segments_info']
  assert same_pixels(index, info, result) >= 0.999
  assert len(result.segments_info) > 3
  ours = {one['category_id']: one['score'] for one in result.segments_info if not one['isthing']}
  theirs = {one['category_id']: one['score'] for one in info if 'ranking_score' not in one}
  assert theirs == pytest.approx(ours, abs=0.01)


@pytest.mark.parametrize(
  ('threshold', 'order'),
  [(0.1, 'heuristic'), slow(0.1, 'srm'), slow(0.9, 'heuristic'), slow(0.9, 'srm')],
)
def test_merging_once_more_is_as_in_python(browser, tmp_path, threshold, order):
  give(browser, encoded(SMALL))
  choose(browser, order)
  set_threshold(browser, threshold)
  (result,) = model(threshold, order == 'srm')(SMALL)
  index, description = saved(browser, tmp_path)
  assert same_pixels(index, description['annotations'][0]['segments_info'], result) >= 0.999


def test_what_is_saved_is_cocos_format(browser, tmp_path):
  give(browser, encoded(LARGE), 'a photo.of.mine.png', how='drop')
  index, description = saved(browser, tmp_path, 'a photo.of.mine')
  (image,), (annotation,) = description['images'], description['annotations']
  assert (image['width'], image['height']) == LARGE.size == index.shape[::-1]
  assert annotation['file_name'] == 'a photo.of.mine_segments.png'
  assert annotation['image_id'] == image['id']
  assert {one['id'] for one in annotation['segments_info']} == {*np.unique(index)} - {0}
  for one in annotation['segments_info']:
    rows, columns = np.nonzero(index == one['id'])
    left, top, width, height = one['bbox']
    assert one['area'] == len(rows)
    assert (left, top) == (columns.min(), rows.min())
    assert (left + width, top + height) == (columns.max() + 1, rows.max() + 1)


def test_the_overlay_is_saved(browser, tmp_path):
  give(browser, encoded(SMALL))
  browser.save_downloads_to(tmp_path)
  browser.evaluate('document.getElementById("save_picture").click()')
  path = tmp_path / 'photo_overlay.png'
  end = time.monotonic() + 20
  while not path.exists():
    assert time.monotonic() < end
    time.sleep(0.05)
  assert Image.open(path).size == (960, 960)


def png_header(width, height):
  """A PNG that says its size and has no pixels."""
  chunk = b'IHDR' + struct.pack('>IIBBBBB', width, height, 8, 0, 0, 0, 0)
  header = struct.pack('>I', 13) + chunk + struct.pack('>I', zlib.crc32(chunk))
  data = b'IDAT' + zlib.compress(bytes(1000))
  return (
    b'\x89PNG\r\n\x1a\n' + header + struct.pack('>I', len(data) - 4) + data
    + struct.pack('>I', zlib.crc32(data)) + b'\0\0\0\0IEND\xaeB`\x82'
  )  # fmt: skip


@pytest.mark.parametrize(
  ('content', 'said'),
  [
    (b'', 'bad.png is damaged, or no picture'),
    (b'text', 'bad.png is damaged, or no picture'),
    (png_header(20_000, 20_000), r'bad.png has 20000 × 20000 pixels'),
  ],
)
def test_a_bad_picture_is_told_in_a_line_and_the_next_one_is_segmented(browser, content, said):
  problem = give(browser, content, 'bad.png')
  assert re.match(said, problem) and '\n' not in problem
  assert give(browser, encoded(SMALL)) == ''


def test_something_else_that_is_pasted(browser):
  browser.evaluate(
    "document.dispatchEvent(new ClipboardEvent('paste', {clipboardData: new DataTransfer()}))"
  )
  browser.wait_until(PROBLEM)
  assert browser.evaluate(PROBLEM) == 'That was no picture'


@pytest.mark.parametrize('size', [(1, 1), (3, 2000)])
def test_the_smallest_and_the_narrowest_picture(browser, tmp_path, size):
  image = Image.new('RGB', size, (200, 30, 30))
  assert give(browser, encoded(image)) == ''
  index, _ = saved(browser, tmp_path)
  assert index.shape == size[::-1]


def test_transparent_pixels_lie_on_white_and_exif_turns(browser, tmp_path):
  turned = LARGE.copy()
  exif = turned.getexif()
  exif[0x0112] = 6
  file = io.BytesIO()
  turned.save(file, 'JPEG', exif=exif)
  assert give(browser, file.getvalue(), 'photo.jpg') == ''
  assert 'photo: 500 × 700' in browser.evaluate('document.getElementById("status").textContent')
  see_through = SMALL.copy()
  see_through.putalpha(0)
  give(browser, encoded(see_through))
  white = browser.evaluate(
    """{
      const view = document.getElementById('view'), context = view.getContext('2d');
      document.querySelectorAll('#segments button').length
        + [...context.getImageData(480, 480, 1, 1).data].join()
    }"""
  )
  (result,) = model()(Image.new('RGB', SMALL.size, 'white'))
  assert white.startswith(str(len(result.segments_info)))


def test_the_camera(browser):
  browser.evaluate("document.getElementById('camera').click()")
  browser.wait_until(
    'document.getElementById("status").textContent.startsWith("camera: 640 × 480")'
  )
  assert browser.evaluate("document.getElementById('camera').textContent") == 'Stop the camera'
  browser.evaluate("document.getElementById('camera').click()")
  assert browser.evaluate("document.getElementById('camera').textContent") == 'Start the camera'
  browser.wait_until("!document.getElementById('video')")
  assert give(browser, encoded(SMALL)) == ''


def test_a_segment_is_named_where_the_pointer_is_and_in_the_list(browser):
  give(browser, encoded(SMALL))
  browser.evaluate(
    """{
      const view = document.getElementById('view'), box = view.getBoundingClientRect();
      const {left, top, w, h} = JSON.parse(view.dataset.names).find((one) => one.name === 'person');
      const scale = box.width / view.width;
      view.dispatchEvent(new PointerEvent('pointermove', {
        clientX: box.left + (left + w / 2) * scale, clientY: box.top + (top + h / 2) * scale}));
    }"""
  )
  tip = browser.evaluate("document.getElementById('tip').textContent")
  assert re.fullmatch(r'person: detection score \d\.\d\d, ranking score \d\.\d\d', tip)
  assert browser.evaluate("!document.getElementById('tip').hidden")
  names = browser.evaluate(
    "[...document.querySelectorAll('#segments b')].map(one => one.textContent)"
  )
  (result,) = model()(SMALL)
  assert sorted(names) == sorted(one['label'] for one in result.segments_info)


@pytest.mark.parametrize('image', [SMALL, slow(LARGE), slow(TALL)])
def test_names_do_not_cover_each_other_nor_leave_the_picture(browser, image):
  give(browser, encoded(image))
  set_threshold(browser, 0.05)
  width, height, names = browser.evaluate(
    """{
      const view = document.getElementById('view');
      [view.width, view.height, JSON.parse(view.dataset.names)]
    }"""
  )
  assert names or image is TALL
  for number, one in enumerate(names):
    assert 0 <= one['left'] <= width - one['w'] and 0 <= one['top'] <= height - one['h']
    for other in names[:number]:
      apart = abs(one['top'] - other['top']) >= one['h']
      left, right = sorted((one, other), key=lambda name: name['left'])
      assert apart or left['left'] + left['w'] <= right['left']


def test_the_keyboard_reaches_everything(browser):
  give(browser, encoded(SMALL))
  browser.evaluate('document.activeElement.blur()')
  reached = []
  for _ in range(40):
    browser.press('Tab')
    found = browser.evaluate('document.activeElement.id || document.activeElement.outerHTML')
    if found in reached:
      break
    reached.append(found)
  controls = {'file', 'camera', 'threshold', 'accelerator', 'save_picture', 'save_png', 'save_json'}
  assert controls <= {*reached}
  assert any('person' in one for one in reached)
  shown = "document.getElementById('highlight').toDataURL()"
  nothing = browser.evaluate(shown)
  browser.evaluate("document.querySelector('#segments button').focus()")
  assert browser.evaluate(shown) != nothing
  browser.evaluate("document.querySelector('#segments button').blur()")
  assert browser.evaluate(shown) == nothing


def test_all_controls_have_names(browser):
  give(browser, encoded(SMALL))
  roles = {'button', 'radio', 'slider', 'combobox', 'image', 'img', 'group', 'heading', 'status'}
  nodes = [(role, name) for role, name in browser.accessible() if role in roles - {'status'}]
  assert {'button', 'radio', 'slider', 'combobox'} <= {role for role, _ in nodes}
  assert [one for one in nodes if not one[1].strip()] == []


CONTRASTS = """{
  const channels = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = (color) => {
    const linear = channels(color).slice(0, 3).map((value) => {
      const v = value / 255;
      return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const {backgroundColor} = getComputedStyle(at), parts = channels(backgroundColor);
      if (parts.length < 4 || parts[3] > 0) return backgroundColor;
    }
    return 'rgb(255, 255, 255)';
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !element.checkVisibility()) continue;
    if (element.matches('script, style, noscript, :disabled, :disabled *')) continue;
    const colors = [getComputedStyle(element).color, behind(element)];
    const [one, other] = colors.map(light).sort((a, b) => b - a);
    found.push([element.textContent.trim().slice(0, 30), (one + 0.05) / (other + 0.05)]);
  }
  found
}"""


@pytest.mark.parametrize('dark', [False, True])
def test_contrast(browser, url, dark):
  browser.open(url, dark=dark)
  browser.wait_until(READY)
  give(browser, encoded(SMALL))
  browser.evaluate("document.querySelector('.file').dispatchEvent(new Event('mouseover'))")
  found = browser.evaluate(CONTRASTS)
  assert len(found) > 10
  assert [one for one in found if one[1] < 4.5] == []


@pytest.mark.parametrize('width', [slow(320), 390, slow(1280)])
def test_nothing_leaves_the_window_sideways(browser, url, width):
  browser.open(url, width=width, height=800)
  browser.wait_until(READY)
  give(browser, encoded(LARGE))
  assert browser.evaluate('document.scrollingElement.scrollWidth') <= width


def opened(browser, url):
  """What the page says of a model that it cannot use."""
  browser.open(url)
  browser.wait_until(f'{READY} || {PROBLEM}')
  return browser.evaluate(PROBLEM)


def other_folder(folder, tmp_path, without=()):
  for path in folder.iterdir():
    if path.name not in without:
      (tmp_path / path.name).symlink_to(path)
  return tmp_path


def test_models_of_another_kind_are_told_in_a_line(shared_browser, serve, folder, tmp_path):
  other = other_folder(folder, tmp_path, ['model.json', 'model.tflite'])
  url = serve(other)
  assert re.search('model.json is missing', opened(shared_browser, url))
  (other / 'model.json').write_text('{"format": "tflite_int8", "categories": [], "input": {}}')
  assert re.search('another kind', opened(shared_browser, url))
  (other / 'model.json').unlink()
  (other / 'model.json').symlink_to(folder / 'model.json')
  assert re.search('model.tflite is damaged', opened(shared_browser, url))
  (other / 'model.tflite').write_bytes(SHIPPED_MODEL.read_bytes()[:1000])
  assert re.search('model.tflite is damaged', opened(shared_browser, url))
  (other / 'model.tflite').write_bytes((folder / 'merge.tflite').read_bytes())
  assert re.search('model.tflite .*another kind.*no input image', opened(shared_browser, url))


def test_a_network_that_cannot_be_run_is_told(shared_browser, url):
  """LiteRT.js says so on the console alone, and gives a result."""
  shared_browser.open(url)
  shared_browser.wait_until(READY)
  shared_browser.evaluate(
    """import('@litertjs/core').then(({CompiledModel}) => {
      window.run = CompiledModel.prototype.run;
      CompiledModel.prototype.run = function (...inputs) {
        console.error('ERROR: [compiled_model.cc] Failed to invoke');
        return window.run.apply(this, inputs);
      };
    })"""
  )
  assert 'cannot run the network (Failed to invoke)' in give(shared_browser, encoded(SMALL))
  shared_browser.evaluate(
    """import('@litertjs/core').then(({CompiledModel}) => {
      CompiledModel.prototype.run = window.run;
    })"""
  )
  assert give(shared_browser, encoded(SMALL)) == ''


def test_without_a_network_the_cdn_is_named(shared_browser, serve, folder, tmp_path):
  other = other_folder(folder, tmp_path, ['litert', page.PAGE])
  page.write(other)
  problem = opened(shared_browser, serve(other))
  assert 'cdn.jsdelivr.net' in problem and '--offline' in problem


def test_from_the_cdn(shared_browser, serve, folder, tmp_path):
  """The default. Here the browser gets the CDN's answers from the copy."""
  other = other_folder(folder, tmp_path, ['litert', page.PAGE])
  page.write(other)
  url = serve(other)
  shared_browser.problems.clear()
  shared_browser.requests.clear()
  with shared_browser.answering(CDN, lambda path: of_cdn(folder, path)):
    assert opened(shared_browser, url) == ''
    assert give(shared_browser, encoded(SMALL)) == ''
  assert complaints(shared_browser) == []
  elsewhere = {
    one for one in shared_browser.requests if not one.startswith((url, 'blob:', 'data:'))
  }
  assert all(one.startswith(f'{CDN}/npm/@litertjs/') for one in elsewhere) and elsewhere


def of_cdn(folder, path):
  """/npm/@litertjs/core@2.5.3/dist/index.js -> that file of the copy."""
  return (folder / 'litert' / path.replace(f'@{VERSION}/', '/').removeprefix('/npm/')).read_bytes()


def test_the_script_is_short():
  script = (page._PARTS / page.SCRIPT).read_text()
  assert len(script.splitlines()) < 400
  assert max(map(len, script.splitlines())) <= 125
