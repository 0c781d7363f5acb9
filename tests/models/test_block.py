"""Blocks are modules with a forward, by which tools take a model apart."""

import copy

import torch
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.nn import functional as F

import nestlearn as nl
from nestlearn.models import MODELS, Block, LanguageModel, Stage


def small(name: str, **options) -> LanguageModel:
    torch.manual_seed(0)
    periods = {"periods": (4, 8)} if name.startswith("hope") else {}
    return MODELS[name](17, 16, 2, 2, **periods, **options).double()


def text(time: int = 21, batch: int = 2) -> torch.Tensor:
    return torch.randint(17, (batch, time), generator=torch.Generator().manual_seed(1))


def test_a_model_is_its_embedding_its_blocks_one_after_the_other_and_its_head():
    for name in MODELS:
        made, tokens = small(name), text()
        x, states = made.embedding(tokens), {}
        for block in made.blocks:
            x, after = block(x, return_state=True)
            states |= {str(len(states) + number): state for number, state in enumerate(after.values())}
        whole, state = made(tokens, return_state=True)
        torch.testing.assert_close(made.head(made.norm(x)), whole, rtol=0, atol=0)
        torch.testing.assert_close(states, state["parts"], rtol=0, atol=0)


def test_a_block_goes_on_from_its_state():
    block = Block(Stage(16, part) for part in [("memory", {"heads": 2}), ("continuum", {"periods": (4,)})]).double()
    x = torch.randn(2, 11, 16, dtype=torch.float64)
    whole, last = block(x, return_state=True)
    first, state = block(x[:, :5], return_state=True)
    second, state = block(x[:, 5:], state, True)
    torch.testing.assert_close(torch.cat([first, second], 1), whole, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(state, last, rtol=1e-10, atol=1e-12)
    assert sorted(last) == ["0", "1"] and [type(layer).__name__ for layer in block.layers] == [
        "MemoryLayer",
        "ContinuumMemory",
    ]


def test_names_of_weights_are_those_of_parts_in_lists():
    """Weights that were saved when a block was a plain list go into today's."""
    made = small("hope")
    assert "blocks.1.0.layer.qkv.weight" in made.state_dict() and "blocks.0.1.layer.blocks.0.inner" in made.state_dict()
    assert isinstance(made.blocks[0][0], Stage) and len(made.blocks[0][:1]) == 1


def test_a_model_without_its_first_block_is_the_shallower_model():
    made, shallow = small("gated_delta_net"), nl.models.gated_delta_net(17, 16, 1, 2).double()
    made.blocks = made.blocks[1:]
    shallow.load_state_dict(made.state_dict())
    torch.testing.assert_close(made(text()), shallow(text()), rtol=0, atol=0)
    _, state = made(text(), return_state=True)
    assert sorted(state["parts"]) == ["0", "1"]


def test_a_block_may_be_replaced_by_what_wraps_it():
    made, tokens = small("transformer"), text()
    wrapped = copy.deepcopy(made)
    wrapped.blocks = nn.ModuleList(checkpoint_wrapper(block) for block in wrapped.blocks)
    for each in (made, wrapped):
        F.cross_entropy(each(tokens)[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()).backward()
    slopes = [dict(sorted((name, p.grad) for name, p in each.named_parameters())) for each in (made, wrapped)]
    torch.testing.assert_close([*slopes[1].values()], [*slopes[0].values()], rtol=0, atol=0)
    assert wrapped.parts.keys() == made.parts.keys() and wrapped.generate(tokens, 3).shape == (2, 24)
    wrapped.load_state_dict(made.state_dict())
