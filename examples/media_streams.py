"""A bot as people write them for Twilio: it says back what it hears, a second later; `#` hangs up, `0` is a person."""

import base64
import os

import httpx
from fastapi import FastAPI, Request, Response, WebSocket

REST = os.environ.get("TWILIO_BASE_URL", "http://127.0.0.1:8090")
TOKEN = os.environ.get("TWILIO_AUTH_TOKEN", "")
app = FastAPI()


@app.post("/incoming")
async def incoming(request: Request) -> Response:
    url = request.url.replace(scheme="ws", path="/ws", query="")
    return Response(f'<Response><Connect><Stream url="{url}"/></Connect></Response>', media_type="text/xml")


@app.websocket("/ws")
async def stream(websocket: WebSocket) -> None:
    await websocket.accept()
    late = b"\xff" * 8000  # a second of mu-law silence
    start = {}
    async for message in websocket.iter_json():
        match message:
            case {"event": "start", "start": start}:
                pass
            case {"event": "media", "media": {"payload": payload}}:
                late += base64.b64decode(payload)
                say, late = late[:-8000], late[-8000:]
                media = {"payload": base64.b64encode(say).decode()}
                await websocket.send_json({"event": "media", "streamSid": start["streamSid"], "media": media})
            case {"event": "dtmf", "dtmf": {"digit": "#"}}:
                await update(start, Status="completed")
            case {"event": "dtmf", "dtmf": {"digit": "0"}}:
                await update(start, Twiml="<Response><Dial>operator</Dial></Response>")


async def update(start: dict[str, str], **form: str) -> None:
    url = f"{REST}/2010-04-01/Accounts/{start['accountSid']}/Calls/{start['callSid']}.json"
    async with httpx.AsyncClient(auth=(start["accountSid"], TOKEN)) as client:
        (await client.post(url, data=form)).raise_for_status()
