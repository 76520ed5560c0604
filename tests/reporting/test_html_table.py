import xml.etree.ElementTree as ElementTree

import pytest

from oanet_tf.reporting.html_table import Cell, Column, count, difference, percent, table, text
from oanet_tf.reporting.html_table import percent_difference as points


def parse(html):
  return ElementTree.fromstring(html)


def test_a_table():
  columns = [Column('Name', is_number=False, sorts=True), Column('PQ', sorts=True), Column('N')]
  rows = [[text('a <b> & "c"'), percent(0.5), count(1234567)]]
  box = parse(table('label & all', columns, rows, sorted_by=1))
  assert box.get('aria-label') == 'label & all' and box.get('tabindex') == '0'
  name, pq, n = box.findall('.//thead/tr/th')
  assert (name.get('aria-sort'), pq.get('aria-sort'), n.get('aria-sort')) == (
    'none',
    'descending',
    None,
  )
  assert pq.find('button').text == 'PQ' and n.find('button') is None
  assert (name.get('class'), pq.get('class')) == (None, 'number')
  header, half, number = box.find('.//tbody/tr')
  assert (header.tag, header.get('scope'), header.text) == ('th', 'row', 'a <b> & "c"')
  assert (half.text, half.get('data-value'), half.get('class')) == ('50.0', '0.5', 'number')
  assert (number.text, number.get('data-value')) == ('1,234,567', '1234567')


def test_a_table_without_rows():
  assert parse(table('', [Column('x')], [])).findall('.//tbody/tr') == []


@pytest.mark.parametrize(
  ('cell', 'content', 'style'),
  [
    (points(0.094), '+9.4', 'gain'),
    (points(-0.094), '−9.4', 'loss'),
    (points(0.0004), '0.0', ''),
    (points(-0.0004), '0.0', ''),
    (points(0.0), '0.0', ''),
    (difference(-1234, '-1,234'), '−1,234', 'loss'),
    (difference(0, '+0'), '0', ''),
  ],
)
def test_differences(cell, content, style):
  assert (cell.content, cell.style) == (content, style)


def test_differences_are_sorted_by_what_they_were():
  assert points(-0.0004).value == -0.0004
  assert Cell('x').value is None
