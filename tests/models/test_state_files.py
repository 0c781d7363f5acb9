"""Memories on disk: whole, of the right model, and exactly what was saved."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from sequences import leaves

from nestlearn.memory.state import flatten
from nestlearn.models import MODELS, LanguageModel, StateFileError, load_state, save_state, state_files
from nestlearn.models.tensor_files import state_sum


def model(name: str = "hope", seed: int = 0, **options) -> LanguageModel:
    torch.manual_seed(seed)
    options |= {"periods": (4, 8)} if name.startswith("hope") else {}
    return MODELS[name](17, 16, 1, 2, **options)


def text(time: int, batch: int = 2) -> torch.Tensor:
    return torch.randint(17, (batch, time), generator=torch.Generator().manual_seed(1))


def differs(one: dict, two: dict) -> bool:
    """Whether two states are not the same to the bit."""
    one, two = dict(leaves(one)), dict(leaves(two))
    return one.keys() != two.keys() or not all(torch.equal(tensor, two[name]) for name, tensor in one.items())


@pytest.mark.parametrize("name", ["hope", "transformer"])
def test_every_byte_counts(name, tmp_path):
    """A bit that is another, wherever it is, is an error, or (in the white space of the header) changes nothing."""
    made, path = model(name), tmp_path / "memory.safetensors"
    state = made(text(5), return_state=True)[1]
    save_state(state, path, made)
    data, found = path.read_bytes(), 0
    places = {*range(0, len(data), 97), *range(len(data) - 40, len(data)), *range(0, 400, 3)}
    for place in places:
        spoilt = bytearray(data)
        spoilt[place] ^= 1 << place % 8
        path.write_bytes(spoilt)
        try:
            assert not differs(load_state(path, made), state)
        except StateFileError as error:
            found += str(path) in str(error)
    assert found >= len(places) - 2


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda flat: flat["parts.0.held.matrix.weight"].fill_(float("nan")), "is not finite"),
        (lambda flat: flat["parts.0.time"].fill_(1 << 62), r"parts\.0\.time: expected 0 to"),
        (lambda flat: flat["parts.0.time"].fill_(-5), r"parts\.0\.time: expected 0 to"),
        (lambda flat: flat["parts.0.time"].add_(1), "not of one time"),
        (lambda flat: flat.pop("parts.1.time"), r"it lacks 'parts\.1\.time'"),
        (lambda flat: flat.update(a=torch.zeros(2), **{"a.b": torch.zeros(2)}), "nothing is called 'a'"),
        (lambda flat: flat.update({"parts.0.time": torch.zeros(2)}), r"expected \[\] of torch\.int64, got \[2\]"),
        (lambda flat: flat.update({"parts.0.convolution": torch.zeros(2, 3, 4)}), r"\[1, 3, 48\] for each sequence"),
    ],
)
def test_a_state_that_no_text_leaves_is_an_error_though_its_sum_is_right(act, words, tmp_path, monkeypatch):
    made, path = model(), tmp_path / "memory.safetensors"
    good = made(text(5), return_state=True)[1]
    save_state(good, path, made)
    flat = flatten(good, empty=torch.empty(0))
    flat = {name: tensor.clone() for name, tensor in flat.items()}
    act(flat)
    with pytest.raises(StateFileError, match=rf"the state is not written to .*: .*{words}"):
        save_state(flat, path, made)  # never a good one replaced by a bad one
    assert not differs(load_state(path, made), good)
    with monkeypatch.context() as patched:
        patched.setattr(state_files, "_check", lambda *given: None)
        save_state(flat, path, made)
    with pytest.raises(StateFileError, match=rf"holds what no state of this model is: .*{words}"):
        load_state(path, made)


def test_a_state_of_before_there_was_a_sum_is_still_read(tmp_path):
    made, path = model(), tmp_path / "memory.safetensors"
    state = made(text(5), return_state=True)[1]
    save_state(state, path, made)
    with safe_open(path, "pt") as file:
        metadata = file.metadata() | {"format": "nestlearn state 1"}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    del metadata["sha256"]
    save_file(tensors, path, metadata)
    assert not differs(load_state(path, made), state)


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


def test_whatever_a_file_says_of_itself_the_error_is_short(tmp_path):
    made, path = model(), tmp_path / "memory.safetensors"
    save_state(made(text(5), return_state=True)[1], path, made)
    with safe_open(path, "pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    long = {f"{number}{'x' * 300}": number for number in range(50)}
    for edit in (
        {"format": "x" * 9000},
        {"architecture": json.dumps({**made.config, **long})},
        {"weights": "x" * 9000},
    ):
        changed = {**metadata, **edit}
        del changed["sha256"]
        save_file(tensors, path, {**changed, "sha256": state_sum(tensors, changed)})
        with pytest.raises(StateFileError) as caught:
            load_state(path, made)
        assert len(str(caught.value)) < 2000


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
    with pytest.raises(StateFileError, match="is not a state: expected the format 'nestlearn state 2', got None"):
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
