"""PyTorch's tensors as the network's variables: names, layouts and the order of classes."""

# O outputs, I inputs, K kernel side, C channels, S crop side, T thing categories.

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
import tf_keras

from oanet_tf.errors import InputError
from oanet_tf.modeling.torch_resnet import BLOCKS, TorchResNet
from oanet_tf.weights.stored import Stored, WeightsFile, layer_paths, object_paths

# Parts of our names of batch normalization outside the backbone.
_NORMS = ('norm_', '_norms/', '_bn/')
# Our names of a layer's variables.
_VARIABLES = {
  'weight': 'kernel',
  'bias': 'bias',
}
_NORM_VARIABLES = {
  'weight': 'gamma',
  'bias': 'beta',
  'running_mean': 'moving_mean',
  'running_var': 'moving_variance',
}

# Patterns of the names of a layer's variables, for `Rule`.
WEIGHT = r'(?P<weight>weight|bias)'
NORM = r'(?P<norm>weight|bias|running_mean|running_var)'


class Rule(NamedTuple):
  """What tensors of some names are in the network.

  Attributes:
    pattern: matches all of a tensor's name. Its groups fill in `name`; a group `…_from_1` counts
      from 1, `…_twice` by twos, and `weight` or `norm` is PyTorch's name of a layer's variable.
    part: of the network.
    name: of the variable in the part.
    convert: PyTorch's array -> ours.
  """

  pattern: str
  part: str
  name: str
  convert: Callable[[np.ndarray], np.ndarray]

  def apply(self, tensor_name: str) -> str | None:
    """Our name of a tensor's variable; None if the rule is not for it."""
    match = re.fullmatch(self.pattern, tensor_name)
    if match is None:
      return None
    groups = match.groupdict()
    for key, value in groups.items():
      if key == 'weight':
        groups[key] = _VARIABLES[value]
      elif key == 'norm':
        groups[key] = _NORM_VARIABLES[value]
      elif key.endswith('_from_1'):
        groups[key] = str(int(value) - 1)
      elif key.endswith('_twice'):
        groups[key] = str(int(value) // 2)
    return self.name.format(**groups)


def as_it_is(array: np.ndarray) -> np.ndarray:
  return array


def layer(array: np.ndarray) -> np.ndarray:
  """A convolution's [O, I, K, K] -> [K, K, I, O], a dense layer's [O, I] -> [I, O]; [O] as it is.

  For a transposed convolution, PyTorch's is [I, O, K, K] and Keras' [K, K, O, I].
  """
  return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T


def boxes(array: np.ndarray) -> np.ndarray:
  """A layer with [4 N, …] outputs in PyTorch's order, x y w h, -> ours, y x h w."""
  by_box = array.reshape(-1, 4, *array.shape[1:])
  return layer(by_box[:, [1, 0, 3, 2]].reshape(array.shape))


def after_flattening(array: np.ndarray, channels: int) -> np.ndarray:
  """A dense layer's [O, C S S] -> [S S C, O], or [O] as it is."""
  if array.ndim == 1:
    return array
  side = round((array.shape[1] / channels) ** 0.5)
  by_cell = array.reshape(len(array), channels, side, side)
  return by_cell.transpose(2, 3, 1, 0).reshape(-1, len(array))


class TorchWeights(WeightsFile):
  """The tensors of a PyTorch file, by the rules of the package that wrote it.

  Attributes:
    path: of the file.
    stride_in: of the bottlenecks, as in `TorchResNet`.

  Args:
    path: of the file.
    tensors: by the file's names.
    rules: the first that fits a name counts; none fits names that are of no use here.
    stride_in: of the bottlenecks.
  """

  def __init__(
    self,
    path: str,
    tensors: Mapping[str, np.ndarray],
    rules: Sequence[Rule],
    stride_in: str,
  ):
    self.path = path
    self.stride_in = stride_in
    self._arrays: dict[tuple[str, str], np.ndarray] = {}
    self._sources: dict[tuple[str, str], str] = {}
    self._unused = set(tensors)
    for tensor_name, tensor in tensors.items():
      for rule in rules:
        if name := rule.apply(tensor_name):
          self._arrays[rule.part, name] = _converted(rule, path, tensor_name, tensor)
          self._sources[rule.part, name] = tensor_name
          break

  def has(self, part: str) -> bool:
    return any(of == part for of, _ in self._arrays)

  def named_variables(self, layer: tf_keras.layers.Layer) -> dict[str, tf.Variable]:
    """By `layer_paths` for backbone and decoder, and by `object_paths` for heads."""
    functional = isinstance(layer, tf_keras.Model)
    return layer_paths(layer) if functional else object_paths(layer)

  def find(self, part: str, name: str) -> Stored | None:
    array = self._arrays.get((part, name))
    if array is None:
      return None
    self._unused.discard(self._sources[part, name])
    return Stored(array.shape, lambda: array)

  def never_has(self, part: str, name: str) -> bool:
    """FPN and heads have no batch normalization, which starts as the identity."""
    return part != 'backbone' and any(norm in name for norm in _NORMS)

  def unused(self) -> list[str]:
    return sorted(self._unused)

  def shapes(self, part: str) -> dict[str, tuple[int, ...]]:
    """The shapes of a part's variables by our names."""
    return {name: array.shape for (of, name), array in self._arrays.items() if of == part}

  def resnet_depth(self) -> int:
    """The depth of the `TorchResNet` that has the layers of the backbone.

    Raises:
      InputError: if there is none.
    """
    names = self.shapes('backbone')
    numbers = tuple(
      len({name.split('.')[1] for name in names if name.startswith(f'res{level}.')})
      for level in range(2, 6)
    )
    is_bottleneck = any('.conv3/' in name for name in names)
    for depth, blocks in BLOCKS.items():
      if blocks == (numbers, is_bottleneck):
        return depth
    raise InputError(
      f'{self.path}: its backbone is no ResNet of {", ".join(map(str, BLOCKS))} layers'
    )

  def check(self, part: str, source: str, layer: tf_keras.layers.Layer) -> None:
    if source != 'backbone' or not self.has(source):
      return
    depth = self.resnet_depth()
    fits = isinstance(layer, TorchResNet) and layer.model_id == depth
    if not fits or (depth >= 50 and layer.stride_in != self.stride_in):
      group, wanted = 'task.model.backbone', {'model_id': depth, 'stride_in': self.stride_in}
      settings = [f'{group}.torch_resnet.{key}={value}' for key, value in wanted.items()]
      raise InputError(
        f'{self.path}: has a ResNet-{depth} of PyTorch; set '
        f'{",".join([f"{group}.type=torch_resnet", *settings])}'
      )


def _converted(rule: Rule, path: str, name: str, tensor: np.ndarray) -> np.ndarray:
  is_kernel = name.endswith('.weight') and not rule.name.endswith('{norm}')
  if tensor.ndim not in ((2, 4) if is_kernel else (1,)):
    raise misfit(path, name, tensor)
  try:
    return rule.convert(tensor)
  except (ValueError, IndexError):
    raise misfit(path, name, tensor) from None


def misfit(path: str, name: str, tensor: np.ndarray) -> InputError:
  """The error for a tensor whose shape cannot be that of its layer."""
  return InputError(
    f'{path}: {name} has the shape {list(tensor.shape)}, which does not fit the '
    "file's other tensors"
  )


def num_outputs(tensor: np.ndarray | None) -> int:
  """Of a layer, by its kernel or bias; 1 if the file lacks it or it has none."""
  return 1 if tensor is None else max((1, *tensor.shape[:1]))
