"""Configs of any class of transformers, small enough to be made in a test."""

from __future__ import annotations

import inspect
from typing import Any

SIZES: dict[str, int] = {
    **dict.fromkeys(
        ("vocab_size", "vocab_size_per_layer_input", "state_size", "max_position_embeddings"), 64
    ),
    **dict.fromkeys(("n_positions", "n_ctx"), 128),
    **dict.fromkeys(
        ("hidden_size", "d_model", "n_embd", "dim", "word_embed_proj_dim", "embedding_size",
         "lru_width", "embed_dim", "out_hidden_size"), 32,
    ),
    **dict.fromkeys(
        ("intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size", "decoder_ffn_dim",
         "encoder_ffn_dim", "d_ff", "intermediate_size_mlp"), 48,
    ),
    **dict.fromkeys(
        ("moe_intermediate_size", "shared_intermediate_size", "shared_expert_intermediate_size",
         "moe_shared_expert_intermediate_size", "expert_ffn_hidden_size", "q_lora_rank",
         "kv_lora_rank", "image_size", "sliding_window", "window_size",
         "attention_window_size"), 16,
    ),
    **dict.fromkeys(
        ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers",
         "encoder_layers", "depth", "num_experts_per_tok", "num_experts_per_token", "moe_k",
         "moe_topk", "top_k_experts", "num_key_value_heads", "num_kv_heads",
         "multi_query_group_num", "linear_num_key_heads", "index_n_heads", "mamba_expand"), 2,
    ),
    **dict.fromkeys(
        ("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads",
         "encoder_attention_heads", "num_experts", "num_local_experts", "n_routed_experts",
         "moe_num_experts", "linear_num_value_heads", "mamba_d_conv", "conv_kernel",
         "mamba_dt_rank", "time_step_rank", "rotary_dim", "patch_size"), 4,
    ),
    **dict.fromkeys(
        ("head_dim", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "kv_channels",
         "attention_head_dim", "d_kv", "mamba_d_state", "mamba_n_heads", "mamba_d_head",
         "mamba_chunk_size", "mamba_num_heads", "mamba_head_dim", "state_size", "ssm_state_size",
         "chunk_size", "linear_key_head_dim", "linear_value_head_dim", "index_head_dim",
         "index_topk", "hidden_size_per_layer_input"), 8,
    ),
    **dict.fromkeys(
        ("n_shared_experts", "num_shared_experts", "n_group", "topk_group", "n_groups",
         "mamba_n_groups", "first_k_dense_replace", "num_dense_layers", "moe_layer_start_index",
         "bos_token_id"), 1,
    ),
    "mamba_d_ssm": 64, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
"""Small values for whatever a config has of these."""

PARTICULAR: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [1], "attn_rotary_emb": 4},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"]},
    "jamba": {
        "attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2,
        "expert_layer_offset": 1, "use_mamba_kernels": False,
    },
    "gemma3n_text": {"num_kv_shared_layers": 0},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "mamba2": {"num_heads": 8},
    "nemotron_h": {
        "layers_block_type": ["mamba", "attention", "moe", "mlp"], "num_hidden_layers": 4,
    },
    "qwen3_next": {"num_hidden_layers": 4},
    **{
        text: {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4,
                                   "mrope_section": [2, 1, 1]}}
        for text in ("qwen2_vl_text", "qwen2_5_vl_text", "qwen2_5_omni_text",
                     "paddleocr_vl_text", "glm4v_text", "glm_ocr_text")
    },
    "xmod": {"default_language": "en_XX"},
}  # fmt: skip
"""What a class needs besides, so that every kind of layer it has is there."""


def tiny_config(family: str) -> Any:
    """A small config of a model type, with small ones inside it."""
    from transformers import AutoConfig

    default = AutoConfig.for_model(family)
    inner = {name: getattr(default, name, None) for name in type(default).sub_configs}
    parts = {
        name: _sizes(one) | PARTICULAR.get(one.model_type, {}) | {"model_type": one.model_type}
        for name, one in inner.items()
        if one is not None
    }
    return AutoConfig.for_model(family, **_sizes(default) | parts | PARTICULAR.get(family, {}))


def _sizes(config: Any) -> dict[str, Any]:
    """Small values for what a config has."""
    known = {*config.to_dict(), *inspect.signature(type(config).__init__).parameters}
    known |= set(config.attribute_map)
    sizes: dict[str, Any] = {key: size for key, size in SIZES.items() if key in known}
    if "qk_rope_head_dim" in known:  # of which the size of a head follows, and no group shares one
        sizes.pop("head_dim", None)
        sizes["num_key_value_heads"] = sizes["num_attention_heads"]
    return sizes
