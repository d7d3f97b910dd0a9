"""An agent of your own is a coroutine that gets a call: this one asks for a key and connects the caller.

dueto serve --config own_agent.toml      (the gateway speaks with flite or espeak-ng: one of them has to be there)
"""

from dueto import Call

PEOPLE = {"1": "sales", "2": "workshop"}


async def menu(call: Call) -> None:
    for _ in range(3):
        pressed = await call.gather(prompt="Press 1 for sales, or 2 for the workshop.", first_timeout_s=6.0)
        if pressed.digits in PEOPLE:
            result = await call.transfer(PEOPLE[pressed.digits])
            if result.ok:  # the two talk; what comes after it is `agent.when_done`
                return
            call.log.info("nobody_there", outcome=result.outcome)  # busy, no_answer, ...
            await call.say("Nobody is there.")
    await call.say("Please call again later. Goodbye.")  # returns when he has HEARD it
