import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from oanet_tf.data.geometry import Canvas
from oanet_tf.modeling.fusion.merge import merge_instances, merge_order
from oanet_tf.modeling.mask_paste import paste_masks


def canvas_of(sizes, height, width):
  """Of originals of these sizes, neither scaled nor cropped."""
  sizes = tf.convert_to_tensor(sizes, tf.float32)
  return Canvas(
    tf.stack([sizes, sizes, tf.ones_like(sizes), tf.zeros_like(sizes)], 1), height, width
  )


def expected_merge(masks, order, kept, overlap_threshold):
  """One image, the slow way: [N, H, W] bool masks -> 1 + index of the instance of each pixel."""
  canvas = np.zeros(masks.shape[1:], int)
  for index in order:
    mask = masks[index]
    if not kept[index] or not mask.any():
      continue
    if (canvas[mask] > 0).mean(dtype=np.float32) > np.float32(overlap_threshold):
      continue
    canvas[mask & (canvas == 0)] = index + 1
  return canvas


def random_batch(seed, batch, number, height, width, side=5):
  rng = np.random.default_rng(seed)
  corners = rng.uniform(-0.2, 1.2, (batch, number, 2, 2)) * [height, width]
  boxes = np.sort(corners, axis=2).reshape(batch, number, 4).astype(np.float32)
  masks = rng.uniform(size=(batch, number, side, side)).astype(np.float32)
  order = np.stack([rng.permutation(number) for _ in range(batch)]).astype(np.int32)
  kept = rng.uniform(size=(batch, number)) < 0.8
  # Those that are not kept come last, as `merge_order` has it.
  order = np.stack(
    [sorted(o, key=lambda i, k=k: not k[i]) for o, k in zip(order, kept, strict=True)]
  )
  sizes = rng.integers(1, [height + 1, width + 1], (batch, 2)).astype(np.float32)
  return masks, boxes, order.reshape(batch, number).astype(np.int32), kept, sizes


@settings(max_examples=25, deadline=None)
@given(
  st.integers(0, 10**6), st.integers(1, 3), st.integers(0, 9), st.integers(1, 30),
  st.integers(1, 30), st.sampled_from([0.0, 0.3, 0.5, 1.0]),
)  # fmt: skip
def test_merge_of_soft_masks(seed, batch, number, height, width, overlap_threshold):
  masks, boxes, order, kept, sizes = random_batch(seed, batch, number, height, width)
  found = merge_instances(
    tf.constant(masks), tf.constant(boxes), tf.constant(order), tf.constant(kept),
    canvas_of(sizes, height, width), mask_threshold=0.5, overlap_threshold=overlap_threshold,
  ).numpy()  # fmt: skip
  pasted = paste_masks(tf.constant(masks), tf.constant(boxes), height, width).numpy() >= 0.5
  for image in range(batch):
    rows, columns = sizes[image].astype(int)
    pasted[image, :, rows:] = pasted[image, :, :, columns:] = False
    expected = expected_merge(pasted[image], order[image], kept[image], overlap_threshold)
    np.testing.assert_array_equal(found[image], expected)


def test_the_canvas_may_be_known_when_run_alone():
  masks, boxes, order, kept, sizes = random_batch(5, batch=2, number=7, height=23, width=31)

  @tf.function(autograph=False)
  def merge(height, width):
    return merge_instances(
      masks,
      boxes,
      order,
      kept,
      canvas_of(sizes, height, width),
      mask_threshold=0.5,
      overlap_threshold=0.5,
    )

  static, dynamic = merge(23, 31), merge(tf.constant(23), tf.constant(31))
  assert static.shape == (2, 23, 31) and len(np.unique(static)) > 3
  np.testing.assert_array_equal(static, dynamic)


def test_more_instances_than_a_byte_counts():
  number = 300
  boxes = np.array(
    [[[n % 20, n // 20, n % 20 + 1, n // 20 + 1] for n in range(number)]], np.float32
  )
  found = merge_instances(
    tf.ones([1, number, 2, 2]), tf.constant(boxes), tf.range(number)[None],
    tf.fill([1, number], True), canvas_of([[20.0, 15.0]], 20, 15), mask_threshold=0.5,
    overlap_threshold=0.5,
  )  # fmt: skip
  np.testing.assert_array_equal(found[0], np.arange(1, number + 1).reshape(15, 20).T)


@pytest.mark.parametrize('scores', [[0.5, 0.5, 0.5], [0.0, 0.0, 0.0]])
def test_equal_scores_keep_their_order(scores):
  kept = tf.constant([[True, False, True]])
  np.testing.assert_array_equal(merge_order(tf.constant([scores]), kept), [[0, 2, 1]])
