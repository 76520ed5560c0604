import numpy as np
import pytest
from pycocotools import mask as coco_mask

from oanet_tf.data import coco_json, coco_panoptic
from oanet_tf.errors import InputError
from tests.data.coco_files import PERSON, SKY, TIE
from tests.data.test_coco_panoptic import fails, records


@pytest.mark.parametrize(
  ('change', 'fact'),
  [
    ({'id': 300}, 'segment 300 is listed twice'),
    ({'id': 0}, 'segment 0: `id` 0 is not in [1, 16777215]'),
    ({'id': 2**24}, '`id` 16777216 is not in [1, 16777215]'),
    ({'id': '5'}, "`id` cannot be '5'"),
    ({'id': 5.5}, '`id` cannot be 5.5'),
    ({'id': True}, '`id` cannot be True'),
    ({'category_id': 2}, 'segment 5 is of category 2, which is not in `categories`'),
    ({'category_id': None}, 'segment 5: `category_id` cannot be None'),
    ({'iscrowd': 2}, 'segment 5: `iscrowd` 2'),
    ({'iscrowd': []}, 'segment 5: `iscrowd` []'),
  ],
)
def test_malformed_segments(coco, change, fact):
  coco.segments[2].update(change)
  fails(coco, 'panoptic.json: ', 'image 42', fact)


@pytest.mark.parametrize('key', ['id', 'category_id'])
def test_segments_that_lack_a_field(coco, key):
  del coco.segments[2][key]
  fails(coco, 'panoptic.json: ', 'image 42', f'has no `{key}`')


@pytest.mark.parametrize(
  ('change', 'fact'),
  [
    ({'height': 0}, 'image 42: `height` is 0, not positive'),
    ({'width': -8}, 'image 42: `width` is -8, not positive'),
    ({'width': 8.5}, 'image 42: `width` cannot be 8.5'),
    ({'id': 7}, 'image id 7 is listed twice'),
    ({'id': None}, 'images[1]: `id` cannot be None'),
    ({'id': 41}, 'an annotation is of image 42, which is not in `images`'),
    ({'file_name': 3}, 'image 42: `file_name` cannot be 3'),
  ],
)
def test_malformed_images(coco, change, fact):
  coco.panoptic['images'][1].update(change)
  fails(coco, 'panoptic.json: ', fact)


@pytest.mark.parametrize('where', ['images', 'annotations'])
@pytest.mark.parametrize(
  'name', ['../42.png', '/etc/passwd', 'a/../../42.png', '..', '', '.', 'a\0b']
)
def test_file_names_that_leave_their_folder(coco, where, name):
  entries = coco.panoptic[where]
  entry = next(e for e in entries if 42 in (e.get('id'), e.get('image_id')))
  entry['file_name'] = name
  fails(coco, 'panoptic.json: ', 'image 42', repr(name))


def test_an_image_annotated_twice(coco):
  coco.panoptic['annotations'].append(coco.panoptic['annotations'][0])
  fails(coco, 'panoptic.json: ', 'image 42 ')


def test_unknown_category_fields_are_named_with_the_file(coco):
  coco.panoptic['categories'][2]['isthing'] = 3
  fails(coco, 'panoptic.json: category 2: isthing 3')


@pytest.mark.parametrize('key', ['images', 'annotations', 'categories'])
@pytest.mark.parametrize('value', [None, [], {}, 3, [3], [None], [[]]])
def test_malformed_lists(coco, key, value):
  coco.panoptic[key] = value
  fails(coco, 'panoptic.json: ')


@pytest.mark.parametrize('key', ['images', 'annotations', 'categories'])
def test_missing_lists(coco, key):
  del coco.panoptic[key]
  fails(coco, 'panoptic.json: ', key)


@pytest.mark.parametrize(
  'content', [b'', b'{', b'[]', b'3', b'null', b'\xff\xfe', b'[' * 200_000, b'\x80\x04K\x01.']
)
def test_unreadable_json(coco, content):
  paths = coco.write()
  paths['panoptic_json'].write_bytes(content)
  with pytest.raises(InputError, match=r'panoptic\.json: ') as caught:
    coco_json.load(**paths)
  assert '\n' not in str(caught.value)


@pytest.mark.parametrize('argument', ['panoptic_json', 'panoptic_dir', 'image_dir'])
def test_missing_paths(coco, argument):
  paths = {**coco.write(), argument: 'nowhere'}
  with pytest.raises(InputError, match='nowhere: '):
    coco_json.load(**paths)


def test_an_instances_json_in_place_of_the_panoptic_one_and_the_reverse(coco):
  coco.add_instances([[1, 1, 3, 1, 3, 3]])
  paths = coco.write()
  with pytest.raises(InputError, match=r'instances\.json: .*COCO instances JSON'):
    coco_json.load(paths['instances_json'], paths['panoptic_dir'], paths['image_dir'])
  with pytest.raises(InputError, match=r'panoptic\.json: .*COCO panoptic JSON'):
    coco_json.load(**{**paths, 'instances_json': paths['panoptic_json']})


# The instances JSON.


