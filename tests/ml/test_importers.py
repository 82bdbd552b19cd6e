"""Importing folders and tables: the labels as they are meant, and a report of everything that is wrong."""

import json
import shutil
from pathlib import Path

import pytest

from ml.errors import DatasetError
from ml.importers import Column, from_folders, from_table
from ml.manifest import from_dict
from tests.ml import datasets


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    for number, (split, label) in enumerate([("train", "cat"), ("train", "dog"), ("val", "cat"), ("val", "dog")]):
        for at in range(2):
            datasets.scene(tmp_path / "data" / split / label / f"{at}.jpg", 10 * number + at)
    return tmp_path / "data"


def test_a_folder_per_split_and_class(folders: Path) -> None:
    imported = from_folders(folders, name="pets")
    assert imported.report.counts == {"category": {n: {"train": 2, "validation": 2} for n in ("cat", "dog")}}
    assert {entry.image for entry in imported.manifest.split("validation")} >= {"val/cat/0.jpg"}
    assert imported.report.leaks == ()


def test_a_folder_per_class(folders: Path) -> None:
    imported = from_folders(folders / "train", name="pets")
    assert imported.report.counts == {"category": {"cat": {"train": 2}, "dog": {"train": 2}}}


def test_an_empty_class_is_named(folders: Path) -> None:
    (folders / "train" / "fish").mkdir()
    with pytest.raises(DatasetError) as caught:
        from_folders(folders, name="pets")
    assert (caught.value.code, caught.value.field) == ("class_missing", "fish")


def test_unreadable_and_duplicate_pictures_are_reported(folders: Path) -> None:
    train, val = folders / "train" / "cat", folders / "val" / "cat"
    (train / "broken.jpg").write_bytes((train / "0.jpg").read_bytes()[:200])
    shutil.copy(train / "0.jpg", val / "same.jpg")
    datasets.scene(val / "near.jpg", 1, quality=60)  # train/cat/1.jpg, encoded once more
    report = from_folders(folders, name="pets").report
    assert set(report.unreadable) == {"train/cat/broken.jpg"}
    assert report.exact_duplicates == (("train/cat/0.jpg", "val/cat/same.jpg"),)
    ((first, second, distance),) = report.near_duplicates
    assert {first, second} == {"train/cat/1.jpg", "val/cat/near.jpg"}
    assert 0 <= distance <= 31
    assert sorted(leak.kind for leak in report.leaks) == ["exact", "near"]
    exact = next(leak for leak in report.leaks if leak.kind == "exact")
    assert exact.images == {"train": ("train/cat/0.jpg",), "validation": ("val/cat/same.jpg",)}
    assert report.to_dict()["leaks"]


GROUPS = {
    "category": Column("label", ignore=frozenset({"Not sure"})),
    "kids": Column("kids", "attributes"),
    "tags": Column("tags", "attributes"),
}


def _table(folder: Path, rows: str) -> Path:
    for at in range(4):
        datasets.scene(folder / f"{at}.jpg", at)
    path = folder / "images.csv"
    path.write_text("image,label,kids,tags,split,who\n" + rows)
    return path


def test_labels_of_a_table(tmp_path: Path) -> None:
    rows = "0.jpg,Hat,False,a;b,train,x\n1.jpg,Not sure,True,,train,y\n2.jpg,Shoe,,a,validation,y\n3.jpg,,,,,z\n"
    imported = from_table(_table(tmp_path, rows), tmp_path, GROUPS, name="t", group_column="who")
    by_image = {entry.image: entry for entry in imported.manifest.entries}
    assert by_image["0.jpg"].labels == {"category": "Hat", "kids": (), "tags": ("a", "b")}
    assert by_image["1.jpg"].labels == {"category": None, "kids": ("kids",), "tags": ()}
    assert by_image["2.jpg"].labels == {"category": "Shoe", "kids": None, "tags": ("a",)}
    assert by_image["3.jpg"].split == "train"
    assert by_image["0.jpg"].columns == {"who": "x"}
    assert imported.manifest.groups["category"].labels == ("Hat", "Shoe")
    ((leak,),) = [imported.report.leaks]
    assert (leak.kind, leak.value) == ("who", "y")


