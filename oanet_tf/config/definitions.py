"""The configuration of an experiment, as dataclasses in the style of the Model Garden.

Parts that come from the Model Garden keep its config classes. The registered experiments are in
`defaults/`. The values that a key may have are in `values.py`.
"""

import dataclasses

from official.core import config_definitions
from official.modeling import hyperparams
from official.vision.configs import backbones, common, decoders, maskrcnn


@dataclasses.dataclass
class KerasResNet(hyperparams.Config):
  """`tf_keras.applications.ResNet50`, 101 or 152, for weights in their `.h5` files."""

  model_id: int = 50


@dataclasses.dataclass
class TorchResNet(hyperparams.Config):
  """The ResNets of torchvision and Detectron2, for their weights.

  Attributes:
    model_id: depth: 18, 34, 50, 101 or 152.
    stride_in: which convolution of a bottleneck moves by two cells: '3x3', as in torchvision, or
      the first '1x1', as in Detectron2.
  """

  model_id: int = 50
  stride_in: str = '3x3'


@dataclasses.dataclass
class Backbone(backbones.Backbone):
  """The Model Garden's backbones, Keras' ResNet and PyTorch's."""

  keras_resnet: KerasResNet = dataclasses.field(default_factory=KerasResNet)
  torch_resnet: TorchResNet = dataclasses.field(default_factory=TorchResNet)


@dataclasses.dataclass
class Anchor(maskrcnn.Anchor):
  """The anchors.

  Attributes:
    cell_offset: from a cell's upper left corner to the centre of its anchors, in cells. 0.5 is the
      middle of the cell, as in the Model Garden; Detectron2's is 0.
  """

  cell_offset: float = 0.5


@dataclasses.dataclass
class RoIAlign(hyperparams.Config):
  """How features are sampled at regions of interest.

  Attributes:
    crop_size: bins along a side.
    samples: along a side of a bin, whose value is the mean over samples × samples. 0 takes as many
      as a bin has cells, rounded up, as Detectron2 does.
    max_level: coarsest level of the pyramid that is sampled. Detectron2's is 5, and the Model
      Garden's that of the network.
    aligned: whether the centre of cell k lies at k + 0.5, as it does; in torchvision it lies at k.
  """

  crop_size: int = 7
  samples: int = 2
  max_level: int = 5
  aligned: bool = True


@dataclasses.dataclass
class StuffHead(hyperparams.Config):
  """The stuff branch.

  Attributes:
    layout: 'oanet' (Figure 3), or the semantic head of a Panoptic FPN: 'detectron2' or
      'model_garden'. These have one channel for all things, and the last one for void too.
    num_filters: channels of the 3×3 convolutions.
    num_convs: 3×3 convolutions on each FPN level, in 'oanet'; the others have theirs.
    group_norm: whether group normalization follows each of them; the paper has none, the others
      always have it.
    object_context: whether all T+S categories are supervised, as in the second row of Table 2, or
      only the S stuff categories.
  """

  layout: str = 'oanet'
  num_filters: int = 128
  num_convs: int = 2
  group_norm: bool = False
  object_context: bool = True


@dataclasses.dataclass
class SpatialRanking(hyperparams.Config):
  """The spatial ranking module (section 3.2).

  Attributes:
    convolution: '1x1', '3x3' or '1x7+7x1' (Table 5).
    num_scales: 1 in the paper; each further one sees the instance tensor at half the resolution of
      the one before, so what is decided by more than a convolution's reach may be learnt.
    stride: of the instance tensor, relative to the network input.
    scored_pixels: an instance's ranking score is the mean over 'all' pixels of its mask (Eq. 3), or
      only over the 'conflicting' pixels, which instances of another category also cover. If there
      are none, it is the mean over all pixels.
  """

  convolution: str = '1x7+7x1'
  num_scales: int = 1
  stride: int = 4
  scored_pixels: str = 'all'


