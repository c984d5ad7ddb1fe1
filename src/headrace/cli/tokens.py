"""`headrace token …`: who else may ask this installation's control process, and for what."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from headrace.cli.client import Client
    from headrace.lifecycle.upkeep.tokens import Tokens

app = typer.Typer(no_args_is_help=True, help="Who else may ask the control process, and for what.")
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Who will hold it; the ledger names them `token:NAME`.")],
    role: Annotated[str, typer.Option(help="viewer reads, operator also acts, admin also makes tokens.")] = "viewer",
    expires: Annotated[str, typer.Option(help="When it ends: 90d, 12h; `never`.")] = "90d",
    as_json: AsJson = False,
) -> None:
    """Make a token and show it this once; only its digest is kept.

    Example: headrace token create ada --role operator --expires 30d
    """
    from headrace.cli.terminal import console, duration, print_json
    from headrace.errors import InvalidInput
    from headrace.lifecycle.upkeep.tokens import Rank

    try:
        rank = Rank(role)
    except ValueError as error:
        raise InvalidInput(f"There is no role `{role}`.", "Roles are viewer, operator, admin.") from error
    lives_s = None if expires == "never" else duration(expires)
    far = _elsewhere()
    if far is not None:
        document = far.ask("POST", "/api/tokens", name=name, rank=rank.value, lives_s=lives_s)
    else:
        token, secret = _tokens().create(name, rank, lives_s=lives_s)
        document = {**token.as_json(), "token": secret}
    if as_json:
        print_json(document)
        return
    until = document["expires"][:10] or "revoked"
    console().print(f"{document['token']}\n  {rank.value} `{name}`, until {until}; shown only now", markup=False)


@app.command("list")
def show(as_json: AsJson = False) -> None:
    """Show all tokens, without their secrets.

    Example: headrace token list
    """
    from headrace.cli.terminal import console, print_json, table

    far = _elsewhere()
    documents: list[dict[str, Any]] = (
        far.ask("GET", "/api/tokens")["tokens"] if far is not None else [*_tokens().told()]
    )
    if as_json:
        print_json({"tokens": [*documents]})
        return
    rows = [[one["name"], one["rank"], one["id"], one["expires"][:10] or "never", one["problem"]] for one in documents]
    console().print(table("", ["name", "role", "id", "expires", "state"], rows) if rows else "No token yet.")


@app.command()
def revoke(name: Annotated[str, typer.Argument(help="Its name or id.")], as_json: AsJson = False) -> None:
    """End a token at once.

    Example: headrace token revoke ada
    """
    from headrace.cli.terminal import good, print_json

    far = _elsewhere()
    document: dict[str, Any] = (
        far.ask("POST", "/api/tokens/revoke", name=name) if far is not None else _tokens().revoke(name).as_json()
    )
    if as_json:
        print_json(document)
        return
    good(f"{document['name']} ({document['rank']}) is revoked")


def _elsewhere() -> "Client | None":
    """Return the control process that HEADRACE_URL names."""
    from headrace.config.settings import read_settings

    settings = read_settings()
    if not settings.control_url:
        return None
    from headrace.cli.client import elsewhere

    return elsewhere(settings)


def _tokens() -> "Tokens":
    from headrace.clock import SystemClock
    from headrace.config.settings import read_settings
    from headrace.lifecycle.upkeep.tokens import Tokens

    return Tokens(read_settings().prepare().home / "tokens.json", SystemClock())
