"""Average precision of boxes and masks by pycocotools, from the network's detections.

An image's detections become boxes and run-length encoded masks (RLE) at once, so that nothing of
the image's size is kept.
"""

# N detections, M objects, S mask side, H, W original size, T thing categories.

import contextlib
import io
from collections.abc import Mapping

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from oanet_tf.data import geometry
from oanet_tf.data.categories import PanopticCategories
from oanet_tf.data.objects import Objects
from oanet_tf.errors import InputError
from oanet_tf.evaluation.instances_json import Instances

# What pycocotools calls boxes and masks, and the key of a result that it must not see.
_IOU_TYPES = {'box': ('bbox', 'segmentation'), 'mask': ('segm', 'bbox')}
# The first of `COCOeval.stats`.
_STATS = ('ap', 'ap50', 'ap75', 'ap_small', 'ap_medium', 'ap_large')


class InstanceAP:
  """Gathers detections and, unless a JSON file has it, the ground truth, image by image."""

  def __init__(
    self,
    categories: PanopticCategories,
    mask_threshold: float = 0.5,
    instances: Instances | None = None,
  ):
    """Starts without images.

    Args:
      categories: whose things count.
      mask_threshold: a pixel belongs to a mask from this probability on.
      instances: the true objects of these images, and perhaps of others; None if `update` is given
        them.
    """
    self._categories = categories
    self._mask_threshold = mask_threshold
    self._instances = instances
    self._image_ids = set()
    self._sizes = []
    self._detections = []
    self._objects = []

  def update(
    self,
    image_id: int | str,
    outputs: Mapping[str, np.ndarray],
    image_info: np.ndarray,
    ground_truth: Objects | None = None,
  ) -> None:
    """Adds one image.

    Args:
      image_id: the dataset's.
      outputs: the network's, of this image: `detection_boxes` [N, 4] float, [y1, x1, y2, x2] in
        pixels of the network input; `detection_scores` [N]; `detection_classes` [N] int in [1, T],
        0 for padding; `detection_masks` [N, S, S] probabilities in the box.
      image_info: [4, 2] float as in `data.preprocess`.
      ground_truth: objects of the original image; None if there is a file of them.

    Raises:
      InputError: if the image was added before, or is not in the file of objects.
    """
    if image_id in self._image_ids:
      raise InputError(f'image {image_id} is given twice')
    # As pycocotools sorts images, their ids must be of one kind.
    number, size = len(self._sizes), tuple(geometry.original_size(image_info).numpy().tolist())
    self._image_ids.add(image_id)
    self._sizes.append(size)
    self._detections += self._results_of(outputs, image_info, number, size)
    if self._instances is not None:
      of_image = self._instances.of_image(image_id, size)
      self._objects += [{**one, 'image_id': number} for one in of_image]
    elif ground_truth is not None:
      self._objects += _annotations_of(ground_truth, number, size)

  def result(self) -> dict[str, float]:
    """COCO's average precision over all images.

    Returns:
      {'box_ap', 'box_ap50', 'box_ap75', 'box_ap_small', 'box_ap_medium', 'box_ap_large', and the
      same with 'mask_'}: in [0, 1], or -1 where there is no such true object, as in pycocotools.
    """
    numbered = [{**one, 'id': number} for number, one in enumerate(self._objects, start=1)]
    results = {}
    for name, (iou_type, unread) in _IOU_TYPES.items():
      detections = [
        {key: value for key, value in one.items() if key != unread} for one in self._detections
      ]
      # Pycocotools prints its progress and a table.
      with contextlib.redirect_stdout(io.StringIO()):
        stats = self._stats(numbered, detections, iou_type)
      results |= {f'{name}_{key}': float(stat) for key, stat in zip(_STATS, stats, strict=False)}
    return results

  def _results_of(
    self,
    outputs: Mapping[str, np.ndarray],
    image_info: np.ndarray,
    number: int,
    size: tuple[int, int],
  ) -> list[dict]:
    """Detections in COCO's results format."""
    real = outputs['detection_classes'] > 0
    boxes, classes, scores, masks = (
      outputs[f'detection_{key}'][real] for key in ('boxes', 'classes', 'scores', 'masks')
    )
    boxes = geometry.boxes_to_original(boxes, image_info).numpy()
    category_ids = self._categories.id_of_label_table()[classes]
    results = []
    for box, category_id, score, mask in zip(boxes, category_ids, scores, masks, strict=True):
      pixels, top, left = paste_mask(mask, box, *size)
      results.append(
        {
          'image_id': number,
          'category_id': int(category_id),
          'bbox': _coco_box(box),
          'segmentation': _rle(pixels >= self._mask_threshold, top, left, size),
          'score': float(score),
        }
      )
    return results

  def _stats(self, objects: list[dict], detections: list[dict], iou_type: str) -> np.ndarray:
    ground_truth = self._coco(objects)
    # `loadRes` fails on an empty list.
    loaded = ground_truth.loadRes(detections) if detections else self._coco([])
    evaluation = COCOeval(ground_truth, loaded, iou_type)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation.stats

  def _coco(self, annotations: list[dict]) -> COCO:
    coco = COCO()
    coco.dataset = {
      'images': [
        {'id': number, 'height': height, 'width': width}
        for number, (height, width) in enumerate(self._sizes)
      ],
      'annotations': annotations,
      'categories': [{'id': c.id, 'name': c.name} for c in self._categories if c.is_thing],
    }
    coco.createIndex()
    return coco


