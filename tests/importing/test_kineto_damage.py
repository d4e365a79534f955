"""Files that are damaged, hostile or something else: read as far as sound, or refused in a line."""

from __future__ import annotations

import gzip
import json
import os
import stat
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moeprof.errors import RecordError
from moeprof.importing import gathered, json_stream, json_text
from moeprof.importing.event_fields import moment_ns, shape, span_ns
from moeprof.importing.json_stream import EventStream
from moeprof.importing.kineto import read_kineto
from tests.importing.kineto_files import HOST, KinetoFile, Raw, event_text, two_iterations, us

NO_TIMES = "without usable times (missing, negative, both zero, no number or too large)"


@pytest.fixture
def read_text(tmp_path):
    """``read_text(content)``: the trace of a file with that content."""

    def reading(content, name="trace.json"):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return read_kineto(path)

    return reading


@pytest.fixture
def refused(read_text):
    """The one line that a file is refused with, without its path."""

    def refusing(content):
        with pytest.raises(RecordError) as caught:
            read_text(content)
        path, _, line = str(caught.value).partition(": ")
        assert path.endswith("trace.json") and "\n" not in line and len(line) < 400
        return line

    return refusing


def kernel(**changes):
    """One sound kernel event, changed; a value that is None is left out."""
    args = changes.pop("args", {})
    if isinstance(args, dict):
        args = {"device": 0, "stream": 7, "correlation": 4, **args}
    fields = {"ph": "X", "cat": "kernel", "name": "k", "pid": 0, "tid": 7} | {
        "ts": Raw("10.000"),
        "dur": Raw("2.000"),
        "args": args,
        **changes,
    }
    return event_text({key: value for key, value in fields.items() if value is not None})


def with_kernel(*texts):
    """A file of one sound kernel "sound" and the events ``texts`` before it."""
    file = KinetoFile().call("cudaLaunchKernel", 1_000, 5_000, 4)
    for text in texts:
        file.raw(text)
    return file.raw(kernel(name="sound", ts=Raw("50.000")))


# -- times ----------------------------------------------------------------------------------


@given(st.integers(0, 2**60), st.integers(1, 2**59))
def test_a_time_that_kineto_wrote_is_exact_to_the_nanosecond(start, duration):
    assert span_ns(us(start).encode(), us(duration).encode()) == (start, start + duration)


@given(st.integers(0, 2**60), st.integers(1, 2**59), st.integers(-3, 9), st.booleans())
def test_any_way_to_write_a_number_gives_the_same_time(start, duration, shift, tail):
    def written(ns):
        number = Decimal(ns).scaleb(-3 - shift)
        return f"{number:f}{'0' if tail and '.' in f'{number:f}' else ''}e{shift}".encode()

    assert span_ns(written(start), written(duration)) == (start, start + duration)


@pytest.mark.parametrize(
    ("ts", "dur", "span"),
    [
        (17, 3, (17_000, 20_000)),
        (b"4361028079544.720", b"1946.933", (4361028079544720, 4361028081491653)),
        (b"1790857026000001.001", 1, (1790857026000001001, 1790857026000002001)),
        (b"1.0004", b"0.0002", (1000, 1001)),  # the end is rounded, not the duration
        (b"1.0006", b"0.0005", (1001, 1001)),
        (b"12.5", 0, (12_500, 12_500)),
        (b"0.0", b"0.001", (0, 1)),
        (b"-0.000", 5, (0, 5_000)),
        (b"1e3", 1, (1_000_000, 1_001_000)),
        (0, 0, None),
        (b"0.000", b"0.000", None),
        (b"0.0000001", b"0.0", None),
        (-1, 5, None),
        (b"-1.000", b"5.000", None),
        (b"5.000", b"-1.000", None),
        (b"1e300", 1, None),
        (1, b"1e999999999999999999", None),
        (b"1e-999999999", b"1e-999999999", None),
        (10**400, 1, None),
        (2**61 // 1000 + 1, 1, None),
        (b"1152921504606846.976e0", b"0.001", (2**60, 2**60 + 1)),
        (b"2305843009213693.951e0", b"0.0e0", (2**61 - 1, 2**61 - 1)),
        (b"2305843009213693.951e0", b"0.001e0", None),
        (b"2305843009213693.951", b"0.000", (2**61 - 1, 2**61 - 1)),
        (b"2305843009213693.951", b"0.001", None),
        (float("nan"), 1, None),
        (float("inf"), 1, None),
        ("17", 3, None),
        (True, 3, None),
        (None, 3, None),
        (17, None, None),
        ([17], {}, None),
    ],
)
def test_times_that_are_sound_and_times_that_are_none(ts, dur, span):
    assert span_ns(ts, dur) == span


def test_a_moment_may_be_zero_but_not_before():
    assert moment_ns(0) == 0 and moment_ns(b"0.001") == 1
    assert moment_ns(-1) is None and moment_ns("0") is None


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([4, 1, 1], (4, 1, 1)),
        ([4, 1], None),
        ([0, 1, 1], None),
        ([4, -1, 1], None),
        ([4, 1, True], None),
        ([4, 1, b"1.0"], None),
        ([2**31, 1, 1], None),
        ("4,1,1", None),
        (None, None),
    ],
)
def test_grids_and_blocks(value, said):
    assert shape(value) == said


