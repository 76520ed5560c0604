"""Segments the user's pictures: `python -m oanet_tf.predict --help`."""

import argparse
import pathlib

from oanet_tf import errors
from oanet_tf.arguments import add_fusion, add_params_override, positive
from oanet_tf.errors import InputError
from oanet_tf.model_folder import ModelFolder
from oanet_tf.serving import segment_files


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    prog='python -m oanet_tf.predict',
    description='Segments pictures and draws the result. Writes overlays/NAME.png, '
    "predictions/NAME.png (segment ids as RGB) and predictions.json (COCO's panoptic format). "
    'A picture that cannot be read is reported and skipped, and the exit code is then 1.',
  )
  parser.add_argument(
    '--model',
    required=True,
    type=pathlib.Path,
    help='folder of a training, SavedModel or .tflite file of python -m oanet_tf.export',
  )
  parser.add_argument(
    '--images', required=True, nargs='+', metavar='FILE_OR_DIR', help='pictures, or folders of them'
  )
  parser.add_argument(
    '--output_dir', required=True, type=pathlib.Path, help='folder for the results'
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
  return parser.parse_args(arguments)


def main() -> int:
  arguments = parse_arguments()
  from oanet_tf.data.pictures import find_pictures
  from oanet_tf.evaluation import coco_results

  if arguments.testdev:
    coco_results.check_testdev_name(arguments.testdev)
  kind, path = segment_files.find_model(arguments.model)
  if kind == 'model_folder':
    folder = ModelFolder(path, arguments.params_override)
    method = folder.fusion(arguments.fusion)
  elif arguments.fusion or arguments.params_override:
    raise InputError(
      f'{path}: an export has fixed settings; --fusion and --params_override are for the folder of '
      'a training'
    )
  pictures = find_pictures(arguments.images)
  # Loading TensorFlow takes seconds, so the arguments are checked first.
  from oanet_tf.serving import loading

  if kind == 'model_folder':
    predictor = loading.of_trained(folder.load(), method)
  else:
    predictor = {'saved_model': loading.of_saved_model, 'tflite': loading.of_tflite}[kind](path)
  output_dir = arguments.output_dir
  number = segment_files.segment_files(predictor, pictures, output_dir, arguments.batch_size)
  print(f'{number} pictures: {output_dir / "overlays"}, {output_dir / "predictions.json"}')
  if arguments.testdev:
    coco_results.write_testdev_zip(
      output_dir / 'predictions.json', output_dir / 'predictions', arguments.testdev
    )
    print(arguments.testdev)
  return int(number < len(pictures))


if __name__ == '__main__':
  errors.run(main)
