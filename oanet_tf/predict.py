"""Segments the user's pictures, video or camera: `oanet predict --help`."""

import argparse
import pathlib
from typing import TYPE_CHECKING

from oanet_tf import errors
from oanet_tf.arguments import (
  ArgumentParser,
  add_fusion,
  add_overwrite,
  add_params_override,
  log_to_stderr,
  positive,
)
from oanet_tf.config.values import MAX_BATCH_IMAGES
from oanet_tf.printing import note

if TYPE_CHECKING:
  from oanet_tf.prediction.model import Model

OUTPUT_DIR = pathlib.Path('oanet_results')
BATCH_SIZE = 4


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
  parser = ArgumentParser(
    prog='oanet predict',
    description='Segments pictures, a video or what a camera sees, and draws the result.',
    epilog='Without --model, the small network that comes with the package is used. It knows only '
    'the generated pictures of OccludedScenes; two of them are segmented if nothing else is given. '
    'Exit code 1: something was damaged; it was reported and left out.',
  )
  parser.add_argument(
    '--model',
    type=pathlib.Path,
    help='folder of a training, SavedModel or .tflite file of oanet export',
  )
  source = parser.add_mutually_exclusive_group()
  source.add_argument(
    '--images', nargs='+', default=[], metavar='FILE_OR_DIR', help='pictures, or folders of them'
  )
  source.add_argument(
    '--video', type=pathlib.Path, metavar='FILE', help='a video, whose sound is left out'
  )
  source.add_argument(
    '--camera',
    metavar='NUMBER_OR_NAME',
    help='a camera, for example 0, or its name; recorded until Ctrl-C',
  )
  of_pictures = parser.add_argument_group(
    'for pictures',
    'Written are overlays/NAME.png, predictions/NAME.png (segment ids as RGB) and predictions.json '
    "(COCO's panoptic format, with labels and scores).",
  )
  of_pictures.add_argument(
    '--output_dir',
    type=pathlib.Path,
    help=f'folder for the results (default: {OUTPUT_DIR}; {OUTPUT_DIR}_2 and so on if it exists)',
  )
  of_pictures.add_argument(
    '--batch_size',
    type=positive,
    help=f'pictures at a time, {MAX_BATCH_IMAGES} at most (default: {BATCH_SIZE})',
  )
  of_pictures.add_argument(
    '--testdev',
    metavar='ZIP',
    help="also pack the results for COCO's evaluation server, for example into "
    "panoptic_test-dev2017_oanet_results.zip; pictures must have COCO's names, their ids",
  )
  of_videos = parser.add_argument_group(
    'for a video or a camera', "This needs PyAV: pip install 'oanet_tf[video]'."
  )
  of_videos.add_argument(
    '--output',
    type=pathlib.Path,
    metavar='FILE',
    help='the drawn video, without sound: .mp4, .mov or .mkv (H.264), or a short .gif',
  )
  add_overwrite(parser)
  of_folder = parser.add_argument_group('for the folder of a training')
  add_fusion(of_folder)
  add_params_override(of_folder)
  parsed = parser.parse_args(arguments)
  is_moving = parsed.video is not None or parsed.camera is not None
  if parsed.model and not (parsed.images or is_moving):
    parser.error('--images, --video or --camera is required')
  if is_moving and parsed.output is None:
    parser.error('--output is required for a video or a camera')
  for_pictures = [name for name in ('output_dir', 'batch_size', 'testdev') if getattr(parsed, name)]
  if is_moving and for_pictures:
    parser.error(f'--{for_pictures[0]} is for pictures')
  if parsed.output is not None and not is_moving:
    parser.error('--output is for --video and --camera; pictures have --output_dir')
  return parsed


def main() -> int:
  arguments = parse_arguments()
  log_to_stderr()
  return segment_moving(arguments) if arguments.output else segment_pictures(arguments)


def load_model(arguments: argparse.Namespace) -> 'Model':
  from oanet_tf.prediction.model import load

  if not arguments.model:
    note(
      'without --model: the network that comes with the package, which knows only OccludedScenes'
    )
  return load(arguments.model, fusion=arguments.fusion, params_override=arguments.params_override)


def segment_pictures(arguments: argparse.Namespace) -> int:
  from oanet_tf import files
  from oanet_tf.data.pictures import named_pictures
  from oanet_tf.evaluation import coco_results
  from oanet_tf.prediction import picture_files
  from oanet_tf.prediction.model import SHIPPED_PICTURES

  # Loading a network takes seconds, so everything else is looked at first.
  pictures = named_pictures(arguments.images or [SHIPPED_PICTURES])
  output_dir = arguments.output_dir or picture_files.free_folder(OUTPUT_DIR)
  picture_files.check_output_dir(output_dir, pictures.values(), arguments.overwrite)
  if arguments.testdev:
    coco_results.check_testdev_name(arguments.testdev)
    files.check_output_file(arguments.testdev, overwrite=arguments.overwrite)
  model = load_model(arguments)
  number = picture_files.segment_files(
    model, pictures, output_dir, arguments.batch_size or BATCH_SIZE
  )
  print(f'{number} pictures: {output_dir / "overlays"}, {output_dir / "predictions.json"}')
  if arguments.testdev:
    coco_results.write_testdev_zip(
      output_dir / 'predictions.json', output_dir / 'predictions', arguments.testdev
    )
    print(arguments.testdev)
  return int(number < len(pictures))


def segment_moving(arguments: argparse.Namespace) -> int:
  from oanet_tf.prediction import video

  # As above; but what a camera sees meanwhile is not wanted.
  source = video.open_file(arguments.video) if arguments.video else None
  video.check_output(arguments.output, arguments.video, arguments.overwrite)
  model = load_model(arguments)
  source = source or video.open_camera(arguments.camera)
  written = video.segment_video(model, source, arguments.output)
  width, height = written.size
  print(
    f'{written.frames} frames of {width} x {height} pixels, at {written.rate:.1f} frames/s: '
    f'{arguments.output}'
  )
  return int(not written.is_complete)


if __name__ == '__main__':
  errors.run(main)