# -- events ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "note"),
    [
        (kernel(ts=None), f"left out: 1 kernels {NO_TIMES}"),
        (kernel(dur=None), f"left out: 1 kernels {NO_TIMES}"),
        (kernel(ts=Raw("NaN")), f"left out: 1 kernels {NO_TIMES}"),
        (kernel(ts=Raw("-Infinity")), f"left out: 1 kernels {NO_TIMES}"),
        (kernel(dur=-5), f"left out: 1 kernels {NO_TIMES}"),
        (kernel(ts="10.0"), f"left out: 1 kernels {NO_TIMES}"),
        (kernel(ts=Raw("1e30")), f"left out: 1 kernels {NO_TIMES}"),
        (kernel(ts=0, dur=0), f"left out: 1 kernels {NO_TIMES}"),
        (kernel(ts=[1]), f"left out: 1 kernels {NO_TIMES}"),
        (kernel(name=None), "left out: 1 kernels without a name, GPU or stream"),
        (kernel(name=7), "left out: 1 kernels without a name, GPU or stream"),
        (kernel(name=""), "left out: 1 kernels without a name, GPU or stream"),
        (kernel(args={"stream": -1}), "left out: 1 kernels without a name, GPU or stream"),
        (kernel(args={"device": "0"}), "left out: 1 kernels without a name, GPU or stream"),
        (kernel(args={"device": 2**40}), "left out: 1 kernels without a name, GPU or stream"),
        (
            kernel(args="none", pid="gpu", tid="stream"),
            "left out: 1 kernels without a name, GPU or stream",
        ),
        (kernel(ts=Raw('1.000, "ts": 7.000')), "left out: 1 kernels with one key twice"),
        (
            kernel(args={"stream": Raw('7, "correlation": 5')}),
            "left out: 1 kernels with one key twice",
        ),
        ("17", "left out: 1 entries that are no events"),
        ("null", "left out: 1 entries that are no events"),
        ('["ph", "X"]', "left out: 1 entries that are no events"),
    ],
)
def test_an_unsound_event_is_left_out_counted_and_named(read_text, text, note):
    trace = read_text(with_kernel(text).text())
    assert [one.name for one in trace.operations.descriptions] == ["sound"]
    assert note in trace.notes


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"ts": None}, f"left out: 1 API calls {NO_TIMES}"),
        ({"name": 5}, "left out: 1 API calls without a name or thread"),
        ({"tid": None}, "left out: 1 API calls without a name or thread"),
        ({"pid": 1.5}, "left out: 1 API calls without a name or thread"),
        ({"tid": {}}, "left out: 1 API calls without a name or thread"),
        ({"ts": Raw('1.000, "ts": 7.000')}, "left out: 1 API calls with one key twice"),
    ],
)
@pytest.mark.parametrize("cat", ["cuda_runtime", "cuda_driver", "user_annotation"])
def test_an_unsound_call_or_range_is_left_out_counted_and_named(read_text, cat, changes, note):
    fields = {"cat": cat, "name": "cudaMalloc", "pid": HOST, "tid": HOST, **changes}
    trace = read_text(with_kernel(kernel(**fields)).text())
    assert len(trace.calls) == 1 and len(trace.ranges) == 0
    what = "ranges" if cat == "user_annotation" else "API calls"
    assert note.replace("API calls", what) in trace.notes


@pytest.mark.parametrize("correlation", [None, 0, -4, "4", 2**64, True, 4.5, [4], {}])
def test_a_correlation_id_that_is_none_is_unknown_and_counted(read_text, correlation):
    text = kernel(args={"correlation": correlation}, ts=Raw("10.000"))
    trace = read_text(with_kernel(text).text())
    assert trace.operations.correlation.tolist() == [-1, 4]
    assert "1 operations name no launch call (no correlation id)" in trace.notes


