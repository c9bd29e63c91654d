"""Measurement of podwire beside the reference plugins, interleaved in one run.

    python -m tests.bench                   everything, some minutes
    python -m tests.bench --quick           few rounds: a first look, not a result
    python -m tests.bench --only growth     one section: latency, burst, growth, memory (CNI calls);
                                            ports (mapped ports, masquerade, bandwidth in one);
                                            routing, restart, heal, overlay (routes to other nodes)
    python -m tests.bench --check           exit status 1 where a target is not reached

Results: a table on standard output, and for each section that was run `build/bench/SECTION.json`
and a picture, `SECTION.svg`; those of other sections stay.

How it measures: every contender has a node of its own (a network namespace with an uplink, and
mounts of its own) with one pod attached all the time, and pods whose namespaces were made before.
All are called by the same harness (posix_spawn, pipes for stdin and stdout, wait4), in turns:
A B C, then B C A.  Wall time runs from before the pipes are made until the program has been waited
for; `harness` tells what that costs with /bin/true.  CPU time is that of the program and of all
that it waited for, from wait4's rusage, and for a daemon the whole process's CPU clock
(clock_getcpuclockid) over the call and its check.  Work that the kernel does later on its own
threads (RCU, namespace clean-up) is nobody's.

Nothing is gained by skipping work: after each ADD the pod exchanges a packet with the node, or
where it masquerades with a server beyond it, and the source that the other side sees must be right;
after each DEL no link, rule or allocation may be left.  A failure ends the run.

Stores lie below `build/`, on a disk, as on a node.

How routing is measured is said in `tests.bench.routing`.
"""
