// The page of `oanet export --formats web`: picture -> network -> merge -> what is drawn.
// H, W canvas of the network. After the page is loaded, no request leaves it.

const LONGEST_SIDE = {least: 960, most: 1600};  // Small pictures are enlarged when drawn, large ones shrunk.
const element = (id) => document.getElementById(id);
const page = JSON.parse(element('page').textContent);

let litert, network, merger, about;  // The module LiteRT.js, the two compiled steps, and model.json.
let picture, outputs;  // {name, pixels}: a canvas of its own size; and what the network says of it, as tensors.
let result, times = {};  // {segments, index, width, height}: of each pixel the place of its segment, or -1.

const say = (text) => { element('status').textContent = text; };
const complain = (text) => { Object.assign(element('problem'), {textContent: text, hidden: !text}); };
const make = (tag, properties) => Object.assign(document.createElement(tag), properties);
// One thing after the other. What fails is told in a line.
let last = Promise.resolve();
const inTurn = (work) => {
  last = last.then(work).catch((error) => { say(''); complain(error.message || String(error)); });
  return last;
};

// LiteRT.js tells on the console alone that a network could not be run.
let failure;
const report = console.error;
console.error = (...said) => { failure ??= said.join(' ').match(/Failed to (invoke|allocate).*/)?.[0]; report(...said); };
async function run(step, inputs) {
  failure = undefined;
  const found = await step.run(inputs);
  if (failure) throw new Error(`This browser cannot run the network (${failure}); its memory may be too small`);
  return found;
}

async function timed(name, work) {
  const start = performance.now(), value = await work();
  times[name] = performance.now() - start;
  return value;
}

// ---------- the network
async function start() {
  say('Loading …');
  about = await fetch('model.json').then((answer) => answer.json()).catch(() => ({}));
  if (!about?.fusions || !about.categories || !about.input) {
    throw new Error('model.json is missing, or of another kind of model; use oanet export --formats web');
  }
  litert = await import('@litertjs/core').catch(() => {
    throw new Error(`LiteRT.js cannot be loaded from ${page.wasm}; oanet export --offline puts it beside the page`);
  });
  const adapter = await navigator.gpu?.requestAdapter().catch(() => null);
  // Without suspension, LiteRT.js cannot share a network between GPU and CPU.
  if (adapter && 'Suspending' in WebAssembly) {
    Object.assign(element('accelerator').options[1], {disabled: false, text: 'the GPU (WebGPU)'});
    if (!adapter.info?.isFallbackAdapter) element('accelerator').value = 'webgpu';
  }
  await compile();
  element('threshold').value = about.score_threshold;
  document.getElementsByName('order').forEach((one) => {
    Object.assign(one, {checked: one.value === about.fusion, disabled: !about.fusions.includes(one.value)});
  });
  showThreshold();
  for (const id of ['file', 'camera', 'orders', 'threshold', 'accelerator']) element(id).disabled = false;
}

async function compile() {
  const chosen = element('accelerator');
  say('Preparing the network …');
  await compileFor(chosen.value).catch((error) => {
    if (chosen.value === 'wasm') throw error;
    complain(`The GPU cannot run this network, so the CPU does: ${error.message}`);
    chosen.value = 'wasm';
    return compileFor('wasm');
  });
  say('Ready.');
}

async function compileFor(accelerator) {
  outputs = network = merger = undefined;
  litert.unloadLiteRt();
  // Threads need memory that they share, which browsers give to pages of isolated servers alone.
  const jspi = accelerator === 'webgpu', threads = !jspi && crossOriginIsolated && page.wasm.startsWith('.');
  await litert.loadLiteRt(page.wasm, {threads, jspi});
  network = await load('model.tflite', accelerator, 'image');
  merger = await load('merge.tflite', 'wasm', 'by_ranking');
  // What is computed first takes longer than all that follows.
  await runNetwork(new Uint8Array(about.input.shape.reduce((product, side) => product * side)));
  await runMerge(0.5, 0);
}

