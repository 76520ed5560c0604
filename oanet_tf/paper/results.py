"""Writes a table's scores as Markdown, CSV and a plot, beside the paper's."""

import csv
import io
import pathlib
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from oanet_tf import files
from oanet_tf.data.json_file import read_json_object
from oanet_tf.errors import InputError
from oanet_tf.paper.plan import Options, scoring_of
from oanet_tf.paper.tables import Dataset, Table

# The first columns are PQ, PQ Th and PQ St.
_PLOTTED = 3


class FoundRow(NamedTuple):
  """A row with its scores.

  Attributes:
    cells: the row's names.
    paper: the paper's scores in percent, in the order of the table's; () if it has none.
    scores: our scores in percent for each seed that was evaluated.
    num_diverged: number of seeds whose training diverged.
  """

  cells: tuple[str, ...]
  paper: tuple[float, ...]
  scores: list[tuple[float, ...]]
  num_diverged: int

  def mean(self, column: int) -> float | None:
    """Mean over the seeds, in percent; None without any."""
    values = [scores[column] for scores in self.scores]
    return statistics.fmean(values) if values else None

  def deviation(self, column: int) -> float | None:
    """Standard deviation over the seeds, in percent; None with fewer than two."""
    values = [scores[column] for scores in self.scores]
    return statistics.stdev(values) if len(values) > 1 else None


def find_rows(table: Table, dataset: Dataset, options: Options, seeds: int) -> list[FoundRow]:
  """Reads the scores of a table's rows, as far as they were evaluated."""
  variants = {**dataset.backbones, **dataset.variants}
  rows = []
  for row in table.rows:
    scores, num_diverged = [], 0
    for seed in range(seeds):
      scoring = scoring_of(row, dataset, options, seed)
      if scoring.has_diverged:
        num_diverged += 1
      elif scoring.results_path.is_file():
        scores.append(_read_scores(scoring.results_path, row.fusion, table))
    cells = tuple(variants[cell].label if cell in variants else cell for cell in row.cells)
    rows.append(FoundRow(cells, row.paper, scores, num_diverged))
  return rows


def _read_scores(path: pathlib.Path, fusion: str, table: Table) -> tuple[float, ...]:
  content = read_json_object(path)
  try:
    result = content[fusion]
    return tuple(100.0 * result[group][quality] for group, quality, _ in table.scores)
  except (KeyError, TypeError):
    raise InputError(f'{path}: has no scores of {fusion}; remove it to evaluate again') from None


def write(
  table: Table, rows: Sequence[FoundRow], about: str, model_dir: pathlib.Path, stem: str
) -> str:
  """Writes `<stem>.md`, `.csv` and `.png`.

  Args:
    table: of the rows.
    rows: from top to bottom.
    about: a line about the numbers: dataset, steps, seeds.
    model_dir: folder of the files.
    stem: of their names.

  Returns:
    The Markdown.
  """
  text = markdown(table, rows, about)
  files.write_text(model_dir / f'{stem}.md', text)
  files.write_text(model_dir / f'{stem}.csv', as_csv(table, rows))
  with files.replacing(model_dir / f'{stem}.png') as temporary:
    _plot(table, rows, about, temporary)
  return text


def markdown(table: Table, rows: Sequence[FoundRow], about: str) -> str:
  """A table in the paper's layout: our scores, then the paper's."""
  names = [name for _, _, name in table.scores]
  has_paper = any(row.paper for row in rows)
  heads = [*table.heads, *names]
  if has_paper:
    heads += [f'paper: {names[0]}', *names[1:]]
  lines = [heads, ['---'] * len(heads)]
  for row in rows:
    cells = [*row.cells, *(_score(row, column) for column in range(len(names)))]
    if has_paper:
      cells += [f'{value:.1f}' for value in row.paper] or ['–'] * len(names)
    lines.append(cells)
  text = '\n'.join(f'| {" | ".join(line)} |' for line in lines)
  diverged = any(row.num_diverged for row in rows)
  note = '\n\n–: training diverged.' if diverged else ''
  return f'**{table.title}**\n\n{about}\n\n{text}{note}\n'


