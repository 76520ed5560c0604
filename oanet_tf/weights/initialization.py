"""Loads initial weights from files of this package and of others.

Variables are matched by name and shape, not by the order in which they were created. Optimizer
slots, including averaged weights, are ignored.
"""

import logging
from typing import NamedTuple

import tensorflow as tf
import tf_keras

from oanet_tf.errors import InputError
from oanet_tf.modeling.oanet import OANet
from oanet_tf.modeling.srm_only import SRMOnly
from oanet_tf.weights.opening import open_weights
from oanet_tf.weights.stored import Shape, Stored, WeightsFile, named_errors

log = logging.getLogger(__name__)

# The stuff branch's own parts, and the parts that initialize them if the file lacks them.
STAND_INS = {'stuff_backbone': 'backbone', 'stuff_decoder': 'decoder'}
# Most names of variables in a message; further ones are counted.
MAX_NAMES = 3


class PartReport(NamedTuple):
  """The names of the variables of one part of the network, by what became of them.

  Attributes:
    loaded: those that took the file's value.
    absent: those that the file does not have.
    other_shape: those with another shape in the file, with the network's shape and the file's.
  """

  loaded: list[str]
  absent: list[str]
  other_shape: dict[str, tuple[Shape, Shape]]

  def __str__(self) -> str:
    total = len(self.loaded) + len(self.absent) + len(self.other_shape)
    facts = [f'{len(self.loaded)} of {total} variables loaded']
    if self.other_shape:
      facts.append(_shortened([self.reason(name) for name in self.other_shape]))
    if self.absent:
      # If the file has nothing of a part, the names say nothing.
      names = f': {_shortened(self.absent)}' if len(self.absent) < total else ''
      facts.append(f'{len(self.absent)} not in the file{names}')
    return '; '.join(facts)

  def reason(self, name: str) -> str:
    """Why a variable was not loaded."""
    if name not in self.other_shape:
      return f'{name} is not in the file'
    ours, theirs = self.other_shape[name]
    return f'{name} is {list(ours)} here but {list(theirs)} in the file'


def load_initial_weights(
  model: OANet | SRMOnly, path: str, modules: str = 'all'
) -> dict[str, PartReport]:
  """Assigns the values in a file to the network's variables, and logs which.

  Args:
    model: the network with its variables created, under any `tf.distribute` strategy.
    path: of `opening.open_weights`.
    modules: of `load_weights`.

  Raises:
    InputError: as `open_weights` and `load_weights`.
  """
  reports = load_weights(model, open_weights(path), modules)
  log.info('initial weights: %s', path)
  for part, report in reports.items():
    log.info('%s: %s', part, report)
  return reports


def load_weights(
  model: OANet | SRMOnly, file: WeightsFile, modules: str = 'all'
) -> dict[str, PartReport]:
  """Assigns the values in a file to the network's variables.

  The stuff branch's own backbone and decoder (Table 4) start like the instance branch's, unless the
  file has them. A backbone that fits only in part is an error. On an error, nothing is assigned.

  Args:
    model: the network with its variables created, under any `tf.distribute` strategy.
    file: of `opening.open_weights`.
    modules: 'all' for what fits by name and shape; 'backbone' or 'backbone,decoder' for all of
      these parts, as in `official.vision.configs.maskrcnn.MaskRCNNTask.init_checkpoint_modules`.

  Returns:
    A report for each part of the network that the modules name.

  Raises:
    InputError: if the file is damaged, lacks a variable of the given modules, has another backbone,
      or has nothing for this network.
  """
  path, parts = file.path, _parts(model, modules)
  sources = {part: part if file.has(part) else STAND_INS.get(part, part) for part in parts}
  reports, assignments = {}, []
  for part, layer in parts.items():
    file.check(part, sources[part], layer)
    reports[part], found = _match(file, sources[part], layer)
    assignments += found
  _check(path, file, sources, reports, modules)
  with named_errors(path):
    values = [stored.read() for _, stored in assignments]
  for (variable, _), value in zip(assignments, values, strict=True):
    variable.assign(value)
  for part, layer in parts.items():
    _make_identity(file, sources[part], layer)
  return reports


def _make_identity(file: WeightsFile, part: str, layer: tf_keras.layers.Layer) -> None:
  """Makes normalization that the file's network does not have the identity, to the last digit."""
  if not file.has(part):
    return
  names = {id(variable): name for name, variable in file.named_variables(layer).items()}
  for norm in layer.submodules:
    if not isinstance(norm, tf_keras.layers.BatchNormalization) or not norm.built:
      continue
    if file.never_has(part, names[id(norm.moving_variance)]):
      norm.moving_variance.assign(tf.ones_like(norm.moving_variance) - norm.epsilon)


def _parts(model: OANet | SRMOnly, modules: str) -> dict[str, tf_keras.layers.Layer]:
  """The parts of the network that have variables and that `modules` names."""
  return {
    name: child
    for name, child in tf.train.TrackableView.children(model).items()
    if getattr(child, 'weights', None)
    and (modules == 'all' or STAND_INS.get(name, name) in modules.split(','))
  }


def _match(
  file: WeightsFile, source: str, layer: tf_keras.layers.Layer
) -> tuple[PartReport, list[tuple[tf.Variable, Stored]]]:
  report, found = PartReport([], [], {}), []
  if not file.has(source):
    report.absent.extend(variable.name for variable in layer.weights)
    return report, found
  for name, variable in file.named_variables(layer).items():
    stored, shape = file.find(source, name), tuple(variable.shape)
    if stored is None:
      report.absent.append(name)
    elif stored.shape != shape:
      report.other_shape[name] = shape, stored.shape
    else:
      report.loaded.append(name)
      found.append((variable, stored))
  return report, found


def _check(
  path: str,
  file: WeightsFile,
  sources: dict[str, str],
  reports: dict[str, PartReport],
  modules: str,
) -> None:
  """Refuses parts that must be loaded in full but are not, and files with nothing to load."""
  for part, report in reports.items():
    module = STAND_INS.get(part, part)
    has_part = file.has(sources[part])
    absent = [name for name in report.absent if not file.never_has(sources[part], name)]
    left = [*report.other_shape, *(absent if has_part else report.absent)]
    if left and not has_part and modules != 'all':
      raise InputError(f'{path}: has no {module}; change task.init_checkpoint_modules, {modules!r}')
    if left and has_part and (modules != 'all' or module == 'backbone'):
      raise InputError(
        f'{path}: has another {module} than task.model.{module} ({report.reason(left[0])})'
      )
  if not any(report.loaded for report in reports.values()):
    raise InputError(f'{path}: has nothing that fits this network by name and shape')


def _shortened(items: list[str]) -> str:
  more = f' and {len(items) - MAX_NAMES} more' if len(items) > MAX_NAMES else ''
  return ', '.join(items[:MAX_NAMES]) + more
