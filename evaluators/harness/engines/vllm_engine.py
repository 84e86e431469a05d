"""Answers by vLLM: the only module that imports it.

vLLM runs in the worker's own process, with a process more for each further GPU. It holds weights
of its own, which are replaced by those of the resident model before the first answer of a recipe.
"""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Sequence
from typing import Any

import torch

from evaluators.harness.engines.continuous_engine import ContinuousEngine
from evaluators.harness.engines.inference_engine import Prompt
from evaluators.harness.engines.refill_canary import check_refill
from evaluators.harness.engines.weight_refill import WeightRefill, handles
from evaluators.resident_models.devices.batch_size import SHARE, cache_bytes
from evaluators.resident_models.devices.free_memory import free_bytes

PASS_TOKENS = 2048
"""Most tokens of a pass; a longer prompt is read in several."""

BLOCK = 128
"""Tokens of the largest block that keys and values are kept in."""

_SETTINGS = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # a step ends when this process says so
    "VLLM_WORKER_MULTIPROCESSING_METHOD": "spawn",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # workers share cores
    "VLLM_CONFIGURE_LOGGING": "0",
    "VLLM_NO_USAGE_STATS": "1",
}


class VllmEngine(ContinuousEngine):
    """Written answers by vLLM, likelihoods as ``continuous`` has them.

    vLLM computes a prompt anew where likelihoods are asked for, for each choice of each question.

    Args:
        gpus: GPUs that each layer is split over.

    Attributes:
        starts: How often vLLM was started.
    """

    def __init__(self, *, gpus: int = 1) -> None:
        self._gpus = gpus
        self._llm: Any = None
        self._made: tuple[str, int] = ("", 0)
        self._stale = True
        self.starts = 0

    def start(self, model: Any, *, longest: int, rows: int) -> None:
        """Start vLLM for a model, and make sure that it answers as the model's weights say.

        The model's weights are overwritten.

        Raises:
            EvaluatorError: If it goes on answering by earlier weights.
        """
        self._start(model, longest=longest, rows=rows)
        try:
            check_refill(self, model, longest=longest, rows=rows)
        except BaseException:
            self.close()
            raise

    def refill(self) -> None:
        self._stale = True

    def answers(
        self, model: Any, asked: Sequence[Prompt], *, most: int, rows: int, penalty: float
    ) -> list[list[int]]:
        each = {tuple(one.tokens): one for one in asked}  # the same prompt has the same answer
        longest = max(map(len, each), default=1) + most
        try:
            self._prepare(model, longest=longest, rows=rows)
            found = self._write(each, most=most, penalty=penalty)
        except BaseException:
            self.close()  # after an error nothing of it is certain; the next answers start another
            raise
        return [found[tuple(one.tokens)] for one in asked]

    def close(self) -> None:
        """End vLLM, its processes included; calling it twice is fine."""
        if self._llm is None:
            return
        from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

        llm, self._llm = self._llm, None
        llm.llm_engine.engine_core.shutdown()
        del llm
        cleanup_dist_env_and_memory()

    def _prepare(self, model: Any, *, longest: int, rows: int) -> None:
        """A vLLM for this model that holds its weights."""
        config, room = self._made
        if self._llm is None or config != model.config.to_json_string() or room < longest:
            self._start(model, longest=max(longest, room), rows=rows)
        if self._stale:
            weights = list(model.state_dict().items())  # in the order of the layers
            given = weights if self._gpus == 1 else handles(weights)
            self._llm.collective_rpc("merge_search_refill", args=(given,))
            self._llm.reset_prefix_cache()
            self._stale = False

    def _start(self, model: Any, *, longest: int, rows: int) -> None:
        self.close()
        device, config = model.device, copy.deepcopy(model.config)
        config.architectures = [type(model).__name__]
        on_gpu = device.type == "cuda"
        os.environ.update(_SETTINGS)
        if on_gpu and torch.cuda.get_device_capability(device) >= (8, 0):
            os.environ["VLLM_BATCH_INVARIANT"] = "1"
        from vllm import LLM

        wanted = cache_bytes(config, dtype=model.dtype, tokens=(rows + 1) * (longest + BLOCK))
        self.starts += 1
        with tempfile.TemporaryDirectory() as folder:
            config.save_pretrained(folder)
            self._llm = LLM(
                model=folder,
                skip_tokenizer_init=True,
                load_format="dummy",
                dtype=str(model.dtype).removeprefix("torch."),
                max_model_len=longest,
                max_num_seqs=rows,
                max_num_batched_tokens=max(PASS_TOKENS, rows),
                kv_cache_memory_bytes=min(wanted, int(SHARE * free_bytes(device))),
                tensor_parallel_size=self._gpus,
                distributed_executor_backend="uni" if self._gpus == 1 else "mp",
                worker_extension_cls=f"{WeightRefill.__module__}.{WeightRefill.__qualname__}",
                enforce_eager=True,  # captured graphs are not proven right after a refill
                async_scheduling=False,  # answers end when they have, not a token later
                enable_prefix_caching=True,
                seed=0,
            )
        self._made, self._stale = (model.config.to_json_string(), longest), True

    def _write(
        self, each: dict[tuple[int, ...], Prompt], *, most: int, penalty: float
    ) -> dict[tuple[int, ...], list[int]]:
        """The answers, each ended where its prompt says so.

        Raises:
            OverflowError: If the model gives logits that are NaN.
        """
        engine, asked = self._llm.llm_engine, dict[str, tuple[int, ...]]()
        found: dict[tuple[int, ...], list[int]] = {prompt: [] for prompt in each}

        def ask(prompt: tuple[int, ...]) -> None:
            name, had = str(len(asked)), found[prompt]
            asked[name] = prompt
            settings = _settings(most - len(had), penalty)
            engine.add_request(name, {"prompt_token_ids": [*prompt, *had]}, settings)

        for prompt, one in each.items():
            if _goes_on(one, found[prompt], most):
                ask(prompt)
        while engine.has_unfinished_requests():
            for output in engine.step():
                (written,), prompt = output.outputs, asked[output.request_id]
                one, answer = each[prompt], found[prompt]
                for token, said in zip(written.token_ids, written.logprobs, strict=True):
                    if said[token].logprob != said[token].logprob:
                        raise OverflowError("the merged model gives logits that are NaN")
                    answer.append(token)
                    own = len(answer)
                    goes_on = not one.over(answer) and _goes_on(one, answer, most)
                    if goes_on and len(answer) == own:
                        continue
                    engine.abort_request([output.request_id])
                    if goes_on:
                        ask(prompt)  # after tokens that vLLM did not choose
                    break
        return found


def _settings(most: int, penalty: float) -> Any:
    """What vLLM is asked for: the likeliest tokens, told one by one with their likelihoods."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        temperature=0.0, max_tokens=most, repetition_penalty=penalty, ignore_eos=True,
        logprobs=0, detokenize=False, output_kind=RequestOutputKind.DELTA,
    )  # fmt: skip


def _goes_on(prompt: Prompt, answer: list[int], most: int) -> bool:
    """Add the tokens that have to come next; whether the model writes on after them."""
    while len(answer) < most and (token := prompt.due(answer)) is not None:
        answer.append(token)
        if prompt.over(answer):
            return False
    return len(answer) < most
