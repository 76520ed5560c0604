import json

import numpy as np
import pytest
from PIL import Image

from oanet_tf.errors import InputError
from oanet_tf.evaluation.coco_results import read_segments
from oanet_tf.evaluation.details import Detection, details_writer, read_details
from oanet_tf.evaluation.ranking_map import RankingMap
from tests.reporting.evaluations import HEIGHT, PERSON, TIE, WIDTH, evaluated_image
from tests.segments import id_map, segments_of_ids


def write(folder, categories, *images):
  with details_writer(folder, categories, score_threshold=0.5) as write_one:
    for image in images:
      write_one(image)


def files(folder):
  return sorted(str(path.relative_to(folder)) for path in folder.rglob('*') if path.is_file())


def test_what_is_written_can_be_read(tmp_path, categories):
  image = evaluated_image(5, categories)
  write(tmp_path, categories, image)
  assert files(tmp_path) == [
    'details/detections.json',
    'details/pictures/5.jpg',
    'details/ranking_maps/5.png',
    'details/truth.json',
    'details/truth/5.png',
  ]
  details = read_details(tmp_path)
  (truth,) = details.ground_truth
  assert truth.image_id == 5
  np.testing.assert_array_equal(read_segments(truth).index, image.ground_truth.index)
  assert truth.category_ids.tolist() == image.ground_truth.category_ids.tolist()
  with Image.open(details.picture_path(truth)) as picture:
    assert picture.size == (96, 72)  # Without the padding.
    assert abs(int(np.asarray(picture).mean()) - 200) <= 1
  ranking_map = details.ranking_map(truth, num_things=2)
  assert ranking_map.labels.shape == (18, 24) and (ranking_map.labels == 1).all()
  np.testing.assert_allclose(ranking_map.probability, np.full([18, 24], 0.7), atol=1 / 510)


def test_detections_that_take_part(tmp_path, categories):
  # The third is under the threshold, the fourth pads. The heuristic hides the tie.
  image = evaluated_image(1, categories)
  write(tmp_path, categories, image)
  person, tie = read_details(tmp_path).detections[1]
  assert person[:3] == (PERSON, 0.997, 0.325) and tie[:3] == (TIE, 0.662, 0.878)
  assert set(person.segment_ids) == {'srm', 'heuristic'} and set(tie.segment_ids) == {'srm'}
  for detection, index in ((person, 1), (tie, 2)):
    for fusion, segment_id in detection.segment_ids.items():
      shown = id_map(image.predictions[fusion]) == segment_id
      np.testing.assert_array_equal(shown, image.instance_masks[fusion] == index)


def test_crowds_stay_crowds(tmp_path, categories):
  image = evaluated_image(1, categories)
  is_crowd = np.array([False, True, False])
  image.ground_truth = image.ground_truth._replace(is_crowd=is_crowd)
  write(tmp_path, categories, image)
  (truth,) = read_details(tmp_path).ground_truth
  assert truth.is_crowd.tolist() == is_crowd.tolist()


def test_an_image_of_void_without_detections(tmp_path, categories):
  image = evaluated_image(1, categories)
  void = np.zeros([HEIGHT, WIDTH], np.int32)
  nothing = segments_of_ids(void, {})
  image.ground_truth, image.predictions = nothing, {'srm': nothing, 'heuristic': nothing}
  image.instance_masks = {'srm': void, 'heuristic': void}
  image.detections = {key: values[:0] for key, values in image.detections.items()}
  image.image_id = 'a picture'
  write(tmp_path, categories, image)
  details = read_details(tmp_path)
  assert details.detections == {'a picture': []} and not len(details.ground_truth[0].segment_ids)


def test_no_image_and_no_details(tmp_path, categories):
  assert read_details(tmp_path) is None
  write(tmp_path, categories)
  assert read_details(tmp_path)[1:] == ([], {})


