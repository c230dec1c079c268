"""`shoal serve` as a process over real servers: what it says, how it fails to start, how it stops."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
import redis
from harness import Fleet, Port, Proxy, Wire, process, wait_until
from harness.proxy import program
from prometheus_client.parser import text_string_to_metric_families


def fails(*arguments: object, **options: Any) -> tuple[int, list[str]]:
    """(exit code, lines of standard error) of a `shoal serve` that cannot start."""
    command: list[str | Path] = [program(), "serve", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, **options)
    assert done.stdout == ""
    return done.returncode, done.stderr.splitlines()


def get(proxy: Proxy, path: str) -> tuple[int, str]:
    """(status, body)"""
    try:
        with urllib.request.urlopen(f"{proxy.admin_url}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def counters(proxy: Proxy) -> dict[str, float]:
    """Every sample of /metrics by name, added up over its labels."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(get(proxy, "/metrics")[1]):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0) + sample.value
    return found


def test_the_ready_line_says_what_runs_where(fleet: Fleet, proxy: Proxy) -> None:
    assert proxy.ready == {
        "event": "ready",
        "version": proxy.ready["version"],
        "pid": proxy.pid,
        "admin": str(proxy.admin),
        "stats": None,
        "keyspaces": [
            {
                "name": "main",
                "listen": proxy.address,
                "shards": [
                    {"name": f"s{index}", "endpoint": fleet.addresses[index], "slots": [slots]}
                    for index, slots in enumerate(["0-4095", "4096-8191", "8192-12287", "12288-16383"])
                ],
            }
        ],
    }
    assert proxy.stdout.read_text().count("\n") >= 1
    assert all(line.startswith("{") for line in proxy.stdout.read_text().splitlines()), "nothing but JSON"


def test_people_get_lines_and_the_log_goes_elsewhere(fleet: Fleet, tmp_path: Path) -> None:
    port = Port.take()
    command: list[str | Path] = [program(), "serve", "--listen", str(port), "--shard", fleet.addresses[0]]
    started = process.start(command, stdout=tmp_path / "out", stderr=tmp_path / "err")
    wait_until(lambda: "SIGTERM stops it" in (tmp_path / "out").read_text(), 20, "it says that it runs")
    assert process.end(started, signal.SIGTERM, 10) == 0
    text = (tmp_path / "out").read_text()
    assert f"  clients: {port}    try: redis-cli -p {port.number}\n" in text
    assert f"    shard s0  {fleet.addresses[0]}  slots 0-16383\n" in text
    assert "admin" not in text
    assert all(line.startswith("ts=") for line in (tmp_path / "err").read_text().splitlines())
    port.release()


