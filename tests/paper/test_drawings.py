import numpy as np
import pytest
from PIL import Image

from oanet_tf import visualize
from oanet_tf.data.panoptic_map import Segments
from oanet_tf.paper import drawings
from oanet_tf.paper.examples import Prediction

PERSON, TIE = 7, 31
RED = np.array([255, 0, 0])


def prediction(categories, masks, labels, size=(40, 60)):
  """Of a gray picture; the masks, in their order, one above the other."""
  index = np.zeros(size, np.int32)
  for number, mask in enumerate(masks, start=1):
    index[mask] = number
  segmentation = Segments(
    index=index,
    ids=np.arange(1, len(masks) + 1),
    category_ids=np.array([categories.category(label).id for label in labels], int),
    is_crowd=np.zeros(len(masks), bool),
  )
  count = len(masks)
  return Prediction(
    image=np.full((*size, 3), 128, np.uint8),
    segmentations={'heuristic': segmentation, 'srm': segmentation},
    ranking_map=np.full([*(-(-side // 2) for side in size), categories.num_things], 0.5),
    masks=np.array(masks, bool).reshape(count, *size),
    labels=np.array(labels, int),
    detection_scores=np.linspace(0.9, 0.6, count, dtype=np.float32),
    ranking_scores=np.linspace(0.3, 0.8, count, dtype=np.float32),
    categories=categories,
  )


def rectangle(y1, x1, y2, x2, size=(40, 60)):
  mask = np.zeros(size, bool)
  mask[y1:y2, x1:x2] = True
  return mask


@pytest.fixture
def tie_on_person(categories):
  labels = [categories.label(PERSON), categories.label(TIE)]
  return prediction(categories, [rectangle(4, 4, 36, 30), rectangle(10, 14, 24, 18)], labels)


def read(path):
  return np.asarray(Image.open(path).convert('RGB')).astype(int)


def outlined(picture):
  """How many pixels are red."""
  return (np.abs(picture - RED).sum(axis=-1) < 60).sum()


@pytest.mark.parametrize('draw', [drawings.ranking_map, drawings.scores])
def test_each_instance_is_outlined(draw, tie_on_person, categories, tmp_path):
  draw(tie_on_person, tmp_path / 'two.png')
  draw(prediction(categories, [], []), tmp_path / 'none.png')
  assert outlined(read(tmp_path / 'two.png')) > 100
  assert outlined(read(tmp_path / 'none.png')) == 0


@pytest.mark.parametrize('draw', [drawings.ranking_map, drawings.scores])
def test_one_pixel_and_a_picture_full_of_instances(draw, categories, tmp_path):
  draw(prediction(categories, [rectangle(0, 0, 1, 1, (1, 1))], [1], (1, 1)), tmp_path / 'one.png')
  everywhere = [rectangle(0, 0, 40, 60)] * 100
  draw(prediction(categories, everywhere, [1, 2] * 50), tmp_path / 'many.png')
  assert max(read(tmp_path / 'many.png').shape) < 2500


def test_panels_in_rows(tie_on_person, tmp_path):
  path = tmp_path / 'rows.png'
  drawings.fusions([tie_on_person], ['heuristic', 'srm'], path)
  one = read(path)
  drawings.fusions([tie_on_person] * 3, ['heuristic', 'srm'], path)
  three = read(path)
  assert three.shape == (3 * one.shape[0], *one.shape[1:])
  np.testing.assert_array_equal(three[: one.shape[0]], one)
  wanted = drawings.draw_segmentation(tie_on_person, 'srm')
  # Titles are above; the last panel is the result of the last fusion.
  np.testing.assert_array_equal(one[-wanted.shape[0] :, -wanted.shape[1] :], wanted)


def test_networks_side_by_side(tie_on_person, categories, tmp_path):
  other = prediction(categories, [], [])
  srm_alone = [
    one._replace(segmentations={'srm': one.segmentations['srm']}) for one in (tie_on_person, other)
  ]
  drawings.sharing({'a': srm_alone, 'b': srm_alone[::-1]}, tmp_path / 'sharing.png')
  picture = read(tmp_path / 'sharing.png')
  upper, lower = np.split(picture, 2)
  assert (upper != lower).any() and picture.shape[1] > 3 * 60


def test_enlarged_maps_keep_their_cells():
  values = np.arange(6).reshape(2, 3)
  np.testing.assert_array_equal(visualize.nearest(values, (4, 6)), np.kron(values, np.ones((2, 2))))


def test_gradients(tmp_path):
  series = {
    'gradient_norm/instance': ([1, 2, 3], [1.0, 2.0, 3.0]),
    'gradient_norm/stuff': ([1, 2, 3], [30.0, 20.0, 10.0]),
  }
  drawings.gradients({'one': series}, tmp_path / 'one.png')
  drawings.gradients({'one': series, 'two': series}, tmp_path / 'two.png')
  one, two = read(tmp_path / 'one.png'), read(tmp_path / 'two.png')
  assert two.shape[1] == pytest.approx(2 * one.shape[1], rel=0.02)
  blue, orange = np.array([31, 119, 180]), np.array([255, 127, 14])
  for color in (blue, orange):
    assert (np.abs(one - color).sum(axis=-1) < 10).sum() > 100
