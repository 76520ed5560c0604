import pytest
from hypothesis import given
from hypothesis import strategies as st

from oanet_tf.data import image_ids

IDS = st.one_of(
  st.integers(),
  st.text(st.characters(exclude_categories=['Cs'])),
  st.from_regex(r'-?[0-9]{1,8}', fullmatch=True),
  st.from_regex(r'"[0-9"\\]*', fullmatch=True),
  st.uuids().map(str),
)


@given(IDS)
def test_ids_come_back_as_they_were_given(image_id):
  given_back = image_ids.decoded(image_ids.encoded(image_id))
  assert (given_back, type(given_back)) == (image_id, type(image_id))


@given(IDS, IDS)
def test_other_ids_have_other_names_of_files(first, second):
  same = (type(first), first) == (type(second), second)
  assert (image_ids.file_stem(first) == image_ids.file_stem(second)) == same


@given(IDS)
def test_names_of_files_can_be_written(image_id):
  stem = image_ids.file_stem(image_id)
  assert len(stem.encode()) <= 200
  assert not set(stem) & set('/\\:*?"<>|\0')
  assert not stem.startswith('.')


@pytest.mark.parametrize(
  ('image_id', 'text', 'stem'),
  [
    (139, '139', '139'),
    ('139', '"139"', '%22139%22'),
    ('000139', '000139', '000139'),
    ('aachen/000019', 'aachen/000019', 'aachen%2F000019'),
    ('straße 7', 'straße 7', 'straße 7'),
    ('..', '..', '%2E.'),
    (-5, '-5', '-5'),
  ],
)
def test_by_hand(image_id, text, stem):
  assert image_ids.encoded(image_id) == text
  assert image_ids.file_stem(image_id) == stem
