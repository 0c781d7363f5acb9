"""Learning without labels and without an optimizer: what was read is predicted better, and kept on disk."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from nestlearn.models import MODELS, LanguageModel, load_state, save_state

SPEECH = """Four score and seven years ago our fathers brought forth, upon this continent, a new nation, conceived in
liberty, and dedicated to the proposition that all men are created equal. Now we are engaged in a great civil war,
testing whether that nation, or any nation so conceived, and so dedicated, can long endure."""
POEM = """The boy stood on the burning deck whence all but he had fled; the flame that lit the battle's wreck shone
round him o'er the dead. Yet beautiful and bright he stood, as born to rule the storm; a creature of heroic blood, a
proud, though child-like form. The flames rolled on, he would not go without his father's word."""


def read(model: LanguageModel, tokens: Tensor, state: dict | None = None) -> tuple[float, dict]:
    """Cross-entropy of every token but the first, and the state after the last."""
    with torch.no_grad():
        logits, state = model(tokens, state, return_state=True)
    return float(F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())), state


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hope", "hope_attention"])
@pytest.mark.parametrize("variant", ["sequential", "nested", "headwise"])
def test_the_second_reading_of_a_text_is_easier_also_after_a_restart(name, variant, tmp_path):
    """Fresh weights that learn from the next token; more is learned of this text than any English text would teach."""

    def made() -> LanguageModel:
        torch.manual_seed(0)
        learns = {"objective": "next_token", "variant": variant, "periods": (8, 32), "hidden": 64}
        return MODELS[name](256, 32, 1, 2, feed_forward=learns)

    speech, poem = (torch.tensor([list(passage.encode())[:280]]) for passage in (SPEECH, POEM))
    model = made()
    first, state = read(model, speech)
    second, after = read(model, speech, state)
    other, _ = read(model, speech, read(model, poem)[1])
    assert second < first - 0.2
    assert second < other - 0.05
    save_state(state, tmp_path / "memory.safetensors", model)
    again = made()
    restarted, later = read(again, speech, load_state(tmp_path / "memory.safetensors", again, batch_size=1))
    assert restarted == pytest.approx(second, rel=1e-4)
    torch.testing.assert_close(later, after, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "steps", "options"),
    [
        ("gated_delta_net", 200, {}),
        ("hope", 90, {"chunk": 8, "periods": (8, 16)}),
    ],
)
def test_briefly_trained_memories_know_a_new_text_when_it_comes_again(name, steps, options, tmp_path):
    """Trained on random passages that come twice; a passage never seen, nor any other help, but what was read."""
    torch.manual_seed(0)
    model = MODELS[name](17, 32, 2, 2, **options)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.0)
    for _ in range(steps):
        tokens = torch.randint(17, (32, 16)).repeat(1, 2)
        logits = model(tokens[:, :-1])[:, 15:]
        optimizer.zero_grad()
        F.cross_entropy(logits.flatten(0, 1), tokens[:, 16:].flatten()).backward()
        optimizer.step()
    mine, others = torch.randint(17, (2, 32, 16))
    chance = 2.83  # log 17
    assert read(model, mine)[0] > 0.95 * chance
    _, state = read(model, mine)
    save_state(state, tmp_path / "memory.safetensors", model)
    assert read(model, mine, load_state(tmp_path / "memory.safetensors", model))[0] < 0.8 * chance
    assert read(model, mine, read(model, others)[1])[0] > 0.95 * chance
