"""A headless Chromium, driven by the DevTools protocol over a pipe: needs no package."""

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import time

NAMES = ('chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable', 'chrome')
_SECONDS = 90


def find_chromium():
  """Path of the program, or None."""
  return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
  """One page in one browser, which may be given more flags.

  Attributes:
    problems: what the page wrote on its console, and what it failed to do, as text.
    requests: URLs that the page asked for.
  """

  def __init__(self, profile, *more_flags):
    commands, self._to = os.pipe()
    self._from, answers = os.pipe()
    # Chromium reads commands from descriptor 3 and writes answers to 4.
    redirect = f'exec "$0" "$@" 3<&{commands} 4>&{answers}'
    flags = ('--headless', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage')
    flags += ('--hide-scrollbars', '--remote-debugging-pipe', f'--user-data-dir={profile}')
    flags += more_flags
    self._process = subprocess.Popen(
      ['bash', '-c', redirect, find_chromium(), *flags, 'about:blank'],
      pass_fds=(commands, answers),
      stdout=subprocess.DEVNULL,
      stderr=subprocess.DEVNULL,
    )
    os.close(commands)
    os.close(answers)
    self.problems, self.requests = [], []
    self._buffer, self._number, self._session, self._events = b'', 0, None, []
    target = self._send('Target.createTarget', url='about:blank')['targetId']
    attached = self._send('Target.attachToTarget', targetId=target, flatten=True)
    self._session = attached['sessionId']
    for domain in ('Page', 'Runtime', 'Log', 'Network'):
      self._send(f'{domain}.enable')

  def open(self, place, width=1200, height=900, dark=False):
    """Loads a file or a URL into a window of so many CSS pixels."""
    self._send(
      'Emulation.setDeviceMetricsOverride',
      width=width,
      height=height,
      deviceScaleFactor=1,
      mobile=width < 600,
    )
    scheme = {'name': 'prefers-color-scheme', 'value': 'dark' if dark else 'light'}
    self._send('Emulation.setEmulatedMedia', features=[scheme])
    self._events.clear()
    url = place if isinstance(place, str) else place.resolve().as_uri()
    self._send('Page.navigate', url=url)
    while not any(event['method'] == 'Page.loadEventFired' for event in self._events):
      self._receive()

  def evaluate(self, expression):
    """The value of a JavaScript expression; that of a promise, when it is kept."""
    answer = self._send(
      'Runtime.evaluate', expression=expression, returnByValue=True, awaitPromise=True
    )
    assert 'exceptionDetails' not in answer, answer['exceptionDetails']
    return answer['result'].get('value')

  def press(self, key, text=''):
    """A key, as a user presses it."""
    self._send('Input.dispatchKeyEvent', type='keyDown', key=key, code=key, text=text)
    self._send('Input.dispatchKeyEvent', type='keyUp', key=key, code=key)

  def wait_until(self, expression, seconds=_SECONDS):
    """Waits until a JavaScript expression is true."""
    end = time.monotonic() + seconds
    while not self.evaluate(expression):
      assert time.monotonic() < end, f'not within {seconds} seconds: {expression}'
      time.sleep(0.05)

  def save_downloads_to(self, folder):
    """What the page saves goes there, without a question."""
    self._send('Page.setDownloadBehavior', behavior='allow', downloadPath=str(folder))

  @contextlib.contextmanager
  def answering(self, server, content_of):
    """Answers requests for a server: the path of a URL -> the content."""
    self._answers = server, content_of
    self._send('Fetch.enable', patterns=[{'urlPattern': f'{server}/*'}])
    try:
      yield
    finally:
      self._send('Fetch.disable')

  def _answer(self, request):
    server, content_of = self._answers
    path = request['request']['url'].removeprefix(server)
    kinds = {'js': 'text/javascript', 'wasm': 'application/wasm'}
    headers = {
      'Content-Type': kinds[path.rpartition('.')[2]],
      'Access-Control-Allow-Origin': '*',
      'Cross-Origin-Resource-Policy': 'cross-origin',
    }
    self._post(
      'Fetch.fulfillRequest',
      requestId=request['requestId'],
      responseCode=200,
      responseHeaders=[{'name': name, 'value': value} for name, value in headers.items()],
      body=base64.b64encode(content_of(path)).decode(),
    )

  def accessible(self):
    """The role and the name of each node of the accessibility tree."""
    nodes = self._send('Accessibility.getFullAXTree')['nodes']
    seen = [node for node in nodes if not node['ignored']]
    return [(node['role']['value'], node.get('name', {}).get('value', '')) for node in seen]

  def screenshot(self, path, whole_page=False):
    """Writes a PNG."""
    answer = self._send('Page.captureScreenshot', captureBeyondViewport=whole_page)
    path.write_bytes(base64.b64decode(answer['data']))

  def close(self):
    self._process.kill()
    self._process.wait()
    os.close(self._to)
    os.close(self._from)

  def _post(self, method, **parameters):
    """Sends a command; -> its number."""
    self._number += 1
    command = {'id': self._number, 'method': method, 'params': parameters}
    if self._session:
      command['sessionId'] = self._session
    content = json.dumps(command).encode() + b'\0'
    while content:
      content = content[os.write(self._to, content) :]
    return self._number

  def _send(self, method, **parameters):
    """A command's result."""
    number = self._post(method, **parameters)
    while True:
      message = self._receive()
      if message.get('id') == number:
        assert 'error' not in message, message['error']
        return message['result']

  def _receive(self):
    """The next message; an event is noted too."""
    while b'\0' not in self._buffer:
      assert select.select([self._from], [], [], _SECONDS)[0], 'the browser does not answer'
      chunk = os.read(self._from, 1 << 20)
      if not chunk:
        raise EOFError('the browser has ended')
      self._buffer += chunk
    line, self._buffer = self._buffer.split(b'\0', 1)
    message = json.loads(line)
    if 'method' in message:
      self._note(message)
    return message

  def _note(self, event):
    self._events.append(event)
    method, parameters = event['method'], event['params']
    if method in ('Runtime.consoleAPICalled', 'Runtime.exceptionThrown', 'Log.entryAdded'):
      self.problems.append(json.dumps(parameters))
    if method == 'Network.requestWillBeSent':
      self.requests.append(parameters['request']['url'])
    if method == 'Fetch.requestPaused':
      self._answer(parameters)
