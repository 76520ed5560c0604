"""What a trained network makes of pictures, as the figures show it."""

# H, W a picture's size, N detections that are merged, h, w ranking map, T thing categories.

import pathlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from oanet_tf import inference, model_folder
from oanet_tf.data.categories import PanopticCategories
from oanet_tf.data.panoptic_map import Segments, segments_of_masks
from oanet_tf.data.pictures import read_picture
from oanet_tf.data.preprocess import network_input
from oanet_tf.evaluation.details import within_picture
from oanet_tf.modeling.mask_paste import paste_masks
from oanet_tf.modeling.scene import boxes_in_original


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
    methods: fusions that need neither a table nor the truth.

  Raises:
    InputError: if a picture cannot be read, or the folder has no checkpoint.
  """
  model, config, categories = model_folder.load_model(model_dir)
  task = config.task
  fusion = task.model.fusion

  @tf.function(autograph=False)
  def run(images: tf.Tensor, info: tf.Tensor, size: tf.Tensor) -> tuple:
    outputs, maps = inference.predict_panoptic(model, task.model, methods, images, info, size)
    boxes = boxes_in_original(outputs['detection_boxes'], info)
    pasted = paste_masks(outputs['detection_masks'], boxes, size[0], size[1])
    return outputs, maps, pasted >= fusion.mask_threshold

  side, other_side = task.validation_data.output_size
  for path in pictures:
    image = read_picture(path)
    portrait = side != other_side and image.shape[0] > image.shape[1]
    example = network_input(tf.constant(image), task.validation_data.output_size, portrait)
    results = run(example['image'][None], example['image_info'][None], tf.constant(image.shape[:2]))
    outputs, maps, masks = tf.nest.map_structure(lambda value: value[0].numpy(), results)
    kept = outputs['detection_scores'] >= fusion.score_threshold
    yield Prediction(
      image=image,
      segmentations={method: segments_of_masks(*map_, categories) for method, map_ in maps.items()},
      ranking_map=within_picture(
        outputs['ranking_map'], example['image_info'].numpy(), example['image'].shape[:2]
      ),
      masks=masks[kept],
      labels=outputs['detection_classes'][kept],
      detection_scores=outputs['detection_scores'][kept],
      ranking_scores=outputs['ranking_scores'][kept],
      categories=categories,
    )
