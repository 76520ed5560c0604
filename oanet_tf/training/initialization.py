"""Loads initial weights from checkpoints of the Model Garden or this package, or from Keras' files.

Variables are matched by name and shape, not by the order in which they were created. Optimizer
slots, including averaged weights, are ignored.
"""

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import NamedTuple

import h5py
import numpy as np
import tensorflow as tf
import tf_keras
from tensorflow.core.protobuf import trackable_object_graph_pb2

from oanet_tf.errors import InputError
from oanet_tf.modeling.keras_resnet import KerasResNet
from oanet_tf.modeling.oanet import OANet
from oanet_tf.modeling.srm_only import SRMOnly

log = logging.getLogger(__name__)

# The stuff branch's own parts, and the parts that initialize them if the file lacks them.
STAND_INS = {'stuff_backbone': 'backbone', 'stuff_decoder': 'decoder'}
# In a functional model, layers are numbered in the order of computation.
_NUMBERED_LAYER = 'layer_with_weights-'
# Most names of variables in a message; further ones are counted.
MAX_NAMES = 3
# Number of conv4 blocks in a Keras ResNet -> its depth.
BLOCKS_TO_DEPTH = {6: 50, 23: 101, 36: 152}

Shape = tuple[int, ...]


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


class Stored(NamedTuple):
  """A variable in a file."""

  shape: Shape
  read: Callable[[], np.ndarray]


def load_initial_weights(
  model: OANet | SRMOnly, path: str, modules: str = 'all'
) -> dict[str, PartReport]:
  """Assigns the values in a file to the network's variables, and logs which.

  The stuff branch's own backbone and decoder (Table 4) start like the instance branch's, unless the
  file has them. A backbone that fits only in part is an error. On an error, nothing is assigned.

  Args:
    model: the network with its variables created, under any `tf.distribute` strategy.
    path: a TensorFlow 2 checkpoint, with or without `.index`; a folder, for its newest one; or a
      `.h5` file of `tf_keras.applications.ResNet50`, 101 or 152, with or without top. A checkpoint
      has the parts at its root, as the Model Garden's `official.core.base_trainer.Trainer` writes
      them, or in `model`, as this package does.
    modules: 'all' for what fits by name and shape; 'backbone' or 'backbone,decoder' for all of
      these parts, as in `official.vision.configs.maskrcnn.MaskRCNNTask.init_checkpoint_modules`.

  Returns:
    A report for each part of the network that the modules name.

  Raises:
    InputError: if there is no such file, it is damaged or of another kind, lacks a variable of the
      given modules, has another backbone, or has nothing for this network.
  """
  parts = _parts(model, modules)
  file = _open(path, model)
  sources = {part: part if file.has(part) else STAND_INS.get(part, part) for part in parts}
  reports, assignments = {}, []
  for part, layer in parts.items():
    if STAND_INS.get(part, part) == 'decoder':
      _check_layers(path, file, sources[part], layer)
    reports[part], found = _match(file, sources[part], layer)
    assignments += found
  _check(path, file, sources, reports, modules)
  with _named_errors(path):
    values = [stored.read() for _, stored in assignments]
  for (variable, _), value in zip(assignments, values, strict=True):
    variable.assign(value)
  log.info('initial weights: %s', path)
  for part, report in reports.items():
    log.info('%s: %s', part, report)
  return reports


def _parts(model: OANet | SRMOnly, modules: str) -> dict[str, tf_keras.layers.Layer]:
  """The parts of the network that have variables and that `modules` names."""
  return {
    name: child
    for name, child in tf.train.TrackableView.children(model).items()
    if getattr(child, 'weights', None)
    and (modules == 'all' or STAND_INS.get(name, name) in modules.split(','))
  }


