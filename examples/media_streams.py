"""A bot as people write them for Twilio: it says back what it hears, a second later; `#` hangs up, `0` is a person."""

import base64
import os

import httpx
from fastapi import FastAPI, Request, Response, WebSocket

REST, TOKEN = os.environ.get("TWILIO_BASE_URL", "http://127.0.0.1:8090"), os.environ.get("TWILIO_AUTH_TOKEN", "")
app = FastAPI()


@app.post("/incoming")
async def incoming(request: Request) -> Response:
    twiml = f'<Response><Connect><Stream url="ws://{request.url.netloc}/ws"/></Connect></Response>'
    return Response(twiml, media_type="text/xml")


@app.websocket("/ws")
async def stream(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.receive_json()  # "connected"
    start = (await websocket.receive_json())["start"]
    late = b"\xff" * 8000  # a second of mu-law silence
    async for message in websocket.iter_json():
        match message:
            case {"event": "media", "media": {"payload": payload}}:
                late += base64.b64decode(payload)
                media = {"payload": base64.b64encode(late[:-8000]).decode()}
                late = late[-8000:]
                await websocket.send_json({"event": "media", "streamSid": start["streamSid"], "media": media})
            case {"event": "dtmf", "dtmf": {"digit": "#" | "0" as digit}}:
                person = {"Twiml": "<Response><Dial>operator</Dial></Response>"}
                await update(start, {"Status": "completed"} if digit == "#" else person)


async def update(start: dict[str, str], form: dict[str, str]) -> None:
    calls = f"{REST}/2010-04-01/Accounts/{start['accountSid']}/Calls"
    async with httpx.AsyncClient(auth=(start["accountSid"], TOKEN)) as client:
        (await client.post(f"{calls}/{start['callSid']}.json", data=form)).raise_for_status()
