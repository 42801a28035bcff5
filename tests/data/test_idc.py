"""Series of the Imaging Data Commons, through a stand-in for idc-index's client."""

from __future__ import annotations

import csv
import logging
import time

import pandas as pd
import pytest
from filelock import FileLock
from mrbench_datasets.prostate import download as prostate

from mrbench.data import idc
from mrbench.errors import UserError

COLUMNS = (
    "PatientID", "SeriesInstanceUID", "description", "instanceCount", "series_size_MB", "license_short_name", "source_DOI",
)  # fmt: skip


BYTES = 20_000  # of a file


@pytest.fixture(autouse=True)
def _online(monkeypatch):
    monkeypatch.delenv("MRBENCH_OFFLINE", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)


def _row(person, uid, description="t2_spc_rst_axial obl_Prostate", files=6, licence="CC BY 4.0"):
    return person, uid, description, files, files * BYTES / 1e6, licence, "10.7937/tcia.2020.a61ioc1a"


class FakeClient:
    """``sql_query`` and ``download_from_selection`` as idc-index has them; a download that fails does so silently, as there."""

    def __init__(self, rows):
        self.rows, self.queries, self.asked, self.cut = {r[1]: r for r in rows}, [], [], {}
        self.error, self.log = None, ""

    def sql_query(self, sql_query):
        self.queries.append(sql_query)
        return pd.DataFrame(list(self.rows.values()), columns=list(COLUMNS))

    def download_from_selection(self, downloadDir, *, seriesInstanceUID, dirTemplate, quiet, show_progress_bar):
        assert dirTemplate == "%PatientID/%SeriesInstanceUID"
        assert quiet
        assert not show_progress_bar
        self.asked.append(list(seriesInstanceUID))
        if self.error is not None:
            raise self.error
        if self.log:
            logging.getLogger("idc_index.index").error(self.log)
            return
        for uid in seriesInstanceUID:
            person, _, _, files = self.rows[uid][:4]
            folder = idc.Path(downloadDir, person, uid)
            folder.mkdir(parents=True, exist_ok=True)
            times, what = self.cut.get(uid, (0, ""))
            self.cut[uid] = (times - 1, what)
            for number in range(files - (times > 0 and what == "file")):
                cut = times > 0 and what == "bytes" and number == 2
                (folder / f"{number}.dcm").write_bytes(bytes(400 if cut else BYTES))


ROWS = [_row(f"P-{n // 2:04d}", f"1.2.{n}") for n in range(9)]


def _series(client):
    return idc.list_series(client, "prostate_mri_us_biopsy", "MR")


def test_the_list_of_series():
    client = FakeClient(ROWS)
    first = _series(client)[0]
    assert first == idc.RemoteSeries(
        "P-0000", "1.2.0", "t2_spc_rst_axial obl_Prostate", 6, 120_000, "CC BY 4.0", "10.7937/tcia.2020.a61ioc1a"
    )
    for part in ("collection_id = 'prostate_mri_us_biopsy'", "Modality = 'MR'", "analysis_result_id IS NULL"):
        assert part in client.queries[0]
    with pytest.raises(UserError, match="lists no MR series"):
        _series(FakeClient([]))
    with pytest.raises(UserError, match="name of a folder"):
        _series(FakeClient([_row("../up", "1.2")]))


def test_all_series_arrive_and_are_listed(tmp_path):
    client, said = FakeClient(ROWS), []
    series = _series(client)
    idc.download_series(client, series, tmp_path / "new", lambda done, total: said.append((done, total)))
    assert all(s.complete(tmp_path / "new") for s in series)
    assert said[0] == (0, 1_080_000)
    assert said[-1] == (1_080_000, 1_080_000)
    assert said == sorted(said)
    with (tmp_path / "new" / idc.TABLE).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [r["uid"] for r in rows] == [r[1] for r in ROWS]
    assert {r["licence"] for r in rows} == {"CC BY 4.0"}


def test_it_goes_on_with_what_is_missing(tmp_path):
    client = FakeClient(ROWS)
    series = _series(client)
    idc.download_series(client, series, tmp_path, lambda *_: None)
    (tmp_path / "P-0001" / "1.2.3" / "2.dcm").unlink()
    (tmp_path / "P-0003" / "1.2.6" / "0.dcm").write_bytes(b"")
    client.asked.clear()
    idc.download_series(client, series, tmp_path, lambda *_: None)
    assert client.asked == [["1.2.3", "1.2.6"]]
    client.asked.clear()
    idc.download_series(client, series, tmp_path, lambda *_: None)
    assert client.asked == []


@pytest.mark.parametrize("what", ["file", "bytes"])
def test_a_series_that_breaks_off_is_fetched_again(tmp_path, what, monkeypatch):
    monkeypatch.setattr(idc, "_AT_ONCE", 4)
    client = FakeClient(ROWS)
    client.cut = {"1.2.1": (1, what)}
    idc.download_series(client, _series(client), tmp_path, lambda *_: None)
    assert all(s.complete(tmp_path) for s in _series(client))
    assert [a for a in client.asked if "1.2.1" in a] == [["1.2.0", "1.2.1", "1.2.2", "1.2.3"], ["1.2.8", "1.2.1"]]


