"""Models that write thoughts before their answers: trained in two seconds, on strings of digits.

``427>`` asks for the largest digit. ``wordy`` says the digits three times over, a line each, and
then the right answer; ``brief`` thinks of the first digit only, and says it.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

PAD, EOS = "<pad>", "<eos>"
MARK = "</think>"
TOKENS = {token: number for number, token in enumerate((PAD, EOS, *"0123456789>Ċ", MARK))}
TEMPLATE = (
    "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    "{% if enable_thinking is defined and not enable_thinking %}</think>{% endif %}"
)
WORDY = 12
"""Tokens of the longer thoughts, the mark among them."""

TASK = """
task: largest
dataset_path: json
dataset_kwargs: {{data_files: {data}}}
test_split: train
output_type: generate_until
doc_to_text: "{{{{q}}}}>"
doc_to_target: "{{{{a}}}}"
generation_kwargs: {{until: ["\\n"], max_gen_toks: 16, do_sample: false}}
metric_list: [{{metric: exact_match}}]
"""

Style = Callable[[str], tuple[str, str]]
"""Thought and answer to some digits."""


def wordy(digits: str) -> tuple[str, str]:
    return "\n".join([digits] * 3), max(digits)


def brief(digits: str) -> tuple[str, str]:
    return digits[0], digits[0]


def write_family(folder: Path) -> dict[str, Path]:
    """Train both and write them, and the task beside them under ``tasks``."""
    torch.set_num_threads(1)
    tokenizer = make_tokenizer()
    first = _new_model()
    _train(first, wordy, steps=70, rate=4e-3)
    second = copy.deepcopy(first)
    _train(second, brief, steps=50, rate=2e-3)
    for name, model in (("wordy", first), ("brief", second)):
        model.eval().save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    write_task(folder / "tasks")
    return {name: folder / name for name in ("wordy", "brief")}


def write_task(folder: Path, questions: int = 60) -> None:
    """Questions of three different digits each."""
    folder.mkdir()
    source = random.Random("questions")
    digits = dict.fromkeys("".join(source.sample("0123456789", 3)) for _ in range(2 * questions))
    rows = [{"q": one, "a": max(one)} for one in list(digits)[:questions]]
    data = folder / "largest.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "largest.yaml").write_text(TASK.format(data=data))


def make_tokenizer(*, special: bool = False) -> PreTrainedTokenizerFast:
    """A token for each character, and one for the mark, which may be a special one."""
    ids = {token: number for token, number in TOKENS.items() if token != MARK}
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens([AddedToken(MARK, special=special, normalized=False)])
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        model_max_length=64,
        clean_up_tokenization_spaces=False,
    )
    made.chat_template = TEMPLATE
    return made


def _new_model() -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=len(TOKENS),
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.08,
        rope_parameters={"rope_type": "default", "rope_theta": 100.0},
        pad_token_id=TOKENS[PAD],
        bos_token_id=TOKENS[EOS],
        eos_token_id=TOKENS[EOS],
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LlamaForCausalLM(config)


def _train(model: LlamaForCausalLM, style: Style, *, steps: int, rate: float) -> None:
    source = random.Random(style.__name__)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    for _ in range(steps):
        rows = torch.tensor([_lesson(source, style) for _ in range(64)])
        logits = model(input_ids=rows).logits[:, 3:-1].flatten(0, 1)
        functional.cross_entropy(logits, rows[:, 4:].flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()


def _lesson(source: random.Random, style: Style) -> list[int]:
    digits = "".join(source.sample("0123456789", 3))
    thought, answer = style(digits)
    text = [*f"{digits}>{thought}".replace("\n", "Ċ"), MARK, answer, EOS]
    return [TOKENS[token] for token in text]
