"""The network: images -> what the losses or the fusion need."""

# B images, H, W network input, N proposals, RoIs or detections, K sampled masks, C detection
# classes (background and T things), M mask side.

from collections.abc import Callable

import tensorflow as tf
import tf_keras
from official.vision.ops import box_ops, preprocess_ops

from oanet_tf.config.definitions import Fusion
from oanet_tf.data import geometry
from oanet_tf.data.anchor_targets import rpn_targets
from oanet_tf.data.anchors import Anchors
from oanet_tf.modeling import occlusion_targets
from oanet_tf.modeling.fusion.instances import Instances
from oanet_tf.modeling.mask_targets import first_objects, mask_targets
from oanet_tf.modeling.occlusion_head import OcclusionHead
from oanet_tf.modeling.roi_sampling import ROISampler
from oanet_tf.modeling.spatial_ranking import SpatialRankingModule, rank_ground_truth, true_masks
from oanet_tf.modeling.stuff_channels import StuffChannels

Features = dict[str, tf.Tensor]

# Scales of the encoded boxes of the second stage, as in the Model Garden's MaskRCNNModel.
BOX_WEIGHTS = [10.0, 10.0, 5.0, 5.0]


class OANet(tf_keras.Model):
  """Backbone and FPN, instance branch, stuff branch and spatial ranking module (Figure 2).

  The heads of the instance branch are the Model Garden's, as in its `MaskRCNNModel`. Set
  `all_shapes_static` for TFLite's delegates, which need static shapes; masks are then computed for
  empty slots too.

  Args:
    backbone, decoder: of the instance branch, and of the stuff branch where it has none.
    stuff_backbone, stuff_decoder: the stuff branch's own, or None to share (Table 4).
    anchors: image size -> anchors by level.
    rpn_head, roi_generator, roi_sampler, roi_aligner, detection_head, detection_generator,
      mask_roi_aligner, mask_head: parts of Mask R-CNN.
    num_sampled_masks: K.
    stuff_head: features by level -> logits.
    stuff_channels: what those stand for.
    spatial_ranking: instance tensor -> ranking logits.
    occlusion_head: pairs of instances -> which lies on top; None for none.
    num_sampled_pairs: of each kind, on which it is trained.
    fusion: which detections it is to be asked of.
    num_things: T.
    boxes_within: where proposals and detections end, at the edge of the 'image' or of the 'input'.
  """

  def __init__(
    self,
    *,
    backbone: tf_keras.Model,
    decoder: tf_keras.Model,
    stuff_backbone: tf_keras.Model | None,
    stuff_decoder: tf_keras.Model | None,
    anchors: Anchors,
    rpn_head: tf_keras.layers.Layer,
    roi_generator: Callable[..., tf.Tensor],
    roi_sampler: ROISampler,
    roi_aligner: tf_keras.layers.Layer,
    detection_head: tf_keras.layers.Layer,
    detection_generator: tf_keras.layers.Layer,
    mask_roi_aligner: tf_keras.layers.Layer,
    mask_head: tf_keras.layers.Layer,
    num_sampled_masks: int,
    stuff_head: tf_keras.layers.Layer,
    stuff_channels: StuffChannels,
    spatial_ranking: SpatialRankingModule,
    occlusion_head: OcclusionHead | None,
    num_sampled_pairs: int,
    fusion: Fusion,
    num_things: int,
    boxes_within: str = 'image',
  ):
    super().__init__(name='oanet')
    self.backbone = backbone
    self.decoder = decoder
    self.stuff_backbone = stuff_backbone
    self.stuff_decoder = stuff_decoder
    self.rpn_head = rpn_head
    self.roi_generator = roi_generator
    self.roi_aligner = roi_aligner
    self.detection_head = detection_head
    self.detection_generator = detection_generator
    self.mask_roi_aligner = mask_roi_aligner
    self.mask_head = mask_head
    self.stuff_head = stuff_head
    self.spatial_ranking = spatial_ranking
    self.occlusion_head = occlusion_head
    self.num_sampled_masks = num_sampled_masks
    self.num_sampled_pairs = num_sampled_pairs
    self.stuff_channels = stuff_channels
    self.num_things = num_things
    self.all_shapes_static = False
    self._anchors = anchors
    self._fusion = fusion
    self._sample_rois = roi_sampler
    self._boxes_within = boxes_within

  def call(
    self,
    images: tf.Tensor,
    image_info: tf.Tensor,
    labels: Features | None = None,
    training: bool = False,
  ) -> dict[str, tf.Tensor]:
    """The forward pass.

    Args:
      images: [B, H, W, 3] uint8, or normalized float32, of `data.preprocess`; in inference, H and W
        are static.
      image_info: [B, 4, 2] float32, as in `data.geometry`.
      labels: in training, the examples of `data.preprocess.training_steps`.
      training: whether to return raw predictions and targets for the losses, or detections.

    Returns:
      In training `rpn_scores`, `rpn_boxes`, `rpn_score_targets`, `rpn_box_targets` by level;
      `class_outputs` [B, N, C], `box_outputs` [B, N, 4C], `class_targets`, `box_targets`;
      `mask_outputs`, `mask_targets` [B, K, M, M], `mask_class_targets` [B, K]; classes below 0
      stand for slots without a RoI; `stuff_logits` [B, h, w, `stuff_channels.total`];
      `instance_tensor` and `ranking_logits` [B, h, w, T];
      `occlusion_logits` and `occlusion_targets` [B, 2 P], where there is an occlusion head, of
      `occlusion_targets.TrainingPairs`; `last_feature`, the backbone's coarsest.
      In inference `detection_boxes` [B, N, 4] in pixels of the network input, `detection_scores`
      (descending), `detection_classes` [B, N] in [1, T], `num_detections` [B]; `detection_masks`
      [B, N, M, M] probabilities in the box, 0 in slots that no image of the batch fills;
      `stuff_logits` as in training; where there is an occlusion head, its reduced features.
    """
    size = geometry.height_and_width(images)
    anchors = self._anchors(size)
    images = normalize(images, image_info)
    backbone_features = self.backbone(images)
    features = self.decoder(backbone_features)
    stuff_logits = self.stuff_head(self._stuff_features(images, backbone_features, features))
    rpn_scores, rpn_boxes = self.rpn_head(features)
    limits = self._box_limits(images, image_info)
    proposals = self._propose(rpn_scores, rpn_boxes, anchors, limits, training)
    if training:
      outputs = {'rpn_scores': rpn_scores, 'rpn_boxes': rpn_boxes, 'stuff_logits': stuff_logits}
      outputs['last_feature'] = backbone_features[max(backbone_features)]
      outputs['rpn_score_targets'], outputs['rpn_box_targets'] = rpn_targets(
        labels['anchor_samples'],
        labels['anchor_matches'],
        labels['gt_boxes'],
        anchors,
      )
      masks = true_masks(labels, size, self.spatial_ranking.stride)
      outputs.update(self._instance_training(features, proposals, limits, labels, masks))
      outputs.update(rank_ground_truth(self.spatial_ranking, masks, labels['gt_classes']))
      return outputs
    outputs = self._detect(features, proposals, limits)
    outputs['stuff_logits'] = stuff_logits
    if self.occlusion_head:
      outputs.update(self.occlusion_head.reduced(features))
    return outputs

  def _stuff_features(
    self, images: tf.Tensor, backbone_features: Features, features: Features
  ) -> Features:
    """The stuff branch's input, by sharing mode (section 4.3)."""
    if self.stuff_decoder is None:
      return features
    if self.stuff_backbone is not None:
      backbone_features = self.stuff_backbone(images)
    return self.stuff_decoder(backbone_features)

  def _box_limits(self, images: tf.Tensor, image_info: tf.Tensor) -> tf.Tensor:
    """[B, 2] float32, the height and width in which boxes lie."""
    if self._boxes_within == 'image':
      return geometry.size_in_input(image_info)
    size = tf.cast(tf.stack(geometry.height_and_width(images)), tf.float32)
    return tf.tile(size[None], [tf.shape(images)[0], 1])

  def _propose(
    self,
    rpn_scores: Features,
    rpn_boxes: Features,
    anchors: Features,
    limits: tf.Tensor,
    training: bool,
  ) -> tf.Tensor:
    """[B, N, 4] proposals."""
    scores = {level: tf.cast(score, tf.float32) for level, score in rpn_scores.items()}
    boxes = {level: tf.cast(box, tf.float32) for level, box in rpn_boxes.items()}
    return tf.stop_gradient(self.roi_generator(boxes, scores, anchors, limits, training))

  def _instance_training(
    self,
    features: Features,
    proposals: tf.Tensor,
    limits: tf.Tensor,
    labels: Features,
    true_masks: tf.Tensor,
  ) -> dict[str, tf.Tensor]:
    """Raw predictions for sampled RoIs, with their targets.

    Args:
      features: of the FPN.
      proposals: [B, N, 4].
      limits: of `_box_limits`.
      labels: of the batch.
      true_masks: [B, M, h, w] of `spatial_ranking.true_masks`.
    """
    sampled = self._sample_rois(
      proposals,
      labels['gt_boxes'],
      labels['gt_classes'],
      labels['crowd_boxes'],
      labels['roi_priorities'],
    )
    class_outputs, box_outputs = self.detection_head(self.roi_aligner(features, sampled.boxes))
    box_targets = box_ops.encode_boxes(sampled.matched_boxes, sampled.boxes, weights=BOX_WEIGHTS)
    objects = first_objects(sampled, self.num_sampled_masks)
    mask_features = self.mask_roi_aligner(features, objects.boxes)
    mask_outputs = self.mask_head([mask_features, tf.maximum(objects.classes, 0)])
    pairs = {}
    if self.occlusion_head:
      detections = self._boxes(class_outputs, box_outputs, sampled.boxes, limits)
      pairs = self._occlusion_training(features, detections, labels, true_masks)
    return {
      **pairs,
      'class_outputs': class_outputs,
      'box_outputs': box_outputs,
      'class_targets': sampled.classes,
      'box_targets': tf.where(sampled.classes[..., None] > 0, box_targets, 0.0),
      'mask_outputs': mask_outputs,
      'mask_class_targets': objects.classes,
      'mask_targets': mask_targets(objects, labels['gt_masks'], mask_outputs.shape[-1]),
    }

  def _occlusion_training(
    self,
    features: Features,
    detections: dict[str, tf.Tensor],
    labels: Features,
    true_masks: tf.Tensor,
  ) -> dict[str, tf.Tensor]:
    """Logits of pairs of annotated objects and of detections, with their targets."""
    # The fusion asks of no others, which are most.
    is_sure = detections['detection_scores'] >= self._fusion.score_threshold
    sure = {**detections, 'num_detections': tf.reduce_sum(tf.cast(is_sure, tf.int32), axis=1)}
    detections = {**detections, 'detection_masks': self._masks_of(features, sure)}
    stride = self.spatial_ranking.stride
    input_size = [side * stride for side in tf.unstack(tf.shape(true_masks)[2:])]
    instances = Instances(
      detections, self._fusion, self._fusion.score_threshold, input_size, stride
    )
    number, side = self.num_sampled_pairs, self.occlusion_head.crop_size
    pairs = occlusion_targets.joined(
      [
        occlusion_targets.true_pairs(true_masks, labels, number, side),
        occlusion_targets.detected_pairs(instances, labels, number, side),
      ]
    )
    logits = self.occlusion_head(self.occlusion_head.reduced(features), pairs.views)
    return {'occlusion_logits': logits, 'occlusion_targets': pairs.targets}

  def _detect(
    self, features: Features, proposals: tf.Tensor, limits: tf.Tensor
  ) -> dict[str, tf.Tensor]:
    """Boxes, classes, scores and masks of the detected instances."""
    class_outputs, box_outputs = self.detection_head(self.roi_aligner(features, proposals))
    detections = self._boxes(class_outputs, box_outputs, proposals, limits)
    return {**detections, 'detection_masks': self._masks_of(features, detections)}

  def _boxes(
    self, class_outputs: tf.Tensor, box_outputs: tf.Tensor, rois: tf.Tensor, limits: tf.Tensor
  ) -> dict[str, tf.Tensor]:
    """The detections among RoIs, still without masks."""
    return self.detection_generator(
      tf.cast(box_outputs, tf.float32),
      tf.cast(class_outputs, tf.float32),
      rois,
      limits,
      BOX_WEIGHTS,
    )

  def _masks_of(self, features: Features, detections: dict[str, tf.Tensor]) -> tf.Tensor:
    """[B, N, M, M] probabilities; computes masks only for slots that hold a detection."""
    boxes, classes = detections['detection_boxes'], detections['detection_classes']
    number = boxes.shape[1]
    filled = number
    if not self.all_shapes_static:
      # At least one: oneDNN's 1×1 convolution gives a wrong shape for empty input.
      filled = tf.maximum(tf.reduce_max(detections['num_detections']), 1)
    rois = self.mask_roi_aligner(features, boxes[:, :filled])
    # MaskHead needs a static RoI count, so each RoI is treated as an image of its own.
    rois = tf.reshape(rois, [-1, 1, *rois.shape[2:]])
    # In training, too, batch statistics are those of the sampled objects alone.
    logits = self.mask_head([rois, tf.reshape(classes[:, :filled], [-1, 1])], training=False)
    side = logits.shape[-1]
    logits = tf.reshape(logits, [tf.shape(boxes)[0], filled, side, side])
    masks = tf.sigmoid(tf.cast(logits, tf.float32))
    padded = tf.pad(masks, [[0, 0], [0, number - filled], [0, 0], [0, 0]])
    return tf.ensure_shape(padded, [boxes.shape[0], number, side, side])


def normalize(images: tf.Tensor, image_info: tf.Tensor) -> tf.Tensor:
  """[B, H, W, 3] uint8 -> float32, normalized by ImageNet's mean and deviation; 0 in the padding.

  The constants are those of the Model Garden's `preprocess_ops.normalize_image`. Images of float32
  are normalized already.
  """
  normalized = tf.convert_to_tensor(images)
  if not normalized.dtype.is_floating:
    mean, deviation = map(tf.constant, (preprocess_ops.MEAN_RGB, preprocess_ops.STDDEV_RGB))
    normalized = (tf.cast(normalized, tf.float32) - mean) / deviation
  inside = geometry.inside_input(image_info, *geometry.height_and_width(images))
  return tf.where(inside[..., None], normalized, 0.0)
