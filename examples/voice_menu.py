"""A menu as people write them for Twilio, in TwiML: `1` or "sales" is a person, anything else is asked again.

uvicorn voice_menu:app --port 8766            (pip install fastapi 'uvicorn[standard]' twilio)
"""

from urllib.parse import parse_qsl

from fastapi import FastAPI, Request, Response
from twilio.twiml.voice_response import Gather, VoiceResponse

app = FastAPI()


@app.post("/incoming")
async def incoming() -> Response:
    answer = VoiceResponse()
    menu = Gather(input="dtmf speech", num_digits=1, timeout=6, action="/chosen")
    menu.say("For sales, press one, or say: sales.")
    answer.append(menu)
    answer.say("I did not hear you. Goodbye.")
    return Response(str(answer), media_type="text/xml")


@app.post("/chosen")
async def chosen(request: Request) -> Response:
    form = dict(parse_qsl((await request.body()).decode()))
    answer = VoiceResponse()
    if form.get("Digits") == "1" or "sales" in form.get("SpeechResult", "").lower():
        answer.dial("sales")
    else:
        answer.redirect("/incoming")
    return Response(str(answer), media_type="text/xml")
