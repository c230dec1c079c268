"""The arithmetic and the parsers of benchmarks/: a wrong ratio or a misread figure would be believed.

No proxy or server is started here. The texts are what the programs print, shortened.
"""

import json
import re
import socket
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from benchmarks import accounting, features, machine, memload, reckon, report, shards, syscalls
from benchmarks.bench import ALL_CORES, ONE_CORE, Outcome, Plan, objection
from benchmarks.load import load_command, parse_load
from benchmarks.processes import BenchError, pinned
from benchmarks.reckon import Sample, SyscallCount, WorkerSample
from benchmarks.scenes import SCENES
from benchmarks.shards import Witness
from benchmarks.subjects import (
    BASELINE,
    DIRECT,
    SHOAL,
    Setting,
    Subject,
    chosen,
    fill_in,
    find_subjects,
    from_template,
    haproxy_configuration,
    nutcracker_configuration,
    predixy_configuration,
)
from benchmarks.workloads import KETAMA, MEMCACHED, SLOTS, WORKLOADS, KeyRange, Workload, by_name

GET = by_name("get-p1")
MGET = by_name("mget")
SETTING = Setting(22001, 22002, ("127.0.0.1:22011", "127.0.0.1:22012"), Path("where"), 2)


def sample(round_number: int, subject: str, cpu_us: float, workload: str = GET.name, requests: int = 1000) -> Sample:
    return Sample(
        round_number, workload, subject, requests, round(cpu_us * 1000 * requests), 20_000.0, 1.0, 2.0, 2048, 0
    )


def workers(round_number: int, count: int, threads: tuple[int, ...], placement: str = ALL_CORES) -> WorkerSample:
    return WorkerSample(round_number, GET.name, placement, count, 1000, threads)


# ------------------------------------------------------------------------------------------------------ arithmetic


def test_cpu_per_request_is_in_microseconds() -> None:
    assert sample(0, SHOAL, 12.5).cpu_us_per_request == 12.5


def test_ratios_pair_cells_of_the_same_round_only() -> None:
    # Round 1 was twice as slow for both: the ratio must not see it. Round 2 lacks the baseline, round 3 the subject.
    samples = [
        sample(1, SHOAL, 14.0),
        sample(0, SHOAL, 7.0),
        sample(0, BASELINE, 10.0),
        sample(1, BASELINE, 20.0),
        sample(2, SHOAL, 1.0),
        sample(3, BASELINE, 1.0),
        sample(0, BASELINE, 99.0, "set-p1"),
    ]
    assert reckon.ratios(samples, GET.name, SHOAL, BASELINE) == [0.7, 0.7]


def test_spread_takes_the_middle_and_the_ends() -> None:
    assert reckon.spread([3.0, 1.0, 50.0]) == reckon.Spread(3.0, 1.0, 50.0, 3)
    with pytest.raises(ValueError, match="no values"):
        reckon.spread([])


def test_median_of_a_figure_or_none() -> None:
    samples = [sample(0, SHOAL, 1.0), sample(1, SHOAL, 2.0), sample(2, SHOAL, 9.0), sample(0, BASELINE, 100.0)]
    assert reckon.median_of(samples, GET.name, SHOAL, "cpu_us_per_request") == 2.0
    assert reckon.median_of(samples, GET.name, DIRECT, "cpu_us_per_request") is None


def test_rotation_puts_each_one_first_in_turn() -> None:
    names = ["a", "b", "c"]
    assert [reckon.rotated(names, turn) for turn in range(4)] == [
        ["a", "b", "c"],
        ["b", "c", "a"],
        ["c", "a", "b"],
        ["a", "b", "c"],
    ]
    assert reckon.rotated([], 5) == []


@pytest.mark.parametrize(
    ("per_s", "seconds", "clients", "pipeline", "expected"),
    [
        (20_000, 1.0, 50, 1, 20_000),
        (100_000, 1.0, 50, 16, 100_000),
        (101_234, 1.0, 50, 16, 101_600),
        (10, 0.1, 500, 1, 500),
    ],
)
def test_cells_are_whole_turns_of_all_clients(
    per_s: float, seconds: float, clients: int, pipeline: int, expected: int
) -> None:
    assert reckon.requests_for(per_s, seconds, clients, pipeline) == expected


def test_capacity_is_limited_by_the_busiest_worker() -> None:
    # 1000 requests; the busiest of two workers spent 60 ms, some other thread of the process 1 ms.
    measured = workers(0, 2, (1_000_000, 60_000_000, 40_000_000))
    assert measured.capacity_per_s == pytest.approx(1000 / 0.060)
    assert measured.evenness == pytest.approx(100 / 120)
    assert measured.cpu_us_per_request == pytest.approx(101.0)