async function load(name, accelerator, input) {
  try {
    const bytes = new Uint8Array(await (await fetch(name)).arrayBuffer());
    const step = await litert.loadAndCompile(bytes, {accelerator, gpuOptions: {precision: 'fp32'}});
    if (step.getInputDetails().some((one) => one.name === input)) return step;
    throw new Error(`there is no input ${input}`);
  } catch (error) {
    throw new Error(`${name} is damaged or of another kind of model: ${error.message}`);
  }
}

async function runNetwork(canvas) {
  Object.values(outputs ?? {}).forEach((tensor) => tensor.delete());
  outputs = undefined;
  const image = new litert.Tensor(canvas, about.input.shape), found = await run(network, {image});
  for (const [name, tensor] of Object.entries(found)) {
    if (tensor.accelerator !== 'wasm') found[name] = await tensor.moveTo('wasm');
  }
  outputs = found;
  image.delete();
}

async function runMerge(threshold, byRanking) {
  const number = (value) => new litert.Tensor(new Float32Array([value]), [1]);
  const settings = {score_threshold: number(threshold), by_ranking: number(byRanking)};
  const merged = await run(merger, {...outputs, ...settings}), arrays = {};
  for (const [name, tensor] of Object.entries(merged)) arrays[name] = (await tensor.data()).slice();
  [...Object.values(merged), ...Object.values(settings)].forEach((tensor) => tensor.delete());
  return arrays;
}

// ---------- from a picture to segments
async function decode(blob, name) {
  const refuse = () => { throw new Error(`${name} is damaged, or no picture that this browser reads`); };
  // An element reads the size alone, so that a huge picture is refused before it is unpacked.
  const image = make('img', {src: URL.createObjectURL(blob)});
  await new Promise((onload, onerror) => { Object.assign(image, {onload, onerror}); }).catch(refuse);
  URL.revokeObjectURL(image.src);
  const {naturalWidth: width, naturalHeight: height} = image;
  if (width * height > page.max_pixels) {
    throw new Error(`${name} has ${width} × ${height} pixels; this page takes ${page.max_pixels} at most`);
  }
  return onWhite(await createImageBitmap(blob, {colorSpaceConversion: 'none'}).catch(refuse));
}

function onWhite(source, width = source.width, height = source.height) {
  const canvas = make('canvas', {width, height}), context = canvas.getContext('2d', {willReadFrequently: true});
  Object.assign(context, {fillStyle: 'white'}).fillRect(0, 0, width, height);
  context.drawImage(source, 0, 0);
  return canvas;
}

async function segment(next) {
  if (!element('video')) say(`Segmenting ${next.name} …`);
  await new Promise((painted) => { setTimeout(painted); });
  const canvas = await timed('prepare', () => letterbox(next.pixels));
  await timed('network', () => runNetwork(canvas));
  picture = next;
  await merge();
}

async function merge() {
  if (!picture || !outputs) return;
  const byRanking = document.querySelector('[name=order]:checked').value === 'srm' ? 1 : 0;
  const arrays = await timed('merge', () => runMerge(Number(element('threshold').value), byRanking));
  await timed('draw', () => {
    result = resultOf(arrays);
    draw();
  });
  showSegments();
}

// As Python rounds: halves to the even neighbour.
const rint = (x) => Math.round(x) - (Math.round(x) - x === 0.5 && Math.round(x) % 2 ? 1 : 0);

function sizeWithin({width, height}) {
  const [, H, W] = about.input.shape, scale = Math.min(H / height, W / width);
  return [height, width].map((side) => Math.max(1, rint(side * scale)));
}

// To the bit as oanet_tf/serving/letterbox.py: bilinear in float32, at the top left, padded.
function letterbox(pixels) {
  const [, H, W] = about.input.shape, [h, w] = sizeWithin(pixels), {width, height} = pixels;
  const {data} = pixels.getContext('2d').getImageData(0, 0, width, height), f = Math.fround;
  const neighbours = (before, after) => Array.from({length: after}, (_, i) => {
    const position = f(f((i + 0.5) * f(before / after)) - 0.5), low = Math.floor(position);
    return [Math.max(low, 0), Math.min(low + 1, before - 1), f(position - low)];
  });
  const canvas = new Uint8Array(H * W * 3).map((_, i) => about.input.padding_color[i % 3]);
  const columns = neighbours(width, w);
  neighbours(height, h).forEach(([top, bottom, y], row) => columns.forEach(([left, right, x], column) => {
    for (let c = 0; c < 3; c++) {
      const along = (line) => {
        const low = data[(line * width + left) * 4 + c];
        return f(low + f((data[(line * width + right) * 4 + c] - low) * x));
      };
      canvas[(row * W + column) * 3 + c] = rint(f(along(top) + f(f(along(bottom) - along(top)) * y)));
    }
  }));
  return canvas;
}

