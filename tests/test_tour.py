"""The notebook that shows everything once."""

import json
import pathlib

import pytest

TOUR = pathlib.Path(__file__).resolve().parents[1] / 'scripts' / 'tour.ipynb'


def kinds_of(cells):
  """For each code cell, the kinds of its outputs but for what goes to stderr."""
  kinds = []
  for cell in cells:
    if cell['cell_type'] != 'code':
      continue
    found = set()
    for output in cell['outputs']:
      if output['output_type'] == 'stream':
        found |= {'text'} if output['name'] == 'stdout' else set()
      elif any(kind.startswith('image/') for kind in output['data']):
        found.add('image')
    kinds.append(found)
  return kinds


def test_it_was_run_from_top_to_bottom():
  cells = [c for c in json.loads(TOUR.read_text())['cells'] if c['cell_type'] == 'code']
  assert [cell['execution_count'] for cell in cells] == list(range(1, 1 + len(cells)))
  for cell in cells:
    assert all(output['output_type'] != 'error' for output in cell['outputs'])
  text = TOUR.read_text()
  assert '/home/' not in text and '/tmp/' not in text and '/root/' not in text
  assert TOUR.stat().st_size < 1e6


@pytest.mark.slow
def test_it_runs(tmp_path):
  nbclient = pytest.importorskip('nbclient')
  nbformat = pytest.importorskip('nbformat')
  shown = json.loads(TOUR.read_text())['cells']
  notebook = nbformat.read(TOUR, 4)
  resources = {'metadata': {'path': str(tmp_path)}}
  # Raises the error of a cell.
  nbclient.NotebookClient(notebook, timeout=900, resources=resources).execute()
  for before, after in zip(kinds_of(shown), kinds_of(notebook.cells), strict=True):
    assert before <= after
  assert (tmp_path / 'tour' / 'report.html').is_file()
