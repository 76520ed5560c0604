import pytest

from oanet_tf.errors import first_line


@pytest.mark.parametrize(
  ('message', 'line'),
  [
    ('one\ntwo', 'one'),
    ('', 'ValueError'),
    ('\n two\nthree', 'two'),
    ('{{function_node __wrapped__DecodePng}} Unknown format. [Op:DecodePng]', 'Unknown format.'),
    (
      '{{function_node x}} Error in a function with iterator: Iterator::Root::Prefetch::Map: '
      'Could not parse [1, 2]\n\t [[{{node Parse}}]]',
      'Could not parse [1, 2]',
    ),
    ('corrupted record at 12 [[{{node Next}}]] [Op:IteratorGetNext]', 'corrupted record at 12'),
  ],
)
def test_first_line(message, line):
  assert first_line(ValueError(message)) == line
