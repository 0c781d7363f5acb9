"""Every optimizer of ``torch.optim`` as data: its memories and the update of the weights, as expressions.

Each recipe says what torch computes, written as nested memories: a box with the l2 objective and rate a is the
exponential average M <- M - a (M - value), a box with the dot product is the sum M <- retention M + value (O2, O7).
With rate 1 an l2 box takes the value itself, which may mention its old content. Conditions on settings are decided
when a real optimizer is described, so its description shows its own settings only.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["RECIPES", "SETTINGS", "Box", "Recipe"]


@dataclass(frozen=True)
class Box:
    """A memory of a recipe; expressions as in ``nestlearn.descriptions.language``.

    Attributes:
        name, symbol: in words, and in expressions.
        state: torch's name of it in ``optimizer.state[parameter]``.
        value: what it is shown.
        objective: "l2" for an average, "dot_product" for a sum.
        lr, retention: of its rule, gradient descent.
        holds: one value an "entry", "row" or "column" of the parameter, or one "number"; "history" for many copies.
        initial: its content before the first write.
        fresh: whether the rule reads it after its write.
        when: the condition on settings under which it exists.
        after: it is written after the weights and nobody reads it in training.
        copies: how many tensors like the parameter it holds; a setting.
    """

    name: str
    symbol: str
    state: str
    value: str = "u"
    objective: str = "l2"
    lr: str = "1"
    retention: str = "1"
    holds: str = "entry"
    initial: str = "0"
    fresh: bool = True
    when: str = ""
    after: bool = False
    copies: str = ""


@dataclass(frozen=True)
class Recipe:
    """How one optimizer of torch writes weights: W <- retention W - lr update.

    Attributes:
        update, lr, retention: of the weights.
        boxes: the memories that the update consults, in the order of their writes.
        where: definitions that the expressions use.
        scalars: state of one number that depends on the step count alone.
        vectors: the recipe of parameters with fewer than two dimensions, where it differs.
        note: what the expressions do not say.
        executable: whether they say everything.
        joint: whether the state of all parameters lies with the first of them.
    """

    update: str
    boxes: tuple[Box, ...] = ()
    lr: str = "lr"
    retention: str = "1"
    where: Mapping[str, str] = field(default_factory=dict)
    scalars: tuple[str, ...] = ("step",)
    vectors: "Recipe | None" = None
    note: str = ""
    executable: bool = True
    joint: bool = False


SIGN = "-g if maximize else g"
COUPLED = f"({SIGN}) + (weight_decay * W if weight_decay else 0)"
MAYBE_COUPLED = f"({SIGN}) + (weight_decay * W if weight_decay and not decoupled_weight_decay else 0)"
MAYBE_DECOUPLED = "1 - lr * weight_decay if weight_decay and decoupled_weight_decay else 1"
CORRECTED = {"m_hat": "m / (1 - beta1^t)", "v_hat": "v / (1 - beta2^t)"}

M = Box("momentum", "m", "exp_avg", lr="1 - beta1")
V = Box("second_moment", "v", "exp_avg_sq", "u^2", lr="1 - beta2")

ADAM = Recipe(
    update="m_hat / (sqrt(v_hat) + eps)",
    boxes=(M, V, Box("largest_second_moment", "v_max", "max_exp_avg_sq", "max(v_max, v)", when="amsgrad")),
    retention=MAYBE_DECOUPLED,
    where={
        "u": MAYBE_COUPLED,
        "m_hat": CORRECTED["m_hat"],
        "v_hat": "(v_max if amsgrad else v) / (1 - beta2^t)",
    },
)

SGD = Recipe(
    update="u if momentum == 0 else (u + momentum * M if nesterov else M)",
    boxes=(
        Box(
            "momentum",
            "M",
            "momentum_buffer",
            "u if dampening == 0 else (u if t == 1 else (1 - dampening) * u)",
            "dot_product",
            retention="momentum",
            when="momentum != 0",
        ),
    ),
    where={"u": COUPLED},
    scalars=(),
)

RMSPROP = Recipe(
    update="M if momentum > 0 else scaled",
    boxes=(
        Box("second_moment", "v", "square_avg", "u^2", lr="1 - alpha"),
        Box("average_gradient", "a", "grad_avg", lr="1 - alpha", when="centered"),
        Box("momentum", "M", "momentum_buffer", "scaled", "dot_product", retention="momentum", when="momentum > 0"),
    ),
    where={"u": COUPLED, "scaled": "u / (sqrt(v - a^2 if centered else v) + eps)"},
)

NADAM = Recipe(
    update="((1 - mu) / (1 - p) * u + mu_next / (1 - p * mu_next) * m) / (sqrt(v_hat) + eps)",
    boxes=(Box("momentum_product", "p", "mu_product", "p * mu", holds="number", initial="1"), M, V),
    retention=MAYBE_DECOUPLED,
    where={
        "u": MAYBE_COUPLED,
        "mu": "beta1 * (1 - 0.5 * 0.96^(t * momentum_decay))",
        "mu_next": "beta1 * (1 - 0.5 * 0.96^((t + 1) * momentum_decay))",
        "v_hat": CORRECTED["v_hat"],
    },
    note="the momentum product p follows the step count alone, but is kept as state",
)

RADAM = Recipe(
    update="m_hat * rect * sqrt(1 - beta2^t) / (sqrt(v) + eps) if rho > 5 else m_hat",
    boxes=(M, V),
    retention=MAYBE_DECOUPLED,
    where={
        "u": MAYBE_COUPLED,
        "m_hat": CORRECTED["m_hat"],
        "rho_end": "2 / (1 - beta2) - 1",
        "rho": "rho_end - 2 * t * beta2^t / (1 - beta2^t)",
        "rect": "sqrt((rho - 4) * (rho - 2) * rho_end / ((rho_end - 4) * (rho_end - 2) * rho))",
    },
)

ADAGRAD = Recipe(
    update="u / (sqrt(G) + eps)",
    boxes=(Box("sum_of_squares", "G", "sum", "u^2", "dot_product", initial="initial_accumulator_value"),),
    lr="lr / (1 + (t - 1) * lr_decay) if lr_decay else lr",
    where={"u": COUPLED},
)

ADADELTA = Recipe(
    update="move",
    boxes=(
        Box("second_moment", "v", "square_avg", "u^2", lr="1 - rho"),
        Box("moves", "d", "acc_delta", "move^2", lr="1 - rho", fresh=False),
    ),
    where={"u": COUPLED, "move": "sqrt(d + eps) / sqrt(v + eps) * u"},
)

ADAMAX = Recipe(
    update="m_hat / n",
    boxes=(M, Box("largest_gradient", "n", "exp_inf", "max(beta2 * n, abs(u) + eps)")),
    where={"u": COUPLED, "m_hat": CORRECTED["m_hat"]},
)

ASGD = Recipe(
    update="u",
    boxes=(Box("average_weights", "a", "ax", "W", lr="mu", after=True),),
    lr="eta",
    retention="1 - lambd * eta",
    where={
        "u": COUPLED,
        "eta": "lr / (1 + lambd * lr * (t - 1))^alpha",
        "mu": "1 / max(1, t - 1 - t0)",
    },
    scalars=("step", "eta", "mu"),
    note="nobody reads the averaged weights in training: they are the result",
)

RPROP = Recipe(
    update="sign(kept) * s",
    boxes=(
        Box("previous_gradient", "p", "prev", "kept", fresh=False),
        Box("step_sizes", "s", "step_size", "clip(s * turn, step_min, step_max)", initial="lr"),
    ),
    lr="1",
    where={
        "u": SIGN,
        "turn": "where(u * p > 0, eta_plus, where(u * p < 0, eta_minus, 1))",
        "kept": "where(u * p < 0, 0, u)",
    },
)

MUON = Recipe(
    update="scale * newton_schulz(ahead, ns_steps, ns_a, ns_b, ns_c, eps)",
    boxes=(Box("momentum", "M", "momentum_buffer", lr="1 - momentum"),),
    retention="1 - lr * weight_decay if weight_decay else 1",
    where={
        "u": "g",
        "ahead": "u + momentum * (M - u) if nesterov else M",
        "scale": "0.2 * sqrt(max(rows(W), columns(W))) if adjust_lr_fn == 'match_rms_adamw' "
        "else sqrt(max(1, rows(W) / columns(W)))",
    },
    scalars=(),
)

_ADAFACTOR = {"u": SIGN, "floor": "precision(W) if eps1 is None else eps1"}
ADAFACTOR = Recipe(
    update="raw / max(1, rms(raw) / d)",
    boxes=(
        Box("row_second_moment", "r", "row_var", "row_means(u^2)", lr="t^beta2_decay", holds="row"),
        Box("column_second_moment", "c", "col_var", "column_means(u^2)", lr="t^beta2_decay", holds="column"),
    ),
    lr="max(eps2, rms(W)) * min(lr, 1 / sqrt(t))",
    retention="1 - lr * weight_decay if weight_decay else 1",
    where={**_ADAFACTOR, "v": "r * c / max(column_means(r), floor)", "raw": "u / sqrt(max(v, floor^2))"},
    vectors=Recipe(
        update="raw / max(1, rms(raw) / d)",
        boxes=(Box("second_moment", "v", "variance", "u^2", lr="t^beta2_decay"),),
        lr="max(eps2, rms(W)) * min(lr, 1 / sqrt(t))",
        retention="1 - lr * weight_decay if weight_decay else 1",
        where={**_ADAFACTOR, "raw": "u / sqrt(max(v, floor^2))"},
    ),
)

SPARSE_ADAM = Recipe(
    update="present * sqrt(1 - beta2^t) / (1 - beta1^t) * m / (sqrt(v) + eps)",
    boxes=(
        Box("momentum", "m", "exp_avg", lr="present * (1 - beta1)"),
        Box("second_moment", "v", "exp_avg_sq", "u^2", lr="present * (1 - beta2)"),
    ),
    where={"u": SIGN},
    scalars=(),
    note="only entries that the sparse gradient has are written",
)

LBFGS = Recipe(
    update="two-loop recursion over the pairs",
    boxes=(
        Box("gradient_changes", "y", "old_dirs", "u - p", holds="history", copies="history_size"),
        Box("moves", "s", "old_stps", "the latest move", holds="history", copies="history_size"),
        Box("previous_gradient", "p", "prev_flat_grad"),
        Box("direction", "d", "d", "update"),
    ),
    where={"u": "g"},
    scalars=(),
    note="before the first step, bytes are those of a full history; a step writes up to max_iter times; the recursion "
    "is an algorithm and no expression, so it cannot be rebuilt from this description",
    executable=False,
    joint=True,
)

RECIPES: Mapping[str, Recipe] = {
    "ASGD": ASGD,
    "Adadelta": ADADELTA,
    "Adafactor": ADAFACTOR,
    "Adagrad": ADAGRAD,
    "Adam": ADAM,
    "AdamW": ADAM,
    "Adamax": ADAMAX,
    "LBFGS": LBFGS,
    "Muon": MUON,
    "NAdam": NADAM,
    "RAdam": RADAM,
    "RMSprop": RMSPROP,
    "Rprop": RPROP,
    "SGD": SGD,
    "SparseAdam": SPARSE_ADAM,
}
"""Recipes by the name of the class in ``torch.optim``."""

SETTINGS: Mapping[str, tuple[str, ...]] = {
    "betas": ("beta1", "beta2"),
    "etas": ("eta_minus", "eta_plus"),
    "step_sizes": ("step_min", "step_max"),
    "ns_coefficients": ("ns_a", "ns_b", "ns_c"),
    "eps": ("eps1", "eps2"),
}
"""What the parts of settings that are tuples are called in expressions."""
