"""Detections + stuff logits -> one panoptic map at the image's own size, in one of several ways.

A new fusion is a function of a batch and an entry in `FUSIONS` (and in `config.values.FUSIONS`,
which the command lines read).
"""

# B images, N instances, T thing, S stuff categories.

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import tensorflow as tf

from oanet_tf.config.definitions import Fusion
from oanet_tf.data import geometry
from oanet_tf.modeling.fusion import order
from oanet_tf.modeling.fusion.batch import FusionBatch, GroundTruth, Panoptic
from oanet_tf.modeling.fusion.merge import merge_instances, merge_order
from oanet_tf.modeling.fusion.upsnet import upsnet
from oanet_tf.modeling.spatial_ranking import SpatialRankingModule


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fuser:
  """All that decides how a network's outputs become panoptic maps; of `build.build_fuser`.

  Attributes:
    settings: thresholds and limits.
    num_things, num_stuff: T and S.
    stuff_stride: of the stuff logits, relative to the network input.
    ranking_module: ranks the instances of the fusion 'srm'; its canvas also serves suppression and
      the other orders.
    scored_pixels: of `spatial_ranking.rank`.
    class_prior: [T, T] float32, which category lies on which; for the fusion 'class_prior'.
  """

  settings: Fusion
  num_things: int
  num_stuff: int
  stuff_stride: int
  ranking_module: SpatialRankingModule
  scored_pixels: str = 'all'
  class_prior: np.ndarray | None = None

  def batch(
    self,
    outputs: Mapping[str, tf.Tensor],
    image_info: tf.Tensor,
    canvas_size: Sequence[int] | tf.Tensor,
    ground_truth: GroundTruth | None = None,
  ) -> FusionBatch:
    """What the fusions share of a batch of images.

    Args:
      outputs: of `OANet` in inference.
      image_info: [B, 4, 2] as in `data.geometry`.
      canvas_size: [2] int [height, width], at least the largest original of the batch. If it is a
        constant, all shapes of the fusions are static but for the batch's.
      ground_truth: for the fusion 'oracle'.
    """
    canvas = geometry.Canvas.of_size(image_info, canvas_size)
    return FusionBatch(self, outputs, canvas, ground_truth)


def fuse(batch: FusionBatch, method: str) -> Panoptic:
  """The panoptic maps of a batch; void outside of an image.

  Args:
    batch: of `Fuser.batch`.
    method: a key of `FUSIONS`.
  """
  return FUSIONS[method](batch)


def ordered_by(
  score: Callable[[FusionBatch], tf.Tensor],
) -> Callable[[FusionBatch], Panoptic]:
  """The fusion that pastes instances in the order of a score, the highest on top, over stuff.

  Args:
    score: batch -> [B, N] float.
  """

  def fusion(batch: FusionBatch) -> Panoptic:
    instances, settings = batch.instances, batch.fuser.settings
    instance_mask = merge_instances(
      instances.masks,
      geometry.boxes_to_original(instances.boxes, batch.canvas.image_info),
      merge_order(score(batch), instances.kept),
      instances.kept,
      batch.canvas,
      mask_threshold=settings.mask_threshold,
      overlap_threshold=settings.overlap_threshold,
    )
    return batch.panoptic(instance_mask, batch.stuff)

  return fusion


FUSIONS: dict[str, Callable[[FusionBatch], Panoptic]] = {
  'srm': ordered_by(order.ranking_scores),
  'heuristic': ordered_by(order.detection_scores),
  'class_prior': ordered_by(order.class_prior_scores),
  'upsnet': upsnet,
  'oracle': ordered_by(order.true_scores),
}
