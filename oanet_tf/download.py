"""Fetches COCO, backbones and published networks: `oanet download --help`."""

import argparse
import pathlib
from collections.abc import Sequence

from oanet_tf import errors
from oanet_tf.arguments import ArgumentParser
from oanet_tf.downloads import backbones, coco, published
from oanet_tf.printing import shown


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
  parser = ArgumentParser(
    prog='oanet download',
    description='Fetches COCO, backbones and published networks. Interrupted and run again, it '
    'continues where it stopped. Variables of the environment may name mirrors: COCO_URL, '
    'BACKBONE_URL and MODEL_URL.',
  )
  subparsers = parser.add_subparsers(dest='what', required=True, metavar='coco|backbone|model')

  coco_parser = subparsers.add_parser(
    'coco',
    help='images and annotations of COCO 2017',
    description="Fetches COCO 2017's images and its instance and panoptic annotations (20 GB) and "
    'unpacks them. Interrupted and run again, it continues where it stopped. COCO_URL may name a '
    'mirror.',
  )
  coco_parser.add_argument(
    '--annotations_only', action='store_true', help='fetch no images (1.1 GB)'
  )
  coco_parser.add_argument('folder', type=pathlib.Path, metavar='FOLDER', help='where it goes')

  backbone_parser = subparsers.add_parser(
    'backbone',
    help='a ResNet trained on ImageNet',
    description="Fetches the ImageNet checkpoint of the Model Garden's ResNet. Give the last line "
    'that it prints to oanet train after --params_override. Interrupted and run again, it '
    'continues where it stopped. BACKBONE_URL may name a mirror.',
  )
  backbone_parser.add_argument(
    '--keras', action='store_true', help='fetch the weights of tf_keras.applications instead'
  )
  backbone_parser.add_argument(
    'depth',
    nargs='?',
    type=int,
    choices=backbones.DEPTHS,
    default=50,
    metavar='50|101|152',
    help='its depth (default: %(default)s)',
  )
  _add_folder(backbone_parser, 'runs/backbones')

  networks = published.DETECTRON2 | published.MODEL_GARDEN
  names = [f'  {name:<18}  {network.about}' for name, network in networks.items()]
  description = [
    'Fetches a network that its publisher trained on COCO. The last line that it prints',
    'is the command that makes a model folder of it. Interrupted and run again, it',
    'continues where it stopped. MODEL_URL may name a mirror. NAME is one of',
    *names,
  ]
  model_parser = subparsers.add_parser(
    'model',
    help='a panoptic network that its publisher trained on COCO',
    formatter_class=argparse.RawDescriptionHelpFormatter,
    description='\n'.join(description),
  )
  model_parser.add_argument('name', choices=networks, metavar='NAME')
  _add_folder(model_parser, 'runs/published')
  return parser.parse_args(arguments)


def _add_folder(parser: argparse.ArgumentParser, default: str) -> None:
  parser.add_argument(
    'folder',
    nargs='?',
    type=pathlib.Path,
    default=default,
    metavar='FOLDER',
    help='where it goes (default: %(default)s)',
  )


def main() -> None:
  arguments = parse_arguments()
  if arguments.what == 'coco':
    coco.download(arguments.folder, arguments.annotations_only)
  elif arguments.what == 'backbone':
    print(shown(backbones.download(arguments.depth, arguments.folder, arguments.keras)))
  else:
    weights = published.download(arguments.name, arguments.folder)
    print(shown(f'oanet import_weights --from {weights} --model_dir runs/{arguments.name}'))


if __name__ == '__main__':
  errors.run(main)
