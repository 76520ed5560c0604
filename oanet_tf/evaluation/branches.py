"""Scores of the instance branch and the stuff branch by themselves, before they are fused."""

from oanet_tf.data.categories import PanopticCategories
from oanet_tf.data.objects import objects_of_segments
from oanet_tf.evaluation.instance_ap import InstanceAP
from oanet_tf.evaluation.instances_json import Instances
from oanet_tf.evaluation.mean_iou import MeanIoU
from oanet_tf.evaluation.scoring import EvaluatedImage


class BranchScores:
  """Average precision of the detections and mean IoU of the stuff branch, image by image."""

  def __init__(
    self,
    categories: PanopticCategories,
    mask_threshold: float,
    instances: Instances | None = None,
  ):
    """Starts without images.

    Args:
      categories: of the dataset.
      mask_threshold: a pixel belongs to a mask from this probability on.
      instances: true objects, which may overlap. By default objects are made of the panoptic ground
        truth, as the converter does without instances.
    """
    self._categories = categories
    self._has_instances = instances is not None
    self._precision = InstanceAP(categories, mask_threshold, instances)
    self._stuff = MeanIoU(categories)

  def add(self, image: EvaluatedImage) -> None:
    """Adds one image; raises `InputError` if it is not among the true objects."""
    segments, objects = image.ground_truth, None
    if not self._has_instances:
      objects = objects_of_segments(segments, segments.is_thing(self._categories))
    self._precision.update(image.image_id, image.detections, image.image_info, objects)
    self._stuff.update(segments.labels(self._categories)[segments.index], image.stuff_labels)

  def result(self) -> dict[str, float]:
    """`InstanceAP.result`, and the stuff branch's `stuff_mean_iou`."""
    precision = self._precision.result()
    return {**precision, 'stuff_mean_iou': self._stuff.result()['mean_iou']}


def format_branches(scores: dict[str, float]) -> str:
  """Two lines in percent; - where there is no such true object."""
  percent = {name: f'{100 * value:.1f}' if value >= 0 else '-' for name, value in scores.items()}
  instances = [
    f'{name} AP {percent[f"{name}_ap"]} (AP50 {percent[f"{name}_ap50"]}, '
    f'AP75 {percent[f"{name}_ap75"]})'
    for name in ('box', 'mask')
  ]
  return f'{", ".join(instances)}\nstuff branch: mean IoU {percent["stuff_mean_iou"]}'
