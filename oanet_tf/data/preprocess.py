"""Turns a decoded record into the network's input and targets, by a list of steps.

All steps are TensorFlow ops. Random choices are stateless: they depend on `example['seed']` alone,
so the order in which records are processed does not matter.
"""

# H, W original size; A, B network input; M instances; S mask side; T thing categories.

import numpy as np
import tensorflow as tf

from oanet_tf.config.definitions import Data, OANet, OANetTask
from oanet_tf.data import geometry, steps
from oanet_tf.data.annotation_scores import score_instances
from oanet_tf.data.categories import PanopticCategories
from oanet_tf.data.steps import Example, Step

_EVALUATED = (
  'image', 'image_info', 'source_id', 'file_name', 'segment_index', 'segment_ids',
  'segment_category_ids', 'segment_is_crowd',
)  # fmt: skip


def training_steps(
  data: Data, model: OANet, categories: PanopticCategories, portrait: bool
) -> list[Step]:
  """Steps for training: the dict of `tf_example.decode` and a `seed` -> network input and targets.

  The result has
    image: [A, B, 3] uint8, or normalized float32 if `model.resizing` says so.
    image_info: [4, 2] float32 as in `geometry`.
    source_id: [64] uint8, the first bytes of the image id, padded with 0, as not every device takes
      strings.
    gt_boxes, gt_classes, gt_masks: [M, 4], [M] int32, [M, S, S] float32 in {0, 1} within the box;
      padded with -1.
    crowd_boxes: [20, 4], padded with -1.
    category_labels: [A / label_stride, B / label_stride] int32, 0 for void.
    gt_segments, segment_map: for an occlusion head alone: [M] int32, each object's segment, k for
      the k-th, 0 for none, padded with -1; and the segments at the places of `category_labels`.
    anchor_samples, anchor_matches: of `anchor_targets.AnchorLabeler`.
    roi_priorities: [P + M] float32 in [0, 1), random, for P proposals and M instances.
  """
  fit, canvas = geometry.canvas_of(data.output_size, portrait)
  for_pairs = ('gt_segments', 'segment_map') if model.occlusion_head.enabled else ()
  return [
    steps.choose_objects(data.objects_from, categories),
    steps.assign_labels(categories),
    *([steps.match_segments] if for_pairs else []),
    steps.choose_geometry(fit, data),
    steps.distort_colors(data.color_jitter),
    steps.warp_image(canvas, model.resizing, smooth=data.min_scale < 1.0),
    steps.warp_category_labels(canvas, data.label_stride),
    *steps.warp_boxes(data),
    steps.sample_masks(data.mask_size),
    steps.separate_crowds,
    steps.assign_anchors(data, model, canvas),
    steps.pad_instances(data.max_num_instances),
    steps.draw_roi_priorities(model.roi_generator.num_proposals + data.max_num_instances),
    steps.source_id_as_bytes,
    steps.keep(
      'image', 'image_info', 'source_id', 'gt_boxes', 'gt_classes', 'gt_masks', 'crowd_boxes',
      'category_labels', 'anchor_samples', 'anchor_matches', 'roi_priorities', *for_pairs,
    ),
  ]  # fmt: skip


def evaluation_steps(data: Data, model: OANet, portrait: bool) -> list[Step]:
  """Steps for evaluation: the network input and the ground truth at the image's own size.

  The result has `image` and `image_info` as in training, `source_id` and `file_name` [] string, and
    segment_index: [H, W] int32, k for the k-th segment, 0 for void.
    segment_ids, segment_category_ids, segment_is_crowd: [K] int32, [K] int32, [K] bool.
  """
  return [*_input_steps(data, model, portrait), steps.keep(*_EVALUATED)]


def srm_training_steps(data: Data, categories: PanopticCategories, portrait: bool) -> list[Step]:
  """Those of `training_steps` that the ranking module needs; `image` is all 0."""
  fit, canvas = geometry.canvas_of(data.output_size, portrait)
  return [
    steps.assign_labels(categories),
    steps.choose_geometry(fit, data),
    *_true_instances(data, canvas, data.label_stride),
    steps.pad_instances(data.max_num_instances),
    steps.source_id_as_bytes,
    steps.keep('image', 'image_info', 'source_id', 'gt_boxes', 'gt_classes', 'gt_masks',
          'category_labels'),
  ]  # fmt: skip


def srm_evaluation_steps(
  data: Data,
  categories: PanopticCategories,
  label_stride: int,
  frequencies: np.ndarray,
  portrait: bool,
) -> list[Step]:
  """Those of `evaluation_steps`, with the objects as detections; `image` is all 0.

  The result also has
    gt_scores: [M] float32 of `annotation_scores`, descending, padded with -1.
    gt_boxes, gt_classes, gt_masks: as in training, in the order of the scores.
    category_labels: [A / label_stride, B / label_stride] int32.
  """
  fit, canvas = geometry.canvas_of(data.output_size, portrait)
  return [
    steps.assign_labels(categories),
    steps.fit_whole(fit),
    *_true_instances(data, canvas, label_stride),
    lambda example: {**example, **score_instances(example, frequencies)},
    steps.pad_instances(data.max_num_instances),
    steps.keep(*_EVALUATED, 'gt_boxes', 'gt_classes', 'gt_masks', 'gt_scores', 'category_labels'),
  ]


def _true_instances(data: Data, canvas: list[int], label_stride: int) -> list[Step]:
  return [
    lambda example: {**example, 'image': tf.zeros([*canvas, 3], tf.uint8)},
    steps.warp_category_labels(canvas, label_stride),
    *steps.warp_boxes(data),
    steps.sample_masks(data.mask_size),
    steps.separate_crowds,
  ]


def network_input(image: tf.Tensor, task: OANetTask, portrait: bool) -> Example:
  """One [H, W, 3] uint8 image -> `image` [A, B, 3] and `image_info` [4, 2], as in evaluation."""
  example = {'image': image, 'height': tf.shape(image)[0], 'width': tf.shape(image)[1]}
  of_image = _input_steps(task.validation_data, task.model, portrait)
  return apply([*of_image, steps.keep('image', 'image_info')], example)


def _input_steps(data: Data, model: OANet, portrait: bool) -> list[Step]:
  fit, canvas = geometry.canvas_of(data.output_size, portrait)
  if data.tight_padding:
    canvas = None
  return [steps.fit_whole(fit), steps.warp_image(canvas, model.resizing)]


def source_ids(encoded: np.ndarray) -> list[str]:
  """The image ids in a training batch's `source_id`, [B, 64] uint8, as `image_ids` encodes them."""
  return [row.tobytes().rstrip(b'\0').decode(errors='replace') for row in encoded]


def apply(steps_in_turn: list[Step], example: Example) -> Example:
  """Runs the steps in turn."""
  for step in steps_in_turn:
    example = step(example)
  return example
