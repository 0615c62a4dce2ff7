# SPDX-License-Identifier: GPL-2.0-or-later
"""The tests behind scripts/check.

How it works.  STEPS, at the end, is the list of everything that can be run; a
new kind of test is one line there.  A step is a function that is given a Step
and fills its Tally: what passed, what failed, what was skipped and why.  Most
steps are one of a few kinds:

    meson   a build of the core by itself, its tests counted from TAP
    fuzz    each libFuzzer program, with some of the inputs it thinks of
    qemu    tests that are built inside QEMU
    script  another program, counted by its last line if that is
            "N passed, N failed", by what unittest says, else by its exit
            status

Steps run one after the other, as some of them measure time.  What a step says
goes into a log; the screen shows one line for each, and the failures.  A
component that is missing is a failure, only KVM may be: then what needs it is
skipped, with the reason.
"""

import argparse
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from lib import paths       # noqa: E402

# Ours goes first, so that a tool found first on PATH is one that Debian's
# Meson and QEMU's build know.
SYSTEM_PATH = "/usr/bin:/bin:/usr/sbin:/sbin"

COUNTS = re.compile(r"^(\d+) passed, (\d+) failed(?:, (\d+) skipped)?$")


class Failure(Exception):
    """A step can not be done; the text says why."""


class Tally:
    """What came out of one step."""

    def __init__(self):
        self.passed = 0
        self.failures = []      # text
        self.skips = []         # text
        self.note = ""

    def add(self, name, good, why=""):
        if good:
            self.passed += 1
        else:
            self.failures.append(name + (": " + why if why else ""))


class Screen:
    """One line per step, and on a terminal one that shows what goes on."""

    def __init__(self):
        self.live = sys.stdout.isatty()
        self.bold, self.red, self.green, self.plain = (
            ("\033[1m", "\033[31m", "\033[32m", "\033[0m")
            if self.live and not os.environ.get("NO_COLOR") else ("",) * 4)
        self.last = time.monotonic()

    def line(self, text=""):
        if self.live:
            sys.stdout.write("\r\033[K")
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
        self.last = time.monotonic()

    def passing(self, title, text):
        """Something goes on; seldom said where lines stay."""
        text = re.sub(r"[\x00-\x1f\x7f]", " ", text).strip()
        if self.live:
            width = shutil.get_terminal_size().columns
            sys.stdout.write(("\r\033[K  %-24s %s" % (title, text))[:width])
            sys.stdout.flush()
        elif time.monotonic() - self.last > 30:
            self.line("  %-24s ... %s" % (title, text[:90]))


class Step:
    """One line of STEPS."""

    def __init__(self, group, title, function, *args, long=False):
        self.group = group
        self.title = title
        self.function = function
        self.args = args
        self.long = long        # only with --long
        self.tally = Tally()
        self.seconds = 0.0
        self.ended = False
        self.check = None

    # -- for the functions --

    @property
    def folder(self):
        return self.check.folder

    @property
    def log(self):
        name = re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")
        return self.folder / "logs" / (name + ".log")

    def run(self, argv, env=None, cwd=ROOT, timeout=None):
        """Run a program to its end, its output into the log; the status."""
        argv = [str(word) for word in argv]
        with open(self.log, "ab") as log:
            log.write(("$ %s\n" % " ".join(argv)).encode())
            log.flush()
            at = log.tell()
            try:
                child = subprocess.Popen(
                    argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                    cwd=cwd, env=env, start_new_session=True)
            except OSError as error:
                raise Failure("cannot run %s: %s" %
                              (argv[0], error.strerror)) from None
            return self.check.watch(self, child, at, timeout)

    def must(self, argv, what, **options):
        """The same for what has to succeed before anything is tested."""
        if self.run(argv, **options):
            raise Failure(what + " failed")

    def said(self):
        return self.log.read_text(encoding="utf-8", errors="replace")


# ---- kinds of steps ----

