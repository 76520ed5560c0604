"""The settings of a fusion, and what all fusions share of a batch."""

# B images, N instances, H, W canvas, h, w ranking module's canvas, T thing, S stuff categories.

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from oanet_tf.config.definitions import Fusion
from oanet_tf.data.geometry import Canvas, height_and_width
from oanet_tf.modeling import spatial_ranking
from oanet_tf.modeling.fusion import strips
from oanet_tf.modeling.fusion.instances import Instances
from oanet_tf.modeling.fusion.rules import RULES, Rules
from oanet_tf.modeling.fusion.strips import MAP
from oanet_tf.modeling.fusion.stuff import large_stuff, stuff_labels, stuff_scores
from oanet_tf.modeling.occlusion_head import OcclusionHead, views_of
from oanet_tf.modeling.stuff_channels import StuffChannels

# Two masks with a greater intersection over union are for one object, as for panoptic quality.
_FOR_ONE_OBJECT = 0.5
# Above any logit of the occlusion head.
_CERTAIN = 1e6


class GroundTruth(NamedTuple):
  """The annotated segments, sampled at the cell centres of the ranking module's canvas.

  Attributes:
    segments: [B, h, w] int32, k for an image's k-th segment, 0 for void.
    labels: [B, h, w] int32, the segment's category label, 0 for void.
  """

  segments: tf.Tensor
  labels: tf.Tensor


class Panoptic(NamedTuple):
  """A batch of panoptic maps.

  Attributes:
    category_mask: [B, H, W] int32 labels, 0 for void.
    instance_mask: [B, H, W] int32, 1 + the index of the detection at pixels of things, else 0.
  """

  category_mask: tf.Tensor
  instance_mask: tf.Tensor


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fuser:
  """What turns a network's outputs into panoptic maps; made by `build.build_fuser`.

  Attributes:
    settings: thresholds and limits.
    num_things: T.
    stuff_channels: what the stuff logits stand for.
    stuff_stride: of the stuff logits, relative to the network input.
    ranking_module: ranks the instances of the fusion 'srm'. Suppression and all orders use its
      canvas.
    occlusion_head: for the fusion 'pairwise', or None.
    scored_pixels: of `spatial_ranking.rank`.
    class_prior: [T, T] float32 of `data.class_prior.load_table`, for the fusion 'class_prior'.
  """

  settings: Fusion
  num_things: int
  stuff_channels: StuffChannels
  stuff_stride: int
  ranking_module: spatial_ranking.SpatialRankingModule
  occlusion_head: OcclusionHead | None = None
  scored_pixels: str = 'all'
  class_prior: np.ndarray | None = None

  @property
  def rules(self) -> Rules:
    """Of merging, as the settings name them."""
    return RULES[self.settings.rules]

  def batch(
    self,
    outputs: Mapping[str, tf.Tensor],
    image_info: tf.Tensor,
    canvas_size: Sequence[int] | tf.Tensor,
    ground_truth: GroundTruth | None = None,
    whole_size: Sequence[int] | None = None,
    score_threshold: float | tf.Tensor | None = None,
  ) -> 'FusionBatch':
    """Prepares a batch of images for the fusions.

    Args:
      outputs: of `OANet` in inference.
      image_info: [B, 4, 2] as in `data.geometry`.
      canvas_size: [2] int [height, width], at least the largest original of the batch. If it is a
        constant, all shapes of the fusions are static except for B.
      ground_truth: for the fusion 'oracle'.
      whole_size: [height, width] of the network input in pixels of the originals, if it is known
        when the graph is made.
      score_threshold: of detections; None takes that of the settings.
    """
    canvas = Canvas.of_size(image_info, canvas_size)
    if score_threshold is None:
      score_threshold = self.settings.score_threshold
    return FusionBatch(self, outputs, canvas, ground_truth, whole_size, score_threshold)