def _score(row: FoundRow, column: int) -> str:
  mean, deviation = row.mean(column), row.deviation(column)
  if mean is None:
    return '–' if row.num_diverged else ''
  return f'{mean:.1f}' if deviation is None else f'{mean:.1f} ± {deviation:.1f}'


def as_csv(table: Table, rows: Sequence[FoundRow]) -> str:
  """A line for each row: names, numbers of seeds, and each score's mean, deviation and paper value.

  A missing value is an empty cell.
  """
  names = [name for _, _, name in table.scores]
  text = io.StringIO()
  writer = csv.writer(text, lineterminator='\n')
  kinds = ('mean', 'standard deviation', 'paper')
  of_scores = [f'{name} {kind}' for name in names for kind in kinds]
  writer.writerow([*table.heads, 'seeds', 'diverged', *of_scores])
  for row in rows:
    cells = [*row.cells, len(row.scores), row.num_diverged]
    for column in range(len(names)):
      paper = row.paper[column] if row.paper else None
      for value in (row.mean(column), row.deviation(column), paper):
        cells.append('' if value is None else f'{value:.3f}')
    writer.writerow(cells)
  return text.getvalue()


def _plot(table: Table, rows: Sequence[FoundRow], about: str, path: pathlib.Path) -> None:
  """A panel for each PQ: ours with error bars, the paper's on a second axis of the same scale."""
  import matplotlib

  matplotlib.use('Agg')
  from matplotlib import pyplot

  width = max(3.6, 0.8 * len(rows))
  figure, axes = pyplot.subplots(
    1, _PLOTTED, figsize=(_PLOTTED * width, 4.6), squeeze=False, layout='constrained'
  )
  figure.suptitle(f'{table.title}\n{about}', fontsize=10)
  for column, axis in enumerate(axes.flat):
    _plot_column(axis, rows, column)
    axis.set_title(table.scores[column][2])
    axis.set_xlabel(', '.join(table.heads))
    names = ['\n'.join(row.cells) for row in rows]
    long = max(map(len, '\n'.join(names).split('\n'))) > 8
    style = {'rotation': 40, 'ha': 'right'} if long else {}
    axis.set_xticks(range(len(rows)), names, fontsize=8, **style)
    axis.set_xlim(-0.5, len(rows) - 0.5)
    axis.grid(alpha=0.3)
  figure.savefig(path, dpi=120, format='png')
  pyplot.close(figure)


def _plot_column(axis, rows: Sequence[FoundRow], column: int) -> None:  # noqa: ANN001
  ours = [(x, row.mean(column), row.deviation(column) or 0.0) for x, row in enumerate(rows)]
  ours = [one for one in ours if one[1] is not None]
  paper = [(x, row.paper[column]) for x, row in enumerate(rows) if row.paper]
  values = [[point[1] for point in points] for points in (ours, paper) if points]
  spans = [0.75 * (max(of_points) - min(of_points)) for of_points in values]
  half = max(0.5, *spans, *(2.0 * one[2] for one in ours)) if spans else 1
  handles = []
  if ours:
    x, means, deviations = zip(*ours, strict=True)
    style = {'fmt': 'o', 'color': 'tab:blue', 'capsize': 4, 'label': 'ours'}
    handles.append(axis.errorbar([at - 0.08 for at in x], means, deviations, **style))
    middle = (max(means) + min(means)) / 2
    axis.set_ylim(middle - half, middle + half)
  axis.tick_params(axis='y', colors='tab:blue')
  if paper:
    of_paper = axis.twinx()
    x, values = zip(*paper, strict=True)
    style = {'marker': 'D', 'linestyle': '', 'markerfacecolor': 'none', 'color': 'tab:orange'}
    handles += of_paper.plot([at + 0.08 for at in x], values, label='paper, on COCO', **style)
    middle = (max(values) + min(values)) / 2
    of_paper.set_ylim(middle - half, middle + half)
    of_paper.tick_params(axis='y', colors='tab:orange')
  if handles:
    axis.legend(handles=handles, fontsize=8)
