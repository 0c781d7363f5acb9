// A picture of the page as a program for nestlearn: the same life, the same rule, the same control.

/** Python that draws `path` and `control` again, two lists with W before and after every step. */
export function python({ world, rule, off, rate, ghostRate, settings, steps }) {
  const links = [...new Set(rule.python.match(/[a-z_]+(?=\()/g))].sort();
  const controls = off.map((path) => `.without(${JSON.stringify(path)})`).join("");
  const number = (x) => (Number.isInteger(x) ? x.toFixed(1) : String(x));
  const rows = (W) => `[${W.map((row) => `[${row.map(number).join(", ")}]`).join(", ")}]`;
  return `import math
import random

import torch
from nestlearn import AssociativeMemory
from nestlearn.memory import Matrix, l2
from nestlearn.rules import ${links.join(", ")}, written

torch.set_default_dtype(torch.float64)

rule = ${rule.python}
best, start = torch.tensor(${rows(world.best)}), torch.tensor(${rows(settings.start)})
steepness, noise, seed = ${settings.steepness}, ${settings.noise}, ${settings.seed}


def pairs(life):
    """What W is shown in one step: keys, and noisy values."""
${world.python.map((line) => `    ${line}\n`).join("")}    keys = torch.tensor(keys)
    answers = (keys @ best.mT).tolist()
    return keys, torch.tensor([[answer + noise * life.gauss(0, 1) for answer in row] for row in answers])


def draw(held, numbers):
    """First weights of every MLP behind a rule, from numbers that are the same everywhere."""
    for name, value in held.items():
        if isinstance(value, dict):
            draw(value, numbers)
        elif name == "inner":
            held[name] = torch.tensor([[numbers.gauss(0, 1) for _ in row] for row in value])


def live(rule, lr):
    """Where W goes."""
    memory = AssociativeMemory(Matrix(2, ${world.best.length}), l2.averaged(), written(rule, lr=lr))
    state, life = memory.init(), random.Random(seed)
    draw(state["rule"], random.Random(seed + 1))
    state["model"]["weight"], path = start, [start]
    for time in range(${steps}):
        state, surprise = memory.write(state, *pairs(life), time=time)
        path.append(state["model"]["weight"])
    return path


path = live(rule, lr=${rate})
control = live(rule${controls}, lr=${ghostRate})
print(path[-1], control[-1])
`;
}
