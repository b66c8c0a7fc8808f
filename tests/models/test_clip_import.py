"""CLIP out of a Hugging Face folder: logits, ids and pixels are those of transformers; and what is refused."""

import json

import numpy as np
import pytest
import torch
from foreign_models import randomised
from PIL import Image
from transformers import CLIPConfig as TheirConfig
from transformers import CLIPModel, CLIPTokenizer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from shapes import NAMES, Shapes
from windtunnel.config import override
from windtunnel.errors import ArtifactError, DataError
from windtunnel.inspect.explain_augmentation import explain_augmentation
from windtunnel.inspect.retrieval import judge_retrieval
from windtunnel.inspect.search import open_gallery, search
from windtunnel.models.pretrained.clip_proof import compare_clip
from windtunnel.models.pretrained.huggingface import to_model
from windtunnel.models.pretrained.read import read_pretrained
from windtunnel.report.pretrained import import_lines
from windtunnel.tasks.vectors import captions_of, pictures_of
from windtunnel.text.corpora.picture_files import PictureFiles
from windtunnel.text.tokenizer_json import byte_characters
from windtunnel.text.tokenizers import Tokenizer
from windtunnel.training.events import Step
from windtunnel.training.imports import continue_from, import_run
from windtunnel.training.loop import fit
from windtunnel.training.run import load

MERGES = [("r", "e"), ("re", "d</w>"), ("s", "q"), ("sq", "u"), ("b", "l"), ("bl", "u"), ("blu", "e</w>")]
CAPTIONS = ["a red square", "Blue, BLUE  fish's\treef 42", "naïve 日本 🙂", "red"]
SIZE = 32


def vocabulary():
    letters = byte_characters()
    tokens = [*letters, *(letter + "</w>" for letter in letters), *map("".join, MERGES)]
    return {token: id for id, token in enumerate([*tokens, "<|startoftext|>", "<|endoftext|>"])}


def saved(folder, eos=None, **vision):
    """A CLIPModel with random weights and CLIP's tokenizer files. eos: what config.json says of it; None is right."""
    vocab = vocabulary()
    n = len(vocab)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = TheirConfig(
        text_config={
            **shape, "vocab_size": n, "max_position_embeddings": 20, "bos_token_id": n - 2,
            "eos_token_id": n - 1 if eos is None else eos, "pad_token_id": n - 1,
        },
        vision_config={**shape, "num_hidden_layers": 3, "image_size": SIZE, "patch_size": 8, **vision},
        projection_dim=24,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = randomised(CLIPModel(config))
    model.save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps(vocab))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *map(" ".join, MERGES)]) + "\n")
    prepared = {"size": {"shortest_edge": SIZE}, "crop_size": {"height": SIZE, "width": SIZE}}
    CLIPImageProcessorPil(**prepared, image_mean=[0.4, 0.5, 0.6]).save_pretrained(folder)
    return model


