import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco_mask

from oanet_tf.data.objects import (
  Instance,
  fill_holes,
  has_conflict,
  instance_mask,
  objects_of_instances,
  objects_of_segments,
)
from oanet_tf.errors import InputError
from tests.data.coco_files import grid
from tests.segments import segments_of_ids

MASKS = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12))


def objects_of(id_map, segments, **options):
  """Segments are {id: category id} or {id: (category id, is crowd)}; 1 and 2 are things."""
  segments = segments_of_ids(id_map, segments)
  return objects_of_segments(segments, np.isin(segments.category_ids, [1, 2]), **options)


def pixels(text):
  return grid(text, x=1) == 1


# fill_holes and objects_of_segments.


def test_a_hole_is_filled_where_a_thing_is():
  person = pixels('xxxxx xx..x xxxxx')
  tie = pixels('..... ..x.. .....')
  assert fill_holes(person, tie).tolist() == pixels('xxxxx xxx.x xxxxx').tolist()


def test_what_opens_to_the_outside_is_no_hole():
  bay = pixels('xx.xx xx.xx xxxxx')
  assert fill_holes(bay, ~bay).tolist() == bay.tolist()


def test_a_hole_that_touches_the_outside_by_a_corner_only_is_one():
  mask = pixels('.xx x.x xxx')
  assert fill_holes(mask, ~mask).tolist() == pixels('.xx xxx xxx').tolist()


@given(MASKS)
def test_filling_adds_only_things_and_nothing_twice(mask):
  things = np.roll(mask, 1)
  filled = fill_holes(mask, things)
  assert not (mask & ~filled).any()
  assert not (filled & ~mask & ~things).any()
  np.testing.assert_array_equal(fill_holes(filled, things), filled)


def test_a_tie_overlaps_its_person():
  text = """
    sssssss
    .ppppp.
    .pttsp.
    .pp.pp.
    .ppppp."""
  scene = grid(text, s=30, p=20, t=10)
  objects = objects_of(scene, {30: 3, 20: 1, 10: 2})
  assert objects.boxes.tolist() == [[1, 1, 5, 6], [2, 2, 3, 4]]
  assert objects.category_ids.tolist() == [1, 2]
  assert objects.is_crowd.tolist() == [False, False]
  # The tie is filled in; the sky and the void in the same hole are not.
  assert objects.masks[0].tolist() == pixels('xxxxx xxx.x xx.xx xxxxx').tolist()
  assert objects.masks[1].tolist() == [[True, True]]


def test_crowds_keep_their_holes():
  scene = grid('ppp ptp ppp', p=20, t=10)
  crowd = objects_of(scene, {20: (1, True), 10: 2})
  assert crowd.is_crowd.tolist() == [True, False]
  assert crowd.masks[0].tolist() == pixels('xxx x.x xxx').tolist()


def test_no_things():
  objects = objects_of(np.full([2, 2], 8), {8: 3})
  assert objects.boxes.shape == (0, 4) and objects.boxes.dtype == np.float32
  assert objects.category_ids.shape == objects.is_crowd.shape == (0,)
  assert objects.category_ids.dtype == np.int32 and objects.is_crowd.dtype == bool
  assert objects.masks == []


# Annotations.


def test_a_polygon():
  square = [1, 1, 4, 1, 4, 3, 1, 3]
  expected = pixels('..... .xxx. .xxx. .....')
  assert instance_mask([square], 4, 5).tolist() == expected.tolist()


def test_polygons_are_united_and_cut_at_the_border():
  polygons = [[0, 0, 2, 0, 2, 1, 0, 1], [-3, 2, 1, 2, 1, 9, -3, 9]]
  assert instance_mask(polygons, 3, 4).tolist() == pixels('xx.. .... x...').tolist()


@pytest.mark.parametrize(
  'nothing',
  [
    [],
    [[]],
    [[1, 1, 3, 3]],
    [[2, 2, 2, 2, 2, 2]],
    [[50, 50, 60, 50, 60, 60]],
    {'counts': [20], 'size': [4, 5]},
    {'counts': [20, 0], 'size': [4, 5]},
  ],
)
def test_segmentations_without_a_pixel_are_left_out(nothing):
  assert not instance_mask(nothing, 4, 5).any()
  square = [[1, 1, 4, 1, 4, 3, 1, 3]]
  objects = objects_of_instances(
    [Instance(1, 1, False, nothing), Instance(2, 2, True, square)], 4, 5, 'a.json'
  )
  assert objects.boxes.tolist() == [[1, 1, 3, 4]]
  assert objects.category_ids.tolist() == [2]
  assert objects.is_crowd.tolist() == [True]
  assert objects.masks[0].shape == (2, 3)


def test_no_instances():
  assert objects_of_instances([], 4, 5, 'a.json').boxes.shape == (0, 4)


def test_rle_by_hand():
  # Down the columns: 3 off, 2 on, 1 off.
  rle = {'counts': [3, 2, 1], 'size': [2, 3]}
  assert instance_mask(rle, 2, 3).tolist() == [[False, False, True], [False, True, False]]


@given(MASKS)
def test_compressed_rle_is_that_of_pycocotools(mask):
  rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
  rle['counts'] = rle['counts'].decode()
  np.testing.assert_array_equal(instance_mask(rle, *mask.shape), mask)


def test_compressed_rle_of_a_large_mask():
  rng = np.random.default_rng(0)
  mask = np.zeros([700, 900], bool)
  for _ in range(30):
    y, x = rng.integers(0, 700), rng.integers(0, 900)
    mask[y : y + rng.integers(1, 300), x : x + rng.integers(1, 300)] ^= True
  rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
  rle['counts'] = rle['counts'].decode()
  np.testing.assert_array_equal(instance_mask(rle, 700, 900), mask)