def test_capacity_ratio_of_an_even_and_of_an_idle_second_worker() -> None:
    samples = [
        workers(0, 1, (100_000_000,)),
        workers(0, 2, (50_000_000, 50_000_000)),
        workers(1, 1, (100_000_000,)),
        workers(1, 2, (100_000_000, 0)),
        workers(0, 2, (1, 1), ONE_CORE),
    ]
    assert reckon.capacity_ratios(samples, GET.name, ALL_CORES, 2) == pytest.approx([2.0, 1.0])


def test_a_bar_is_judged_on_the_figure_as_printed() -> None:
    assert not reckon.missed(0.784, 0.78)
    assert reckon.missed(0.786, 0.78)
    assert not reckon.missed(1.796, 1.8, at_least=True)
    assert reckon.missed(1.79, 1.8, at_least=True)
    assert not reckon.missed(99.0, None)


# --------------------------------------------------------------------------------------------------------- parsers

LOAD = (
    '"test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms","p99_latency_ms","max_latency_ms"\n'
    '"SET key:__rand_int__ a,b","25563.26","1.380","0.280","1.327","2.015","2.791","5.455"\n'
)


def test_load_result_is_read_by_column_name() -> None:
    result = parse_load("WARNING: Could not fetch server CONFIG\n" + LOAD)
    assert (result.requests_per_s, result.p50_ms, result.p99_ms) == (25563.26, 1.327, 2.791)


@pytest.mark.parametrize(
    "text",
    [
        "Error from server: ERR unknown command\n" + LOAD,
        "Error: Server closed the connection\n",
        "Could not connect to Redis at 127.0.0.1:1: Connection refused\n",
        LOAD.splitlines()[0],
        "",
    ],
)
def test_a_load_with_errors_or_without_result_is_no_result(text: str) -> None:
    with pytest.raises(BenchError, match="the load"):
        parse_load(text)


def test_load_command_spells_out_command_and_keys() -> None:
    command = load_command(22001, MGET, 500)
    assert command[command.index("-p") + 1] == "22001"
    assert command[command.index("-n") + 1] == "500"
    assert command[command.index("--csv") + 1 :] == ["MGET", *["key:__rand_int__"] * 10]


def test_schedstat_and_stat_lines() -> None:
    assert accounting.parse_schedstat("161983 6848358 2\n") == 161983
    stat = "42 (a b) (c) S 7 42 42 0 -1 4194304 100 0 0 0 30 12 0 0 20 0 1 0 5000 1000 200\n"
    assert accounting.parse_stat_ticks(stat) == 42
    assert accounting.parse_stat_parent(stat) == 7


def test_memory_and_steal() -> None:
    status = "Name:\tx\nVmHWM:\t  300 kB\nVmRSS:\t  200 kB\n"
    assert accounting.parse_status_kib(status, "VmRSS") == 200
    assert accounting.parse_status_kib(status, "VmSwap") == 0
    stat = "cpu  9 9 9 9 9 9 9 99 0 0\ncpu0 1 1 1 1 1 1 1 5 0 0\ncpu1 1 1 1 1 1 1 1 7 0 0\nintr 3\n"
    assert accounting.parse_steal_ticks(stat, 1) == 7
    assert accounting.parse_steal_ticks(stat, 8) == 0


def test_perf_counts() -> None:
    text = (
        "# started on Sun Nov 22\n\n"
        "92600,,raw_syscalls:sys_enter,1049008,100.00,,\n"
        "22500,,syscalls:sys_enter_writev,1049008,100.00,,\n"
        "0,,syscalls:sys_enter_futex,1049008,100.00,,\n"
        "<not counted>,,syscalls:sys_enter_read,0,0.00,,\n"
    )
    assert syscalls.parse_perf_stat(text) == (92600, {"writev": 22500})
    with pytest.raises(BenchError, match="counted nothing"):
        syscalls.parse_perf_stat("<not counted>,,raw_syscalls:sys_enter,0,0.00,,\n")


def test_strace_counts_with_and_without_errors() -> None:
    text = (
        "% time     seconds  usecs/call     calls    errors syscall\n"
        "------ ----------- ----------- --------- --------- ----------------\n"
        " 67.32    0.000414         414       100           read\n"
        "  1.14    0.000007           3        20         5 accept4\n"
        "------ ----------- ----------- --------- --------- ----------------\n"
        "100.00    0.000615          21       120         5 total\n"
    )
    assert syscalls.parse_strace(text) == (120, {"read": 100, "accept4": 20})
    with pytest.raises(BenchError, match="counted nothing"):
        syscalls.parse_strace("")


