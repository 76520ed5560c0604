"""Makes a model folder of a file of weights that another package published."""

import json
import pathlib
from typing import NamedTuple

from oanet_tf import files
from oanet_tf.config import check as config_check
from oanet_tf.config import experiments, plain_yaml
from oanet_tf.errors import InputError
from oanet_tf.model_folder import IMPORT_FILE, ModelFolder, write_model
from oanet_tf.modeling.build import build_network
from oanet_tf.modeling.oanet import OANet
from oanet_tf.weights import coco_rows, origins
from oanet_tf.weights.initialization import MAX_NAMES, PartReport, load_weights
from oanet_tf.weights.model_garden_params import settings_beside
from oanet_tf.weights.opening import open_weights
from oanet_tf.weights.stored import WeightsFile


class Imported(NamedTuple):
  """What became of a file's tensors and of the network's variables.

  Attributes:
    source: path of the file.
    name: what it is.
    experiment: registered, of the same network.
    not_used: the file's tensors that no network needs.
    identity: the network's variables of normalization that the file's network does not have.
    own: the network's other variables that the file has nothing for, which are random, by part.
    ranking_module: path of the folder that the ranking module came from; None if it is random.
  """

  source: str
  name: str
  experiment: str
  not_used: list[str]
  identity: list[str]
  own: dict[str, list[str]]
  ranking_module: str | None


def import_weights(
  path: str,
  model_dir: pathlib.Path,
  ranking_module: pathlib.Path | None = None,
  params_override: str = '',
) -> Imported:
  """Writes a model folder: `params.yaml`, `categories.json`, a checkpoint and `import.json`.

  Args:
    path: of a file that `origins.origin_of` knows.
    model_dir: is made, or is empty. Nothing is left there on an error.
    ranking_module: model folder of the module alone, or of a whole network, for COCO's categories.
    params_override: changes to the configuration.

  Raises:
    InputError: if the file or the ranking module does not fit, or another process makes the folder.
  """
  model_dir = pathlib.Path(model_dir)
  name = model_dir.name
  with files.only_one(model_dir.parent, f'import into {name}', f'{name}.import'):
    return _import(path, model_dir, ranking_module, params_override)


def _import(
  path: str, model_dir: pathlib.Path, ranking_module: pathlib.Path | None, params_override: str
) -> Imported:
  file = open_weights(path)
  origin = origins.origin_of(file)
  # Merging by random ranking scores would be worse than by detection scores.
  settings = {**origin.settings, 'task.model.fusion.method': 'heuristic'}
  if isinstance(file, origins.Checkpoint):
    settings |= settings_beside(path)
  module = ModelFolder(ranking_module) if ranking_module else None
  if module:
    settings |= _settings_of_module(module, path)
  config = experiments.load_experiment(
    origin.experiment, (), plain_yaml.write(config_check.nested(settings))
  )
  config = experiments.override(config, (), params_override)
  model = build_network(config.task, coco_rows.coco_categories())
  reports = load_weights(model, file)
  not_used, left = origins.of_no_use(file.unused())
  _check_complete(file, reports, left, origin.has_stuff_head)
  absent = [(part, name) for part, report in reports.items() for name in report.absent]
  identity = [f'{part}/{name}' for part, name in absent if file.never_has(part, name)]
  own = {}
  for part, name in absent:
    if f'{part}/{name}' not in identity:
      own.setdefault(part, []).append(name)
  if module:
    _copy_ranking_module(module, model)
    del own['spatial_ranking']
  source = str(module.path) if module else None
  imported = Imported(path, origin.name, origin.experiment, not_used, identity, own, source)
  with files.making_folder(model_dir) as folder:
    write_model(folder, model, config, coco_rows.coco_categories())
    files.write_text(folder / IMPORT_FILE, json.dumps(imported._asdict(), indent=1) + '\n')
  return imported


def _settings_of_module(module: ModelFolder, path: str) -> dict[str, object]:
  """The settings of a network that ranks by another training's module."""
  if difference := module.categories.difference(coco_rows.coco_categories()):
    raise InputError(
      f'{module.path}: its ranking module has other categories than {path}: {difference}'
    )
  module.check_ranking_module(['srm'])
  group = 'task.model.spatial_ranking'
  return {
    'task.model.fusion.method': 'srm',
    **{key: value for key, value in module.values.items() if key.startswith(f'{group}.')},
  }


def _copy_ranking_module(module: ModelFolder, model: OANet) -> None:
  ours, theirs = model.spatial_ranking, module.load().model.spatial_ranking
  for variable, value in zip(ours.variables, theirs.variables, strict=True):
    variable.assign(value)


def _check_complete(
  file: WeightsFile, reports: dict[str, PartReport], left: list[str], has_stuff_head: bool
) -> None:
  """Refuses tensors that the network has no place for, and variables that the file must have."""
  path = file.path
  for part, report in reports.items():
    if report.other_shape:
      raise InputError(f"{path}: {part}'s {report.reason(next(iter(report.other_shape)))}")
    is_random = part == 'spatial_ranking' or (part == 'stuff_head' and not has_stuff_head)
    missing = [name for name in report.absent if not file.never_has(part, name)]
    if missing and not is_random:
      raise InputError(f"{path}: lacks {part}'s {missing[0]}, and {len(missing) - 1} more")
  if left:
    names = ', '.join(left[:MAX_NAMES])
    raise InputError(f'{path}: the network has no place for {len(left)} of its tensors: {names}')
