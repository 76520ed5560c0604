"""Quantizes backbone and heads of a TFLite file to 8 bits; boxes, ranking and merge stay float.

TensorFlow's own quantizer crashes on graphs with loops, and the merge is a loop.
"""

import importlib.util
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from oanet_tf.errors import InputError

if TYPE_CHECKING:
  # These load TensorFlow, which takes seconds.
  import tf_keras

  from oanet_tf.modeling.oanet import OANet

# Operations with weights.
_WITH_WEIGHTS = ('CONV_2D', 'CONV_2D_TRANSPOSE', 'DEPTHWISE_CONV_2D', 'FULLY_CONNECTED')
# Operations between them in backbones and decoders. In heads, these belong to group normalization,
# which stays float.
_BETWEEN = ('ADD', 'MAX_POOL_2D', 'PAD', 'RESIZE_NEAREST_NEIGHBOR')


def check_installed() -> None:
  """Raises an InputError if the quantizer is missing."""
  if not importlib.util.find_spec('ai_edge_quantizer'):
    raise InputError(
      "the format tflite_int8 needs ai-edge-quantizer; pip install 'oanet_tf[tflite]'"
    )


def quantize(model: bytes, network: 'OANet', images: Sequence[np.ndarray]) -> bytes:
  """Quantizes weights, channel by channel, and activations.

  Args:
    model: a float32 TFLite file with the signature `serving_default`.
    network: that it was made from, for the names of the parts.
    images: [H, W, 3] uint8 of the model's input size, to measure the ranges of activations.
  """
  from ai_edge_quantizer.calibrator import CalibrationMode
  from ai_edge_quantizer.qtyping import TFLOperationName
  from ai_edge_quantizer.quantizer import Quantizer

  pyramids = [
    network.backbone, network.decoder, network.stuff_backbone, network.stuff_decoder,
  ]  # fmt: skip
  heads = [network.rpn_head, network.detection_head, network.mask_head, network.stuff_head]
  quantizer = Quantizer(model)
  for operations, parts in ((_WITH_WEIGHTS, pyramids + heads), (_BETWEEN, pyramids)):
    for operation in operations:
      quantizer.add_static_config(
        _scope(network, parts),
        TFLOperationName[operation],
        activation_num_bits=8,
        weight_num_bits=8,
      )
  # Activations that stay float are averaged too, and may be infinite.
  with np.errstate(invalid='ignore'):
    statistics = quantizer.calibrate(
      {'serving_default': [{'image': image[np.newaxis]} for image in images]},
      # The other mode reads tensors of branches that were not executed.
      mode=CalibrationMode.CALIBRATION_PROFILER_BASED,
    )
  return bytes(quantizer.quantize(statistics, enable_progress_report=False).quantized_model)


def _scope(network: 'OANet', parts: 'Sequence[tf_keras.layers.Layer | None]') -> str:
  """A regular expression for the names of operations in parts of the network."""
  names = '|'.join(re.escape(part.name) for part in parts if part is not None)
  return f'{re.escape(network.name)}/({names})/'
