"""The application: its routes, and what an upload goes through."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response, Security
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBearer

from mxa.evaluation.report import DISCLAIMER
from mxa.quiet import quiet
from mxa.serve.access import bearer_fits
from mxa.serve.gate import Gate
from mxa.serve.guard import STATIC, Guard
from mxa.serve.metrics import CONTENT_TYPE, Metrics
from mxa.serve.options import ServeOptions
from mxa.serve.page import INDEX, PageFile, load_page
from mxa.serve.refusal import Refusal
from mxa.serve.schemas import Ask, HealthBody, ModelBody, PredictionBody, Problem
from mxa.serve.service import Service
from mxa.serve.upload import FIELD, FORM, RAW, read_upload
from mxa.version import __version__

_OTHER_REQUESTS = 128
"""That are under way besides predictions, at most."""

_FILE = {"type": "string", "format": "binary"}
_UPLOAD = {
    "requestBody": {
        "required": True,
        "description": "A chest radiograph: PNG, JPEG or DICOM.",
        "content": {
            FORM: {"schema": {"type": "object", "required": [FIELD], "properties": {FIELD: _FILE}}},
            **{media_type: {"schema": _FILE} for media_type in RAW},
        },
    }
}
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"description": "The form is damaged or lacks the file."},
    403: {"description": "The request comes from a foreign web page."},
    408: {"description": "The upload took too long."},
    413: {"description": "Too many bytes or pixels."},
    415: {"description": "Neither PNG nor JPEG nor DICOM."},
    422: {"description": "The picture or an option is refused."},
    501: {"description": "A decoder is not installed."},
    503: {"description": "Too much is under way, or it took too long; try again in a moment."},
}
_NO_TOKEN: dict[int | str, dict[str, Any]] = {401: {"description": "The token is missing or wrong."}}
# FastAPI may otherwise send traces, with the messages of errors, where the environment names a collector. Versions
# without it take the argument as well.
_NO_TELEMETRY: Any = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}


def create_app(service: Service, model: ModelBody, gate: Gate, metrics: Metrics, options: ServeOptions) -> FastAPI:
    """Put the parts of a server together.

    While the application runs, decoders are kept quiet in the whole process, see :mod:`mxa.quiet`.

    Args:
        service: makes predictions; closed when the application ends.
        model: what ``/model`` tells.
        gate: admits predictions.
        metrics: what ``/metrics`` tells.
        options: for access and limits.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        with quiet():
            yield
            await asyncio.to_thread(service.close)

    app = FastAPI(
        title="mxa",
        summary="Findings on chest radiographs",
        description=f"{DISCLAIMER} Nothing of an upload is stored or logged.",
        version=__version__,
        docs_url=None,  # FastAPI's own pages load their scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
        telemetry=_NO_TELEMETRY,
    )
    app.add_exception_handler(Refusal, _on_refusal)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    _add_open_routes(app, service)
    _add_model_routes(app, service, model, gate, metrics, options)
    app.add_middleware(
        Guard,
        routes=[route.path for route in app.routes if hasattr(route, "path")],
        metrics=metrics,
        limit=options.queue + _OTHER_REQUESTS,
        loopback_only=options.token() is None,
        linger_bytes=options.max_bytes,
    )
    return app


def _add_open_routes(app: FastAPI, service: Service) -> None:
    """What needs no token: the page, which knows nothing by itself, and whether the server lives."""
    files = load_page()

    def send(file: PageFile, request: Request) -> Response:
        headers = {"Cache-Control": "no-cache", "ETag": file.etag}
        if request.headers.get("if-none-match") == file.etag:
            return Response(status_code=304, headers=headers)
        return Response(file.content, media_type=file.media_type, headers=headers)

    @app.get("/", include_in_schema=False)
    async def page(request: Request) -> Response:
        return send(files[INDEX], request)

    @app.get(STATIC + "{name}", include_in_schema=False)
    async def static(name: str, request: Request) -> Response:
        if name not in files:
            raise Refusal(404, "there is no such file")
        return send(files[name], request)

    @app.get("/health", responses={503: {"model": HealthBody, "description": "Not ready."}})
    async def health(response: Response) -> HealthBody:
        """Whether the server lives and can predict."""
        if not service.ready:
            response.status_code = 503
        return HealthBody(live=True, ready=service.ready)


def _add_model_routes(
    app: FastAPI, service: Service, model: ModelBody, gate: Gate, metrics: Metrics, options: ServeOptions
) -> None:
    """What needs the token, where there is one."""
    token = options.token()
    bearer = HTTPBearer(auto_error=False, description="The server's token.")

    async def check_token(request: Request, _: Annotated[object, Security(bearer)]) -> None:
        if token is not None and not bearer_fits(request.headers.get("authorization", ""), token):
            raise Refusal(401, "the token is missing or wrong; send it as 'Authorization: Bearer TOKEN'")

    guarded = [Security(check_token)] if token is not None else []
    refused = _with_model(_NO_TOKEN) if token is not None else {}

    @app.post(
        "/predict",
        dependencies=guarded,
        responses=_with_model(_PROBLEMS) | refused,
        openapi_extra=_UPLOAD,
        response_model=PredictionBody,
    )
    async def predict(request: Request, ask: Annotated[Ask, Query()]) -> Response:
        """Predict one radiograph: a form with one field, or the file alone."""
        service.check(ask)
        ticket = gate.enter()
        try:
            upload = await asyncio.wait_for(
                read_upload(request.headers, request.stream(), options.max_bytes, ticket.hold), options.upload_seconds
            )
            job = service.submit(upload, ask)
        except asyncio.TimeoutError:
            ticket.give_back()
            raise Refusal(408, f"the upload took longer than {options.upload_seconds:g} s") from None
        except BaseException:
            ticket.give_back()
            raise
        job.add_done_callback(lambda _: ticket.give_back())  # not before: a thread that is late still holds the upload
        try:
            answer = await asyncio.wait_for(asyncio.wrap_future(job), options.predict_seconds)
        except asyncio.TimeoutError:
            raise Refusal(503, f"the prediction took longer than {options.predict_seconds:g} s") from None
        return Response(answer, media_type="application/json")

    @app.get("/model", dependencies=guarded, responses=refused)
    async def describe() -> ModelBody:
        """The model: findings, operating points, model card, limits."""
        return model

    @app.get(
        "/metrics",
        dependencies=guarded,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **refused},
        response_class=Response,
    )
    async def count() -> Response:
        """Counters in Prometheus's text format."""
        return Response(metrics.render(), headers={"Content-Type": CONTENT_TYPE})


def _with_model(problems: dict[int | str, dict[str, Any]]) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": Problem, **about} for status, about in problems.items()}


async def _on_refusal(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    headers = {401: {"WWW-Authenticate": "Bearer"}, 503: {"Retry-After": "1"}}
    return JSONResponse({"detail": error.reason}, error.status, headers.get(error.status))


async def _on_invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    reasons = [f"{'.'.join(str(part) for part in one['loc'][1:])}: {one['msg']}" for one in error.errors()]
    return JSONResponse({"detail": "; ".join(reasons)}, 422)
