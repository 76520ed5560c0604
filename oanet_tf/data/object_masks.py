"""Masks of objects as TensorFlow ops: sampled within boxes, and made from panoptic segments."""

# H, W an image's size, M objects, S mask side, K segments, T thing categories.

import tensorflow as tf


def sample_mask(png: tf.Tensor, box: tf.Tensor, target: tf.Tensor, mask_size: int) -> tf.Tensor:
  """Samples a mask at the S × S cells of a box.

  Args:
    png: [] string, the mask cropped to `box`.
    box: [4] float32, [y1, x1, y2, x2] in pixels of the image.
    target: [4] float32, the box of the cells.
    mask_size: S.

  Returns:
    [S, S] float32 in {0, 1}.
  """
  mask = tf.cast(tf.io.decode_png(png, channels=1) > 0, tf.float32)
  # An object has no pixels outside its box.
  mask = tf.pad(mask, [[1, 1], [1, 1], [0, 0]])
  extent = tf.cast(tf.shape(mask)[:2], tf.float32) - 1.0
  cell = (target[2:] - target[:2]) / mask_size
  # Cell centres in pixels of the padded mask, whose pixel i covers [i - 1, i) of the box.
  first = target[:2] - box[:2] + 0.5 * cell + 0.5
  last = first + (mask_size - 1) * cell
  corners = tf.concat([first / extent, last / extent], axis=0)
  sampled = tf.image.crop_and_resize(mask[None], corners[None], [0], [mask_size, mask_size])
  return tf.cast(sampled[0, :, :, 0] >= 0.5, tf.float32)


def visible_boxes(pngs: tf.Tensor, boxes: tf.Tensor, windows: tf.Tensor) -> tf.Tensor:
  """The boxes of the parts of masks that lie in windows.

  Args:
    pngs: [M] string, each mask cropped to its box.
    boxes, windows: [M, 4] float32, [y1, x1, y2, x2] in pixels of the image.

  Returns:
    [M, 4] float32 within the windows; all 0 if no pixel of the mask lies there.
  """
  return tf.map_fn(
    lambda parts: _visible_box(*parts),
    (pngs, boxes, windows),
    fn_output_signature=tf.TensorSpec([4], tf.float32),
  )


def _visible_box(png: tf.Tensor, box: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
  mask = tf.io.decode_png(png, channels=1)[..., 0] > 0
  first, last = [], []
  for axis in (0, 1):
    starts = box[axis] + tf.range(tf.shape(mask)[axis], dtype=tf.float32)
    inside = (starts < window[axis + 2]) & (starts + 1.0 > window[axis])
    mask &= tf.expand_dims(inside, 1 - axis)
  for axis in (0, 1):
    filled = box[axis] + tf.cast(tf.where(tf.reduce_any(mask, 1 - axis))[:, 0], tf.float32)
    # Of no pixels, the least is infinite.
    first.append(tf.maximum(tf.reduce_min(filled), window[axis]))
    last.append(tf.minimum(tf.reduce_max(filled) + 1.0, window[axis + 2]))
  visible = tf.stack([*first, *last])
  return tf.where(tf.reduce_any(mask), visible, tf.zeros_like(visible))


def match_segments(
  pngs: tf.Tensor,
  boxes: tf.Tensor,
  labels: tf.Tensor,
  segment_index: tf.Tensor,
  label_of_index: tf.Tensor,
  is_crowd: tf.Tensor,
) -> tf.Tensor:
  """The panoptic segment of each object: the one of its category that it covers most of.

  Args:
    pngs: [M] string, each mask cropped to its box.
    boxes: [M, 4] float32, [y1, x1, y2, x2] in pixels of the image.
    labels: [M] int32, categories of the objects.
    segment_index: [H, W] int32, k for the k-th segment, 0 for void.
    label_of_index: [K + 1] int32, the category at each index.
    is_crowd: [K] bool, segments that are no single object.

  Returns:
    [M] int32, k for the k-th segment, 0 for an object that covers none of its category.
  """
  label_of_index = tf.where(tf.concat([[False], is_crowd], axis=0), -1, label_of_index)

  def of_object(parts: tuple[tf.Tensor, ...]) -> tf.Tensor:
    png, box, label = parts
    mask = tf.io.decode_png(png, channels=1)[..., 0] > 0
    corner = tf.cast(box[:2], tf.int32)
    window = tf.slice(segment_index, corner, tf.shape(mask))
    pixels = tf.math.bincount(tf.boolean_mask(window, mask), minlength=tf.size(label_of_index))
    of_category = tf.where(label_of_index == label, pixels, 0)
    best = tf.argmax(of_category, output_type=tf.int32)
    return tf.where(of_category[best] > 0, best, 0)

  return tf.map_fn(
    of_object, (pngs, boxes, labels), fn_output_signature=tf.TensorSpec([], tf.int32)
  )


def replace_objects_by_segments(
  example: dict[str, tf.Tensor], segment_labels: tf.Tensor, num_things: int
) -> dict[str, tf.Tensor]:
  """Replaces the annotated objects by the thing segments, which do not overlap.

  This is the paper's "pano-instance GT" (section 4.4, Table 3).

  Args:
    example: of `tf_example.decode`.
    segment_labels: [K] int32 labels of the example's segments.
    num_things: T.

  Returns:
    The example with new `object_boxes` [M, 4] float32, `object_masks` [M] string,
    `object_category_ids` [M] int32 and `object_is_crowd` [M] bool.
  """
  index = example['segment_index']
  is_thing = (segment_labels >= 1) & (segment_labels <= num_things)
  # A segment without pixels has no box.
  has_pixels = tf.math.bincount(tf.reshape(index, [-1]), minlength=tf.size(segment_labels) + 1) > 0
  chosen = tf.where(is_thing & has_pixels[1 : tf.size(segment_labels) + 1])[:, 0]
  boxes, masks = tf.map_fn(
    lambda k: _crop(index == k),
    tf.cast(chosen, index.dtype) + 1,
    fn_output_signature=(tf.TensorSpec([4], tf.float32), tf.TensorSpec([], tf.string)),
  )
  return {
    **example,
    'object_boxes': boxes,
    'object_masks': masks,
    'object_category_ids': tf.gather(example['segment_category_ids'], chosen),
    'object_is_crowd': tf.gather(example['segment_is_crowd'], chosen),
  }


def _crop(mask: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
  """[H, W] bool, not all false -> its box [4] float32, and the PNG [] of the box's content."""
  rows, columns = (tf.where(tf.reduce_any(mask, axis=axis))[:, 0] for axis in (1, 0))
  y1, y2, x1, x2 = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
  # Not compressed, as it is decoded again soon.
  png = tf.io.encode_png(tf.cast(mask[y1:y2, x1:x2, None], tf.uint8), compression=0)
  return tf.cast(tf.stack([y1, x1, y2, x2]), tf.float32), png
