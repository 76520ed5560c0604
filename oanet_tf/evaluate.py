"""Scores fusions on the same detections: `oanet evaluate --help`."""

import argparse
import contextlib
import json
import logging
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from oanet_tf import errors, files
from oanet_tf.arguments import ArgumentParser, add_params_override, log_to_stderr, names
from oanet_tf.config import values as config_values
from oanet_tf.data import shard_files
from oanet_tf.errors import InputError
from oanet_tf.evaluation.instances_json import read_instances
from oanet_tf.files import FilePath, as_list
from oanet_tf.model_folder import ModelFolder

if TYPE_CHECKING:
  from oanet_tf.data.categories import PanopticCategories

# As a command, this module has another name.
log = logging.getLogger('oanet_tf.evaluate')

RESULTS_FILE, BRANCHES_FILE = 'results.json', 'branches.json'


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
  parser = ArgumentParser(
    prog='oanet evaluate',
    description='Computes the panoptic quality of several fusions on the validation split in one '
    'pass. Writes results.json; for each fusion NAME.json and NAME/*.png in '
    "COCO's panoptic format; branches.json with the AP of boxes and masks and the mean IoU of the "
    'stuff branch; and details/, which oanet_tf.report shows.',
  )
  parser.add_argument('--model_dir', required=True, type=pathlib.Path, help='folder of a training')
  parser.add_argument(
    '--fusions',
    type=names,
    default=','.join(config_values.MONITORED_FUSIONS),
    metavar='NAME,…',
    help=f'of {", ".join(config_values.FUSIONS)} (default: %(default)s)',
  )
  parser.add_argument(
    '--output_dir', type=pathlib.Path, help='(default: evaluation/ in the model folder)'
  )
  parser.add_argument(
    '--ranking_module',
    type=pathlib.Path,
    metavar='MODEL_DIR',
    help="folder of another training, whose spatial ranking module replaces this model's",
  )
  parser.add_argument(
    '--instances_json',
    metavar='JSON',
    help="ground-truth objects in COCO's format for the AP of boxes and masks "
    '(default: the panoptic segments)',
  )
  add_params_override(parser)
  return parser.parse_args(arguments)


class Evaluation(NamedTuple):
  """What an evaluation found.

  Attributes:
    quality: for each fusion what `PanopticQuality.result` gives.
    branches: of `BranchScores.result`; None where several workers share the split.
    categories: of the dataset.
    is_chief: whether this worker speaks for all.
  """

  quality: dict[str, dict[str, Any]]
  branches: dict[str, Any] | None
  categories: 'PanopticCategories'
  is_chief: bool


def evaluate(
  model_dir: FilePath,
  fusions: str | Sequence[str] = config_values.MONITORED_FUSIONS,
  *,
  output_dir: FilePath | None = None,
  ranking_module: FilePath | None = None,
  instances_json: FilePath | None = None,
  params_override: str = '',
) -> dict[str, dict[str, Any]]:
  """Scores fusions of a trained network on the validation split in one pass.

  Args:
    model_dir: folder of a training.
    fusions: one or several of `config.values.FUSIONS`.
    output_dir: for `results.json`, predictions in COCO's panoptic format, `branches.json` and
      `details/`; None takes `evaluation/` in the model folder.
    ranking_module: folder of another training, whose ranking module replaces the network's.
    instances_json: ground-truth objects in COCO's format for the AP of boxes and masks; None takes
      the panoptic segments.
    params_override: changes to the folder's `params.yaml`, as `a.b=1,c.d=[2,3]`.

  Returns:
    For each fusion what `panoptic_quality` returns.

  Raises:
    InputError: if a file, a setting or the data is wrong; it names it.
  """
  return run(
    model_dir, fusions, output_dir, ranking_module, instances_json, params_override
  ).quality


