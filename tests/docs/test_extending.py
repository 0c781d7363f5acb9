"""docs/extending.md: each extension is short, runs alone, and is what it says, by a truth from outside the library."""

import io

import pytest
import torch
from pages import blocks, section, text
from transforms import CONTRACT

import nestlearn as nl

PAGE = text("docs/extending.md")
EXTENSIONS = {
    "A memory": "Diagonal",
    "An objective": "LogCosh",
    "A rule": "Adagrad",
    "A target": "Centred",
    "An optimizer": "Lion",
    "A sequence layer": "RunningMean",
}
LIMIT = 30


def extension(title: str) -> type:
    """The class that the first block of a section makes when it is run alone, as a reader would paste it."""
    source = blocks(section(PAGE, title), "python")[0]
    namespace: dict[str, object] = {"__name__": "extending"}
    exec(compile(source, f"extending.md, {title}", "exec"), namespace)
    return namespace[EXTENSIONS[title]]


def lines(source: str) -> int:
    return sum(bool(line.strip()) for line in source.splitlines())


@pytest.mark.parametrize("title", EXTENSIONS)
def test_an_extension_is_short_and_uses_public_names_only(title):
    source = blocks(section(PAGE, title), "python")[0]
    assert lines(source) < LIMIT
    assert not [name for name in source.replace("(", " ").replace(".", " ").split() if name[:1] == "_" != name[1:2]]
    assert extension(title).__doc__


# ------------------------------------------------------------------------------------------------------------- memory


def test_the_memory_has_the_gradients_of_autograd():
    model = extension("A memory")(5)
    key, error = (torch.randn(2, 3, 5, dtype=torch.float64) for _ in range(2))
    key.requires_grad_()
    weight = torch.randn(2, 5, dtype=torch.float64, requires_grad=True)
    answer, trace = model.trace({"weight": weight}, key)
    by_weight, by_key = torch.autograd.grad((answer * error).sum(), (weight, key))
    assert torch.allclose(model.pullback({"weight": weight}, key, error, trace)["weight"], by_weight)
    assert torch.allclose(model.transpose({"weight": weight}, key, error), by_key)


def test_the_memory_finds_the_least_squares_gains():
    memory = nl.AssociativeMemory(extension("A memory")(3), nl.memory.l2, nl.memory.GradientDescent(lr=0.02))
    key, value = torch.randn(20, 3, dtype=torch.float64), torch.randn(20, 3, dtype=torch.float64)
    state = memory.init(dtype=torch.float64)
    for _ in range(300):
        state, _ = memory.write(state, key, value)
    exact = (key * value).sum(0) / key.square().sum(0)
    assert torch.allclose(state["model"]["weight"], exact, atol=1e-9)


# ---------------------------------------------------------------------------------------------------------- objective


def test_the_objective_has_the_error_of_autograd_and_bounded_pulls():
    objective = extension("An objective")()
    answer = torch.linspace(-30, 30, 121, dtype=torch.float64, requires_grad=True)
    loss = objective.loss(answer, torch.zeros(()))
    (slope,) = torch.autograd.grad(loss.sum(), answer)
    assert torch.allclose(objective.error(answer, torch.zeros(())), slope)
    assert torch.allclose(loss[60:].detach().expm1(), answer[60:].detach().cosh() - 1)
    assert slope.abs().max() <= 1


# --------------------------------------------------------------------------------------------------------------- rule


@pytest.mark.parametrize("shape", [(5,), (4, 3)])
def test_the_rule_serves_in_an_optimizer_too(shape):
    kind = extension("A rule")

    class Optimizer(nl.optim.Optimizer):
        def __init__(self, params, lr):
            super().__init__(params, lr, {})

        def matrix_rule(self, group):
            return kind()

        def element_rule(self, group):
            return kind()

    ours, theirs = (torch.nn.Parameter(torch.ones(shape, dtype=torch.float64)) for _ in range(2))
    optimizer, reference = Optimizer([ours], lr=0.1), torch.optim.Adagrad([theirs], lr=0.1)
    for _ in range(10):
        ours.grad = torch.randn(shape, dtype=torch.float64)
        theirs.grad = ours.grad.clone()
        optimizer.step()
        reference.step()
    assert torch.allclose(ours, theirs, rtol=1e-12)
    assert torch.allclose(optimizer.state[ours]["squares"], reference.state[theirs]["sum"])


def test_a_rule_that_hides_its_state_from_the_optimizer_is_an_error():
    class Optimizer(nl.optim.Optimizer):
        def element_rule(self, group):
            return nl.memory.LeastSquares()

        matrix_rule = element_rule

    weight = torch.nn.Parameter(torch.ones(3, 2))
    weight.grad = torch.ones(3, 2)
    with pytest.raises(TypeError, match="under the parameter's name"):
        Optimizer([weight], 0.1, {}).step()