class FusionBatch:
  """The network's outputs for a batch of images, made by `Fuser.batch`.

  What several fusions need is computed once, at its first use.

  Attributes:
    fuser: has the settings.
    outputs: of `OANet` in inference.
    canvas: of the panoptic maps.
    instances: the detections.
    ground_truth: for the fusion 'oracle'.
  """

  def __init__(
    self,
    fuser: Fuser,
    outputs: Mapping[str, tf.Tensor],
    canvas: Canvas,
    ground_truth: GroundTruth | None,
    whole_size: Sequence[int] | None,
    score_threshold: float | tf.Tensor,
  ):
    self.fuser = fuser
    self.outputs = outputs
    self.canvas = canvas
    self.ground_truth = ground_truth
    self._whole_size = whole_size
    sides = height_and_width(outputs['stuff_logits'])
    self._input_size = [side * fuser.stuff_stride for side in sides]
    self.instances = Instances(
      outputs, fuser.settings, score_threshold, self._input_size, fuser.ranking_module.stride
    )

  @functools.cached_property
  def merge_canvas(self) -> Canvas:
    """On which instances are merged: that of the maps, or one with the input's padding."""
    if not self.fuser.rules.merges_padding:
      return self.canvas
    input_size = tf.cast(tf.stack(self._input_size), tf.float32)
    sizes = tf.math.ceil(input_size / self.canvas.image_info[:, 2])
    size = [self.canvas.height, self.canvas.width]
    if self._whole_size is not None:
      size = np.maximum(size, self._whole_size)
    else:
      size = tf.maximum(tf.stack(size), tf.cast(tf.reduce_max(sizes, axis=0), tf.int32))
    # Nothing of the input is outside.
    return Canvas.of_size(tf.concat([sizes[:, None], self.canvas.image_info[:, 1:]], axis=1), size)

  @functools.cached_property
  def ranking(self) -> spatial_ranking.Ranking:
    """The spatial ranking module's result for the kept instances."""
    return spatial_ranking.rank(
      self.fuser.ranking_module,
      self.instances.canvas_masks,
      self.instances.classes,
      self.fuser.scored_pixels,
    )

  @functools.cached_property
  def claims(self) -> tf.Tensor:
    """[B, N, N] float32: how strongly each instance claims to lie on each other; 0 if it does not.

    It is the occlusion head's logit for the two. Of two masks that are for one object, the better
    detection lies on top.
    """
    instances, head = self.instances, self.fuser.occlusion_head
    for_one = tf.cast(instances.overlaps > _FOR_ONE_OBJECT, tf.float32)
    pairs = head.pairs_of(instances.shared_pixels * (1.0 - for_one))
    views = views_of(
      pairs, instances.boxes, instances.binary_masks, instances.classes, head.crop_size
    )
    logits = tf.where(pairs.exists, head(self.outputs, views), 0.0)
    first, second = (
      tf.one_hot(index, instances.classes.shape[1]) for index in (pairs.first, pairs.second)
    )
    on_second = tf.matmul(first * logits[..., None], second, transpose_a=True)
    asked = tf.nn.relu(on_second - tf.transpose(on_second, [0, 2, 1]))
    better = np.triu(np.ones(for_one.shape[1:], np.float32), k=1)
    return asked + _CERTAIN * for_one * better

  @functools.cached_property
  def stuff(self) -> tf.Tensor:
    """[B, H, W] int32 labels of the stuff branch alone, 0 for void and outside the image."""

    def labels(strip: Canvas) -> tf.Tensor:
      found = stuff_labels(
        self.outputs['stuff_logits'],
        strip,
        channels=self.fuser.stuff_channels,
        stride=self.fuser.stuff_stride,
        stuff_from=self.fuser.settings.stuff_from,
        resampling=self.fuser.rules.resampling,
      )
      return found * inside(strip)

    return self.by_strips(labels, MAP)

  def by_strips(self, function: Callable[..., Any], specs: Any, *maps: tf.Tensor) -> Any:
    """`strips.by_strips` on the canvas; the function takes a strip of it, and those of `maps`."""
    canvas = self.canvas
    return strips.by_strips(
      lambda top, rows, *maps: function(canvas.strip(top, rows), *maps),
      specs,
      (tf.shape(canvas.image_info)[0], canvas.height, canvas.width),
      *maps,
    )

  def panoptic(self, instance_mask: tf.Tensor, stuff: tf.Tensor) -> Panoptic:
    """Puts instances over stuff, and drops stuff whose visible area is too small.

    Args:
      instance_mask: of `Panoptic`.
      stuff: [B, H, W] int32 labels, 0 for void.
    """
    classes = tf.pad(self.instances.classes, [[0, 0], [1, 0]])
    visible = self.by_strips(
      lambda _, instances, stuff: tf.where(instances > 0, tf.zeros_like(stuff), stuff),
      MAP,
      instance_mask,
      stuff,
    )
    large = self._is_large(stuff if self.fuser.rules.counts_hidden_stuff else visible)

    def labels(_: Canvas, instances: tf.Tensor, visible: tf.Tensor, large: tf.Tensor) -> tf.Tensor:
      things = tf.gather(classes, instances, batch_dims=1)
      return things + visible * tf.cast(large, tf.int32)

    return Panoptic(self.by_strips(labels, MAP, instance_mask, visible, large), instance_mask)

  def stuff_scores(self, maps: Panoptic) -> tf.Tensor:
    """[B, S] float32, the mean probability of each stuff category over its pixels in the maps."""
    return stuff_scores(
      self.outputs['stuff_logits'],
      maps.category_mask,
      self.canvas,
      channels=self.fuser.stuff_channels,
      stride=self.fuser.stuff_stride,
    )

  def _is_large(self, stuff: tf.Tensor) -> tf.Tensor:
    """[B, H, W] bool: whether the stuff at a pixel has a large enough area."""
    settings, rules = self.fuser.settings, self.fuser.rules
    return large_stuff(
      stuff,
      1 + self.fuser.num_things + self.fuser.stuff_channels.stuff,
      lambda areas: rules.reaches(areas, settings.stuff_area_limit),
      settings.stuff_area_by,
    )


def inside(canvas: Canvas) -> tf.Tensor:
  """[B, H, W] int32: 1 inside the original image, else 0."""
  return tf.cast(canvas.inside(), tf.int32)
