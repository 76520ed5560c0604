"""Segments the user's pictures: `oanet predict --help`."""

import argparse
import pathlib
import sys

from oanet_tf import errors
from oanet_tf.arguments import add_fusion, add_params_override, positive


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    prog='oanet predict',
    description='Segments pictures and draws the result. Writes overlays/NAME.png, '
    "predictions/NAME.png (segment ids as RGB) and predictions.json (COCO's panoptic format, with "
    'labels and scores). A picture that cannot be read is reported and skipped, and the exit code '
    'is then 1.',
    epilog='Without --model, the small network that comes with the package is used. It knows only '
    'the generated pictures of OccludedScenes; two of them are segmented if no pictures are given.',
  )
  parser.add_argument(
    '--model',
    type=pathlib.Path,
    help='folder of a training, SavedModel or .tflite file of oanet export',
  )
  parser.add_argument(
    '--images', nargs='+', default=[], metavar='FILE_OR_DIR', help='pictures, or folders of them'
  )
  parser.add_argument(
    '--output_dir',
    type=pathlib.Path,
    default=pathlib.Path('oanet_results'),
    help='folder for the results (default: %(default)s)',
  )
  parser.add_argument(
    '--batch_size', type=positive, default=4, help='pictures at a time (default: %(default)s)'
  )
  parser.add_argument(
    '--testdev',
    metavar='ZIP',
    help="also pack the results for COCO's evaluation server, for example into "
    "panoptic_test-dev2017_oanet_results.zip; pictures must have COCO's names, their ids",
  )
  of_folder = parser.add_argument_group('for the folder of a training')
  add_fusion(of_folder)
  add_params_override(of_folder)
  parsed = parser.parse_args(arguments)
  if parsed.model and not parsed.images:
    parser.error('--images is required')
  return parsed


def main() -> int:
  arguments = parse_arguments()
  from oanet_tf.data.pictures import find_pictures
  from oanet_tf.evaluation import coco_results
  from oanet_tf.prediction.model import SHIPPED_PICTURES, load
  from oanet_tf.prediction.picture_files import segment_files

  if arguments.testdev:
    coco_results.check_testdev_name(arguments.testdev)
  # Loading a network takes seconds, so the pictures are looked for first.
  pictures = find_pictures(arguments.images or [SHIPPED_PICTURES])
  if not arguments.model:
    print(
      'without --model: the network that comes with the package, which knows only OccludedScenes',
      file=sys.stderr,
    )
  model = load(arguments.model, fusion=arguments.fusion, params_override=arguments.params_override)
  output_dir = arguments.output_dir
  number = segment_files(model, pictures, output_dir, arguments.batch_size)
  print(f'{number} pictures: {output_dir / "overlays"}, {output_dir / "predictions.json"}')
  if arguments.testdev:
    coco_results.write_testdev_zip(
      output_dir / 'predictions.json', output_dir / 'predictions', arguments.testdev
    )
    print(arguments.testdev)
  return int(number < len(pictures))


if __name__ == '__main__':
  errors.run(main)
