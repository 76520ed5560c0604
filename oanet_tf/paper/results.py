"""The scores of a table's rows, as Markdown, CSV and a plot, beside the paper's."""

import csv
import io
import json
import pathlib
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from oanet_tf import files
from oanet_tf.paper.plan import Options, Scoring, scoring_of
from oanet_tf.paper.runs import has_diverged
from oanet_tf.paper.tables import Dataset, Row, Table

# Of the plot: PQ alone.
_PLOTTED = 3


class FoundRow(NamedTuple):
  """A row with its scores.

  Attributes:
    cells: that name it.
    paper: scores in percent, in the order of the table's; () where the paper has none.
    scores: of each seed, likewise; seeds that are not there yet are left out.
    num_diverged: seeds of which the training diverged.
  """

  cells: tuple[str, ...]
  paper: tuple[float, ...]
  scores: list[tuple[float, ...]]
  num_diverged: int

  def mean(self, column: int) -> float | None:
    """Over the seeds, in percent; None without any."""
    values = [scores[column] for scores in self.scores]
    return statistics.fmean(values) if values else None

  def deviation(self, column: int) -> float | None:
    """The standard deviation over the seeds, in percent; None with fewer than two."""
    values = [scores[column] for scores in self.scores]
    return statistics.stdev(values) if len(values) > 1 else None


def find_rows(table: Table, dataset: Dataset, options: Options, seeds: int) -> list[FoundRow]:
  """What there is of a table."""
  return [_find(row, table, dataset, options, seeds) for row in table.rows]


def _find(row: Row, table: Table, dataset: Dataset, options: Options, seeds: int) -> FoundRow:
  scoring = scoring_of(row, dataset)
  variants = {**dataset.backbones, **dataset.variants}
  labels = {name: variant.label for name, variant in variants.items()}
  scores, num_diverged = [], 0
  for seed in range(seeds):
    path = options.results_path(scoring, seed)
    if _diverged(scoring, seed, options):
      num_diverged += 1
    elif path.is_file():
      result = json.loads(path.read_text())[row.fusion]
      scores.append(tuple(100.0 * result[group][quality] for group, quality, _ in table.scores))
  cells = tuple(labels.get(cell, cell) for cell in row.cells)
  return FoundRow(cells, row.paper, scores, num_diverged)


def _diverged(scoring: Scoring, seed: int, options: Options) -> bool:
  return any(
    has_diverged(training, seed, options) for training in {scoring.network, scoring.training}
  )


def write(
  table: Table, rows: Sequence[FoundRow], about: str, model_dir: pathlib.Path, stem: str
) -> str:
  """Writes `<stem>.md`, `.csv` and `.png`.

  Args:
    table: of the rows.
    rows: from top to bottom.
    about: a line about the numbers: dataset, steps, seeds.
    model_dir: for the files.
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
  """A table in the paper's layout: ours, then the paper's scores."""
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
  """A line for each row: its cells, how many seeds, and of each score mean, deviation and paper.

  What is not there is empty.
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
  """A panel for each PQ: ours with error bars; the paper's on an axis of the same scale."""
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
    axis.set_xticks(
      range(len(rows)),
      names,
      fontsize=8,
      rotation=40 if long else 0,
      ha='right' if long else 'center',
    )
    axis.set_xlim(-0.5, len(rows) - 0.5)
    axis.grid(alpha=0.3)
  figure.savefig(path, dpi=120, format='png')
  pyplot.close(figure)


def _plot_column(axis, rows: Sequence[FoundRow], column: int) -> None:  # noqa: ANN001
  ours = [(x, row.mean(column), row.deviation(column) or 0.0) for x, row in enumerate(rows)]
  ours = [one for one in ours if one[1] is not None]
  paper = [(x, row.paper[column]) for x, row in enumerate(rows) if row.paper]
  spans = [max(values) - min(values) for _, values in _values(ours, paper)]
  half = max(0.5, *(0.75 * span for span in spans), *(2.0 * one[2] for one in ours)) if spans else 1
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


def _values(ours: Sequence[tuple], paper: Sequence[tuple]) -> list[tuple[str, list[float]]]:
  found = {'ours': [one[1] for one in ours], 'paper': [one[1] for one in paper]}
  return [(name, values) for name, values in found.items() if values]
