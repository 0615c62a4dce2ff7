# SPDX-License-Identifier: GPL-2.0-or-later
"""What guest and client do in a torture run, and the count of it.

Three kinds of work go on at the same time, each for as long as the run takes:

    records     numbered and checksummed, both ways through one port
                (tests/guest/record.h); each way is a stream of its own
    copies      the client copies a file to the guest's agent, again and again;
                the agent says the SHA-256 of what came
    reads       the guest reads the client's CD, again and again, past its page
                cache, and says the SHA-256

poll() takes what both have said, and must be called often: it starts the next
copy.  A strict load raises Wrong as soon as something is; otherwise it counts,
mends what can be mended (a new client, a new agent), and goes on.
"""

import hashlib
import os
import re
import time

from lib.guest import GuestError, fields
from lib.paths import RigError, seconds
from lib.qemu import QmpError
from lib.rig import PORT
from lib.sfclient import ClientFailed

MIB = 1 << 20
FILE_SIZE = 3 * MIB
CD_SIZE = 6 * MIB
PATIENCE = 30           # s, for one copy or one read

# Holds still while /tmp/hold is there.
READER = r"""
while :; do
    if [ -e /tmp/hold ]; then
        [ -e /tmp/held ] || { : > /tmp/held; echo held; }
        usleep 20000
        continue
    fi
    rm -f /tmp/held
    for disk in /sys/block/sr*; do :; done
    [ -e "$disk" ] || { usleep 20000; continue; }
    echo begin
    sum=$(dd "if=/dev/${disk##*/}" bs=64k iflag=direct 2>/tmp/error | sha256sum)
    echo "read ${sum%% *} $(head -n 1 /tmp/error)"
done
"""


class Wrong(Exception):
    """Something was lost, repeated, damaged, or stands still."""


def make_file(path, size):
    data = os.urandom(size)
    with open(path, "wb") as file:
        file.write(data)
    return hashlib.sha256(data).hexdigest()


ERRORS = (Wrong, RigError, QmpError, GuestError, ClientFailed)


class Stream:
    """The count of one way of the records, over all clients."""

    def __init__(self):
        self.sent = 0
        self.received = 0
        self.lost = 0
        self.repeated = 0
        self.wrong = 0
        self.bytes = 0

    def good(self):
        return self.sent == self.received and not (
            self.lost or self.repeated or self.wrong)


class Repeated:
    """The count of what is done again and again."""

    def __init__(self):
        self.begun = 0
        self.done = 0
        self.failed = 0
        self.since = None       # of the one that is under way

    def good(self):
        return self.done > 0 and self.done == self.begun and not self.failed

    def begin(self):
        self.begun += 1
        self.since = time.monotonic()

    def end(self, well):
        self.since = None
        if well:
            self.done += 1
        else:
            self.failed += 1

    def late(self):
        return self.since is not None and \
            time.monotonic() - self.since > seconds(PATIENCE)


