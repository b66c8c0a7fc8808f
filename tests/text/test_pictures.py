"""Captions of pictures as a corpus and a store: near-duplicates in one split, pictures as pixels, drawn once."""

import csv
import hashlib
import io
import json
import logging
import os
import struct
import zlib
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from windtunnel.errors import ArtifactError, ConfigError, DataError
from windtunnel.text.corpora import open_corpus
from windtunnel.text.pictures import pixels
from windtunnel.text.split_corpus import texts_of_splits
from windtunnel.text.splits import document_split
from windtunnel.text.store import TextConfig, open_store, prepare
from windtunnel.text.tokenizers import characters_tokenizer

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def save(path, colour=RED, size=(8, 8), **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path, **how)
    return path


def folder_of(path, n=40, rows=None, heads=("picture", "caption"), file="captions.csv"):
    """A folder with n pictures, and a table of captions where there are rows."""
    for i in range(n):
        save(path / f"a_{i}-dog.png", (i, 2 * i, 255 - i))
    if rows is not None:
        with (path / file).open("w", encoding="utf-8", newline="") as into:
            csv.writer(into, delimiter="\t" if ".tsv" in file else ",").writerows([heads, *rows])
    return str(path)


def drawn(path, size=8):
    corpus = open_corpus(str(path.parent))
    return corpus.pictures.draw(path.name, size)


def captions(store, split):
    places = store.splits[split].pictures
    return [(store.pictures[i], text) for i, text in zip(places, store.documents(split), strict=True)]


def test_names_of_files_are_captions(tmp_path):
    folder = folder_of(tmp_path / "p", 2)
    save(tmp_path / "p" / "sea" / "three_fish-coral.v2.JPG")
    (tmp_path / "p" / ".hidden.png").write_bytes(b"no")
    corpus = open_corpus(folder)
    assert corpus.fields == ("picture", "caption")
    assert list(corpus.read()) == [
        "a_0-dog.png\ta 0 dog",
        "a_1-dog.png\ta 1 dog",
        "sea/three_fish-coral.v2.JPG\tthree fish coral v2",
    ]
    assert corpus.description == "3 pictures (1 hidden skipped), with the captions of their file names"
    save(tmp_path / "p" / "_.png")
    with pytest.raises(DataError, match=r"_\.png: its name says nothing, expected words; rename it"):
        open_corpus(folder)


def test_a_table_says_captions_and_its_ids_are_theirs_alone(tmp_path):
    rows = [(f"a_{i}-dog.png", f"dog\n {i} {word}") for i in range(40) for word in ("one", "two")]
    folder = folder_of(tmp_path / "p", rows=rows)
    config = TextConfig(dev_fraction=0.1, test_fraction=0.2, tokenizer="characters")
    store = prepare(open_corpus(folder), config, tmp_path)
    assert store.pictures == tuple(sorted({name for name, _ in rows}))
    found = {split: captions(store, split) for split in store.splits}
    expected = [(name, text.replace("\n", "")) for name, text in rows]
    assert sorted(pair for own in found.values() for pair in own) == sorted(expected)
    n_pictures = {split: len({name for name, _ in own}) for split, own in found.items()}
    assert n_pictures == {"train": 28, "dev": 4, "test": 8}
    assert {split: len(own) for split, own in found.items()} == {"train": 56, "dev": 8, "test": 16}
    assert all(pair[0].endswith("one") for pair in pairwise([text for _, text in found["dev"]][::2]))
    assert texts_of_splits(store.corpus, config) == {split: [t for _, t in own] for split, own in found.items()}
    assert store.splits["dev"].n_bytes == sum(len(text) + 1 for _, text in found["dev"])
    assert "." not in store.tokenizer.decode(range(store.tokenizer.vocab_size))  # of names of files it knows nothing


def test_a_group_goes_by_its_hash_alone(tmp_path):
    rows = [(f"a_{i}-dog.png", f"dog {i}", f"kind {i // 4}") for i in range(80)]
    folder = folder_of(tmp_path / "p", 80, rows, heads=("picture", "caption", "group"))
    config = TextConfig(dev_fraction=0.3, test_fraction=0.3)
    store = prepare(open_corpus(folder), config, tmp_path)
    for split in store.splits:
        assert captions(store, split) == [row[:2] for row in rows if document_split(row[2], 0.3, 0.3) == split]
        assert len(store.splits[split].pictures) % 4 == 0
    shuffled = prepare(open_corpus(folder), TextConfig(shuffle_seed=1, dev_fraction=0.3, test_fraction=0.3), tmp_path)
    kinds = [
        {kind for name, _ in captions(shuffled, split) for one, _, kind in rows if one == name}
        for split in store.splits
    ]
    assert [len(own) for own in kinds] == [8, 6, 6]
    assert len(set.union(*kinds)) == 20


