"""Detectron2's Panoptic FPN for benchmark_model.py, in a Python that need not have oanet_tf.

Its `_C` need not be built. Without it, Detectron2 itself puts dummies in the place of deformable
convolutions, rotated boxes are never asked for, and RoIAlign and NMS are torchvision's anyway.
"""

import pathlib

import detectron2
import torch
from benchmark_model_contenders import (
  COUNTS,
  NUM_STUFF,
  NUM_THINGS,
  TRAINING_ALONE,
  objects,
  picture,
)
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import build_model
from detectron2.solver import build_optimizer
from detectron2.structures import Boxes, Instances, PolygonMasks
from detectron2.utils.events import EventStorage
from torch.utils.flop_counter import FlopCounterMode

RECIPE = 'COCO-PanopticSegmentation/panoptic_fpn_R_50_1x.yaml'


class Eager:
  """A contender in PyTorch, which builds and runs, but traces nothing.

  Args:
    config: of Detectron2.
    training: whether it trains.
    images: as Detectron2's `DatasetMapper` gives them.
  """

  STAGES = ('build',)

  def __init__(self, config: CfgNode, training: bool, images: list[dict]):
    self._config, self._training, self._images = config, training, images

  def build(self) -> None:
    torch.manual_seed(0)
    self._model = build_model(self._config).train(self._training)
    # Weights are random, as for all. But with the statistics of no network in its frozen batch
    # normalization, each block would add as much as it gets, and activations grow 256-fold.
    for stage in self._model.backbone.bottom_up.stages:
      for block in stage:
        block.conv3.norm.weight.fill_(0.2)
    if self._training:
      self._optimizer = build_optimizer(self._config, self._model)

  def run(self) -> None:
    if self._training:
      self._step()
    else:
      self._segment()

  def gflop(self) -> float:
    """GFLOP of convolutions and matrix products, two per multiplication."""
    with FlopCounterMode(display=False) as counter:
      self.run()
    return counter.get_total_flops() / 1e9

  def _step(self) -> None:
    """As `detectron2.engine.SimpleTrainer.run_step`."""
    with EventStorage():
      loss = sum(self._model(self._images).values())
    self._optimizer.zero_grad()
    loss.backward()
    self._optimizer.step()
    if not torch.isfinite(loss):
      raise FloatingPointError(f'{RECIPE}: the loss is {loss}')

  def _segment(self) -> None:
    with torch.no_grad():
      results = self._model(self._images)
    counts = [len(result['instances']) for result in results]
    # With fewer, there would be less to do than for the others.
    if set(counts) != {COUNTS['detections']}:
      raise ValueError(f'{RECIPE}: {counts} detections, not {COUNTS["detections"]}')


def contender(
  name: str, mode: str, size: list[int], batch: int, original: list[int] | None = None
) -> Eager:
  """A training step with all losses, or an image to its panoptic map.

  Args:
    name: 'detectron2', or 'detectron2_unfrozen', which trains the stem and res2 too.
    mode: 'train' or 'infer'.
    size: [height, width] of images.
    batch: images.
    original: [height, width] of the map; `size` by default.
  """
  image = labelled(size) if mode == 'train' else unlabelled(size, original or size)
  return Eager(config_of(name), mode == 'train', [image] * batch)


def config_of(name: str) -> CfgNode:
  """The recipe with our counts and thresholds."""
  config = get_cfg()
  config.merge_from_file(str(recipes() / RECIPE))
  model = config.MODEL
  model.DEVICE = 'cpu'
  model.WEIGHTS = ''
  # Random weights expect pixels of about unit variance.
  model.PIXEL_STD = [58.0] * 3
  model.RPN.POST_NMS_TOPK_TRAIN = model.RPN.POST_NMS_TOPK_TEST = COUNTS['proposals']
  model.ROI_HEADS.BATCH_SIZE_PER_IMAGE = COUNTS['rois']
  # There is a mask for each RoI of an object.
  model.ROI_HEADS.POSITIVE_FRACTION = COUNTS['masks'] / COUNTS['rois']
  model.ROI_HEADS.NUM_CLASSES = NUM_THINGS
  model.ROI_HEADS.SCORE_THRESH_TEST = 0.0
  model.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH = 0.0
  # And one class for all things.
  model.SEM_SEG_HEAD.NUM_CLASSES = NUM_STUFF + 1
  # The rate of one image, so that the losses stay finite.
  config.SOLVER.BASE_LR /= config.SOLVER.IMS_PER_BATCH
  config.TEST.DETECTIONS_PER_IMAGE = COUNTS['detections']
  if name in TRAINING_ALONE:
    model.BACKBONE.FREEZE_AT = 0
  return config


def recipes() -> pathlib.Path:
  """The folder of configs: in a checkout that was not installed, or in the package."""
  package = pathlib.Path(detectron2.__file__).parent
  folders = (package.parent / 'configs', package / 'model_zoo' / 'configs')
  return folders[0] if folders[0].is_dir() else folders[1]


def unlabelled(size: list[int], original: list[int]) -> dict:
  image = torch.as_tensor(picture(size)).permute(2, 0, 1).contiguous()
  return {'image': image, 'height': original[0], 'width': original[1]}


def labelled(size: list[int]) -> dict:
  """An image as Detectron2's `DatasetMapper` gives it, with our rectangles as polygons."""
  boxes, classes = objects(size)
  semantic = torch.ones(size, dtype=torch.long)
  polygons = []
  for y1, x1, y2, x2 in boxes.astype(int):
    semantic[y1:y2, x1:x2] = 0
    polygons.append([[x1, y1, x2, y1, x2, y2, x1, y2]])
  instances = Instances(tuple(size))
  instances.gt_boxes = Boxes(torch.as_tensor(boxes[:, [1, 0, 3, 2]]))
  instances.gt_classes = torch.as_tensor(classes - 1)
  instances.gt_masks = PolygonMasks(polygons)
  return {**unlabelled(size, size), 'instances': instances, 'sem_seg': semantic}
