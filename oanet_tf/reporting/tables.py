"""The report's tables: fusions, categories, and orders of categories."""

import collections
import html
import itertools
from collections.abc import Iterable, Sequence

from oanet_tf.data.categories import Category, PanopticCategories
from oanet_tf.data.panoptic_json import Annotation
from oanet_tf.reporting.comparison import Order
from oanet_tf.reporting.html_table import (
  Cell,
  Column,
  count,
  difference,
  percent,
  percent_difference,
  table,
  text,
)
from oanet_tf.reporting.reading import GROUPS, Evaluation

# Column of the table of categories.
_DIFFERENCE = 3


def fusions_table(evaluation: Evaluation) -> str:
  """PQ, SQ and RQ of every fusion, and the difference between those compared."""
  results, (first, second) = evaluation.results, evaluation.compared
  keys = [(group, quality) for group in GROUPS for quality in ('pq', 'sq', 'rq')]
  titles = [f'{quality.upper()} {group.lower()}' for group, quality in keys]
  others = [name for name in results if name not in evaluation.compared]
  rows = [
    [text(name), *(percent(results[name][group][quality]) for group, quality in keys)]
    for name in (first, second, *others)
  ]
  differences = [results[second][group][q] - results[first][group][q] for group, q in keys]
  rows.append([text(f'{second} − {first}'), *map(percent_difference, differences)])
  columns = [Column('Fusion', is_number=False), *map(Column, titles)]
  return table('PQ, SQ and RQ of each fusion', columns, rows)


def categories_table(evaluation: Evaluation) -> str:
  """PQ of the compared fusions for each category that occurs, and a folded list of the others."""
  first, second = evaluation.compared
  ground_truth = evaluation.details.ground_truth if evaluation.details else []
  num_true = _count_segments(ground_truth)
  num_predicted = _count_segments(one for pair in evaluation.predictions for one in pair)
  rows, absent = [], []
  for category in evaluation.categories:
    if not num_true[category.id] and not num_predicted[category.id]:
      absent.append(category.name)
      continue
    scores = [evaluation.results[f]['per_class'][str(category.id)]['pq'] for f in (first, second)]
    row = [category_cell(category), *map(percent, scores)]
    row += [percent_difference(scores[1] - scores[0]), _bars(scores)]
    row += [count(num_true[category.id])] if ground_truth else []
    rows.append([*row, text('thing' if category.is_thing else 'stuff')])
  columns = [Column('Category', False, sorts=True)]
  columns += [Column(f'PQ {name}', sorts=True) for name in (first, second)]
  columns += [Column('Difference', sorts=True), Column('PQ, 0 to 100', is_number=False)]
  columns += [Column('Segments', sorts=True)] if ground_truth else []
  columns.append(Column('Kind', False, sorts=True))
  rows.sort(key=lambda row: -row[_DIFFERENCE].value)
  return table('PQ of each category', columns, rows, sorted_by=_DIFFERENCE) + _absent(
    absent, bool(ground_truth)
  )


def _count_segments(annotations: Iterable[Annotation]) -> collections.Counter:
  """By category id, without crowds."""
  ids = (one.category_ids[~one.is_crowd].tolist() for one in annotations)
  return collections.Counter(itertools.chain.from_iterable(ids))


def category_cell(category: Category, name: str = '', style: str = '') -> Cell:
  """A category's colour and its name, or another name."""
  swatch = f'<span class="swatch" style="background:rgb{category.color}"></span>'
  return Cell(swatch + html.escape(name or category.name), style=style)


def _bars(scores: Sequence[float]) -> Cell:
  bars = ''.join(
    f'<div class="{style}" style="width:{100 * score:.1f}%"></div>'
    for style, score in zip(('first', 'second'), scores, strict=True)
  )
  return Cell(f'<div class="bars">{bars}</div>')


def _absent(names: list[str], has_ground_truth: bool) -> str:
  if not names:
    return ''
  where = 'neither truth nor prediction has' if has_ground_truth else 'no prediction has'
  return (
    f'<details><summary>Categories that {where}: {len(names)}</summary>'
    f'<p>{html.escape(", ".join(names))}</p></details>'
  )


def orders_table(
  orders: Sequence[Order], categories: PanopticCategories, compared: tuple[str, str]
) -> str:
  """Each pair of categories that the compared fusions order differently."""
  first, second = compared
  rows = []
  for one in orders:
    net = one.pixels[0] - one.pixels[1]
    row = [category_cell(categories.category(label)) for label in (one.top, one.bottom)]
    row += map(count, (sum(one.cases), *one.cases[:2], *one.pixels))
    rows.append([*row, difference(net, f'{net:+,}'), _right_and_wrong(*one.pixels[:2])])
  columns = [
    Column(f'Top by {second}', False, sorts=True),
    Column(f'Top by {first}', False, sorts=True),
    *(Column(title, sorts=True) for title in ('Cases', 'Right', 'Wrong')),
    *(Column(f'Pixels {kind}', sorts=True) for kind in ('right', 'wrong', 'neither')),
    Column('Net pixels', sorts=True),
    Column('Right to wrong', is_number=False),
  ]
  return table('Pairs of categories in different order', columns, rows, sorted_by=2)


def _right_and_wrong(right: int, wrong: int) -> Cell:
  """The fractions of right and wrong pixels as one bar."""
  decided = max(1, right + wrong)
  bars = ''.join(
    f'<div class="{style}" style="width:{100 * pixels / decided:.1f}%"></div>'
    for style, pixels in (('right', right), ('wrong', wrong))
  )
  return Cell(f'<div class="parts">{bars}</div>')