def test_a_column_says_the_split_and_no_picture_stands_in_two(tmp_path):
    rows = [(f"a_{i}-dog.png", f"dog {i}", ("train", "dev", "test")[i % 3]) for i in range(9)]
    heads = ("picture", "caption", "split")
    store = prepare(open_corpus(folder_of(tmp_path / "p", 9, rows, heads)), TextConfig(), tmp_path)
    for split in store.splits:
        assert captions(store, split) == [row[:2] for row in rows if row[2] == split]
    twice = folder_of(tmp_path / "p", 9, [*rows, ("a_0-dog.png", "a dog", "dev")], heads)
    with pytest.raises(DataError, match=r"the picture a_0-dog\.png stands in train and in dev"):
        prepare(open_corpus(twice), TextConfig(), tmp_path)


def test_columns_of_other_names_and_other_tables(tmp_path):
    rows = [(f"a_{i}-dog.png", f"dog {i}") for i in range(9)]
    columns = {"caption": "text", "picture": "file_name"}
    folder = folder_of(tmp_path / "p", 9, rows, ("file_name", "text"), "metadata.tsv")
    expected = ["\t".join(row) for row in rows]
    for given in (folder, f"{folder}/metadata.tsv"):
        corpus = open_corpus(given, columns=columns)
        assert (corpus.fields, list(corpus.read())) == (("picture", "caption"), expected)
    (tmp_path / "p" / "metadata.tsv").unlink()
    (tmp_path / "p" / "own.jsonl").write_text(
        "".join(json.dumps({"picture": name, "caption": text}) + "\n" for name, text in rows)
    )
    for given in (folder, f"{folder}/own.jsonl"):
        assert list(open_corpus(given).read()) == expected


def test_tables_in_one_folder_are_one_and_those_in_several_are_refused(tmp_path):
    rows = [(f"a_{i}-dog.png", f"dog {i}") for i in range(4)]
    folder_of(tmp_path / "p", 4, rows[:2], file="one.csv")
    folder_of(tmp_path / "p", 4, rows[2:], file="two.csv")
    corpus = open_corpus(f"{tmp_path}/p/*.csv")
    assert [tuple(document.split("\t")) for document in corpus.read()] == sorted(rows)
    assert corpus.pictures.draw("a_3-dog.png", 8).shape == (8, 8, 3)
    folder_of(tmp_path / "q", 4, rows, file="one.csv")
    with pytest.raises(DataError, match="tables of captions in several folders"):
        open_corpus(f"{tmp_path}/?/*.csv")


def test_a_folder_with_text_beside_its_pictures_is_text(tmp_path):
    folder_of(tmp_path, 3)
    (tmp_path / "one.txt").write_text("one\n")
    (tmp_path / "table.csv").write_text("a,b\n1,2\n")
    assert open_corpus(str(tmp_path)).fields == ("text",)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("gone.png,a dog", r"captions\.csv, line 3: there is no picture .*gone\.png; put it there, or delete the line"),
        ("a_0-dog.png,", r"captions\.csv, line 3: caption is empty, expected a caption"),
        (",a dog", r"line 3: picture is empty, expected a picture"),
        ("a_0-dog.png", r"line 3: expected 2 columns, as in the header, got 1"),
        (f"{'x' * 300}.png,a dog", r"line 3: there is no picture"),
        ("sub,a dog", r"line 3: there is no picture"),
    ],
)
def test_a_bad_row_is_named(tmp_path, row, message):
    folder = folder_of(tmp_path / "p", 2, [("a_1-dog.png", "a dog")])
    (tmp_path / "p" / "sub").mkdir()
    with (tmp_path / "p" / "captions.csv").open("a") as file:
        file.write(row + "\n")
    with pytest.raises(DataError, match=message):
        list(open_corpus(folder).read())


def test_a_table_named_captions_must_have_the_columns(tmp_path):
    folder = folder_of(tmp_path / "p", 2, [("a_1-dog.png", "a dog")], ("image", "text"))
    with pytest.raises(DataError, match="expected the columns picture and caption, got image, text; if they have"):
        open_corpus(folder)
    with pytest.raises(DataError, match="no column 'imag'; did you mean 'image'"):
        open_corpus(folder, columns={"picture": "imag", "caption": "text"})
    with pytest.raises(DataError, match="read by line; leave unit=text out"):
        open_corpus(folder, "text", {"picture": "image", "caption": "text"})


def test_a_linked_folder_is_read_once_and_a_loop_ends(tmp_path):
    folder = folder_of(tmp_path / "p", 2)
    (tmp_path / "p" / "self").symlink_to(tmp_path / "p")
    (tmp_path / "p" / "round.png").symlink_to("round.png")
    assert len(list(open_corpus(folder).read())) == 3
    with pytest.raises(DataError, match=r"round\.png: cannot be read as a picture \(Too many levels of sym"):
        prepare(open_corpus(folder), TextConfig(), tmp_path)


