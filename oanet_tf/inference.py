"""A trained network from its folder, and its panoptic maps: shared by evaluation and prediction."""

import functools
import logging
import pathlib
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf
import yaml
from official.core import config_definitions

from oanet_tf import config as config_lib
from oanet_tf import experiments
from oanet_tf.config_check import BASE_EXPERIMENT, PARAMS_FILE, params_path
from oanet_tf.data import shard_files
from oanet_tf.data.categories import VOID_LABEL, PanopticCategories
from oanet_tf.data.panoptic_map import PanopticSegmentation
from oanet_tf.data.preprocess import network_input
from oanet_tf.errors import InputError
from oanet_tf.modeling.build import build_network, build_ranker
from oanet_tf.modeling.fusion import fuse
from oanet_tf.modeling.oanet import OANet
from oanet_tf.modeling.scene import Panoptic, Truth, make_scene
from oanet_tf.modeling.srm_only import SRMOnly
from oanet_tf.training import checkpoints
from oanet_tf.training.optimizer import load_averages

log = logging.getLogger(__name__)

CATEGORIES_FILE = 'categories.json'


def latest_checkpoint(model_dir: str | pathlib.Path) -> str:
  """Path of the newest checkpoint that can be read.

  Raises:
    InputError: if there is none.
  """
  path = checkpoints.newest_readable(model_dir)
  if path is None:
    raise InputError(f'{model_dir}: has no checkpoint; train first, or give another model folder')
  return path


def load_model(
  model_dir: str | pathlib.Path, params_override: str = ''
) -> tuple[OANet | SRMOnly, config_definitions.ExperimentConfig, PanopticCategories]:
  """The network with its best weights, its configuration and its categories.

  The best are those that evaluation during training chose; without one, the newest, or their moving
  averages where training kept some. `params_override` changes the folder's configuration.

  Raises:
    InputError: if the folder has no training, or the changes make another network.
  """
  config = experiments.load_experiment(BASE_EXPERIMENT, [params_path(model_dir)], params_override)
  categories = PanopticCategories.from_json(pathlib.Path(model_dir) / CATEGORIES_FILE)
  subfolder = config.trainer.best_checkpoint_export_subdir
  best = checkpoints.newest_readable(pathlib.Path(model_dir) / subfolder) if subfolder else None
  path = best or latest_checkpoint(model_dir)
  log.info('weights of %s', path)
  model = build_network(config.task, categories)
  try:
    if best or config.trainer.optimizer_config.ema is None:
      checkpoint = tf.train.Checkpoint(model=model)
      # The checkpoint of a training holds the optimizer's slots and the step too.
      checkpoint.restore(path).assert_existing_objects_matched().expect_partial()
    else:
      load_averages(model, config, path)
  except (AssertionError, ValueError) as error:
    raise InputError(
      f'{path}: does not fit the configuration ({str(error).splitlines()[0]}); leave out changes '
      'that make another network'
    ) from None
  return model, config, categories


def take_ranking_module(
  model: OANet,
  task: config_lib.OANetTask,
  categories: PanopticCategories,
  model_dir: str | pathlib.Path,
) -> None:
  """Gives a network the ranking module of another training, and its settings with it.

  Args:
    model: whose own module is dropped.
    task: of the model; its `spatial_ranking` becomes that of the other training.
    categories: of the model.
    model_dir: folder of the other training, of a whole network or of the module alone.

  Raises:
    InputError: if there is no training in the folder, or one with other categories.
  """
  other, config, its_categories = load_model(model_dir)
  if its_categories != categories:
    raise InputError(f'{model_dir}: its ranking module is of other categories than the model')
  task.model.spatial_ranking = config.task.model.spatial_ranking
  model.take_ranker(build_ranker(task.model, other.spatial_ranking, model.num_things))


def find_categories(task: config_lib.OANetTask, model_dir: pathlib.Path) -> PanopticCategories:
  """The categories that the config names, or those beside the shards, or the model folder's."""
  if task.categories:
    return PanopticCategories.from_json(task.categories)
  first = (task.train_data.input_path or task.validation_data.input_path).split(',')[0].strip()
  beside = pathlib.Path(first).parent / CATEGORIES_FILE
  if not beside.is_file() and (model_dir / CATEGORIES_FILE).is_file():
    return PanopticCategories.from_json(model_dir / CATEGORIES_FILE)
  if not beside.is_file():
    # A glob that matches nothing explains itself better than its missing neighbour.
    shard_files.list_shards(first)
  return PanopticCategories.from_json(beside)


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
  model: OANet | SRMOnly,
  config: config_lib.OANet,
  methods: Sequence[str],
  images: tf.Tensor,
  image_info: tf.Tensor,
  canvas_size: Sequence[int] | tf.Tensor,
  class_prior: np.ndarray | None = None,
  truth: Truth | None = None,
  labels: dict[str, tf.Tensor] | None = None,
) -> tuple[dict[str, tf.Tensor], dict[str, Panoptic]]:
  """Detects once and fuses by each method.

  Args:
    model: the network.
    config: its configuration.
    methods: keys of `fusion.FUSIONS`.
    images: [B, A, B, 3] network input.
    image_info: [B, 4, 2].
    canvas_size: [2] int, at least the largest original size of the batch.
    class_prior: [T, T], of `class_prior.load_table`.
    truth: if the fusion 'oracle' is.
    labels: the annotations, of which `SRMOnly` makes its detections.

  Returns:
    The network's outputs with `stuff_labels`, [B, H, W] int32 of the stuff branch alone, and the
    panoptic maps of each method.
  """
  outputs = model(images, image_info, labels=labels, training=False)
  scene = make_scene(
    outputs,
    image_info,
    canvas_size,
    settings=config.fusion,
    num_things=model.num_things,
    num_stuff=model.num_stuff,
    stuff_stride=2**config.min_level,
    ranking_stride=config.spatial_ranking.stride,
    class_prior=class_prior,
    truth=truth,
  )
  maps = {method: fuse(scene, method) for method in methods}
  return {**outputs, 'stuff_labels': scene.stuff}, maps


def image_predictor(
  model: OANet,
  task: config_lib.OANetTask,
  method: str,
  class_prior: np.ndarray | None = None,
) -> Callable[[np.ndarray], tuple[dict[str, tf.Tensor], Panoptic]]:
  """[H, W, 3] uint8 RGB of any size -> `predict_panoptic`'s outputs and maps, for a batch of one.

  Args:
    model: the network.
    task: its configuration.
    method: key of `fusion.FUSIONS`, but for 'oracle'.
    class_prior: of `predict_panoptic`.
  """

  def predict(image: tf.Tensor, portrait: bool) -> tuple[dict[str, tf.Tensor], Panoptic]:
    example = network_input(image, task.validation_data.output_size, portrait)
    images, image_info = example['image'][None], example['image_info'][None]
    size = tf.shape(image)[:2]
    outputs, maps = predict_panoptic(
      model, task.model, [method], images, image_info, size, class_prior
    )
    return outputs, maps[method]

  # One trace for each shape of the network's input, whatever the pictures' sizes.
  of_orientation = [
    tf.function(
      functools.partial(predict, portrait=portrait),
      autograph=False,
      input_signature=[tf.TensorSpec([None, None, 3], tf.uint8)],
    )
    for portrait in (False, True)
  ]
  side, other_side = task.validation_data.output_size

  def choose(image: np.ndarray) -> tuple[dict[str, tf.Tensor], Panoptic]:
    portrait = side != other_side and image.shape[0] > image.shape[1]
    return of_orientation[portrait](tf.constant(image))

  return choose


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
