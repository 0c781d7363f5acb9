// Questions to a model that reads: put with the token, answered line by line.

import { ask, TOKEN } from "./live.js";

/** Which models and saved states there are. */
export const about = () => ask("/api/read");

/** Put a question; `hear` gets each line but the last one, which is returned. A signal stops it where it is. */
export async function put(question, hear = () => {}, signal = undefined) {
  const headers = { Authorization: `Bearer ${TOKEN}`, "Content-Type": "application/json" };
  const answer = await fetch("/api/read", { method: "POST", headers, body: JSON.stringify(question), signal });
  let last = null;
  for await (const told of lines(answer.body)) {
    if (told.error !== undefined) throw new Error(told.error);
    if (told.done === undefined) hear(told);
    else last = told;
  }
  if (!last) throw new Error("the answer has broken off");
  return last;
}

/** The lines of a stream of JSON. */
async function* lines(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    const parts = (rest + value).split("\n");
    rest = parts.pop();
    for (const part of parts) yield JSON.parse(part);
  }
  if (rest) yield JSON.parse(rest);
}

/** What was read here: text with its surprise, and how far each memory moved in each piece. */
export function createRecord() {
  const units = []; // {text, loss, at}: `at` counts the tokens up to its end
  const pieces = []; // {from, at, moved}
  let here = 0;
  return {
    units,
    pieces,
    take({ words, moved, here: at }) {
      let end = units.at(-1)?.at ?? 0;
      for (const [text, loss, count] of words) units.push({ text, loss, at: (end += count) });
      pieces.push({ from: here, at, moved });
      here = at;
    },
    /** Tokens were taken away: those that stay are so many. */
    cut(count) {
      while (units.length && units.at(-1).at > count) units.pop();
      while (pieces.length && pieces.at(-1).from >= count) pieces.pop();
      if (pieces.length) pieces.at(-1).at = Math.min(pieces.at(-1).at, count);
      here = count;
    },
    /** How far a memory moved when it last did; undefined if it never did. */
    last(name) {
      return pieces.findLast(({ moved }) => moved[name] !== 0)?.moved[name];
    },
    /** How far a memory moved, as columns: the farthest of the pieces in each. */
    moves(name, columns) {
      const found = new Float64Array(columns);
      for (const { from, at, moved } of pieces) {
        const [first, last] = [from, at].map((x) => (x / Math.max(1, here)) * columns);
        for (let j = Math.floor(first); j < Math.min(columns, Math.ceil(last)); j++)
          found[j] = Math.max(found[j], moved[name] ?? 0);
      }
      return found;
    },
  };
}