@dataclasses.dataclass
class OcclusionHead(hyperparams.Config):
  """Tells of two instances that overlap which lies on top, for the fusion 'pairwise'.

  Attributes:
    enabled: whether the network has it.
    crop_size: of masks and features, along a side.
    num_filters: channels of all its layers.
    max_pairs: of an image in the fusion; those that share the most pixels.
    num_sampled_pairs: of an image in training: so many of annotated objects, and so many of
      detections; those that conflict in the most pixels.
  """

  enabled: bool = False
  crop_size: int = 14
  num_filters: int = 32
  max_pairs: int = 64
  num_sampled_pairs: int = 8


@dataclasses.dataclass
class Fusion(hyperparams.Config):
  """How detections and stuff logits become a panoptic map.

  Attributes:
    method: of prediction and export. 'srm' orders instances by ranking score, 'heuristic' by
      detection score, 'class_prior' by how often their categories lie on each other, and 'pairwise'
      by what the occlusion head says of each two that overlap. 'upsnet' takes the largest logit at
      each pixel.
    rules: of merging: those of 'panopticapi', 'model_garden' or 'detectron2', which differ in how
      masks and logits are resampled, what an equal value is, and when stuff is counted
      (`modeling.fusion.rules`).
    ranking_pairs: which instances 'srm' orders by ranking score: 'all' pairs (Eq. 3), or pairs
      'between_categories'. With the latter, an instance lies below the better detections of its own
      category that it overlaps, as the ranking map is not trained on instances of one category.
    score_threshold: detections with a lower score are dropped.
    mask_threshold: least probability of an instance's pixels.
    suppression_threshold: before the merge, a detection is dropped if the intersection over union
      of its mask with that of a better detection of any category is above this; 1 drops none.
    overlap_threshold: an instance is dropped if more than this fraction of it is covered already.
    stuff_from: a pixel's stuff category has the largest of the 'stuff' logits or of 'all' logits.
      With 'all', the pixel becomes void if the largest is that of a thing.
    stuff_area_limit: stuff with fewer pixels, at the image's own size, becomes void.
    stuff_area_by: pixels are counted by 'class' or by connected 'component' of a class.
    class_prior: path of a file of `oanet class_prior` for the method 'class_prior'; ''
      for none.
  """

  method: str = 'srm'
  rules: str = 'panopticapi'
  ranking_pairs: str = 'between_categories'
  score_threshold: float = 0.5
  mask_threshold: float = 0.5
  suppression_threshold: float = 1.0
  overlap_threshold: float = 0.5
  stuff_from: str = 'stuff'
  stuff_area_limit: int = 4900
  stuff_area_by: str = 'class'
  class_prior: str = ''