def environment(**extra):
    env = dict(os.environ, PATH=SYSTEM_PATH + ":" + os.environ["PATH"])
    for name in ("CC", "CXX", "CFLAGS", "LDFLAGS", "PYTHONPATH"):
        env.pop(name, None)
    env.update(extra)
    return env


def core_build(step, name, compiler, *options):
    """A build of the core by itself, made or brought up to date."""
    if not shutil.which(compiler):
        raise Failure("%s is not installed; run scripts/setup" % compiler)
    build = step.folder / name
    env = environment(CC=("ccache " if shutil.which("ccache") else "") +
                      compiler)
    key = " ".join((compiler,) + options)
    stamp = build / "spiceflow-options"
    if not stamp.is_file() or stamp.read_text(encoding="utf-8") != key:
        shutil.rmtree(build, ignore_errors=True)
        step.must(["meson", "setup", *options, build, ROOT],
                  "configuring", env=env)
        stamp.write_text(key, encoding="utf-8")
    step.must(["ninja", "-C", build], "building", env=env)
    return build, env


def count_tap(tally, name, output, good):
    """Add the cases of one TAP program."""
    failed = False
    for line in output.splitlines():
        match = re.match(r"^(not )?ok \d+ ?-? ?(.*?)(?:\s*# SKIP\s*(.*))?$",
                         line, re.I)
        if not match:
            continue
        case = "%s %s" % (name, match[2])
        if match[3] is not None and not match[1]:
            tally.skips.append("%s: %s" % (case, match[3]))
        else:
            tally.add(case, not match[1])
            failed |= bool(match[1])
    if not good and not failed:
        tally.add(name, False, "it ended badly after the cases it told of")


def count_meson(step, build, logbase="testlog"):
    """Add what the last meson test left in its log."""
    path = build / "meson-logs" / (logbase + ".json")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise Failure("no test was run") from None
    for line in lines:
        test = json.loads(line)
        good = test["result"] in ("OK", "EXPECTEDFAIL")
        output = test.get("stdout", "")
        with open(step.log, "a", encoding="utf-8") as log:
            log.write("\n# %s: %s\n%s\n%s\n" % (
                test["name"], test["result"], output,
                test.get("stderr", "")))
        if re.search(r"^(not )?ok \d", output, re.M):
            count_tap(step.tally, test["name"], output, good)
        else:
            step.tally.add(test["name"], good, test["result"].lower())
    if not lines:
        raise Failure("no test was run")


def meson(step, name, compiler, options=(), wrapper=(), factor=1):
    """Unit tests and corpora on a build of the core by itself."""
    if wrapper and not shutil.which(wrapper[0]):
        raise Failure("%s is not installed; run scripts/setup" % wrapper[0])
    build, env = core_build(step, name, compiler, *options)
    env.update(
        ASAN_OPTIONS="detect_stack_use_after_return=1",
        UBSAN_OPTIONS="halt_on_error=1:print_stacktrace=1")
    argv = ["meson", "test", "-C", build, "--no-rebuild", "-t", factor]
    logbase = "testlog"
    if wrapper:
        argv += ["--wrapper", " ".join(wrapper)]
        logbase += "-" + wrapper[0]
    log = build / "meson-logs" / (logbase + ".json")
    if log.exists():
        log.unlink()
    step.run(argv, env=env)
    count_meson(step, build, logbase)


# Runs commands one after the other; the last word of each is a folder, beside
# which its output and its status are left.
LANE = """for command in "$@"; do
    sh -c "$command" >"${command##* }.log" 2>&1
    echo $? >"${command##* }.status"
done"""


# Inputs that a short run tries, by fuzzer; the machine at the heart of it is
# slow, as each of its inputs is a life of both the machine and the model.
FUZZ_INPUTS = {"flow": 100000, "vdagent": 25000}
FUZZ_INPUTS_OTHERS = 300000


