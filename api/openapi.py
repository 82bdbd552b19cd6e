"""The OpenAPI 3.1 document, generated from the declared operations and the pydantic models. Serves nothing itself."""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from api.errors import ERRORS, PROBLEM_TYPE
from api.routing import PATH_PARAMETER, Operation, Routes
from api.schemas import ProblemDocument

REF: Final = "#/components/schemas/{model}"
_PATH_SCHEMAS: Final[dict[str, dict[str, Any]]] = {
    "uuid": {"type": "string", "format": "uuid"},
    "int": {"type": "integer", "minimum": 0},
    "default": {"type": "string"},
    "path": {"type": "string"},
}
_ALWAYS: Final = ("unavailable", "internal_error")
_SCOPED: Final = ("missing_key", "invalid_key", "missing_scope", "rate_limited")


def document(all_routes: Iterable[Routes], *, version: str, server: str) -> dict[str, Any]:
    """The whole description of the API as a JSON-ready dict."""
    groups = list(all_routes)
    operations = [(routes.tag, operation) for routes in groups for operation in routes.operations]
    paths: dict[str, dict[str, Any]] = {}
    for tag, operation in operations:
        path = PATH_PARAMETER.sub(r"{\2}", operation.path)
        paths.setdefault(path, {})[operation.method.lower()] = _operation(tag, operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tagmill",
            "version": version,
            "summary": "Bulk image tagging and moderation.",
            "description": "Submit picture URLs or files as a job; read tags, verdicts and facts.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": server or "/"}],
        "tags": [{"name": routes.tag, "description": routes.about} for routes in groups],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "An API key: `tgm_live_…`."}
            },
            "schemas": _schemas([operation for _, operation in operations]),
            "responses": _problems(),
        },
    }


def _operation(tag: str, operation: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.name,
        "tags": [tag],
        "summary": operation.summary,
        "description": inspect.cleandoc(operation.view.__doc__ or ""),
        "parameters": [*_path_parameters(operation), *_query_parameters(operation), *_headers(operation)],
        "responses": {
            **{str(status): _answer(answer) for status, answer in operation.answers.items()},
            **_error_responses(operation),
        },
        "security": [] if operation.scope is None else [{"key": [operation.scope]}],
    }
    if operation.scope is not None:
        described["x-scope"] = operation.scope
    if operation.body:
        content = {kind: {"schema": _schema(shape)} for kind, shape in operation.body.items()}
        described["requestBody"] = {"required": operation.method == "POST" and len(content) > 1, "content": content}
    return described


def _schema(shape: type[BaseModel] | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(shape, Mapping):
        return dict(shape)
    return {"$ref": REF.format(model=shape.__name__)}


def _answer(answer: Any) -> dict[str, Any]:
    content = {kind: {"schema": dict(schema)} for kind, schema in answer.content.items()}
    if answer.model is not None:
        content["application/json"] = {"schema": _schema(answer.model)}
    described: dict[str, Any] = {"description": answer.description}
    if content:
        described["content"] = content
    if answer.headers:
        described["headers"] = {
            name: {"description": text, "schema": {"type": "string"}} for name, text in answer.headers.items()
        }
    return described


def _error_responses(operation: Operation) -> dict[str, Any]:
    codes = [*operation.errors, *_ALWAYS]
    if operation.scope is not None:
        codes += _SCOPED
    if operation.query is not None:
        codes.append("invalid_parameter")
    by_status: dict[int, list[str]] = {}
    for code in codes:
        by_status.setdefault(ERRORS[code][0], []).append(code)
    return {
        str(status): {
            "description": ", ".join(f"`{code}`" for code in dict.fromkeys(found)),
            "content": {PROBLEM_TYPE: {"schema": {"$ref": REF.format(model=ProblemDocument.__name__)}}},
        }
        for status, found in sorted(by_status.items())
    }


def _path_parameters(operation: Operation) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": _PATH_SCHEMAS[kind or "default"]}
        for kind, name in PATH_PARAMETER.findall(operation.path)
    ]


def _query_parameters(operation: Operation) -> list[dict[str, Any]]:
    if operation.query is None:
        return []
    schema = operation.query.model_json_schema()
    required = schema.get("required", [])
    found = []
    for name, shape in schema["properties"].items():
        shape = {key: value for key, value in shape.items() if key != "title"}
        description = shape.pop("description", "")
        found.append(
            {"name": name, "in": "query", "required": name in required, "description": description, "schema": shape}
        )
    return found


def _headers(operation: Operation) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "header", "required": False, "description": text, "schema": {"type": "string"}}
        for name, text in operation.headers.items()
    ]


def _problems() -> dict[str, Any]:
    schema = {"$ref": REF.format(model=ProblemDocument.__name__)}
    return {
        code: {"description": f"{status}: {title}", "content": {PROBLEM_TYPE: {"schema": schema}}}
        for code, (status, title) in ERRORS.items()
    }


def _schemas(operations: list[Operation]) -> dict[str, Any]:
    sent = {shape for op in operations for shape in op.body.values() if isinstance(shape, type)}
    given = {answer.model for op in operations for answer in op.answers.values() if answer.model is not None}
    given.add(ProblemDocument)
    models = [*((model, "validation") for model in sent), *((model, "serialization") for model in given)]
    models.sort(key=lambda pair: pair[0].__name__)  # a stable document: diffs show real changes only
    _, definitions = models_json_schema(models, ref_template=REF)  # type: ignore[arg-type]
    found: dict[str, Any] = definitions["$defs"]
    return found