@dataclasses.dataclass
class OANet(hyperparams.Config):
  """The network.

  Attributes:
    sharing: what the stuff branch shares with the instance branch (Table 4): 'none', 'backbone'
      (res1–res5) or 'backbone_and_fpn'.
    batch_norm: 'frozen' keeps the statistics and scales of a pretrained backbone and leaves the
      heads without normalization, as in the paper. 'sync' normalizes over all replicas, 'plain' on
      each replica.
    coarse_levels: how the FPN makes the levels above 5 of the one before, by 'pooling' (one cell of
      four is kept), as in Detectron2, or by a 'convolution', as in the Model Garden.
    frozen_level: the backbone's layers up to this level's are not trained; 0 trains all, and 2
      freezes stem and res2, as in Detectron2.
    resizing: how images are brought to the network's size: 'bilinear'; 'pillow', which is the same
      but a mean of all pixels where the image shrinks, as in Detectron2; or 'normalized', the Model
      Garden's, which normalizes colours before and does not round them.
    roi_layers: what proposes and samples regions of interest: the layers of 'oanet', or those of
      'model_garden'. The latter need images of one size, and of `roi_aligner` and
      `mask_roi_aligner` only `crop_size` matters to them.
    boxes_within: proposals and detections end at the edge of the 'image', or at that of the network
      'input', padding included, as in the Model Garden.
  """

  min_level: int = 2
  max_level: int = 6
  coarse_levels: str = 'pooling'
  frozen_level: int = 0
  resizing: str = 'bilinear'
  roi_layers: str = 'oanet'
  boxes_within: str = 'image'
  sharing: str = 'backbone_and_fpn'
  batch_norm: str = 'frozen'
  backbone: Backbone = dataclasses.field(
    default_factory=lambda: Backbone(type='resnet', resnet=backbones.ResNet(model_id=50))
  )
  decoder: decoders.Decoder = dataclasses.field(
    default_factory=lambda: decoders.Decoder(type='fpn', fpn=decoders.FPN(use_keras_layer=True))
  )
  norm_activation: common.NormActivation = dataclasses.field(
    default_factory=lambda: common.NormActivation(norm_momentum=0.997, norm_epsilon=1e-5)
  )
  anchor: Anchor = dataclasses.field(default_factory=Anchor)
  rpn_head: maskrcnn.RPNHead = dataclasses.field(default_factory=maskrcnn.RPNHead)
  roi_generator: maskrcnn.ROIGenerator = dataclasses.field(default_factory=maskrcnn.ROIGenerator)
  roi_sampler: maskrcnn.ROISampler = dataclasses.field(default_factory=maskrcnn.ROISampler)
  roi_aligner: RoIAlign = dataclasses.field(default_factory=RoIAlign)
  detection_head: maskrcnn.DetectionHead = dataclasses.field(
    default_factory=lambda: maskrcnn.DetectionHead(num_convs=0, num_fcs=2)
  )
  detection_generator: maskrcnn.DetectionGenerator = dataclasses.field(
    default_factory=lambda: maskrcnn.DetectionGenerator(nms_version='batched')
  )
  mask_sampler: maskrcnn.MaskSampler = dataclasses.field(default_factory=maskrcnn.MaskSampler)
  mask_roi_aligner: RoIAlign = dataclasses.field(default_factory=lambda: RoIAlign(crop_size=14))
  mask_head: maskrcnn.MaskHead = dataclasses.field(default_factory=maskrcnn.MaskHead)
  stuff_head: StuffHead = dataclasses.field(default_factory=StuffHead)
  spatial_ranking: SpatialRanking = dataclasses.field(default_factory=SpatialRanking)
  occlusion_head: OcclusionHead = dataclasses.field(default_factory=OcclusionHead)
  fusion: Fusion = dataclasses.field(default_factory=Fusion)


@dataclasses.dataclass
class Losses(hyperparams.Config):
  """Eq. 1: the instance branch's five losses + λ · stuff + SRM; and the occlusion head's.

  Attributes:
    rpn_class_weight, rpn_box_weight, class_weight, box_weight, mask_weight: of the five losses.
    stuff_weight: λ.
    occlusion_weight: of the occlusion head's loss, where the network has that head.
    l2_weight_decay: half of it times the sum of squares of all kernels is added to the loss, as in
      the Model Garden.
    rpn_huber_loss_delta, frcnn_huber_loss_delta: errors of boxes up to this count by half their
      square, and others linearly. 0 counts all by their absolute values (L1), as in Detectron2.
    box_loss_mean_over: the losses of boxes are means over the coordinates of 'objects', for the
      anchors by level, as in the Model Garden; or sums over coordinates divided by the number of
      sampled anchors or RoIs, background too ('samples'), as in Detectron2.
  """

  rpn_class_weight: float = 1.0
  rpn_box_weight: float = 1.0
  class_weight: float = 1.0
  box_weight: float = 1.0
  mask_weight: float = 1.0
  stuff_weight: float = 0.25
  occlusion_weight: float = 1.0
  l2_weight_decay: float = 1e-4
  rpn_huber_loss_delta: float = 1.0 / 9.0
  frcnn_huber_loss_delta: float = 1.0
  box_loss_mean_over: str = 'objects'


