"""Reads a model folder: its configuration, categories and weights."""

import dataclasses
import functools
import logging
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from oanet_tf import files
from oanet_tf.config import check as config_check
from oanet_tf.config import plain_yaml
from oanet_tf.config import values as config_values
from oanet_tf.config.text import parse_override
from oanet_tf.config.values import PARAMS_FILE
from oanet_tf.data import shard_files
from oanet_tf.data.categories import CATEGORIES_FILE, PanopticCategories
from oanet_tf.data.json_file import read_json_object
from oanet_tf.errors import InputError, first_line
from oanet_tf.files import FilePath

if TYPE_CHECKING:
  # These load TensorFlow, which takes seconds.
  import numpy as np
  import tensorflow as tf
  from official.core import config_definitions

  from oanet_tf.modeling.fusion.fuser import Fuser
  from oanet_tf.modeling.oanet import OANet
  from oanet_tf.modeling.precision import Precision
  from oanet_tf.modeling.srm_only import SRMOnly

log = logging.getLogger(__name__)


# Says where an imported network came from; see `weights.importing`.
IMPORT_FILE = 'import.json'


def find_categories(named: str, input_path: str, model_dir: pathlib.Path) -> PanopticCategories:
  """The categories of a training: those that are named, of its checkpoint, or beside the shards.

  Args:
    named: `task.categories`.
    input_path: of the shards.
    model_dir: of the training.

  Raises:
    InputError: if the file is missing or malformed.
  """
  if named:
    return PanopticCategories.from_json(named)
  of_model = model_dir / CATEGORIES_FILE
  if has_checkpoint(model_dir) and of_model.is_file():
    return PanopticCategories.from_json(of_model)
  first, *_ = shard_files.list_shards(input_path)
  return PanopticCategories.from_json(pathlib.Path(first).parent / CATEGORIES_FILE)


def has_checkpoint(folder: pathlib.Path) -> bool:
  """Whether there is one, perhaps a damaged one."""
  return any(folder.glob('ckpt-*.index'))


def check_checkpoint(model_dir: pathlib.Path, subfolder: str = '') -> None:
  """Raises `InputError` if there is no checkpoint in a model folder or a folder in it."""
  if not has_checkpoint(model_dir) and not has_checkpoint(model_dir / subfolder):
    raise InputError(f'{model_dir}: has no checkpoint; train first, or give another model folder')


def check_is_training(model_dir: pathlib.Path) -> None:
  """Raises `InputError` if a folder has an imported network, or categories of something else."""
  if not model_dir.joinpath(PARAMS_FILE).exists() and model_dir.joinpath(CATEGORIES_FILE).exists():
    raise InputError(
      f'{model_dir}: has a {CATEGORIES_FILE} but no {PARAMS_FILE}, so it is no folder of a '
      'training; give another'
    )
  if (model_dir / IMPORT_FILE).is_file():
    raise InputError(
      f'{model_dir}: is an imported network and no training; train in another folder, with '
      f'task.init_checkpoint={model_dir}'
    )


def check_weights_exist(path: str) -> None:
  """Raises `InputError` if there is no file of weights, folder or checkpoint at a local path."""
  if '://' not in path and not any(os.path.exists(one) for one in (path, f'{path}.index')):
    raise InputError(f'{path}: there is no such file (and no {path}.index of a checkpoint)')


def write_settings(
  folder: pathlib.Path,
  config: 'config_definitions.ExperimentConfig',
  categories: PanopticCategories,
) -> None:
  """Writes what a model folder has besides checkpoints.

  Raises:
    InputError: if a file cannot be written.
  """
  files.write_text(folder / PARAMS_FILE, plain_yaml.write(config.as_dict()))
  categories.to_json(folder / CATEGORIES_FILE)


def write_model(
  folder: pathlib.Path,
  model: 'OANet | SRMOnly',
  config: 'config_definitions.ExperimentConfig',
  categories: PanopticCategories,
) -> None:
  """Fills a model folder with a network that was not trained here.

  Raises:
    InputError: if a file cannot be written.
  """
  import tensorflow as tf

  from oanet_tf.training import checkpoints

  write_settings(folder, config, categories)
  checkpoints.save(tf.train.Checkpoint(model=model), folder, step=0, max_to_keep=1)


def _without_initial_values(
  create: 'Callable[..., tf.Variable]', **arguments: Any
) -> 'tf.Variable':
  """Makes a variable of zeros, for weights that are read next; random ones take seconds."""
  import tensorflow as tf

  # Keras' layers give a shape; other variables, such as a metric's, come with a value.
  if shape := arguments['shape']:
    arguments['initial_value'] = functools.partial(tf.zeros, shape, arguments['dtype'])
  return create(**arguments)


class Trained(NamedTuple):
  """A trained network, its configuration and its categories."""

  model: 'OANet | SRMOnly'
  config: 'config_definitions.ExperimentConfig'
  categories: PanopticCategories

  def fuser(self, methods: Sequence[str], ranked_by: 'Trained | None' = None) -> 'Fuser':
    """The `Fuser` for the network's outputs.

    Args:
      methods: of fusion; 'class_prior' reads the file that the configuration names.
      ranked_by: another training, whose ranking module replaces the network's own.

    Raises:
      InputError: if that file cannot be read or is for other categories.
    """
    from oanet_tf.data.class_prior import load_table
    from oanet_tf.modeling.build import build_fuser

    task = self.config.task
    class_prior = load_table(task.model.fusion.class_prior, self.categories, methods)
    fuser = build_fuser(task, self.model, class_prior)
    if ranked_by is None:
      return fuser
    return dataclasses.replace(
      fuser,
      ranking_module=ranked_by.model.spatial_ranking,
      scored_pixels=ranked_by.config.task.model.spatial_ranking.scored_pixels,
    )


