import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oanet_tf.data.categories import Category, PanopticCategories
from oanet_tf.errors import InputError
from oanet_tf.reporting.comparison import Order, compare_image, sum_orders
from tests.segments import segments_of_ids

PERSON, TIE, CUP, SKY = 7, 31, 40, 92
CATEGORIES = PanopticCategories(
  [
    Category(PERSON, 'person', True, (200, 0, 0)),
    Category(TIE, 'tie', True, (200, 200, 0)),
    Category(CUP, 'cup', True, (0, 0, 100)),
    Category(SKY, 'sky', False, (0, 0, 200)),
  ]
)
# Labels.
PERSON_, TIE_, CUP_, SKY_ = 1, 2, 3, 4


def order_cases(*maps):
  return compare_image(*maps, CATEGORIES).cases


def segmentation(segment_map, crowd=()):
  """Of rows of segment ids, whose last digit tells the category: 11 and 21 are two persons."""
  segment_map = np.array(segment_map, np.int32)
  ids = np.unique(segment_map)
  ids = ids[ids > 0].astype(np.int32)
  category_ids = np.array([0, PERSON, TIE, CUP, SKY], np.int32)[ids % 10]
  rows = zip(ids.tolist(), category_ids.tolist(), strict=True)
  return segments_of_ids(segment_map, {i: (category, i in crowd) for i, category in rows})


def test_a_tie_put_on_top():
  truth = segmentation([[1, 2, 2, 1, 3, 4]])
  heuristic = segmentation([[1, 1, 1, 1, 1, 4]])
  srm = segmentation([[1, 2, 2, 2, 2, 4]])
  # Two pixels truly of the tie, one of the person, one of a cup that neither shows.
  assert order_cases(truth, heuristic, srm).tolist() == [[PERSON_, TIE_, 2, 1, 1]]


def test_each_pair_of_instances_is_a_case():
  truth = segmentation([[2, 2, 1, 12, 12, 11]])
  first = segmentation([[1, 1, 1, 11, 11, 11]])
  second = segmentation([[2, 2, 2, 12, 11, 12]])
  cases = order_cases(truth, first, second).tolist()
  assert sorted(cases) == [[PERSON_, TIE_, 1, 1, 0], [PERSON_, TIE_, 2, 1, 0]]


@pytest.mark.parametrize(
  ('truth', 'first', 'second', 'crowd'),
  [
    ([[2]], [[1]], [[1]], ()),  # The same.
    ([[1]], [[1]], [[11]], ()),  # Another instance of the same category.
    ([[2]], [[4]], [[2]], ()),  # Stuff, where the tie was dropped.
    ([[2]], [[2]], [[0]], ()),  # Nothing, likewise.
    ([[0]], [[1]], [[2]], ()),  # Not annotated.
    ([[2]], [[1]], [[2]], (2,)),  # A crowd.
  ],
)
def test_what_is_no_case(truth, first, second, crowd):
  truth = segmentation(truth, crowd)
  cases = order_cases(truth, segmentation(first), segmentation(second))
  assert cases.shape == (0, 5) and cases.dtype == np.int64


def test_large_segment_ids_do_not_collide():
  big = 2**24 - 2**24 % 10 - 10
  first = segmentation([[big + 1, 11]])
  second = segmentation([[big + 2, 12]])
  cases = order_cases(segmentation([[2, 1]]), first, second)
  assert sorted(cases.tolist()) == [[PERSON_, TIE_, 0, 1, 0], [PERSON_, TIE_, 1, 0, 0]]


def test_sums_of_pairs():
  cases = [
    np.array([[PERSON_, TIE_, 5, 2, 1], [TIE_, PERSON_, 1, 0, 0]]),
    np.zeros([0, 5], np.int64),
    np.array([[PERSON_, TIE_, 1, 4, 0], [PERSON_, TIE_, 3, 3, 0], [CUP_, TIE_, 0, 0, 7]]),
    np.array([[TIE_, PERSON_, 2, 1, 0]]),
  ]
  assert sum_orders(cases) == [
    Order(TIE_, PERSON_, (1, 1, 1), (9, 9, 1)),
    Order(PERSON_, TIE_, (2, 0, 0), (3, 1, 0)),
    Order(TIE_, CUP_, (0, 0, 1), (0, 0, 7)),
  ]
  assert sum_orders([]) == []


def test_pq_of_one_image():
  truth = segmentation([[4, 4, 4, 4], [1, 1, 2, 2]])
  first = segmentation([[4, 4, 4, 4], [1, 1, 1, 1]])
  found = compare_image(truth, first, truth, CATEGORIES)
  # Sky 1; the person covers 2 of 4 pixels, which is no match; the tie is missed.
  assert found.pq == (pytest.approx(1 / 3), 1.0)
  assert found.gain == pytest.approx(2 / 3)
  assert found.differing_pixels == 2
  assert compare_image(truth, truth, first, CATEGORIES).gain == -found.gain
  assert compare_image(truth, first, first, CATEGORIES).gain == 0.0


def test_pixels_that_differ_are_annotated_ones_of_other_categories():
  truth = segmentation([[0, 4, 2, 1, 1, 1]], crowd=(2,))
  first = segmentation([[1, 4, 1, 1, 0, 2]])
  second = segmentation([[4, 0, 2, 11, 1, 2]])
  assert compare_image(truth, first, second, CATEGORIES).differing_pixels == 2


def test_an_image_of_void():
  void = segmentation([[0, 0]])
  found = compare_image(void, void, void, CATEGORIES)
  assert found.pq == (0.0, 0.0) and not len(found.cases) and found.differing_pixels == 0


def test_sizes_that_differ_are_named():
  one, two = segmentation([[1]]), segmentation([[1, 1]])
  with pytest.raises(InputError, match=r'b\.png: .*2 × 1 '):
    compare_image(one, two, one, CATEGORIES, ('a.png', 'b.png', 'c.png'))


segment_maps = st.lists(
  st.lists(st.sampled_from([0, 1, 2, 3, 4, 11, 12]), min_size=4, max_size=4), min_size=3, max_size=3
)


@settings(max_examples=60)
@given(segment_maps, segment_maps, segment_maps)
def test_cases_as_counted_pixel_by_pixel(truth, first, second):
  expected = {}
  for t, a, b in zip(*(np.ravel(rows).tolist() for rows in (truth, first, second)), strict=True):
    things = a % 10 in (1, 2, 3) and b % 10 in (1, 2, 3)
    if t and things and a % 10 != b % 10:
      case = expected.setdefault((a, b), [a % 10, b % 10, 0, 0, 0])
      case[2 if t % 10 == b % 10 else 3 if t % 10 == a % 10 else 4] += 1
  maps = [segmentation(rows) for rows in (truth, first, second)]
  assert sorted(order_cases(*maps).tolist()) == sorted(expected.values())


@settings(max_examples=60)
@given(segment_maps, segment_maps, segment_maps)
def test_exchanged_fusions_exchange_right_and_wrong(truth, first, second):
  maps = [segmentation(rows) for rows in (truth, first, second)]
  one = compare_image(*maps, CATEGORIES)
  other = compare_image(maps[0], maps[2], maps[1], CATEGORIES)
  assert sorted(one.cases.tolist()) == sorted(other.cases[:, [1, 0, 3, 2, 4]].tolist())
  assert one.gain == -other.gain and one.differing_pixels == other.differing_pixels
  orders = sum_orders([one.cases, one.cases])
  assert sum(sum(order.cases) for order in orders) == 2 * len(one.cases)
  assert sum(sum(order.pixels) for order in orders) == 2 * one.cases[:, 2:].sum()
