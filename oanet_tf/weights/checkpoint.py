"""TensorFlow 2 checkpoints, of this package and of the Model Garden."""

import functools

import numpy as np
import tensorflow as tf
import tf_keras
from tensorflow.core.protobuf import trackable_object_graph_pb2

from oanet_tf import files
from oanet_tf.errors import InputError
from oanet_tf.weights import coco_rows
from oanet_tf.weights.stored import Stored, WeightsFile, named_errors, object_paths

# In a functional model, layers are numbered in the order of computation.
NUMBERED_LAYER = 'layer_with_weights-'
# The parts that have another name in the Model Garden.
_MODEL_GARDEN_PARTS = {'segmentation_head': 'stuff_head'}
_VALUE = '/.ATTRIBUTES/VARIABLE_VALUE'


class Checkpoint(WeightsFile):
  """A TensorFlow 2 checkpoint; variables are named by `object_paths`.

  It has the parts at its root, as the Model Garden's `official.core.base_trainer.Trainer` writes
  them, or in `model`, as this package does. Optimizer slots are left out. The Model Garden's
  classes are COCO's ids, of which only those with a category are read.

  Attributes:
    is_model_gardens: whether the parts are at the root.
  """

  def __init__(self, prefix: str):
    self.path = prefix
    with named_errors(prefix):
      self._reader = tf.train.load_checkpoint(files.for_tensorflow(prefix))
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
    self.is_model_gardens = 'backbone' in root
    # The Model Garden has a list of detection heads, for cascades.
    self._parts = {
      _MODEL_GARDEN_PARTS.get(part, part): self._children[node].get('0', node)
      for part, node in {**inner, **root}.items()
    }
    self._used: set[str] = set()

  def has(self, part: str) -> bool:
    return part in self._parts

  def named_variables(self, layer: tf_keras.layers.Layer) -> dict[str, tf.Variable]:
    return object_paths(layer)

  def find(self, part: str, name: str) -> Stored | None:
    node = self._parts[part]
    for step in name.split('/'):
      if step not in self._children[node]:
        return None
      node = self._children[node][step]
    key = self._keys[node].get('VARIABLE_VALUE')
    if key is None:
      return None
    self._used.add(key)
    shape, read = tuple(self._shapes[key]), functools.partial(self._reader.get_tensor, key)
    rows = coco_rows.of_model_garden(part, name, shape) if self.is_model_gardens else None
    if rows is None:
      return Stored(shape, read)
    return Stored((*shape[:-1], len(rows)), lambda: np.take(read(), rows, axis=-1))

  def unused(self) -> list[str]:
    return sorted(
      key.removesuffix(_VALUE)
      for key in set(self._shapes) - self._used
      if '.OPTIMIZER_SLOT' not in key and key.endswith(_VALUE)
    )

  def check(self, part: str, source: str, layer: tf_keras.layers.Layer) -> None:
    """Refuses a decoder of other levels: its layers are numbered, so names would mean others."""
    if part not in ('decoder', 'stuff_decoder') or not self.has(source):
      return
    ours, theirs = (
      sum(name.startswith(NUMBERED_LAYER) for name in names)
      for names in (tf.train.TrackableView.children(layer), self._children[self._parts[source]])
    )
    if ours != theirs:
      raise InputError(
        f'{self.path}: its decoder has {theirs} layers with weights, and task.model.decoder has '
        f'{ours}; the Model Garden and earlier versions make P6 by '
        'task.model.coarse_levels=convolution'
      )

  def shapes(self, part: str) -> dict[str, tuple[int, ...]]:
    """The shapes of a part's variables by their paths, as in `named_variables`; {} without it."""
    found, seen = {}, set()

    def walk(node: int, path: str) -> None:
      seen.add(node)
      if key := self._keys[node].get('VARIABLE_VALUE'):
        found[path] = tuple(self._shapes[key])
      for name, child in self._children[node].items():
        if child not in seen:
          walk(child, f'{path}/{name}' if path else name)

    if self.has(part):
      walk(self._parts[part], '')
    return found