def test_info_fields() -> None:
    assert shards.parse_info("# Stats\r\nkeyspace_hits:12\r\nx:a:b\r\n\r\n") == {"keyspace_hits": "12", "x": "a:b"}


def test_request_in_resp() -> None:
    assert shards.request("SET", "k", "é") == b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$2\r\n\xc3\xa9\r\n"


def test_cpu_model_and_memory() -> None:
    assert machine.parse_cpu_model("processor\t: 0\nmodel name\t: AMD EPYC\n") == "AMD EPYC"
    assert machine.parse_cpu_model("") == "unknown"
    assert machine.parse_meminfo_gib("MemFree: 1 kB\nMemTotal:  2097152 kB\n") == 2.0
    kind = machine.host_kind({"cores": 2, "cpu": "Intel(R) Xeon(R) CPU E5 @ 2.20GHz", "virtual": True})
    assert kind == "2-core-intel-r-xeon-vm"


# ------------------------------------------------------------------------------------------------------- witnesses


@pytest.mark.parametrize(
    ("seen", "workload", "complaint"),
    [
        (Witness(1000, 0, 0, 1000), GET, None),
        (Witness(999, 1, 0, 1000), GET, "found no key"),
        (Witness(999, 0, 0, 999), GET, "saw 999 reads of 1000"),
        (Witness(1000, 0, 3, 1000), GET, "3 errors"),
        (Witness(1000, 0, 0, 1000), MGET, "saw 1000 reads of 10000"),
        (Witness(10_000, 0, 0, 4000), MGET, None),
        (Witness(0, 0, 0, 999), by_name("set-p1"), "saw 999 commands of 1000"),
        (Witness(0, 0, 0, 1000), by_name("set-p1"), None),
    ],
)
def test_the_shards_object_to_a_cell(seen: Witness, workload: Workload, complaint: str | None) -> None:
    found = objection(seen, workload, 1000)
    assert found is None if complaint is None else complaint in (found or "")


def test_statistics_of_memcached() -> None:
    lines = ["STAT get_hits 12", "STAT version 1.6.18 x", "END"]
    assert memload.parse_stats(lines) == {"get_hits": "12", "version": "1.6.18 x"}


def test_memload_asks_and_checks(tmp_path: Path) -> None:
    # A server that answers every get of two keys with two values of ten bytes, then one with too few.
    workload = replace(by_name("mc-mget"), clients=1, pipeline=2, keys_per_request=2, keys=KeyRange("k", 5, 10))
    asked: list[bytes] = []
    value = b"VALUE k000000000001 0 10\r\n0123\r\n6789\r\n"

    def serve(replies: bytes) -> subprocess.CompletedProcess[str]:
        with socket.create_server(("127.0.0.1", 0)) as server:
            command = memload.load_command(server.getsockname()[1], workload, 2)
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            link, _ = server.accept()
            with link:
                while b"".join(asked).count(b"\n") % 2 or not asked:
                    asked.append(link.recv(4096))
                link.sendall(replies)
                out, _ = process.communicate(timeout=10)
        return subprocess.CompletedProcess(command, process.returncode, out)

    done = serve((value * 2 + b"END\r\n") * 2)
    assert re.fullmatch(rb"(get k0{11}[0-4] k0{11}[0-4]\r\n){2}", b"".join(asked))
    assert parse_load(done.stdout).requests_per_s > 0
    asked.clear()
    done = serve((value + b"END\r\n") * 2)
    assert done.returncode == 1
    with pytest.raises(BenchError, match="a key was not found"):
        parse_load(done.stdout)


def test_witness_is_a_difference() -> None:
    assert Witness(5, 4, 3, 20).since(Witness(1, 1, 1, 8)) == Witness(4, 3, 2, 12)


# -------------------------------------------------------------------------------------------------------- subjects


def test_templates_are_filled_in() -> None:
    words = fill_in("'/a b/shoal' serve --listen 127.0.0.1:{port} {shard_args} --workers {workers}", SETTING)
    assert words == [
        "/a b/shoal",
        "serve",
        "--listen",
        "127.0.0.1:22001",
        *("--shard", "127.0.0.1:22011"),
        *("--shard", "127.0.0.1:22012"),
        "--workers",
        "2",
    ]
    assert fill_in("x -s {shards} -a {second_port} -d {dir}", SETTING) == [
        *("x", "-s", "127.0.0.1:22011,127.0.0.1:22012"),
        *("-a", "22002", "-d", "where"),
    ]


