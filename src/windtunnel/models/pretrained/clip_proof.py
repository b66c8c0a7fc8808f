"""The evidence that a model is the CLIP in a Hugging Face folder: transformers runs it beside ours."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from windtunnel.models.clip import CLIP
from windtunnel.models.pretrained.clip import FIELDS, HIGHEST, effective
from windtunnel.models.pretrained.fields import computing
from windtunnel.models.pretrained.huggingface import link_weights, read_fields
from windtunnel.models.pretrained.proof import NOT_COMPARED, TOLERANCE, Proof, loaded, quiet_transformers
from windtunnel.models.pretrained.proof_tokenizer import compare_tokenizers
from windtunnel.models.vision import ViTConfig, standard
from windtunnel.text.tokenizers import Tokenizer

USUAL_SCALE = 1 / 0.07
N_CAPTIONS, N_PICTURES = 3, 4


def compare_clip(
    model: CLIP, source: Path, tokenizer: Tokenizer | None = None, lengths: Sequence[int] | None = None
) -> Proof:
    """Run the CLIP of a folder in transformers and ours on the same pictures and captions, random but always the same.

    Logits agree within TOLERANCE where cosines are times 1 / 0.07, and within more in proportion where the scale is
    more.

    Args:
        lengths: of the captions in tokens, with their marks; None is 2, 17 and the context.

    Raises:
        MissingExtra: when transformers is not installed.
        ArtifactError: when transformers refuses the config or the weights.
    """
    transformers = quiet_transformers()
    picture, device = model.config.picture, model.log_scale.device
    assert isinstance(picture, ViTConfig)
    data = effective(read_fields(source / "config.json", ["clip"])[1])
    known = computing(data, FIELDS)
    known["text_config"] |= {"bos_token_id": None, "pad_token_id": None}  # else transformers warns of its own
    config = json.dumps(known)
    with tempfile.TemporaryDirectory() as plain:
        (Path(plain) / "config.json").write_text(config, encoding="utf-8")
        link_weights(source, Path(plain))
        theirs = loaded(transformers.CLIPModel, Path(plain), source, use_safetensors=True).eval().to(device)
    context, vocab_size = model.config.context_length, model.config.vocab_size
    stated = theirs.config.text_config.eos_token_id
    end = vocab_size - 1 if stated == HIGHEST else stated
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(vocab_size, (N_CAPTIONS, context), generator=generator)
    ids[ids == end] = 0 if end else 1
    seen = torch.rand(N_PICTURES, 3, picture.size, picture.size, generator=generator)
    apart = {}
    with torch.no_grad():
        for n in sorted({min(n, context) for n in lengths or (2, 17, context)}):
            read = ids[:, :n].clone()
            read[:, -1] = end
            shown = standard(seen, picture.mean, picture.deviation).to(device)
            expected = theirs(input_ids=read.to(device), pixel_values=shown).logits_per_text
            apart[n] = (model(seen.to(device), read.to(device))[:, 0] - expected).abs().max().item()
    same = NOT_COMPARED if tokenizer is None else compare_tokenizers(source, tokenizer, config, begins=False)
    tolerance = TOLERANCE * max(1.0, model.scale.item() / USUAL_SCALE)
    return Proof(transformers.__version__, tolerance, apart, None, None, (), (), same, "logits")
