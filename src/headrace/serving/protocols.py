"""The paths of the Open Inference Protocol, of TorchServe, and of the OpenAPI document."""

from typing import TYPE_CHECKING

from headrace.serving import openapi, plain, v2
from headrace.serving.answer import encode, predictions
from headrace.serving.exchange import JSON, Exchange
from headrace.serving.generation import Generation, Served
from headrace.serving.rejection import FULL, METHOD, NOT_FOUND, Rejected

if TYPE_CHECKING:
    from headrace.serving.app import App


def _serving(app: "App") -> Generation:
    if app.generation is None:
        raise Rejected(FULL, "No version serves here yet.", retry_after_s=1)
    return app.generation


def _found(app: "App", exchange: Exchange, model: str, version: str | None) -> tuple[Generation, Served]:
    """Return who answers for a model named in a path. Raises Rejected."""
    generation = _serving(app)
    if model != generation.plan.component:
        raise Rejected(NOT_FOUND, f"There is no such model here; this endpoint serves `{generation.plan.component}`.")
    return app.find(exchange) if version is None else (generation, generation.pinned(version))


async def handle_v2(app: "App", exchange: Exchange) -> None:
    """Answer everything below `/v2`."""
    parts = exchange.path.strip("/").split("/")[1:]
    match parts:
        case []:
            exchange.json(v2.server_metadata())
        case ["health", "live"]:
            exchange.json({"live": True})
        case ["health", "ready"]:
            _ready(exchange, app.generation is not None and app.generation.is_ready)
        case ["models", model, *rest]:
            await _model(app, exchange, model, rest)
        case _:
            raise Rejected(NOT_FOUND, "The v2 protocol has no such path.")


async def _model(app: "App", exchange: Exchange, model: str, rest: list[str]) -> None:
    version = None
    if rest[:1] == ["versions"] and len(rest) > 1:
        version, rest = rest[1], rest[2:]
    match rest:
        case []:
            generation, served = _found(app, exchange, model, version)
            exchange.json(v2.model_metadata(model, served, sorted(generation.served)))
        case ["ready"]:
            _, served = _found(app, exchange, model, version)
            _ready(exchange, served.is_ready)
        case ["infer"]:
            await _infer(app, exchange, model, version)
        case _:
            raise Rejected(NOT_FOUND, "The v2 protocol has no such path.")


async def _infer(app: "App", exchange: Exchange, model: str, version: str | None) -> None:
    exchange.needs("POST")
    app.admit(exchange)
    body = await app.body(exchange)
    generation, served = _found(app, exchange, model, version)
    request = v2.read(served, body, exchange.header(v2.HEADER))
    part = await app.predict(exchange, generation, served, request.asked)
    exchange.answer(200, *v2.write(model, served, request, part))


def _ready(exchange: Exchange, is_ready: bool) -> None:
    exchange.json({"ready": is_ready}, 200 if is_ready else 503)


async def handle_torchserve(app: "App", exchange: Exchange) -> None:
    """Answer `/predictions/{model}[/{version}]`."""
    # `curl -T` puts.
    if exchange.method not in ("POST", "PUT"):
        raise Rejected(METHOD, "`/predictions/…` takes POST or PUT.")
    app.admit(exchange)
    model, _, version = exchange.path.removeprefix("/predictions/").partition("/")
    body = await app.body(exchange)
    generation, served = _found(app, exchange, model, version or None)
    asked, is_one = plain.read_bare(served, body, exchange.header("content-type"))
    part = await app.predict(exchange, generation, served, asked)
    found = predictions(part)
    shown = found[0] if is_one and isinstance(found, list) else found
    exchange.answer(200, served.headers(part.ids), encode(shown))


async def handle_openapi(app: "App", exchange: Exchange) -> None:
    """Answer with the document of the version that serves most."""
    generation = _serving(app)
    version = max(generation.plan.shares, key=lambda one: generation.plan.shares[one])
    served = generation.served[version]
    if "openapi" not in served.codecs:
        served.codecs["openapi"] = encode(openapi.document(generation.plan.component, served))
    exchange.answer(200, JSON, served.codecs["openapi"])
