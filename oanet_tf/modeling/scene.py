"""What a fusion sees of a batch of images, and what it makes of it."""

# B images, N instances, M mask side, H, W canvas, h, w network input at some stride, T thing and S
# stuff categories.

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from oanet_tf.config.definitions import Fusion
from oanet_tf.modeling.mask_paste import paste_masks
from oanet_tf.modeling.stuff_map import drop_small_stuff, stuff_labels
from oanet_tf.modeling.suppression import suppress


class Truth(NamedTuple):
  """The true segments, at the middles of the cells of the ranking module's canvas.

  Attributes:
    segments: [B, h, w] int32: 0 for void, k for an image's k-th segment.
    labels: [B, h, w] int32: the segment's category label, 0 for void.
  """

  segments: tf.Tensor
  labels: tf.Tensor


class Panoptic(NamedTuple):
  """A batch of panoptic maps.

  Attributes:
    category_mask: [B, H, W] int32 labels, 0 for void.
    instance_mask: [B, H, W] int32: 1 + the index of the detection at each thing's pixel, else 0.
  """

  category_mask: tf.Tensor
  instance_mask: tf.Tensor


class Scene(NamedTuple):
  """A batch of the network's outputs, and how they are to be fused; of `make_scene`.

  Attributes:
    outputs: of `OANet` in inference; detections in descending order of `detection_scores`.
    kept: [B, N] bool: detections whose score is high enough, and that are not suppressed.
    stuff: [B, H, W] int32 labels of the stuff branch, 0 for void and outside of an image.
    image_info: [B, 4, 2] as in `data.preprocess`.
    height, width: H and W; Python's numbers if they were given as such.
    settings: thresholds and limits.
    num_things, num_stuff: T and S.
    stuff_stride, ranking_stride: of `stuff_logits` and of the ranking module's canvas, relative to
      the network input.
    class_prior: [T, T] float32, which category lies on which; for the fusion 'class_prior'.
    truth: for the fusion 'oracle'.
  """

  outputs: dict[str, tf.Tensor]
  kept: tf.Tensor
  stuff: tf.Tensor
  image_info: tf.Tensor
  height: int | tf.Tensor
  width: int | tf.Tensor
  settings: Fusion
  num_things: int
  num_stuff: int
  stuff_stride: int
  ranking_stride: int
  class_prior: np.ndarray | None
  truth: Truth | None


def make_scene(
  outputs: dict[str, tf.Tensor],
  image_info: tf.Tensor,
  canvas_size: Sequence[int] | tf.Tensor,
  *,
  settings: Fusion,
  num_things: int,
  num_stuff: int,
  stuff_stride: int,
  ranking_stride: int,
  class_prior: np.ndarray | None = None,
  truth: Truth | None = None,
) -> Scene:
  """What the fusions have in common.

  Args:
    canvas_size: [2] int [height, width], at least the largest original size of the batch. If it is
      a constant, all shapes of the fusions are static but for the batch's.
    outputs, image_info, settings, num_things, num_stuff, stuff_stride, ranking_stride, class_prior,
      truth: of `Scene`.
  """
  static = tf.get_static_value(tf.convert_to_tensor(canvas_size))
  height, width = tf.unstack(canvas_size) if static is None else static.tolist()
  stuff = stuff_labels(
    outputs['stuff_logits'],
    image_info,
    height,
    width,
    num_things=num_things,
    num_stuff=num_stuff,
    stride=stuff_stride,
    stuff_from=settings.stuff_from,
  )
  scene = Scene(
    outputs=outputs,
    kept=outputs['detection_scores'] >= settings.score_threshold,
    stuff=stuff * within_image(image_info, height, width),
    image_info=image_info,
    height=height,
    width=width,
    settings=settings,
    num_things=num_things,
    num_stuff=num_stuff,
    stuff_stride=stuff_stride,
    ranking_stride=ranking_stride,
    class_prior=class_prior,
    truth=truth,
  )
  if settings.suppression_threshold < 1.0:
    kept = suppress(instance_masks(scene), scene.kept, settings.suppression_threshold)
    scene = scene._replace(kept=kept)
  return scene


def within_image(
  image_info: tf.Tensor, height: int | tf.Tensor, width: int | tf.Tensor
) -> tf.Tensor:
  """[B, H, W] int32: 1 where the canvas is covered by each original image, else 0."""
  sizes = tf.cast(image_info[:, 0], tf.int32)
  rows = tf.cast(tf.range(height) < sizes[:, 0, None], tf.int32)
  columns = tf.cast(tf.range(width) < sizes[:, 1, None], tf.int32)
  return rows[:, :, None] * columns[:, None, :]


def boxes_in_original(boxes: tf.Tensor, image_info: tf.Tensor) -> tf.Tensor:
  """[B, N, 4] boxes of the network input -> pixels of each original image."""
  scale, offset = image_info[:, 2], image_info[:, 3]
  return (boxes + tf.tile(offset, [1, 2])[:, None]) / tf.tile(scale, [1, 2])[:, None]


def paste_at_stride(scene: Scene, masks: tf.Tensor, stride: int) -> tf.Tensor:
  """[B, N, M, M] in the detections' boxes -> [B, N, h, w] at a stride of the network input."""
  sides = [side * scene.stuff_stride // stride for side in scene.outputs['stuff_logits'].shape[1:3]]
  return paste_masks(masks, scene.outputs['detection_boxes'] / stride, *sides)


def instance_masks(scene: Scene) -> tf.Tensor:
  """[B, N, h, w] float32 in {0, 1}: the kept detections on the ranking module's canvas."""
  pasted = paste_at_stride(scene, scene.outputs['detection_masks'], scene.ranking_stride)
  shown = (pasted >= scene.settings.mask_threshold) & scene.kept[..., None, None]
  return tf.cast(shown, tf.float32)


def with_stuff(scene: Scene, instance_mask: tf.Tensor, stuff: tf.Tensor) -> Panoptic:
  """Instances over stuff of which, where it is left, there must be enough.

  Args:
    scene: the batch.
    instance_mask: of `Panoptic`.
    stuff: [B, H, W] int32 labels, 0 for void.
  """
  classes = tf.pad(scene.outputs['detection_classes'], [[0, 0], [1, 0]])
  things = tf.gather(classes, instance_mask, batch_dims=1)
  stuff = tf.where(instance_mask > 0, tf.zeros_like(stuff), stuff)
  stuff = drop_small_stuff(
    stuff,
    1 + scene.num_things + scene.num_stuff,
    scene.settings.stuff_area_limit,
    scene.settings.stuff_area_by,
  )
  return Panoptic(things + stuff, instance_mask)
