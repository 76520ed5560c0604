"""Backbone and heads of a TFLite file in 8 bits; boxes, ranking and merge stay float.

TensorFlow's own quantiser crashes on graphs with loops, as the merge is one.
"""

import importlib.util
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from oanet_tf.errors import InputError

if TYPE_CHECKING:
  # It brings TensorFlow, which takes seconds to load.
  from oanet_tf.modeling.oanet import OANet

# What else the backbone and the heads do, such as to normalise groups, stays float.
_OPERATIONS = (
  'ADD', 'CONV_2D', 'CONV_2D_TRANSPOSE', 'DEPTHWISE_CONV_2D', 'FULLY_CONNECTED', 'MAX_POOL_2D',
  'PAD', 'RESIZE_NEAREST_NEIGHBOR',
)  # fmt: skip


def check_installed() -> None:
  """Refuses to begin what cannot be done.

  Raises:
    InputError: if the quantiser is missing.
  """
  if not importlib.util.find_spec('ai_edge_quantizer'):
    raise InputError(
      "the format tflite_int8 needs ai-edge-quantizer; pip install 'oanet_tf[tflite]'"
    )


def quantize(model: bytes, network: 'OANet', images: Sequence[np.ndarray]) -> bytes:
  """Quantises weights, channel by channel, and activations.

  Args:
    model: a TFLite file of float32, with the signature `serving_default`.
    network: of which it was made; names the parts.
    images: [H, W, 3] uint8, of the model's size; show how large activations are.
  """
  from ai_edge_quantizer.calibrator import CalibrationMode
  from ai_edge_quantizer.qtyping import TFLOperationName
  from ai_edge_quantizer.quantizer import Quantizer

  quantizer = Quantizer(model)
  for operation in _OPERATIONS:
    quantizer.add_static_config(
      _scope(network), TFLOperationName[operation], activation_num_bits=8, weight_num_bits=8
    )
  statistics = quantizer.calibrate(
    {'serving_default': [{'image': image[np.newaxis]} for image in images]},
    # The other mode reads tensors of branches that were never taken.
    mode=CalibrationMode.CALIBRATION_PROFILER_BASED,
  )
  return bytes(quantizer.quantize(statistics, enable_progress_report=False).quantized_model)


def _scope(network: 'OANet') -> str:
  """Matches the names of the operations of backbones, decoders and heads."""
  parts = [
    network.backbone, network.decoder, network.stuff_backbone, network.stuff_decoder,
    network.rpn_head, network.detection_head, network.mask_head, network.stuff_head,
  ]  # fmt: skip
  names = '|'.join(re.escape(part.name) for part in parts if part is not None)
  return f'{re.escape(network.name)}/({names})/'
