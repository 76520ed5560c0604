"""Layers that are called one after another."""

from collections.abc import Iterable

import tensorflow as tf
import tf_keras


class InTurn(tf_keras.Sequential):
  """A `Sequential` that is quick to build.

  When first called, and again at another size, Keras' `Sequential` makes a functional network of
  its layers, which takes a tenth of a second. This just calls them, and tells them nothing of
  training or masks, so it is not for layers that need that. Values and checkpoints are the same.
  """

  def build(self, input_shape: tf.TensorShape) -> None:
    """Leaves it to the layers, which create their variables when they are first called."""
    self.built = True

  def call(self, inputs: tf.Tensor) -> tf.Tensor:
    return in_turn(self.layers, inputs)


def in_turn(layers: Iterable[tf_keras.layers.Layer], x: tf.Tensor) -> tf.Tensor:
  """The result of the last layer, each given that of the one before."""
  for layer in layers:
    x = layer(x)
  return x
