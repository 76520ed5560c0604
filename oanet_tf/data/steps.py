"""Steps of preprocessing, functions dict -> dict; `preprocess` says which follows which."""

# H, W original size; A, B network input; M instances; S mask side; T thing categories.

from collections.abc import Callable

import tensorflow as tf
from official.vision.ops import preprocess_ops

from oanet_tf.config.definitions import Data, OANet
from oanet_tf.data import geometry, object_masks
from oanet_tf.data.anchor_targets import AnchorLabeler
from oanet_tf.data.categories import VOID_LABEL, PanopticCategories
from oanet_tf.data.resizing import antialiased, resize

Example = dict[str, tf.Tensor]
Step = Callable[[Example], Example]

# Padding of boxes and classes, which the Model Garden's samplers take for "no instance".
NO_INSTANCE = -1
# Most crowd regions of an image that training ignores; COCO's images have at most three or four.
MAX_CROWDS = 20
SOURCE_ID_BYTES = 64


def keep(*keys: str) -> Step:
  return lambda example: {key: example[key] for key in keys}


def choose_objects(objects_from: str, categories: PanopticCategories) -> Step:
  if objects_from == 'annotations':
    return lambda example: example
  table = tf.constant(categories.label_of_id_table())

  def step(example: Example) -> Example:
    labels = tf.gather(table, example['segment_category_ids'])
    return object_masks.replace_objects_by_segments(example, labels, categories.num_things)

  return step


def assign_labels(categories: PanopticCategories) -> Step:
  table = tf.constant(categories.label_of_id_table())

  def labels_of(category_ids: tf.Tensor) -> tf.Tensor:
    known = (category_ids >= 0) & (category_ids < table.shape[0])
    labels = tf.where(known, tf.gather(table, tf.where(known, category_ids, 0)), VOID_LABEL)
    fits = tf.reduce_all(labels != VOID_LABEL)
    message = 'a category id of the record is not in categories.json'
    with tf.control_dependencies([tf.debugging.Assert(fits, [message, category_ids])]):
      return tf.identity(labels)

  def step(example: Example) -> Example:
    segments = labels_of(example['segment_category_ids'])
    objects = labels_of(example['object_category_ids'])
    label_of_index = tf.concat([[VOID_LABEL], segments], axis=0)
    return {**example, 'label_of_index': label_of_index, 'object_labels': objects}

  return step


def fit_whole(fit: list[int]) -> Step:
  """Adds `image_info`, the position of the whole image in the network input, and `flip`, false."""

  def step(example: Example) -> Example:
    image_info = geometry.fit_image(_size(example), fit)
    return {**example, 'flip': tf.constant(False), 'image_info': image_info}

  return step


def choose_geometry(fit: list[int], data: Data) -> Step:
  """Adds `image_info` and `flip` [] bool as `fit_whole`, at random as the settings say."""

  def step(example: Example) -> Example:
    draws = tf.random.stateless_uniform([4], example['seed'])
    if data.short_sides:
      drawn = tf.cast(draws[1] * len(data.short_sides), tf.int32)
      short_side = tf.constant(data.short_sides)[drawn]
      image_info = geometry.fit_short_side(_size(example), fit, short_side)
    else:
      zoom = data.min_scale + draws[1] * (data.max_scale - data.min_scale)
      image_info = geometry.fit_image(_size(example), fit, zoom, draws[2:])
    flip = tf.logical_and(data.random_flip, draws[0] < 0.5)
    return {**example, 'flip': flip, 'image_info': image_info}

  return step


def _size(example: Example) -> tf.Tensor:
  """[2] float32 of the original."""
  return tf.cast(tf.stack([example['height'], example['width']]), tf.float32)


def distort_colors(strength: float) -> Step:
  """Changes brightness, contrast and saturation by factors within 1 ± strength."""
  if not strength:
    return lambda example: example
  low, high = 1.0 - strength, 1.0 + strength

  def step(example: Example) -> Example:
    image = tf.cast(example['image'], tf.float32)
    # The geometry uses the seed itself.
    seeds = [example['seed'] + 2**32 * n for n in (1, 2, 3)]
    image *= tf.random.stateless_uniform([], seeds[0], low, high)
    image = tf.image.stateless_random_contrast(image, low, high, seeds[1])
    gray = tf.image.rgb_to_grayscale(image)
    image = gray + (image - gray) * tf.random.stateless_uniform([], seeds[2], low, high)
    return {**example, 'image': tf.clip_by_value(image, 0.0, 255.0)}

  return step


