"""Runs trainings and evaluations as separate processes, so that their memory is freed.

Several processes may share a folder: each training holds a lock, which the system releases when the
process ends, however it ends.
"""

import pathlib
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import tqdm

from oanet_tf import files
from oanet_tf.errors import InputError
from oanet_tf.paper import plan
from oanet_tf.paper.plan import Job, Options, Scoring, Training

DIVERGED_FILE = 'diverged.txt'
# The error of `oanet_tf.train` for a loss or a weight that is not finite.
_DIVERGED = re.compile(r'error: (step \d+: (non-finite|weight \S+ is not finite).*)')
# Bytes at the end of a command's output that are searched for its error.
_TAIL = 10_000
_SECONDS_BETWEEN_LOOKS = 5.0

# Arguments of `python`, the lock's file descriptor -> exit code, end of the output.
Runner = Callable[[Sequence[str], int], tuple[int, str]]


def run_python(arguments: Sequence[str], lock: int) -> tuple[int, str]:
  """Runs Python with arguments; the output goes to standard error.

  An interrupt is passed on to the command, which then has time to write its state.

  Args:
    arguments: such as `-m oanet_tf.train …`.
    lock: file descriptor that the command keeps open too.

  Returns:
    Exit code, and the end of the output.
  """
  process = subprocess.Popen(
    [sys.executable, *arguments],
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    pass_fds=[lock],
    # Ctrl-C in the terminal reaches only this process, which passes it on once.
    start_new_session=True,
  )
  tail = b''
  try:
    while chunk := process.stdout.read1():
      sys.stderr.buffer.write(chunk)
      sys.stderr.flush()
      tail = (tail + chunk)[-_TAIL:]
  except KeyboardInterrupt:
    process.terminate()
    raise
  finally:
    code = process.wait()
  return code, tail.decode(errors='replace')


def run_all(jobs: Sequence[Job], options: Options, run: Runner = run_python) -> None:
  """Does all jobs that are not done yet, or waits for the processes that do them.

  Raises:
    InputError: if a command fails, unless its training diverged.
  """
  waiting = list(jobs)
  with tqdm.tqdm(total=len(jobs), desc='trainings', unit='training') as progress:
    while waiting:
      found = next((job for job in waiting if is_done(job, options)), None)
      if found is None:
        found = _do_one(waiting, options, run)
      if found is None:
        time.sleep(_SECONDS_BETWEEN_LOOKS)
      else:
        waiting.remove(found)
        progress.update()


def _do_one(jobs: Sequence[Job], options: Options, run: Runner) -> Job | None:
  """Does and returns the first job that is ready and not locked; None if there is none."""
  for job in jobs:
    networks = [scoring.network for scoring in job.scorings if scoring.srm]
    if all(is_trained(network, job.seed, options) for network in networks):
      folder = options.folder(job.training, job.seed)
      with files.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
      with files.locked(folder / '.lock') as lock:
        if lock is not None:
          _do(job, options, run, lock)
          return job
  return None


def _do(job: Job, options: Options, run: Runner, lock: int) -> None:
  folder = options.folder(job.training, job.seed)
  if not is_trained(job.training, job.seed, options):
    arguments, _ = plan.training_arguments(job.training, job.seed, options)
    _train(['-m', 'oanet_tf.train', '--mode', 'train', *arguments], folder, run, lock)
  for scoring in job.scorings:
    if not is_scored(scoring, job.seed, options):
      arguments = plan.scoring_arguments(scoring, job.seed, options)
      code, output = run(['-m', 'oanet_tf.evaluate', *arguments], lock)
      _check(code, output, folder)


def _train(command: Sequence[str], folder: pathlib.Path, run: Runner, lock: int) -> None:
  code, output = run(command, lock)
  if code == 2 and (match := _DIVERGED.search(output)):
    files.write_text(folder / DIVERGED_FILE, match[1] + '\n')
  else:
    _check(code, output, folder)


def _check(code: int, output: str, folder: pathlib.Path) -> None:
  if code:
    lines = [line.strip() for line in re.split(r'[\r\n]', output) if line.strip()]
    last = lines[-1].removeprefix('error: ') if lines else 'it said nothing'
    raise InputError(f'{folder}: the command ended with exit code {code}: {last}')


def is_done(job: Job, options: Options) -> bool:
  """Whether a job is trained and scored."""
  return is_trained(job.training, job.seed, options) and all(
    is_scored(scoring, job.seed, options) for scoring in job.scorings
  )


def is_scored(scoring: Scoring, seed: int, options: Options) -> bool:
  """Whether an evaluation has its results, or will have none since a training diverged."""
  has_results = options.results_path(scoring, seed).is_file()
  return has_results or scoring_diverged(scoring, seed, options)


def scoring_diverged(scoring: Scoring, seed: int, options: Options) -> bool:
  """Whether one of the trainings that an evaluation needs diverged."""
  return any(has_diverged(one, seed, options) for one in (scoring.network, scoring.training))


def is_trained(training: Training, seed: int, options: Options) -> bool:
  """Whether a training has ended, at its last step or by diverging."""
  checkpoint = f'ckpt-{plan.last_step(training, options)}.index'
  has_last = (options.folder(training, seed) / checkpoint).is_file()
  return has_last or has_diverged(training, seed, options)


def has_diverged(training: Training, seed: int, options: Options) -> bool:
  """Whether a training ended at a loss or a weight that is not finite."""
  return (options.folder(training, seed) / DIVERGED_FILE).is_file()


def state(job: Job, options: Options) -> str:
  """The state of a job: 'done', 'diverged', 'trained', 'started' or 'to do'."""
  folder = options.folder(job.training, job.seed)
  if has_diverged(job.training, job.seed, options):
    return 'diverged'
  if is_done(job, options):
    return 'done'
  if is_trained(job.training, job.seed, options):
    return 'trained'
  return 'started' if any(folder.glob('ckpt-*.index')) else 'to do'
