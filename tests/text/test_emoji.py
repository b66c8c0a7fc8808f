"""The emoji: fetched as data, of equal pictures one, near-duplicates in one group; drawn the same on every call."""

import hashlib
import io
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from fontTools.feaLib.builder import addOpenTypeFeaturesFromString
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from PIL import features
from typer.testing import CliRunner

from windtunnel.cli import app
from windtunnel.errors import DataError
from windtunnel.text.corpora import FETCHED, MADE_FROM_FILE, emoji, listing, open_corpus
from windtunnel.text.corpora.emoji import (
    EMOJI,
    NAMES,
    NOTO,
    OPENMOJI,
    caption_of,
    fetch_emoji,
    group_of,
    installed_font,
    unlike,
)
from windtunnel.text.corpora.emoji_keywords import make_keywords
from windtunnel.text.corpora.glyphs import Glyphs
from windtunnel.text.pictures import pixels
from windtunnel.text.splits import document_split
from windtunnel.text.store import TextConfig, prepare

COLOURS = {"red": (1, 0, 0, 1), "blue": (0, 0, 1, 1), "green": (0, 1, 0, 1), "grey": (0.5, 0.5, 0.5, 1)}
SHAPES = {"😀": "red", "🐟": "blue", "👨": "green", "🚀": "green", "✈": "red", "👩": "red"}
"""Of each character the colour of its square; 👨 ZWJ 🚀 is a grey one, 👩 ZWJ 🚀 looks the same."""
NAMED = {
    "😀": {"en": ":grinning_face:", "status": 2, "alias": [":grin:", ":Grinning_Face:"]},
    "🐟": {"en": ":fish:", "status": 2},
    "👨‍🚀": {"en": ":man_astronaut:", "status": 2},
    "👩‍🚀": {"en": ":woman_astronaut:", "status": 2},
    "👩": {"en": ":woman:", "status": 2},
    "👩🏽": {"en": ":woman_medium_skin_tone:", "status": 2},
    "✈️": {"en": ":airplane:", "status": 2},
    "✈": {"en": ":airplane:", "status": 4},
    "👨‍✈️": {"en": ":man_pilot:", "status": 2},
    "🦄": {"en": ":unicorn:", "status": 2},
}
"""The font has no unicorn, and draws man and airplane side by side; the woman looks as the airplane and 😀 do."""


def square(size):
    pen = TTGlyphPen(None)
    pen.moveTo((100, 0))
    for point in ((100, size), (100 + size, size), (100 + size, 0)):
        pen.lineTo(point)
    pen.closePath()
    return pen.glyph()


def font(shapes=SHAPES):
    """A colour font (COLR 0) of a few squares."""
    names = {character: f"u{ord(character):x}" for character in (*shapes, "\u200d", "\ufe0f")}
    glyphs = {
        ".notdef": square(500),
        "astro": square(700),
        "square": square(700),
        **{n: square(700) for n in names.values()},
    }
    glyphs[names["\u200d"]] = glyphs[names["\ufe0f"]] = TTGlyphPen(None).glyph()
    build = FontBuilder(1000)
    build.setupGlyphOrder(list(glyphs))
    build.setupCharacterMap({ord(character): name for character, name in names.items()})
    build.setupGlyf(glyphs)
    zero = {names["\u200d"], names["\ufe0f"]}
    build.setupHorizontalMetrics({name: (0 if name in zero else 1000, 0 if name in zero else 100) for name in glyphs})
    build.setupHorizontalHeader(ascent=800, descent=-200)
    build.setupNameTable({"familyName": "Squares", "styleName": "Regular"})
    build.setupOS2()
    build.setupPost()
    place = {name: i for i, name in enumerate(COLOURS)}
    layers = {names[character]: [("square", place[colour])] for character, colour in shapes.items()}
    build.setupCOLR({**layers, "astro": [("square", place["grey"])]})
    build.setupCPAL([list(COLOURS.values())])
    man, woman, zwj, rocket = (names[character] for character in "👨👩\u200d🚀")
    rules = "".join(f"sub {one} {zwj} {rocket} by astro;" for one in (man, woman))
    addOpenTypeFeaturesFromString(
        build.font, f"feature ccmp {{ {rules} sub {names['✈']} {names[chr(0xFE0F)]} by {names['✈']}; }} ccmp;"
    )
    file = io.BytesIO()
    build.save(file)
    return file.getvalue()


