"""A channel of the simulated switch: what is done to it, and the queue of what applications are to run on it."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from dueto.sim.counters import Counters
from dueto.sim.face import Face, Record
from dueto.sim.faults import Faults
from dueto.sim.headers import Q850
from dueto.sim.messages import MAX_WAITING, Message
from dueto.sim.sounds import Sound
from dueto.sim.unicast import RESETTING, Unicast

if TYPE_CHECKING:
    from dueto.sim.audio_module import AudioModule
    from dueto.sim.bridge import BLeg
    from dueto.sim.caller import Caller
    from dueto.sim.core import Core
    from dueto.sim.together import Room


class Channel(Face):
    """One call leg inside the switch.

    Its applications are coroutines; they wait in `idle`, which ends with the next 20 ms frame in which something
    happened (`stir`), as a channel's thread looks at its queue once per frame.
    """

    def __init__(
        self, core: "Core", unique_id: str, caller: "Caller", *, counters: Counters, faults: Faults, record: Record
    ) -> None:
        super().__init__(core, unique_id, caller, counters=counters, faults=faults, record=record)
        self.stream: AudioModule | None = None
        self.unicast: Unicast | None = None
        self.unicast_asked = 0
        "How often it was asked for."
        self.parks = False
        "Its park loop runs, and nothing inside of it."
        self._loop_had_unicast = False
        self.playing: Sound | None = None
        self.b_leg: BLeg | None = None
        self.peer: Channel | None = None
        "The channel that `uuid_bridge` connected it with."
        self.bridge_first = False
        self.dial = ""
        "The dial string that `originate` called it by."
        self.room: Room | None = None
        "The conference it is in."
        self.far_room: Room | None = None
        "The conference that its far half is in, for a loopback channel."
        self.saying: bytes | None = None
        "What came from its telephone in this frame."
        self.recordings: set[str] = set()
        "The files that `uuid_record` writes."
        self.next_actions: list[tuple[str, str]] | None = None
        "Where a transfer sends the channel; the running applications end."
        self.media_ready = asyncio.Event()
        "Set by the answer, by early media, and by the hangup."
        self.control_ready = asyncio.Event()
        "Set by the first `connect`."
        self._inline = False
        self.on_hangup: list[Callable[[], None]] = []
        self._messages: deque[Message] = deque()
        self._locks = 0
        self._break = False
        self._interruptible = 0  # applications that `uuid_break` ends, one inside the other
        self._digits: deque[tuple[str, int, str]] = deque()
        self._pending_hangup: str | None = None
        self._stirred = False
        self._waiter: asyncio.Future[None] | None = None

    # -- what others do to the channel -----------------------------------------------------------------------------

    def hang_up_soon(self, cause: str) -> None:
        """Hang up with the next frame: how a caller's BYE reaches the channel."""
        if self.up and self._pending_hangup is None:
            self._pending_hangup = cause
            self.stir()

    def hang_up(self, cause: str = "NORMAL_CLEARING", *, by_caller: bool = False) -> None:
        """End the call: CHANNEL_HANGUP now, the rest when the applications have unwound."""
        if not self.up:
            return
        self.up = False
        self.state = "CS_HANGUP"
        self.hangup_cause = cause if cause in Q850 else "NORMAL_CLEARING"
        self.answer_state = "hangup"
        self.hung_up_epoch = self.core.epoch()
        self.hung_up_by_caller = by_caller
        if not by_caller:
            self.emit("CHANNEL_HANGUP")
        elif cause == "ORIGINATOR_CANCEL":
            self.set_variable("sip_hangup_disposition", "recv_cancel")
            self.emit("CHANNEL_HANGUP")
            self._term("487", "487")
        else:
            self._term("200", "16")
            self.emit("CHANNEL_HANGUP")
            self.set_variable("sip_hangup_disposition", "recv_bye")
        self.media_ready.set()
        for tell in self.on_hangup:
            tell()
        self.stir()
        if self.peer is not None:
            self.peer.stir()

    def _term(self, status: str, cause: str) -> None:
        self.set_variable("sip_term_status", status)
        self.set_variable("proto_specific_hangup_cause", f"sip:{status}")
        self.set_variable("sip_term_cause", cause)

    def transfer(self, actions: list[tuple[str, str]], destination: str, *, inline: bool = False) -> None:
        """Leave what is running and go on with `actions`, under the name of `destination`.

        `inline`: the actions were given, not looked up; once they run the channel has its former name again.
        """
        if not self.up:
            return
        self.next_actions = actions
        self._inline = inline
        self.state = "CS_ROUTING"
        self.transferred_from, self.destination = self.destination, destination
        where = f"{self.destination}/default/XML"
        self.transfer_source = f"{int(self.core.epoch())}:{self.core.new_uuid()}:bl_xfer:{where}"
        self.set_variable("transfer_history", self.transfer_source)
        self.set_variable("transfer_source", self.transfer_source)
        self.profile_changed()
        self.stir()

    def routed(self) -> None:
        """What is to run is known now."""
        if self._inline:
            self._inline = False
            self.destination, self.transferred_from = self.transferred_from, ""

    def queue(self, message: Message) -> bool:
        """Put a sendmsg in the queue; False: it is full, which costs the sender its socket."""
        if not self.up:
            return True
        if len(self._messages) >= MAX_WAITING:
            return False
        self._messages.append(message)
        self.stir()
        return True

    def break_(self, *, everything: bool) -> None:
        """`uuid_break`: end what is playing; with `everything` also forget, without a word, what waits."""
        if everything:
            self._messages.clear()
        if self._interruptible:
            self._break = True
            self.stir()

    def press(self, digit: str, duration: int, source: str) -> None:
        """Receive a digit; `duration` in samples at 8 kHz."""
        self._digits.append((digit, duration, source))

    def hold(self, on: bool, *, by_caller: bool) -> None:
        """Hold, or take back."""
        if on == self.held or not self.up:
            return
        self.held, self.held_by_caller = on, on and by_caller
        self.set_call_state("HELD" if on else "UNHELD")
        if by_caller:
            self._hold_told()
        else:
            self.core.loop.call_later(self.core.frame_s, self._hold_told)

    def _hold_told(self) -> None:
        if not self.up:
            return
        self.emit("CHANNEL_HOLD" if self.held else "CHANNEL_UNHOLD")
        if not self.held:
            self.set_call_state("ACTIVE")

    def answer(self) -> None:
        """Answer, if that is still to be done, and run `api_on_answer`."""
        if self.answered or not self.up:
            return
        self.answer_state = "answered"
        self.answered_epoch = self.core.epoch()
        self.media_ready.set()
        self.profile_changed()
        self.emit("CHANNEL_ANSWER")
        self.set_call_state("ACTIVE")
        self.set_variable("endpoint_disposition", "ANSWER")
        if command := self.variables.get("api_on_answer"):
            self.core.run_api(self, command)

    def pre_answer(self) -> None:
        """Begin early media, if there is none yet."""
        if self.has_media or not self.up:
            return
        self.answer_state = "early"
        self.early_epoch = self.core.epoch()
        self.media_ready.set()
        self.profile_changed()
        self.set_variable("endpoint_disposition", "EARLY MEDIA")
        self.emit("CHANNEL_PROGRESS_MEDIA")
        self.set_call_state("EARLY")

    # -- the channel's own thread, so to speak ---------------------------------------------------------------------

    def stir(self) -> None:
        """Have the waiting application look around at the next frame."""
        self._stirred = True

    def frame(self) -> bool:
        """One frame has passed: digits, the hangup of the caller, and whoever waits in `idle`.

        Returns whether somebody did: what he does now comes before the next frame.
        """
        if self._digits and self.up:
            self._take_digit(*self._digits.popleft())
        if self._pending_hangup is not None:
            cause, self._pending_hangup = self._pending_hangup, None
            self.hang_up(cause, by_caller=True)
        if self._stirred and self._waiter is not None and not self._waiter.done():
            self._stirred = False
            self._waiter.set_result(None)
            return True
        return False

    def _take_digit(self, digit: str, duration: int, source: str) -> None:
        self.emit("DTMF", (("DTMF-Digit", digit), ("DTMF-Duration", str(duration)), ("DTMF-Source", source)))
        terminators = self.variables.get("playback_terminators", "*")
        if self.playing is not None and terminators != "none" and (terminators == "any" or digit in terminators):
            self.set_variable("playback_terminator_used", digit)
            self._break = True
            self.stir()

    async def idle(self) -> None:
        """Wait for the next frame in which something has happened."""
        self._waiter = self.core.loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    @property
    def staying(self) -> bool:
        """Whether applications go on: not hung up, not transferred."""
        return self.up and self.next_actions is None

    async def attend(self, done: Callable[[], bool], *, breakable: bool = True) -> bool:
        """Wait until `done`, the end or a transfer, running what is queued meanwhile inside. Returns False: broken off.

        A break ends the innermost application first, and then one by one those around it.
        """
        self._interruptible += breakable
        try:
            while self.staying and not done():
                if breakable and self._break:
                    self._break = False
                    return False
                message = self._take_message()
                if message is None:
                    await self.idle()
                elif not await self._run(message) and breakable:
                    self.stir()
                    await self.idle()
                    return False
            return True
        finally:
            self._interruptible -= breakable
            if not self._interruptible:
                self._break = False

    def _take_message(self) -> Message | None:
        return self._messages.popleft() if self._messages and not self._locks else None

    async def park(self, done: Callable[[], bool]) -> bool:
        """Run the park loop, until `done` or the end. Only here is there a `unicast`."""
        self.emit("CHANNEL_PARK")
        self.parks, self._loop_had_unicast = True, False
        try:
            whole = await self.attend(done, breakable=False)
        finally:
            self.parks = False
            self._end_unicast()
        self.emit("CHANNEL_UNPARK")
        return whole

    async def _begin_unicast(self, message: Message) -> None:
        ours, far = message.ends
        began = Unicast(self, far)
        if not await began.open(ours):
            return
        if not self.parks or self._loop_had_unicast:  # inside an application, or the second one: nothing comes of it
            began.close()
            return
        self._loop_had_unicast = True
        self.pre_answer()
        self.unicast = began

    def lose_unicast(self) -> None:
        """The switch gives its `unicast` up by itself, as it does where a packet can't be decoded or sent."""
        self._end_unicast()

    def _end_unicast(self) -> None:
        if self.unicast is not None:
            self.unicast.close()
            self.unicast = None
            self.record.note("media", "unicast_ended")

    async def _run(self, message: Message) -> bool:
        if message.command == "unicast":
            await self._begin_unicast(message)
            return True
        self._locks += message.lock
        parked, self.parks = self.parks, False
        try:
            if message.command == "hangup":
                self.hang_up(message.cause)
                return True
            return await self.execute(message.application, message.argument, message.uuid, message.loops)
        finally:
            self._locks -= message.lock
            self.parks = parked
            if message.application in RESETTING:
                self._end_unicast()

    async def execute(self, application: str, argument: str, uuid: str = "", loops: int = 1) -> bool:
        """Run an application between its EXECUTE and EXECUTE_COMPLETE. Returns False: it was broken off."""
        run = self.core.applications.get(application)
        if run is None:
            self.set_variable("app_uuid", uuid or None)
            self.hang_up("DESTINATION_OUT_OF_ORDER")
            return True
        done = 0
        while True:
            done += 1
            self._last = (application, argument)
            uuid = uuid or self.core.new_uuid()
            told = [("Application", application), *([("Application-Data", argument)] if argument else [])]
            self.set_variable("current_loop", str(done))
            self.set_variable("total_loops", str(loops))
            self.set_variable("current_application", application)
            self.set_variable("current_application_data", argument)
            self.set_variable("current_application_response", None)
            self.emit("CHANNEL_EXECUTE", (*told, ("Application-UUID", uuid)))
            began = self.core.now()
            whole = await run(self, argument)
            response = self.variables.get("current_application_response", "_none_")
            complete = (*told, ("Application-Response", response), ("Application-UUID", uuid))
            self.emit("CHANNEL_EXECUTE_COMPLETE", complete)
            if done == loops or not whole or not self.staying or self.core.now() - began < 0.5:
                return whole

    def respond(self, text: str) -> None:
        """Say how the application went: its `Application-Response`."""
        self.set_variable("current_application_response", text)

    def finish(self) -> None:
        """Fire what comes between the hangup and the end of the media."""
        self._messages.clear()
        if not self.hung_up_by_caller:
            self.set_variable("sip_hangup_disposition", "send_bye" if self.answered_epoch else "send_refuse")
        self.set_running_state("CS_HANGUP")
        if self.stream is not None:
            self.emit("MEDIA_BUG_STOP", second=self.stream.bug_pairs)
        self.set_call_state("HANGUP")