function resultOf(arrays) {
  const W = about.input.shape[2], [height, width] = sizeWithin(picture.pixels), places = new Map();
  const categories = new Map(about.categories.map((one) => [one.id, one]));
  // An instance is a positive number, and a category of stuff the text of its id.
  const segments = Array.from({length: arrays.num_segments[0]}, (_, i) => {
    const category = categories.get(arrays.segment_category_id[i]), instance = arrays.segment_instance_id[i];
    places.set(instance || String(category.id), i);
    const ranking = instance && about.fusions.includes('srm') ? arrays.ranking_scores[instance - 1] : null;
    // Things of a category differ: powers of the plastic number spread them evenly.
    const shift = (c) => (instance ? ((instance * [0.8191725, 0.6710436, 0.5497005][c]) % 1 - 0.5) * 120 : 0);
    const color = Uint8ClampedArray.from(category.color, (value, c) => value + shift(c));
    return {category, instance, score: arrays.segment_score[i], ranking, color};
  });
  const index = new Int16Array(height * width).map((_, at) => {
    const cell = Math.floor(at / width) * W + at % width;
    return places.get(arrays.panoptic_instance_mask[cell] || String(arrays.panoptic_category_mask[cell])) ?? -1;
  });
  return {segments, index, width, height};
}

// The place of the segment at each pixel of a picture of that size.
function indexAt(width, height) {
  const nearest = (length, cells) => Int32Array.from({length}, (_, i) => Math.floor((i + 0.5) * cells / length));
  const rows = nearest(height, result.height), columns = nearest(width, result.width);
  return new Int16Array(height * width).map((_, at) => {
    return result.index[rows[Math.floor(at / width)] * result.width + columns[at % width]];
  });
}

// ---------- what is seen
function draw() {
  const view = element('view'), {pixels} = picture, longest = Math.max(pixels.width, pixels.height);
  const factor = Math.min(LONGEST_SIDE.most, Math.max(LONGEST_SIDE.least, longest)) / longest;
  const [width, height] = [pixels.width, pixels.height].map((side) => Math.max(1, Math.round(side * factor)));
  for (const canvas of [view, element('highlight')]) Object.assign(canvas, {width, height, hidden: false});
  element('stage').className = 'stage filled';
  const context = view.getContext('2d', {willReadFrequently: true});
  Object.assign(context, {imageSmoothingQuality: 'high'}).drawImage(pixels, 0, 0, width, height);
  const image = context.getImageData(0, 0, width, height), index = indexAt(width, height);
  index.forEach((here, at) => {
    const isEdge = (at % width && index[at - 1] !== here) || (at >= width && index[at - width] !== here);
    if (here < 0 && !isEdge) return;
    for (let c = 0; c < 3; c++) {
      const color = isEdge ? 255 : result.segments[here].color[c];
      image.data[4 * at + c] += (color - image.data[4 * at + c]) * (isEdge ? 0.85 : 0.5);
    }
  });
  context.putImageData(image, 0, 0);
  result.shown = index;
  drawNames(context, width, height);
  view.ariaLabel = `${picture.name}: ${result.segments.map((one) => one.category.name).join(', ') || 'no segment'}`;
}

// Of each segment, the middle of its longest row.
function widest() {
  const {index, width, segments} = result, found = segments.map(() => ({length: 0}));
  for (let at = 0, length = 0; at < index.length; at++) {
    length = at % width && index[at] === index[at - 1] ? length + 1 : 1;
    const longest = found[index[at]];
    if (longest && length > longest.length) {
      Object.assign(longest, {length, x: at % width + 1 - length / 2, y: Math.floor(at / width) + 0.5});
    }
  }
  return found;
}

