"""
What does it cost to import the package, and to make a client?

CPU time of an import in a fresh interpreter, without the interpreter's own
start, and a first client, beside those of the client that most know, and the
imports that nobody who talks HTTP with models gets around; and of making a
first and a second client, with the parts that it makes on first use, against
an https address.

::

    python benchmarks/startup.py            # half a minute
    python benchmarks/startup.py --quick    # a smoke test
"""

from __future__ import annotations

import sys

from _harness import Contender, goal, missing, options, present, ratio_goal, rounds

_IMPORT = """
import json, sys, time
began = time.process_time()
import {modules}
print(json.dumps({{"cpu_ms": (time.process_time() - began) * 1e3, "modules": len(sys.modules)}}))
"""

_READY = """
import json, sys, time
began = time.process_time()
{code}
print(json.dumps({{"cpu_ms": (time.process_time() - began) * 1e3, "modules": len(sys.modules)}}))
"""

# What a client makes when it is first used is part of it: its scheduler is there at
# once, its transport and the TLS context come with the first job.
_CLIENTS = """
import asyncio, json, time
import {module} as module
import httpx

async def ours():
    client = module.AsyncProdia("token")
    client._engine.session()
    return client

async def theirs():
    return httpx.AsyncClient()

async def main():
    times = []
    for _ in range(12):
        began = time.process_time()
        client = await {make}()
        times.append((time.process_time() - began) * 1e3)
        await client.aclose()
    print(json.dumps({{"cpu_ms": sorted(times[1:])[5], "first_ms": times[0]}}))

asyncio.run(main())
"""

OURS, PEER = "import prodia_async", "import httpx, pydantic"
READY, OPENAI = "ours, and a first client", "openai, and a first client"
IMPORT_OPENAI = "import openai"
MODEL = "the same with BaseModel"
OUR_CLIENT, THEIR_CLIENT = "AsyncProdia(...)", "httpx.AsyncClient()"


def _script(text: str) -> list[str]:
    return [sys.executable, "-c", text]


def main() -> None:
    """Measure and print the table and the goals."""
    chosen = options(__doc__)
    imports = [
        Contender(name, command=_script(_IMPORT.format(modules=name.removeprefix("import "))))
        for name in (OURS, PEER, "import httpx", "import pydantic", "import asyncio")
    ]
    # `import pydantic` loads hardly anything; a model class does.
    imports.insert(
        2, Contender(MODEL, command=_script(_IMPORT.format(modules="httpx, pydantic.main")))
    )
    lacking = missing("openai")
    ours = 'import prodia_async\nprodia_async.AsyncProdia("token")'
    theirs = 'import openai\nopenai.AsyncOpenAI(api_key="token")'
    imports += [
        Contender(READY, command=_script(_READY.format(code=ours))),
        Contender(
            IMPORT_OPENAI, command=_script(_IMPORT.format(modules="openai")), missing=lacking
        ),
        Contender(OPENAI, command=_script(_READY.format(code=theirs)), missing=lacking),
    ]
    clients = [
        Contender(OUR_CLIENT, command=_script(_CLIENTS.format(module="prodia_async", make="ours"))),
        Contender(THEIR_CLIENT, command=_script(_CLIENTS.format(module="httpx", make="theirs"))),
    ]
    print("CPU ms of an import in a fresh interpreter")
    results = rounds(present(imports, chosen.only), 3 if chosen.quick else 15)
    results.table({"cpu_ms": "CPU ms", "modules": "modules"}, baseline=PEER)
    print("\nCPU ms of making a client: the first one, and the ones after it")
    made = rounds(present(clients, chosen.only), 3 if chosen.quick else 15)
    made.table({"cpu_ms": "later, ms", "first_ms": "first, ms"})
    ratio_goal(
        "9a: import and first client, ours over import openai",
        results,
        ours=READY,
        peer=IMPORT_OPENAI,
        most=0.8,
    )
    if OUR_CLIENT in made.rounds:
        goal("9b: the second client", made.median(OUR_CLIENT, "cpu_ms"), 0.3, " ms")


if __name__ == "__main__":
    main()