@given(MASKS)
def test_uncompressed_rle_is_that_of_pycocotools(mask):
  flat = mask.T.ravel()
  bounds = np.flatnonzero(np.diff(flat, prepend=False))
  counts = np.diff([0, *bounds, flat.size]).tolist()
  rle = {'counts': counts, 'size': list(mask.shape)}
  np.testing.assert_array_equal(instance_mask(rle, *mask.shape), mask)
  reference = coco_mask.decode(coco_mask.frPyObjects(rle, *mask.shape))
  np.testing.assert_array_equal(reference, mask)


@pytest.mark.parametrize(
  ('malformed', 'fact'),
  [
    ([[1, 1, 4, 1, 4, 3, 1]], 'polygon'),
    ([1, 1, 4, 1, 4, 3], 'polygon'),
    ([[1, 1, 4, 1, 4, None]], 'polygon'),
    ([[1, 1, 4, 1, 4, float('nan')]], 'polygon'),
    ([[1, 1, 4, 1, 4, 1e9]], 'polygon'),
    ([[[1, 1], [4, 1], [4, 3]]], 'polygon'),
    (['polygon'], 'polygon'),
    ([{'counts': [20]}], 'polygon'),
    ({}, 'size None'),
    ({'counts': [20]}, 'size None'),
    ({'counts': [20], 'size': [5, 4]}, r'size \[5, 4\], not \[4, 5\]'),
    ({'size': [4, 5]}, 'counts None'),
    ({'counts': [], 'size': [4, 5]}, '0 pixels, not 20'),
    ({'counts': [10, 9], 'size': [4, 5]}, '19 pixels, not 20'),
    ({'counts': [10, 11], 'size': [4, 5]}, '21 pixels, not 20'),
    ({'counts': [30, -10], 'size': [4, 5]}, 'counts'),
    ({'counts': [10.0, 10.0], 'size': [4, 5]}, 'counts'),
    ({'counts': '', 'size': [4, 5]}, '0 pixels'),
    ({'counts': '000', 'size': [4, 5]}, '0 pixels'),
    ({'counts': ' ', 'size': [4, 5]}, "character ' '"),
    ({'counts': 'é', 'size': [4, 5]}, "character 'é'"),
    ({'counts': 'oooooooooooooooooo0', 'size': [4, 5]}, 'pixels'),
  ],
)
def test_malformed_segmentations(malformed, fact):
  with pytest.raises(InputError, match=f'^a.json: annotation 17: .*{fact}') as caught:
    objects_of_instances([Instance(17, 1, False, malformed)], 4, 5, 'a.json')
  assert '\n' not in str(caught.value) and len(str(caught.value)) < 200


@given(st.text(max_size=30))
@settings(max_examples=50)
def test_any_text_as_rle_is_a_mask_or_a_value_error(text):
  with contextlib.suppress(ValueError):
    assert instance_mask({'counts': text, 'size': [4, 5]}, 4, 5).shape == (4, 5)


# has_conflict.

# A person (category 1) with a tie (2) over it, on sky (3).
SCENE = grid('sssss pttps ppppp', s=1, p=2, t=3)


def conflict(categories, shapes, crowds=()):
  """Of objects `(category id, mask as text)` in SCENE, whose segments have these categories."""
  found = objects_of_instances(
    [
      Instance(number, category_id, number in crowds, rle(pixels(text)))
      for number, (category_id, text) in enumerate(shapes)
    ],
    *SCENE.shape,
    'instances.json',
  )
  return has_conflict(found, segments_of_ids(SCENE, dict(zip((1, 2, 3), categories, strict=True))))


def rle(mask):
  found = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
  return {'size': list(mask.shape), 'counts': found['counts'].decode()}


PERSON, TIE = '..... xxxx. xxxxx', '..... .xx.. .....'


@pytest.mark.parametrize(
  ('expected', 'categories', 'shapes'),
  [
    (False, (3, 1, 2), []),
    (False, (3, 1, 2), [(1, PERSON)]),
    (True, (3, 1, 2), [(1, PERSON), (2, TIE)]),
    (True, (3, 1, 2), [(2, TIE), (1, PERSON)]),
    # Side by side, as panoptic masks are.
    (False, (3, 1, 2), [(1, '..... x..x. xxxxx'), (2, TIE)]),
    (True, (3, 1, 2), [(1, '..... x.xx. xxxxx'), (2, TIE)]),
    # Two of one category, as two ties or as a third object over both.
    (False, (3, 1, 2), [(2, PERSON), (2, TIE)]),
    (True, (3, 1, 2), [(2, PERSON), (2, TIE), (1, '..... x.... .....')]),
    # The pixel that both cover shows neither of them: sky, or a third category.
    (False, (3, 1, 2), [(1, '....x ..... .....'), (2, '....x ..... .....')]),
    (False, (3, 1, 4), [(1, TIE), (2, TIE)]),
    (True, (3, 1, 4), [(1, TIE), (2, TIE), (4, '..... ..x.. .....')]),
  ],
)
def test_a_conflict_is_what_the_loss_counts(expected, categories, shapes):
  assert conflict(categories, shapes) is expected


def test_crowds_are_in_no_conflict():
  both = [(1, PERSON), (2, TIE)]
  assert conflict((3, 1, 2), both)
  assert not conflict((3, 1, 2), both, crowds=[0])
  assert not conflict((3, 1, 2), both, crowds=[1])
