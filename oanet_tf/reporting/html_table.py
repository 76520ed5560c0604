"""HTML tables that scroll in their own box and can be sortable (report.js)."""

import html
from collections.abc import Sequence
from typing import NamedTuple


class Column(NamedTuple):
  """A column's heading.

  Attributes:
    title: plain text.
    is_number: numbers are right-aligned, and sorted by value in descending order.
    sorts: whether the column can be sorted by.
  """

  title: str
  is_number: bool = True
  sorts: bool = False


class Cell(NamedTuple):
  """A cell.

  Attributes:
    content: HTML.
    value: what rows are sorted by; None for the text.
    style: CSS class.
  """

  content: str
  value: float | None = None
  style: str = ''


def text(plain: str, style: str = '') -> Cell:
  """A cell of plain text."""
  return Cell(html.escape(plain), style=style)


def percent(fraction: float) -> Cell:
  """A fraction in [0, 1] as 0.0 to 100.0."""
  return Cell(f'{100 * fraction:.1f}', fraction)


def count(number: int) -> Cell:
  """A whole number, with commas between thousands."""
  return Cell(f'{number:,}', number)


def difference(value: float, content: str) -> Cell:
  """A number with its sign, coloured as a gain or a loss unless it is shown as 0.

  Args:
    value: what rows are sorted by.
    content: the number, formatted with Python's sign option `+`.
  """
  if not any(digit in content for digit in '123456789'):
    return Cell(content.lstrip('+-'), value)
  style = 'gain' if content[0] == '+' else 'loss'
  return Cell(content.replace('-', '−'), value, style)


def percent_difference(fraction: float) -> Cell:
  """A difference of two fractions, in percentage points."""
  return difference(fraction, f'{100 * fraction:+.1f}')


def table(
  label: str,
  columns: Sequence[Column],
  rows: Sequence[Sequence[Cell]],
  sorted_by: int | None = None,
) -> str:
  """Renders a table in a box that scrolls.

  Args:
    label: for screen readers.
    columns: headings.
    rows: cells; the first of each row names it.
    sorted_by: index of the column of numbers by which the rows are in descending order already.
  """
  heading = ''.join(_heading(column, i == sorted_by) for i, column in enumerate(columns))
  body = '\n'.join(f'<tr>{_row(columns, row)}</tr>' for row in rows)
  return (
    f'<div class="scroll" tabindex="0" role="region" aria-label="{html.escape(label)}">'
    f'<table><thead><tr>{heading}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>'
  )


def _heading(column: Column, is_sorted: bool) -> str:
  title = html.escape(column.title)
  kind = ' class="number"' if column.is_number else ''
  if not column.sorts:
    return f'<th scope="col"{kind}>{title}</th>'
  state = 'descending' if is_sorted else 'none'
  return f'<th scope="col"{kind} aria-sort="{state}"><button type="button">{title}</button></th>'


def _row(columns: Sequence[Column], row: Sequence[Cell]) -> str:
  return ''.join(
    _cell(cell, column.is_number, 'th scope="row"' if i == 0 else 'td')
    for i, (column, cell) in enumerate(zip(columns, row, strict=True))
  )


def _cell(cell: Cell, is_number: bool, tag: str) -> str:
  styles = ' '.join(filter(None, ('number' if is_number else '', cell.style)))
  style = f' class="{styles}"' if styles else ''
  value = '' if cell.value is None else f' data-value="{cell.value:.9g}"'
  return f'<{tag}{style}{value}>{cell.content}</{tag.split()[0]}>'