# ------------------------------------------------------------------------------------------------------------- target


@pytest.mark.slow
def test_the_target_is_learned_by_a_deep_momentum():
    def surprise(inner_lr: float) -> float:
        """The mean over the last 30 writes, for columns that differ ten-fold in scale."""
        weight = torch.nn.Parameter(torch.zeros(12, 6))
        settings = {"target": extension("A target")(), "hidden": 16, "skip_retention": 0.0}
        optimizer = nl.optim.DeepMomentum([weight], lr=0.0, inner_lr=inner_lr, **settings)
        generator, found = torch.Generator().manual_seed(0), []
        for _ in range(200):
            weight.grad = torch.logspace(-1, 0, 6) * torch.randn(12, 6, generator=generator)
            optimizer.step()
            found.append(optimizer.surprise["momentum"].item())
        return sum(found[-30:]) / 30

    assert surprise(inner_lr=2.0) < 0.5 * surprise(inner_lr=0.0)


# ---------------------------------------------------------------------------------------------------------- optimizer


def problem() -> tuple[torch.nn.Module, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2)).double()
    return model, torch.randn(32, 6, dtype=torch.float64), torch.randn(32, 2, dtype=torch.float64)


def train(model, optimizer, inputs, labels, steps):
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(model(inputs), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_the_optimizer_is_lion_as_published():
    model, inputs, labels = problem()
    reference, *_ = problem()
    optimizer = extension("An optimizer")(model.parameters(), lr=0.01, betas=(0.8, 0.95), weight_decay=0.1)
    train(model, optimizer, inputs, labels, 15)
    momenta = [torch.zeros_like(p) for p in reference.parameters()]
    for _ in range(15):
        reference.zero_grad()
        torch.nn.functional.mse_loss(reference(inputs), labels).backward()
        with torch.no_grad():
            for p, m in zip(reference.parameters(), momenta, strict=True):
                p.mul_(1 - 0.01 * 0.1).sub_(0.01 * torch.sign(0.8 * m + 0.2 * p.grad))
                m.mul_(0.95).add_(0.05 * p.grad)
    for ours, theirs in zip(model.parameters(), reference.parameters(), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-10)


def test_the_optimizer_resumes_bit_for_bit_from_plain_tensors():
    kind = extension("An optimizer")
    model, inputs, labels = problem()
    optimizer = kind(model.parameters(), lr=0.01)
    losses = train(model, optimizer, inputs, labels, 20)
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    again, *_ = problem()
    resumed = kind(again.parameters(), lr=0.01)
    again.load_state_dict(saved["model"])
    resumed.load_state_dict(saved["optimizer"])
    assert train(again, resumed, inputs, labels, 10) == train(model, optimizer, inputs, labels, 10)
    assert losses[-1] < losses[0]


# ----------------------------------------------------------------------------------------------------- sequence layer


def test_the_layer_answers_with_weights_that_fade():
    layer = extension("A sequence layer")(3, rate=0.2)
    torch.nn.init.normal_(layer.start)
    x = torch.randn(2, 7, 3)
    y, state = layer(x, return_state=True)
    age = torch.arange(7.0)[:, None] - torch.arange(7.0)  # of token s when t is answered
    weight = torch.where(age > 0, 0.2 * 0.8 ** (age - 1), 0.0)
    started = 0.8 ** torch.arange(7.0)[:, None] * layer.start
    assert torch.allclose(y, weight @ x + started, atol=1e-6)
    first, middle = layer(x[:, :3], return_state=True)
    second, end = layer(x[:, 3:], state=middle, return_state=True)
    assert torch.equal(torch.cat([first, second], 1), y)
    assert torch.equal(end["model"]["value"], state["model"]["value"])


@pytest.mark.parametrize("check", CONTRACT)
def test_the_layer_stands_under_the_contract_of_ours(check):
    kind = extension("A sequence layer")

    def layer():
        made = kind(4).double()
        torch.nn.init.ones_(made.start)
        return made

    CONTRACT[check](layer)


def test_what_the_layer_says_is_told_until_a_subclass_does_otherwise():
    kind = extension("A sequence layer")

    class Slower(kind):
        def __init__(self, dim):
            super().__init__(dim, rate=0.01)

    class Other(kind):
        def advance(self, x, state):
            return super().advance(-x, state)

    assert [memory.lr for memory in nl.describe(Slower(4)).memories if memory.unit == "token"] == ["0.01"]
    system = nl.describe(Other(4))
    assert not system.known and "not known to us" in system.notes[0]
