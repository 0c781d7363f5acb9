"""Memories on disk: whole, of the right model, and exactly what was saved."""

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from sequences import leaves

from nestlearn.models import MODELS, LanguageModel, StateFileError, load_state, save_state


def model(name: str = "hope", seed: int = 0, **options) -> LanguageModel:
    torch.manual_seed(seed)
    options |= {"periods": (4, 8)} if name.startswith("hope") else {}
    return MODELS[name](17, 16, 1, 2, **options)


def text(time: int, batch: int = 2) -> torch.Tensor:
    return torch.randint(17, (batch, time), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("time", [0, 5, 8])
def test_a_saved_state_goes_on_as_if_nothing_had_happened(name, time, tmp_path):
    options = {"feed_forward": {"objective": "next_token"}} if name == "hope_attention" else {}
    made = model(name, **options)
    state = made(text(time), return_state=True)[1] if time else made.initial_state(2)
    save_state(state, tmp_path / "memory.safetensors", made)
    again = load_state(tmp_path / "memory.safetensors", made, batch_size=2)
    assert dict(leaves(state)).keys() == dict(leaves(again)).keys()
    # What is saved is the same to the bit; tensors laid out otherwise in memory may be added up in another order.
    assert all(torch.equal(tensor, dict(leaves(again))[name]) for name, tensor in leaves(state))
    torch.testing.assert_close(made(text(7), again, True), made(text(7), state, True), rtol=1e-4, atol=1e-5)
    assert [file.name for file in tmp_path.iterdir()] == ["memory.safetensors"]


def test_a_state_of_another_model_batch_or_kind_is_an_error(tmp_path):
    made, path = model(), tmp_path / "memory.safetensors"
    save_state(made(text(5), return_state=True)[1], path, made)
    with pytest.raises(StateFileError, match=r'another architecture: .*\[1\]\[0\]: expected "swiglu", got "continuum"'):
        load_state(path, model("titans"))
    with pytest.raises(StateFileError, match=r"periods\[1\]: expected 16, got 8"):
        load_state(path, MODELS["hope"](17, 16, 1, 2, periods=(4, 16)))
    with pytest.raises(StateFileError, match=r"other weights.*other_weights=True"):
        load_state(path, model(seed=1))
    assert load_state(path, model(seed=1), other_weights=True)["parts"].keys() == {"0", "1"}
    with pytest.raises(StateFileError, match=r"the state of 3 sequences .* got \[2\]"):
        load_state(path, made, batch_size=3)
    save_file({"x": torch.zeros(2)}, path)
    with pytest.raises(StateFileError, match="is not a state: expected the format 'nestlearn state 1', got None"):
        load_state(path, made)
    path.write_bytes(b"nothing")
    with pytest.raises(StateFileError, match="cannot read the state"):
        load_state(path, made)
    with pytest.raises(StateFileError, match="cannot read the state"):
        load_state(tmp_path / "none", made)


def test_a_file_has_plain_names_and_a_write_that_fails_leaves_the_old_one(tmp_path, monkeypatch):
    made, path = model("gated_delta_net"), tmp_path / "memory.safetensors"
    save_state(made(text(5), return_state=True)[1], path, made)
    with safe_open(path, "pt") as file:
        assert "parts.0.memory.model.weight" in file.keys()  # noqa: SIM118 - it is no mapping
    before = path.read_bytes()
    monkeypatch.setattr("os.replace", lambda *paths: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        save_state(made(text(9), return_state=True)[1], path, made)
    assert path.read_bytes() == before


def test_without_the_library_there_is_the_line_that_installs_it(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "safetensors", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "nestlearn\[cli\]"'):
        save_state({}, tmp_path / "x", model())
