"""A trained network from its folder, and its panoptic maps: shared by evaluation and prediction."""

import pathlib
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
import yaml
from official.core import config_definitions

from oanet_tf import config as config_lib
from oanet_tf import experiments
from oanet_tf.data.categories import VOID_LABEL, PanopticCategories
from oanet_tf.data.panoptic_map import PanopticSegmentation
from oanet_tf.errors import InputError
from oanet_tf.modeling.build import build_oanet
from oanet_tf.modeling.fusion import Panoptic, fuse
from oanet_tf.modeling.oanet import OANet

PARAMS_FILE = 'params.yaml'
CATEGORIES_FILE = 'categories.json'
# `params.yaml` gives every key, so which experiment it overrides does not matter.
BASE_EXPERIMENT = 'oanet_r50fpn_coco'


def params_path(model_dir: str | pathlib.Path) -> str:
  """The resolved configuration that training wrote.

  Raises:
    InputError: if the folder has none.
  """
  path = pathlib.Path(model_dir) / PARAMS_FILE
  if not path.is_file():
    raise InputError(f'{model_dir}: is no model folder (it has no {PARAMS_FILE})')
  return str(path)


def latest_checkpoint(model_dir: str | pathlib.Path) -> str:
  """Path of the newest checkpoint.

  Raises:
    InputError: if there is none.
  """
  path = tf.train.latest_checkpoint(str(model_dir))
  if path is None:
    raise InputError(f'{model_dir}: has no checkpoint; train first, or give another model folder')
  return path


def load_model(
  model_dir: str | pathlib.Path,
) -> tuple[OANet, config_definitions.ExperimentConfig, PanopticCategories]:
  """The network with its newest checkpoint, its configuration and its categories."""
  config = experiments.load_experiment(BASE_EXPERIMENT, [params_path(model_dir)])
  path = latest_checkpoint(model_dir)
  categories = PanopticCategories.from_json(pathlib.Path(model_dir) / CATEGORIES_FILE)
  model = build_oanet(config.task.model, categories)
  # The checkpoint holds the optimizer's slots and the step too.
  tf.train.Checkpoint(model=model).restore(path).assert_existing_objects_matched().expect_partial()
  return model, config, categories


def save_config(
  config: config_definitions.ExperimentConfig,
  categories: PanopticCategories,
  model_dir: pathlib.Path,
) -> None:
  """Writes what `load_model` reads, but for the checkpoint."""
  model_dir.mkdir(parents=True, exist_ok=True)
  (model_dir / PARAMS_FILE).write_text(yaml.dump(config.as_dict()))
  categories.to_json(model_dir / CATEGORIES_FILE)


def predict_panoptic(
  model: OANet,
  config: config_lib.OANet,
  methods: Sequence[str],
  images: tf.Tensor,
  image_info: tf.Tensor,
  canvas_size: tf.Tensor,
) -> tuple[dict[str, tf.Tensor], dict[str, Panoptic]]:
  """Detects once and fuses by each method.

  Args:
    model: the network.
    config: its configuration.
    methods: keys of `fusion.ORDERED_BY`.
    images: [B, A, B, 3] network input.
    image_info: [B, 4, 2].
    canvas_size: [2] int, at least the largest original size of the batch.

  Returns:
    The network's outputs, and the panoptic maps of each method.
  """
  outputs = model(images, image_info, training=False)
  maps = {
    method: fuse(
      outputs,
      image_info,
      canvas_size,
      num_things=model.num_things,
      stuff_stride=2**config.min_level,
      settings=config.fusion,
      method=method,
    )
    for method in methods
  }
  return outputs, maps


def to_segmentation(
  category_mask: np.ndarray, instance_mask: np.ndarray, categories: PanopticCategories
) -> PanopticSegmentation:
  """Segments of one image: each thing instance, and each stuff category, is one.

  Args:
    category_mask: [H, W] int labels.
    instance_mask: [H, W] int; 0 for stuff and void.
    categories: of the labels.
  """
  codes = instance_mask.astype(np.int64) * categories.num_labels + category_mask
  found, inverse = np.unique(codes, return_inverse=True)
  labels = found % categories.num_labels
  is_segment = labels != VOID_LABEL
  ids = np.where(is_segment, np.cumsum(is_segment), 0).astype(np.int32)
  return PanopticSegmentation(
    segment_map=ids[inverse].reshape(codes.shape),
    segment_ids=ids[is_segment],
    category_ids=categories.id_of_label_table()[labels[is_segment]],
    is_crowd=np.zeros(np.count_nonzero(is_segment), bool),
  )
