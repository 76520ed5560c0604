"""The type that the network computes in: bfloat16 where the machine has it, as it is twice as fast.

Weights are float32 in any case, and so is what bfloat16's 8 bits would spoil: logits and offsets,
of which scores and boxes are made, the ranking module, RoIAlign, and sums over whole maps. Losses,
boxes, suppression and fusion are float32 too.
"""

import contextlib
import pathlib
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import tensorflow as tf
import tf_keras

# The flags of Linux for the processors on which TensorFlow's convolutions are faster in bfloat16.
_OF_PROCESSORS = ('amx_bf16', 'avx512_bf16')
_CPU_INFO = pathlib.Path('/proc/cpuinfo')
# The first NVIDIA GPUs with bfloat16 are of this compute capability.
_OF_GPUS = (8, 0)

_POLICIES = {'float32': 'float32', 'bfloat16': 'mixed_bfloat16', 'float16': 'mixed_float16'}
# The last layers of the Model Garden's heads; those of our own say so themselves.
_LAST_LAYERS = re.compile('(rpn|detection)-(scores|boxes)|mask-logits|segmentation_output')
_OF_WHOLE_MAPS = (tf_keras.layers.GroupNormalization,)


class Precision(NamedTuple):
  """What a network computes in, and why.

  Attributes:
    dtype: 'float32', 'bfloat16' or 'float16'.
    reason: for a log.
  """

  dtype: str
  reason: str

  def __str__(self) -> str:
    return f'{self.dtype} ({self.reason})'


def choose(setting: str | None) -> Precision:
  """The precision for this machine.

  Args:
    setting: of `runtime.mixed_precision_dtype`. 'auto' takes bfloat16 where all GPUs, or without
      one the processor, have it; None is float32.
  """
  if setting != 'auto':
    return Precision(setting or 'float32', 'as asked for' if setting else 'the default')
  gpus = tf.config.list_physical_devices('GPU')
  if gpus:
    return _of_gpus([tf.config.experimental.get_device_details(gpu) for gpu in gpus])
  return _of_processor(_CPU_INFO.read_text() if _CPU_INFO.exists() else '')


def _of_gpus(details: list[dict]) -> Precision:
  least = min(of_gpu.get('compute_capability', (0, 0)) for of_gpu in details)
  dtype = 'bfloat16' if least >= _OF_GPUS else 'float32'
  return Precision(dtype, f'compute capability {".".join(map(str, least))}')


def _of_processor(cpu_info: str) -> Precision:
  flags = re.search(r'^flags\s*:(.*)', cpu_info, re.MULTILINE)
  found = [flag for flag in _OF_PROCESSORS if flags and flag in flags[1].split()]
  if found:
    return Precision('bfloat16', f'the processor has {found[0].upper()}')
  return Precision('float32', f'the processor has no {" or ".join(map(str.upper, _OF_PROCESSORS))}')


@contextlib.contextmanager
def computing_in(dtype: str) -> Iterator[None]:
  """Within, Keras makes layers that compute in this type."""
  before = tf_keras.mixed_precision.global_policy()
  tf_keras.mixed_precision.set_global_policy(_POLICIES[dtype])
  try:
    yield
  finally:
    tf_keras.mixed_precision.set_global_policy(before)


def keep_in_float32(layers: Iterable[tf_keras.layers.Layer]) -> None:
  """Lets those layers compute in float32 whose results would suffer; see the module's text.

  Args:
    layers: of the network, with their variables, which are float32.
  """
  for layer in layers:
    if _LAST_LAYERS.fullmatch(layer.name) or isinstance(layer, _OF_WHOLE_MAPS):
      # There is no public function for this, and the Model Garden's heads take no types of layers.
      layer._set_dtype_policy('float32')
    elif layer.compute_dtype == 'bfloat16' and getattr(layer, 'use_bias', False):
      _add_bias_by_sum(layer)


def _add_bias_by_sum(layer: tf_keras.layers.Layer) -> None:
  """Replaces the operation by which a layer adds its bias.

  On the CPU, the gradient of `BiasAdd` sums bfloat16 in bfloat16, where 256 + 1 is 256. A sum's
  gradient is summed in float32, and is merged with the convolution as well.
  """
  activation = layer.activation
  layer.use_bias = False
  layer.activation = lambda outputs: activation(outputs + layer.bias)