def wheel(**files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        packed.writestr("__init__.py", "raise SystemExit('must never run')")
        for name, data in files.items():
            packed.writestr(name, data)
    return buffer.getvalue()


@pytest.fixture
def got(serve, monkeypatch, tmp_path):
    """The emoji as fetched from archives of a few squares and names; the folder of the cache."""
    monkeypatch.setattr(emoji, "FONT_BYTES", 100_000)
    openmoji = wheel(**{emoji.FONT_MEMBER: font()})
    translated = {one: entry["en"].replace("fish", "poisson") for one, entry in NAMED.items()}
    languages = {f"emoji/unicode_codes/emoji_{language}.json": json.dumps(translated) for language in emoji.LANGUAGES}
    names = wheel(**{"emoji/unicode_codes/emoji.json": json.dumps(NAMED), **languages})
    serve(*OPENMOJI, openmoji)
    serve(*NAMES, names)
    for name in EMOJI:
        with pytest.raises(DataError, match=f"get it: windtunnel corpora get {name}$|is drawn with the font"):
            open_corpus(name)
    with pytest.raises(DataError, match=r"SHA-256 .*, expected 93a5ccfd"):
        FETCHED["emoji"]()
    sums = [hashlib.sha256(data).hexdigest() for data in (openmoji, names)]
    assert fetch_emoji(None, *sums) == tmp_path / "cache" / "corpora" / emoji.CAPTIONS
    assert fetch_emoji() == fetch_emoji(None, *sums)  # nothing is fetched again
    return tmp_path / "cache" / "corpora"


def test_of_equal_pictures_one_is_taken_and_those_without_a_glyph_are_not(got):
    corpus = open_corpus("emoji")
    assert corpus.fields == ("picture", "caption", "group")
    assert list(corpus.read()) == [
        "🐟\tfish\tfish",
        "👨‍🚀\tman astronaut\tastronaut",
        "👩\twoman\tperson",
    ]
    assert list(open_corpus("emoji-by-picture").read())[1:] == ["👨‍🚀\tman astronaut", "👩\twoman"]
    assert list(open_corpus("emoji-captions").read())[:3] == [
        "🐟\tfish\tfish",
        "🐟\tpoisson\tfish",
        "👨‍🚀\tman astronaut\tastronaut",
    ]
    assert "CC BY-SA 4.0" in corpus.pictures.credit
    sizes = {one["name"]: one["size"] for one in listing()}
    assert sizes["emoji-captions"] == "3 pictures, 4 captions"
    assert sizes["emoji-keywords"] == "not fetched yet: windtunnel corpora get emoji-keywords"
    assert "CC BY-SA 4.0, OpenMoji" in corpus.licence


def test_a_glyph_is_cut_out_centred_and_drawn_the_same_on_every_call(got):
    pictures = open_corpus("emoji").pictures
    for name, colour in {"🐟": (0, 0, 255), "👨‍🚀": (128, 128, 128), "👨": (0, 255, 0)}.items():
        for size in (16, 50, 300):
            drawn = pictures.draw(name, size)
            assert drawn.shape == (size, size, 3)
            assert drawn.dtype == np.uint8
            edge = size // 40
            assert (drawn[:edge] > 250).all()
            assert (drawn[:, size - edge :] > 250).all()
            inner = drawn[size // 8 : -size // 8, size // 8 : -size // 8]
            assert np.abs(inner.astype(int) - colour).max() <= 12
            assert (drawn == pictures.draw(name, size)).all()
            for axes in ((1, 2), (0, 2)):
                ink = np.flatnonzero((drawn < 200).any(axes))
                assert abs(ink[0] - (size - 1 - ink[-1])) <= max(1, size // 50)
    assert pictures.sha256("🐟") != pictures.sha256("👨")
    with pytest.raises(DataError, match=r"cannot draw .*; use a font that has"):
        pictures.draw("\u200d", 16)


def test_a_font_that_is_none_or_another_is_told(got, tmp_path):
    pictures = open_corpus("emoji").pictures
    before = pictures.sha256("🐟")
    (got / emoji.FONT).write_bytes(b"no font")
    with pytest.raises(DataError, match=r"openmoji-17\.0\.0\.ttf: cannot be read as a font"):
        Glyphs(got / emoji.FONT, "", strike=33).draw("🐟", 8)
    assert pictures.sha256("🐟") != before
    with pytest.raises(DataError, match=r"gone\.ttf: cannot be read"):
        Glyphs(tmp_path / "gone.ttf", "").sha256("🐟")


def test_without_the_library_that_joins_characters_the_cure_is_told(got, monkeypatch):
    monkeypatch.setattr(features, "check", lambda name: False)
    with pytest.raises(DataError, match=r"needs the library FriBiDi; install it \(apt-get install libfribidi0"):
        Glyphs(got / emoji.FONT, "", strike=34).draw("🐟", 8)


def test_names_and_groups():
    assert caption_of("🇳🇴", ":Norway:") == "flag of Norway"
    assert caption_of("🏴\U000e0067\U000e0062\U000e007f", ":Wales:") == "flag of Wales"
    assert caption_of("🎌", ":crossed_flags:") == "crossed flags"
    groups = {
        "man pilot": "pilot",
        "woman pilot": "pilot",
        "Person: beard": "beard",
        "man and woman holding hands": "holding hands",
        "women holding hands": "holding hands",
        "left-facing fist": "fist",
        "man walking facing right": "walking",
        "woman’s boot": "boot",
        "man": "person",
        "up-left arrow": "up arrow",
        "human mandrill": "human mandrill",
    }
    assert {caption: group_of(caption) for caption in groups} == groups
    assert unlike(["flag of Chad", "flag for Chad", "flag of chad", "Chad"]) == [
        "flag of Chad",
        "flag for Chad",
        "Chad",
    ]


def test_keywords_of_a_file_are_further_captions(got, tmp_path):
    file = tmp_path / "data.json"
    entries = [
        {"emoji": "🐟\ufe0f", "tags": ["Pisces", "fish", "sea  food"]},
        {"emoji": "👨‍🚀"},
        {"emoji": "🦄", "tags": ["x"]},
    ]
    file.write_text(json.dumps(entries), encoding="utf-8")
    with pytest.raises(DataError, match="get it: windtunnel corpora get emoji-keywords"):
        open_corpus("emoji-keywords")
    get = ("corpora", "get")
    assert "made from a file; say which file: --file PATH" in str(
        CliRunner().invoke(app, [*get, "emoji-keywords"]).exception
    )
    assert "leave --file out" in str(CliRunner().invoke(app, [*get, "emoji", "--file", str(file)]).exception)
    assert CliRunner().invoke(app, [*get, "emoji-keywords", "--file", str(file)]).exit_code == 0
    expected = [
        "🐟\tfish\tfish",
        "🐟\tPisces\tfish",
        "🐟\tsea food\tfish",
        "👨‍🚀\tman astronaut\tastronaut",
        "👩\twoman\tperson",
    ]
    assert list(open_corpus("emoji-keywords").read()) == expected
    assert list(MADE_FROM_FILE) == ["emoji-keywords"]
    wrong = ('[{"emoji": 3}]', '[{"emoji": "🐟", "tags": 3}]', '[{"emoji": "🐟", "tags": [3]}]')
    for text in ("[]", "{}", '["a"]', "[1", *wrong):
        file.write_text(text, encoding="utf-8")
        with pytest.raises(DataError, match=r"data\.json: .*expected a list of .* emojibase-data"):
            make_keywords(file)
    with pytest.raises(DataError, match=r"gone\.json: cannot be read .*expected a list of"):
        make_keywords(tmp_path / "gone.json")


def test_noto_needs_its_font(got, monkeypatch, tmp_path):
    monkeypatch.setattr(emoji, "FONT_FOLDERS", (tmp_path / "fonts",))
    with pytest.raises(DataError, match=r"emoji-noto is drawn with the font NotoColorEmoji\.ttf, .*; install it"):
        open_corpus("emoji-noto")
    (tmp_path / "fonts" / "noto").mkdir(parents=True)
    (tmp_path / "fonts" / "noto" / NOTO).write_bytes(font({one: SHAPES[one] for one in SHAPES if one != "🐟"}))
    assert list(open_corpus("emoji-noto").read()) == list(open_corpus("emoji").read())[1:]
    assert open_corpus("emoji-noto").pictures.credit.startswith("Noto")


def test_two_styles_are_pictures_of_the_same_captions(got, monkeypatch, tmp_path):
    monkeypatch.setattr(emoji, "FONT_FOLDERS", (tmp_path / "fonts",))
    with pytest.raises(DataError, match=r"emoji-noto is drawn with the font NotoColorEmoji\.ttf, .*; install it"):
        open_corpus("emoji-styles")
    (tmp_path / "fonts").mkdir()
    (tmp_path / "fonts" / NOTO).write_bytes(font({one: SHAPES[one] for one in SHAPES if one != "🐟"}))
    corpus, plain, noto = (open_corpus(name) for name in ("emoji-styles", "emoji", "emoji-noto"))
    wanted = [f"OpenMoji {line}" for line in plain.read()] + [f"Noto {line}" for line in noto.read()]
    assert list(corpus.read()) == wanted
    assert "OpenMoji" in corpus.pictures.credit
    assert "Noto" in corpus.pictures.credit
    for style, one in (("OpenMoji", plain), ("Noto", noto)):
        name = next(iter(noto.read())).partition("\t")[0]
        assert (corpus.pictures.draw(f"{style} {name}", 32) == one.pictures.draw(name, 32)).all()
        assert corpus.pictures.sha256(f"{style} {name}") == one.pictures.sha256(name)


def users_cache():
    """The cache of the person who runs the tests; the tests' own is empty."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "windtunnel" / "corpora"


@pytest.fixture
def real(tmp_path, monkeypatch):
    """The real emoji, where the person who runs the tests has fetched them."""
    files = [users_cache() / name for name in (emoji.FONT, emoji.CAPTIONS, emoji.ALL_CAPTIONS)]
    if not all(path.exists() for path in files):
        pytest.skip("the emoji are not on this machine; get them: windtunnel corpora get emoji")
    monkeypatch.setenv("WINDTUNNEL_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache" / "corpora").mkdir(parents=True)
    for path in files:
        (tmp_path / "cache" / "corpora" / path.name).symlink_to(path)


def test_the_real_emoji(real):
    documents = [line.split("\t") for line in open_corpus("emoji").read()]
    assert len(documents) == len({picture for picture, *_ in documents}) == 1893
    assert ["👨‍✈️", "man pilot", "pilot"] in documents
    assert len(list(open_corpus("emoji-captions").read())) > 5 * 1893
    store = prepare(open_corpus("emoji"), TextConfig(dev_fraction=0.1, test_fraction=0.1))
    groups = {split: {document_split(g, 0.1, 0.1) for p, _, g in documents if p in own} for split, own in names(store)}
    assert groups == {split: {split} for split in ("train", "dev", "test")}
    assert sum(caption.startswith("flag of ") for _, caption, _ in documents) == 255


def names(store):
    return [(split, {store.pictures[i] for i in part.pictures}) for split, part in store.splits.items()]


def test_the_real_emoji_in_the_style_of_noto(real):
    if installed_font(NOTO) is None:
        pytest.skip(f"the font {NOTO} is not installed")
    store = prepare(open_corpus("emoji-noto"), TextConfig(dev_fraction=0.1, test_fraction=0.1))
    other = dict(names(prepare(open_corpus("emoji"), TextConfig(dev_fraction=0.1, test_fraction=0.1))))
    assert 1800 < len(store.pictures) <= 1893
    assert all(own <= other[split] for split, own in names(store))
    corpus = open_corpus("emoji-noto")
    drawn = np.stack([corpus.pictures.draw(name, 32) for name in store.pictures[::100]])
    assert (drawn.reshape(len(drawn), -1).std(axis=1) > 10).all()
    both = dict(names(prepare(open_corpus("emoji-styles"), TextConfig(dev_fraction=0.1, test_fraction=0.1))))
    for split, own in both.items():
        assert {name.removeprefix("OpenMoji ") for name in own if name.startswith("OpenMoji")} == other[split]


@pytest.mark.slow
def test_all_real_emoji_are_different_pictures(real):
    store = prepare(open_corpus("emoji"), TextConfig())
    assert len(np.unique(pixels(store, 64).reshape(len(store.pictures), -1), axis=0)) == 1893
