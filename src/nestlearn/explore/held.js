// Where there is no server: the data lie in the page, or come from around the frame that it is in. It stands for live.js.

let data = JSON.parse(document.getElementById("held").textContent) ?? { runs: [], notes: [] };
let put = () => {};

if (parent !== window)
  addEventListener("message", ({ source, data: told }) => {
    if (source === parent && told?.held) put(told.held);
  });

/** What a server would answer, in the words of docs/explore.md. */
export async function ask(path) {
  const [, id, what = "", query] = /^\/api\/runs(?:\/([^/?]+))?([^?]*)(?:\?(.*))?$/.exec(path) ?? [];
  if (path === "/api/runs") return data;
  const run = data.runs.find((each) => each.id === id);
  if (!run) throw new Error("there is no such run");
  if (what === "/series") return run.series;
  if (what === "/systems") return { systems: run.systems };
  if (what === "/score") return between(run.score, new URLSearchParams(query));
  const step = /^\/steps\/(\d+)$/.exec(what)?.[1];
  if (step !== undefined && run.steps[step]) return run.steps[step];
  throw new Error("a page without a server does not know that");
}

/** Those columns of a level score that lie between two steps. */
function between({ steps, lanes }, query) {
  const [from, to] = [Number(query.get("from") ?? 0), Number(query.get("to") ?? Infinity)];
  const inside = (_, j) => steps[j] >= from && steps[j] <= to;
  const cut = (lane) => ({ ...lane, low: lane.low.filter(inside), high: lane.high.filter(inside) });
  return { steps: steps.filter(inside), lanes: lanes.map(cut) };
}

/** The same as of live.js; what is heard is there at once. */
export function connect(points, hear, say) {
  let watched = null;
  const told = () => {
    const run = data.runs.find((each) => each.id === watched);
    if (run) hear(storeOf(run));
  };
  put = (given) => {
    data = given;
    say("connected");
    told();
  };
  queueMicrotask(() => {
    say("connected");
    if (parent !== window) parent.postMessage({ ready: true }, "*");
  });
  return {
    watch(run) {
      watched = run;
      queueMicrotask(told);
    },
    drop() {},
  };
}

/** A run as live.js keeps it. */
function storeOf({ id, latest, status, frozen, series, score }) {
  const numbers = (given) => given.map((x) => x ?? NaN);
  const curve = ({ step, loss }) => ({ step, loss: numbers(loss) });
  return {
    run: id,
    generation: 1,
    latest,
    status,
    frozen,
    lanes: score.lanes,
    train: curve(series.train),
    validation: curve(series.validation),
    score: {
      step: score.steps,
      low: score.lanes.map((lane) => numbers(lane.low)),
      high: score.lanes.map((lane) => numbers(lane.high)),
    },
  };
}