def test_sizes_that_cannot_be_are_unknown_and_the_kernel_stays(read_text):
    args = {"grid": [0, 1, 1], "block": "128", "registers per thread": -3} | {
        "shared memory": [1],
        "graph node id": {},
    }
    sound = {"grid": [2, 1, 1]}
    trace = read_text(with_kernel(kernel(args=args), kernel(args=sound, ts=Raw("20.000"))).text())
    unsound, with_grid, _ = (trace.operations.descriptions[n] for n in (0, 1, 2))
    assert (unsound.grid, unsound.block, unsound.registers) == (None, None, None)
    assert (unsound.shared_bytes, unsound.graph_node) == (None, None)
    assert with_grid.grid == (2, 1, 1)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a\x1b[2Jb\x07", "a\ufffd[2Jb\ufffd"),
        ("two\nlines\tand\rmore", "two lines and more"),
        ("lone \ud800 surrogate", "lone \ufffd surrogate"),
        ("left\u202eright", "left\ufffdright"),
        ("<script>alert(1)</script>", "<script>alert(1)</script>"),
        ("'); DROP TABLE kernels; --", "'); DROP TABLE kernels; --"),
        ("x" * 30_000, "x" * 19_999 + "…"),
    ],
)
def test_names_become_printable(read_text, name, said):
    trace = read_text(with_kernel(kernel(name=name)).text())
    assert [one.name for one in trace.operations.descriptions] == [said, "sound"]
    assert said.isprintable()


def test_raw_control_characters_and_bytes_that_are_no_utf8_cost_their_place_in_the_name_only(
    read_text,
):
    content = with_kernel(kernel(name="BAD")).text().encode()
    trace = read_text(content.replace(b"BAD", b"a\x01b\xff\xfec\xc3"))
    assert trace.operations.descriptions[0].name == "a\ufffdb\ufffd\ufffdc\ufffd"
    assert len(trace.operations) == 2


@pytest.mark.parametrize("word", ["inf", "-inf", "nan", "-nan", "N/A", "NaN", "Infinity"])
def test_words_that_kineto_wrote_for_numbers_cost_nothing(read_text, word):
    events = [
        kernel(ts=Raw(f"{10 + n}.000"), args={"blocks per SM": Raw(word), "stream": 3 + n})
        for n in range(5)
    ]
    trace = read_text(with_kernel(*events, kernel(name="f(x: inf, 1)")).text())
    assert len(trace.operations) == 7
    assert not trace.notes
    assert "f(x: inf, 1)" in {one.name for one in trace.operations.descriptions}


@pytest.mark.parametrize(
    "bad",
    [
        '{"ph": "X", "cat": "kernel", "name": "a "quoted" name", "pid": 0, "args": {"name": 1}}',
        '{"ph": "X", "cat": "kernel", "name": "k", "ts": 1.000 "dur": 5}',
        '{"ph": "X", "cat": "kernel", "name": "k", "ts": 1..5}',
        '{"ph": "X", "cat": "kernel", "name": "k", "ts": ' + "9" * 5_000 + "}",
        '{"ph": "X", "args": ' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"ph": "X", "name": "\\q"}',
        "}}}]",
        "undefined",
    ],
    ids=range(8),
)
def test_a_damaged_event_costs_itself_alone(read_text, bad):
    file = two_iterations()
    file.events[9:9] = [bad]
    whole = read_text(two_iterations().text())
    trace = read_text(file.text())
    assert trace.notes == ("left out: 1 stretches of the file that are no JSON",)
    assert trace.operations.start_ns.tolist() == whole.operations.start_ns.tolist()
    assert trace.ranges.end_ns.tolist() == whole.ranges.end_ns.tolist()
    assert trace.gpus == whole.gpus


def test_damage_in_two_places_is_counted_twice(read_text):
    file = two_iterations()
    file.events[9:9] = ['{"ph": "X", "name": "a "b"}']
    file.events[20:20] = ['{"ph": }', '{"ph": ]}']
    notes = read_text(file.text()).notes
    assert notes == ("left out: 2 stretches of the file that are no JSON",)


def test_damage_before_the_events_costs_the_header_only(read_text):
    text = two_iterations().text().replace('"secret-host"', '"a "b" c"')
    trace = read_text(text)
    assert len(trace.operations) == 6
    assert trace.notes == ("left out: 1 stretches of the file that are no JSON",)


