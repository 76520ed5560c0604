"""OANet (Liu et al., CVPR 2019): end-to-end panoptic segmentation for TensorFlow 2."""

import os

from oanet_tf import nvidia

# The Model Garden is written on Keras 2 (`tf_keras`). TensorFlow reads this when it loads, and
# this package is imported before any of its modules can import TensorFlow.
os.environ.setdefault('TF_USE_LEGACY_KERAS', '1')
# TensorFlow's C++ start-up notes (CPU flags, no GPU found, cuInit failed) bury our own messages and
# alarm people with a laptop; what goes wrong later arrives as an exception. With NVIDIA's driver,
# its warnings are shown, as one of them names the CUDA libraries that it lacks.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '1' if nvidia.has_driver() else '3')

__version__ = '0.1.0'
