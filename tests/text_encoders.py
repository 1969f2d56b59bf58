"""Language models for tests: small, of random numbers, in folders as transformers save them."""

from __future__ import annotations

import functools
import json
import os
import tempfile
from pathlib import Path

from prerequisites import need_module


@functools.cache
def tiny(seed: int = 0, width: int = 16) -> Path:
    """The folder of a BERT of two layers that knows small letters, in this process."""
    transformers, tokenizers = need_module("transformers"), need_module("tokenizers")
    import torch

    folder = Path(tempfile.mkdtemp(prefix="bert-"))
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *letters, *(f"##{one}" for one in letters)]
    inner = tokenizers.Tokenizer(
        tokenizers.models.WordPiece({word: i for i, word in enumerate(vocabulary)}, unk_token="[UNK]")
    )
    inner.normalizer = tokenizers.normalizers.BertNormalizer()
    inner.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    inner.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    marks = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep")}
    transformers.PreTrainedTokenizerFast(tokenizer_object=inner, **marks).save_pretrained(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = transformers.BertConfig(
            vocab_size=len(vocabulary),
            hidden_size=width,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=2 * width,
            max_position_embeddings=64,
            # Of the usual 0.02 all texts would be nearly the same.
            initializer_range=0.5,
        )
        transformers.BertModel(config).eval().save_pretrained(folder)
    return folder


def words(**settings: object) -> list[str]:
    """What chooses the condition of a text with the tiny model, and no hub."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    given = {"encoder": tiny(), "length": 12} | settings
    return ["condition=text", *(f"condition.text.{key}={value}" for key, value in given.items())]


@functools.cache
def clip(seed: int = 0) -> Path:
    """The folder of a CLIP of two layers each, of random numbers, that knows small letters, in this process."""
    transformers = need_module("transformers")
    import torch

    folder = Path(tempfile.mkdtemp(prefix="clip-"))
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = [*letters, *(f"{one}</w>" for one in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = transformers.CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=20, pad_token="<|endoftext|>"
    )
    tokenizer.save_pretrained(folder)
    marks = {"bos_token_id": len(words) - 2, "eos_token_id": len(words) - 1, "pad_token_id": len(words) - 1}
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = transformers.CLIPConfig(
            text_config={"vocab_size": len(words), "max_position_embeddings": 20, **small, **marks},
            vision_config={"image_size": 16, "patch_size": 8, **small},
            projection_dim=8,
            # Of the usual 1 all texts would be nearly the same.
            initializer_factor=5.0,
        )
        transformers.CLIPModel(config).eval().save_pretrained(folder)
    sizes = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}
    transformers.CLIPImageProcessor(**sizes).save_pretrained(folder)
    return folder
