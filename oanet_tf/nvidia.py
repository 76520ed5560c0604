"""Whether this machine is meant to compute on an NVIDIA GPU, asked without loading TensorFlow.

TensorFlow itself sees a GPU only if it also finds CUDA's libraries.
"""

import glob
import os
import shutil

# The driver makes these for each GPU; a container may have those of other numbers than 0.
_DEVICE_FILES = ('/proc/driver/nvidia/gpus/*', '/dev/nvidia[0-9]*')
# Values of CUDA_VISIBLE_DEVICES that hide every GPU.
_NO_DEVICES = ('', '-1', 'NoDevFiles')


def has_driver() -> bool:
  """Whether NVIDIA's driver is installed, and CUDA_VISIBLE_DEVICES does not hide all GPUs."""
  if os.environ.get('CUDA_VISIBLE_DEVICES') in _NO_DEVICES:
    return False
  return any(map(glob.glob, _DEVICE_FILES)) or shutil.which('nvidia-smi') is not None
