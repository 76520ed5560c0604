"""Builds the network from the config, which no other file of `modeling` reads as a whole."""

from collections.abc import Iterable

import numpy as np
import tensorflow as tf
import tf_keras
from official.vision.modeling import backbones, decoders
from official.vision.modeling.heads import dense_prediction_heads, instance_heads
from official.vision.modeling.layers import detection_generator, roi_aligner

from oanet_tf.config import definitions
from oanet_tf.data.anchors import Anchors
from oanet_tf.data.categories import PanopticCategories
from oanet_tf.errors import InputError
from oanet_tf.modeling.adaptive_roi_align import AdaptiveRoIAlign
from oanet_tf.modeling.frozen_batch_norm import FrozenBatchNormalization
from oanet_tf.modeling.fusion.fuser import Fuser
from oanet_tf.modeling.keras_resnet import KerasResNet
from oanet_tf.modeling.model_garden_rois import ModelGardenROIGenerator
from oanet_tf.modeling.oanet import OANet
from oanet_tf.modeling.occlusion_head import OcclusionHead, Pairs, views_of
from oanet_tf.modeling.precision import keep_in_float32
from oanet_tf.modeling.proposals import ROIGenerator
from oanet_tf.modeling.roi_align import RoIAlign
from oanet_tf.modeling.roi_sampling import ROISampler
from oanet_tf.modeling.semantic_fpn_head import ModelGardenSemanticHead, SemanticFPNHead
from oanet_tf.modeling.spatial_ranking import SpatialRankingModule
from oanet_tf.modeling.srm_only import SRMOnly
from oanet_tf.modeling.stuff_channels import StuffChannels
from oanet_tf.modeling.stuff_head import StuffHead
from oanet_tf.modeling.torch_resnet import TorchResNet
from oanet_tf.modeling.tracing import garbage_kept

# The stuff branch uses P2–P5 (Figure 3); coarser levels serve the RPN alone. The Model Garden's
# uses all.
COARSEST_STUFF_LEVEL = 5
# Half precision cannot tell neighbouring pixels of a large image apart, and spoils RoIAlign's
# gradient, which sums many numbers.
IN_FLOAT32 = {'dtype': 'float32'}


def build_network(
  task: definitions.OANetTask, categories: PanopticCategories, l2_weight_decay: float = 0.0
) -> OANet | SRMOnly:
  """The network that the task's mode trains: all of it, or the spatial ranking module alone.

  Arguments and errors are those of `build_oanet`.
  """
  build = build_srm_only if task.mode == 'srm_only' else build_oanet
  return build(task.model, categories, l2_weight_decay)


def build_srm_only(
  config: definitions.OANet, categories: PanopticCategories, l2_weight_decay: float = 0.0
) -> SRMOnly:
  """The spatial ranking module alone; arguments and errors are those of `build_oanet`."""
  _check_categories(categories)
  module = _ranking_module(config, categories, _regularizer(l2_weight_decay))
  module(tf.zeros([1, 1, 1, categories.num_things]))
  return SRMOnly(module, categories.num_things, categories.num_stuff)