def test_pixels_are_drawn_once_and_again_when_they_are_damaged(tmp_path):
    store = prepare(open_corpus(folder_of(tmp_path / "p")), TextConfig(), tmp_path)
    calls = []
    found = pixels(store, 6, lambda done, total: calls.append((done, total)), tmp_path)
    assert (found.shape, found.dtype) == ((40, 6, 6, 3), np.uint8)
    assert calls == [(i + 1, 40) for i in range(40)]
    colours = [(i, 2 * i, 255 - i) for i in (int(name.split("_")[1].split("-")[0]) for name in store.pictures)]
    assert [tuple(picture[3, 3].tolist()) for picture in found] == colours
    assert (found == found[:, :1, :1]).all()
    again = pixels(store, 6, lambda *_: pytest.fail("drawn again"), tmp_path)
    assert isinstance(again, np.ndarray)
    assert (again == found).all()
    assert pixels(store, 7, cache=tmp_path).shape == (40, 7, 7, 3)
    (file,) = (path for path in (tmp_path / "pictures").glob("*/pixels.bin") if path.stat().st_size == 40 * 6 * 6 * 3)
    kept = np.array(found)
    del found, again
    file.write_bytes(bytes(file.stat().st_size))
    assert (pixels(store, 6, cache=tmp_path) == kept).all()


def test_a_changed_picture_gives_another_store(tmp_path):
    folder = folder_of(tmp_path / "p")
    first = prepare(open_corpus(folder), TextConfig(), tmp_path)
    assert prepare(open_corpus(folder), TextConfig(), tmp_path).folder == first.folder
    save(tmp_path / "p" / "a_7-dog.png", BLUE, (9, 9))
    second = prepare(open_corpus(folder), TextConfig(), tmp_path)
    assert second.sha256 != first.sha256
    assert second.folder != first.folder
    assert pixels(second, 4, cache=tmp_path)[second.pictures.index("a_7-dog.png"), 0, 0].tolist() == list(BLUE)


def test_a_store_whose_pictures_were_altered_is_built_again(tmp_path, caplog):
    corpus = open_corpus(folder_of(tmp_path / "p"))
    store = prepare(corpus, TextConfig(), tmp_path)
    for name in ("train.pictures.bin", "dev.pictures.bin", "pictures.json"):
        data = (store.folder / name).read_bytes()
        (store.folder / name).write_bytes(data[-4:] + data[4:])
        with pytest.raises(ArtifactError, match=name):
            open_store(store.folder, corpus)
        with caplog.at_level(logging.WARNING):
            assert prepare(corpus, TextConfig(), tmp_path).pictures == store.pictures


