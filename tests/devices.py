"""Two devices for tests of two replicas; whatever does not ask for the second uses the first."""

import functools

import oanet_tf  # noqa: F401  Sets TensorFlow's environment.

# isort: split
import tensorflow as tf

tf.config.set_logical_device_configuration(
  tf.config.list_physical_devices('CPU')[0], [tf.config.LogicalDeviceConfiguration()] * 2
)


ONE = ('CPU:0',)
TWO = ('CPU:0', 'CPU:1')


@functools.cache
def mirrored(devices: tuple[str, ...]) -> tf.distribute.MirroredStrategy:
  """The one strategy over these devices; the collectives of a second one would clash with its."""
  return tf.distribute.MirroredStrategy(devices)