# Nothing here needs AutoGraph, which Keras applies to each kind of layer.
@tf.autograph.experimental.do_not_convert
@garbage_kept()
def build_oanet(
  config: definitions.OANet, categories: PanopticCategories, l2_weight_decay: float = 0.0
) -> OANet:
  """The whole network, with its variables created.

  Args:
    config: of the model.
    categories: of the dataset; they determine the numbers of classes.
    l2_weight_decay: half of it times the sum of squares of all kernels becomes a loss of the model.

  Raises:
    InputError: if the dataset has no thing category.
  """
  _check_categories(categories)
  regularizer = _regularizer(l2_weight_decay)
  norm = config.norm_activation.replace(use_sync_bn=config.batch_norm == 'sync')
  # The decoder's factory takes the normalization from the config.
  config = config.replace(norm_activation=norm)
  norm_options = {
    'activation': norm.activation,
    'use_sync_bn': norm.use_sync_bn,
    'norm_momentum': norm.norm_momentum,
    'norm_epsilon': norm.norm_epsilon,
    'kernel_regularizer': regularizer,
  }
  num_classes = categories.num_things + 1
  detection_head = config.detection_head.as_dict()
  del detection_head['cascade_class_ensemble']

  def backbone() -> tf_keras.Model:
    own_resnets = {'keras_resnet': KerasResNet, 'torch_resnet': TorchResNet}
    if config.backbone.type in own_resnets:
      return own_resnets[config.backbone.type](
        **config.backbone.get().as_dict(),
        use_sync_bn=norm.use_sync_bn,
        norm_momentum=norm.norm_momentum,
        kernel_regularizer=regularizer,
      )
    return _pyramid(
      backbones.factory.build_backbone(
        tf_keras.layers.InputSpec(shape=[None, None, None, 3]), config.backbone, norm, regularizer
      )
    )

  def decoder(backbone: tf_keras.Model) -> tf_keras.Model:
    specs = {level: feature.shape for level, feature in backbone.output.items()}
    if config.coarse_levels == 'convolution' or config.decoder.type != 'fpn':
      return decoders.factory.build_decoder(specs, config, regularizer)
    finest = config.replace(max_level=min(config.max_level, int(max(specs))))
    return _with_pooled_levels(
      decoders.factory.build_decoder(specs, finest, regularizer), config.max_level
    )

  shared = backbone()
  own = backbone() if config.sharing == 'none' else None
  stuff_channels = _stuff_channels(config.stuff_head, categories)
  model = OANet(
    backbone=shared,
    decoder=decoder(shared),
    stuff_backbone=own,
    stuff_decoder=None if config.sharing == 'backbone_and_fpn' else decoder(own or shared),
    anchors=Anchors(config),
    rpn_head=dense_prediction_heads.RPNHead(
      min_level=config.min_level,
      max_level=config.max_level,
      num_anchors_per_location=config.anchor.num_scales * len(config.anchor.aspect_ratios),
      **config.rpn_head.as_dict(),
      **norm_options,
    ),
    roi_generator=_roi_generator(config),
    roi_sampler=ROISampler(config.roi_sampler),
    roi_aligner=_roi_align(config.roi_aligner, config.roi_layers),
    detection_head=instance_heads.DetectionHead(
      num_classes=num_classes, **detection_head, **norm_options
    ),
    detection_generator=detection_generator.DetectionGenerator(
      **config.detection_generator.as_dict(), **IN_FLOAT32
    ),
    mask_roi_aligner=_roi_align(config.mask_roi_aligner, config.roi_layers),
    mask_head=instance_heads.MaskHead(
      num_classes=num_classes, **config.mask_head.as_dict(), **norm_options
    ),
    num_sampled_masks=config.mask_sampler.num_sampled_masks,
    stuff_head=_stuff_head(config, stuff_channels.total, regularizer),
    stuff_channels=stuff_channels,
    spatial_ranking=_ranking_module(config, categories, regularizer),
    occlusion_head=_occlusion_head(config.occlusion_head, categories, regularizer),
    num_sampled_pairs=config.occlusion_head.num_sampled_pairs,
    fusion=config.fusion,
    num_things=categories.num_things,
    boxes_within=config.boxes_within,
  )
  _make_variables(model, config)
  # Only now do all layers exist: the Model Garden's heads create theirs when first called.
  layers = [part for part in model.submodules if isinstance(part, tf_keras.layers.Layer)]
  keep_in_float32(layers)
  if config.frozen_level:
    for frozen in (shared, own) if own else (shared,):
      _freeze_up_to(frozen, config.frozen_level)
  if config.batch_norm == 'frozen':
    _freeze_batch_norm(layers)
  return model


def build_fuser(
  task: definitions.OANetTask, model: OANet | SRMOnly, class_prior: np.ndarray | None = None
) -> Fuser:
  """The `Fuser` for the outputs of a network.

  Args:
    task: has the fusion's settings.
    model: was built for the task.
    class_prior: [T, T] of `data.class_prior.load_table`, for the fusion of that name.
  """
  settings = task.model.fusion
  if task.mode == 'srm_only':
    # The stuff logits are the ground truth. A pixel whose label is a thing has no stuff.
    settings = settings.replace(stuff_from='all')
  return Fuser(
    settings=settings,
    num_things=model.num_things,
    stuff_channels=model.stuff_channels,
    stuff_stride=2**task.model.min_level,
    ranking_module=model.spatial_ranking,
    occlusion_head=None if task.mode == 'srm_only' else model.occlusion_head,
    scored_pixels=task.model.spatial_ranking.scored_pixels,
    class_prior=class_prior,
  )


def _check_categories(categories: PanopticCategories) -> None:
  if not categories.num_things:
    raise InputError('the dataset has no thing category, which OANet needs')


def _regularizer(l2_weight_decay: float) -> tf_keras.regularizers.Regularizer | None:
  return tf_keras.regularizers.l2(l2_weight_decay / 2.0) if l2_weight_decay else None


def _roi_generator(config: definitions.OANet) -> ROIGenerator | ModelGardenROIGenerator:
  own = config.roi_layers == 'oanet'
  return (ROIGenerator if own else ModelGardenROIGenerator)(config.roi_generator)


def _roi_align(config: definitions.RoIAlign, roi_layers: str) -> tf_keras.layers.Layer:
  if roi_layers == 'model_garden':
    return roi_aligner.MultilevelROIAligner(config.crop_size, **IN_FLOAT32)
  if config.samples:
    return RoIAlign(**config.as_dict(), **IN_FLOAT32)
  return AdaptiveRoIAlign(crop_size=config.crop_size, max_level=config.max_level, **IN_FLOAT32)


