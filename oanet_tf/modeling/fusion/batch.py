"""What the fusions see of a batch of images, and what they make of it."""

# B images, N instances, H, W canvas, h, w ranking module's canvas.

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import tensorflow as tf

from oanet_tf.data.geometry import Canvas
from oanet_tf.modeling import spatial_ranking
from oanet_tf.modeling.fusion.instances import Instances
from oanet_tf.modeling.fusion.stuff import drop_small_stuff, stuff_labels

if TYPE_CHECKING:
  from oanet_tf.modeling.fusion.fuser import Fuser


class GroundTruth(NamedTuple):
  """The annotated segments, sampled at the centres of the cells of the ranking module's canvas.

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


class FusionBatch:
  """The network's outputs on their way to panoptic maps; of `Fuser.batch`.

  What several fusions need is computed once, when it is first asked for.

  Attributes:
    fuser: which thresholds, strides and tables apply.
    outputs: of `OANet` in inference.
    canvas: of the maps.
    instances: the detections.
    ground_truth: for the fusion 'oracle'.
  """

  def __init__(
    self,
    fuser: 'Fuser',
    outputs: Mapping[str, tf.Tensor],
    canvas: Canvas,
    ground_truth: GroundTruth | None,
  ):
    self.fuser = fuser
    self.outputs = outputs
    self.canvas = canvas
    self.ground_truth = ground_truth
    input_size = [side * fuser.stuff_stride for side in outputs['stuff_logits'].shape[1:3]]
    self.instances = Instances(outputs, fuser.settings, input_size, fuser.ranking_module.stride)

  @functools.cached_property
  def ranking(self) -> spatial_ranking.Ranking:
    """What the spatial ranking module says of the kept instances."""
    return spatial_ranking.rank(
      self.fuser.ranking_module,
      self.instances.canvas_masks,
      self.instances.classes,
      self.fuser.scored_pixels,
    )

  @functools.cached_property
  def stuff(self) -> tf.Tensor:
    """[B, H, W] int32 labels of the stuff branch alone, 0 for void and outside of an image."""
    return self.inside * stuff_labels(
      self.outputs['stuff_logits'],
      self.canvas,
      num_things=self.fuser.num_things,
      num_stuff=self.fuser.num_stuff,
      stride=self.fuser.stuff_stride,
      stuff_from=self.fuser.settings.stuff_from,
    )

  @functools.cached_property
  def inside(self) -> tf.Tensor:
    """[B, H, W] int32: 1 where an image's original is, else 0."""
    return tf.cast(self.canvas.inside(), tf.int32)

  def panoptic(self, instance_mask: tf.Tensor, stuff: tf.Tensor) -> Panoptic:
    """Puts instances over stuff, of which enough must stay visible.

    Args:
      instance_mask: of `Panoptic`.
      stuff: [B, H, W] int32 labels, 0 for void.
    """
    classes = tf.pad(self.instances.classes, [[0, 0], [1, 0]])
    things = tf.gather(classes, instance_mask, batch_dims=1)
    stuff = tf.where(instance_mask > 0, tf.zeros_like(stuff), stuff)
    settings = self.fuser.settings
    num_labels = 1 + self.fuser.num_things + self.fuser.num_stuff
    stuff = drop_small_stuff(stuff, num_labels, settings.stuff_area_limit, settings.stuff_area_by)
    return Panoptic(things + stuff, instance_mask)