def fuzz(step):
    """Each fuzzer, beginning with its corpus.

    A short run tries the same inputs whenever the code is the same, so that
    who changes nothing sees nothing new; a long one draws new ones, for three
    minutes each.  The heart of it has a processor for itself; the others have
    their turns on another meanwhile."""
    build, env = core_build(step, "fuzz", "clang", "-Dfuzz=true")
    fuzzers = sorted(path for path in (build / "tests/fuzz").glob("fuzz-*")
                     if path.is_file() and os.access(path, os.X_OK))
    if not fuzzers:
        raise Failure("no fuzzer was built")
    lanes = {True: [], False: []}
    with tempfile.TemporaryDirectory(prefix="spiceflow-fuzz-") as folder:
        for program in fuzzers:
            name = program.name[len("fuzz-"):]
            fresh, seeds = Path(folder, name), Path(folder, name + ".seeds")
            fresh.mkdir()
            # a list, as a folder has no order
            seeds.write_text(",".join(map(str, sorted(
                (ROOT / "tests/fuzz/corpus" / name).iterdir()))))
            if step.check.long:
                command = [program, "-max_total_time=180"]
            else:
                # what is compared may be an address, and a folder is read
                # again by the clock
                command = [program, "-seed=1", "-use_cmp=0", "-reload=0",
                           "-max_total_time=150", "-runs=%d" %
                           FUZZ_INPUTS.get(name, FUZZ_INPUTS_OTHERS)]
            lanes[name == "flow"].append(shlex.join(map(str, (
                *command, "-timeout=10",
                "-rss_limit_mb=1024", "-print_final_stats=1",
                "-artifact_prefix=%s-" % (step.folder / "logs" / program.name),
                "-seed_inputs=@%s" % seeds, fresh))))
        both = " & ".join(shlex.join(("bash", "-c", LANE, "lane", *lane))
                          for lane in lanes.values() if lane)
        step.run(["bash", "-c", both + " & wait"], env=env,
                 timeout=3600 if step.check.long else 300)
        runs = 0
        for program in fuzzers:
            fresh = Path(folder, program.name[len("fuzz-"):])
            log, status = (fresh.with_suffix(suffix)
                           for suffix in (".log", ".status"))
            said = log.read_text(errors="replace") if log.exists() else ""
            with open(step.log, "a", encoding="utf-8") as file:
                file.write(said)
            runs += sum(map(int, re.findall(
                r"number_of_executed_units:\s*(\d+)", said)))
            step.tally.add(
                program.name, status.exists() and status.read_text() == "0\n",
                "replay with %s %s-..." % (program,
                                           step.folder / "logs" / program.name))
    step.tally.note = "%d inputs" % runs


def qemu_build(step):
    """The build folder of the emulator under test."""
    done = subprocess.run([str(ROOT / "scripts/qemu"), "--path"],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, check=False)
    if done.returncode:
        raise Failure(done.stderr.strip())
    return Path(done.stdout.strip()).parent


