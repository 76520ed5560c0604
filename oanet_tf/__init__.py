"""OANet (Liu et al., CVPR 2019): end-to-end panoptic segmentation for TensorFlow 2.

  model = oanet_tf.load('runs/quickstart/model')
  for result in model(['photo.jpg']):
    result.plot().save(f'{result.name}_overlay.png')

What stands in `__all__` is the public interface; each name is loaded when it is first used.
"""

import importlib
import os
import sys
import types
from typing import TYPE_CHECKING

from oanet_tf import nvidia
from oanet_tf.errors import InputError as InputError

if TYPE_CHECKING:
  from oanet_tf.data.categories import PanopticCategories as Categories
  from oanet_tf.data.convert import convert
  from oanet_tf.evaluate import evaluate
  from oanet_tf.export import export
  from oanet_tf.pq import panoptic_quality
  from oanet_tf.prediction.model import Model, load
  from oanet_tf.prediction.result import Result
  from oanet_tf.train import train

__all__ = (
  'Categories', 'InputError', 'Model', 'Result', 'convert', 'evaluate', 'export', 'load',
  'panoptic_quality', 'train',
)  # fmt: skip
__version__ = '0.1.0'

# The Model Garden is written on Keras 2 (`tf_keras`). TensorFlow reads this when it loads, and
# this package is imported before any of its modules can import TensorFlow.
os.environ.setdefault('TF_USE_LEGACY_KERAS', '1')
# TensorFlow's C++ start-up notes (CPU flags, no GPU found, cuInit failed) bury our own messages and
# alarm people with a laptop; what goes wrong later arrives as an exception. With NVIDIA's driver,
# its warnings are shown, as one of them names the CUDA libraries that it lacks.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '1' if nvidia.has_driver() else '3')

# Where the public names are that are loaded later; each has its own name there, but for Categories.
_HOMES = {
  'Categories': 'oanet_tf.data.categories',
  'Model': 'oanet_tf.prediction.model',
  'Result': 'oanet_tf.prediction.result',
  'convert': 'oanet_tf.data.convert',
  'evaluate': 'oanet_tf.evaluate',
  'export': 'oanet_tf.export',
  'load': 'oanet_tf.prediction.model',
  'panoptic_quality': 'oanet_tf.pq',
  'train': 'oanet_tf.train',
}


if not TYPE_CHECKING:  # For a type checker, every name would be there.

  def __getattr__(name: str) -> object:
    if name not in _HOMES:
      raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    home = importlib.import_module(_HOMES[name])
    return getattr(home, 'PanopticCategories' if name == 'Categories' else name)


def __dir__() -> list[str]:
  return [*__all__, '__version__']


class _Package(types.ModuleType):
  """The commands `train`, `evaluate`, `export`, `convert` have the names of functions.

  An import of a command's module would put it in the function's place. So it would depend on what
  was imported before whether `oanet_tf.train` can be called.
  """

  def __setattr__(self, name: str, value: object) -> None:
    if not (name in _HOMES and isinstance(value, types.ModuleType)):
      super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