def test_shoal_is_started_from_the_file_of_nutcracker(tmp_path: Path) -> None:
    (tmp_path / "shoal").touch()
    found, _ = find_subjects({}, tmp_path)
    command = next(subject for subject in found if subject.name == SHOAL).command
    assert command is not None
    slots, ketama, memcached = (
        command(replace(SETTING, scene=scene, directory=tmp_path)) for scene in (SLOTS, KETAMA, MEMCACHED)
    )
    assert "--shard" in slots
    assert ketama == [
        str(tmp_path / "shoal"),
        "serve",
        "--nutcracker",
        str(tmp_path / "nutcracker.yml"),
        "--workers",
        "2",
    ]
    assert memcached == ketama
    assert "redis: false" in (tmp_path / "nutcracker.yml").read_text()
    assert "redis: true" in nutcracker_configuration(replace(SETTING, scene=KETAMA))


def test_who_can_be_started_from_such_a_file_takes_part_in_every_scene() -> None:
    assert from_template("x", "x", "x {port}").scenes == (SLOTS,)
    assert from_template("x", "x", "x {nutcracker}").scenes == (SLOTS, KETAMA, MEMCACHED)
    assert set(SCENES) == {workload.scene for workload in WORKLOADS}


def test_configurations_name_listener_and_shards() -> None:
    for text in (nutcracker_configuration(SETTING), predixy_configuration(SETTING)):
        assert "127.0.0.1:22001" in text
        assert all(shard in text for shard in SETTING.shards)
    assert "127.0.0.1:22012" not in haproxy_configuration(SETTING)
    assert "hash: fnv1a_64\n  distribution: ketama" in nutcracker_configuration(SETTING)


def test_environment_names_further_subjects(tmp_path: Path) -> None:
    environ = {
        "SHOAL_BENCH_SHOAL": "core {port} {shards}",
        "SHOAL_BENCH_PREDIXY": "predixy",
        "SHOAL_BENCH_CMD_ENVOY": "envoy {port} {workers}",
    }
    found, _ = find_subjects(environ, tmp_path)
    by_subject = {subject.name: subject for subject in found}
    assert {SHOAL, DIRECT, "predixy", "envoy"} <= set(by_subject)
    assert by_subject["envoy"].takes_workers
    assert not by_subject[SHOAL].takes_workers
    command = by_subject[SHOAL].command
    assert command is not None
    assert command(SETTING) == ["core", "22001", "127.0.0.1:22011,127.0.0.1:22012"]


def test_shoal_is_absent_until_it_is_installed(tmp_path: Path) -> None:
    _, absent = find_subjects({}, tmp_path)
    assert any(line.startswith("shoal: not built") for line in absent)
    (tmp_path / "shoal").touch()
    found, absent = find_subjects({}, tmp_path)
    assert not any(line.startswith("shoal") for line in absent)
    assert next(subject for subject in found if subject.name == SHOAL).takes_workers


def test_choice_of_subjects_keeps_order_and_refuses_unknown_names() -> None:
    found = [Subject(name, name, None) for name in ("a", "b", "c")]
    assert [subject.name for subject in chosen(found, ["c", "a"])] == ["a", "c"]
    assert chosen(found, []) == found
    with pytest.raises(KeyError, match="no subject 'd'"):
        chosen(found, ["a", "d"])


def test_pinning_goes_in_front_of_the_command() -> None:
    command = pinned({1, 0}, ["x", "-y"])
    assert command[command.index("--cpu-list") + 1 :] == ["0,1", "x", "-y"]


# ---------------------------------------------------------------------------------------------------------- report


def outcome_with(ratio: float) -> tuple[Plan, Outcome]:
    names = (BASELINE, SHOAL)
    plan = Plan(tuple(Subject(n, n, None) for n in names), (GET, by_name("set-10k")), 3, 1.0, 1, (0, 1))
    samples = [sample(n, BASELINE, 10.0) for n in range(3)] + [sample(n, SHOAL, 10.0 * ratio) for n in range(3)]
    counts = [SyscallCount(GET.name, SHOAL, "perf stat", 1000, 2600, {"read": 1000, "futex": 1})]
    pair = [workers(0, 1, (100_000_000,)), workers(0, 2, (50_000_000, 50_000_000))]
    return plan, Outcome(samples=samples, syscalls=counts, workers=pair, requests={GET.name: 1000})


