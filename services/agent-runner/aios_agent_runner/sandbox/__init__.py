"""Code agents run here: in a process of their own, without network, without credentials, under limits.

    settings = SandboxSettings(agents=frozenset({"aios_agent_runner.agents.echo:run"}), private=(data_dir,))
    async with SandboxPool(settings) as pool:
        with await pool.run(SandboxCall("aios_agent_runner.agents.echo:run", b'{"n": 1}')) as result:
            result.response, result.artifacts, result.usage, result.logs

Import from the modules (`.model`, `.pool`, `.doctor`): this one stays empty, because the small process inside the
sandbox imports the package too, and must not load asyncio for it.

**Three processes.** The runner (`pool`, `link`, `exchange`) holds one *zygote*: a small single-threaded Python that
enters the sandbox once, imports the modules that every agent needs (`preload`), and then only forks (`zygote`); a
few forks wait ready for a call (`SandboxSettings.warm`). Each call is a
fresh fork of it (`child`) that confines itself further, reads its request, runs one function and exits. Nothing of a
call ever enters the zygote's memory: the request travels over a socket that only the runner and that child hold. So
a call costs a fork, not a Python start, and finds nothing of the calls before it.

**Layers**, from the outside in. Each is reported as a `Capability`, in force or not and why; none is assumed.

| layer | what it stops | file |
|---|---|---|
| empty environment, closed descriptors, own session, umask 077 | inherited credentials | `link`, `child` |
| user id 65534, when the runner is root | files of root | `namespaces` |
| user, pid, net, ipc, uts namespaces | other processes, every network interface | `namespaces` |
| mount namespace: a new root of the Python installation, read-only | data, homes, /proc | `root` |
| a pid namespace for each call | processes that outlive their call | `zygote` |
| a tmpfs for each call, of a fixed size | a full disk, traces of earlier calls | `child` |
| all capabilities dropped, no_new_privs | regained privilege | `linux` |
| Landlock: read Python and the input, write `out` and a scratch directory | the same once more | `landlock` |
| seccomp: no socket, no exec, no needless kernel interface | network, ways out through the kernel | `seccomp` |
| rlimits and the wall clock | endless loops, memory, files, processes | `child`, `exchange` |

An ordinary user gets all of them but the change of user id. Where user namespaces are forbidden (most containers)
the namespaces are missing; no_new_privs, seccomp, Landlock and rlimits hold, and `SandboxSettings.require` says
which promises must hold for the pool to start. The promises (`no-network`, `no-credentials`, `one-process`) are not
derived from the layers but tried, in a confined child, each time the zygote starts (`selftest`).

**What the runner believes.** Nothing that a child says after its agent's code was loaded: one bounded frame of JSON
is read, descriptors that come with it are dropped, and artifacts are copied without following a link (`collect`).

**Limits of the limits.** CPU seconds and memory count per process of a call, and an agent has one process unless its
`Limits.processes` says more. Memory is address space, since that is what an ordinary user can limit; a runner in a
container has its cgroup as the second wall. A module that is named in `SandboxSettings.preload` runs in the zygote,
so it can influence later calls of other agents: name only what you trust as much as the runner itself. Where a call
has no file system of its own (`file-quota`), `file_bytes` bounds each file while it is written and their sum only
when they are collected.
"""