def test_damage_after_the_events_costs_what_follows(read_text):
    text = two_iterations().text().replace('"/home/somebody/t.json"', '"a "b" c"')
    trace = read_text(text)
    assert len(trace.operations) == 6
    assert trace.notes == (
        "left out: 1 stretches of the file that are no JSON",
        "what follows the last stretch was not read",
    )


def test_every_cut_of_a_file_is_read_to_the_cut_or_refused(tmp_path):
    whole = two_iterations().text()
    path = tmp_path / "cut.json"
    starts = read_kineto(two_iterations().save(path)).operations.start_ns.tolist()
    seen = set()
    for length in range(1, len(whole), 7):
        path.write_text(whole[:length])
        try:
            trace = read_kineto(path)
        except RecordError as error:
            assert "no GPU operation" in str(error) or "this is" in str(error)
            continue
        assert trace.operations.start_ns.tolist() == starts[: len(trace.operations)]
        assert "the file is cut short: what followed is missing" in trace.notes
        seen.add(len(trace.operations))
    assert seen == {1, 2, 3, 4, 5, 6}


def test_a_bare_array_may_lack_its_end_but_not_break_off_in_an_event(read_text):
    events = ",\n".join(two_iterations().events)
    for text in (
        f"[{events}]",
        f"[{events},\n]",
        f"[{events}",
        f"[{events},\n",
        f"\ufeff[{events}]",
    ):
        trace = read_text(text)
        assert len(trace.operations) == 6 and trace.notes == ()
    trace = read_text(f"[{events}"[:-10])
    assert trace.notes == ("the file is cut short: what followed is missing",)


def test_text_after_the_document_is_said(read_text):
    note = ("what follows the end of the document was not read",)
    assert read_text(two_iterations().text() + " {}").notes == note
    assert read_text(two_iterations().text() + "\n \n").notes == ()


def test_the_order_of_the_document_does_not_matter(read_text):
    document = json.loads(two_iterations().text())
    text = json.dumps(dict(reversed(document.items())))
    trace = read_text(text)
    assert trace.gpus[0].name == "NVIDIA H200" and len(trace.operations) == 6
    two = '{"traceEvents": [], ' + text.lstrip("{ ")
    assert len(read_text(two).operations) == 6


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1000])
def test_where_the_pieces_of_the_text_end_does_not_matter(size):
    text = two_iterations().raw("tru").raw(kernel()).text()
    pieces = (text[at : at + size] for at in range(0, len(text), size))
    found = EventStream(pieces)
    whole = EventStream(iter([text]))
    assert list(found) == list(whole)
    assert found.header == whole.header and "schemaVersion" in whole.header
    assert found.damaged == whole.damaged == 1
    assert not (found.cut_short or found.followed or found.given_up)


# -- files ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "the file is empty"),
        (b"   \n ", "this is not JSON"),
        (b"SQLite format 3\x00", "this is not JSON"),
        (b"\xff\xfe[\x00]\x00", "this is not JSON"),
        (b"17", "this is not JSON"),
        (b"{}", "this is JSON without traceEvents"),
        (b'{"nodes": [1, 2], "schema": "1.1.1"}', "this is JSON without traceEvents"),
        (b'{"traceEvents": {"ph": "X"}}', "this is JSON without traceEvents"),
        (b'{"traceEvents": []}', "no GPU operation in it"),
        (b"[]", "no GPU operation in it"),
        (b"{" * 200_000, "this is JSON without traceEvents"),
        (b"[" * 200_000, "no GPU operation in it"),
        (b'{"a": "' + b"x" * 3_000_000, "this is JSON without traceEvents"),
    ],
)
def test_what_is_no_trace_is_refused_in_one_line(refused, content, found):
    line = refused(content)
    assert line.startswith(found) and "expected" in line


def test_a_folder_a_pipe_and_what_cannot_be_opened_are_refused(tmp_path):
    pipe = tmp_path / "pipe.json"
    os.mkfifo(pipe)
    unreadable = two_iterations().save(tmp_path / "mine.json")
    unreadable.chmod(0)
    expected = {
        tmp_path: "this is a folder; expected a PyTorch profiler or Chrome trace",
        pipe: "this is no regular file",
        tmp_path / "absent.json": "it cannot be read (No such file or directory)",
        unreadable: "it cannot be read (Permission denied)",
        tmp_path / "a\0b": "it cannot be opened",
    }
    if os.access(unreadable, os.R_OK):  # the super-user reads everything
        del expected[unreadable]
    for path, line in expected.items():
        with pytest.raises(RecordError) as caught:
            read_kineto(path)
        assert line in str(caught.value)