def change(folder, **changes):
    """Other values in the config.json: text_config__vocab_size=3 is inside of text_config."""
    path = folder / "config.json"
    data = json.loads(path.read_text())
    for name, value in changes.items():
        *inside, last = name.split("__")
        (data[inside[0]] if inside else data)[last] = value
    path.write_text(json.dumps(data))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Pictures wider and higher than they are wide and high."""
    folder, drawn = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for name, shape in {"wide": (50, 91, 3), "high": (77, 40, 3), "square": (SIZE, SIZE, 3)}.items():
        rough = drawn.integers(0, 256, (6, 6, 3), np.uint8)
        Image.fromarray(rough).resize(shape[1::-1], Image.Resampling.BICUBIC).save(folder / f"{name}.png")
    return folder


@pytest.mark.parametrize(
    ("eos", "act"), [(None, "quick_gelu"), (2, "quick_gelu"), (None, "gelu")], ids=["new", "old eos", "gelu"]
)
def test_logits_from_pictures_and_words_are_those_of_transformers(tmp_path, photos, eos, act):
    """From the files of pictures and the words of captions on: preparation, tokens, both towers and the scale."""
    theirs = saved(tmp_path, eos, hidden_act=act)
    found = read_pretrained(tmp_path)
    ours = to_model(found.config, found.weights)
    names = sorted(path.name for path in photos.iterdir())
    shown = [Image.open(photos / name).convert("RGB") for name in names]
    seen = CLIPImageProcessorPil.from_pretrained(tmp_path)(images=shown, return_tensors="pt")["pixel_values"]
    tokens = CLIPTokenizer.from_pretrained(tmp_path)(
        CAPTIONS, padding=True, truncation=True, max_length=20, return_tensors="pt"
    )
    drawn = np.stack([PictureFiles(photos, cropped=True).draw(name, SIZE) for name in names])
    read = captions_of(found.config, found.tokenizer, CAPTIONS)
    assert torch.equal(read["ids"][read["kept"]], tokens["input_ids"][tokens["attention_mask"].bool()])
    with torch.no_grad():
        expected = theirs(**tokens, pixel_values=seen).logits_per_text
        logits = ours(pictures_of(found.config, drawn), **read)[:, 0]
    assert expected.std() > 0.1
    assert (logits - expected).abs().max() < 1e-4
    proof = compare_clip(ours, tmp_path, found.tokenizer)
    assert proof.holds
    assert (proof.tokenizer.n_texts, proof.tokenizer.difference) == (4, "")
    assert found.config.n_parameters() == sum(tensor.numel() for tensor in found.weights.values())


def test_another_model_does_not_pass_for_it(tmp_path):
    saved(tmp_path)
    found = read_pretrained(tmp_path)
    weights = {**found.weights, "picture.class_token": -found.weights["picture.class_token"]}
    assert not compare_clip(to_model(found.config, weights), tmp_path).holds


def test_it_is_a_run_of_the_family_clip(tmp_path):
    (tmp_path / "model").mkdir()
    saved(tmp_path / "model")
    imported = import_run(tmp_path / "model", tmp_path / "run")
    trained = load(imported.run.folder)
    assert (trained.model.config.family, trained.run.config.task.kind) == ("clip", "contrastive")
    assert "preprocessor_config.json" in trained.run.record["source"]["sha256"]
    assert imported.to_dict()["proof"]["holds"]
    lines = import_lines(imported)
    assert lines[0].startswith("clip: ")
    assert "3 layers x 32 and 2 layers x 32, context 20" in lines[0]
    assert any(line.startswith("  logits: largest difference") for line in lines)
    assert lines[-1].startswith("next: windtunnel search ")


def test_it_searches_and_is_judged_on_a_corpus_and_trained_further(tmp_path, monkeypatch):
    monkeypatch.setenv("WINDTUNNEL_CACHE", str(tmp_path / "cache"))
    (tmp_path / "model").mkdir()
    (tmp_path / "photos").mkdir()
    saved(tmp_path / "model")
    for name in NAMES:
        Image.fromarray(Shapes().draw(name, 40)).save(tmp_path / "photos" / f"{name.replace(' ', '_')}.png")
    photos = str(tmp_path / "photos")
    trained = load(import_run(tmp_path / "model", tmp_path / "run", photos, proof=False).run.folder)
    judged = judge_retrieval([trained.run.folder], "test")
    found = search(trained, "Red square coral", open_gallery(trained))
    assert len(found.gallery.names) == judged.n
    assert found.new_words == ("coral",)
    away = open_gallery(trained, tmp_path / "photos")
    same = [away.vectors[away.names.index(name)] for name in found.gallery.names]
    assert np.allclose(same, found.gallery.vectors, atol=1e-5)  # the middle square in both
    shown = explain_augmentation(trained.run.config, trained.run, pictures=2, draws=1)
    assert shown.plain.shape == (2, SIZE, SIZE, 3)
    further = override(continue_from(trained.run.folder, photos), ["train.steps=2", "train.threads=1"])
    steps = [event for event in fit(further, tmp_path / "further") if isinstance(event, Step)]
    assert [event.step for event in steps] == [1, 2]


def test_captions_come_back_from_their_ids_in_small_letters(tmp_path):
    saved(tmp_path)
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.decode(tokenizer.encode("A  red Square")) == "a red square"
    again = Tokenizer.from_json(tokenizer.to_json())
    assert (again.marks, again.encode("Blue fish").tolist()) == (
        tokenizer.marks,
        tokenizer.encode("blue fish").tolist(),
    )


def test_a_byte_without_its_end_of_word_is_refused_and_not_left_out(tmp_path):
    saved(tmp_path)
    vocab = vocabulary()
    vocab = {token: id for id, token in enumerate(token for token in vocab if token != "z</w>")}
    (tmp_path / "vocab.json").write_text(json.dumps(vocab))
    with pytest.raises(DataError, match="no token for the character 'z'"):
        Tokenizer.load(tmp_path).encode("jazz")


def test_a_folder_without_preparation_gets_openais_and_says_so(tmp_path):
    saved(tmp_path)
    (tmp_path / "preprocessor_config.json").unlink()
    found = read_pretrained(tmp_path)
    assert found.config.picture.mean == (0.48145466, 0.4578275, 0.40821073)
    assert any("no preprocessor_config.json" in note for note in found.notes)


def test_old_files_say_the_towers_twice_and_the_second_counts(tmp_path):
    saved(tmp_path)
    own = json.loads((tmp_path / "config.json").read_text())["text_config"]
    change(tmp_path, text_config={"vocab_size": 7}, text_config_dict=own)
    assert compare_clip(to_model(*_read(tmp_path)), tmp_path).holds


def _read(folder):
    found = read_pretrained(folder)
    return found.config, found.weights


@pytest.mark.parametrize(
    ("changes", "message"),
    {
        "act": ({"vision_config__hidden_act": "silu"}, "vision_config: hidden_act='silu' is not built in, only"),
        "unknown": ({"text_config__rope": 1}, r"text_config asks for what.*rope=1 \(unknown here"),
        "outside": ({"sparse": True}, "sparse=True .unknown here.*remove them from the file"),
        "channels": ({"vision_config__num_channels": 1}, "num_channels=1 .a picture has red, green and blue"),
        "patch": ({"vision_config__patch_size": 7}, "size 32 is not divisible by patch 7"),
        "no object": ({"vision_config": 3}, "vision_config asks for"),
        "dropout": ({"text_config__attention_dropout": 0.1}, "act in training only: set both to 0.0"),
        "layers": ({"text_config__num_hidden_layers": 3}, "do not fit its config.json; tensors 16 missing"),
        "many": ({"text_config__num_hidden_layers": 10**9}, "says more layers than there are tensors"),
        "code": ({"auto_map": {"AutoModel": "x.y"}}, "no foreign code is run"),
    }.values(),
)  # fmt: skip
def test_what_it_cannot_be_is_refused_by_name(tmp_path, changes, message):
    saved(tmp_path)
    change(tmp_path, **changes)
    with pytest.raises(ArtifactError, match=message):
        read_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crop_size": {"height": 24, "width": 24}}, "crop_size=.*reads pictures of 32 pixels a side"),
        ({"size": {"height": 32, "width": 32}}, "size=.*reads pictures of 32 pixels a side"),
        ({"resample": 2}, "resample=2 .pictures are made smaller by bicubic"),
        ({"do_center_crop": False}, "do_center_crop=False .the middle square"),
        ({"do_blur": True}, "do_blur=True .unknown here"),
    ],
)
def test_another_preparation_of_pictures_is_refused(tmp_path, changes, message):
    saved(tmp_path)
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(ArtifactError, match=message):
        read_pretrained(tmp_path)


def test_another_end_of_captions_is_refused(tmp_path):
    saved(tmp_path, eos=5)
    with pytest.raises(DataError, match=r"ends with token 520 .*config.json says 5"):
        read_pretrained(tmp_path)
