"""Tells what kind of file of weights a path is, by its content."""

import os
import pathlib

import tensorflow as tf

from oanet_tf import files
from oanet_tf.errors import InputError
from oanet_tf.weights import detectron2, torchvision
from oanet_tf.weights.checkpoint import Checkpoint
from oanet_tf.weights.keras_h5 import KerasWeights
from oanet_tf.weights.stored import WeightsFile
from oanet_tf.weights.tensors import read_tensors

_HDF5 = b'\x89HDF'


def open_weights(path: str) -> WeightsFile:
  """Opens a file of weights.

  Args:
    path: a TensorFlow 2 checkpoint, with or without `.index`; a folder, for its newest one; a `.h5`
      file of `tf_keras.applications.ResNet50`, 101 or 152, with or without top; a `.pkl` or `.pth`
      file of Detectron2's Panoptic FPN or Mask R-CNN; or a `.pth` file of torchvision's ResNet or
      Mask R-CNN.

  Raises:
    InputError: if there is none of these, or it is damaged.
  """
  prefix = path.removesuffix('.index')
  if tf.io.gfile.isdir(path):
    prefix = _newest_checkpoint(path)
    if not prefix:
      raise InputError(f'{path}: has no file that names its newest checkpoint; give one, to .index')
  if tf.io.gfile.exists(f'{prefix}.index'):
    return Checkpoint(prefix)
  if not tf.io.gfile.exists(path):
    raise InputError(f'{path}: there is no such file (and no {prefix}.index of a checkpoint)')
  with tf.io.gfile.GFile(path, 'rb') as file:
    if file.read(len(_HDF5)) == _HDF5 or pathlib.Path(path).suffix == '.h5':
      return KerasWeights(path)
  return _of_torch(path)


def _newest_checkpoint(folder: str) -> str | None:
  """What a folder's file `checkpoint` says."""
  readable = files.for_tensorflow(folder)
  prefix = tf.train.latest_checkpoint(readable)
  inside = prefix and prefix.startswith(readable)
  return os.path.join(folder, os.path.relpath(prefix, readable)) if inside else prefix


def _of_torch(path: str) -> WeightsFile:
  tensors = read_tensors(path)
  if any(name.startswith(detectron2.MARK) for name in tensors):
    return detectron2.read(path, tensors)
  if torchvision.RESNET_MARK in tensors or any(
    name.startswith(torchvision.MASK_RCNN_MARK) for name in tensors
  ):
    return torchvision.read(path, tensors)
  names = ', '.join(sorted(tensors)[:3])
  raise InputError(
    f'{path}: is no network of Detectron2 with an FPN, and no ResNet or Mask R-CNN of torchvision '
    f'(its tensors are {names}, …)'
  )
