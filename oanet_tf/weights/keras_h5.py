"""The `.h5` files of `tf_keras.applications`."""

import h5py
import tensorflow as tf
import tf_keras

from oanet_tf.errors import InputError
from oanet_tf.modeling.keras_resnet import KerasResNet
from oanet_tf.weights.stored import Stored, WeightsFile, layer_paths, named_errors, short_name

# Number of conv4 blocks in a Keras ResNet -> its depth.
BLOCKS_TO_DEPTH = {6: 50, 23: 101, 36: 152}


class KerasWeights(WeightsFile):
  """A `.h5` file of a ResNet of `tf_keras.applications`; variables are named by `layer_paths`.

  The format is that of `tf_keras.Model.save_weights`: a group for each layer, the order of layers
  in the attribute `layer_names`, that of a layer's datasets in `weight_names`.
  """

  def __init__(self, path: str):
    self.path = path
    with named_errors(path), h5py.File(path) as file:
      if 'layer_names' not in file.attrs:
        raise InputError(
          f"{path}: has no weights by layer, as Keras 2's save_weights('….h5') writes them"
        )
      self._arrays = {
        f'{_text(layer)}/{short_name(_text(weight))}': file[layer][weight][()]
        for layer in file.attrs['layer_names']
        for weight in file[layer].attrs['weight_names']
      }
    blocks = {name.split('_')[1] for name in self._arrays if name.startswith('conv4_block')}
    self._depth = BLOCKS_TO_DEPTH.get(len(blocks))
    if self._depth is None:
      raise InputError(f'{path}: is no ResNet-50, 101 or 152 of tf_keras.applications')
    self._used: set[str] = set()

  def has(self, part: str) -> bool:
    return part == 'backbone'

  def named_variables(self, layer: tf_keras.Model) -> dict[str, tf.Variable]:
    return layer_paths(layer)

  def find(self, part: str, name: str) -> Stored | None:
    self._used.add(name)
    array = self._arrays.get(name)
    return None if array is None else Stored(array.shape, lambda: array)

  def unused(self) -> list[str]:
    return sorted(set(self._arrays) - self._used)

  def check(self, part: str, source: str, layer: tf_keras.layers.Layer) -> None:
    if source == 'backbone' and not (
      isinstance(layer, KerasResNet) and layer.model_id == self._depth
    ):
      raise InputError(
        f'{self.path}: is a ResNet-{self._depth} of tf_keras.applications; set '
        'task.model.backbone.type=keras_resnet,'
        f'task.model.backbone.keras_resnet.model_id={self._depth}'
      )


def _text(name: str | bytes) -> str:
  return name.decode() if isinstance(name, bytes) else name