def warp_image(canvas: list[int] | None, resizing: str, smooth: bool = False) -> Step:
  """Makes `image` [A, B, 3], black in the padding; uint8 takes a quarter of float's space.

  Without a canvas, there is as little padding as possible.

  With `smooth`, a pixel of a smaller image is a mean of all pixels that it covers. Otherwise it is
  taken from the nearest four, which leaves little of an image at a tenth of its size.
  """

  def warp(image: tf.Tensor, scaled: tf.Tensor) -> tf.Tensor:
    if not smooth or resizing != 'bilinear':
      return resize(image, scaled, resizing)
    # Where nothing is to be smoothed, it takes three times as long and changes nothing.
    return tf.cond(
      tf.reduce_any(scaled < tf.shape(image)[:2]),
      lambda: antialiased(image, scaled),
      lambda: resize(image, scaled, resizing),
    )

  def step(example: Example) -> Example:
    size, valid, scale, offset = tf.unstack(example['image_info'])
    image = example['image']
    image = tf.cond(example['flip'], lambda: tf.reverse(image, [1]), lambda: image)
    scaled = tf.cast(tf.round(size * scale), tf.int32)
    image = warp(image, scaled)
    start, length = tf.cast(offset, tf.int32), tf.cast(valid, tf.int32)
    image = tf.slice(image, [start[0], start[1], 0], [length[0], length[1], 3])
    if canvas is None:
      tight = tf.unstack(geometry.tight_canvas(example['image_info']))
      return {**example, 'image': tf.image.pad_to_bounding_box(image, 0, 0, *tight)}
    image = tf.image.pad_to_bounding_box(image, 0, 0, *canvas)
    return {**example, 'image': tf.ensure_shape(image, [*canvas, 3])}

  return step


def match_segments(example: Example) -> Example:
  """Adds `object_segments` [M] int32, k for the k-th segment, 0 for none."""
  segments = object_masks.match_segments(
    example['object_masks'],
    example['object_boxes'],
    example['object_labels'],
    example['segment_index'],
    example['label_of_index'],
    example['segment_is_crowd'],
  )
  return {**example, 'object_segments': segments}


