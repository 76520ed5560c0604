"""Segments a video, or what a camera sees, frame by frame. Needs PyAV, the extra `video`."""

import contextlib
import itertools
import pathlib
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import NamedTuple

import av
import numpy as np
import tqdm
from PIL import Image

from oanet_tf import files
from oanet_tf.errors import InputError
from oanet_tf.prediction.model import Model
from oanet_tf.printing import note

# By suffix, FFmpeg's names of the formats that can be written. All but GIF hold H.264.
FORMATS = {'.mp4': 'mp4', '.mov': 'mov', '.mkv': 'matroska', '.gif': 'gif'}
# Frames per second at most.
GIF_RATE = 10
# By `sys.platform`, FFmpeg's names for the system's cameras, and options. Those of a Mac have 30
# frames per second, and FFmpeg would ask for 29.97.
_CAMERAS = {
  'linux': ('v4l2', {}),
  'darwin': ('avfoundation', {'framerate': '30'}),
  'win32': ('dshow', {}),
}
# A camera's frame that is there sooner than this, in seconds, has waited for us and is old.
_SHORTEST_WAIT = 0.002
# A video may end this many seconds before the time that it promises, without being told cut off.
_MISSING = 1
# FFmpeg's number of BT.601, to which it converts RGB.
_BT_601 = 5

# With the seconds since the first one.
TimedFrame = tuple[av.VideoFrame, Fraction]
TimedPicture = tuple[Image.Image, Fraction]


class Source(NamedTuple):
  """An opened video.

  Attributes:
    name: for messages.
    container: PyAV's.
    stream: its moving picture.
    is_live: whether it is a camera, which has no end and does not wait.
  """

  name: str
  container: av.container.InputContainer
  stream: av.VideoStream
  is_live: bool = False

  @property
  def unit(self) -> Fraction:
    """Of the time stamps, in seconds."""
    return self.stream.time_base or Fraction(1, av.time_base)


class Summary(NamedTuple):
  """What was written.

  Attributes:
    frames: their number.
    size: width and height.
    rate: frames per second of the work, not of the video.
    is_complete: whether nothing of the source was damaged.
  """

  frames: int
  size: tuple[int, int]
  rate: float
  is_complete: bool


def open_file(path: pathlib.Path) -> Source:
  """Opens a video of any format that FFmpeg reads.

  Raises:
    InputError: if it is none.
  """
  if not path.exists():
    raise InputError(f'{path}: there is no such file')
  # Without a protocol, FFmpeg would take one from a name with a colon.
  source = source_of(str(path), f'file:{path}')
  if source.container.format.name.endswith('_pipe'):
    raise InputError(f'{path}: is a picture, not a video; give it to --images')
  return source


def open_camera(camera: str) -> Source:
  """Opens a camera.

  Args:
    camera: its number, or the name that the system gives it. Windows has no numbers.

  Raises:
    InputError: if there is none.
  """
  if sys.platform not in _CAMERAS:
    raise InputError(f'camera {camera}: cameras are for Linux, macOS and Windows')
  device_format, options = _CAMERAS[sys.platform]
  device = camera
  if device_format == 'v4l2' and camera.isdecimal():
    device = f'/dev/video{camera}'
  elif device_format == 'dshow':
    if camera.isdecimal():
      raise InputError(
        f'camera {camera}: on Windows, give the name from the settings, as --camera "USB Camera"'
      )
    device = f'video={camera}'
  return source_of(f'camera {device}', device, True, device_format, options)


def source_of(
  name: str,
  url: str,
  is_live: bool = False,
  file_format: str | None = None,
  options: dict[str, str] | None = None,
) -> Source:
  """Opens what PyAV can open.

  Args:
    name: for messages.
    url: for FFmpeg.
    is_live: whether it is a camera.
    file_format: FFmpeg's name of it; None to find out.
    options: of the format.

  Raises:
    InputError: if it cannot be opened, or has no moving picture.
  """
  try:
    container = av.open(url, 'r', file_format, options, metadata_errors='replace')
  except av.FFmpegError as error:
    raise InputError(f'{name}: cannot be opened as a video ({error.strerror})') from None
  for stream in container.streams.video:
    # The cover of a song is a video stream too.
    if stream.codec_context and not stream.disposition & av.stream.Disposition.attached_pic:
      return Source(name, container, stream, is_live)
  container.close()
  raise InputError(f'{name}: has no moving picture that can be decoded')


