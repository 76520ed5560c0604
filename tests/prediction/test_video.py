"""Videos are made, segmented by a stand-in for a network, and read back."""

import errno
import os
import pathlib
import shutil
import signal
import struct
import sys
import types
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from oanet_tf import predict
from oanet_tf.errors import InputError
from oanet_tf.prediction import model
from oanet_tf.prediction.model import Model
from oanet_tf.prediction.predictor import Predictor
from tests import end_to_end
from tests.categories import CATEGORIES, DOG, PERSON
from tests.segments import segments_of_ids

av = pytest.importorskip('av', reason='PyAV, the extra `video`, is not installed')

from oanet_tf.prediction import video  # noqa: E402

GRAY = 100
# The drawing is enlarged until its shorter side has 384 pixels.
ENLARGED = 8
# Half of each category's colour over gray.
PERSON_COLOR, DOG_COLOR = (150, 50, 50), (50, 50, 150)
# What compression may change.
TOLERANCE = 8


class StandIn:
  """A dog above two persons, whose order changes from image to image."""

  def __init__(self, at=lambda number: None):
    """`at` is called with the number of each image, from 0."""
    self.images = []
    self.at = at

  def segment(self, images):
    return [self.segment_one(image) for image in images]

  def segment_one(self, image):
    self.at(len(self.images))
    self.images.append(image)
    height, width = image.shape[:2]
    ids = np.full((height, width), 3)
    ids[height // 2 :, : width // 2] = 1
    ids[height // 2 :, width // 2 :] = 2
    order = {1: PERSON, 2: PERSON, 3: DOG}
    if len(self.images) % 2:
      order = dict(reversed(order.items()))
    segments = segments_of_ids(ids, order)
    return segments._replace(scores=np.ones(3, np.float32))

  @property
  def model(self):
    return Model(Predictor(self.segment, CATEGORIES))


def make_video(
  path, times=range(6), unit=Fraction(1, 24), size=(64, 48), images=None, codec='libx264',
  pixels='yuv420p',
):  # fmt: skip
  """Frames of a gray that brightens; `times` are in `unit`s, `size` is width and height."""
  with av.open(path, 'w') as container:
    stream = container.add_stream(codec, 1 / unit, time_base=unit)
    stream.width, stream.height = size
    stream.pix_fmt = pixels
    for number, time in enumerate(times):
      image = np.full((size[1], size[0], 3), GRAY, np.uint8) if images is None else images[number]
      frame = av.VideoFrame.from_ndarray(image)
      frame.pts, frame.time_base = time, unit
      container.mux(stream.encode(frame))
    container.mux(stream.encode())
  return path


class Film:
  """A written video: `images`, the `times` of the frames in seconds, and its other properties."""

  def __init__(self, path):
    with av.open(path) as container:
      (stream,) = container.streams
      self.codec = stream.codec_context.name
      self.pixels = stream.codec_context.pix_fmt
      self.rate = stream.average_rate
      self.duration = stream.duration and stream.duration * stream.time_base
      frames = list(container.decode(stream))
      self.times = [frame.pts * frame.time_base for frame in frames]
      self.images = [frame.to_ndarray(format='rgb24') for frame in frames]

  @property
  def size(self):
    return self.images[0].shape[1::-1]


@pytest.fixture
def clip(tmp_path):
  return make_video(tmp_path / 'clip.mp4')


@pytest.fixture
def stand_in(monkeypatch):
  """In place of the network that the command loads."""
  network = StandIn()
  monkeypatch.setattr(model, 'load', lambda *_, **__: network.model)
  return network


@pytest.fixture
def run(monkeypatch, capsys):
  def run_command(*arguments):
    return end_to_end.run_command(monkeypatch, capsys, predict.main, *arguments)

  return run_command


def segment(source, output, network=None):
  return video.segment_video((network or StandIn()).model, source, output)


def lavfi(graph, is_live=False):
  return video.source_of('the source', graph, is_live, 'lavfi')


def files_of(folder):
  return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize('suffix', ['.mp4', '.MOV', '.mkv'])
def test_the_command_draws_over_each_frame(stand_in, run, clip, tmp_path, suffix):
  output = tmp_path / f'drawn{suffix}'
  code, stdout, stderr = run('--model', 'x', '--video', clip, '--output', output)
  assert code == 0
  assert stdout.startswith('6 frames of 512 x 384 ') and stdout.endswith(f'{output}\n')
  assert '6/6' in stderr
  assert [image.shape for image in stand_in.images] == 6 * [(48, 64, 3)]
  film = Film(output)
  assert (film.codec, film.pixels, film.rate, film.size) == ('h264', 'yuv420p', 24, (512, 384))
  assert film.times == pytest.approx([number / 24 for number in range(6)], abs=1e-3)
  for image in film.images:
    assert np.abs(image[20:80, 20:80] - np.array(DOG_COLOR)).max() <= TOLERANCE
  assert files_of(tmp_path) == sorted(['clip.mp4', output.name])


def test_things_keep_the_color_of_their_category(clip, tmp_path):
  segment(video.open_file(clip), tmp_path / 'drawn.mp4')
  for image in Film(tmp_path / 'drawn.mp4').images:
    for columns in (slice(20, 60), slice(450, 490)):
      corner = image[340:370, columns]
      assert np.abs(corner - np.array(PERSON_COLOR)).max() <= TOLERANCE


def test_the_network_that_comes_with_the_package(run, tmp_path):
  """The picture of a scene, which moves to the left."""
  picture = np.asarray(Image.open(sorted(model.SHIPPED_PICTURES.iterdir())[0]).convert('RGB'))
  images = [np.roll(picture, -4 * number, axis=1) for number in range(3)]
  clip = make_video(tmp_path / 'clip.mp4', range(3), images=images, size=(128, 128))
  code, _, stderr = run('--video', clip, '--output', tmp_path / 'drawn.mp4')
  assert code == 0 and 'OccludedScenes' in stderr
  film = Film(tmp_path / 'drawn.mp4')
  assert len(film.images) == 3 and film.size == (384, 384)
  for image, drawn in zip(images, film.images, strict=True):
    assert np.abs(drawn[1::3, 1::3].astype(int) - image).mean() > 10


@pytest.mark.parametrize(
  ('times', 'unit'),
  [
    (range(8), Fraction(1001, 30000)),
    ([0, 1, 5, 6, 7, 30], Fraction(1, 30)),
    # As of a camera, and of a stream that was on for long.
    ([7_000_000, 7_033_333, 7_100_007], Fraction(1, 1_000_000)),
  ],
)  # fmt: skip
def test_frames_keep_their_times(tmp_path, times, unit):
  clip = make_video(tmp_path / 'clip.mp4', times, unit)
  segment(video.open_file(clip), tmp_path / 'drawn.mp4')
  film = Film(tmp_path / 'drawn.mp4')
  assert film.times == [(time - times[0]) * unit for time in times]
  assert film.duration > film.times[-1]
  if isinstance(times, range):
    assert film.rate == 1 / unit


def test_frames_without_times_have_those_of_their_rate(tmp_path):
  clip = make_video(tmp_path / 'clip.h264', range(6), Fraction(1, 12))
  segment(video.open_file(clip), tmp_path / 'drawn.mp4')
  assert Film(tmp_path / 'drawn.mp4').times == [Fraction(number, 12) for number in range(6)]


def test_odd_sides_are_made_even(tmp_path):
  clip = make_video(tmp_path / 'clip.mkv', range(2), size=(401, 385), codec='ffv1', pixels='bgr0')
  summary = segment(video.open_file(clip), tmp_path / 'drawn.mp4')
  film = Film(tmp_path / 'drawn.mp4')
  assert film.size == summary.size == (402, 386)
  assert np.abs(film.images[0][20, 20] - np.array(DOG_COLOR)).max() <= TOLERANCE


def test_a_phone_that_was_held_upright(tmp_path):
  image = np.full((48, 64, 3), GRAY, np.uint8)
  image[:, :8] = 255
  clip = make_video(tmp_path / 'clip.mp4', range(2), images=[image] * 2)
  content = clip.read_bytes()
  # The matrix in the header of the track; this one turns clockwise, as phones' do.
  one = 1 << 16
  straight = struct.pack('>9i', one, 0, 0, 0, one, 0, 0, 0, 1 << 30)
  assert content.count(straight) == 2
  turned = struct.pack('>9i', 0, one, 0, -one, 0, 0, 48 * one, 0, 1 << 30)
  before, after = content.rsplit(straight, 1)
  clip.write_bytes(before + turned + after)
  network = StandIn()
  segment(video.open_file(clip), tmp_path / 'drawn.mp4', network)
  np.testing.assert_allclose(network.images[0], np.rot90(image, -1), atol=TOLERANCE)
  assert Film(tmp_path / 'drawn.mp4').size == (384, 512)


def test_pixels_that_are_not_square(tmp_path):
  with av.open(tmp_path / 'clip.mp4', 'w') as container:
    stream = container.add_stream('libx264', 24, width=64, height=48)
    stream.codec_context.sample_aspect_ratio = Fraction(3, 2)
    container.mux(stream.encode(av.VideoFrame(64, 48)))
    container.mux(stream.encode())
  network = StandIn()
  segment(video.open_file(tmp_path / 'clip.mp4'), tmp_path / 'drawn.mp4', network)
  assert network.images[0].shape == (48, 96, 3)


def test_a_gif_has_ten_frames_per_second_and_no_end(stand_in, run, tmp_path):
  clip = make_video(tmp_path / 'clip.mp4', range(25), Fraction(1, 25))
  code, stdout, _ = run('--model', 'x', '--video', clip, '--output', tmp_path / 'drawn.gif')
  assert code == 0 and stdout.startswith('10 frames of 512 x 384 ')
  # The other frames are not segmented either.
  assert len(stand_in.images) == 10
  with Image.open(tmp_path / 'drawn.gif') as drawn:
    assert drawn.info['loop'] == 0 and drawn.size == (512, 384)
    total, number = 0, 0
    for number in range(drawn.n_frames):
      drawn.seek(number)
      total += drawn.info['duration']
      color = drawn.convert('RGB').getpixel((20, 20))
      assert np.abs(np.array(color) - DOG_COLOR).max() <= TOLERANCE
  assert total == pytest.approx(1000, abs=40)


def test_a_gif_of_few_frames_keeps_their_times(tmp_path):
  grays = [np.full((48, 64, 3), GRAY + 20 * number, np.uint8) for number in range(3)]
  clip = make_video(tmp_path / 'clip.mp4', [0, 2, 3], Fraction(1, 4), images=grays)
  segment(video.open_file(clip), tmp_path / 'drawn.gif')
  with Image.open(tmp_path / 'drawn.gif') as drawn:
    assert drawn.n_frames == 3
    durations = []
    for number in range(3):
      drawn.seek(number)
      durations.append(drawn.info['duration'])
  assert durations[:2] == [500, 250]


def interrupt(at):
  def maybe(number):
    if number == at:
      signal.raise_signal(signal.SIGINT)

  return maybe


def test_ctrl_c_leaves_nothing_of_a_file(stand_in, run, clip, tmp_path):
  stand_in.at = interrupt(at=2)
  for name in ('drawn.mp4', 'drawn.gif'):
    stand_in.images.clear()
    (tmp_path / 'drawn.mp4').write_bytes(b'an earlier one')
    flags = ['--model', 'x', '--video', clip, '--output', tmp_path / name]
    assert 'drawn.mp4' not in name or f'{name}: exists' in end_to_end.one_line_error(run(*flags))
    code, stdout, _ = run(*flags, '--overwrite')
    assert code == 130 and not stdout
    assert files_of(tmp_path) == ['clip.mp4', 'drawn.mp4']
    assert (tmp_path / 'drawn.mp4').read_bytes() == b'an earlier one'


@pytest.fixture
def camera(monkeypatch):
  """An endless source that takes its time, in place of the camera."""
  source = lavfi('testsrc=size=64x48:rate=20,realtime', is_live=True)
  monkeypatch.setattr(video, 'open_camera', lambda _: source)


def test_ctrl_c_ends_the_recording_of_a_camera(camera, stand_in, run, tmp_path):
  stand_in.at = interrupt(at=2)
  usual = signal.getsignal(signal.SIGINT)
  output = tmp_path / 'drawn.mp4'
  code, stdout, _ = run('--model', 'x', '--camera', '0', '--output', output)
  assert code == 0 and stdout.startswith('3 frames ')
  times = Film(output).times
  assert len(times) == 3
  assert all(time.denominator in (1, 2, 4, 5, 10, 20) for time in times)
  assert signal.getsignal(signal.SIGINT) is usual
  assert files_of(tmp_path) == ['drawn.mp4']


def test_a_second_ctrl_c_interrupts(camera, stand_in, run, tmp_path):
  def twice(number):
    if number == 2:
      signal.raise_signal(signal.SIGINT)
      signal.raise_signal(signal.SIGINT)

  stand_in.at = twice
  code, _, _ = run('--model', 'x', '--camera', '0', '--output', tmp_path / 'drawn.mp4')
  assert code == 130 and not files_of(tmp_path)


def test_old_frames_of_a_camera_are_left_out(tmp_path, monkeypatch):
  """Those for which nobody had to wait."""
  waits = [0.02, 0, 0, 0.03, 0, 0.01]
  now, asked = 0.0, iter([w for wait in waits for w in (0, wait)])

  def monotonic():
    nonlocal now
    now += next(asked, 0)
    return now

  monkeypatch.setattr(video, 'time', types.SimpleNamespace(monotonic=monotonic))
  source = lavfi('testsrc=size=64x48:rate=10:duration=0.6', is_live=True)
  segment(source, tmp_path / 'drawn.mp4')
  assert Film(tmp_path / 'drawn.mp4').times == [0, Fraction(3, 10), Fraction(5, 10)]


class Wrapped:
  """A container whose packets come in another way."""

  def __init__(self, container, demux):
    self.container = container
    self.demux = demux

  def __getattr__(self, name):
    return getattr(self.container, name)

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self.container.close()


def test_a_camera_that_has_no_frame_yet_is_asked_again(clip, tmp_path):
  source = video.open_file(clip)
  packets = source.container.demux(source.stream)

  def demux(_):
    yield next(packets)
    yield next(packets)
    raise av.BlockingIOError(errno.EAGAIN, 'later')

  def again(_):
    container.demux = lambda _: packets
    return demux(_)

  container = Wrapped(source.container, again)
  summary = segment(source._replace(container=container), tmp_path / 'drawn.mp4')
  assert summary.frames == 6 and summary.is_complete


def test_a_camera_that_is_unplugged_keeps_what_it_recorded(clip, tmp_path, capsys):
  source = video.open_file(clip)

  def demux(stream):
    packets = source.container.demux(stream)
    yield from (next(packets) for _ in range(6))
    raise av.FFmpegError(errno.ENODEV, 'no such device')

  container = Wrapped(source.container, demux)
  summary = segment(source._replace(container=container), tmp_path / 'drawn.mp4')
  assert not summary.is_complete
  assert summary.frames == len(Film(tmp_path / 'drawn.mp4').images) > 0
  assert 'no such device' in capsys.readouterr().err


@pytest.mark.parametrize(
  ('platform', 'camera', 'opened'),
  [
    ('linux', '1', ('/dev/video1', 'v4l2', {})),
    ('linux', '/dev/v4l/by-id/usb', ('/dev/v4l/by-id/usb', 'v4l2', {})),
    ('darwin', '0', ('0', 'avfoundation', {'framerate': '30'})),
    ('win32', 'USB Camera', ('video=USB Camera', 'dshow', {})),
  ],
)
def test_how_a_camera_is_opened(clip, monkeypatch, platform, camera, opened):
  calls = []
  really = av.open

  def open_clip(url, mode, file_format, options, **_):
    calls.append((url, file_format, options))
    return really(clip)

  monkeypatch.setattr(sys, 'platform', platform)
  monkeypatch.setattr(av, 'open', open_clip)
  source = video.open_camera(camera)
  source.container.close()
  assert source.is_live and calls == [opened]


@pytest.mark.parametrize('platform', ['win32', 'aix'])
def test_a_camera_that_a_number_does_not_name(monkeypatch, platform):
  monkeypatch.setattr(sys, 'platform', platform)
  with pytest.raises(InputError, match='camera 0: '):
    video.open_camera('0')


def test_a_camera_that_is_not_there(stand_in, run, tmp_path, monkeypatch):
  monkeypatch.setattr(sys, 'platform', 'linux')
  camera = tmp_path / 'video9'
  outcome = run('--camera', camera, '--output', tmp_path / 'drawn.mp4')
  assert f'camera {camera}: ' in end_to_end.one_line_error(outcome)


def test_damaged_frames_are_left_out_and_told(stand_in, run, tmp_path):
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (20, 48, 64, 3), np.uint8)
  clip = make_video(tmp_path / 'clip.mov', range(20), images=images, codec='png', pixels='rgb24')
  content = bytearray(clip.read_bytes())
  starts = [n for n in range(len(content)) if content[n : n + 8] == b'\x89PNG\r\n\x1a\n']
  assert len(starts) == 20
  for number in (4, 5, 11):
    content[starts[number] + 8 : starts[number] + 60] = bytes(52)
  clip.write_bytes(content)
  output = tmp_path / 'drawn.mp4'
  code, stdout, stderr = run('--model', 'x', '--video', clip, '--output', output)
  assert code == 1 and stdout.startswith('17 frames ')
  assert f'{clip}: 3 ' in stderr
  expected = [number / 24 for number in range(20) if number not in (4, 5, 11)]
  assert Film(output).times == pytest.approx(expected, abs=1e-3)


def test_a_video_that_is_cut_off_is_kept_up_to_there(stand_in, run, tmp_path):
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (20, 48, 64, 3), np.uint8)
  clip = make_video(tmp_path / 'clip.mkv', range(20), Fraction(1, 5), images=images, codec='mpeg4')
  content = clip.read_bytes()
  clip.write_bytes(content[: len(content) // 2])
  output = tmp_path / 'drawn.mp4'
  code, stdout, stderr = run('--model', 'x', '--video', clip, '--output', output)
  number = len(Film(output).images)
  assert 0 < number < 20
  assert code == 1 and stdout.startswith(f'{number} frames ')
  (told,) = [line for line in stderr.splitlines() if line.startswith(f'{clip}: ')]
  assert '4.0' in told


def text(path, clip):
  path.write_text('this is no video\n' * 20)


def nothing(path, clip):
  path.write_bytes(b'')


def picture(path, clip):
  Image.new('RGB', (64, 48)).save(path, 'PNG')


def sound(path, clip):
  with av.open(path, 'w', format='mp3') as container:
    stream = container.add_stream('mp3', 44100)
    for _ in range(4):
      frame = av.AudioFrame.from_ndarray(np.zeros((1, 1152), np.int16), 's16', 'mono')
      frame.rate = 44100
      container.mux(stream.encode(frame))
    container.mux(stream.encode())


def song_with_a_cover(path, clip):
  """A stream of moving pictures that the file's header calls a cover."""
  sound(path, clip)
  jpeg = path.with_name('cover.jpg')
  Image.new('RGB', (64, 48)).save(jpeg)
  image = b'\0image/jpeg\0\3\0' + jpeg.read_bytes()
  jpeg.unlink()
  frame = b'APIC' + struct.pack('>IH', len(image), 0) + image
  size = bytes(len(frame) >> shift & 127 for shift in (21, 14, 7, 0))
  with av.open(path) as container:
    assert not container.streams.video
  path.write_bytes(b'ID3\3\0\0' + size + frame + path.read_bytes())
  with av.open(path) as container:
    assert container.streams.video


def no_frames(path, clip):
  with av.open(path, 'w', format='mp4') as container:
    container.add_stream('libx264', 24)
    container.start_encoding()


def no_whole_frame(path, clip):
  source = make_video(path.with_suffix('.mov'), range(1), codec='png', pixels='rgb24')
  path.write_bytes(source.read_bytes().replace(b'IDAT', b'IDOT'))
  source.unlink()


def half(path, clip):
  """Without the index, which is at the end."""
  content = clip.read_bytes()
  path.write_bytes(content[: len(content) // 2])


def missing(path, clip):
  pass


def folder(path, clip):
  path.mkdir()


@pytest.mark.parametrize(
  'make',
  [
    text, nothing, picture, sound, song_with_a_cover, no_frames, no_whole_frame, half, missing,
    folder,
  ],
)  # fmt: skip
def test_an_input_that_is_no_video(stand_in, run, clip, tmp_path, make):
  path = tmp_path / 'in:put.mp4'
  make(path, clip)
  before = files_of(tmp_path)
  outcome = run('--model', 'x', '--video', path, '--output', tmp_path / 'drawn.mp4')
  assert f'{path}: ' in end_to_end.one_line_error(outcome)
  assert files_of(tmp_path) == before


@pytest.mark.parametrize('name', ['drawn.txt', 'drawn', 'no/drawn.mp4', 'folder.mp4', 'clip.mp4'])
def test_an_output_that_cannot_be(stand_in, run, clip, tmp_path, name):
  (tmp_path / 'folder.mp4').mkdir()
  before, content = files_of(tmp_path), clip.read_bytes()
  # Another way to the same file.
  output = tmp_path / 'folder.mp4' / '..' / name
  outcome = run('--model', 'x', '--video', clip, '--output', output)
  assert f'{output}: ' in end_to_end.one_line_error(outcome)
  assert not stand_in.images
  assert files_of(tmp_path) == before and clip.read_bytes() == content


@pytest.mark.parametrize('name', ['drawn.mp4', 'drawn.gif'])
def test_an_output_that_cannot_be_written(stand_in, run, clip, tmp_path, name):
  # Where the hidden file would be, which becomes the output.
  (tmp_path / f'.{name}.part').mkdir()
  outcome = run('--model', 'x', '--video', clip, '--output', tmp_path / name)
  assert str(tmp_path / name) in end_to_end.one_line_error(outcome)
  assert not (tmp_path / name).exists()


def test_a_colon_in_a_name(clip, tmp_path):
  odd = tmp_path / 'data:clip 100%.mp4'
  shutil.copy(clip, odd)
  summary = segment(video.open_file(odd), tmp_path / 'pipe:1.mp4')
  assert summary.frames == len(Film(f'file:{tmp_path}/pipe:1.mp4').images) == 6


def test_relative_names(stand_in, run, clip, monkeypatch):
  monkeypatch.chdir(clip.parent)
  os.rename(clip, 'c:lip.mp4')
  code, _, _ = run('--model', 'x', '--video', 'c:lip.mp4', '--output', 'd:rawn.mp4')
  assert code == 0 and pathlib.Path('d:rawn.mp4').is_file()


def test_a_title_that_is_not_utf_8(tmp_path):
  with av.open(tmp_path / 'titled.mkv', 'w') as container:
    container.metadata['title'] = 'Duerer'
    stream = container.add_stream('libx264', 24, width=64, height=48)
    container.mux(stream.encode(av.VideoFrame(64, 48)))
    container.mux(stream.encode())
  content = (tmp_path / 'titled.mkv').read_bytes()
  assert content.count(b'Duerer') == 1
  (tmp_path / 'titled.mkv').write_bytes(content.replace(b'Duerer', 'Dürer '.encode('latin-1')))
  assert segment(video.open_file(tmp_path / 'titled.mkv'), tmp_path / 'drawn.mp4').frames == 1
