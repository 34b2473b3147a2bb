"""Labels: alignment with a feature set, merging, label files, classes as users write them, and labels from prompts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from equipoise.methods.labels.label_text import labels_from_prompts, parse_classes
from equipoise.methods.labels.labels import LabelSet, for_entries, joined, merged, read_csv, read_csv_as, write_csv


@dataclass(frozen=True)
class Named:
    file: str


def entries(*files: str) -> list[Named]:
    return [Named(f) for f in files]


def hair(*files: str, short: tuple[float, ...] = ()) -> LabelSet:
    p = torch.tensor([[s, 1 - s] for s in short or [0.9, 0.2, 0.7][: len(files)]])
    return LabelSet({"hair": ("short", "long")}, files, {"hair": p}, {"hair": "test"})


AGES = LabelSet(
    {"age": ("0-2", "3-9", "10-19", "20-29", "30-39", "40+"), "hair": ("short", "long")},
    ("a", "b"),
    {"age": torch.tensor([[0.1, 0.2, 0.3, 0.2, 0.1, 0.1], [0.0, 0.0, 0.0, 0.1, 0.2, 0.7]]), "hair": torch.tensor([[1.0, 0.0], [0.0, 1.0]])},
)


def refused(text: str) -> Any:
    """An error that is one sentence and holds the text."""
    return pytest.raises(ValueError, match=rf"^(?=[^\n]*{text})[^\n]+\.$")


# Classes in words


def test_classes_as_users_write_them() -> None:
    assert parse_classes("eyeglasses: yes, no") == {"eyeglasses": {"yes": ("yes",), "no": ("no",)}}
    spec = parse_classes('age: young=0-2|3-9|10-19, middle=20-29|30-39, old=...\n\nfish: f="tench, Tinca"|trout, other=... ; hair: a, b')
    assert spec["age"] == {"young": ("0-2", "3-9", "10-19"), "middle": ("20-29", "30-39"), "old": ("...",)}
    assert spec["fish"]["f"] == ("tench, Tinca", "trout") and list(spec) == ["age", "fish", "hair"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no attribute is given"),
        ("eyeglasses yes, no", "names no attribute and classes"),
        ("hair: short", "at least two are needed"),
        ("hair: a, a", "'a' of 'hair' is given twice"),
        ("hair: a, b\nhair: c, d", "'hair' is given twice"),
        ("hair: a=|, b", "nothing after its equals sign"),
        ("hair: =x, b", "is no name"),
        ("hair: a/b, c", "holds '/'"),
        ("hair: a=..., b=...", "gives the rest"),
    ],
)
def test_classes_that_cannot_be_read(text: str, why: str) -> None:
    with refused(why):
        parse_classes(text)


# Label sets


def test_labels_are_probabilities_or_refused() -> None:
    labels = LabelSet({"hair": ("short", "long")}, ("a", "b"), {"hair": torch.tensor([[2, 2], [1, 0]])})
    assert labels.probabilities["hair"].tolist() == [[0.5, 0.5], [1.0, 0.0]] and labels.probabilities["hair"].dtype == torch.float32
    assert labels.unsure("hair").tolist() == [True, False] and labels.counts("hair") == (2, 0)
    assert labels.lines() == "hair: short 100.0% (2), long 0.0% (0); unsure 50.0%"
    for row in ([float("nan"), 1.0], [-0.1, 1.0], [0.0, 0.0]):
        with refused("no probabilities for 1 image.*'b'"):
            LabelSet({"hair": ("short", "long")}, ("a", "b"), {"hair": torch.tensor([[1.0, 0.0], row])})
    with refused("expected one row for each of 2 images"):
        LabelSet({"hair": ("short", "long")}, ("a", "b"), {"hair": torch.ones(2, 3)})
    with refused("'a' is labelled twice"):
        hair("a", "a")


def test_what_the_host_makes_can_be_trained_on() -> None:
    """A host runs nodes in inference mode; a loss refuses such tensors."""
    with torch.inference_mode():
        labels = hair("a", "b", "c")
        aligned = for_entries(labels, entries("a", "b", "c"))["hair"]
    logits = torch.zeros(3, 2, requires_grad=True)
    torch.nn.functional.cross_entropy(logits, aligned).backward()
    assert not aligned.is_inference() and not labels.probabilities["hair"].is_inference() and logits.grad is not None


def test_rows_follow_the_set() -> None:
    labels = hair("images/1.png", "2.png", "deep/3.png")
    rows = for_entries(labels, entries("3.png", "images\\1.png", "sub/2.png"))["hair"]
    torch.testing.assert_close(rows[:, 0], torch.tensor([0.7, 0.9, 0.2]))


def test_the_last_part_of_a_name_counts_only_where_it_is_unique() -> None:
    labels = hair("a/1.png", "b/1.png", short=(0.9, 0.1))
    assert for_entries(labels, entries("b/1.png", "a/1.png"))["hair"][:, 0].tolist() == pytest.approx([0.1, 0.9])
    with refused("2 of the 2 images of the set have no label"):
        for_entries(labels, entries("1.png", "c/1.png"))


def test_what_does_not_fit_the_set_is_named() -> None:
    labels = hair("1.png", "2.png", "3.png")
    with refused("1 of the 4 images of the set have no label, the first is '4.png'"):
        for_entries(labels, entries("1.png", "2.png", "3.png", "4.png"))
    with refused("1 labels are for images that are not in the set, the first is '3.png'"):
        for_entries(labels, entries("1.png", "2.png"))
    assert len(for_entries(labels, entries("2.png", "1.png"), ignore_others=True)["hair"]) == 2
    with refused("nothing is labelled with 'age'; labelled are: hair"):
        for_entries(labels, entries("1.png"), ["age"])
    with refused("the class 'long' of 'hair' has no example among 1 images"):
        for_entries(labels, entries("1.png"), ignore_others=True)
    assert for_entries(labels, entries("1.png"), every_class=False, ignore_others=True)["hair"].shape == (1, 2)


def test_joining_two_sources() -> None:
    ages = LabelSet({"age": ("young", "old")}, ("b", "a"), {"age": torch.tensor([[1.0, 0.0], [0.0, 1.0]])})
    both = joined(hair("a", "b"), ages)
    assert both.files == ("b", "a") and list(both.attributes) == ["hair", "age"] and both.sources == {"hair": "test"}
    torch.testing.assert_close(both.probabilities["hair"][:, 0], torch.tensor([0.2, 0.9]))
    assert joined(None, ages) is ages
    with refused("'hair' is labelled by both"):
        joined(hair("a", "b"), hair("a", "b"))
    with refused("3 and 2 images"):
        joined(hair("a", "b", "c"), ages)


def test_merging_sums_the_members() -> None:
    three = merged(AGES, parse_classes("age: young=0-2|3-9|10-19, middle=20-29|30-39, old=..."))
    assert three.attributes["age"] == ("young", "middle", "old") and three.attributes["hair"] == ("short", "long")
    torch.testing.assert_close(three.probabilities["age"], torch.tensor([[0.6, 0.3, 0.1], [0.0, 0.3, 0.7]]))
    assert AGES.attributes["age"][0] == "0-2"


@pytest.mark.parametrize(
    ("groups", "why"),
    [
        ("age: young=0-2|3-9, old=40+", "'10-19' of 'age' is in no group"),
        ("age: young=0-2|3-8, old=...", "has no class '3-8' to put in 'young'"),
        ("age: young=0-2|3-9, middle=3-9, old=...", "'3-9' of 'age' is in two groups"),
        ("beard: a, b", "nothing is labelled with 'beard'"),
        ("hair: short, long, none=...", "'none' of 'hair' is left empty"),
    ],
)
def test_groups_that_do_not_fit(groups: str, why: str) -> None:
    with refused(why):
        merged(AGES, parse_classes(groups))


# Label files


def csv(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "l.csv"
    path.write_text(text, encoding=encoding)
    return path


def test_class_names_in_cells(tmp_path: Path) -> None:
    path = csv(tmp_path, "file,hair,age\na.png,long,7\nb.png,short,8\n")
    labels = read_csv(path)
    assert labels.attributes == {"hair": ("long", "short"), "age": ("7", "8")} and labels.files == ("a.png", "b.png")
    ordered = read_csv(path, {"hair": ("short", "long", "none")})
    assert list(ordered.attributes) == ["hair"] and ordered.probabilities["hair"].tolist() == [[0, 1, 0], [1, 0, 0]]
    assert list(read_csv(path, attributes=["age"]).attributes) == ["age"]


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    write_csv(AGES, tmp_path / "new" / "labels.csv")
    back = read_csv(tmp_path / "new" / "labels.csv")
    assert back.attributes == AGES.attributes and back.files == AGES.files
    torch.testing.assert_close(back.probabilities["age"], AGES.probabilities["age"])
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["labels.csv"]


def test_as_spreadsheets_write_it(tmp_path: Path) -> None:
    labels = read_csv(csv(tmp_path, "file;hair\r\n\"a;1.png\";long\r\nb.png;short\r\n;\r\n", "utf-8-sig"))
    assert labels.files == ("a;1.png", "b.png") and labels.attributes["hair"] == ("long", "short")
    assert read_csv(csv(tmp_path, "file\thair\na\tx\nb\ty\n")).counts("hair") == (1, 1)


def test_a_file_read_with_the_users_classes(tmp_path: Path) -> None:
    path = csv(tmp_path, "file,hair\na,bald\nb,long\nc,short\n")
    labels = read_csv_as(path, parse_classes("hair: short=short|bald, long"))
    assert labels.attributes["hair"] == ("short", "long") and labels.counts("hair") == (2, 1)
    assert read_csv_as(path, parse_classes("hair: long, other=...")).counts("hair") == (1, 2)
    with refused("labels 'hair' as 'bald', which is none of short, long"):
        read_csv_as(path, parse_classes("hair: short, long"))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is no label file"),
        ("name,hair\na,b\n", "is no label file: its header is 'name,hair'"),
        ("file,hair\n", "has a header and no rows"),
        ("file\na\n", "file names and no attribute"),
        ("file,hair\na,x\na,y\n", "'a' is labelled twice"),
        ("file,hair\na,x\nb\n", "row 3 of 'l.csv' has another number of cells"),
        ("file,hair\na,x\nb,\n", "row 3 of 'l.csv' has no label for 'hair'"),
        ("file,hair\na,x\nb,x\n", "every image as 'x' of 'hair'"),
        ("file,hair:a,hair:b\nx,0.5,half\n", "has 'half' for 'hair:b'"),
        ("file,hair:a,hair:b\nx,0.5,nan\n", "has 'nan' for 'hair:b'"),
        ("file,hair:a,hair:b\nx,0,0\n", "no probabilities for 1 image"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, text: str, why: str) -> None:
    with refused(why):
        read_csv(csv(tmp_path, text))


def test_unknown_columns_and_classes_are_named(tmp_path: Path) -> None:
    path = csv(tmp_path, "file,hair\na,long\nb,curly\n")
    with refused("no column 'age'; it has hair"):
        read_csv(path, attributes=["age"])
    with refused("labels 'hair' as 'curly', which is none of short, long"):
        read_csv(path, {"hair": ("short", "long")})
    with refused("is not UTF-8 text"):
        read_csv(csv(tmp_path, "file,hair\n\xe9,x\n", "latin-1"))


# Prompts

GLASSES = {"yes": ("with eyeglasses", "wearing glasses"), "no": ("without eyeglasses",)}


def test_phrases_are_whole_words_and_the_longest_wins() -> None:
    prompts = ["A  photo of a chef WITH eyeglasses", "a doctor without eyeglasses", "someone wearing glasses, smiling"]
    assert labels_from_prompts(prompts, GLASSES, "eyeglasses").tolist() == [[1, 0], [0, 1], [1, 0]]
    sex = {"female": ("female",), "male": ("male",)}
    both = ["a female doctor", "a male doctor", "a female and a male"]
    assert labels_from_prompts(both, sex, "x").tolist() == [[1, 0], [0, 1], [0.5, 0.5]]
    nested = {"dark": ("hair",), "light": ("light hair",)}
    assert labels_from_prompts(["light hair", "hair"], nested, "x").tolist() == [[0, 1], [1, 0]]


def test_prompts_without_a_phrase() -> None:
    prompts = ["a chef", "a chef with eyeglasses", "a teacher"]
    with refused("2 of 3 prompts name no class of 'eyeglasses', the first is 'a chef'"):
        labels_from_prompts(prompts, GLASSES, "eyeglasses")
    assert labels_from_prompts(prompts, GLASSES, "eyeglasses", unsure=True).tolist() == [[0.5, 0.5], [1, 0], [0.5, 0.5]]
    rest = {"yes": ("with eyeglasses",), "no": ("...",)}
    assert labels_from_prompts(prompts, rest, "eyeglasses").tolist() == [[0, 1], [1, 0], [0, 1]]
    with refused("'With' of 'x' stands for two classes, a and b"):
        labels_from_prompts(["with"], {"a": ("with",), "b": ("With",)}, "x")
