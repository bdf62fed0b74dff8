"""`%sandboxctl`, more than one sandbox, and the stop button, in a real kernel."""

from __future__ import annotations

import time

from kernels import Cell, Kernel, assert_short, running, variables

# ---- more than one sandbox, and their control


def test_two_names_are_two_sandboxes(kernel: Kernel) -> None:
    kernel.ok("%%sandbox\nwho=first; echo first >/tmp/who")
    kernel.ok("%%sandbox -n second --image busybox:latest\nwho=second; echo second >/tmp/who")
    assert kernel.ok("%%sandbox\necho $who $(cat /tmp/who)").stdout == "first first\n"
    assert kernel.ok("%%sandbox -n second\necho $who $(cat /tmp/who)").stdout == "second second\n"
    assert running(kernel) >= {"default", "second"}
    kernel.ok("%sandboxctl stop -n second")
    assert "default" in running(kernel) and "second" not in running(kernel)


def test_control_verbs(kernel: Kernel) -> None:
    assert "sandbox ctl has started" in kernel.ok("%sandboxctl start -n ctl --memory 256m").stdout
    assert kernel.ok("%sandboxctl start -n ctl").stdout == "sandbox ctl runs already\n"
    status = kernel.ok("%sandboxctl status -n ctl").stdout
    assert "ctl: started" in status and str(256 << 20) in status and "online" in status
    kernel.ok("%%sandbox -n ctl\nstate=1; echo inside >/tmp/inside")
    (kernel.folder / "given.txt").write_text("from the host")
    assert "copied given.txt to /tmp/" in kernel.ok("%sandboxctl put given.txt /tmp/ -n ctl").stdout
    assert kernel.ok("%%sandbox -n ctl\ncat /tmp/given.txt").stdout == "from the host"
    assert "copied to taken.txt" in kernel.ok("%sandboxctl get /tmp/inside taken.txt -n ctl").stdout
    assert (kernel.folder / "taken.txt").read_text() == "inside\n"
    assert kernel.ok("%sandboxctl reset -n ctl").stdout.startswith("sandbox ctl is a fresh one")
    assert kernel.ok('%%sandbox -n ctl\necho "<$state>" $(ls /tmp)').stdout == "<>\n"
    assert kernel.ok("%sandboxctl stop -n ctl").stdout == "sandbox ctl is closed\n"
    unknown = kernel.run("%sandboxctl status -n ctl")
    assert_short(unknown, "InvalidOptions")
    assert "no sandbox is named 'ctl'" in unknown.error


def test_control_network_switches_the_sandbox(kernel: Kernel) -> None:
    devices = "%%sandbox\nls /sys/class/net | grep -vcx lo"
    count = [
        kernel.run(devices).stdout,
        kernel.ok(devices.replace("\n", " --network\n")).stdout,
        kernel.run(devices).stdout,
    ]
    assert "is offline" in kernel.ok("%sandboxctl network").stdout
    assert "sandbox default is online" in kernel.ok("%sandboxctl network on").stdout
    count.append(kernel.run(devices).stdout)
    assert "is offline" in kernel.ok("%sandboxctl network off").stdout
    count.append(kernel.run(devices).stdout)
    assert count == ["0\n", "1\n", "0\n", "1\n", "0\n"]


def test_control_network_by_name(kernel: Kernel) -> None:
    """What was refused is said with the failed cell, and stands in the log."""
    ask = "use IO::Socket::INET; $s = IO::Socket::INET->new(substr($ENV{http_proxy}, 7)) or exit 9; print $s "
    ask += "qq(CONNECT b.example:443 HTTP/1.1\\r\\nHost: b.example\\r\\n\\r\\n); print scalar <$s>; exit 7"
    failed = kernel.run(f"%%sandbox -n named --network a.example\nperl -e '{ask}'")
    assert "HTTP/1.1 403" in failed.stdout
    for said in ("exit status 7", "refused: b.example:443: it is not among the names", "--network=NAME"):
        assert said in failed.error
    told = kernel.ok("%sandboxctl network allow a.example, c.example:8443 -n named").stdout
    assert told == "sandbox named is offline, and reaches by name: a.example, c.example:8443\n"
    assert kernel.ok("%sandboxctl network -n named").stdout == told
    assert "a.example, c.example:8443" in kernel.ok("%sandboxctl status -n named").stdout
    log = kernel.ok("%sandboxctl network log -n named").stdout
    assert "refused" in log and "b.example:443" in log
    kernel.ok("%sandboxctl network deny a.example -n named")
    kernel.ok("%sandboxctl stop -n named")
    assert_short(kernel.run("%sandboxctl network allow 10.0.0.1"), "InvalidOptions")


