"""Two devices for tests of two replicas; whatever does not ask for the second uses the first."""

import oanet_tf  # noqa: F401  Sets TensorFlow's environment.

# isort: split
import tensorflow as tf

tf.config.set_logical_device_configuration(
  tf.config.list_physical_devices('CPU')[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