def _match(
  file: 'WeightsFile', source: str, layer: tf_keras.layers.Layer
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


def _check_layers(path: str, file: 'WeightsFile', source: str, layer: tf_keras.Model) -> None:
  """Refuses a decoder of other levels: its layers are numbered, so names would mean others."""
  ours, theirs = (
    sum(name.startswith(_NUMBERED_LAYER) for name in names)
    for names in (tf.train.TrackableView.children(layer), file.children(source))
  )
  if theirs and ours != theirs:
    raise InputError(
      f'{path}: its decoder has {theirs} layers with weights, and task.model.decoder has {ours}; '
      'the Model Garden and earlier versions make P6 by task.model.coarse_levels=convolution'
    )


def _check(
  path: str,
  file: 'WeightsFile',
  sources: dict[str, str],
  reports: dict[str, PartReport],
  modules: str,
) -> None:
  """Refuses parts that must be loaded in full but are not, and files with nothing to load."""
  for part, report in reports.items():
    module = STAND_INS.get(part, part)
    left, has_part = [*report.other_shape, *report.absent], file.has(sources[part])
    if left and not has_part and modules != 'all':
      raise InputError(f'{path}: has no {module}; change task.init_checkpoint_modules, {modules!r}')
    if left and has_part and (modules != 'all' or module == 'backbone'):
      raise InputError(
        f'{path}: has another {module} than task.model.{module} ({report.reason(left[0])})'
      )
  if not any(report.loaded for report in reports.values()):
    raise InputError(f'{path}: has nothing that fits this network by name and shape')


def _open(path: str, model: OANet | SRMOnly) -> 'WeightsFile':
  if path.endswith('.h5'):
    if isinstance(model, SRMOnly):
      raise InputError(f'{path}: has only a backbone, and task.mode=srm_only has none')
    return KerasWeights(path, model.backbone)
  prefix = path.removesuffix('.index')
  if tf.io.gfile.isdir(path):
    prefix = tf.train.latest_checkpoint(path)
    if not prefix:
      raise InputError(f'{path}: has no file that names its newest checkpoint; give one, to .index')
  if not tf.io.gfile.exists(f'{prefix}.index'):
    raise InputError(f'{path}: there is no such checkpoint (no {prefix}.index)')
  return Checkpoint(prefix)


class Checkpoint:
  """A TensorFlow 2 checkpoint; variables are named by their path in the object graph.

  The path consists of attributes and, in functional models, of layers in the order of computation,
  as in `layer_with_weights-2/_conv1/kernel`.
  """

  def __init__(self, prefix: str):
    with _named_errors(prefix):
      self._reader = tf.train.load_checkpoint(prefix)
      self._shapes = self._reader.get_variable_to_shape_map()
      if '_CHECKPOINTABLE_OBJECT_GRAPH' not in self._shapes:
        raise InputError(f'{prefix}: is no TensorFlow 2 checkpoint (it has no graph of objects)')
      graph = trackable_object_graph_pb2.TrackableObjectGraph.FromString(
        self._reader.get_tensor('_CHECKPOINTABLE_OBJECT_GRAPH')
      )
    self._children = [
      {child.local_name: child.node_id for child in node.children} for node in graph.nodes
    ]
    self._keys = [
      {attribute.name: attribute.checkpoint_key for attribute in node.attributes}
      for node in graph.nodes
    ]
    root = self._children[0]
    inner = self._children[root['model']] if 'model' in root else {}
    # The Model Garden has a list of detection heads, for cascades.
    self._parts = {
      part: self._children[node].get('0', node) for part, node in {**inner, **root}.items()
    }

  def named_variables(self, layer: tf_keras.layers.Layer) -> dict[str, tf.Variable]:
    """A part's variables, by the names that this kind of file has for them."""
    variables, seen = {}, {}

    def walk(parent: tf.Module, path: str) -> None:
      for name, child in tf.train.TrackableView.children(parent).items():
        if id(child) in seen:
          continue
        # Keeps the object alive, so that no other gets its id.
        seen[id(child)] = child
        if isinstance(child, tf.Variable):
          variables[f'{path}{name}'] = child
        else:
          walk(child, f'{path}{name}/')

    walk(layer, '')
    return variables

  def has(self, part: str) -> bool:
    """Whether the file has a part of the network."""
    return part in self._parts

  def children(self, part: str) -> list[str]:
    """The names of a part's attributes and layers; none if the file lacks the part."""
    return list(self._children[self._parts[part]]) if self.has(part) else []

  def find(self, part: str, name: str) -> Stored | None:
    """A variable of a part that the file has; None if it lacks the variable."""
    node = self._parts[part]
    for step in name.split('/'):
      if step not in self._children[node]:
        return None
      node = self._children[node][step]
    key = self._keys[node].get('VARIABLE_VALUE')
    if key is None:
      return None
    return Stored(tuple(self._shapes[key]), lambda: self._reader.get_tensor(key))


class KerasWeights:
  """A `.h5` file of a ResNet of `tf_keras.applications`; variables are named by layer.

  The format is that of `tf_keras.Model.save_weights`: a group for each layer, the order of layers
  in the attribute `layer_names`, that of a layer's datasets in `weight_names`. The methods are
  those of `Checkpoint`.
  """

  def __init__(self, path: str, backbone: tf_keras.Model):
    if not tf.io.gfile.exists(path):
      raise InputError(f'{path}: there is no such file')
    with _named_errors(path), h5py.File(path) as file:
      if 'layer_names' not in file.attrs:
        raise InputError(
          f"{path}: has no weights by layer, as Keras 2's save_weights('….h5') writes them"
        )
      self._arrays = {
        f'{_text(layer)}/{_short_name(_text(weight))}': file[layer][weight][()]
        for layer in file.attrs['layer_names']
        for weight in file[layer].attrs['weight_names']
      }
    blocks = {name.split('_')[1] for name in self._arrays if name.startswith('conv4_block')}
    depth = BLOCKS_TO_DEPTH.get(len(blocks))
    if depth is None:
      raise InputError(f'{path}: is no ResNet-50, 101 or 152 of tf_keras.applications')
    if not isinstance(backbone, KerasResNet) or backbone.model_id != depth:
      raise InputError(
        f'{path}: is a ResNet-{depth} of tf_keras.applications; set '
        f'task.model.backbone.type=keras_resnet,task.model.backbone.keras_resnet.model_id={depth}'
      )

  def named_variables(self, layer: tf_keras.layers.Layer) -> dict[str, tf.Variable]:
    return {
      f'{part.name}/{_short_name(variable.name)}': variable
      for part in layer.layers
      for variable in part.weights
    }

  def has(self, part: str) -> bool:
    return part == 'backbone'

  def children(self, part: str) -> list[str]:
    return []

  def find(self, part: str, name: str) -> Stored | None:
    array = self._arrays.get(name)
    return None if array is None else Stored(array.shape, lambda: array)


WeightsFile = Checkpoint | KerasWeights


def _text(name: str | bytes) -> str:
  return name.decode() if isinstance(name, bytes) else name


def _short_name(name: str) -> str:
  """'conv1_conv/kernel:0' -> 'kernel'."""
  return name.rsplit('/', 1)[-1].removesuffix(':0')


@contextlib.contextmanager
def _named_errors(path: str) -> Iterator[None]:
  """Turns what the readers raise for a damaged file into one line with its name."""
  try:
    yield
  except (tf.errors.OpError, OSError, LookupError) as error:
    raise InputError(f'{path}: cannot be read ({" ".join(str(error).split())[:200]})') from None


def _shortened(items: list[str]) -> str:
  more = f' and {len(items) - MAX_NAMES} more' if len(items) > MAX_NAMES else ''
  return ', '.join(items[:MAX_NAMES]) + more
