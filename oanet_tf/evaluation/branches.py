"""How good the instance and the stuff branch are for themselves, before they are fused."""

import pathlib

import numpy as np

from oanet_tf.data.categories import PanopticCategories
from oanet_tf.evaluation.instance_ap import InstanceAP, objects_of
from oanet_tf.evaluation.mean_iou import MeanIoU
from oanet_tf.evaluation.scoring import EvaluatedImage


class BranchScores:
  """Average precision of the detections and mean IoU of the stuff branch, image by image."""

  def __init__(
    self,
    categories: PanopticCategories,
    mask_threshold: float,
    instances_json: str | pathlib.Path | None = None,
  ):
    """Starts without images.

    Args:
      categories: of the dataset.
      mask_threshold: a pixel belongs to a mask from this probability on.
      instances_json: true objects in COCO's format, which may overlap; without, the segments of the
        panoptic truth are taken.
    """
    self._categories = categories
    self._instances_json = instances_json
    self._precision = InstanceAP(categories, mask_threshold)
    self._stuff = MeanIoU(categories)

  def add(self, image: EvaluatedImage) -> None:
    """Adds one image."""
    objects = None if self._instances_json else objects_of(image.truth, self._categories)
    self._precision.update(image.source_id, image.detections, image.image_info, objects)
    self._stuff.update(true_labels(image, self._categories), image.stuff_labels)

  def result(self) -> dict[str, float]:
    """`InstanceAP.result`, and the stuff branch's `stuff_mean_iou`."""
    precision = self._precision.result(self._instances_json)
    return {**precision, 'stuff_mean_iou': self._stuff.result()['mean_iou']}


def true_labels(image: EvaluatedImage, categories: PanopticCategories) -> np.ndarray:
  """[H, W] int32 labels of the panoptic truth, 0 for void."""
  truth = image.truth
  table = np.zeros(1 + max(truth.segment_ids, default=0), np.int32)
  table[truth.segment_ids] = categories.label_of_id_table()[truth.category_ids]
  return table[truth.segment_map]


def format_branches(scores: dict[str, float]) -> str:
  """Two lines in per cent; - where the truth has no such object."""
  percent = {name: f'{100 * value:.1f}' if value >= 0 else '-' for name, value in scores.items()}
  instances = [
    f'{name} AP {percent[f"{name}_ap"]} (AP50 {percent[f"{name}_ap50"]}, '
    f'AP75 {percent[f"{name}_ap75"]})'
    for name in ('box', 'mask')
  ]
  return f'{", ".join(instances)}\nstuff branch: mean IoU {percent["stuff_mean_iou"]}'
