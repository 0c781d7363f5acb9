"""Our language models in the real transformers: saved, loaded, generating, trained, adapted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from every_model import model, text
from needed import needs
from torch import Tensor
from torch.nn.functional import cross_entropy
from trained_hope import train_hope

import nestlearn as nl
from nestlearn.training import load_trained

(transformers,) = needs("transformers")
huggingface = pytest.importorskip("nestlearn.models.huggingface")
NestlearnForCausalLM, StateCache = huggingface.NestlearnForCausalLM, huggingface.StateCache

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
transformers.utils.logging.disable_progress_bar()

LEARNS, TIED = "hope_attention, next token", "gated_delta_net, omega, momentum"
CASES = ["transformer", "hope", TIED, LEARNS]
GREEDY = {"do_sample": False, "max_new_tokens": 4}


def made(case: str, **options: Any) -> Any:
    return NestlearnForCausalLM.of(model(case, torch.float32, **{"depth": 1, **options}).eval())


def counted(tokens: list[int]) -> Any:
    """A hook that notes how many tokens a model reads in each call."""

    def hook(_: Any, args: tuple[Any, ...], given: dict[str, Any]) -> None:
        read = args[0] if args and args[0] is not None else given["inputs_embeds"]
        tokens.append(read.shape[1])

    return hook


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", CASES)
def test_a_model_comes_back_to_the_bit(case: str, dtype: torch.dtype, tmp_path: Path) -> None:
    own = made(case).to(dtype)
    own.save_pretrained(tmp_path)
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype="auto")
    assert type(again) is NestlearnForCausalLM and again.dtype == dtype and not again.training
    assert again.model.config == own.model.config == again.config.arguments
    weights = again.state_dict()
    assert all(torch.equal(held, weights.pop(name)) for name, held in own.state_dict().items()) and not weights
    assert torch.equal(again(text(5)).logits, own(text(5)).logits)
    assert (tmp_path / "model.safetensors").is_file()
    assert ("The head is the embedding." in (tmp_path / "README.md").read_text(encoding="utf-8")) == (case == TIED)


def test_a_card_that_somebody_wrote_stays(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine", encoding="utf-8")
    made("transformer").save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == "mine"


def test_a_folder_that_lacks_a_weight_is_refused(tmp_path: Path) -> None:
    (files,) = needs("safetensors.torch")
    made("transformer").save_pretrained(tmp_path)
    weights = files.load_file(tmp_path / "model.safetensors")
    weights["model.other.weight"] = weights.pop("model.norm.weight")
    files.save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"'missing': \['model.norm.weight'\], 'unexpected': \['model.other.weight'\]"):
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"expected the weights that its config.json says"):
        NestlearnForCausalLM.from_pretrained(pretrained_model_name_or_path=tmp_path)


def test_new_weights_are_those_of_a_language_model() -> None:
    torch.manual_seed(3)
    own = nl.models.hope(17, 16, 1, 2)
    torch.manual_seed(3)
    other = NestlearnForCausalLM(huggingface.NestlearnConfig(**own.config))
    assert all(map(torch.equal, own.parameters(), other.model.parameters()))


@pytest.mark.parametrize("case", CASES)
def test_generate_is_that_of_the_model_and_reads_each_token_once(case: str) -> None:
    own, read = made(case), []
    expected = own.model.generate(text(7), 4)
    own.model.register_forward_pre_hook(counted(read), with_kwargs=True)
    assert torch.equal(own.generate(text(7), **GREEDY), expected)
    assert read == [7, 1, 1, 1]


@pytest.mark.parametrize("case", ["transformer", "hope"])
def test_with_and_without_the_cache_the_same_is_said(case: str) -> None:
    own = made(case)
    found = own.generate(text(7), **GREEDY, output_logits=True, return_dict_in_generate=True)
    whole = own(found.sequences[:, :-1]).logits[:, 6:]
    torch.testing.assert_close(torch.stack(found.logits, 1), whole, rtol=0, atol=1e-4)
    beams = {"num_beams": 3, "max_new_tokens": 3, "do_sample": False}
    assert torch.equal(own.generate(text(7), **beams), own.generate(text(7), **beams, use_cache=False))
    # Of one candidate a draw is the likeliest; copies of a text are drawn apart.
    assert torch.equal(own.generate(text(7), do_sample=True, top_k=1, max_new_tokens=4), found.sequences)
    several = own.generate(text(7), do_sample=True, max_new_tokens=8, num_return_sequences=2)
    assert several.shape == (4, 15) and not torch.equal(several[0], several[1])


@pytest.mark.parametrize("case", ["transformer", "hope", LEARNS])
def test_a_text_that_is_filled_up_on_the_left_goes_on_as_it_would_alone(case: str) -> None:
    own = made(case)
    tokens, mask = nl.models.pad([text(7)[0, :3].tolist(), text(7)[1].tolist()], side="left", fill=5)
    both = own.generate(tokens, attention_mask=mask.long(), **GREEDY)
    for place, length in enumerate((3, 7)):
        alone = own.generate(tokens[place : place + 1, 7 - length :], **GREEDY)
        assert torch.equal(both[place, 7 - length :], alone[0])
    if case == "transformer":  # beams choose among sequences that have seen unequal numbers of tokens
        beams = {**GREEDY, "num_beams": 2}
        both = own.generate(tokens, attention_mask=mask.long(), **beams)
        assert torch.equal(both[0, 4:], own.generate(tokens[:1, 4:], **beams)[0])


def test_a_text_that_is_filled_up_on_the_right_cannot_go_on() -> None:
    with pytest.raises(ValueError, match="filled up on the left"):
        made("transformer").generate(text(3), attention_mask=torch.tensor([[1, 1, 1], [1, 1, 0]]))


def test_what_ended_is_filled_up_while_others_go_on() -> None:
    own = made("transformer")
    free = own.generate(text(7), **GREEDY)
    end = int(free[0, 8])
    found = own.generate(text(7), **GREEDY, eos_token_id=end, pad_token_id=0)
    assert found[0, 9:].eq(0).all() and (end in free[1, 7:] or torch.equal(found[1], free[1]))


def test_a_cache_of_ones_own_goes_on_from_what_it_has_read() -> None:
    own, cache = made("hope"), StateCache()
    expected, read = own.generate(text(9), **GREEDY), []
    own(text(9)[:, :4], cache=cache)
    kept = cache.state
    own.model.register_forward_pre_hook(counted(read), with_kwargs=True)
    assert torch.equal(own.generate(text(9), **{huggingface.CACHE: cache}, **GREEDY), expected)
    assert read == [5, 1, 1, 1] and cache.get_seq_length() == 12
    again = StateCache(kept, 4)
    with pytest.raises(ValueError, match="has read 4 columns, or a mask over all of it, got 2 columns"):
        own.generate(text(9)[:, 4:6], **{huggingface.CACHE: again}, **GREEDY)
    assert torch.equal(own(text(9)[:, 4:], past_key_values=again).logits, own(text(9)).logits[:, 4:])


def test_the_loss_is_that_of_the_next_token_and_the_answer_has_the_usual_names() -> None:
    own, labels = made("hope"), text(6).clone()
    labels[0, :3] = -100
    found = own(text(6), labels=labels)
    expected = cross_entropy(own.model(text(6))[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    torch.testing.assert_close(found.loss, expected)
    assert list(found) == ["loss", "logits"] and list(own(text(6))) == ["logits", huggingface.CACHE]
    loss, logits = own(text(6), labels=labels, return_dict=False)
    assert torch.equal(logits, found.logits) and torch.equal(loss, found.loss)
    torch.testing.assert_close(own(text(6), logits_to_keep=2).logits, logits[:, -2:])


def test_blocks_are_computed_again_when_transformers_says_so() -> None:
    own = made("hope").train()
    calls, gradients = [], []
    own.model.blocks[0].register_forward_pre_hook(lambda *_: calls.append(1))
    for _ in range(2):
        own.zero_grad()
        own(text(6), labels=text(6)).loss.backward()
        gradients.append([each.grad.clone() for each in own.parameters() if each.grad is not None])
        own.gradient_checkpointing_enable()
    assert own.is_gradient_checkpointing and len(calls) == 3
    assert all(map(torch.equal, *gradients))
    own.gradient_checkpointing_disable()
    assert not own.model.checkpointing
    with pytest.raises(ValueError, match=r"use_reentrant: .* expected False, got True"):
        own.gradient_checkpointing_enable({"use_reentrant": True})


@pytest.mark.parametrize("tied", [False, True])
def test_there_can_be_more_tokens(tied: bool, tmp_path: Path) -> None:
    own = made("transformer", tied=tied)
    before = own(text(5)).logits
    own.resize_token_embeddings(23)
    assert own.model.config["vocab_size"] == own.config.vocab_size == own.model.vocab_size == 23
    found = own(text(5) + 6).logits
    assert found.shape[-1] == 23 and torch.equal(own(text(5)).logits[..., :17], before)
    own.save_pretrained(tmp_path)
    assert torch.equal(transformers.AutoModelForCausalLM.from_pretrained(tmp_path)(text(5) + 6).logits, found)
    head = own.get_output_embeddings()
    assert (head is own.get_input_embeddings()) == tied
    if tied:
        with pytest.raises(ValueError, match="set_input_embeddings changes both"):
            own.set_output_embeddings(torch.nn.Linear(16, 23))


def test_what_cannot_be_is_said() -> None:
    own = made("transformer")
    with pytest.raises(ValueError, match="assisted generation is not supported with stateful models"):
        own.generate(text(3, 1), assistant_model=made("transformer"), max_new_tokens=2)
    with pytest.raises(TypeError, match=r"expected a nestlearn.models.huggingface.StateCache, .* got DynamicCache"):
        own(text(3), cache=transformers.DynamicCache())
    with pytest.raises(TypeError, match="output_attentions, position_ids: expected nothing but tokens"):
        own(text(3), output_attentions=True, position_ids=text(3))
    with pytest.raises(ValueError, match="learns from tokens"):
        made(LEARNS)(inputs_embeds=torch.zeros(1, 3, 16))
    with pytest.raises(TypeError, match=r"expected a nestlearn.models.LanguageModel, got Linear"):
        NestlearnForCausalLM.of(torch.nn.Linear(2, 2))


@pytest.mark.slow
def test_trainer_trains_saves_and_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    needs("accelerate")
    rows = [{"input_ids": text(6, 1, seed)[0], "labels": text(6, 1, seed)[0]} for seed in range(8)]
    for row in rows:
        row["labels"][0] = -100  # nobody predicts it, but transformers 5.0 counts it where it divides by all labels

    how = {"per_device_train_batch_size": 2, "report_to": [], "disable_tqdm": True, "logging_strategy": "no"}
    settings = transformers.TrainingArguments(
        str(tmp_path), max_steps=4, save_steps=2, learning_rate=0.01, use_cpu=True, **how
    )

    def trained(resume: Path | None = None) -> Any:
        torch.manual_seed(0)
        host = transformers.Trainer(made("hope"), settings, train_dataset=rows, eval_dataset=rows[:2])
        host.train(resume_from_checkpoint=None if resume is None else str(resume))
        return host

    whole = trained()
    loss = whole.evaluate()["eval_loss"]
    resumed = trained(tmp_path / "checkpoint-2")
    assert all(map(torch.equal, whole.model.parameters(), resumed.model.parameters()))
    both = {name: torch.stack([row[name] for row in rows[:2]]) for name in rows[0]}
    with torch.no_grad():
        assert loss == pytest.approx(whole.model.eval()(**both).loss.item(), rel=1e-4)
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "checkpoint-4")
    assert all(map(torch.equal, whole.model.parameters(), again.parameters()))


def test_lora_changes_linear_layers_and_is_merged() -> None:
    (peft,) = needs("peft")
    base = made("hope")
    before = base(text(6)).logits
    adapted = peft.get_peft_model(base, peft.LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear", r=2))
    assert {name.split(".")[-1] for name in adapted.targeted_module_names} == {"qkv", "out"}
    assert torch.equal(adapted(text(6)).logits, before)
    optimizer = torch.optim.SGD([each for each in adapted.parameters() if each.requires_grad], lr=1.0)
    adapted(input_ids=text(6), labels=text(6)).loss.backward()
    optimizer.step()
    found = adapted(text(6)).logits
    assert not torch.allclose(found, before)
    torch.testing.assert_close(adapted.merge_and_unload()(text(6)).logits, found)


def test_a_learned_prompt_is_read_once_in_the_place_of_tokens() -> None:
    (peft,) = needs("peft")
    base, read = made("hope"), []
    adapted = peft.get_peft_model(base, peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3))
    adapted(input_ids=text(6), labels=text(6)).loss.backward()
    assert any(each.grad is not None and each.grad.any() for each in adapted.prompt_encoder.parameters())
    given = torch.cat([adapted.get_prompt(2).detach(), base.get_input_embeddings()(text(6))], 1)
    expected: list[Tensor] = []
    with torch.no_grad():
        logits, state = base.model(inputs_embeds=given, return_state=True)
        for _ in range(4):
            expected.append(logits[:, -1].argmax(-1, keepdim=True))
            logits, state = base.model(expected[-1], state, return_state=True)
    base.model.register_forward_pre_hook(counted(read), with_kwargs=True)
    found = adapted.generate(input_ids=text(6), attention_mask=torch.ones_like(text(6)), **GREEDY)
    assert torch.equal(found[:, 6:], torch.cat(expected, 1)) and read == [9, 1, 1, 1]
    assert torch.equal(base.generate(inputs_embeds=given, **GREEDY), found[:, 6:])


def test_bytes_are_a_tokenizer(tmp_path: Path) -> None:
    own, words = nl.models.ByteTokenizer(), huggingface.tokenizer_of()
    words.save_pretrained(tmp_path)
    again = transformers.AutoTokenizer.from_pretrained(tmp_path)
    # Letters that stand for bytes inside tokenizers, and the one that is called like what fills up, are letters too.
    for said in ("", "Dear Tür,\r\n\t ok  \u010a\u0100 \x00", "".join(map(chr, range(400))), "\U0001f600 " * 3):
        assert words(said)["input_ids"] == again(said)["input_ids"] == own.encode(said)
        assert words.decode(own.encode(said)) == again.decode(own.encode(said)) == said
    assert again.decode([72, 195]) == own.decode([72, 195])  # half a letter
    batch = again(["Dear", "D"], padding=True, padding_side="left", return_tensors="pt")
    assert batch["input_ids"].tolist() == [list(b"Dear"), [0, 0, 0, 68]]
    assert batch["attention_mask"][1].tolist() == [0, 0, 0, 1] and len(again) == again.vocab_size == 256


def test_a_file_is_a_tokenizer_that_adds_nothing(tmp_path: Path) -> None:
    (tokenizers,) = needs("tokenizers")
    library = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "b": 1, "[E]": 2, "?": 3}, unk_token="?"))
    library.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    library.post_processor = tokenizers.processors.TemplateProcessing("$A [E]", special_tokens=[("[E]", 2)])
    library.save(str(tmp_path / "tokenizer.json"))
    words = huggingface.tokenizer_of(tmp_path / "tokenizer.json", eos_token="[E]", pad_token="[E]")
    assert words("b a b")["input_ids"] == nl.models.load_tokenizer(tmp_path / "tokenizer.json").encode("b a b")
    assert words.eos_token_id == 2
    with pytest.raises(ValueError, match="cannot read the tokenizer"):
        huggingface.tokenizer_of(tmp_path / "none.json")


@pytest.mark.slow
def test_a_run_becomes_a_folder_that_transformers_loads(tmp_path: Path) -> None:
    run = load_trained(train_hope(tmp_path / "run"))
    own, words = NestlearnForCausalLM.from_run(run), huggingface.tokenizer_of(run.tokenizer)
    own.save_pretrained(tmp_path / "hope")
    words.save_pretrained(tmp_path / "hope")
    speaks = transformers.pipeline("text-generation", str(tmp_path / "hope"), device="cpu")
    (found,) = speaks("Fellow", max_new_tokens=5, do_sample=False, return_full_text=False)
    expected = run.model.generate(torch.tensor([list(b"Fellow")]), 5)[0, 6:].tolist()
    assert found["generated_text"] == nl.models.ByteTokenizer().decode(expected)
    assert speaks.model.generation_config.pad_token_id == 0