@dataclasses.dataclass
class Data(hyperparams.Config):
  """One split.

  Attributes:
    input_path: globs of TFRecord shards, separated by commas.
    global_batch_size: over all replicas.
    output_size: [height, width] for a landscape image, transposed for a portrait one. The image is
      scaled to the largest size that fits, keeping its aspect ratio, and padded at the bottom and
      right to multiples of 32. [800, 1333] makes the short side 800 and the long one at most 1,333.
    tight_padding: whether an image is padded only to multiples of 32 of its own size, and a batch
      to its largest, as in Detectron2; for evaluation and prediction only.
    random_flip: whether half of the images are mirrored.
    min_scale, max_scale: range of a random factor of that scale. An image that becomes too large is
      cropped at a random position.
    short_sides: in place of that, lengths of which one is drawn at random for the image's short
      side, as Detectron2's `ResizeShortestEdge` does; the long one still fits into output_size.
      Empty for none.
    color_jitter: brightness, contrast and saturation change at random by factors within 1 ± this.
    max_num_instances: most instances of an image; the instance losses ignore further ones.
    mask_size: side length of an instance's mask within its box.
    label_stride: of the panoptic labels for the stuff and SRM losses.
    shuffle_buffer_size: in records.
    objects_from: whether the instance branch learns from the 'annotations' or from the 'segments'
      of the panoptic ground truth. Segments do not overlap (Table 3, "pano-instance GT"), so the
      ranking module cannot learn from them.
    skip_damaged: whether a damaged shard is read up to its first damaged record, or is an error.
    rpn_match_threshold, rpn_unmatched_threshold: an anchor is an object if its IoU is at least the
      first, and background if it is below the second.
    rpn_batch_size_per_im, rpn_fg_fraction: number of anchors sampled in an image, and the largest
      fraction of objects among them.
  """

  input_path: str = ''
  global_batch_size: int = 16
  output_size: list[int] = dataclasses.field(default_factory=lambda: [800, 1333])
  tight_padding: bool = False
  random_flip: bool = True
  min_scale: float = 1.0
  max_scale: float = 1.0
  short_sides: list[int] = dataclasses.field(default_factory=list)
  color_jitter: float = 0.0
  max_num_instances: int = 100
  mask_size: int = 112
  label_stride: int = 4
  shuffle_buffer_size: int = 1000
  objects_from: str = 'annotations'
  skip_damaged: bool = False
  rpn_match_threshold: float = 0.7
  rpn_unmatched_threshold: float = 0.3
  rpn_batch_size_per_im: int = 256
  rpn_fg_fraction: float = 0.5


@dataclasses.dataclass
class OANetTask(config_definitions.TaskConfig):
  """Network, data and losses.

  Attributes:
    mode: 'panoptic' for the whole network, 'srm_only' for the spatial ranking module alone, trained
      and evaluated on ground-truth masks without images.
    categories: path of the converter's `categories.json`; '' for the one beside the shards.
    init_checkpoint: what training starts from: a checkpoint of the Model Garden or of this package,
      a `.h5` file of `tf_keras.applications`, a `.pkl` or `.pth` file of Detectron2 or torchvision,
      or '' for random weights.
    init_checkpoint_modules: the parts of it that are loaded: 'all' that fit by name and shape,
      'backbone', or 'backbone,decoder'.
    reference_batch_size: batch size for which the learning rates in `trainer.optimizer_config` are
      meant. They are multiplied by `train_data.global_batch_size` / `reference_batch_size`. 0
      leaves them as they are.
    seed: of initial weights, shuffling, sampling and augmentation.
  """

  model: OANet = dataclasses.field(default_factory=OANet)
  train_data: Data = dataclasses.field(default_factory=Data)
  validation_data: Data = dataclasses.field(
    default_factory=lambda: Data(global_batch_size=8, random_flip=False)
  )
  losses: Losses = dataclasses.field(default_factory=Losses)
  mode: str = 'panoptic'
  categories: str = ''
  init_checkpoint_modules: str = 'all'
  reference_batch_size: int = 16
  seed: int = 0


@dataclasses.dataclass
class Runtime(config_definitions.RuntimeConfig):
  """Devices and precision.

  Attributes:
    deterministic: whether the same configuration, seed, data and device give the same weights bit
      for bit. Several replicas cannot.
  """

  deterministic: bool = False


@dataclasses.dataclass
class Trainer(config_definitions.TrainerConfig):
  """Schedule and optimizer.

  Attributes:
    gradient_accumulation_steps: number of micro-batches in a step, computed in turn to save memory.
      Losses are averages over a micro-batch.
    gradient_norms: whether the logs have the norms of the instance and stuff losses' gradients at
      the backbone's last feature (Figure 5). It takes a second backward pass through the stuff
      branch.
  """

  gradient_accumulation_steps: int = 1
  gradient_norms: bool = False
