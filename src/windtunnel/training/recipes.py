"""Recipes: functions that return a RunConfig. A variant is `--set PATH=VALUE`, or `replace()` in Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from windtunnel.errors import ConfigError
from windtunnel.models import ClassifierConfig, CLIPConfig, MLPConfig, TransformerConfig, TranslatorConfig
from windtunnel.models.captions import BagConfig
from windtunnel.models.efficientnet import EfficientNetConfig
from windtunnel.models.translator import EncoderConfig
from windtunnel.models.vectors import CaptionVectorsConfig, PictureVectorsConfig
from windtunnel.models.vision import ConvolutionalConfig
from windtunnel.tasks import ClassificationConfig, ContrastiveConfig, TranslationConfig
from windtunnel.tasks.augment import AugmentConfig
from windtunnel.text.corpora import open_corpus
from windtunnel.text.splits import is_captioned, is_labelled
from windtunnel.text.store import TextConfig
from windtunnel.training.optimizer import OptimizerConfig
from windtunnel.training.run_config import RunConfig, TrainConfig
from windtunnel.training.schedule import ScheduleConfig


def tiny(corpus: str) -> RunConfig:
    """3 layers x 64, context 32: names and single sentences, under a minute a seed on one core.

    ReLU, because on a CPU the two passes of GELU cost as much as half of the matrix products of so small a model.
    """
    return RunConfig(
        corpus=corpus,
        model=TransformerConfig(
            context_length=32, n_layers=3, n_heads=4, d_model=64, activation="relu", dropout=0.0, bias=False
        ),
        optimizer=OptimizerConfig(lr=5e-3, beta_2=0.99),
        schedule=ScheduleConfig(warmup=100),
        train=TrainConfig(steps=1200, batch_size=64, eval_every=200, save_every=400),
    )


def translate(corpus: str) -> RunConfig:
    """Pairs of words on an encoder-decoder: 3 + 2 layers x 64, rotary positions, 4,300 steps of 128 pairs.

    Some minutes of one core (benchmarks/translation.py); a list of some thousand words needs 1,200 steps.
    """
    return RunConfig(
        corpus=corpus,
        task=TranslationConfig(),
        model=TranslatorConfig(
            context_length=96, n_layers=2, n_heads=4, d_model=64, d_ff=128, position="rope", activation="relu",
            dropout=0.0, bias=False, encoder=EncoderConfig(n_layers=3),
        ),
        optimizer=OptimizerConfig(lr=3e-3, beta_2=0.99),
        schedule=ScheduleConfig(warmup=100, final_fraction=0.0),
        train=TrainConfig(steps=4300, batch_size=128, grad_accumulation=4, eval_every=500, save_every=500),
    )  # fmt: skip


def classify(corpus: str) -> RunConfig:
    """Texts with labels: a bidirectional transformer of 2 layers x 64, the mean of its tokens, a linear layer.

    The checkpoint with the best accuracy on dev is the model. Texts of few words are read by character.
    """
    return RunConfig(
        corpus=corpus,
        text=TextConfig(dev_fraction=0.1, test_fraction=0.2),
        task=ClassificationConfig(),
        model=ClassifierConfig(
            trunk=TransformerConfig(
                n_layers=2, n_heads=4, d_model=64, activation="relu", dropout=0.1, bias=False, causal=False
            ),
        ),
        optimizer=OptimizerConfig(lr=2e-3, beta_2=0.99),
        schedule=ScheduleConfig(warmup=50, final_fraction=0.0),
        train=TrainConfig(
            steps=1000, batch_size=64, eval_every=50, save_every=500, keep=1, sample_tokens=0, choose="best"
        ),
    )


def clip(corpus: str) -> RunConfig:
    """Pictures with captions, from scratch: a small convolutional net, and the mean of a caption's bytes and runs.

    Some minutes of one core for 1,900 emoji; the last checkpoint is the model. New words share runs of up to five bytes
    with those of training.
    """
    return RunConfig(
        corpus=corpus,
        text=TextConfig(tokenizer="bytes", dev_fraction=0.1, test_fraction=0.2),
        task=ContrastiveConfig(augment=AugmentConfig(shift=0.12, scale=0.2, rotate=11.5)),
        model=CLIPConfig(
            context_length=256,
            picture=ConvolutionalConfig(size=32, widths=(32, 64, 128, 256), depth=0, dropout=0.3, norm="batch"),
            caption=BagConfig(longest_run=5),
        ),
        optimizer=OptimizerConfig(lr=2e-3, beta_2=0.98, weight_decay=0.1),
        schedule=ScheduleConfig(warmup=50, final_fraction=0.0),
        train=TrainConfig(steps=1200, batch_size=128, eval_every=200, save_every=300, keep=1, sample_tokens=0),
    )


def clip_frozen(corpus: str) -> RunConfig:
    """`clip` on two frozen nets, EfficientNet-Lite0 and MiniLM, whose vectors are computed once.

    Pictures are compared with those of training by a kernel, and the map of that to the captions is solved; the steps
    that follow change it little (docs/pictures.md). The nets are fetched first: windtunnel models get
    efficientnet-lite0, windtunnel models get minilm-l6.
    """
    config, seen = clip(corpus), PictureVectorsConfig(net="efficientnet-lite0-stages", centres=4096)
    return config.replace(
        text=config.text.replace(tokenizer="auto", vocab_size=800),
        task=ContrastiveConfig(),
        model=CLIPConfig(picture=seen, caption=CaptionVectorsConfig(dropout=0.0), d_shared=384, scale=20.0),
        optimizer=OptimizerConfig(lr=1e-5, beta_2=0.98, weight_decay=0.0),
        schedule=ScheduleConfig(warmup=20, final_fraction=0.0),
        train=config.train.replace(steps=60, batch_size=512, eval_every=20, choose="last"),
    )


def clip_tuned(corpus: str) -> RunConfig:
    """`clip-frozen`, but pictures are changed in every epoch, and EfficientNet-Lite0 is trained further on them.

    Training begins with the map from its vectors to MiniLM's solved. Ten minutes of a core, and the nets are fetched
    first, as for `clip-frozen`, which it is not shown to surpass (docs/pictures.md).
    """
    config = clip_frozen(corpus)
    seen = EfficientNetConfig(stages=True, solved=True, dropout=0.5)
    return config.replace(
        task=clip(corpus).task,
        model=config.model.replace(picture=seen),
        optimizer=OptimizerConfig(lr=4e-4, beta_2=0.98, weight_decay=0.0),
        train=config.train.replace(steps=200, batch_size=64, eval_every=50),
    )


def small(corpus: str) -> RunConfig:
    """nanoGPT's recipe for a CPU, with rotary positions: 4 layers x 128, context 64, 2,000 steps of 12 windows (0.8M).

    With `model.position=learned` it is nanoGPT's own (benchmarks/recipes.py measures both).
    """
    return RunConfig(
        corpus=corpus,
        model=TransformerConfig(
            context_length=64, n_layers=4, n_heads=4, d_model=128, position="rope", dropout=0.0, bias=False
        ),
        optimizer=OptimizerConfig(lr=1e-3, beta_2=0.99),
        schedule=ScheduleConfig(warmup=100),
        train=TrainConfig(steps=2000, batch_size=12, eval_every=250, save_every=500),
    )


def quick(corpus: str) -> RunConfig:
    """`small`, in the same 0.8M parameters and context, to nanoGPT's loss in a fifth of the tokens (docs/quick.md).

    Two wide layers instead of four, whose matrices Muon moves; nothing in a block that a CPU is slow at.
    """
    return RunConfig(
        corpus=corpus,
        model=TransformerConfig(
            context_length=64, n_layers=2, n_heads=3, d_model=192, d_ff=640, position="rope", norm="rms",
            activation="relu_squared", dropout=0.0, bias=False,
        ),
        optimizer=OptimizerConfig(name="muon", lr=0.015, matrix_lr=0.02, momentum=0.95, beta_2=0.99, weight_decay=0.0),
        schedule=ScheduleConfig(curve="linear", warmup=30, final_fraction=0.0),
        train=TrainConfig(steps=300, batch_size=16, eval_every=100, save_every=300),
    )  # fmt: skip


def medium(corpus: str) -> RunConfig:
    """nanoGPT's recipe for a GPU: 6 layers x 384, context 256, dropout 0.2, 5,000 steps of 64 (10.7M parameters)."""
    return RunConfig(
        corpus=corpus,
        model=TransformerConfig(context_length=256, n_layers=6, n_heads=6, d_model=384, dropout=0.2, bias=False),
        optimizer=OptimizerConfig(lr=1e-3, beta_2=0.99),
        schedule=ScheduleConfig(warmup=100),
        train=TrainConfig(steps=5000, batch_size=64, eval_every=250, save_every=250),
    )


