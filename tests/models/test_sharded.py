"""FSDP2 on one process: every named model, sharded as a whole and block by block, is the plain model."""

import copy
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from nestlearn.models import MODELS, LanguageModel

pytestmark = [
    pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="ranks meet through gloo"),
    pytest.mark.filterwarnings("ignore:FSDP2-wrapped module .* returned a view tensor"),
]
PERIODS = {"periods": (4, 8)}
SHORT = {"hope": {"chunk": 4, **PERIODS}, "hope_attention": PERIODS, "titans": {"chunk": 4}}
CASES = {
    **{name: SHORT.get(name, {}) for name in MODELS},
    "titans of one memory": {"self_modifying": False, "chunk": 4},
    "hope, tied": {"tied": True, **SHORT["hope"]},
    "hope, next token": {"chunk": 4, "feed_forward": {"objective": "next_token", **PERIODS}},
    "hope, checkpointed": {"checkpointing": True, **SHORT["hope"]},
    "transformer, checkpointed": {"checkpointing": True},
}

QUICK = ("transformer", "titans of one memory")


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory):
    from torch.distributed.device_mesh import init_device_mesh

    meeting: Path = tmp_path_factory.mktemp("ranks") / "meeting"
    torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    torch.distributed.destroy_process_group()


def pair(case: str, mesh, by_block: bool) -> tuple[LanguageModel, LanguageModel]:
    """A model, and the same model sharded."""
    from torch.distributed.fsdp import fully_shard

    torch.manual_seed(0)
    plain = MODELS[case.split(",")[0].split()[0]](17, 16, 2, 2, **CASES[case]).double()
    sharded = copy.deepcopy(plain)
    for block in sharded.blocks if by_block else ():
        fully_shard(block, mesh=mesh)
    return plain, fully_shard(sharded, mesh=mesh)


@pytest.mark.parametrize("by_block", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=() if case in QUICK else pytest.mark.slow) for case in CASES]
)
def test_a_sharded_model_has_the_logits_and_slopes_of_the_plain_one(case, by_block, mesh):
    plain, sharded = pair(case, mesh, by_block)
    tokens = torch.randint(17, (2, 21), generator=torch.Generator().manual_seed(1))
    if by_block and case == "hope, next token":
        with pytest.raises(NotImplementedError, match=r"as a whole, fully_shard\(model\)"):
            sharded(tokens)
        return
    logits = [model(tokens[:, :-1]) for model in (plain, sharded)]
    torch.testing.assert_close(logits[1], logits[0], rtol=0, atol=0)
    for each in logits:
        F.cross_entropy(each.flatten(0, 1), tokens[:, 1:].flatten()).backward()
    for (name, weight), shard in zip(plain.named_parameters(), sharded.parameters(), strict=True):
        assert weight.grad.abs().max() > 0, name
        torch.testing.assert_close(shard.grad.full_tensor(), weight.grad, rtol=1e-12, atol=1e-14, msg=name)
    assert torch.equal(sharded.generate(tokens, 4), plain.generate(tokens, 4))
    # A state that is begun outside of a forward is whole too.
    torch.testing.assert_close(sharded(tokens, sharded.initial_state(2)), plain(tokens), rtol=0, atol=0)