def test_instances_replace_the_segments_of_the_images_that_they_list(coco):
  mask = np.zeros([5, 8], np.uint8, order='F')
  mask[0:2, 6:8] = 1
  rle = coco_mask.encode(mask)
  compressed = {'counts': rle['counts'].decode(), 'size': [5, 8]}
  uncompressed = {'counts': [1, 2, 37], 'size': [5, 8]}
  coco.add_instances([[1, 1, 4, 1, 4, 3, 1, 3]], uncompressed, [[0, 0, 0, 0, 0, 0]], compressed)
  coco.instances['annotations'][1]['iscrowd'] = 1
  coco.instances['annotations'][3]['category_id'] = TIE
  listed, other = records(coco.write())
  assert listed.objects.boxes.tolist() == [[1, 1, 3, 4], [1, 0, 3, 1], [0, 6, 2, 8]]
  assert listed.objects.category_ids.tolist() == [PERSON, PERSON, TIE]
  assert listed.objects.is_crowd.tolist() == [False, True, False]
  assert all(mask.all() for mask in listed.objects.masks)
  # Image 7 is not listed: its crowd segment.
  assert other.objects.boxes.tolist() == [[1, 1, 4, 4]]


def test_an_image_that_is_listed_without_instances_has_none(coco):
  coco.add_instances()
  dataset = coco_json.load(**coco.write())
  assert [entry.instances for entry in dataset.entries] == [[], None]
  assert coco_panoptic.read_record(dataset.entries[0], dataset.categories).objects.masks == []


@pytest.mark.parametrize(
  ('change', 'fact'),
  [
    ({'category_id': 5}, 'annotation 100: category 5 is not in the panoptic JSON'),
    ({'image_id': 43}, 'an annotation is of image 43, which is not in `images`'),
    ({'id': None}, '`id` cannot be None'),
    ({'iscrowd': 'yes'}, "annotation 100: `iscrowd` 'yes'"),
    ({'segmentation': 3}, 'annotation 100: `segmentation` cannot be 3'),
    ({'segmentation': [[1, 2, 3]]}, 'annotation 100: malformed polygon'),
    ({'segmentation': {'counts': [7], 'size': [5, 8]}}, 'annotation 100: RLE of 7 pixels, not 40'),
  ],
)
def test_malformed_instances(coco, change, fact):
  coco.add_instances([[1, 1, 4, 1, 4, 3]])
  coco.instances['annotations'][0].update(change)
  fails(coco, 'instances.json: ', fact)


def test_instances_of_another_size(coco):
  coco.add_instances()
  coco.instances['images'] = [{**coco.instances['images'][0], 'width': 9}]
  fails(coco, 'instances.json: image 42: `width` 9, but 8 in ', 'panoptic.json')


def test_instances_that_number_the_same_names_differently(coco):
  coco.add_instances([[0, 0, 3, 0, 3, 3]])
  coco.instances['categories'] = [{'id': TIE, 'name': 'person'}, {'id': PERSON, 'name': 'tie'}]
  fails(coco, "instances.json: category 32 is 'person', but 'tie' in ", 'panoptic.json')


def test_instances_whose_categories_are_a_part(coco):
  coco.add_instances([[0, 0, 3, 0, 3, 3]])
  coco.instances['categories'] = [{'id': 1.0, 'name': 'person'}, {'id': 999, 'name': 'moon'}]
  dataset = coco_json.load(**coco.write())
  assert [len(entry.instances or ()) for entry in dataset.entries] == [1, 0]
  assert not dataset.notes


def test_instances_without_categories_are_noted(coco):
  coco.add_instances([[0, 0, 3, 0, 3, 3]])
  (note,) = coco_json.load(**coco.write()).notes
  assert 'instances.json: has no `categories`' in note


def test_instances_of_stuff_and_boxes_without_a_mask_are_left_out(coco):
  coco.add_instances([[0, 0, 3, 0, 3, 3]], [[0, 0, 3, 0, 3, 3]], [[0, 0, 3, 0, 3, 3]])
  coco.instances['annotations'][0]['category_id'] = SKY
  del coco.instances['annotations'][1]['segmentation']
  coco.instances['annotations'][1]['bbox'] = [0, 0, 3, 3]
  dataset = coco_json.load(**coco.write())
  found = dataset.entries[0].instances
  assert [(one.annotation_id, bool(one.segmentation)) for one in found] == [
    (101, False),
    (102, True),
  ]
  record = coco_panoptic.read_record(dataset.entries[0], dataset.categories)
  assert len(record.objects.masks) == 1


def test_instances_of_other_files_under_the_same_ids(coco):
  coco.add_instances()
  coco.instances['images'] = [{**coco.instances['images'][0], 'file_name': '43.jpg'}]
  fails(coco, 'instances.json: image 42: `file_name` 43.jpg, but 42.jpg in ', 'panoptic.json')


def test_instances_of_another_split(coco):
  coco.add_instances()
  coco.instances['images'] = [{**coco.instances['images'][0], 'id': 1}]
  fails(coco, 'instances.json: has none of the images of the panoptic JSON')


def test_what_is_not_read_is_not_kept():
  entry = {'id': 1, 'bbox': [1, 2], 'segmentation': [[1, 2.5], 'no polygon', [None]]}
  compact = coco_json._compact(entry)
  assert set(compact) == {'id', 'segmentation'}
  packed, *others = compact['segmentation']
  assert packed.tolist() == [1, 2.5] and packed.itemsize == 8
  assert others == ['no polygon', [None]]