// The names of wide segments come first; one that has no room is left out.
function drawNames(context, width, height) {
  const size = Math.round(Math.max(16, Math.min(width, height) / 30)), h = size * 1.4, placed = [];
  Object.assign(context, {font: `600 ${size}px system-ui, sans-serif`, textBaseline: 'middle'});
  const wide = widest().map((where, i) => ({...where, name: result.segments[i].category.name}));
  for (const {x, y, name} of wide.sort((one, other) => other.length - one.length)) {
    const w = context.measureText(name).width + size * 0.7;
    const left = Math.min(Math.max(0, x * width / result.width - w / 2), width - w);
    const top = [0, -1, 1].map((k) => Math.min(Math.max(0, y * height / result.height + (k - 0.5) * h), height - h))
      .find((t) => placed.every((p) => left >= p.left + p.w || p.left >= left + w || t >= p.top + h || p.top >= t + h));
    if (top === undefined || w > width) continue;
    placed.push({name, left, top, w, h});
    Object.assign(context, {fillStyle: 'rgb(0 0 0 / 0.7)'}).fillRect(left, top, w, h);
    Object.assign(context, {fillStyle: 'white'}).fillText(name, left + size * 0.35, top + h / 2);
  }
  element('view').dataset.names = JSON.stringify(placed);
}

function highlight(chosen) {
  const canvas = element('highlight'), image = new ImageData(canvas.width, canvas.height);
  if (chosen >= 0) result.shown.forEach((here, at) => { image.data[4 * at + 3] = here === chosen ? 0 : 150; });
  canvas.getContext('2d').putImageData(image, 0, 0);
}

const said = ({score, ranking}) => score.toFixed(2) + (ranking === null ? '' : `, ranking score ${ranking.toFixed(2)}`);
function showSegments() {
  element('segments').replaceChildren(...result.segments.map((one, i) => {
    const button = make('button'), swatch = make('i');
    swatch.style.background = `rgb(${one.color})`;
    button.append(swatch, make('b', {textContent: one.category.name}), make('span', {textContent: said(one)}));
    for (const event of ['focus', 'pointerenter', 'click']) button.addEventListener(event, () => highlight(i));
    for (const event of ['blur', 'pointerleave']) button.addEventListener(event, () => highlight(-1));
    return button;
  }));
  element('segments_title').textContent = `Segments: ${result.segments.length}`;
  const steps = Object.entries(times).map(([name, ms]) => `${name} ${ms.toFixed(ms < 10 ? 1 : 0)}`);
  element('times').textContent = `Milliseconds: ${steps.join(', ')}.`;
  for (const id of ['save_picture', 'save_png', 'save_json']) element(id).disabled = false;
  say(`${picture.name}: ${picture.pixels.width} × ${picture.pixels.height}, ${result.segments.length} segments.`);
}

function point(event) {
  const view = element('view'), tip = element('tip'), box = view.getBoundingClientRect();
  const [x, y] = [event.clientX - box.left, event.clientY - box.top].map((p) => Math.floor(p * view.width / box.width));
  const chosen = result.shown[y * view.width + x] ?? -1, one = result.segments[chosen];
  highlight(chosen);
  tip.hidden = !one;
  if (!one) return;
  tip.textContent = `${one.category.name}: ${one.instance ? 'detection score' : 'mean probability'} ${said(one)}`;
  const stage = element('stage').getBoundingClientRect();
  tip.style.left = `${Math.max(0, Math.min(event.clientX - stage.left + 12, stage.width - tip.offsetWidth))}px`;
  tip.style.top = `${Math.max(0, Math.min(event.clientY - stage.top + 16, stage.height - tip.offsetHeight))}px`;
}

