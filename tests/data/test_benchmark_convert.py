import numpy as np

from oanet_tf.data import coco_json, coco_panoptic
from oanet_tf.data.objects import instance_mask
from tests.scripts import benchmark_convert


def test_annotations_are_the_objects(coco):
  dataset = coco_json.load(**coco.write())
  objects = coco_panoptic.read_record(dataset.entries[0], dataset.categories, 'none').objects
  person, tie = benchmark_convert._annotations(objects, 5, 8)
  assert person['bbox'] == [1, 1, 5, 3] and tie['bbox'] == [2, 2, 2, 1]
  for annotation, segment_id in ((person, 70000), (tie, 5)):
    expected = coco.maps['42.png'] == segment_id
    np.testing.assert_array_equal(instance_mask(annotation['segmentation'], 5, 8), expected)
    assert annotation['area'] == expected.sum()