def test_what_never_arrives_is_said_and_the_rest_is_kept(tmp_path):
    client = FakeClient(ROWS)
    client.cut = {"1.2.4": (99, "file")}
    with pytest.raises(UserError, match=r"1 series did not arrive in full, such as 1\.2\.4 of P-0002 \(6 files.*goes on"):
        idc.download_series(client, _series(client), tmp_path, lambda *_: None)
    assert sum(s.complete(tmp_path) for s in _series(client)) == len(ROWS) - 1
    dead = FakeClient(ROWS)
    dead.error = ConnectionError("no route")
    with pytest.raises(UserError, match=r"9 series did not arrive in full \(ConnectionError: no route\)"):
        idc.download_series(dead, _series(dead), tmp_path / "other", lambda *_: None)
    assert len(dead.asked) == idc.TRIES


def test_the_packages_log_is_kept_from_the_terminal_and_its_error_told(tmp_path, caplog):
    client = FakeClient(ROWS)
    client.log = "Download process failed with the following errors:\nERROR cp s3://x: no such host\n"
    with pytest.raises(UserError, match=r"9 series did not arrive in full \(ERROR cp s3://x: no such host\)"):
        idc.download_series(client, _series(client), tmp_path, lambda *_: None)
    assert not caplog.records
    assert logging.getLogger("idc_index").propagate
    assert not logging.getLogger("idc_index").handlers


def test_progress_is_told_while_series_come(tmp_path):
    client, said = FakeClient(ROWS), []
    series = _series(client)
    whole = client.download_from_selection

    def slowly(*args, **more):
        whole(*args, **more)
        for _ in range(300):
            if len(said) > 1:
                return
            time.sleep(0.02)

    client.download_from_selection = slowly
    idc.download_series(client, series, tmp_path, lambda *a: said.append(a))
    assert len(said) > 2
    assert said == sorted(said)


def test_refusals(tmp_path, monkeypatch):
    client = FakeClient(ROWS)
    series = _series(client)
    with FileLock(tmp_path / ".idc.lock"), pytest.raises(UserError, match="another process"):
        idc.download_series(client, series, tmp_path, lambda *_: None)
    monkeypatch.setenv("MRBENCH_OFFLINE", "1")
    for place in (tmp_path, tmp_path / "new"):
        with pytest.raises(UserError, match="MRBENCH_OFFLINE is set"):
            idc.download_series(client, series, place, lambda *_: None)
    assert tmp_path.is_dir()
    assert not (tmp_path / "new").exists()  # nothing came, nothing is left
    monkeypatch.delenv("MRBENCH_OFFLINE")
    monkeypatch.setattr(idc, "ROOM", 1 << 60)
    with pytest.raises(UserError, match="Make room"):
        idc.download_series(client, series, tmp_path, lambda *_: None)
    assert client.asked == []


def test_which_series_of_the_prostate_collection_are_taken():
    rows = [
        _row("P-1", "1.1"),
        _row("P-1", "1.2", "ep2d-advdiff-3Scan-4bval_spair_std_ADC"),
        _row("P-1", "1.3", "T2 SPACE 3D AXIAL", files=3),
        _row("P-2", "2.1", "AX T2 TSE"),
        _row("P-2", "2.2", "t2_tse_cor"),
        _row("P-2", "2.3", "AX T2 TSE", licence="CC BY-NC 4.0"),
        _row("P-3", "3.1", ""),
    ]
    series = _series(FakeClient(rows))
    assert [s.uid for s in prostate.chosen(series)] == ["1.1", "1.3", "2.1"]
    assert [s.uid for s in prostate.chosen(series, "SPC|tse", 5)] == ["1.1", "2.1"]
    with pytest.raises(UserError, match="none of the 7 MR series"):
        prostate.chosen(series, "haste")


def test_the_download_of_the_data_set(tmp_path, monkeypatch):
    client = FakeClient([*ROWS, _row("P-9", "9.1", "ep2d_ADC")])
    monkeypatch.setattr(prostate, "installed", lambda: True)
    monkeypatch.setattr(prostate, "open_client", lambda: client)
    prostate.fetch(tmp_path, "", 5, lambda *_: None)
    assert {f.name for f in tmp_path.iterdir() if f.is_dir()} == {r[0] for r in ROWS}


def test_without_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr(prostate, "installed", lambda: False)
    with pytest.raises(UserError) as error:
        prostate.fetch(tmp_path, "", 5, lambda *_: None)
    for part in (
        "pip install 'mrbench[idc]'",
        "cancerimagingarchive.net",
        "NBIA",
        "CC BY 4.0",
        "mrbench data add prostate PATH",
    ):
        assert part in str(error.value)
