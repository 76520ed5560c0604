"""What `import oanet_tf` gives, and the command `oanet`."""

import importlib
import inspect
import pathlib
import re
import subprocess
import sys

import pytest

import oanet_tf
from oanet_tf import __main__ as command
from oanet_tf import files
from tests import commands, end_to_end

ROOT = pathlib.Path(__file__).resolve().parents[1]


def run(*arguments, code=''):
  """A new process that may not load what is slow to load."""
  blocked = "import sys\nfor name in ('tensorflow', 'numpy', 'PIL'): sys.modules[name] = None\n"
  done = subprocess.run(
    [sys.executable, '-c', blocked + code, *arguments], capture_output=True, text=True
  )
  assert done.returncode == 0, done.stderr
  return done.stdout


def test_the_public_names():
  assert len(oanet_tf.__all__) <= 10 and set(oanet_tf.__all__) < set(dir(oanet_tf))
  for name in oanet_tf.__all__:
    value = getattr(oanet_tf, name)
    assert callable(value) and inspect.getdoc(value), name
  with pytest.raises(AttributeError, match='no_such_name'):
    oanet_tf.no_such_name  # noqa: B018


def test_a_star_import_has_them_all():
  names = {}
  exec('from oanet_tf import *', names)
  assert set(oanet_tf.__all__) <= set(names)


def test_the_import_loads_nothing_large():
  run(code='import oanet_tf\nprint(oanet_tf.__version__)')


@pytest.mark.parametrize('name', ['train', 'evaluate', 'export', 'convert'])
def test_importing_a_command_does_not_hide_the_function(name):
  module = importlib.import_module(f'oanet_tf.{name}')
  assert module is getattr(commands, name) is sys.modules[f'oanet_tf.{name}']
  assert inspect.isfunction(getattr(oanet_tf, name))
  # As a user would, in a new process and in this order.
  code = f'import oanet_tf.{name}, oanet_tf, types\nassert callable(oanet_tf.{name})'
  subprocess.run([sys.executable, '-c', code], check=True)


def test_functions_take_what_the_commands_take():
  """Each option of a command is an argument of its function, and the other way round."""
  for name in ('train', 'evaluate', 'export', 'convert'):
    required = {
      'train': ['--model_dir', 'm', '--mode', 'eval'],
      'evaluate': ['--model_dir', 'm'],
      'export': ['--model_dir', 'm', '--export_dir', 'e'],
      'convert': ['--without_images', '--panoptic_json', 'j', '--panoptic_dir', 'd',
                  '--output_dir', 'o', '--split', 's'],
    }[name]  # fmt: skip
    options = vars(getattr(commands, name).parse_arguments(required))
    assert set(options) == set(inspect.signature(getattr(oanet_tf, name)).parameters)


def test_help_names_each_command_and_loads_nothing_large():
  stdout = run(code='from oanet_tf.__main__ import main\nmain(["--help"])')
  lines = stdout.splitlines()
  for name, one in command.COMMANDS.items():
    assert any(line.split()[:1] == [name] and one.summary in line for line in lines)
  assert run(code='from oanet_tf.__main__ import main\nmain([])') == stdout


@pytest.mark.parametrize('name', command.COMMANDS)
def test_each_command_has_help(name, monkeypatch, capsys):
  outcome = end_to_end.run_command(monkeypatch, capsys, lambda: command.main([name, '--help']))
  assert outcome[0] == 0 and outcome[1].startswith(f'usage: oanet {name} ')


def test_every_command_of_the_package_is_there():
  modules = {
    f'oanet_tf.{path.stem}'
    for path in (ROOT / 'oanet_tf').glob('*.py')
    if 'errors.run(main)' in path.read_text() and path.stem != '__main__'
  }
  assert modules <= {one.module for one in command.COMMANDS.values()}


@pytest.mark.parametrize(('given', 'hint'), [('pradict', 'did you mean predict'), ('x', 'train')])
def test_a_command_that_is_not_there(monkeypatch, capsys, given, hint):
  outcome = end_to_end.run_command(monkeypatch, capsys, lambda: command.main([given]))
  message = end_to_end.one_line_error(outcome)
  assert repr(given) in message and hint in message


def test_version(capsys):
  command.main(['--version'])
  assert oanet_tf.__version__ in capsys.readouterr().out


def test_the_module_runs_too():
  done = subprocess.run(
    [sys.executable, '-m', 'oanet_tf', 'predict', '--help'], capture_output=True, text=True
  )
  assert done.returncode == 0 and 'usage: oanet predict' in done.stdout


def test_predict_without_anything(tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  code, stdout, stderr = end_to_end.run_command(
    monkeypatch, capsys, lambda: command.main(['predict'])
  )
  assert code == 0 and '2 pictures' in stdout and 'OccludedScenes' in stderr
  assert len(list((tmp_path / 'oanet_results' / 'overlays').iterdir())) == 2


@pytest.mark.slow
def test_what_a_type_checker_sees(tmp_path):
  """The README's example has no fault; wrong calls have one each."""
  mypy = pytest.importorskip('mypy.api')
  (example,) = re.findall(r'```python\n(.*?)```', (ROOT / 'README.md').read_text(), re.DOTALL)
  (tmp_path / 'good.py').write_text(
    example + '\nheight: int = result.segmentation.shape[0]\n'
    'quality: dict[str, object] = oanet_tf.panoptic_quality("a.json", "b.json")\n'
  )
  (tmp_path / 'bad.py').write_text(
    'import oanet_tf\nmodel = oanet_tf.load(3)\nmodel(3)\nnext(model("a")).plot(size=3)\n'
    'oanet_tf.train()\noanet_tf.nothing\n'
  )
  options = ['--no-incremental', '--config-file', '', '--ignore-missing-imports', '--strict',
             '--follow-imports', 'silent']  # fmt: skip
  stdout, _, code = mypy.run([*options, str(tmp_path / 'good.py'), str(tmp_path / 'bad.py')])
  assert code == 1
  errors = [line.split(':')[:2] for line in stdout.splitlines() if ': error: ' in line]
  assert {(pathlib.Path(path).name, int(line)) for path, line in errors} == {
    ('bad.py', line) for line in (2, 3, 4, 5, 6)
  }


def test_one_name_is_not_taken_for_its_letters(tmp_path):
  (tmp_path / 'params.yaml').write_text('{}')
  with pytest.raises(oanet_tf.InputError, match=r'none\.yaml'):
    oanet_tf.train(tmp_path, 'oanet_synthetic', config_file=str(tmp_path / 'none.yaml'))
  with pytest.raises(oanet_tf.InputError, match="'tflite'"):
    commands.export.check_formats(files.as_list('tflite'))
  assert files.as_list('srm') == files.as_list(['srm']) == ['srm']
  assert files.as_list(tmp_path) == files.as_list((tmp_path,)) == [str(tmp_path)]


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({}, 'an experiment is required'),
    ({'experiment': 'oanet_synthetik'}, 'oanet_synthetik'),
    ({'experiment': 'oanet_synthetic', 'mode': 'training'}, "'training'"),
    ({'mode': 'eval'}, r'params\.yaml'),
  ],
)
def test_training_from_python_is_refused_in_one_line(tmp_path, settings, message):
  with pytest.raises(oanet_tf.InputError, match=message) as error:
    oanet_tf.train(tmp_path / 'model', **settings)
  assert '\n' not in str(error.value)
  assert not (tmp_path / 'model').exists()
