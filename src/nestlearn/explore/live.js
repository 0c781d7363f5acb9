// The line to the server: asks with the token, hears frames while a run trains, and comes back when it was dropped.

export const TOKEN = location.hash.slice(1) || sessionStorage.getItem("token") || "";
if (TOKEN) sessionStorage.setItem("token", TOKEN);
const WAITS = [250, 500, 1000, 2000];
const CURVES = ["train", "validation"];

/** Data of the server as JSON; an error says what the server said. */
export async function ask(path) {
  const answer = await fetch(path, { headers: { Authorization: `Bearer ${TOKEN}` } });
  const told = await answer.json();
  if (!answer.ok) throw new Error(told.error);
  return told;
}

/** Frames of one run after the other: `hear` gets the run's store, `say` what became of the line. */
export function connect(points, hear, say) {
  let socket = null;
  let store = null;
  let failures = 0;

  function open() {
    socket = new WebSocket(`ws://${location.host}/api/live`, ["nestlearn", TOKEN]);
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      failures = 0;
      say("connected");
      if (store) subscribe();
    };
    socket.onmessage = ({ data }) => {
      const [head, blocks] = unpack(data);
      if (!store || head.run !== store.run) return; // of the run that was watched before
      take(store, head, blocks, points);
      hear(store);
    };
    socket.onclose = () => {
      say("lost");
      setTimeout(open, WAITS[Math.min(failures++, WAITS.length - 1)]);
    };
  }

  function subscribe() {
    const last = (steps) => steps.at(-1) ?? -1;
    const known = {
      generation: store.generation,
      train: last(store.train.step),
      validation: last(store.validation.step),
      score: last(store.score.step),
    };
    socket.send(JSON.stringify({ run: store.run, points, known }));
  }

  function watch(run) {
    store = empty(run);
    if (socket.readyState === WebSocket.OPEN) subscribe();
  }

  open();
  return { watch, drop: () => socket.close() };
}

/** What is known of a run before anything was heard. */
export function empty(run) {
  const curve = () => ({ step: [], loss: [] });
  return {
    run,
    generation: 0,
    latest: 0,
    status: "open",
    frozen: [],
    lanes: [],
    train: curve(),
    validation: curve(),
    score: { step: [], low: [], high: [] },
  };
}

/** The head of a frame, and its blocks by name. */
export function unpack(data) {
  const bytes = new Uint8Array(data);
  const end = bytes.indexOf(10);
  const head = JSON.parse(new TextDecoder().decode(bytes.subarray(0, end)));
  const blocks = {};
  let at = end + 1;
  for (const [name, kind, length] of head.blocks) {
    const Kind = kind === "f8" ? Float64Array : Float32Array;
    blocks[name] = new Kind(data, at, length);
    at += Math.ceil((length * Kind.BYTES_PER_ELEMENT) / 8) * 8;
  }
  return [head, blocks];
}

/** Put a frame into the store. */
export function take(store, head, blocks, points) {
  if (head.kind === "whole") Object.assign(store, empty(store.run));
  const { generation, latest, status, frozen } = head;
  Object.assign(store, { generation, latest, status, frozen });
  if (head.lanes) store.lanes = head.lanes;
  for (const name of CURVES) {
    if (!blocks[`${name}.step`]) continue;
    const curve = store[name];
    for (const what of ["step", "loss"]) for (const x of blocks[`${name}.${what}`]) curve[what].push(x);
    if (curve.step.length > 2 * points) store[name] = halvedCurve(curve);
  }
  if (blocks["score.step"]) append(store, blocks, points);
}

function append(store, blocks, points) {
  const { score, lanes } = store;
  const columns = blocks["score.step"].length;
  while (score.low.length < lanes.length) {
    score.low.push(new Array(score.step.length).fill(NaN));
    score.high.push(new Array(score.step.length).fill(NaN));
  }
  for (const x of blocks["score.step"]) score.step.push(x);
  for (const side of ["low", "high"])
    score[side].forEach((lane, i) => {
      for (let j = 0; j < columns; j++) lane.push(blocks[`score.${side}`][i * columns + j]);
    });
  if (score.step.length <= 2 * points) return;
  // Neighbours become one box: no peak is lost.
  score.step = score.step.filter((_, j) => j % 2 === 1 || j === score.step.length - 1);
  score.low = score.low.map((lane) => pairs(lane, (a, b) => (a <= b || b !== b ? a : b)));
  score.high = score.high.map((lane) => pairs(lane, (a, b) => (a >= b || b !== b ? a : b)));
}

function pairs(lane, of) {
  const made = [];
  for (let j = 0; j < lane.length; j += 2) made.push(j + 1 < lane.length ? of(lane[j], lane[j + 1]) : lane[j]);
  return made;
}

/** Half of the points: of every four the lowest and the highest. */
function halvedCurve({ step, loss }) {
  const kept = [];
  for (let j = 0; j < step.length; j += 4) {
    const some = [j, j + 1, j + 2, j + 3].filter((k) => k < step.length);
    const by = (sign) => some.reduce((a, b) => (sign * loss[b] > sign * loss[a] || loss[a] !== loss[a] ? b : a));
    kept.push(...new Set([by(-1), by(1)].sort((a, b) => a - b)));
  }
  return { step: kept.map((k) => step[k]), loss: kept.map((k) => loss[k]) };
}