def test_a_store_without_pictures_states_nothing_of_them(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("".join(f"line {i}\n" for i in range(99)))
    store = prepare(open_corpus(str(path), "line"), TextConfig(), tmp_path)
    assert "pictures" not in (store.folder / "manifest.json").read_text()
    assert (store.pictures, store.splits["train"].pictures) == ((), None)
    with pytest.raises(ValueError, match="has no pictures"):
        pixels(store, 4)


def test_captions_are_encoded_by_bpe_and_too_few_are_told(tmp_path):
    store = prepare(open_corpus(folder_of(tmp_path / "p", 40)), TextConfig(dev_fraction=0.1), tmp_path)
    assert store.tokenizer.vocab_size > 256
    with pytest.raises(DataError, match="nothing is left for dev"):
        prepare(open_corpus(folder_of(tmp_path / "q", 3)), TextConfig(), tmp_path)
    with pytest.raises(ConfigError, match="was opened by line"):
        prepare(open_corpus(folder_of(tmp_path / "q", 3)), TextConfig(unit="file"), tmp_path)


def test_the_caption_that_a_tokenizer_cannot_read_is_named(tmp_path):
    """Names of pictures are not encoded: one with a character that the tokenizer lacks is no fault."""
    rows = [(f"a_{i}-dog.png", "thé" if i == 7 else "the dog") for i in range(40)]
    corpus, known = open_corpus(folder_of(tmp_path / "dogs", rows=rows)), characters_tokenizer("the dog", end=True)
    with pytest.raises(DataError, match=r"line 8: no token for the character 'é'"):
        prepare(corpus, TextConfig(tokenizer="characters"), tmp_path / "cache", known)


def test_a_picture_is_whole_and_centred_on_white(tmp_path):
    for size in ((20, 10), (2, 1), (3000, 1500)):
        found = drawn(save(tmp_path / "a dog.png", RED, size))
        assert found.shape == (8, 8, 3)
        assert (found[2:6] == RED).all()
        assert (found[:2] == WHITE).all()
        assert (found[6:] == WHITE).all()
    assert drawn(save(tmp_path / "a dog.png", RED, (2000, 1)))[3].tolist() == [list(RED)] * 8


def test_kinds_of_files_and_of_pixels(tmp_path):
    image = Image.new("RGB", (16, 16), RED)
    kinds = {
        "rgb.jpg": (image, {"quality": 95}),
        "cmyk.jpg": (image.convert("CMYK"), {"quality": 95}),
        "bmp.bmp": (image, {}),
        "webp.webp": (image, {"lossless": True}),
        "palette.png": (image.convert("P", palette=Image.Palette.ADAPTIVE), {}),
        "frames.gif": (image, {"save_all": True, "append_images": [Image.new("RGB", (16, 16), BLUE)]}),
    }
    for name, (one, how) in kinds.items():
        one.save(tmp_path / name, **how)
        assert np.abs(drawn(tmp_path / name).astype(int) - RED).max() <= 3, name
    grey = {
        "l.png": Image.new("L", (16, 16), 128),
        "l16.png": Image.fromarray(np.full((16, 16), 128 * 257, np.uint16)),
        "half.png": Image.new("RGBA", (16, 16), (0, 0, 0, 127)),
        "la.png": Image.new("LA", (16, 16), (0, 127)),
    }
    for name, one in grey.items():
        one.save(tmp_path / name)
        assert (drawn(tmp_path / name) == 128).all(), name
    clear = Image.new("P", (16, 16), 0)
    clear.putpalette([*RED, *BLUE])
    clear.save(tmp_path / "clear.gif", transparency=0)
    Image.new("1", (16, 16), 1).save(tmp_path / "one.png")
    assert (drawn(tmp_path / "clear.gif") == 255).all()
    assert (drawn(tmp_path / "one.png") == 255).all()


def test_a_photo_that_lies_on_its_side_is_turned(tmp_path):
    image = Image.new("RGB", (16, 16), RED)
    image.paste(BLUE, (0, 0, 8, 16))
    exif = Image.Exif()
    exif[0x0112] = 6  # its left side is the top
    image.save(tmp_path / "a dog.png", exif=exif)
    found = drawn(tmp_path / "a dog.png", 16)
    assert (found[:7] == BLUE).all()
    assert (found[9:] == RED).all()


def png_head(width, height):
    """A PNG of a few bytes that claims any size."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")


def noise():
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"just some text\n", "no picture, whatever its name says; expected JPEG, PNG, GIF, WEBP, BMP; replace it"),
        (b"", "no picture"),
        (b"\xff\xd8\xff\xe0", "no picture|damaged|cannot be read"),
        (noise()[:4000], "(cannot be read as a picture|damaged) .*; replace it by a whole picture, or take it out"),
        (png_head(8200, 8200), "8200 x 8200 pixels, and at most 67,108,864 are read here; make it smaller"),
        (png_head(40_000, 40_000), "more than 67,108,864 pixels; make it smaller"),
        (png_head(9700, 9700), "more than 67,108,864 pixels; make it smaller"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a git-LFS pointer .*: git lfs pull"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no picture"),
    ],
)
def test_one_bad_picture_among_many_is_named(tmp_path, data, message):
    folder = folder_of(tmp_path / "p")
    (tmp_path / "p" / "a_33-dog.png").write_bytes(data)
    with pytest.raises(DataError, match=rf"a_33-dog\.png: .*{message}"):
        pixels(prepare(open_corpus(folder), TextConfig(), tmp_path), 8, cache=tmp_path)
    assert not list((tmp_path / "pictures").glob("*")) or not list((tmp_path / "pictures").glob(".tmp*"))


def test_a_file_of_too_many_bytes_is_not_read(tmp_path):
    path = save(tmp_path / "a dog.png")
    os.truncate(path, 2**26 + 1)
    with pytest.raises(DataError, match=r"a dog\.png: 67,108,865 bytes, and a picture has at most"):
        drawn(path)


def test_a_folder_a_pipe_and_a_missing_file_are_told(tmp_path):
    pictures = open_corpus(folder_of(tmp_path / "p", 1)).pictures
    os.mkfifo(tmp_path / "p" / "pipe.png")
    for name, message in {"gone.png": "no such picture", "pipe.png": "it is a folder, a pipe", ".": "it is a"}.items():
        for read in (lambda name: pictures.draw(name, 8), pictures.sha256):
            with pytest.raises(DataError, match=message):
                read(name)


def test_the_hash_is_that_of_the_file(tmp_path):
    path = save(tmp_path / "a dog.png")
    pictures = open_corpus(str(tmp_path)).pictures
    assert pictures.sha256("a dog.png") == hashlib.sha256(path.read_bytes()).hexdigest()
    assert pictures.credit == ""
