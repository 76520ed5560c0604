import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from oanet_tf import client, visualize
from oanet_tf.data import pictures
from oanet_tf.data.panoptic_map import segments_of_masks
from oanet_tf.errors import InputError
from tests import end_to_end
from tests.categories import TIE_ON_PERSON
from tests.serving import requests, stand_in


@pytest.fixture(scope='module')
def servers(served):
  with stand_in.serving(served.signatures) as addresses:
    yield addresses


def run(monkeypatch, capsys, served, protocol, server, images, output_dir, *more):
  categories = served.folder / 'assets' / 'categories.json'
  return end_to_end.run_command(
    monkeypatch, capsys, client.main, '--protocol', protocol, '--server', server,
    '--categories', categories, '--images', images, '--output_dir', output_dir, *more,
  )  # fmt: skip


@pytest.fixture
def folder(tmp_path):
  """A picture of each kind that is sent in a way of its own."""
  folder = tmp_path / 'pictures'
  folder.mkdir()
  image = Image.fromarray(requests.rectangles(40, 64))
  image.save(folder / 'plain.jpg')
  exif = Image.Exif()
  exif[0x0112] = 6  # The camera was held upright: turn by 90 degrees.
  image.save(folder / 'turned.jpg', exif=exif)
  image.save(folder / 'other.webp')
  return folder


@pytest.mark.parametrize('protocol', ['grpc', 'rest'])
def test_draws_what_the_network_in_memory_shows(
  served, servers, folder, tmp_path, monkeypatch, capsys, protocol
):
  output = tmp_path / 'overlays'
  server = servers[protocol]
  code, stdout, _ = run(monkeypatch, capsys, served, protocol, server, folder, output)
  assert code == 0 and [line.split(': ')[0] for line in stdout.splitlines()] == [
    str(folder / name) for name in ('other.webp', 'plain.jpg', 'turned.jpg')
  ]
  categories = served.source.trained.categories
  for path in folder.iterdir():
    image = pictures.read_picture(path)
    _, maps = served.predict(image)
    masks = (mask[0].numpy() for mask in maps)
    segmentation = segments_of_masks(*masks, categories)
    expected = visualize.draw_panoptic(image, segmentation, categories)
    found = np.asarray(Image.open(output / f'{path.stem}.png'))
    np.testing.assert_array_equal(found, expected)
    names = [categories.category(categories.label(i)).name for i in segmentation.category_ids]
    (line,) = (line for line in stdout.splitlines() if line.startswith(f'{path}: '))
    told = [name.split(' ')[0] for name in line.split(': ')[1].split(', ')]
    # The table has things first.
    assert sorted(told) == sorted(names)


def test_masks_of_more_than_4_megabytes(served, servers):
  image = requests.encode(requests.rectangles(1100, 1000))
  outputs = client.grpc_client(servers['grpc'], 'oanet', 60.0)(image)
  assert outputs['panoptic_category_mask'].nbytes == 4 * 1100 * 1000


@pytest.mark.parametrize('protocol', ['grpc', 'rest'])
def test_what_the_server_refuses_is_told(served, servers, tmp_path, monkeypatch, capsys, protocol):
  path = tmp_path / 'large.png'
  Image.new('1', (8192, 4097)).save(path)
  (tmp_path / 'damaged.png').write_text('')
  Image.fromarray(requests.rectangles(40, 64)).save(tmp_path / 'small.png')
  arguments = (protocol, servers[protocol], tmp_path, tmp_path / 'overlays')
  code, stdout, stderr = run(monkeypatch, capsys, served, *arguments)
  # The others are segmented.
  assert code == 1 and stdout.startswith(f'{tmp_path}/small.png: ') and stdout.count('\n') == 1
  assert [path.name for path in (tmp_path / 'overlays').iterdir()] == ['small.png']
  (message,) = (line for line in stderr.splitlines() if 'refuses: ' in line)
  for fact in (f'{path}: ', servers[protocol], 'image 0 of the batch', '33554432'):
    assert fact in message
  assert f'{tmp_path}/damaged.png: ' in stderr and 'Traceback' not in stderr
  outcome = run(monkeypatch, capsys, served, *arguments, '--model', 'other', '--overwrite')
  assert 'Servable not found' in end_to_end.one_line_error(outcome)