def test_control_without_a_sandbox(kernel: Kernel) -> None:
    doctor = kernel.ok("%sandboxctl doctor").stdout
    assert "\ndocker: works\n" in doctor and "  limit on memory: enforced (" in doctor
    assert "  limit on memory: unknown (not tried)\n" in kernel.ok("%sandboxctl doctor --quick").stdout
    assert "what dead kernels left behind" in kernel.ok("%sandboxctl help").stdout
    assert kernel.ok("%sandboxctl gc").stdout != ""
    assert "timeout" in kernel.ok("%sandboxctl config").stdout
    wrong = kernel.run("%sandboxctl stats")
    assert_short(wrong, "InvalidOptions")
    assert "did you mean status?" in wrong.error


# ---- the stop button


def stopped(kernel: Kernel, cell: Cell, within: float) -> None:
    """Press it; the cell ends in that many seconds, and says so shortly."""
    begin = time.monotonic()
    kernel.interrupt()
    kernel.wait(cell)
    assert time.monotonic() - begin < within
    assert_short(cell, "KeyboardInterrupt")


def test_stop_button_keeps_the_shell_and_aborts_what_is_queued(kernel: Kernel) -> None:
    kernel.ok("%%sandbox\nkept=variable; f() { echo function; }; cd /tmp")
    cell = kernel.send("%%sandbox\necho begun; sleep 100; echo not this")
    queued = kernel.send("%%sandbox\necho queued >/tmp/queued")
    kernel.wait_for(cell, "begun")
    stopped(kernel, cell, within=10)
    assert "the command was stopped (SIGINT)" in cell.error
    assert cell.stdout.strip() == "begun"
    assert kernel.wait(queued).status == "aborted"
    assert variables(kernel) == ("130", "130")
    assert kernel.value("_sandbox.interrupted") == "True"
    assert kernel.ok("%%sandbox\necho $kept $(f) $PWD; ls queued 2>&1; cd /").stdout.startswith(
        "variable function /tmp\n"
    )
    assert kernel.run("%%sandbox\ncat /tmp/queued").status == "error"


def test_stop_button_in_a_flood(kernel: Kernel) -> None:
    cell = kernel.send("%%sandbox\nyes")
    kernel.wait_for(cell, "more so far")
    stopped(kernel, cell, within=10)
    assert kernel.ok("%%sandbox\necho clean").stdout == "clean\n"


def test_stop_button_ends_what_ignores_it(kernel: Kernel) -> None:
    kernel.ok("%%sandbox\nexport exported=yes")
    cell = kernel.send("%%sandbox\ntrap '' INT; echo begun; while :; do :; done")
    kernel.wait_for(cell, "begun")
    stopped(kernel, cell, within=6)
    assert kernel.value("_exit_code") != "0"
    assert kernel.ok("%%sandbox\ntrap - INT; echo $exported").stdout == "yes\n"


def test_stop_button_again_goes_further_at_once(kernel: Kernel) -> None:
    cell = kernel.send("%%sandbox\ntrap '' INT TERM; echo begun; while :; do :; done")
    kernel.wait_for(cell, "begun")
    begin = time.monotonic()
    for _ in range(4):
        kernel.interrupt()
        time.sleep(0.1)  # two at the same moment are one signal
    kernel.wait(cell)
    assert time.monotonic() - begin < 2
    assert_short(cell, "KeyboardInterrupt")
    assert kernel.ok("%%sandbox\necho usable").stdout == "usable\n"