def gpt2(corpus: str) -> RunConfig:
    """GPT-2's smallest model with its own tokenizer (124M parameters)."""
    return RunConfig(
        corpus=corpus,
        text=TextConfig(tokenizer="gpt2"),
        model=TransformerConfig(),
        optimizer=OptimizerConfig(lr=6e-4),
        schedule=ScheduleConfig(warmup=700),
        train=TrainConfig(steps=10000, batch_size=8, grad_accumulation=4, eval_every=500, save_every=500),
    )


def llama(corpus: str) -> RunConfig:
    """Llama's architecture in GPT-2's size: 12 layers x 768, 12 query heads on 4 key heads (114,114,048 parameters)."""
    return RunConfig(
        corpus=corpus,
        text=TextConfig(tokenizer="gpt2"),
        model=TransformerConfig(
            n_kv_heads=4, position="rope", norm="rms", activation="swiglu", bias=False, dropout=0.0
        ),
        optimizer=OptimizerConfig(lr=6e-4),
        schedule=ScheduleConfig(warmup=700),
        train=TrainConfig(steps=10000, batch_size=8, grad_accumulation=4, eval_every=500, save_every=500),
    )


def mlp(corpus: str) -> RunConfig:
    """A multilayer perceptron with batch norm over 3 tokens: 200 tanh units, 20,000 steps of 32 predictions.

    The model and the descent of Karpathy's makemore, part 3, a tenth as long; 12,097 parameters for names.
    """
    return RunConfig(
        corpus=corpus,
        model=MLPConfig(hidden_bias=False),
        optimizer=OptimizerConfig(name="sgd", lr=0.1, momentum=0.0, weight_decay=0.0),
        schedule=ScheduleConfig(curve="step", warmup=0, drops=(0.5,), final_fraction=0.1),
        train=TrainConfig(steps=20_000, batch_size=32, clip=None, eval_every=2000, save_every=10_000),
    )