def test_a_missed_bar_is_marked_and_a_met_one_is_not() -> None:
    plan, outcome = outcome_with(0.70)
    assert report.misses(plan, outcome) == []
    assert report.MISSED not in report.summary(plan, outcome)
    assert "No bar missed." in report.record_text(plan, outcome, MACHINE, {}, WHEN)
    plan, outcome = outcome_with(0.90)
    assert report.misses(plan, outcome) == ["get-p1: 0.90, reach 0.78"]
    assert "0.90 [0.90-0.90] MISSED" in report.ratio_table(plan, outcome)
    assert "- get-p1: 0.90, reach 0.78" in report.record_text(plan, outcome, MACHINE, {}, WHEN)


def test_syscalls_and_capacity_have_bars_too() -> None:
    plan, outcome = outcome_with(0.70)
    outcome.syscalls[:] = [SyscallCount(GET.name, SHOAL, "perf stat", 1000, 2800, {})]
    outcome.workers[1] = workers(0, 2, (70_000_000, 30_000_000))
    assert report.misses(plan, outcome) == [
        "syscalls, get-p1: 2.80, reach 2.7",
        "two workers, get-p1: 1.43, reach 1.8",
    ]


def test_tables_are_aligned() -> None:
    text = report.table(["a", "bb"], [["long", "1"], ["x", "22"]])
    assert text.splitlines() == ["| a    | bb |", "|:-----|---:|", "| long |  1 |", "| x    | 22 |"]


MACHINE = {
    "cpu": "AMD EPYC",
    "cores": 2,
    "virtual": True,
    "memory_gib": 4.0,
    "kernel": "6.1",
    "system": "Debian",
    "load_average": [0.0, 0.0, 0.0],
}
WHEN = datetime(2026, 11, 22, 17, 20, tzinfo=UTC)


def test_the_raw_record_is_json_with_every_sample() -> None:
    plan, outcome = outcome_with(0.70)
    record = json.loads(report.as_json(plan, outcome, MACHINE, {"x": "1"}, WHEN))
    assert len(record["samples"]) == 6
    assert record["samples"][0]["cpu_ns"] == 10_000_000
    assert record["syscalls"][0]["by_name"] == {"read": 1000, "futex": 1}
    assert record["workers"][1]["thread_cpu_ns"] == [50_000_000, 50_000_000]
    assert record["machine"]["cpu"] == "AMD EPYC"
    assert record["plan"]["workloads"][1]["command"] == "SET big:__rand_int__ <10240 bytes>"
    empty = json.loads(report.as_json(plan, Outcome(), MACHINE, {}, WHEN))
    assert empty["samples"] == []


def test_the_record_is_named_by_date_and_host(tmp_path: Path) -> None:
    path = report.write_record(tmp_path / "new", WHEN, MACHINE, "text", "{}")
    assert path.name == "2026-11-22T1720-2-core-amd-epyc-vm.md"
    assert path.read_text() == "text"
    assert path.with_suffix(".json").read_text() == "{}"


def test_every_workload_has_a_bar_and_a_name_of_its_own() -> None:
    assert len({workload.name for workload in WORKLOADS}) == len(WORKLOADS)
    assert all(workload.reach is not None for workload in WORKLOADS)
    with pytest.raises(KeyError, match="no workload 'x'"):
        by_name("x")


# -------------------------------------------------------------------------------------------------------- features


def test_a_features_figures_are_paired_by_round() -> None:
    samples = [
        sample(0, SHOAL, 6.0, "multi"),
        sample(0, DIRECT, 12.0, "multi"),
        sample(1, SHOAL, 30.0, "multi"),
        sample(1, DIRECT, 20.0, "multi"),
        sample(2, SHOAL, 1.0, "multi"),
        sample(0, DIRECT, 99.0, "fanout"),
    ]
    assert features.figure_ratios(samples, "multi", "cpu_us_per_request") == [0.5, 1.5]
    assert features.figure_ratios(samples, "fanout", "p50_ms") == []
    chosen = [feature for feature in features.features(1) if feature.name == "multi"]
    row = features.summary(chosen, samples).splitlines()[2]
    assert "1.00 [0.50-1.50]" in row


def test_the_load_of_features_finds_a_reply_that_is_wrong() -> None:
    """A shard that answers OK within MULTI, where QUEUED must come."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        feature = features.Feature("multi", "multi", "one", (1, 1, 1), 1, "transaction")
        command = feature.command(server.getsockname()[1])
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as load:
            link, _address = server.accept()
            with link:
                link.recv(4096)
                link.sendall(b"+OK\r\n+OK\r\n*1\r\n+OK\r\n")
                output, _nothing = load.communicate(timeout=30)
    assert load.returncode == 1
    assert output.startswith("Error from server: another reply")
    with pytest.raises(BenchError, match="another reply"):
        parse_load(output)
