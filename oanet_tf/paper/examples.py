"""What a trained network makes of pictures, as the figures show it."""

# H, W a picture's size, N detections that are merged, h, w ranking map, T thing categories.

import pathlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from oanet_tf.data import geometry
from oanet_tf.data.categories import PanopticCategories
from oanet_tf.data.panoptic_map import Segments, segments_of_masks
from oanet_tf.data.pictures import read_picture
from oanet_tf.data.preprocess import network_input
from oanet_tf.model_folder import ModelFolder
from oanet_tf.modeling.fusion.methods import fuse
from oanet_tf.modeling.mask_paste import paste_masks


class Prediction(NamedTuple):
  """Of one picture.

  Attributes:
    image: [H, W, 3] uint8.
    segmentations: by fusion.
    ranking_map: [h, w, T] float32 probabilities, without the network input's padding.
    masks: [N, H, W] bool of the detections that are merged.
    labels: [N] int, theirs, in [1, T].
    detection_scores, ranking_scores: [N] float32, theirs.
    categories: of the network.
  """

  image: np.ndarray
  segmentations: dict[str, Segments]
  ranking_map: np.ndarray
  masks: np.ndarray
  labels: np.ndarray
  detection_scores: np.ndarray
  ranking_scores: np.ndarray
  categories: PanopticCategories


def predictions(
  model_dir: pathlib.Path, pictures: Sequence[pathlib.Path], methods: Sequence[str]
) -> Iterator[Prediction]:
  """Runs a network on pictures, one after the other.

  Args:
    model_dir: folder of a training of a whole network.
    pictures: files of any size and colour mode.
    methods: fusions that do not need the truth.

  Raises:
    InputError: if a picture cannot be read, or the folder has no checkpoint.
  """
  trained = ModelFolder(model_dir).load()
  model, categories, fuser = trained.model, trained.categories, trained.fuser(methods)
  output_size = trained.config.task.validation_data.output_size

  @tf.function(autograph=False)
  def run(images: tf.Tensor, info: tf.Tensor, size: tf.Tensor) -> tuple:
    batch = fuser.batch(model(images, info), info, size)
    instances, maps = batch.instances, {method: fuse(batch, method) for method in methods}
    boxes = geometry.boxes_to_original(instances.boxes, info)
    masks = paste_masks(instances.masks, boxes, *tf.unstack(size), fuser.rules.mask_edges)
    masks = fuser.rules.reaches(masks, fuser.settings.mask_threshold)
    per_instance = (masks, instances.classes, instances.scores, batch.ranking.scores)
    return maps, batch.ranking.map, instances.kept, per_instance

  side, other_side = output_size
  for path in pictures:
    image = read_picture(path)
    portrait = side != other_side and image.shape[0] > image.shape[1]
    example = network_input(tf.constant(image), trained.config.task, portrait)
    results = run(example['image'][None], example['image_info'][None], tf.constant(image.shape[:2]))
    maps, ranking_map, kept, per_instance = tf.nest.map_structure(lambda x: x[0].numpy(), results)
    masks, labels, detection_scores, ranking_scores = (values[kept] for values in per_instance)
    yield Prediction(
      image=image,
      segmentations={method: segments_of_masks(*map_, categories) for method, map_ in maps.items()},
      ranking_map=geometry.without_padding(
        ranking_map, example['image_info'].numpy(), example['image'].shape[:2]
      ),
      masks=masks,
      labels=labels,
      detection_scores=detection_scores,
      ranking_scores=ranking_scores,
      categories=categories,
    )