def run(
  model_dir: FilePath,
  fusions: Sequence[str],
  output_dir: FilePath | None,
  ranking_module: FilePath | None,
  instances_json: FilePath | None,
  params_override: str,
) -> Evaluation:
  """As `evaluate`, with the scores of the branches."""
  folder = ModelFolder(model_dir, params_override)
  values, categories, methods = folder.values, folder.categories, as_list(fusions)
  for method in methods:
    config_values.check_fusion(method, values, has_ground_truth=True)
  folder.class_prior(methods)
  shards = shard_files.list_shards(values['task.validation_data.input_path'])
  shard_files.check_shards(shards, categories, values['task.validation_data.skip_damaged'])
  module_folder = ranking_module and ranking_module_for(folder, pathlib.Path(ranking_module))
  (module_folder or folder).check_ranking_module(methods)
  for one in (folder, module_folder):
    if one:
      one.check_checkpoint()
  instances = None
  if instances_json:
    shard_files.check_not_turned(shards, str(instances_json))
    instances = read_instances(instances_json, categories)
    instances.check_count(shard_files.count_records(shards))
  if output_dir:
    _check_output_dir(pathlib.Path(output_dir))
  output_dir = pathlib.Path(output_dir or folder.path / 'evaluation')
  files.check_output_folder(output_dir)
  # Loading TensorFlow takes seconds, so flags and configuration are checked first.
  from oanet_tf import cluster as cluster_lib
  from oanet_tf.evaluation.branches import BranchScores
  from oanet_tf.evaluation.details import details_writer
  from oanet_tf.evaluation.scoring import evaluate as score

  config = folder.config
  cluster_lib.configure(config.runtime)
  cluster = cluster_lib.make_cluster(config.runtime)
  log.info('evaluating on %s, in %s', cluster.describe(), folder.precision())
  with cluster.lost_workers_named(), contextlib.ExitStack() as stack:
    if cluster.is_chief:
      stack.enter_context(files.only_one(output_dir, 'evaluation'))
      files.remove_unfinished(output_dir)
    with cluster.strategy.scope():
      trained = folder.load()
      fuser = trained.fuser(methods, module_folder.load() if module_folder else None)
    fusion = config.task.model.fusion
    observers, branches = [], None
    if cluster.num_workers == 1:
      branches = BranchScores(categories, fusion.mask_threshold, instances)
      details = details_writer(output_dir, categories, fusion.score_threshold)
      observers = [branches.add, stack.enter_context(details)]
    quality = score(
      trained.model, fuser, config.task, categories, methods, cluster, output_dir, observers,
      with_ranking_maps=branches is not None,
    )  # fmt: skip
    scores = None
    if branches is not None:
      scores = branches.result()
      files.write_text(output_dir / BRANCHES_FILE, json.dumps(scores, indent=1) + '\n')
  return Evaluation(quality, scores, categories, cluster.is_chief)


def _check_output_dir(folder: pathlib.Path) -> None:
  """Refuses a folder with anything but an earlier evaluation, perhaps one that was interrupted.

  Raises:
    InputError: if it has other files; it names one.
  """
  if not folder.is_dir() or (folder / RESULTS_FILE).is_file():
    return
  own = {'results', 'branches', 'details', *config_values.FUSIONS}
  for path in sorted(folder.iterdir()):
    if path.stem not in own and not path.name.startswith('.'):
      raise InputError(
        f'{folder}: has no {RESULTS_FILE} of an earlier evaluation, but {path.name}; give another '
        '--output_dir'
      )


def main() -> None:
  arguments = parse_arguments()
  log_to_stderr()
  found = run(**vars(arguments))
  from oanet_tf.evaluation.branches import format_branches
  from oanet_tf.evaluation.panoptic_quality import format_table

  # Everything has been written.
  if found.is_chief:
    print(format_table(found.quality, found.categories))
  if found.branches is not None:
    print(format_branches(found.branches))


def ranking_module_for(folder: ModelFolder, module_dir: pathlib.Path) -> ModelFolder:
  """The other training, after checking that its ranking module fits the network.

  Args:
    folder: of the network.
    module_dir: folder of the other training, of a whole network or of the module alone.

  Raises:
    InputError: if the ranking module does not fit.
  """
  if folder.values['task.mode'] != 'panoptic':
    raise InputError(f'{folder.path}: has no detector for the ranking module of {module_dir}')
  other = ModelFolder(module_dir)
  other.categories.check_same(folder.categories)
  return other


if __name__ == '__main__':
  errors.run(main)