def test_pictures_of_which_nothing_is_known_are_left_out(tmp_path: Path) -> None:
    table = _table(tmp_path, "0.jpg,Hat,,,train,x\n1.jpg,Not sure,,,train,x\n")
    imported = from_table(table, tmp_path, {"category": GROUPS["category"]}, name="t")
    assert [entry.image for entry in imported.manifest.entries] == ["0.jpg"]
    assert imported.report.unlabelled == ("1.jpg",)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("0.jpg,Hat,True\n", "line 2"),
        ("0.jpg,Hat,,,train,x\n../1.jpg,Hat,,,train,x\n", "line 3"),
        ("0.jpg,Hat,,,train,x,too,many\n", "line 2"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, rows: str, said: str) -> None:
    with pytest.raises(DatasetError, match=f"table_invalid: .*{said}"):
        from_table(_table(tmp_path, rows), tmp_path, GROUPS, name="t")


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError) as caught:
        from_table(_table(tmp_path, ""), tmp_path, {"x": Column("colour")}, name="t")
    assert (caught.value.code, caught.value.field) == ("table_invalid", "colour")


def test_nothing_left_is_an_error(tmp_path: Path) -> None:
    table = _table(tmp_path, "gone.jpg,Hat,,,train,x\n")
    with pytest.raises(DatasetError, match="dataset_empty"):
        from_table(table, tmp_path, {"category": GROUPS["category"]}, name="t")


@pytest.mark.parametrize("second", ["0.jpg", "./0.jpg"])
def test_a_picture_on_two_lines_is_a_mistake_in_one_of_them(tmp_path: Path, second: str) -> None:
    table = _table(tmp_path, f"0.jpg,Hat,,,train,x\n1.jpg,Hat,,,train,x\n{second},Shoe,,,test,x\n")
    with pytest.raises(DatasetError, match=r"table_invalid: .*line 4 repeats '0.jpg' of line 2"):
        from_table(table, tmp_path, {"category": GROUPS["category"]}, name="t")


def test_a_column_without_any_label_is_named(tmp_path: Path) -> None:
    table = _table(tmp_path, "0.jpg,Hat,,,train,x\n1.jpg,Shoe,,,train,x\n")
    with pytest.raises(DatasetError) as caught:
        from_table(table, tmp_path, GROUPS, name="t")
    assert (caught.value.code, caught.value.field) == ("class_missing", "kids")


def test_a_name_that_no_manifest_may_have_is_refused_before_any_picture_is_read(folders: Path) -> None:
    for wanted in ({"name": "My Shop"}, {"name": "pets", "version": "1/2"}):
        with pytest.raises(DatasetError, match="manifest_invalid"):
            from_folders(folders, **wanted)
        with pytest.raises(DatasetError, match="manifest_invalid"):
            from_table(folders / "not read", folders, {}, **wanted)


def test_every_import_can_be_loaded_again(folders: Path) -> None:
    made = from_folders(folders, name="pets").manifest
    assert from_dict(json.loads(json.dumps(made.to_dict()))) == made


def test_pictures_that_are_alike_and_labelled_otherwise_are_reported(folders: Path) -> None:
    shutil.copy(folders / "train" / "cat" / "0.jpg", folders / "train" / "dog" / "same.jpg")
    datasets.scene(folders / "train" / "dog" / "near.jpg", 1, quality=60)  # train/cat/1.jpg, encoded once more
    datasets.scene(folders / "train" / "cat" / "near.jpg", 0, quality=60)
    found = {frozenset(pair) for pair in from_folders(folders, name="pets").report.conflicts}
    assert frozenset({"train/cat/0.jpg", "train/dog/same.jpg"}) in found
    assert frozenset({"train/cat/1.jpg", "train/dog/near.jpg"}) in found
    assert frozenset({"train/cat/0.jpg", "train/cat/near.jpg"}) not in found


def test_labels_that_end_without_a_picture_and_groups_of_one_label_are_reported(tmp_path: Path) -> None:
    table = _table(tmp_path, "0.jpg,Hat,,,train,x\ngone.jpg,Shoe,,,train,x\n")
    report = from_table(table, tmp_path, {"category": GROUPS["category"]}, name="t").report
    assert report.without_picture == (("category", "Shoe"),)
    assert report.one_label == (), "two labels are wanted, though one has no picture"
    only = from_table(_table(tmp_path, "0.jpg,Hat,,,train,x\n"), tmp_path, {"category": GROUPS["category"]}, name="t")
    assert only.report.one_label == ("category",)


def test_pictures_without_a_folder_per_class_are_told_so(tmp_path: Path) -> None:
    datasets.picture(tmp_path / "one.png", (10, 20, 30), 1)
    with pytest.raises(DatasetError, match="a folder for each class") as raised:
        from_folders(tmp_path, name="loose")
    assert raised.value.code == "dataset_empty"
