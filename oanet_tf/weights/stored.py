"""What all files of weights have in common."""

import abc
import contextlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import tensorflow as tf
import tf_keras

from oanet_tf.errors import InputError

Shape = tuple[int, ...]


class Stored(NamedTuple):
  """A variable in a file."""

  shape: Shape
  read: Callable[[], np.ndarray]


class WeightsFile(abc.ABC):
  """A file with the variables of parts of the network, which are named as `OANet`'s attributes.

  Attributes:
    path: of the file, for messages.
  """

  path: str

  @abc.abstractmethod
  def has(self, part: str) -> bool:
    """Whether the file has a part of the network."""

  @abc.abstractmethod
  def named_variables(self, layer: tf_keras.layers.Layer) -> dict[str, tf.Variable]:
    """A part's variables, by the names that this kind of file has for them."""

  @abc.abstractmethod
  def find(self, part: str, name: str) -> Stored | None:
    """A variable of a part that the file has; None if it lacks the variable."""

  def never_has(self, part: str, name: str) -> bool:
    """Whether files of this kind lack a variable because their network has no such layer."""
    del part, name
    return False

  @abc.abstractmethod
  def unused(self) -> list[str]:
    """The file's own names of the tensors that `find` was never asked for."""

  def check(self, part: str, source: str, layer: tf_keras.layers.Layer) -> None:  # noqa: B027
    """Refuses a part whose variables would be mistaken for others.

    Args:
      part: of the network.
      source: the part of the file that initializes it.
      layer: the part.

    Raises:
      InputError: says what to do about it.
    """


def object_paths(layer: tf.Module) -> dict[str, tf.Variable]:
  """A layer's variables by their paths in the graph of objects, as in a TensorFlow checkpoint.

  A path consists of attributes and, in functional models, of layers in the order of computation,
  as in `layer_with_weights-2/_conv1/kernel`.
  """
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


def layer_paths(model: tf_keras.Model) -> dict[str, tf.Variable]:
  """The variables of a functional model as 'layer/variable'."""
  return {
    f'{layer.name}/{short_name(variable.name)}': variable
    for layer in model.layers
    for variable in layer.weights
  }


def short_name(name: str) -> str:
  """'conv1_conv/kernel:0' -> 'kernel'."""
  return name.rsplit('/', 1)[-1].removesuffix(':0')


@contextlib.contextmanager
def named_errors(path: str) -> Iterator[None]:
  """Turns what the readers raise for a damaged file into one line with its name."""
  try:
    yield
  except (tf.errors.OpError, OSError, LookupError) as error:
    raise InputError(f'{path}: cannot be read ({" ".join(str(error).split())[:200]})') from None
