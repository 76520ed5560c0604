"""A trained network from its folder, and its panoptic maps: shared by evaluation and prediction."""

import functools
import logging
import pathlib
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from oanet_tf import model_folder
from oanet_tf.config import definitions
from oanet_tf.data.categories import PanopticCategories
from oanet_tf.data.preprocess import network_input
from oanet_tf.errors import InputError
from oanet_tf.modeling.build import build_ranker
from oanet_tf.modeling.fusion import fuse
from oanet_tf.modeling.oanet import OANet
from oanet_tf.modeling.scene import Panoptic, Truth, make_scene
from oanet_tf.modeling.srm_only import SRMOnly

log = logging.getLogger(__name__)


def take_ranking_module(
  model: OANet,
  task: definitions.OANetTask,
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
  other, config, its_categories = model_folder.load_model(model_dir)
  if its_categories != categories:
    raise InputError(f'{model_dir}: its ranking module is of other categories than the model')
  task.model.spatial_ranking = config.task.model.spatial_ranking
  model.take_ranker(build_ranker(task.model, other.spatial_ranking, model.num_things))


def predict_panoptic(
  model: OANet | SRMOnly,
  config: definitions.OANet,
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
  task: definitions.OANetTask,
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
