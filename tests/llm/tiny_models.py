"""Language models small enough for tests, whose tokenizer knows every byte, made without any download."""

from dataclasses import dataclass

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    PhiConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

from soo_marl.llm.model.models import LanguageModel

BEGIN, END = "<|begin|>", "<|end|>"
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}[{{ message['role'] }}]{{ message['content'] }}[/]{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
CONFIGS = {
    "llama": LlamaConfig,
    "mistral": MistralConfig,
    "qwen2": Qwen2Config,
    "gemma2": Gemma2Config,
    "phi": PhiConfig,
}


def tiny_tokenizer(adds_begin: bool = True, chat_template: str | None = TEMPLATE) -> PreTrainedTokenizerFast:
    """One token a byte, a begin token and an end token that is also the padding, as in many chat models."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: number for number, character in enumerate([BEGIN, END, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if adds_begin:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{BEGIN} $A", pair=f"{BEGIN} $A {BEGIN} $B", special_tokens=[(BEGIN, vocabulary[BEGIN])]
        )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=BEGIN, eos_token=END, pad_token=END)
    fast.chat_template = chat_template
    return fast


def tiny_language_model(
    architecture: str = "llama", layers: int = 4, hidden: int = 32, seed: int = 0, scale: float = 0.3
) -> LanguageModel:
    """A random model of the named architecture; ``scale`` is the standard deviation of its weights.

    At the usual 0.02, so small a model would give nearly the same logits for everything.
    """
    tokenizer = tiny_tokenizer()
    tokens = {"vocab_size": len(tokenizer), "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    if architecture == "gpt2":
        config = GPT2Config(n_layer=layers, n_embd=hidden, n_head=4, n_positions=512, initializer_range=scale, **tokens)
    else:
        config = CONFIGS[architecture](
            num_hidden_layers=layers,
            hidden_size=hidden,
            intermediate_size=2 * hidden,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
            initializer_range=scale,
            **tokens,
        )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config)
    return LanguageModel(model.eval(), tokenizer, f"tiny-{architecture}-{seed}")


@dataclass(frozen=True)
class TinyFill:
    name: str = "Bob"
    cheap_object: str = "toothpick"
    cheap_room: str = "living room"
    expensive_object: str = "coin"
    expensive_room: str = "attic"


@dataclass(frozen=True)
class TinyPrompt:
    """What the language half asks of a prompt."""

    text: str
    scenario: str = "burglar"
    orientation: str = "cheap_first"
    number: int = 0
    answer_start: str = "I would"
    right_room: str = "attic"
    wrong_room: str = "living room"
    item: str = "coin"
    fill: TinyFill = TinyFill()
