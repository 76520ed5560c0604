"""Renders the report as one self-contained HTML page."""

import html
import importlib.resources
import string
from collections.abc import Sequence

from oanet_tf.printing import shown
from oanet_tf.reporting.comparison import ImageComparison, sum_orders
from oanet_tf.reporting.reading import Evaluation
from oanet_tf.reporting.tables import categories_table, fusions_table, orders_table

_WITHOUT_DETAILS = (
  'This evaluation wrote no details of its images, so the order of categories and the pictures '
  'are missing here. <code>oanet evaluate --model_dir MODEL_DIR</code>, run with the '
  'present version on one machine, writes them.'
)


def render(
  evaluation: Evaluation,
  comparisons: Sequence[ImageComparison],
  gains: Sequence[str],
  losses: Sequence[str],
) -> str:
  """Renders the page.

  Args:
    evaluation: what was read.
    comparisons: of its images; empty without details.
    gains: `gallery.article` of the images with the largest gains, the largest first.
    losses: `gallery.article` of the images with the largest losses, the largest first.
  """
  first, second = evaluation.compared
  sections = {'Fusions': _fusions(evaluation), 'Categories': _categories(evaluation)}
  if evaluation.details is not None:
    sections['Order'] = _orders(evaluation, comparisons)
    sections['Largest gains'] = _pictures(evaluation, gains, 'better')
    sections['Largest losses'] = _pictures(evaluation, losses, 'worse')
  links = ''.join(f'<a href="#{_anchor(title)}">{title}</a>' for title in sections)
  body = [_header(evaluation, comparisons), f'<nav>{links}</nav>']
  if evaluation.details is None:
    body.append(f'<p class="note">{_WITHOUT_DETAILS}</p>')
  body += [
    f'<section id="{_anchor(title)}">\n<h2>{title}</h2>\n{content}\n</section>'
    for title, content in sections.items()
  ]
  page = string.Template(_part('report.html')).substitute(
    title=html.escape(f'{second} against {first}: {evaluation.name}'),
    style=_part('report.css'),
    script=_part('report.js'),
    body='\n'.join(body),
  )
  # Names could turn the direction of the text around them.
  return '\n'.join(map(shown, page.split('\n')))


def _part(name: str) -> str:
  return importlib.resources.files('oanet_tf.reporting').joinpath(name).read_text(encoding='utf-8')


def _anchor(title: str) -> str:
  return title.lower().replace(' ', '-')


def _header(evaluation: Evaluation, comparisons: Sequence[ImageComparison]) -> str:
  first, second = evaluation.compared
  pq = [100 * evaluation.results[name]['All']['pq'] for name in (first, second)]
  sentences = [
    f'{second} has PQ {pq[1]:.1f}, {first} {pq[0]:.1f}, in {len(evaluation.predictions):,} images '
    f'of {evaluation.name}.'
  ]
  if comparisons:
    better = sum(one.gain > 0 for one in comparisons)
    worse = sum(one.gain < 0 for one in comparisons)
    sentences.append(
      f'Image by image, {second} is better in {better:,}, worse in {worse:,} and equal in '
      f'{len(comparisons) - better - worse:,}.'
    )
  title = html.escape(f'{second} against {first}')
  return f'<header><h1>{title}</h1><p>{html.escape(" ".join(sentences))}</p></header>'


def _fusions(evaluation: Evaluation) -> str:
  how = (
    'In percent, higher is better. RQ says how many segments are found, SQ how well they fit; PQ '
    'is their product. Each is a mean over the categories that truth or prediction has.'
  )
  return f'<p class="how">{how}</p>\n{fusions_table(evaluation)}'


def _categories(evaluation: Evaluation) -> str:
  first, second = map(html.escape, evaluation.compared)
  how = (
    f'PQ of <span class="key first"></span> {first} and <span class="key second"></span> {second}. '
    'Press a heading to sort by it, once more to turn the order round. Of few segments, PQ varies '
    'widely.'
  )
  return f'<p class="how">{how}</p>\n{categories_table(evaluation)}'


def _orders(evaluation: Evaluation, comparisons: Sequence[ImageComparison]) -> str:
  first, second = map(html.escape, evaluation.compared)
  orders = sum_orders(one.cases for one in comparisons)
  differing = sum(one.differing_pixels for one in comparisons)
  ordered = sum(sum(one.pixels) for one in orders)
  how = (
    f'Where {first} shows a thing and {second} a thing of another category, both were detected and '
    'only their order differs. A case is such a pair of instances in one image. It is right if '
    f'more of its pixels truly are of the category that {second} put on top, and wrong if more are '
    f'of that which {first} put there.'
  )
  coverage = (
    f'The fusions disagree about the category of {differing:,} pixels. {ordered:,} of them are '
    'counted here; at the others one fusion has stuff or nothing, mostly since it dropped an '
    'instance. Instances of one and the same category are not compared.'
  )
  pairs = orders_table(orders, evaluation.categories, evaluation.compared)
  return f'<p class="how">{how}</p>\n<p class="how">{coverage}</p>\n{pairs if orders else ""}'


def _pictures(evaluation: Evaluation, articles: Sequence[str], comparative: str) -> str:
  first, second = map(html.escape, evaluation.compared)
  if not articles:
    return f'<p class="how">In no image is {second} {comparative} than {first}.</p>'
  how = (
    f'Images in which {second} is {comparative} than {first}, by PQ of the image alone: the mean '
    'over the categories that it has. Instances are numbered by their detection scores, by which '
    'the heuristic orders them; SRM orders them by their ranking scores. Bold: one fusion hides '
    'over a tenth of what the other shows. The ranking map tells which category belongs on top; '
    'the paler, the less surely.'
  )
  return '\n'.join([f'<p class="how">{how}</p>', *articles])
