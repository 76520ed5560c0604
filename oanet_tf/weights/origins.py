"""What a file of weights is a network of, and the experiment that is the same network."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from official.vision.modeling.backbones import resnet

from oanet_tf.errors import InputError
from oanet_tf.weights import coco_rows, torchvision
from oanet_tf.weights.checkpoint import Checkpoint
from oanet_tf.weights.stored import Shape, WeightsFile
from oanet_tf.weights.torch_weights import TorchWeights

Shapes = Mapping[str, Shape]

# Without a stuff head, all stuff is void until one is trained.
_NO_STUFF = {'task.model.fusion.stuff_area_limit': 2**31 - 1}
# Tensors that are no part of a network's weights: counters, optimizers, anchors, colours.
_OF_NO_USE = re.compile(
  r'.*num_batches_tracked|.*anchor_generator.*|pixel_(mean|std)|optimizer/.*|global_step|'
  r'save_counter|.*/save_counter'
)


class Origin(NamedTuple):
  """What a file is.

  Attributes:
    name: for messages.
    experiment: registered, of the same network.
    settings: what differs from it, by key.
    has_stuff_head: whether the file has one.
  """

  name: str
  experiment: str
  settings: dict[str, object]
  has_stuff_head: bool


def origin_of(file: WeightsFile) -> Origin:
  """What a file is a network of.

  Raises:
    InputError: if it is none that can be imported, such as a backbone alone, or one that was
      trained for other categories than COCO's.
  """
  if isinstance(file, TorchWeights):
    origin = _of_torch(file)
  elif isinstance(file, Checkpoint) and file.is_model_gardens:
    origin = _of_model_garden(file)
  elif isinstance(file, Checkpoint):
    raise InputError(f'{file.path}: is a checkpoint of this package; its folder needs no import')
  else:
    raise InputError(f'{file.path}: has only a backbone; give it to task.init_checkpoint')
  _check_classes(file, origin)
  return origin


def of_no_use(names: list[str]) -> tuple[list[str], list[str]]:
  """Splits names of unused tensors: those that no network needs, and the others."""
  left = [name for name in names if not _OF_NO_USE.fullmatch(name)]
  return [name for name in names if name not in left], left


def _of_torch(file: TorchWeights) -> Origin:
  heads = ('decoder', 'rpn_head', 'detection_head', 'mask_head')
  if missing := [part for part in heads if not file.has(part)]:
    raise InputError(
      f'{file.path}: has no {missing[0]}; a backbone alone is for task.init_checkpoint'
    )
  has_stuff_head = file.has('stuff_head')
  settings = {
    'task.model.backbone.torch_resnet.model_id': file.resnet_depth(),
    'task.model.backbone.torch_resnet.stride_in': file.stride_in,
    **_head_settings(file),
    'task.model.decoder.fpn.num_filters': _kernel_shape(file, 'decoder', 'lateral_2')[-1],
  }
  if has_stuff_head:
    filters = _kernel_shape(file, 'stuff_head', '_logits')[-2]
    settings['task.model.stuff_head.num_filters'] = filters
  else:
    settings |= _NO_STUFF
  name = 'Panoptic FPN' if has_stuff_head else 'Mask R-CNN'
  if file.stride_in == torchvision.STRIDE_IN:
    settings |= torchvision.SETTINGS
    return Origin(f"torchvision's {name}", 'panoptic_fpn_detectron2', settings, has_stuff_head)
  return Origin(f"Detectron2's {name}", 'panoptic_fpn_detectron2', settings, has_stuff_head)


def _of_model_garden(file: Checkpoint) -> Origin:
  parts = ('backbone', 'decoder', 'rpn_head', 'detection_head', 'mask_head', 'stuff_head')
  if missing := [part for part in parts if not file.has(part)]:
    name = {'stuff_head': 'segmentation_head'}.get(missing[0], missing[0])
    raise InputError(
      f'{file.path}: is no Panoptic FPN of the Model Garden (it has no {name}); a part of one is '
      'for task.init_checkpoint'
    )
  settings = {
    **_resnet_settings(file),
    **_head_settings(file),
    'task.model.decoder.fpn.num_filters': _kernel_shape(file, 'decoder', 'layer_with_weights-0')[
      -1
    ],
    'task.model.stuff_head.num_filters': _kernel_shape(file, 'stuff_head', '_classifier')[-2],
  }
  return Origin("the Model Garden's Panoptic FPN", 'panoptic_fpn_model_garden', settings, True)


def _kernel_shape(file: TorchWeights | Checkpoint, part: str, layer: str) -> Shape:
  shape = file.shapes(part).get(f'{layer}/kernel', ())
  if len(shape) < 2:
    raise InputError(f"{file.path}: its {part} lacks {layer}'s kernel")
  return shape


def _resnet_settings(file: Checkpoint) -> dict[str, object]:
  """Depth and width of the Model Garden's ResNet, by the filters of its blocks in their order."""
  shapes = file.shapes('backbone')
  blocks = sorted(
    (int(match[1]), shape[-1])
    for name, shape in shapes.items()
    if (match := re.fullmatch(r'layer_with_weights-(\d+)/_conv1/kernel', name))
  )
  filters = [width for _, width in blocks]
  kind = 'bottleneck' if any('/_conv3/' in name for name in shapes) else 'residual'
  groups = [(width, filters.count(width)) for width in dict.fromkeys(filters)]
  for depth, specs in resnet.RESNET_SPECS.items():
    multiplier = filters[0] / specs[0][1] if filters else 0
    if groups == [(int(width * multiplier), number) for _, width, number in specs] and all(
      spec[0] == kind for spec in specs
    ):
      return {
        'task.model.backbone.resnet.model_id': depth,
        'task.model.backbone.resnet.depth_multiplier': multiplier,
      }
  raise InputError(f'{file.path}: its backbone is no ResNet of the Model Garden')


def _head_settings(file: TorchWeights | Checkpoint) -> dict[str, object]:
  """Numbers and widths of the layers of the instance branch's heads."""

  def layers(part: str, kind: str) -> list[int]:
    """The outputs of each of a part's layers of a kind."""
    shapes = file.shapes(part)
    names = [name for name in shapes if re.fullmatch(rf'{kind}/\d+/kernel', name)]
    return [shapes[name][-1] for name in sorted(names)]

  settings = {}
  for part in ('rpn_head', 'detection_head', 'mask_head'):
    convs = layers(part, '_convs')
    settings[f'task.model.{part}.num_convs'] = len(convs)
    if convs:
      settings[f'task.model.{part}.num_filters'] = convs[-1]
  dense = layers('detection_head', '_fcs')
  settings['task.model.detection_head.num_fcs'] = len(dense)
  if dense:
    settings['task.model.detection_head.fc_dims'] = dense[-1]
  return settings


def _check_classes(file: TorchWeights | Checkpoint, origin: Origin) -> None:
  """Refuses other numbers of classes than COCO's."""
  coco = coco_rows.coco_categories()
  wanted = {('detection_head', '_classifier/bias'): 1 + coco.num_things}
  if origin.has_stuff_head:
    layer, extra = ('_logits', 1) if isinstance(file, TorchWeights) else ('_classifier', 2)
    wanted['stuff_head', f'{layer}/bias'] = extra + coco.num_stuff
  for (part, name), number in wanted.items():
    stored = file.find(part, name)
    found = stored.shape[0] if stored else 0
    if found != number:
      raise InputError(
        f"{file.path}: is {origin.name} for other categories than COCO's (its {part} has {found} "
        f'classes, not {number}); it can start a training by task.init_checkpoint'
      )