class ModelFolder:
  """The folder of a training, of which only `params.yaml` and `categories.json` are read at first.

  Attributes:
    path: of the folder.
    values: of the configuration's active keys.
    categories: of the dataset.

  Args:
    path: of the folder.
    params_override: changes to its configuration, as `a.b=1,c.d=[2,3]` or YAML text.

  Raises:
    InputError: if it is no model folder, or the changes do not fit.
  """

  def __init__(self, path: FilePath, params_override: str = ''):
    self.path = pathlib.Path(path)
    self._override = params_override
    self._params = config_check.params_path(path)
    settings = config_check.resolve_experiment(
      config_check.BASE_EXPERIMENT, [self._params], params_override
    )
    self.values = config_check.active_values(settings)
    self.categories = PanopticCategories.from_json(self.path / CATEGORIES_FILE)
    changes = dict(config_check.flatten(parse_override(params_override, config_check.OVERRIDE)))
    if named := changes.get('task.categories'):
      # The network's stay; the file that a training was given may be elsewhere by now.
      PanopticCategories.from_json(named).check_same(self.categories)

  def fusion(self, method: str | None = None) -> str:
    """The name of a fusion, after checking that the network can predict with it.

    Args:
      method: its name; None takes the configured one.

    Raises:
      InputError: if there is no such fusion, it lacks something, or the folder has no detector.
    """
    if self.values['task.mode'] != 'panoptic':
      raise InputError(
        f'{self.path}: has only the spatial ranking module (task.mode is '
        f'{self.values["task.mode"]!r}); initialize a whole network from it with '
        'task.init_checkpoint'
      )
    method = method or self.values['task.model.fusion.method']
    config_values.check_fusion(method, self.values)
    self.check_ranking_module([method])
    self.class_prior([method])
    self.check_checkpoint()
    return method

  def check_checkpoint(self) -> None:
    """Raises `InputError` if there are no weights."""
    check_checkpoint(self.path, self.values['trainer.best_checkpoint_export_subdir'])

  def check_ranking_module(self, methods: Sequence[str]) -> None:
    """Refuses to rank by the random weights that an import leaves where none are given.

    Args:
      methods: of fusion; only 'srm' ranks.

    Raises:
      InputError: if the folder was imported without a ranking module.
    """
    imported = self.path / IMPORT_FILE
    if 'srm' not in methods or not imported.is_file():
      return
    if read_json_object(imported).get('ranking_module') is None:
      raise InputError(
        f'{self.path}: was imported without a ranking module, which the fusion srm needs; import '
        'it again with --ranking_module, or use --fusion heuristic'
      )

  def class_prior(self, methods: Sequence[str]) -> 'np.ndarray | None':
    """The [T, T] table of the fusion 'class_prior', or None if that is not among the methods.

    Raises:
      InputError: if the file cannot be read or is for other categories.
    """
    from oanet_tf.data.class_prior import load_table

    return load_table(self.values['task.model.fusion.class_prior'], self.categories, methods)

  @functools.cached_property
  def config(self) -> 'config_definitions.ExperimentConfig':
    """The configuration as the Model Garden's dataclasses."""
    from oanet_tf.config import experiments

    return experiments.load_experiment(config_check.BASE_EXPERIMENT, [self._params], self._override)

  def precision(self, setting: str | None = None) -> 'Precision':
    """What the network is to compute in.

    Args:
      setting: 'auto', 'float32' or 'bfloat16'; None takes what the training's configuration says,
        but where that is float16, 'auto', as other machines may be slow in it.
    """
    from oanet_tf.modeling.precision import choose

    configured = self.config.runtime.mixed_precision_dtype
    return choose(setting or ('auto' if configured == 'float16' else configured))

  def load(self, precision: str | None = None) -> Trained:
    """The network with its best weights.

    These are the best of the evaluations during training. Without an evaluation, they are the
    newest weights, or their moving averages if training kept them.

    Args:
      precision: the `setting` of `precision`.

    Raises:
      InputError: if there is no checkpoint, or the changes make another network.
    """
    import tensorflow as tf

    from oanet_tf.modeling.build import build_network
    from oanet_tf.modeling.precision import computing_in
    from oanet_tf.training import checkpoints
    from oanet_tf.training.optimizer import load_averages

    config = self.config
    subfolder = config.trainer.best_checkpoint_export_subdir
    best = checkpoints.newest_readable(self.path / subfolder) if subfolder else None
    path = best or checkpoints.newest(self.path)
    chosen = self.precision(precision)
    log.info('weights of %s, in %s', path, chosen)
    with computing_in(chosen.dtype), tf.variable_creator_scope(_without_initial_values):
      model = build_network(config.task, self.categories)
    try:
      if best or config.trainer.optimizer_config.ema is None:
        checkpoint = tf.train.Checkpoint(model=model)
        # The checkpoint of a training also has the optimizer's slots and the step.
        checkpoint.restore(
          files.for_tensorflow(path)
        ).expect_partial().assert_existing_objects_matched()
      else:
        load_averages(model, config, path)
    except (AssertionError, ValueError) as error:
      raise InputError(
        f'{path}: does not fit the configuration ({first_line(error)}); leave out changes of the '
        'network'
      ) from None
    return Trained(model, config, self.categories)
