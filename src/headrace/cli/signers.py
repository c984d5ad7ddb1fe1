"""`headrace signers`: whose signatures count here."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Whose signatures on baselines count here.")

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]


@app.command(name="list")
def show(as_json: AsJson = False) -> None:
    """Show the trusted public keys. The first is this installation's own, whose file others need to trust it.

    Example: headrace signers list
    """
    from headrace.cli.client import here
    from headrace.cli.terminal import console, print_json, table
    from headrace.provenance.sign import own_signer, trusted_signers

    keys = here().prepare().keys
    own = own_signer(keys).name
    trusted = trusted_signers(keys)
    found = sorted(trusted.keys.values(), key=lambda key: (key.name != own, key.name))
    if as_json:
        print_json(
            {
                "signers": [
                    {
                        "name": key.name, "fingerprint": key.fingerprint, "is_own": key.name == own,
                        "public_key": str(trusted.folder / f"{key.name}.pub"),
                    }
                    for key in found
                ]
            }
        )  # fmt: skip
        return
    rows = [
        [key.name, "own" if key.name == own else "", key.fingerprint[:12], str(trusted.folder / f"{key.name}.pub")]
        for key in found
    ]
    console().print(table("", ["signer", "", "fingerprint", "public key"], rows))


@app.command()
def add(
    public_key: Annotated[Path, typer.Argument(help="The other installation's public key (a .pub file).")],
    name: Annotated[str, typer.Option(help="What to call it; the file's name by default.")] = "",
    as_json: AsJson = False,
) -> None:
    """Trust what another installation signed. Its public key is all that is needed.

    Example: headrace signers add laptop.pub --name training-laptop
    """
    from headrace.cli.client import here
    from headrace.cli.terminal import good, print_json
    from headrace.provenance.sign import trust

    key = trust(here().prepare().keys, public_key, name=name)
    if as_json:
        print_json({"name": key.name, "fingerprint": key.fingerprint})
        return
    good(f"what {key.name} ({key.fingerprint[:12]}) signs counts here from now on")


@app.command()
def remove(name: Annotated[str, typer.Argument(help="A signer's name, from `list`.")], as_json: AsJson = False) -> None:
    """Trust a signer no more: no door lets anything in that it signed. What serves goes on serving.

    Example: headrace signers remove training-laptop
    """
    from headrace.cli.client import here
    from headrace.cli.terminal import good, print_json
    from headrace.provenance.sign import distrust

    key = distrust(here().prepare().keys, name)
    if as_json:
        print_json({"name": key.name, "fingerprint": key.fingerprint})
        return
    good(f"{key.name} ({key.fingerprint[:12]}) is trusted no more")