def makemore(corpus: str) -> RunConfig:
    """Makemore's script itself, for its names.txt: its shuffle and split of lines, its generator, all 200,000 steps.

    With the bias before the batch norm that the lecture's last version dropped: 12,297 parameters.
    """
    config = mlp(corpus)
    return config.replace(
        text=TextConfig(unit="line", dev_fraction=0.1, test_fraction=0.1, shuffle_seed=42),
        model=config.model.replace(batch_norm_epsilon=0.0, hidden_bias=True),
        train=config.train.replace(steps=200_000, eval_every=20_000, save_every=50_000, sample_tokens=0),
        generator=2147483647,
    )


RECIPES: dict[str, Callable[[str], RunConfig]] = {
    "tiny": tiny,
    "small": small,
    "quick": quick,
    "medium": medium,
    "gpt2": gpt2,
    "llama": llama,
    "mlp": mlp,
    "makemore": makemore,
    "translate": translate,
    "classify": classify,
    "clip": clip,
    "clip-frozen": clip_frozen,
    "clip-tuned": clip_tuned,
}


def recipe(name: str, corpus: str, columns: Mapping[str, str] | None = None) -> RunConfig:
    """The run config of a recipe; `auto` is translate for a corpus of pairs, classify for one of texts and labels, clip
    for one of pictures and captions, tiny for one of lines and quick for running text and files.

    Raises:
        ConfigError: for an unknown name.
    """
    if name == "auto":
        read = open_corpus(corpus, columns=columns)
        by_line = "tiny" if read.unit == "line" else "quick"
        kinds = {
            "clip": is_captioned(read),
            "classify": is_labelled(read),
            "translate": read.fields == ("source", "target"),
        }
        name = next((name for name, is_one in kinds.items() if is_one), by_line)
    if name not in RECIPES:
        raise ConfigError(f"there is no recipe {name!r}; known are {', '.join(RECIPES)}")
    return RECIPES[name](corpus)