def check_output(
  output: pathlib.Path, video: pathlib.Path | None = None, overwrite: bool = False
) -> None:
  """Refuses an output that cannot be written, or would replace something.

  Args:
    output: for `segment_video`.
    video: the input, if it is a file.
    overwrite: whether another file may be replaced.

  Raises:
    InputError: as `files.check_output_file`, with `FORMATS` as suffixes; or if the folder is
      missing.
  """
  files.check_output_file(output, [video], overwrite, list(FORMATS))
  if not output.parent.is_dir():
    raise InputError(f'{output}: there is no folder {output.parent}')


def segment_video(model: Model, source: Source, output: pathlib.Path) -> Summary:
  """Draws the segments over the frames, one frame after the other.

  Each frame keeps its time. Sound is left out. So are frames that are damaged, which is told on
  stderr; in a GIF, those above `GIF_RATE`; and of a camera, those taken while the model is busy.
  Ctrl-C ends the recording of a camera; a file it interrupts.

  Args:
    model: segments them.
    source: is closed at the end.
    output: one that `check_output` accepts. It appears when it is complete.

  Raises:
    InputError: if no frame can be read, or the output cannot be written.
  """
  is_gif = output.suffix.lower() == '.gif'
  flaws: list[str] = []
  bar = tqdm.tqdm(
    desc='recording until Ctrl-C' if source.is_live else 'segmenting',
    total=None if is_gif else source.stream.frames or None,
    unit='frame',
    file=sys.stderr,
  )
  with source.container, _ctrl_c_ends(source) as ended, bar as progress:
    frames = _timed(_decoded(source, ended, flaws), source, flaws)
    pictures = _drawn(model, source, _at_most(GIF_RATE, frames) if is_gif else frames, progress)
    first = next(pictures, None)
    if first is None:
      raise InputError(f'{source.name}: has no frame that can be decoded')
    pictures = itertools.chain([first], pictures)
    with files.writing(output), files.replacing(output) as temporary:
      if is_gif:
        size = _write_gif(temporary, pictures)
      else:
        try:
          size = _write_h264(temporary, FORMATS[output.suffix.lower()], pictures, source)
        except av.FFmpegError as error:
          raise InputError(f'{output}: cannot be written ({error.strerror})') from None
    rate = progress.n / progress.format_dict['elapsed']
  for flaw in flaws:
    note(f'{source.name}: {flaw}')
  return Summary(progress.n, size, rate, not flaws)


@contextlib.contextmanager
def _ctrl_c_ends(source: Source) -> Iterator[threading.Event]:
  """Yields an event, which the first Ctrl-C sets if the source is live; the next one interrupts."""
  ended = threading.Event()
  if not source.is_live:
    yield ended
    return

  def end(*_: object) -> None:
    signal.signal(signal.SIGINT, usual)
    ended.set()

  usual = signal.signal(signal.SIGINT, end)
  try:
    yield ended
  finally:
    signal.signal(signal.SIGINT, usual)


def _decoded(source: Source, ended: threading.Event, flaws: list[str]) -> Iterator[av.VideoFrame]:
  """Frames up to the end or the event; of a camera, only new ones. Adds to the flaws."""
  packets = source.container.demux(source.stream)
  damaged = 0
  asked = time.monotonic()
  while not ended.is_set():
    try:
      packet = next(packets, None)
      if packet is None:
        break
      is_old = source.is_live and time.monotonic() - asked < _SHORTEST_WAIT
      frames = packet.decode()
    except av.BlockingIOError:
      # A Mac's camera has no frame yet.
      time.sleep(_SHORTEST_WAIT)
      packets = source.container.demux(source.stream)
      continue
    except av.FFmpegError as error:
      damaged, reason = damaged + 1, error.strerror
      continue
    if not is_old:
      yield from frames
    asked = time.monotonic()
  if damaged:
    flaws.append(f'{damaged} damaged parts are left out ({reason})')