def warp_category_labels(canvas: list[int], stride: int) -> Step:
  """Samples the ground truth at the centre of each stride × stride cell of the input.

  Adds `category_labels` and `segment_map`.
  """

  def step(example: Example) -> Example:
    info = example['image_info']
    rows, row_inside = geometry.pixels_of_cells(info, 0, canvas[0] // stride, stride)
    columns, column_inside = geometry.pixels_of_cells(info, 1, canvas[1] // stride, stride)
    columns = tf.where(example['flip'], tf.cast(info[0, 1], tf.int32) - 1 - columns, columns)
    index = tf.gather(tf.gather(example['segment_index'], rows), columns, axis=1)
    index = tf.where(row_inside[:, None] & column_inside, index, 0)
    labels = tf.gather(example['label_of_index'], index)
    return {**example, 'category_labels': labels, 'segment_map': index}

  return step


def warp_boxes(data: Data) -> list[Step]:
  """Adds `boxes` [M, 4] in the network input; drops objects of which too little is visible."""
  # Only a crop hides a part of an object.
  return [_boxes_in_input, *([_tighten_boxes] if data.max_scale > 1.0 else []), _drop_small]


def _boxes_in_input(example: Example) -> Example:
  info = example['image_info']
  boxes = geometry.boxes_to_input(_mirror(example['object_boxes'], example), info)
  boxes = tf.clip_by_value(boxes, 0.0, tf.tile(geometry.size_in_input(info), [2]))
  return {**example, 'boxes': boxes}


def _boxes_in_original(example: Example) -> tf.Tensor:
  """[M, 4] `boxes` in pixels of the original, not mirrored."""
  boxes = geometry.boxes_to_original(example['boxes'], example['image_info'])
  return _mirror(boxes, example)


def _tighten_boxes(example: Example) -> Example:
  """Shrinks `boxes` to what is visible: the crop may hide what made an object wide."""
  visible = object_masks.visible_boxes(
    example['object_masks'], example['object_boxes'], _boxes_in_original(example)
  )
  boxes = geometry.boxes_to_input(_mirror(visible, example), example['image_info'])
  return {**example, 'boxes': boxes}


def _drop_small(example: Example) -> Example:
  """Drops objects with a side below 1 px."""
  boxes = example['boxes']
  kept = tf.where(tf.reduce_min(boxes[:, 2:] - boxes[:, :2], axis=1) >= 1.0)[:, 0]
  per_object = [key for key in example if 'object_' in key or key == 'boxes']
  return {**example, **{key: tf.gather(example[key], kept) for key in per_object}}


def _mirror(boxes: tf.Tensor, example: Example) -> tf.Tensor:
  """Mirrors [M, 4] boxes in the original if the example is mirrored."""
  y1, x1, y2, x2 = tf.unstack(boxes, axis=1)
  width = example['image_info'][0, 1]
  mirrored = tf.stack([y1, width - x2, y2, width - x1], axis=1)
  return tf.where(example['flip'], mirrored, boxes)


def sample_masks(mask_size: int) -> Step:
  """Adds `masks` [M, S, S]: each object's mask, sampled at the cells of its (cropped) box."""

  def step(example: Example) -> Example:
    masks = tf.map_fn(
      lambda parts: object_masks.sample_mask(*parts, mask_size),
      (example['object_masks'], example['object_boxes'], _boxes_in_original(example)),
      fn_output_signature=tf.TensorSpec([mask_size, mask_size], tf.float32),
    )
    masks = tf.where(example['flip'], tf.reverse(masks, [2]), masks)
    return {**example, 'masks': masks}

  return step


def separate_crowds(example: Example) -> Example:
  """Adds the instances as `gt_…`, and of crowds only the boxes, which training ignores."""
  crowd = example['object_is_crowd']
  single = tf.logical_not(crowd)
  if 'object_segments' in example:
    example = {**example, 'gt_segments': tf.boolean_mask(example['object_segments'], single)}
  return {
    **example,
    'gt_boxes': tf.boolean_mask(example['boxes'], single),
    'gt_classes': tf.boolean_mask(example['object_labels'], single),
    'gt_masks': tf.boolean_mask(example['masks'], single),
    'crowd_boxes': tf.boolean_mask(example['boxes'], crowd),
  }


def pad_instances(max_num_instances: int) -> Step:
  per_instance = ('gt_boxes', 'gt_classes', 'gt_masks', 'gt_scores', 'gt_segments')
  sizes = {**dict.fromkeys(per_instance, max_num_instances), 'crowd_boxes': MAX_CROWDS}

  def step(example: Example) -> Example:
    padded = {
      key: preprocess_ops.clip_or_pad_to_fixed_size(example[key], size, NO_INSTANCE)
      for key, size in sizes.items()
      if key in example
    }
    return {**example, **padded}

  return step


def assign_anchors(data: Data, model: OANet, canvas: list[int]) -> Step:
  labeler = AnchorLabeler(data, model, canvas)

  def step(example: Example) -> Example:
    # Other seeds are used by the geometry and the colours.
    seed = example['seed'] + 2**33
    gt_boxes = example['gt_boxes'][: data.max_num_instances]
    samples, matches = labeler(gt_boxes, example['crowd_boxes'], seed)
    return {**example, 'anchor_samples': samples, 'anchor_matches': matches}

  return step


def draw_roi_priorities(number: int) -> Step:
  """Adds the random numbers by which the network samples its RoIs."""

  def step(example: Example) -> Example:
    # Other seeds are used by the geometry, the colours and the anchors.
    priorities = tf.random.stateless_uniform([number], example['seed'] + 2**34)
    return {**example, 'roi_priorities': priorities}

  return step


def source_id_as_bytes(example: Example) -> Example:
  encoded = tf.io.decode_raw(example['source_id'], tf.uint8, fixed_length=SOURCE_ID_BYTES)
  return {**example, 'source_id': encoded}
