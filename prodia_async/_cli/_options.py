"""The options that several commands take, written down once."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

from ._app import named, seconds
from ._names import complete_type

TypeName: TypeAlias = Annotated[
    str | None,
    typer.Argument(
        metavar="TYPE",
        help="The job type, for instance inference.flux-fast.schnell.txt2img.v2, or a part that "
        "tells: flux-fast.schnell. `prodia-async types` lists them.",
        autocompletion=complete_type,
    ),
]
JobFile: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--job",
        metavar="FILE",
        help="A whole job as JSON, or a list of jobs: a workflow, each on what the last one made. "
        "- is standard input.",
    ),
]
Config: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--config",
        "-c",
        metavar="KEY=VALUE",
        help="A setting of the job's config. The value is text where the type takes text, else "
        "JSON if it is JSON. KEY:=VALUE is always JSON, KEY=@FILE the text of a file (@@ for an "
        "@), @FILE.json merges a whole object. May be given again; the last one counts.",
    ),
]
Inputs: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        "-i",
        metavar="[NAME=]FILE",
        help="A file the job works on; the config may refer to it by its name. May be given "
        "again; the order is kept.",
    ),
]
Accept: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="FORMAT",
        help="The output's format: png, jpeg, webp, mp4, or a media type with its parameters, "
        "'image/jpeg;quality=95'. By default what the ending of -o says.",
    ),
]
Out: TypeAlias = Annotated[
    str,
    typer.Option(
        "--out",
        "-o",
        metavar="OUT",
        callback=named("-o"),
        help="A file, a folder (ends in / or exists), or - for standard output. By default the "
        "current folder, under the name that the server gives.",
    ),
]
BaseUrl: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="By default PRODIA_BASE_URL from the environment, else the live API.",
    ),
]
Deadline: TypeAlias = Annotated[
    float | None,
    typer.Option(
        "--deadline-seconds",
        metavar="S",
        help="Give up after so long in all: queue, waits and every attempt.",
    ),
]
Timeout: TypeAlias = Annotated[
    float,
    typer.Option(
        "--timeout-seconds",
        metavar="S",
        help="Give up when nothing comes for so long; must exceed the longest job.",
    ),
]
Poll: TypeAlias = Annotated[
    float,
    typer.Option(
        "--poll-seconds",
        metavar="S",
        callback=seconds("--poll-seconds"),
        help="Wait so long before the second look; each further wait is longer.",
    ),
]
PriceFlag: TypeAlias = Annotated[bool, typer.Option("--price", help="Ask what the job cost.")]
JsonFlag: TypeAlias = Annotated[
    bool, typer.Option("--json", help="Print the job result as JSON on standard output.")
]

DEFAULT_TIMEOUT = 600.0
"""As the client's."""
