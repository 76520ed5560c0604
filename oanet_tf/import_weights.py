"""Imports the weights of other packages: `oanet import_weights --help`."""

import argparse
import pathlib

from oanet_tf import errors, files
from oanet_tf.arguments import ArgumentParser, add_params_override, log_to_stderr
from oanet_tf.config.check import OVERRIDE
from oanet_tf.config.text import parse_override
from oanet_tf.errors import InputError
from oanet_tf.model_folder import ModelFolder, check_weights_exist
from oanet_tf.printing import shown

# Most names of a kind that are printed; `import.json` has all.
_MAX_NAMES = 4


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
  parser = ArgumentParser(
    prog='oanet import_weights',
    description='Makes a model folder of a network that another package trained on COCO, for '
    'predict, evaluate and export. To train it further, give the folder to task.init_checkpoint.',
    epilog="The file may be Detectron2's Panoptic FPN (.pkl or .pth), a checkpoint of the Model "
    "Garden's Panoptic FPN (the path up to .index; a params.yaml beside it is read too) or "
    "torchvision's Mask R-CNN (.pth), which has no stuff head. What it is, is told by its content. "
    'No code in it is run.',
  )
  parser.add_argument('--from', dest='source', required=True, metavar='FILE', help='the weights')
  parser.add_argument('--model_dir', required=True, type=pathlib.Path, help='the folder to make')
  parser.add_argument(
    '--ranking_module',
    type=pathlib.Path,
    metavar='DIR',
    help='folder of a training of the ranking module on COCO (experiment srm_only_coco); without '
    'it, instances are merged by detection score',
  )
  add_params_override(parser, 'to the configuration of the network')
  return parser.parse_args(arguments)


def main() -> None:
  arguments = parse_arguments()
  source, model_dir = arguments.source, arguments.model_dir
  check_weights_exist(source)
  if model_dir.exists() and (not model_dir.is_dir() or any(model_dir.iterdir())):
    raise InputError(f'{model_dir}: exists already; give the path of a new folder')
  files.check_output_folder(model_dir)
  parse_override(arguments.params_override, OVERRIDE)
  if arguments.ranking_module:
    module = ModelFolder(arguments.ranking_module)
    module.check_ranking_module(['srm'])
    module.check_checkpoint()
  # Loading TensorFlow takes seconds, so the arguments are checked first.
  from oanet_tf.weights.importing import import_weights

  log_to_stderr()
  imported = import_weights(source, model_dir, arguments.ranking_module, arguments.params_override)
  print(f'{model_dir}: {imported.name} as {imported.experiment}')
  for part, names in imported.own.items():
    print(f'not in the file, so random: {len(names)} variables of {part}')
  if imported.identity:
    print(f'not in the file, so the identity: {len(imported.identity)} variables of normalization')
  if imported.not_used:
    print(f'not used of the file: {len(imported.not_used)}, {shown(_shortened(imported.not_used))}')
  if 'stuff_head' in imported.own:
    print('the stuff head is random, so all stuff is void until it is trained')
  if imported.ranking_module is None:
    print('no ranking module: instances are merged by detection score (--fusion heuristic)')


def _shortened(names: list[str]) -> str:
  return ', '.join(names[:_MAX_NAMES]) + (', …' if len(names) > _MAX_NAMES else '')


if __name__ == '__main__':
  errors.run(main)