class Load:
    """A guest's programs and a client."""

    def __init__(self, rig, machine, strict, rate):
        self.rig = rig
        self.machine = machine
        self.strict = strict
        self.rate = rate
        self.to_client, self.to_guest = Stream(), Stream()
        self.copies, self.reads = Repeated(), Repeated()
        self.sessions = 0       # clients that there were
        self.lost_sessions = 0  # and that ended without being asked to
        self.agents = 0         # that had to be started again
        self.copying = False
        self.received = 0       # files, by the agent
        self.client = None
        self.next = 0           # record that comes to the client
        self.held = False       # reads, as asked
        self.name = None        # of the file that is being copied
        self.serial = 0
        self.file = rig.path("file")
        self.file_sum = make_file(self.file, FILE_SIZE)
        self.cd = rig.path("cd")
        self.cd_sum = make_file(self.cd, CD_SIZE)

    @property
    def guest(self):
        return self.machine.guest

    # -- beginning --

    def start(self):
        guest = self.guest
        guest.run("echo 0 > /sys/module/usb_storage/parameters/delay_use")
        guest.write_file("/tmp/reader", READER.encode())
        self.start_agent()
        self.records = guest.start("recordtool %s -s 1 -r %d" %
                                   (PORT, self.rate))
        self.records.line("^open")
        self.reader = guest.start("sh /tmp/reader")
        self.connect()

    def start_agent(self):
        self.agent = self.guest.start("agenttool run")
        self.agent.line("^open")

    def connect(self):
        """A client, and all that it does."""
        self.client = self.rig.client("--usb", "--records", PORT,
                                      "--record-next", str(self.next),
                                      uri=self.machine.uri)
        self.sessions += 1
        self.client.find("^record-opened 1")
        self.client.find("^agent-caps ")
        self.client.find("^channel-event usbredir 0 opened")
        self.client.send("record", "run", 2, self.rate, self.to_guest.sent)
        self.client.send("usb", "cd", self.cd)
        self.copying = True
        self.copy()

    def copy(self):
        if not self.copying:
            return
        # a name for each, so that an answer of before is not taken for it
        self.serial += 1
        if self.name:
            os.unlink(self.rig.path(self.name))
        self.name = "copy%d" % self.serial
        os.link(self.file, self.rig.path(self.name))
        self.client.send("agent", "copy", self.rig.path(self.name))
        self.copies.begin()

    # -- under way --

    def wrong(self, text):
        if self.strict:
            raise Wrong(text)

    def poll(self):
        """Take what was said."""
        try:
            self.client.poll()
        except RigError:
            self.hear_client()
            self.client_is_lost("the client's session ended: " +
                                self.client.tail())
            return
        self.hear_client()
        self.guest.poll()
        self.hear_guest()
        for what, count in (("a copy to the agent", self.copies),
                            ("a read of the CD", self.reads)):
            if count.late():
                self.wrong("%s does not end within %d s" % (what, PATIENCE))
                self.stuck(count)

    def hear_client(self):
        client = self.client
        while client.seen < len(client.lines):
            line = client.lines[client.seen]
            client.seen += 1
            if line.startswith("done agent copy "):
                self.copies.end(True)
                self.copy()
            elif line.startswith("failed agent copy"):
                self.copies.end(False)
                self.wrong(line)
                self.copy()
            elif line.startswith("failed"):
                self.wrong(line)
            elif line.startswith("record-gone"):
                self.add(fields(line))

    def hear_guest(self):
        for job, hear in ((self.agent, self.hear_agent),
                          (self.reader, self.hear_reader)):
            while "\n" in job.output[job._seen:]:
                end = job.output.index("\n", job._seen)
                line = job.output[job._seen:end]
                job._seen = end + 1
                hear(line)
            if job._seen > 65536:
                job.output, job._seen = job.output[job._seen:], 0
        if self.agent.status is not None:
            self.wrong("the agent ended: " + self.agent.output[-200:])
            self.agents += 1
            self.start_agent()
        for job in self.reader, self.records:
            if job.status is not None:
                raise Wrong("%s ended: %s" % (job.command, job.output[-200:]))

    def hear_agent(self, line):
        if line.startswith("file-done"):
            self.received += 1
            if fields(line)["sha256"] != self.file_sum:
                self.copies.failed += 1
                self.wrong("a damaged file: " + line)
        elif line.startswith("bad"):
            self.wrong("the agent: " + line)

    def hear_reader(self, line):
        if line == "begin":
            self.reads.begin()
        elif line == "held":
            self.held = True
        elif line.startswith("read"):
            well = line.split()[1] == self.cd_sum
            self.reads.end(well)
            if not well:
                self.wrong("a damaged read of the CD: " + line)

    def wait(self, duration):
        """Let them work."""
        end = time.monotonic() + duration
        while True:
            self.poll()
            left = end - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, 0.02))

    def until(self, condition, what, timeout=PATIENCE):
        end = time.monotonic() + seconds(timeout)
        while not condition():
            self.poll()
            time.sleep(0.01)
            if time.monotonic() > end:
                raise Wrong("waited %d s for %s" % (timeout, what))

    # -- what only the peer comes to --

    def add(self, counts):
        """What one client received is one part of the whole."""
        self.to_guest.sent = counts["sent"]
        self.next = counts["next"]
        self.to_client.received += counts["received"]
        self.to_client.lost += counts["lost"]
        self.to_client.repeated += counts["repeated"]
        self.to_client.wrong += counts["wrong"]
        self.to_client.bytes += counts["bytes_in"]

    def client_is_lost(self, text):
        self.wrong(text)
        self.lost_sessions += 1
        if self.copies.since is not None:
            self.copies.end(False)
        self.client.close()
        for attempt in range(3):
            try:
                self.connect()
                return
            except RigError:
                self.hear_client()
                self.client.close()
                time.sleep(attempt + 1)
        raise Wrong("no client comes in any more")

    def stuck(self, count):
        """Begin anew, as a user would."""
        count.end(False)
        if count is self.copies and self.agent.status is None:
            self.agent.signal(9)
            self.agents += 1
            self.agent.wait(10, check=False)
            self.start_agent()
        self.leave()
        self.connect()

    # -- standing still --

    def hold_reads(self):
        """The read of the CD that is under way ends, and no other begins."""
        self.held = False
        self.guest.run("touch /tmp/hold")
        self.until(lambda: self.held, "the end of a read")

    def resume_reads(self):
        self.guest.run("rm /tmp/hold")

    def hold(self):
        """Whatever is under way is brought to its end, and nothing begun."""
        self.copying = False
        self.hold_reads()
        self.until(lambda: self.copies.since is None, "the end of a copy")
        self.client.send("record", "pause")
        sent = fields(self.client.expect("^done record pause.*")[0])["sent"]

        def all_there():
            self.records.signal(10)
            guest = fields(self.records.line("^counts.*")[0])
            self.client.send("record", "counts")
            client = fields(self.client.expect("^done record counts.*")[0])
            return (guest["next"], client["next"]) == (sent, guest["sent"])

        self.until(all_there, "the records that are under way")

    def leave(self):
        """The client goes."""
        self.client.send("quit")
        self.client.wait_end()
        self.hear_client()
        self.client.close()

    def back(self):
        """Another client comes, and goes on where the one before was."""
        self.guest.run("while [ -e /sys/block/sr0 ]; do usleep 5000; done")
        self.connect()
        self.resume_reads()
        self.records.signal(12)

    # -- the end --

    def finish(self):
        """Both streams to their end, the last copy and read too."""
        try:
            self.finish_in_order()
        except (Wrong, RigError, GuestError) as error:
            self.wrong(str(error))
            if self.strict:
                raise
            self.give_up()

    def finish_in_order(self):
        self.copying = False
        self.hold_reads()
        self.until(lambda: self.copies.since is None, "the end of a copy")
        self.records.signal(15)
        self.client.send("record", "finish")
        guest = self.records.result(PATIENCE)
        client = fields(self.client.expect("^done record finish.*",
                                           PATIENCE)[0])
        self.conclude(guest)
        if guest["sent"] < 1 or client["sent"] < 1:
            raise Wrong("no records were sent")

    def conclude(self, guest):
        self.leave()            # its counts come with it
        self.to_client.sent = guest["sent"]
        self.to_guest.received = guest["received"]
        self.to_guest.lost = guest["lost"]
        self.to_guest.repeated = guest["repeated"]
        self.to_guest.wrong = guest["wrong"]
        self.to_guest.bytes = guest["bytes_in"]

    def give_up(self):
        """The count of what there is."""
        if self.records.status is None:
            self.records.signal(2)
        self.conclude(fields(self.records.line("^ok mode=records.*")[0]))


def check_twin(rig, machine, guest):
    """A guest that was restored from a file has lost its client, not more: it
    answers, and another client's records and copy arrive there."""
    guest.run("true")
    client = rig.client("--usb", "--records", PORT, "--record-next", "-1",
                        uri=machine.uri_of(guest.qemu))
    client.find("^record-opened 1")
    client.find("^agent-caps ")
    name = rig.path("twin")
    make_file(name, MIB)
    client.send("agent", "copy", name)
    client.expect("^done agent copy", 20, "^failed")
    end = time.monotonic() + seconds(20)
    while True:
        client.send("record", "counts")
        counts = fields(client.expect("^done record counts.*")[0])
        if counts["wrong"] or counts["lost"] or counts["repeated"]:
            raise Wrong("a restored guest's records: %s" % counts)
        if counts["received"] >= 20:
            break
        if time.monotonic() > end:
            raise Wrong("a restored guest sends no records: %s" % counts)
        time.sleep(0.05)
    client.quit()
    client.close()
    os.unlink(name)
    return re.sub(r"\s+", " ", "%d records" % counts["received"])
