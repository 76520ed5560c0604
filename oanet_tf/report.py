"""Shows what one fusion gains over another: `oanet report --help`."""

import argparse
import functools
import itertools
import pathlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from oanet_tf import errors, files
from oanet_tf.arguments import ArgumentParser, add_overwrite
from oanet_tf.errors import InputError

if TYPE_CHECKING:
  # Loaded in the functions that use them, so that `--help` is fast.
  from oanet_tf.data.categories import PanopticCategories
  from oanet_tf.data.panoptic_json import Annotation
  from oanet_tf.reporting.comparison import ImageComparison
  from oanet_tf.reporting.reading import Evaluation


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
  parser = ArgumentParser(
    prog='oanet report',
    description='Writes one self-contained HTML file about an evaluation: scores by fusion and by '
    'category, which categories were put in the right order, and the images with the largest gains '
    'and losses.',
  )
  parser.add_argument(
    '--results', required=True, type=pathlib.Path, help='folder of an evaluation, with results.json'
  )
  parser.add_argument('--output', required=True, type=pathlib.Path, help='HTML file to write')
  add_overwrite(parser)
  parser.add_argument(
    '--compare',
    type=_two_names,
    default='heuristic,srm',
    metavar='FIRST,SECOND',
    help='two fusions; a gain is where the second scores higher (default: %(default)s)',
  )
  parser.add_argument(
    '--num_pictures',
    type=_whole_number,
    default=8,
    help='images with the largest gains, and with the largest losses (default: %(default)s each)',
  )
  parser.add_argument('--open', action='store_true', help='show the page in a browser')
  return parser.parse_args(arguments)


def _two_names(text: str) -> tuple[str, str]:
  names = tuple(name.strip() for name in text.split(','))
  if len(names) != 2 or len(set(names)) != 2 or not all(names):
    raise argparse.ArgumentTypeError(f'{text!r} is not two fusions as in heuristic,srm')
  return names


def _whole_number(text: str) -> int:
  if not text.isdecimal():
    raise argparse.ArgumentTypeError(f'{text!r} is no whole number')
  return int(text)


def main() -> None:
  arguments = parse_arguments()
  files.check_output_file(arguments.output, (), arguments.overwrite, ('.html', '.htm'))
  write_report(arguments.results, arguments.output, arguments.compare, arguments.num_pictures)
  print(arguments.output)
  if arguments.open:
    import webbrowser

    if not webbrowser.open(arguments.output.resolve().as_uri()):
      raise InputError(f'{arguments.output}: is written, but no browser was found to open it')


def write_report(
  results: pathlib.Path, output: pathlib.Path, compared: tuple[str, str], num_pictures: int
) -> None:
  """Writes the page; the same files always give the same bytes.

  Args:
    results: folder of an evaluation; what `evaluation.details` writes is shown if it is there.
    output: HTML file; replaced if it exists.
    compared: names of two fusions.
    num_pictures: images with the largest gains, and as many with the largest losses.

  Raises:
    InputError: if a file of the evaluation is missing or malformed, or the page cannot be written.
  """
  import tqdm

  from oanet_tf.reporting import gallery, page
  from oanet_tf.reporting.reading import read_evaluation

  evaluation = read_evaluation(results, compared)
  comparisons = _compare_images(evaluation) if evaluation.details is not None else []
  gains = _largest([one.gain for one in comparisons], num_pictures)
  losses = _largest([-one.gain for one in comparisons], num_pictures)
  with tqdm.tqdm(gains + losses, desc='drawing', unit='image', file=sys.stderr) as chosen:
    articles = [gallery.article(evaluation, i, comparisons[i]) for i in chosen]
  content = page.render(evaluation, comparisons, articles[: len(gains)], articles[len(gains) :])
  files.write_text(output, content)


def _largest(gains: Sequence[float], number: int) -> list[int]:
  """Indices of the largest positive gains; of equal ones the first."""
  positive = [i for i, gain in enumerate(gains) if gain > 0]
  return sorted(positive, key=lambda i: -gains[i])[:number]


def _compare_images(evaluation: 'Evaluation') -> list['ImageComparison']:
  """Compares the fusions on each image, with a progress bar.

  Raises:
    InputError: if a PNG is missing, damaged, or not as its JSON says.
  """
  from oanet_tf.data.parallel import map_chunks

  pairs = zip(evaluation.details.ground_truth, evaluation.predictions, strict=True)
  images = [(ground_truth, *predictions) for ground_truth, predictions in pairs]
  compare = functools.partial(_compare_chunk, evaluation.categories)
  return list(itertools.chain.from_iterable(map_chunks(compare, images, 'comparing')))


def _compare_chunk(
  categories: 'PanopticCategories', images: list[tuple['Annotation', 'Annotation', 'Annotation']]
) -> list['ImageComparison']:
  from oanet_tf.evaluation.coco_results import read_segments
  from oanet_tf.reporting.comparison import compare_image

  return [
    compare_image(*map(read_segments, image), categories, tuple(one.name for one in image))
    for image in images
  ]


if __name__ == '__main__':
  errors.run(main)
