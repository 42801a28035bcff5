"""manifest.csv: every mistake is named with its line and column."""

from __future__ import annotations

import pytest

from mrbench.data.manifest import read_manifest, stem_of, voxel_from_json
from mrbench.errors import UserError


@pytest.fixture
def write(tmp_path):
    for name in ("a.png", "b.png", "c.png", "sub/d.nii.gz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")

    def manifest(text: str, encoding: str = "utf-8"):
        (tmp_path / "manifest.csv").write_bytes(text.encode(encoding))
        return tmp_path / "manifest.csv"

    return manifest


def test_slices_are_ordered_and_labelled(write, tmp_path):
    path = write(
        "file,subject,volume,slice_index,voxel_row_mm,voxel_col_mm,spacing_mm,licence\n"
        'a.png,p1,v1,12,0.5,0.6,3,"free, really"\nb.png,p1,v1,2,0.5,0.6,3,\nsub/d.nii.gz,p2,v2,,,,,\n'
    )
    first, second = read_manifest(path).volumes
    assert first.files == (tmp_path / "b.png", tmp_path / "a.png")
    assert first.labels == ("002", "012")
    assert first.voxel == (3.0, 0.5, 0.6)
    assert (second.subject, second.volume, second.labels, second.voxel) == ("p2", "v2", (), (None, None, None))
    assert voxel_from_json(first.voxel) == (3.0, 0.5, 0.6)
    assert voxel_from_json(second.voxel)[0] != voxel_from_json(second.voxel)[0]  # nan


def test_byte_order_mark_blanks_and_crlf(write):
    path = write("\ufefffile , subject,volume\r\n a.png , p1 ,v1\r\n")
    (volume,) = read_manifest(path).volumes
    assert (volume.subject, volume.files[0].name) == ("p1", "a.png")


def test_empty_subjects_are_one_unknown_subject(write):
    manifest = read_manifest(write("file,subject,volume\na.png,,\nb.png,,\n"))
    assert {v.subject for v in manifest.volumes} == {"unknown"}
    assert [v.volume for v in manifest.volumes] == ["a", "b"]
    assert "2 of 2 rows name no subject" in manifest.warnings[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("file,subject\na.png,p\n", ["line 1", "column(s) volume are absent"]),
        ("file;subject;volume\na.png;p;v\n", ["line 1", "separated by commas"]),
        ("file,subject,volume,file\na.png,p,v,b.png\n", ["appear twice"]),
        ("file,subject,volume\nz.png,p,v\n", ["line 2, column file", "does not exist"]),
        ("file,subject,volume\n,p,v\n", ["line 2, column file", "empty"]),
        ("file,subject,volume\n../a.png,p,v\n", ["line 2, column file", "leads out"]),
        ("file,subject,volume\n/etc/passwd,p,v\n", ["line 2, column file", "leads out"]),
        ("file,subject,volume\na.png,p,v\n./a.png,p,w\n", ["line 3, column file", "line 2 already"]),
        ("file,subject,volume,slice_index\na.png,p,v,1\nb.png,p,v,1\n", ["line 3, column slice_index", "line 2 already"]),
        ("file,subject,volume,slice_index\na.png,p,v,1\nb.png,p,v,\n", ["line 3, column slice_index", "empty"]),
        ("file,subject,volume,slice_index\na.png,p,v,1.5\n", ["line 2, column slice_index", "integer"]),
        ("file,subject,volume,spacing_mm\na.png,p,v,-2\n", ["line 2, column spacing_mm", "positive"]),
        ("file,subject,volume,spacing_mm\na.png,p,v,two\n", ["line 2, column spacing_mm", "positive"]),
        ("file,subject,volume,spacing_mm\na.png,p,v,2\nb.png,p,v,3\n", ["line 3, columns", "differ from line 2"]),
        ("file,subject,volume,split\na.png,p,v,dev\n", ["line 2, column split", "train, val, test"]),
        ("file,subject,volume,split\na.png,p,v,train\nb.png,p,w,test\n", ["line 3, column split", "one side only"]),
        ("file,subject,volume,split\na.png,p,v,train\nb.png,p,w,\n", ["line 3, column split", "empty here and train"]),
        ("file,subject,volume\na.png,p,v,extra\n", ["line 2", "more cells"]),
        ("file,subject,volume\n", ["no rows"]),
        ("", ["absent"]),
    ],
)
def test_mistakes(write, text, words):
    with pytest.raises(UserError) as caught:
        read_manifest(write(text))
    for word in words:
        assert word in str(caught.value)


def test_all_mistakes_are_listed_at_once_but_not_endlessly(write):
    rows = "".join(f"no{k}.png,p,v{k}\n" for k in range(30))
    with pytest.raises(UserError, match="30 mistake") as caught:
        read_manifest(write("file,subject,volume\n" + rows))
    assert "and 20 more" in str(caught.value)


def test_other_encodings_are_refused_in_words(write):
    with pytest.raises(UserError, match="UTF-8"):
        read_manifest(write("file,subject,volume\na.png,Jürgen,v\n", "latin-1"))


def test_stems():
    assert [stem_of(f) for f in ("a/b.nii.gz", "b.NII.GZ", "c.v2.png", "d")] == ["b", "b", "c.v2", "d"]