@pytest.mark.parametrize(
  ('shape', 'scaled', 'size'),
  [
    ((1280, 2048), (1000, 2000), (640, 320)),  # Larger than a report shows.
    ((64, 2048), (1, 2000), (640, 1)),
    ((32, 32), (20, 10), (10, 20)),  # Small ones are not enlarged.
  ],
)
def test_pictures_of_any_size(tmp_path, categories, shape, scaled, size):
  image = evaluated_image(1, categories)
  image.image = np.zeros([*shape, 3], np.uint8)
  image.image_info = np.array([[HEIGHT, WIDTH], scaled, [1, 1], [0, 0]], np.float32)
  cells = [side // 4 for side in shape]
  image.ranking_map = RankingMap(np.ones(cells, np.int32), np.full(cells, 0.5, np.float32))
  write(tmp_path, categories, image)
  details = read_details(tmp_path)
  with Image.open(details.picture_path(details.ground_truth[0])) as picture:
    assert picture.size == size
  ranking_map = details.ranking_map(details.ground_truth[0], 2)
  assert ranking_map.labels.shape == tuple(max(1, round(side / 4)) for side in scaled)


def test_appears_whole_and_replaces_what_was(tmp_path, categories):
  write(tmp_path, categories, evaluated_image(1, categories))
  before = files(tmp_path)
  with pytest.raises(ZeroDivisionError), details_writer(tmp_path, categories, 0.5) as write_one:
    write_one(evaluated_image(2, categories))
    assert [path for path in files(tmp_path) if path.startswith('details/')] == before
    raise ZeroDivisionError
  assert files(tmp_path) == before and len(list(tmp_path.iterdir())) == 1
  write(tmp_path, categories, evaluated_image(2, categories))
  assert files(tmp_path) == [path.replace('1', '2') for path in before]
  assert len(list(tmp_path.iterdir())) == 1


def test_an_image_twice(tmp_path, categories):
  image = evaluated_image(1, categories)
  with pytest.raises(InputError, match='image id 1 '):
    write(tmp_path, categories, image, image)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    ('{"images": [{}]}', 'detections.json'),
    ('{"images": 3}', 'detections.json'),
    ('{"images": [{"image_id": 1, "detections": [3]}]}', 'detections.json'),
    (
      '{"images": [{"image_id": 1, "detections": [{"category_id": "x", "detection_score": 0, '
      '"ranking_score": 0, "segment_ids": {}}]}]}',
      'detections.json',
    ),
    ('{"images": []}', 'image 1, '),
    ('[', 'JSON'),
    (None, 'no such file'),
  ],
)
def test_damaged_detections(tmp_path, categories, content, message):
  write(tmp_path, categories, evaluated_image(1, categories))
  path = tmp_path / 'details' / 'detections.json'
  path.unlink()
  if content is not None:
    path.write_text(content)
  with pytest.raises(InputError) as error:
    read_details(tmp_path)
  assert message in str(error.value) and str(path) in str(error.value)
  assert '\n' not in str(error.value)


def test_ranking_map_of_other_categories_or_damaged(tmp_path, categories):
  image = evaluated_image(1, categories)
  image.ranking_map = image.ranking_map._replace(labels=image.ranking_map.labels + 1)
  write(tmp_path, categories, image)
  details = read_details(tmp_path)
  path = tmp_path / 'details' / 'ranking_maps' / '1.png'
  with pytest.raises(InputError, match=r'1\.png: .*\[1, 1\]'):
    details.ranking_map(details.ground_truth[0], num_things=1)
  path.write_bytes(path.read_bytes()[:40])
  with pytest.raises(InputError, match=r'1\.png: '):
    details.ranking_map(details.ground_truth[0], num_things=2)


def test_numbers_are_plain(tmp_path, categories):
  write(tmp_path, categories, evaluated_image(1, categories))
  content = json.loads((tmp_path / 'details' / 'detections.json').read_text())
  (entry,) = content['images']
  assert entry['image_id'] == 1
  assert [list(one) for one in entry['detections']] == [list(Detection._fields)] * 2