def qemu(step, suite):
    """Tests that are built inside QEMU, of one suite."""
    build = qemu_build(step)
    env = environment(QEMU_MODULE_DIR=str(build))
    command = [build / "pyvenv/bin/meson", "test", "-C", build,
               "--suite", "spiceflow"]
    listed = subprocess.run([str(word) for word in command + ["--list"]],
                            env=env, text=True, check=False,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    names = [line.split(" / ")[-1].strip()
             for line in listed.stdout.splitlines()
             if " / " in line and suite in line.split(" / ")[0]]
    if not names:
        raise Failure("QEMU's build knows none: %s" %
                      listed.stdout.strip()[-200:])
    log = build / "meson-logs" / "spiceflow.json"
    if log.exists():
        log.unlink()
    step.run(command + ["--logbase", "spiceflow", *names], env=env)
    count_meson(step, build, "spiceflow")


def checkpatch(step):
    """QEMU's own style checker has nothing to say about any C file."""
    config = qemu_build(step) / "config-host.mak"
    source = re.search(r"^SRC_PATH=(.*)$", config.read_text(encoding="utf-8"),
                       re.M)
    program = Path(source[1]) / "scripts/checkpatch.pl"
    files = sorted(path for folder in ("chardev", "include", "tests")
                   for path in (ROOT / folder).rglob("*.[ch]"))
    for path in files:
        name = str(path.relative_to(ROOT))
        at = len(step.said())
        status = step.run(["perl", program, "--no-tree", "--no-signoff",
                           "--quiet", "--terse", "-f", name])
        # programs for the guest and clients are linked to nothing of QEMU
        said = step.said()[at:].splitlines()[1:]
        words = [line[len(name) + 1:] for line in said
                 if line.startswith(name) and not (
                     ": consider using qemu_" in line and
                     name.startswith("tests/"))]
        if status not in (0, 1) or (status and len(said) < 2):
            words = ["checkpatch ended with status %d" % status]
        step.tally.add(name, not words, words[0] if words else "")


def count_unittest(tally, lines, status):
    """Add what Python's unittest says at its end, if that is what it is."""
    ran = [re.match(r"Ran (\d+) tests? in", line) for line in lines]
    ran = [match for match in ran if match]
    if not ran:
        return False
    bad = [line for line in lines if re.match(r"(FAIL|ERROR): \w", line)]
    skips = [line for line in lines if re.search(r"\.\.\. skipped '", line)]
    tally.failures += bad
    tally.skips += skips
    tally.passed += int(ran[-1][1]) - len(bad) - len(skips)
    if status and not bad:
        tally.add("unittest", False, "status %d" % status)
    return True


def script(step, path, *args):
    """Another program, which counts for itself or is one test."""
    program = ROOT / path
    if not os.access(program, os.X_OK):
        raise Failure("%s is not there" % path)
    if step.check.long:
        args = ["--long" if arg == "--quick" else arg for arg in args]
    env = dict(os.environ, PYTHONUNBUFFERED="1")
    if step.check.long:
        env["SPICEFLOW_TEST_LONG"] = "1"
    status = step.run([program, *args], env=env)
    lines = step.said().rstrip().splitlines()
    match = COUNTS.match(lines[-1].strip()) if lines else None
    if not match and count_unittest(step.tally, lines, status):
        return
    if not match:
        step.tally.add(path, status == 0, lines[-1] if lines else "")
        return
    step.tally.passed += int(match[1])
    named = {"failed:": [], "skipped:": []}
    section = None
    for line in lines:
        if line in named:
            section = named[line]
        elif not line.startswith("  "):
            section = None
        elif section is not None:
            section.append(line.strip())
    for kind, count, into in (
            ("failed:", int(match[2]), step.tally.failures),
            ("skipped:", int(match[3] or 0), step.tally.skips)):
        into += named[kind][:count]
        into += ["%s: %s" % (path, kind[:-1])] * (count - len(named[kind]))
    # where all was skipped, that is what is said
    if status and not int(match[2]) and (int(match[1]) or not match[3]):
        step.tally.add(path, False, "status %d" % status)


# ---- the whole ----

class Interrupted(Exception):
    """Somebody wants it to end."""


class Check:
    def __init__(self, steps, long_run):
        self.steps = steps
        self.long = long_run
        self.screen = Screen()
        self.child = None
        # by checkout, so that two of them do not disturb each other
        self.folder = paths.cache_dir() / (
            "check-%08x" % zlib.crc32(str(ROOT).encode()))
        (self.folder / "logs").mkdir(parents=True, exist_ok=True)

    def watch(self, step, child, offset, timeout):
        """Wait for a program and show the last line that it wrote."""
        end = time.monotonic() + paths.seconds(timeout) if timeout else None
        self.child = child
        try:
            while True:
                try:
                    return child.wait(0.25)
                except subprocess.TimeoutExpired:
                    pass
                with open(step.log, "rb") as log:
                    log.seek(max(offset, os.path.getsize(step.log) - 500))
                    lines = log.read().decode(errors="replace").splitlines()
                lines = [line for line in lines if line.strip()]
                if lines:
                    self.screen.passing(step.title, lines[-1])
                if end and time.monotonic() > end:
                    raise Failure("%s takes too long" % child.args[0])
        finally:
            self.stop_child()

    def stop_child(self):
        """End what runs, and all that it has started."""
        child, self.child = self.child, None
        if child is None or child.poll() is not None:
            return
        for signum, grace in ((signal.SIGTERM, 20), (signal.SIGKILL, 5)):
            try:
                os.killpg(child.pid, signum)
                child.wait(grace)
                return
            except (ProcessLookupError, subprocess.TimeoutExpired):
                pass

    def run_step(self, step):
        step.check = self
        step.log.write_bytes(b"")
        start = time.monotonic()
        self.screen.passing(step.title, "")
        try:
            step.function(step, *step.args)
            if not (step.tally.passed or step.tally.failures or
                    step.tally.skips):
                raise Failure("nothing was tested")
        except Failure as failure:
            step.tally.add(step.title, False, str(failure))
        finally:
            step.seconds = time.monotonic() - start
        step.ended = True
        self.show(step)

    def show(self, step):
        tally, screen = step.tally, self.screen
        mark = screen.red + "x" if tally.failures else screen.green + "*"
        text = "%d passed" % tally.passed
        if tally.failures:
            text += ", %d failed" % len(tally.failures)
        if tally.skips:
            text += ", %d skipped" % len(tally.skips)
        if tally.note:
            text += ", " + tally.note
        screen.line("%s%s %-24s %6.1f s  %s" %
                    (mark, screen.plain, step.title, step.seconds, text))
        for failure in tally.failures[:20]:
            screen.line("    %s%s%s" % (screen.red, failure[:300],
                                        screen.plain))
        if tally.failures:
            screen.line("    log: %s" % step.log)
            for line in important(step.log):
                screen.line("    | " + line)

    def run(self):
        interrupted = False
        try:
            for step in self.steps:
                self.run_step(step)
        except Interrupted:
            interrupted = True
        finally:
            self.stop_child()
        return self.summary(interrupted)

    def summary(self, interrupted):
        screen = self.screen
        passed = sum(step.tally.passed for step in self.steps)
        failed = sum(len(step.tally.failures) for step in self.steps)
        skips = [skip for step in self.steps for skip in step.tally.skips]
        screen.line()
        screen.line("%-12s %-24s %8s %8s %8s %8s" %
                    ("", "", "passed", "failed", "skipped", "seconds"))
        group = None
        for step in self.steps:
            screen.line("%-12s %-24s %s" % (
                step.group if step.group != group else "", step.title,
                "%8d %8d %8d %8.1f" % (
                    step.tally.passed, len(step.tally.failures),
                    len(step.tally.skips), step.seconds)
                if step.ended else "     not run"))
            group = step.group
        screen.line("%-37s %8d %8d %8d %8.1f" % (
            "", passed, failed, len(skips),
            sum(step.seconds for step in self.steps)))
        if skips:
            screen.line("\nskipped:")
            for skip in skips:
                screen.line("  " + skip)
        if interrupted:
            screen.line("\ninterrupted")
        line = "%d passed, %d failed" % (passed, failed)
        if skips:
            line += ", %d skipped" % len(skips)
        screen.line("\n" + line)
        if interrupted:
            return 130
        return 0 if passed and not failed else 1


def important(path):
    """Of a failed step's log, what a reader wants to see first."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    wanted = re.compile(
        r"error:|^not ok|^# (ERROR|Bail)|^Bail|ERROR:|runtime error|"
        r"^==\d+==.*(Invalid|definitely lost)|SUMMARY: |^failed |^ +\| ")
    found = [line for line in lines if wanted.search(line)]
    return [line[:160] for line in (found[:25] if found else lines[-8:])]


def interrupt(_signum, _frame):
    raise Interrupted


SANITIZE = ("-Db_sanitize=address,undefined", "-Db_lundef=false")
VALGRIND = ("valgrind", "--quiet", "--error-exitcode=99", "--leak-check=full",
            "--errors-for-leak-kinds=definite", "--num-callers=20")

# What there is: the group it can be chosen by, its title, how it is done.
STEPS = [
    Step("style", "checkpatch", checkpatch),
    Step("style", "documents", script, "scripts/docs-check"),
    Step("style", "pages", script, "scripts/docs", "--check"),
    Step("unit", "core with gcc", meson, "gcc", "gcc"),
    Step("unit", "core with clang", meson, "clang", "clang"),
    Step("unit", "core, sanitizers", meson, "sanitize", "clang", SANITIZE,
         (), 3),
    Step("unit", "core, valgrind", meson, "gcc", "gcc", (), VALGRIND, 20),
    Step("unit", "coverage of the flow machine", script, "scripts/coverage"),
    Step("unit", "faults put into it", script, "scripts/mutants"),
    Step("fuzz", "fuzzers", fuzz),
    Step("build", "graft", script, "tests/scripts/test_graft.py", "-v"),
    Step("build", "documentation", script, "tests/scripts/test_docs.py", "-v"),
    Step("build", "documentation of QEMU", script, "tests/scripts/qemu-docs",
         long=True),
    Step("build", "bench plots", script, "tests/scripts/test_plot.py", "-v"),
    Step("build", "setup", script, "tests/scripts/test_setup.py", "-v"),
    Step("build", "other builds", script, "tests/scripts/builds"),
    Step("qemu", "unit tests in QEMU", qemu, "unit"),
    Step("qemu", "qtests", qemu, "qtest"),
    Step("functional", "functional tests", script, "tests/functional/run",
         "-j", "3"),
    Step("functional", "torture", script, "scripts/torture", "--no-setup",
         "--quick"),
    Step("libvirt", "conversion of domains", script,
         "tests/scripts/test_libvirt_convert.py", "-v"),
    Step("libvirt", "libvirt", script, "tests/functional/run", "-j", "2",
         "tests/libvirt/test_libvirt.py"),
    Step("libvirt", "libvirt, other ways", script, "tests/functional/run",
         "-j", "2", "tests/libvirt/test_ways.py", long=True),
    Step("model", "formal model", script, "scripts/model", "--quick"),
]


def main():
    groups = list(dict.fromkeys(step.group for step in STEPS))
    parser = argparse.ArgumentParser(
        prog="scripts/check", description="Run the tests, all of them or some"
        " groups: %s." % ", ".join(groups))
    parser.add_argument("groups", nargs="*", metavar="GROUP",
                        help="only these groups")
    parser.add_argument("--long", action="store_true",
                        help="take more time for what can use it")
    parser.add_argument("-l", "--list", action="store_true",
                        help="list the steps and do nothing")
    parser.add_argument("--no-setup", action="store_true",
                        help="the emulator is built already")
    args = parser.parse_args()
    for name in args.groups:
        if name not in groups:
            parser.error("unknown group %s; there are %s" %
                         (name, ", ".join(groups)))
    steps = [step for step in STEPS
             if (not args.groups or step.group in args.groups) and
             (args.long or not step.long)]
    if args.list:
        for step in steps:
            print("%-12s %s" % (step.group, step.title))
        return 0

    # The first one is enough; what follows must not cut the clean-up short.
    def first(signum, frame):
        for other in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(other, signal.SIG_IGN)
        interrupt(signum, frame)

    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, first)
    return Check(steps, args.long).run()


if __name__ == "__main__":
    sys.exit(main())
