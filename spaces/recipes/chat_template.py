"""The chat template that a merged model gets: mergekit's key ``chat_template``."""

from __future__ import annotations

from collections.abc import Mapping

AUTO = "auto"
"""The template that most of the inputs have."""

NAMED: Mapping[str, str] = {
    "alpaca": (
        "{% for m in messages if m.role == 'system' %}{% if loop.last %}{{ m.content.strip() }}"
        "{% endif %}{% endfor %}{{ '\\n\\n' }}{% for m in messages %}"
        "{% if m.role == 'user' %}{{ '### Instruction:\\n' + m.content.strip() }}"
        "{% elif m.role == 'assistant' %}{{ '### Response:\\n' + m.content.strip() }}{% endif %}"
        "{% if m.role != 'system' and not loop.last %}{{ '\\n\\n' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt and messages[-1].role != 'assistant' %}"
        "{{ '### Response:\\n' }}{% endif %}"
    ),
    "chatml": (
        "{% for m in messages %}"
        "{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    ),
    "exaone": (
        "{% if messages[0].role != 'system' %}"
        "{{ '        [|system|][|endofturn|]\\n\\n' }}{% endif %}{% for m in messages %}"
        "{{ '    [|' + m.role + '|]' + m.content + '\\n        ' }}"
        "{% if m.role != 'user' %}{{ '[|endofturn|]' }}{% endif %}{{ '\\n\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '    [|assistant|]\\n' }}{% endif %}"
    ),
    "llama3": (
        "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m.role + "
        "'<|end_header_id|>\\n\\n' + m.content.strip() + '<|eot_id|>\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}"
        "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
    ),
    "mistral": (
        "{% if messages[0].role == 'system' %}{% set system = messages[0].content + '\\n\\n' %}"
        "{% set turns = messages[1:] %}"
        "{% else %}{% set system = '' %}{% set turns = messages %}{% endif %}{{ bos_token }}"
        "{% for m in turns %}{% if m.role not in ('user', 'assistant') %}"
        "{{ raise_exception('a system message may only come first') }}"
        "{% elif (m.role == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('user and assistant must take turns, the user first') }}"
        "{% elif m.role == 'user' %}"
        "{{ ' [INST] ' + (system if loop.first else '') + m.content + ' [/INST]' }}"
        "{% else %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}"
    ),
}
"""Templates by the names that mergekit has for them; each makes the same text as mergekit's."""

_SHORTEST = 20  # characters of a template, as in mergekit


def fault(asked: str) -> str:
    """What is wrong with it, if it is neither ``auto``, nor a name, nor a template; else empty."""
    if asked in (AUTO, *NAMED) or (len(asked) >= _SHORTEST and "{" in asked):
        return ""
    return f"expected one of {', '.join((AUTO, *NAMED))}, or a Jinja template, got {asked!r}"