def paste_mask(
  mask: np.ndarray, box: np.ndarray, height: int, width: int
) -> tuple[np.ndarray, int, int]:
  """`mask_paste.paste_masks` of one mask, but only within its box, which is a small part of most.

  Args:
    mask: [S, S] float.
    box: [4] float, [y1, x1, y2, x2] in pixels of the canvas.
    height, width: of the canvas.

  Returns:
    [h, w] float: the canvas where it may differ from 0; and the row and column of its first pixel.
  """
  rows, top = _interpolation(box[0], box[2], height, len(mask))
  columns, left = _interpolation(box[1], box[3], width, len(mask))
  return rows @ mask @ columns.T, top, left


def _interpolation(low: float, high: float, length: int, side: int) -> tuple[np.ndarray, int]:
  """[n, S] weights of the S cells of [low, high) at n pixels' centers, and the first pixel."""
  first, end = (int(np.clip(np.ceil(edge - 0.5), 0, length)) for edge in (low, high))
  centers = np.arange(first, end, dtype=np.float32) + 0.5
  position = np.clip((centers - low) / max(high - low, 1e-9) * side - 0.5, 0, side - 1)
  weights = np.maximum(1 - np.abs(position[:, None] - np.arange(side, dtype=np.float32)), 0)
  return weights, first


def _annotations_of(objects: Objects, number: int, size: tuple[int, int]) -> list[dict]:
  """Objects in COCO's format."""
  return [
    {
      'image_id': number,
      'category_id': int(category_id),
      'bbox': _coco_box(box),
      'area': int(mask.sum()),
      'iscrowd': int(is_crowd),
      'segmentation': _rle(mask, int(box[0]), int(box[1]), size),
    }
    for box, category_id, is_crowd, mask in zip(*objects, strict=True)
  ]


def _coco_box(box: np.ndarray) -> list[float]:
  """[y1, x1, y2, x2] -> [x, y, width, height]."""
  y1, x1, y2, x2 = box.tolist()
  return [x1, y1, x2 - x1, y2 - y1]


def _rle(mask: np.ndarray, top: int, left: int, size: tuple[int, int]) -> dict:
  """COCO's run-length encoding of an image with `mask`, [h, w] bool, at a place in it."""
  canvas = np.zeros(size, np.uint8, order='F')
  canvas[top : top + mask.shape[0], left : left + mask.shape[1]] = mask
  return coco_mask.encode(canvas)
