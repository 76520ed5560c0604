"""TFLite Metadata, read by the positions of fields in metadata_schema.fbs."""

import pytest
from flatbuffers import encode, number_types, packer
from flatbuffers.table import Table

from oanet_tf.data.categories import Category, PanopticCategories
from oanet_tf.serving.tflite_description import labels_text
from oanet_tf.serving.tflite_metadata import serialize

DESCRIPTION = {
  'format': 'tflite_float32',
  'input': {'name': 'image', 'shape': [1, 480, 640, 3], 'dtype': 'uint8', 'description': 'RGB é'},
  'outputs': [
    {'name': 'panoptic_category_mask', 'description': 'ids'},
    {'name': 'detection_scores', 'description': 'from 0 to 1'},
  ],
}


class Fields:
  """A table of a flatbuffer; fields by position."""

  def __init__(self, data, position):
    self._table = Table(data, position)

  @classmethod
  def root(cls, data):
    return cls(data, encode.Get(packer.uoffset, data, 0))

  def _offset(self, slot):
    return self._table.Offset(4 + 2 * slot)

  def text(self, slot):
    return self._table.String(self._offset(slot) + self._table.Pos).decode()

  def number(self, slot, flags):
    return self._table.Get(flags, self._offset(slot) + self._table.Pos)

  def table(self, slot):
    return Fields(self._table.Bytes, self._table.Indirect(self._offset(slot) + self._table.Pos))

  def tables(self, slot):
    if not self._offset(slot):
      return []
    start = self._table.Vector(self._offset(slot))
    number = self._table.VectorLen(self._offset(slot))
    return [Fields(self._table.Bytes, self._table.Indirect(start + 4 * i)) for i in range(number)]

  def floats(self, slot):
    return self._table.GetVectorAsNumpy(number_types.Float32Flags, self._offset(slot)).tolist()


@pytest.fixture(scope='module')
def model():
  data = serialize(DESCRIPTION, 'model.json')
  # The identifier of metadata.
  assert data[4:8] == b'M001'
  return Fields.root(bytearray(data))


def test_the_model(model):
  assert (model.text(0), model.text(2), model.text(7)) == ('OANet', 'tflite_float32', '1.0.0')
  (network,) = model.tables(3)
  (file,) = network.tables(4)
  # Of type DESCRIPTIONS.
  assert (file.text(0), file.number(2, number_types.Int8Flags)) == ('model.json', 1)


def test_the_input_is_an_image_that_needs_no_normalization(model):
  (image,) = model.tables(3)[0].tables(2)
  assert (image.text(0), image.text(1)) == ('image', 'RGB é')
  content = image.table(3)
  # ImageProperties; RGB.
  assert content.number(0, number_types.Uint8Flags) == 2
  properties = content.table(1)
  assert properties.number(0, number_types.Int8Flags) == 1
  size = properties.table(1)
  assert [size.number(slot, number_types.Uint32Flags) for slot in (0, 1)] == [640, 480]
  (unit,) = image.tables(4)
  # NormalizationOptions.
  assert unit.number(0, number_types.Uint8Flags) == 1
  assert [unit.table(1).floats(slot) for slot in (0, 1)] == [[0.0], [1.0]]
  assert [image.table(5).floats(slot) for slot in (0, 1)] == [[255.0], [0.0]]


def test_outputs_stand_in_their_order_and_ids_have_labels(model):
  masks, scores = model.tables(3)[0].tables(3)
  assert (masks.text(0), masks.text(1)) == ('panoptic_category_mask', 'ids')
  (labels,) = masks.tables(6)
  # Of type TENSOR_VALUE_LABELS.
  assert (labels.text(0), labels.number(2, number_types.Int8Flags)) == ('labels.txt', 3)
  assert scores.text(0) == 'detection_scores' and scores.tables(6) == []


def test_labels_stand_in_the_line_of_their_id(categories):
  lines = labels_text(categories).splitlines()
  assert len(lines) == 201
  assert [lines[i] for i in (0, 7, 31, 92, 200)] == ['void', 'person', 'tie', 'sky', 'grass']
  assert lines.count('???') == 196


def test_a_name_is_one_line():
  name = 'wall\nof  stone'
  text = labels_text(PanopticCategories([Category(2, name, True, (0, 0, 0))]))
  assert text == 'void\n???\nwall\\nof  stone\n'