def test_pictures_and_earlier_answers_are_not_overwritten(
  served, folder, tmp_path, monkeypatch, capsys
):
  def refused(*arguments):
    # Before a server is asked, of which there is none.
    return end_to_end.one_line_error(
      run(monkeypatch, capsys, served, 'rest', 'localhost:1', *arguments)
    )

  before = {path.name: path.read_bytes() for path in folder.iterdir()}
  link = tmp_path / 'link'
  link.symlink_to(folder)
  for output in (folder, link):
    for images in (folder, folder / 'plain.jpg'):
      assert f'{output}: ' in refused(images, output, '--overwrite')
  assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
  (tmp_path / 'plain.png').write_text('mine')
  assert f'{tmp_path}/plain.png: ' in refused(folder, tmp_path)
  assert f'{tmp_path}/plain.png: ' in refused(folder, tmp_path / 'plain.png')
  assert (tmp_path / 'plain.png').read_text() == 'mine'


@pytest.mark.parametrize('protocol', ['grpc', 'rest'])
def test_categories_of_another_network_are_refused(
  served, servers, folder, tmp_path, monkeypatch, capsys, protocol
):
  path = tmp_path / 'categories.json'
  text = (served.folder / 'assets' / 'categories.json').read_text()
  categories = served.source.trained.categories
  for category in categories:
    text = text.replace(f'"{category.name}"', f'"other {category.name}"')
  path.write_text(text)
  outcome = run(
    monkeypatch, capsys, served, protocol, servers[protocol], folder, tmp_path / 'overlays',
    '--categories', path,
  )  # fmt: skip
  message = end_to_end.one_line_error(outcome)
  assert f'{path}: category ' in message and "'other " in message and servers[protocol] in message


def test_a_network_without_labels_is_served_too():
  outputs = {'num_segments': 1, 'segment_category_id': np.array([31, 0])}
  client.check_labels(outputs, TIE_ON_PERSON, 'categories.json', 'server')
  with pytest.raises(InputError, match='category 3 is missing'):
    client.check_labels(
      {**outputs, 'segment_category_id': np.array([3])}, TIE_ON_PERSON, 'categories.json', 'server'
    )


@pytest.mark.parametrize('seconds', ['0', '-1', 'nan', 'inf', 'soon'])
def test_a_timeout_is_a_time(seconds, served, tmp_path, monkeypatch, capsys):
  outcome = run(
    monkeypatch, capsys, served, 'rest', 'x', tmp_path, tmp_path, f'--timeout={seconds}'
  )
  assert outcome[0] == 2 and '--timeout' in outcome[2]


@pytest.mark.parametrize('protocol', ['grpc', 'rest'])
def test_a_server_that_is_not_there(served, folder, tmp_path, monkeypatch, capsys, protocol):
  arguments = (protocol, 'localhost:1', folder, tmp_path / 'overlays', '--timeout', '5')
  message = end_to_end.one_line_error(run(monkeypatch, capsys, served, *arguments))
  assert 'localhost:1' in message and 'onnect' in message
  assert not (tmp_path / 'overlays').exists()


def test_what_a_proxy_says_is_told():
  assert client.message_of(b'{"error": "no"}') == 'no'
  for body in (b'<html>502 Bad Gateway</html>', b'', b'[1]', b'{}', b'\xff'):
    assert client.message_of(body) == body.decode(errors='replace')


def test_help_and_bad_files_are_fast(tmp_path):
  command = [sys.executable, '-X', 'importtime', client.__file__]
  done = subprocess.run([*command, '--help'], capture_output=True, text=True)
  assert done.returncode == 0 and '--categories' in done.stdout
  assert 'tensorflow' not in done.stderr