// ---------- what is saved
function save(blob, name) {
  const link = make('a', {href: URL.createObjectURL(blob), download: name});
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

const savePng = (canvas, name) => canvas.toBlob((blob) => save(blob, name), 'image/png');
// COCO's panoptic format: the ids of segments as R + 256 G, and what each of them is.
function coco() {
  const {width, height} = picture.pixels, file_name = `${picture.name}_segments.png`;
  const canvas = make('canvas', {width, height}), image = new ImageData(width, height);
  const found = result.segments.map(({category, score, ranking}, i) => ({
    id: i + 1, category_id: category.id, area: 0, bbox: [width, height, 0, 0], iscrowd: 0, score,
    ...(ranking === null ? {} : {ranking_score: ranking}),
  }));
  indexAt(width, height).forEach((here, at) => {
    image.data.set([(here + 1) & 255, (here + 1) >> 8, 0, 255], 4 * at);
    if (here < 0) return;
    const x = at % width, y = Math.floor(at / width), one = found[here], [left, top, right, bottom] = one.bbox;
    one.area += 1;
    one.bbox = [Math.min(left, x), Math.min(top, y), Math.max(right, x + 1), Math.max(bottom, y + 1)];
  });
  canvas.getContext('2d').putImageData(image, 0, 0);
  for (const one of found) one.bbox = one.bbox.map((side, k) => (k < 2 ? side : side - one.bbox[k - 2]));
  const images = [{id: 1, file_name: picture.name, width, height}];
  const annotations = [{image_id: 1, file_name, segments_info: found.filter((one) => one.area > 0)}];
  return {canvas, file_name, json: {images, annotations, categories: about.categories}};
}

// ---------- what the user does
let isMergeDue = false;
const showThreshold = () => { element('threshold_value').textContent = Number(element('threshold').value).toFixed(2); };
function mergeSoon() {
  showThreshold();
  if (isMergeDue) return;
  isMergeDue = true;
  inTurn(() => { isMergeDue = false; return merge(); });
}

const stopCamera = () => { element('video')?.remove(); element('camera').textContent = 'Start the camera'; };
async function runCamera() {
  if (element('video')) return stopCamera();
  complain('');
  const stream = await navigator.mediaDevices.getUserMedia({video: {facingMode: 'environment'}}).catch((error) => {
    throw new Error(`The camera cannot be used: ${error.message}`);
  });
  const video = make('video', {id: 'video', srcObject: stream, muted: true, playsInline: true, hidden: true});
  document.body.append(video);
  element('camera').textContent = 'Stop the camera';
  await video.play();
  while (video.isConnected) {
    const pixels = onWhite(video, video.videoWidth, video.videoHeight);
    await inTurn(() => segment({name: 'camera', pixels}));
  }
  stream.getTracks().forEach((track) => track.stop());
}

function take(files) {
  stopCamera();
  const [file] = files;
  inTurn(async () => {
    if (!merger || !file) throw new Error(file ? 'There is no network to use' : 'That was no picture');
    complain('');
    say(`Reading ${file.name} …`);
    const pixels = await timed('read', () => decode(file, file.name));
    await segment({name: file.name.replace(/\.[^.]*$/, ''), pixels});
  });
}

element('file').onchange = ({target}) => { if (target.files.length) take(target.files); target.value = ''; };
document.onpaste = (event) => take(event.clipboardData.files);
document.ondragover = (event) => { event.preventDefault(); document.body.classList.add('dropping'); };
document.ondragleave = () => document.body.classList.remove('dropping');
document.ondrop = (event) => { event.preventDefault(); document.ondragleave(); take(event.dataTransfer.files); };
element('camera').onclick = () => runCamera().catch((error) => complain(error.message));
element('orders').onchange = mergeSoon;
element('threshold').oninput = mergeSoon;
element('accelerator').onchange = () => inTurn(async () => { await compile(); if (picture) await segment(picture); });
element('view').onpointermove = element('view').onpointerdown = point;
element('view').onpointerleave = () => { highlight(-1); element('tip').hidden = true; };
element('save_picture').onclick = () => savePng(element('view'), `${picture.name}_overlay.png`);
element('save_png').onclick = () => { const {canvas, file_name} = coco(); savePng(canvas, file_name); };
element('save_json').onclick = () => save(new Blob([JSON.stringify(coco().json)]), `${picture.name}.json`);
for (const button of document.getElementsByClassName('example')) {
  const name = button.firstElementChild.getAttribute('src');
  button.onclick = async () => take([new File([await (await fetch(name)).blob()], name)]);
}
inTurn(start);