def test_any_free_port_is_told(fleet: Fleet, new_proxy: Callable[..., Proxy]) -> None:
    proxy = new_proxy([fleet.addresses[0]], options=["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
    (keyspace,) = proxy.ready["keyspaces"]
    host, port = keyspace["listen"].rsplit(":", 1)
    assert int(port) > 0
    with Wire(host, int(port)) as wire:
        assert wire.ask("PING") == "PONG"
    with urllib.request.urlopen(f"http://{proxy.ready['admin']}/healthz", timeout=10) as answer:
        assert answer.status == 200


def test_a_file_says_everything_and_options_overrule_it(fleet: Fleet, new_proxy: Callable[..., Proxy]) -> None:
    config = """
    admin = "{admin}"
    log = "json"
    [keyspace.one]
    listen = "{listen}"
    password = "hidden"
    shards = ["{shard0}", "{shard1}"]
    [keyspace.two]
    listen = "127.0.0.1:0"
    shards = ["{shard2}"]
    """
    proxy = new_proxy(fleet.addresses, config=config, options=["--log-level", "debug"])
    assert [keyspace["name"] for keyspace in proxy.ready["keyspaces"]] == ["one", "two"]
    with pytest.raises(redis.AuthenticationError):
        proxy.client().get("k")
    assert proxy.client(password="hidden").set("k", "v")
    assert get(proxy, "/readyz")[0] == 200
    events = [json.loads(line) for line in proxy.stderr.read_text().splitlines()]
    assert "debug" in {event["level"] for event in events}
    # The password is in no line, no answer, and not on the command line that `ps` shows.
    shown = "\n".join([*proxy.log(), get(proxy, "/metrics")[1], get(proxy, "/readyz")[1]])
    assert "hidden" not in shown
    if sys.platform == "linux":
        assert b"hidden" not in Path(f"/proc/{proxy.pid}/cmdline").read_bytes()


def test_a_taken_port_is_one_line_and_exit_2(fleet: Fleet, proxy: Proxy) -> None:
    line = "shoal: cannot listen on {}: address already in use (another shoal? choose another with {})"
    code, lines = fails("--listen", proxy.address, "--shard", fleet.addresses[0])
    assert (code, lines) == (2, [line.format(proxy.address, "--listen")])
    code, lines = fails("--listen", "127.0.0.1:0", "--admin", proxy.admin, "--shard", fleet.addresses[0])
    assert (code, lines) == (2, [line.format(proxy.admin, "--admin")])


@pytest.mark.parametrize(
    ("listen", "complaint"),
    [("192.0.2.1:6380", "this machine has no such address"), ("no-such-host.invalid:6380", "cannot listen on no-such")],
)
def test_an_address_that_is_not_ours_is_one_line_and_exit_2(listen: str, complaint: str) -> None:
    code, (line,) = fails("--listen", listen, "--shard", "127.0.0.1:1")
    assert code == 2
    assert line.startswith("shoal: ")
    assert complaint in line


def test_warnings_of_the_configuration_are_logged(fleet: Fleet, new_proxy: Callable[..., Proxy]) -> None:
    proxy = new_proxy([fleet.addresses[0]], options=["--listen", f"0.0.0.0:{Port.take().number}"])
    assert any("event=config-warning" in line and "there is no password" in line for line in proxy.log())


def test_ready_follows_the_shards(fleet: Fleet, proxy: Proxy) -> None:
    wait_until(lambda: get(proxy, "/readyz")[0] == 200, 10, "every shard is up")
    fleet.kill(1)
    wait_until(lambda: get(proxy, "/readyz")[0] == 503, 10, "one is down")
    (down,) = json.loads(get(proxy, "/readyz")[1])["not_up"]
    assert (down["shard"], down["endpoint"]) == ("s1", fleet.addresses[1])
    assert down["reason"]
    assert get(proxy, "/healthz")[0] == 200
    fleet.restart(1)
    wait_until(lambda: get(proxy, "/readyz")[0] == 200, 10, "it is up again")
    wait_until(
        lambda: all(
            any(f"event={name}" in line and "shard=s1" in line for line in proxy.log())
            for name in ("shard-down", "shard-up")
        ),
        10,
        "both are logged",
    )


def test_metrics_count(proxy: Proxy) -> None:
    before = counters(proxy)
    client = proxy.client()
    for number in range(50):
        client.set(f"key:{number}", number)
    after = counters(proxy)
    assert after["shoal_requests_total"] - before["shoal_requests_total"] >= 50
    assert after["shoal_shard_latency_seconds_count"] - before["shoal_shard_latency_seconds_count"] >= 50
    assert after["shoal_build_info"] == 1
    assert "# TYPE shoal_shard_latency_seconds histogram\n" in get(proxy, "/metrics")[1]


def test_sigterm_finishes_what_is_in_flight(fleet: Fleet, new_proxy: Callable[..., Proxy]) -> None:
    proxy = new_proxy([fleet.addresses[0]], options=["--drain-timeout-ms", "20000"])
    fleet.client(0).set("k", "v")
    with Wire(proxy.host, proxy.port) as wire:
        fleet.stop(0)
        wire.command("GET", "k")
        wait_until(lambda: counters(proxy)["shoal_shard_in_flight"] == 1, 10, "the request is on its way")
        os.kill(proxy.pid, signal.SIGTERM)
        wait_until(lambda: get(proxy, "/readyz")[0] == 503, 10, "it is not ready while it drains")
        wait_until(lambda: refuses(proxy), 10, "no new client is accepted")
        assert proxy.running
        fleet.cont(0)
        assert wire.reply() == b"v"
    assert exit_code(proxy) == 0
    assert any("event=stopped" in line and "drained=yes" in line for line in proxy.log())
    assert any("event=stopping" in line and "reason=SIGTERM" in line for line in proxy.log())


def exit_code(proxy: Proxy) -> int:
    """Waits for the end that was asked for already: another signal would be a second one."""
    wait_until(lambda: not proxy.running, 15, "it has ended")
    return proxy.stop()


def refuses(proxy: Proxy) -> bool:
    """Whether a new client is turned away: refused, or closed without an answer."""
    try:
        with Wire(proxy.host, proxy.port, timeout=2) as wire:
            return not isinstance(wire.ask("PING"), str)
    except (OSError, EOFError, AssertionError):
        return True


def test_draining_is_bounded(fleet: Fleet, new_proxy: Callable[..., Proxy]) -> None:
    proxy = new_proxy([fleet.addresses[0]], options=["--drain-timeout-ms", "200"])
    with Wire(proxy.host, proxy.port) as wire:
        fleet.stop(0)
        wire.command("GET", "k")
        wait_until(lambda: counters(proxy)["shoal_shard_in_flight"] == 1, 10, "the request is on its way")
        assert proxy.stop() == 0
    assert any("event=stopped" in line and "drained=no" in line for line in proxy.log())
    fleet.cont(0)


def test_a_second_signal_ends_it_at_once(fleet: Fleet, new_proxy: Callable[..., Proxy]) -> None:
    proxy = new_proxy([fleet.addresses[0]], options=["--drain-timeout-ms", "3600000"])
    with Wire(proxy.host, proxy.port) as wire:
        fleet.stop(0)
        wire.command("GET", "k")
        wait_until(lambda: counters(proxy)["shoal_shard_in_flight"] == 1, 10, "the request is on its way")
        os.kill(proxy.pid, signal.SIGINT)
        wait_until(lambda: any("event=stopping" in line for line in proxy.log()), 10, "it drains")
        assert proxy.stop() == 1
    assert "shoal: stopped at once by a second signal" in proxy.log()
    fleet.cont(0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_each_signal_that_means_the_end_is_one(
    fleet: Fleet, new_proxy: Callable[..., Proxy], number: signal.Signals
) -> None:
    proxy = new_proxy([fleet.addresses[0]])
    os.kill(proxy.pid, number)
    if number == signal.SIGHUP:
        os.kill(proxy.pid, number)  # the shell's own, when a terminal is closed
    assert exit_code(proxy) == 0


def test_nohup_is_respected(fleet: Fleet, tmp_path: Path) -> None:
    port = Port.take()
    command: list[str | Path] = ["nohup", program(), "serve", "--listen", str(port), "--shard", fleet.addresses[0]]
    started = process.start(command, stdout=tmp_path / "out", stderr=tmp_path / "err")
    wait_until(lambda: "stops it" in (tmp_path / "out").read_text(), 20, "it runs")
    started.send_signal(signal.SIGHUP)
    with Wire("127.0.0.1", port.number) as wire:
        assert wire.ask("PING") == "PONG"
    assert process.end(started, signal.SIGTERM, 10) == 0
    port.release()


def test_the_limit_of_open_files_is_raised(fleet: Fleet, tmp_path: Path) -> None:
    port = Port.take()
    limited = 'ulimit -S -n 256; ulimit -H -n 1024; exec "$@"'
    command: list[str | Path] = ["/bin/sh", "-c", limited, "sh", program(), "serve", "--listen", str(port)]
    started = process.start([*command, "--shard", fleet.addresses[0]], stdout=tmp_path / "out", stderr=tmp_path / "err")
    wait_until(lambda: "stops it" in (tmp_path / "out").read_text(), 20, "it runs")
    with ExitStack() as stack:
        wires = [stack.enter_context(Wire("127.0.0.1", port.number)) for _ in range(400)]
        assert all(wire.ask("PING") == "PONG" for wire in wires)
    assert process.end(started, signal.SIGTERM, 10) == 0
    assert "event=file-limit limit=1024" in (tmp_path / "err").read_text()
    port.release()


def test_a_reader_of_its_outputs_that_leaves_does_not_end_it(fleet: Fleet) -> None:
    port = Port.take()
    command: list[str | Path] = [
        program(),
        "serve",
        "--json",
        "--log-level",
        "debug",
        "--listen",
        str(port),
        "--shard",
        fleet.addresses[0],
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as started:
        assert started.stdout is not None
        assert started.stderr is not None
        started.stdout.close()
        started.stderr.close()

        def answers() -> bool:
            with Wire("127.0.0.1", port.number, timeout=2) as wire:
                return wire.ask("PING") == "PONG"

        wait_until(answers, 20, "it serves all the same")
        assert started.poll() is None
        started.terminate()
        assert started.wait(15) == 0
    port.release()


def test_an_idle_proxy_sleeps(fleet: Fleet, new_proxy: Callable[..., Proxy]) -> None:
    """Its main thread waits for signals without waking by itself."""
    proxy = new_proxy([fleet.addresses[0]])
    if sys.platform != "linux":
        pytest.skip("reads /proc")

    def voluntary_switches() -> int:
        status = Path(f"/proc/{proxy.pid}/task/{proxy.pid}/status").read_text()
        (line,) = [line for line in status.splitlines() if line.startswith("voluntary_ctxt_switches")]
        return int(line.split()[1])

    before = voluntary_switches()
    done = threading.Event()
    assert not done.wait(1.5), "nothing ends this wait: it lets time pass for the process we look at"
    assert voluntary_switches() - before <= 2


def test_a_port_that_nobody_listens_on_yet_can_be_a_shard(new_proxy: Callable[..., Proxy]) -> None:
    with closing(socket.socket()) as holder:
        holder.bind(("127.0.0.1", 0))
        proxy = new_proxy([f"127.0.0.1:{holder.getsockname()[1]}"])
        assert get(proxy, "/readyz")[0] == 503
        with pytest.raises(redis.RedisError, match="s0"):
            proxy.client().get("k")