def test_a_file_of_ten_gigabytes_is_refused_at_once(tmp_path):
    path = tmp_path / "huge.json"
    with path.open("wb") as file:
        file.write(b"[")
        file.truncate(10 * 2**30)  # a hole: nothing is stored
    with pytest.raises(RecordError, match="more than 8 GiB; expected less; record fewer"):
        read_kineto(path)
    assert stat.S_ISREG(path.stat().st_mode)


def test_a_file_that_grows_beyond_the_limit_is_refused(read_text, monkeypatch):
    monkeypatch.setattr(json_text, "MAX_JSON_BYTES", 1000)
    monkeypatch.setattr(json_text, "_check", lambda status: None)
    with pytest.raises(RecordError, match="record fewer iterations"):
        read_text(two_iterations().text())


def test_members_of_a_gzip_file_are_read_as_one(read_text):
    content = two_iterations().text().encode()
    halves = gzip.compress(content[:1234]) + gzip.compress(content[1234:])
    trace = read_text(halves + b"\0" * 700)
    assert len(trace.operations) == 6 and trace.notes == ()


def test_bytes_after_a_gzip_stream_are_said(read_text):
    content = gzip.compress(two_iterations().text().encode())
    for rest in (b"rest", b"\0\0rest", b"\x1fx"):
        trace = read_text(content + rest)
        assert len(trace.operations) == 6
        assert trace.notes == ("what follows the end of the gzip stream was not read",)


def test_a_gzip_stream_that_is_cut_or_damaged_is_read_as_far_as_it_goes(read_text):
    file = two_iterations()
    for number in range(2000):
        file.kernel(f"kernel {number * 7919 % 1000}", 2_000_000 + 1_000 * number, 10, 5)
    content = gzip.compress(file.text().encode(), mtime=0)
    trace = read_text(content[: len(content) // 2])
    assert 6 < len(trace.operations) < 2006
    assert "the gzip stream was cut short: what followed is missing" in trace.notes
    assert "the file is cut short: what followed is missing" in trace.notes
    damaged = bytearray(content)
    damaged[-6] ^= 1  # the checksum
    trace = read_text(bytes(damaged))
    assert len(trace.operations) == 2006
    assert "the gzip stream is damaged: what follows the damage was not read" in trace.notes


def test_a_gzip_bomb_is_refused_before_it_goes_off(tmp_path, monkeypatch):
    path = tmp_path / "bomb.json.gz"
    path.write_bytes(gzip.compress(b"[" + b" " * (200 << 20), compresslevel=9))
    assert path.stat().st_size < 300_000
    with pytest.raises(RecordError, match="inflates more than 250-fold; expected a trace"):
        read_kineto(path)
    monkeypatch.setattr(json_text, "MOST_INFLATION", 10_000)
    monkeypatch.setattr(json_text, "MAX_JSON_BYTES", 100 << 20)
    with pytest.raises(RecordError, match="more than 0.0977 GiB"):
        read_kineto(path)


# -- limits ---------------------------------------------------------------------------------


def test_more_events_than_fit_are_refused(read_text, monkeypatch):
    monkeypatch.setattr(gathered, "MOST_EVENTS", 5)
    with pytest.raises(RecordError, match="too many events; expected at most 5; record fewer"):
        read_text(two_iterations().text())


@pytest.mark.parametrize("limit", ["MOST_DISTINCT", "MOST_NAME_CHARACTERS"])
def test_more_different_names_than_fit_are_refused(read_text, monkeypatch, limit):
    monkeypatch.setattr(gathered, limit, 3)
    with pytest.raises(RecordError, match="too many different names, shapes or threads"):
        read_text(two_iterations().text())


def test_an_event_without_end_is_damage_and_not_memory(monkeypatch, read_text):
    monkeypatch.setattr(json_stream, "EVENT_CHARACTERS", 10_000)
    trace = read_text(with_kernel(kernel(name="x" * 3_000_000)).text())
    assert [one.name for one in trace.operations.descriptions] == ["sound"]
    assert trace.notes == ("left out: 1 stretches of the file that are no JSON",)


def test_a_file_of_damage_alone_is_given_up_in_time(monkeypatch, read_text):
    monkeypatch.setattr(json_stream, "DAMAGE_CHARACTERS", 400_000)
    nested = '{"ph":' * 500_000
    trace = read_text("[" + kernel() + "," + nested + "," + kernel() + "]")
    assert len(trace.operations) == 1
    assert trace.notes[:2] == (
        "left out: 1 stretches of the file that are no JSON",
        "what follows the last stretch was not read",
    )