def _timed(
  frames: Iterable[av.VideoFrame], source: Source, flaws: list[str]
) -> Iterator[TimedFrame]:
  """Adds the times. A frame without one, or with an earlier one, follows the frame before it.

  A file that ends too early gets a flaw.
  """
  usual = 1 / (source.stream.guessed_rate or Fraction(25))
  seconds, end, shift = Fraction(-1), Fraction(0), None
  for frame in frames:
    if frame.pts is None:
      seconds = end
    else:
      stamp = frame.pts * source.unit
      if shift is None or stamp + shift <= seconds:
        shift = end - stamp
      seconds = stamp + shift
    end = seconds + (frame.duration * source.unit or usual)
    yield frame, seconds
  if source.stream.duration:
    promised = source.stream.duration * source.unit
  else:
    promised = Fraction(source.container.duration or 0, av.time_base)
  if not source.is_live and promised > end + _MISSING:
    flaws.append(f'is cut off after {float(end):.1f} of {float(promised):.1f} seconds')


def _at_most(rate: int, frames: Iterable[TimedFrame]) -> Iterator[TimedFrame]:
  """Leaves out frames, so that not more than `rate` come in a second."""
  next_slot = 0
  for frame, seconds in frames:
    slot = int(seconds * rate)
    if slot >= next_slot:
      next_slot = slot + 1
      yield frame, seconds


def _drawn(
  model: Model, source: Source, frames: Iterable[TimedFrame], progress: tqdm.tqdm
) -> Iterator[TimedPicture]:
  size = None
  for frame, seconds in frames:
    (result,) = model.results([(source.name, _upright_rgb(frame, source.stream))], batch_size=1)
    picture = result.plot(by_category=True)
    size = size or picture.size
    progress.update()
    # Few videos change their size; the output must not.
    yield picture if picture.size == size else picture.resize(size), seconds


def _upright_rgb(frame: av.VideoFrame, stream: av.VideoStream) -> np.ndarray:
  """[H, W, 3] uint8, of square pixels, turned as the camera was held."""
  width = round(frame.width * (stream.sample_aspect_ratio or 1))
  image = frame.to_ndarray(format='rgb24', width=width)
  return np.ascontiguousarray(np.rot90(image, round(frame.rotation / 90)))


def _write_h264(
  path: pathlib.Path, file_format: str, pictures: Iterator[TimedPicture], source: Source
) -> tuple[int, int]:
  """Writes pictures of one size with their times, and returns the size, made even.

  Args:
    path: of the file.
    file_format: one of the values of `FORMATS`.
    pictures: at least one.
    source: whose rate and unit of time it gets.
  """
  with av.open(f'file:{path}', 'w', format=file_format) as container:
    rate = source.stream.average_rate or source.stream.guessed_rate
    stream = container.add_stream('libx264', rate, time_base=source.unit)
    stream.pix_fmt = 'yuv420p'
    stream.codec_context.colorspace = _BT_601
    # Frames out of order would shorten a video whose frames are not evenly spaced.
    stream.codec_context.max_b_frames = 0
    for picture, seconds in pictures:
      image = np.asarray(picture)
      height, width = image.shape[:2]
      image = np.pad(image, [(0, height % 2), (0, width % 2), (0, 0)], mode='edge')
      if not stream.codec_context.is_open:
        stream.height, stream.width = image.shape[:2]
        container.start_encoding()
      frame = av.VideoFrame.from_ndarray(image)
      frame.pts, frame.time_base = round(seconds / source.unit), source.unit
      container.mux(stream.encode(frame))
    container.mux(stream.encode())
    return stream.width, stream.height


def _write_gif(path: pathlib.Path, pictures: Iterator[TimedPicture]) -> tuple[int, int]:
  """Writes pictures of one size, at least one, as an endless animation, and returns the size.

  Pillow holds the whole file's content in memory.
  """
  lasting = _lasting(pictures)
  first = next(lasting)
  first.save(path, 'GIF', save_all=True, append_images=lasting, loop=0)
  return first.size


def _lasting(pictures: Iterator[TimedPicture]) -> Iterator[Image.Image]:
  """Pictures with their durations, which are known when the next one is there."""
  shown, since = next(pictures)
  for picture, seconds in pictures:
    # A GIF counts hundredths of a second, Pillow milliseconds.
    shown.info['duration'] = 10 * (round(100 * seconds) - round(100 * since))
    yield shown
    shown, since = picture, seconds
  shown.info['duration'] = 1000 // GIF_RATE
  yield shown