def _stuff_channels(config: definitions.StuffHead, categories: PanopticCategories) -> StuffChannels:
  things = categories.num_things if config.object_context else 0
  return StuffChannels(
    void=int(config.layout == 'model_garden'),
    things=things if config.layout == 'oanet' else 1,
    stuff=categories.num_stuff,
    num_things=categories.num_things,
  )


def _stuff_head(
  config: definitions.OANet,
  num_labels: int,
  regularizer: tf_keras.regularizers.Regularizer | None,
) -> tf_keras.layers.Layer:
  settings, coarsest = config.stuff_head, config.max_level
  if settings.layout != 'model_garden':
    coarsest = min(coarsest, COARSEST_STUFF_LEVEL)
  common = {
    'levels': list(range(config.min_level, coarsest + 1)),
    'num_labels': num_labels,
    'num_filters': settings.num_filters,
    'kernel_regularizer': regularizer,
  }
  if settings.layout == 'detectron2':
    return SemanticFPNHead(**common)
  if settings.layout == 'model_garden':
    return ModelGardenSemanticHead(**common, num_fpn_filters=config.decoder.fpn.num_filters)
  return StuffHead(**common, num_convs=settings.num_convs, group_norm=settings.group_norm)


def _ranking_module(
  config: definitions.OANet,
  categories: PanopticCategories,
  regularizer: tf_keras.regularizers.Regularizer | None,
) -> SpatialRankingModule:
  return SpatialRankingModule(
    num_things=categories.num_things,
    convolution=config.spatial_ranking.convolution,
    num_scales=config.spatial_ranking.num_scales,
    stride=config.spatial_ranking.stride,
    kernel_regularizer=regularizer,
  )


def _occlusion_head(
  config: definitions.OcclusionHead,
  categories: PanopticCategories,
  regularizer: tf_keras.regularizers.Regularizer | None,
) -> OcclusionHead | None:
  if not config.enabled:
    return None
  return OcclusionHead(
    num_things=categories.num_things,
    crop_size=config.crop_size,
    num_filters=config.num_filters,
    max_pairs=config.max_pairs,
    kernel_regularizer=regularizer,
    **IN_FLOAT32,
  )


def _pyramid(backbone: tf_keras.Model) -> tf_keras.Model:
  """Drops a last layer that only serves classification, such as MobileNet's."""
  levels = backbone.output_specs
  if levels.keys() == backbone.output.keys():
    return backbone
  features = {level: backbone.output[level] for level in levels}
  return tf_keras.Model(backbone.inputs, features, name=backbone.name)


def _with_pooled_levels(decoder: tf_keras.Model, max_level: int) -> tf_keras.Model:
  """Adds coarser levels, each with one cell of four of the level before."""
  features = dict(decoder.output)
  for level in range(1 + int(max(features)), 1 + max_level):
    pool = tf_keras.layers.MaxPool2D(pool_size=1, strides=2, name=f'pooled_{level}')
    features[str(level)] = pool(features[str(level - 1)])
  return tf_keras.Model(decoder.input, features, name=decoder.name)


def _freeze_up_to(backbone: tf_keras.Model, level: int) -> None:
  """Freezes the layers that a level of the backbone is computed by."""
  tf_keras.Model(backbone.input, backbone.output[str(level)]).trainable = False


def _freeze_batch_norm(layers: Iterable[tf_keras.layers.Layer]) -> None:
  """Fixes statistics and scales: those of a pretrained backbone, and the identity in the heads."""
  for layer in layers:
    if 'BatchNormalization' in type(layer).__name__:
      FrozenBatchNormalization.freeze(layer)


def _make_variables(model: OANet, config: definitions.OANet) -> None:
  """Calls the parts that create their variables when first called, on the smallest maps."""
  channels = next(iter(model.decoder.output.values())).shape[-1]

  def rois(crop_size: int) -> tf.Tensor:
    return tf.zeros([1, 1, crop_size, crop_size, channels])

  sides = {level: 2 ** (config.max_level - int(level)) for level in model.decoder.output}
  features = {level: tf.zeros([1, side, side, channels]) for level, side in sides.items()}
  # The initial random values depend on this order.
  model.stuff_head(features)
  model.rpn_head(features)
  model.detection_head(rois(config.roi_aligner.crop_size))
  model.mask_head([rois(config.mask_roi_aligner.crop_size), tf.zeros([1, 1], tf.int32)])
  model.spatial_ranking(tf.zeros([1, 1, 1, model.num_things]))
  if head := model.occlusion_head:
    none = tf.zeros([1, 1], tf.int32)
    pairs = Pairs(none, none, none > 0)
    views = views_of(pairs, tf.zeros([1, 1, 4]), tf.zeros([1, 1, 1, 1]), none, head.crop_size)
    head(head.reduced(features), views)
  # Keras' `summary` needs it.
  model.built = True
