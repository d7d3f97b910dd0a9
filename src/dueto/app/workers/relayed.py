"""A bot's request, and what it is answered, as fields of a line between parent and worker."""

import base64
from collections.abc import Mapping
from typing import Any

from dueto.app.http import Answer, Request


def fields_of(request: Request) -> dict[str, Any]:
    """Return a request as fields."""
    body = base64.b64encode(request.body).decode()
    return {"method": request.method, "path": request.path, "headers": dict(request.headers), "body": body}


def request_of(line: Mapping[str, Any]) -> Request:
    """Return the request that a line holds."""
    return Request(line["method"], line["path"], line["headers"], base64.b64decode(line["body"]))


def fields_of_answer(answer: Answer) -> dict[str, Any]:
    """Return an answer as fields."""
    body = base64.b64encode(answer.body).decode()
    return {"status": answer.status, "body": body, "type": answer.content_type, "headers": dict(answer.headers)}


def answer_of(line: Mapping[str, Any]) -> Answer:
    """Return the answer that a line holds."""
    return Answer(line["status"], base64.b64decode(line["body"]), line["type"], line["headers"])
